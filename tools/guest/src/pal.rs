//! PALs in a bare guest: registered and called from ring 3, in 64-bit mode or in compatibility mode.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

pub mod prelude;

use core::sync::atomic::{AtomicU32, Ordering};

use trustvisor::command::{Command, NESTED_OFFSET};
use trustvisor::parameter::{ParameterRecord, ParameterType};
use trustvisor::section::{SectionRecord, SectionType};
use trustvisor::{probe, section};

use crate::memory::{FREE, read8, write8, write32, write64};
use crate::run::USER_BASE;
use crate::{Fault, Mode, Regs, Snippet, cpu, run, smp, snippet};

/// RFLAGS.IF, without which no PAL can be called.
pub const IF: u64 = 1 << 9;
/// RFLAGS.CF, set where a call failed.
pub const CF: u64 = 1;
/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Where lists and arguments are put: a page each, in front of everything else, for each CPU.
const LISTS: u64 = FREE;
const ARGUMENTS: u64 = FREE + 0x2000;
const BYTES_A_CPU: u64 = 0x8000;
/// Where PALs are put.
pub const PALS: u64 = FREE + 0x10_0000;

/// A PAL of four pages that follow each other: code, data, parameters, stack.
#[derive(Clone, Copy, Debug)]
pub struct Pal {
    /// Physical address of the first page.
    pub at: u64,
    /// [`Mode::User64`], [`Mode::CompatibilityUser32`] or [`Mode::PagedUser32`].
    pub mode: Mode,
}

/// Added to commands: [`NESTED_OFFSET`] in a guest of this guest.
static OFFSET: AtomicU32 = AtomicU32::new(0);

/// Has commands bear the offset that a guest of this guest needs, or not.
pub fn bear_offset(is_nested: bool) {
    OFFSET.store(if is_nested { NESTED_OFFSET } else { 0 }, Ordering::SeqCst);
}

/// Whether TrustVisor is beneath.
pub fn is_present() -> bool {
    cpu::cpuid(probe::LEAF, OFFSET.load(Ordering::SeqCst)).eax == probe::PRESENT
}

/// Linear address that ring 3 has for a physical one.
pub fn user(mode: Mode, address: u64) -> u64 {
    if mode == Mode::User64 { USER_BASE + address } else { address }
}

impl Pal {
    /// Puts `code` in place `number`, and 0x90 in the pages behind it.
    pub fn place(mode: Mode, number: u64, code: Snippet) -> Self {
        let pal = Self { at: PALS + number * 4 * PAGE, mode };
        for offset in 0..code.length() as u64 {
            let _ = write8(pal.at + offset, read8(code.address() + offset).unwrap_or(0));
        }
        for offset in (PAGE..4 * PAGE).step_by(8) {
            let _ = write64(pal.at + offset, 0x9090_9090_9090_9090);
        }
        pal
    }

    /// Linear address of the entry: the first byte of the code.
    pub fn entry(&self) -> u64 {
        user(self.mode, self.at)
    }

    /// Physical address of the data page.
    pub fn data(&self) -> u64 {
        self.at + PAGE
    }

    /// The four sections.
    pub fn sections(&self) -> [SectionRecord; 4] {
        let kinds = [SectionType::Code, SectionType::Data, SectionType::Parameters, SectionType::Stack];
        let mut start = self.entry().wrapping_sub(PAGE);
        kinds.map(|kind| {
            start += PAGE;
            SectionRecord { kind: kind as u32, pages: 1, start }
        })
    }

    /// Registers it with these parameters; gives the status.
    pub fn register(&self, parameters: &[(ParameterType, u64)]) -> u32 {
        register(self.mode, &self.sections(), parameters, self.entry())
    }

    /// Ends its registration; gives the status.
    pub fn unregister(&self) -> u32 {
        hypercall(self.mode, Command::UNREGISTER.0, [self.entry(), 0, 0, 0])
    }

    /// Calls it with ten words; gives the registers behind the call.
    pub fn call(&self, arguments: [u64; 10]) -> Result<Regs, Fault> {
        call(self.mode, self.entry(), arguments, IF)
    }
}

/// Registers a PAL by the lists as they are; gives the status.
pub fn register(
    mode: Mode,
    sections: &[SectionRecord],
    parameters: &[(ParameterType, u64)],
    entry: u64,
) -> u32 {
    register_by(Command::REGISTER, mode, sections, parameters, [entry, 0])
}

/// The same with flags; gives the status.
pub fn register_with_flags(
    mode: Mode,
    sections: &[SectionRecord],
    parameters: &[(ParameterType, u64)],
    entry: u64,
    flags: u32,
) -> u32 {
    register_by(Command::REGISTER_WITH_FLAGS, mode, sections, parameters, [entry, flags.into()])
}

