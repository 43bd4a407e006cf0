//! The last that the hypervisor does: nothing that was secret stays in memory, where a reset would leave it to whoever
//! boots next.
//!
//! First go the guest's pages that were hidden from the guest, whatever the hypapp did about them; then all of the
//! hypervisor region that was ever written but what the secure loader's page tables are in: handoff, that image's stack,
//! the runtime's data, heap, stacks, saved registers, tables. These page tables map the whole region, private memory
//! too, where the runtime's own would be zeroed under its feet. What is left is the image's code and constants, which are no
//! secret. Caches are written back, as a reset may drop what they hold. The handoff goes last, when all else is zero in
//! memory: an NMI meanwhile, which the guest may have set going, resets the machine, and its trace must then be there. What an earlier boot left that came to no such
//! end is the bootloader's business (`platform::remains`).
//!
//! UNSAFETY: zeroes the memory that the code stands on.
#![expect(unsafe_code, reason = "the end of all Rust objects")]

use crate::machine::{self, SECOND_LEVEL};
use crate::memory::host::GuestFrames;
use core::arch::asm;
use hw::bare::Processor;
use hw::bare::processor::{halt, shut_down, wait_until};
use hw::{PortWidth, Ports};
use platform::handoff::{
    HANDOFF_OFFSET, Handoff, LOADER_TABLES_OFFSET, STACK_OFFSET, STACK_SIZE, VIRTUAL_BASE,
};
use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

const KEYBOARD_COMMAND: u16 = 0x64;
const PULSE_RESET: u32 = 0xfe;
const RESET_CONTROL: u16 = 0xcf9;
const FULL_RESET: u32 = 0x06;
/// Ticks after which a reset has not happened: tens of milliseconds.
const RESET_PATIENCE: u64 = 200_000_000;
const WORD: u64 = 8;

/// A port write that needs no memory: port, width and value in one number; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastWrite(u64);

impl LastWrite {
    pub(crate) fn new(port: u16, width: PortWidth, value: u32) -> Self {
        Self(u64::from(port) | (width as u64) << 16 | u64::from(value) << 32)
    }
}

/// What happens when all is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Last {
    /// The processor halts.
    Halt,
    /// These writes cut the power, however long it takes: who switches a machine off does not want it to start again.
    PowerOff([LastWrite; 3]),
    /// This write resets the machine; where it does not, or there is none, the next kind of reset does.
    Reset(LastWrite),
}

/// Zeroes all and leaves. No other CPU runs the guest, nor hypervisor code that it could miss.
pub(crate) fn leave(last: Last) -> ! {
    zero_hidden_pages();
    leave_at_once(last)
}

/// As [`leave`], where even to look for hidden pages failed.
pub(crate) fn leave_at_once(last: Last) -> ! {
    let (writes, resets) = match last {
        Last::Halt => ([LastWrite::default(); 3], 0_u64),
        Last::PowerOff(writes) => (writes, 0),
        Last::Reset(write) => ([write, LastWrite::default(), LastWrite::default()], 1),
    };
    let [first, second, third] = writes.map(|write| write.0);
    let (data, region_end) = (machine::data_start(), VIRTUAL_BASE + machine::region().length());
    let handoff = (size_of::<Handoff>() as u64).next_multiple_of(PAGE_SIZE);
    let tables = machine::region().base().get() + LOADER_TABLES_OFFSET;
    // SAFETY: the secure loader's tables map the region as its first stage left them, this code where it is and all three
    // ranges, which are whole words, writable. Nothing runs here any more but this code and
    // `finish`, on the secure loader's stack, which no other code uses since the guest's first entry; neither touches
    // memory beside it. An exception or NMI finds no handler: the processor shuts down, which is a reset.
    unsafe {
        asm!(
            "cli",
            "cld",
            // The runtime's own tables are zeroed below.
            "mov cr3, rsi",
            "xor eax, eax",
            "rep stosq",
            "mov rsp, rdi",
            "mov rdi, r8",
            "mov rcx, r9",
            "rep stosq",
            "wbinvd",
            // All else has reached memory: only now the trace goes that a later boot would find.
            "mov rdi, r10",
            "mov rcx, r11",
            "rep stosq",
            "wbinvd",
            "mov rdi, r12",
            "mov rsi, r13",
            "mov rdx, r14",
            "mov rcx, r15",
            "xor ebx, ebx",
            "xor ebp, ebp",
            "xor r8d, r8d",
            // As a call would leave the stack pointer, but for the return address.
            "sub rsp, 8",
            "jmp {finish}",
            finish = sym finish,
            in("rsi") tables,
            in("rdi") VIRTUAL_BASE + STACK_OFFSET,
            in("rcx") STACK_SIZE / WORD,
            in("r8") data,
            in("r9") (region_end - data) / WORD,
            in("r10") VIRTUAL_BASE + HANDOFF_OFFSET,
            in("r11") handoff / WORD,
            in("r12") first,
            in("r13") second,
            in("r14") third,
            in("r15") resets,
            options(noreturn),
        )
    }
}

/// Runs where there is no data any more: neither statics nor what belongs to a CPU.
#[expect(clippy::cast_possible_truncation, reason = "taken apart as `LastWrite::new` put it together")]
extern "C" fn finish(first: u64, second: u64, third: u64, resets: u64) -> ! {
    for write in [first, second, third] {
        let width = match write >> 16 & 0xffff {
            0 => continue,
            1 => PortWidth::Byte,
            2 => PortWidth::Word,
            _ => PortWidth::Dword,
        };
        Processor.write(write as u16, width, (write >> 32) as u32);
    }
    if resets == 0 {
        halt()
    }
    wait_until(RESET_PATIENCE, || false);
    Processor.write(KEYBOARD_COMMAND, PortWidth::Byte, PULSE_RESET);
    wait_until(RESET_PATIENCE, || false);
    Processor.write(RESET_CONTROL, PortWidth::Byte, FULL_RESET);
    wait_until(RESET_PATIENCE, || false);
    shut_down()
}

/// Zeroes what decoys stood in for.
fn zero_hidden_pages() {
    const ZEROS: [u8; 4096] = [0; _];
    let second_level = crate::log::try_for_a_while(&SECOND_LEVEL).unwrap_or_else(|| {
        // SAFETY: whoever has it stands still, or is this CPU, whose code there never goes on.
        unsafe { SECOND_LEVEL.force_unlock() };
        SECOND_LEVEL.lock()
    });
    let pages = second_level.policy().hidden_pages();
    for page in pages {
        // What is no memory keeps no secret.
        let _ = GuestFrames::write(HostPhysAddr::new(page), &ZEROS);
    }
}