/// The same with the signed header at `header`; gives the status.
pub fn register_signed(
    mode: Mode,
    sections: &[SectionRecord],
    parameters: &[(ParameterType, u64)],
    entry: u64,
    header: u64,
) -> u32 {
    register_by(Command::REGISTER_SIGNED, mode, sections, parameters, [entry, header])
}

fn register_by(
    command: Command,
    mode: Mode,
    sections: &[SectionRecord],
    parameters: &[(ParameterType, u64)],
    [entry, edx]: [u64; 2],
) -> u32 {
    let lists = of_this_cpu(LISTS);
    let parameter_list = lists + PAGE;
    let _ = write64(lists, sections.len() as u64);
    for (address, record) in (lists + section::HEADER_BYTES as u64..).step_by(16).zip(sections) {
        put(address, record.to_bytes());
    }
    let _ = write64(parameter_list, parameters.len() as u64);
    for (address, &(kind, words)) in (parameter_list + 8..).step_by(16).zip(parameters) {
        put(address, ParameterRecord { kind: kind as u32, unused: 0, words }.to_bytes());
    }
    hypercall(mode, command.0, [user(mode, lists), edx, user(mode, parameter_list), entry])
}

fn of_this_cpu(address: u64) -> u64 {
    address + BYTES_A_CPU * smp::number() as u64
}

fn put(address: u64, bytes: [u8; 16]) {
    for (address, byte) in (address..).zip(bytes) {
        let _ = write8(address, byte);
    }
}

/// VMCALL from `mode` with ECX, EDX, ESI and EDI; gives EAX, or all ones where it faulted.
pub fn hypercall(mode: Mode, command: u32, [rcx, rdx, rsi, rdi]: [u64; 4]) -> u32 {
    let rax = u64::from(command.wrapping_add(OFFSET.load(Ordering::SeqCst)));
    let mut regs = Regs { rax, rcx, rdx, rsi, rdi, rflags: IF, ..Regs::default() };
    let code = if mode == Mode::User64 { snippet!("vmcall") } else { snippet!(code32: "vmcall") };
    match run(mode, code, &mut regs) {
        Ok(()) => regs.eax(),
        Err(_) => u32::MAX,
    }
}

/// Calls `entry` as a function of ten words from `mode`, with `rflags`; gives the registers behind the call.
///
/// # Errors
///
/// The fault that the call took.
pub fn call(mode: Mode, entry: u64, arguments: [u64; 10], rflags: u64) -> Result<Regs, Fault> {
    let bits64 = mode == Mode::User64;
    let place = of_this_cpu(ARGUMENTS);
    for (index, argument) in (0..).zip(arguments) {
        if bits64 {
            let _ = write64(place + 8 * index, argument);
        } else {
            let _ = write32(place + 4 * index, argument as u32);
        }
    }
    let mut regs = Regs {
        rax: 0x1111_1111,
        rbx: 0x2222_2222,
        rcx: 0x3333_3333,
        rbp: 0x4444_4444,
        r10: 0x5555,
        r11: 0x6666,
        r12: 0x7777,
        r13: 0x8888,
        rflags,
        ..Regs::default()
    };
    if bits64 {
        regs.r14 = user(mode, place);
        regs.r15 = entry;
        run(mode, call_of_64_bits(), &mut regs)?;
    } else {
        regs.rsi = place;
        regs.rdi = entry;
        run(mode, call_of_32_bits(), &mut regs)?;
    }
    Ok(regs)
}

fn call_of_64_bits() -> Snippet {
    snippet!(
        "push qword ptr [r14 + 72]",
        "push qword ptr [r14 + 64]",
        "push qword ptr [r14 + 56]",
        "push qword ptr [r14 + 48]",
        "mov rdi, [r14]",
        "mov rsi, [r14 + 8]",
        "mov rdx, [r14 + 16]",
        "mov rcx, [r14 + 24]",
        "mov r8, [r14 + 32]",
        "mov r9, [r14 + 40]",
        "call r15",
        "lea rsp, [rsp + 32]"
    )
}

fn call_of_32_bits() -> Snippet {
    // Ring 3 begins with null selectors.
    snippet!(code32:
        "push ss",
        "pop ds",
        "push dword ptr [esi + 36]",
        "push dword ptr [esi + 32]",
        "push dword ptr [esi + 28]",
        "push dword ptr [esi + 24]",
        "push dword ptr [esi + 20]",
        "push dword ptr [esi + 16]",
        "push dword ptr [esi + 12]",
        "push dword ptr [esi + 8]",
        "push dword ptr [esi + 4]",
        "push dword ptr [esi]",
        "call edi",
        "lea esp, [esp + 40]"
    )
}
