//! The measured boot story, in call order.
#![expect(unsafe_code, reason = "an image entry: raw memory of the region and the jump to the runtime")]
#![expect(clippy::cast_possible_truncation, reason = "a word of this target holds an address")]
// UNSAFETY: this code alone runs, on one processor, in a region that its own page tables map.

use core::arch::{asm, global_asm};
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use core::{ptr, slice};
use hw::Cpuid;
use hw::bare::processor::{halt, time_stamp};
use hw::bare::{Processor, Region};
use platform::handoff::{
    Console, HANDOFF_OFFSET, Handoff, ImageHeader, LOADER_MAGIC, LoaderHeader, PhysRange, REGION_ALIGNMENT,
    RUNTIME_OFFSET, VIRTUAL_BASE,
};
use platform::launch::Launch;
use secureloader::console::{CELLS, Output, Screen};
use secureloader::exception::{self, Frame, STUB_SIZE, VECTORS};
use secureloader::paging::{self, AddressSpace};
use secureloader::scratch::{BOOT, COPY, LOW_MEMORY, REGION_LIMIT, STACK, STACK_SIZE};
use secureloader::{sanitize, verify};
use spin::Once;
use x86::address::{HostPhysAddr, HostVirtAddr};

global_asm!(
    include_str!("entry.S"),
    magic = const LOADER_MAGIC,
    gdt_limit = const 3 * 8 - 1,
    handoff_region_length = const HANDOFF_OFFSET as usize + core::mem::offset_of!(Handoff, region.length),
    boot_tables = const BOOT,
    stack_top = const STACK + STACK_SIZE,
    region_entries_limit = const REGION_LIMIT >> 21,
    low_memory_entry = const LOW_MEMORY >> 21,
    stack_top_virtual = const VIRTUAL_BASE + STACK + STACK_SIZE,
    main = sym secure_loader_main,
    exception = sym exception,
);

unsafe extern "C" {
    fn secure_loader_exception_stubs();
}

static CONSOLE: Once<Console> = Once::new();
/// Two words a gate.
static EXCEPTION_TABLE: [[AtomicU64; 2]; VECTORS] = [const { [const { AtomicU64::new(0) }; 2] }; VECTORS];

/// Called by `entry.S` in 64-bit mode with the region's physical address, on the stack in scratch.
extern "C" fn secure_loader_main(base: u64) -> ! {
    let started = time_stamp();
    // Before anything else: without the table an exception would be a reset that says nothing.
    load_exception_table();
    let handoff = private_copy();
    // Before the check, so that a refusal can be read.
    CONSOLE.call_once(|| sanitize::console(handoff));
    if let Err(error) = sanitize::sanitize(handoff, base) {
        stop(error);
    }
    say(format_args!("stage=secure-loader launch={} base={base:#x}", Launch::of_this_boot().name()));

    let runtime = verified_runtime(handoff);
    // After the image was verified: where it ends is in its header.
    clear_rest(&runtime, handoff);
    let space = runtime_address_space(&runtime, handoff.region);
    if !has_execute_disable() {
        stop("NoExecuteDisable: switch on Execute Disable (XD, NX) in the firmware setup");
    }
    handoff.times.secure_loader = started;
    handoff.times.verified = time_stamp();
    // The copy that was checked, whatever the original says by now.
    hand_over(handoff);
    enter(&runtime, &space)
}

/// Gives each exception its stub, from here to where the runtime loads a table of its own.
fn load_exception_table() {
    let stubs = secure_loader_exception_stubs as *const () as u64;
    for (words, stub) in EXCEPTION_TABLE.iter().zip((stubs..).step_by(STUB_SIZE as usize)) {
        let [low, high] = exception::gate(stub);
        words[0].store(low, Ordering::Relaxed);
        words[1].store(high, Ordering::Relaxed);
    }
    let mut pointer = [0_u8; 10];
    pointer[..2].copy_from_slice(&(size_of_val(&EXCEPTION_TABLE) as u16 - 1).to_le_bytes());
    pointer[2..].copy_from_slice(&((&raw const EXCEPTION_TABLE) as u64).to_le_bytes());
    // SAFETY: the table is static, and every gate in it leads to a stub.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) }
}

/// Called by `entry.S` for each of the 32 exceptions, NMI among them.
extern "C" fn exception(frame: &Frame) -> ! {
    let Frame { vector, error_code, rip } = *frame;
    stop(format_args!("Exception: vector {vector} error code {error_code:#x} at {rip:#x}; report it"))
}

/// Copies the handoff out of the untrusted bootloader's reach before anything of it is believed.
fn private_copy() -> &'static mut Handoff {
    let copy = at::<Handoff>(COPY);
    // SAFETY: both ranges are mapped, apart and large enough; any bytes are a valid `Handoff`.
    unsafe { ptr::copy_nonoverlapping(at::<Handoff>(HANDOFF_OFFSET), copy, 1) };
    // SAFETY: just filled, aligned to a page, and nothing else names it.
    unsafe { &mut *copy }
}

/// Puts the checked handoff back where the runtime looks for it.
fn hand_over(handoff: &Handoff) {
    // SAFETY: as in `private_copy`, the other way.
    unsafe { ptr::copy_nonoverlapping(handoff, at::<Handoff>(HANDOFF_OFFSET), 1) };
}

fn verified_runtime(handoff: &Handoff) -> ImageHeader {
    // SAFETY: the header is part of this very image, filled in when the image was packed; a volatile read,
    // for the compiler sees only its initial value.
    let header = unsafe { ptr::read_volatile(at::<LoaderHeader>(0)) };
    let size = match verify::runtime_size(&header, handoff.region.length) {
        Ok(size) => size,
        Err(error) => stop(error),
    };
    // SAFETY: `runtime_size` keeps the range inside the region, which is mapped and not written meanwhile.
    let image = unsafe { slice::from_raw_parts(at::<u8>(RUNTIME_OFFSET), size) };
    match verify::verify(&header, image, handoff) {
        Ok(runtime) => runtime,
        Err(error) => stop(error),
    }
}

/// Zeroes what follows the runtime's image, whatever an earlier boot left there: its zeroed data, its free frames,
/// the pool of nested tables; of the hypapp's module what it does not fill.
fn clear_rest(runtime: &ImageHeader, handoff: &Handoff) {
    let (base, module) = (handoff.region.base, handoff.hypapp_module);
    let end = handoff.region.length;
    let parts = if module.length == 0 {
        [(runtime.data_end, end), (end, end)]
    } else {
        let start = module.base - base;
        [(runtime.data_end, start), (start + module.length, end)]
    };
    for (start, end) in parts {
        // SAFETY: `verify` and `sanitize` keep the borders in order and inside the region, which is mapped; nothing
        // lies there yet.
        unsafe { ptr::write_bytes(at::<u8>(start), 0, end.saturating_sub(start) as usize) };
    }
}

fn runtime_address_space(runtime: &ImageHeader, region: PhysRange) -> AddressSpace {
    let (base, virtual_base) = (HostPhysAddr::new(region.base), HostVirtAddr::new(VIRTUAL_BASE));
    // SAFETY: 1. the boot tables map the region; 2. no reference into its table pages exists.
    let memory = unsafe { Region::new(base, region.length, virtual_base) };
    match paging::build(&memory, region, &paging::layout(runtime, region.length)) {
        Ok(space) => space,
        Err(error) => stop(error),
    }
}

fn enter(runtime: &ImageHeader, space: &AddressSpace) -> ! {
    // SAFETY: the new tables map this code as the old ones do, executable, and the stack writable; the
    // runtime's entry is inside code that was verified. Execute-disable is on before a table uses it.
    unsafe {
        asm!(
            "wrmsr",
            "mov cr3, rsi",
            "mov rsp, r8",
            "mov rdx, r9",
            "mov rcx, r10",
            "xor ebp, ebp",
            "push rbp",
            "jmp r11",
            in("ecx") x86::msr::Msr::IA32_EFER.0,
            in("eax") EFER_LOW,
            in("edx") 0,
            in("rdi") VIRTUAL_BASE + HANDOFF_OFFSET,
            in("rsi") space.root.get(),
            in("r8") VIRTUAL_BASE + STACK + STACK_SIZE,
            in("r9") space.free.base,
            in("r10") space.free.length,
            in("r11") runtime.entry,
            options(noreturn),
        )
    }
}

/// EFER in the runtime: 64-bit mode with execute-disable.
const EFER_LOW: u32 = {
    use x86::cr::Efer;
    // All three are in the lower half.
    Efer::LME.union(Efer::LMA).union(Efer::NXE).bits() as u32
};

/// Returns the pointer to `offset` bytes into the region.
fn at<T>(offset: u64) -> *mut T {
    ptr::with_exposed_provenance_mut((VIRTUAL_BASE + offset) as usize)
}

fn has_execute_disable() -> bool {
    Processor.cpuid(0x8000_0001, 0).edx & 1 << 20 != 0
}

/// Returns whether this image's own page tables are in force, rather than those that it made for the runtime.
fn has_own_tables() -> bool {
    let root: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) }
    root % REGION_ALIGNMENT == BOOT
}

/// Prints a boot line where the log level has it.
fn say(line: core::fmt::Arguments<'_>) {
    const INFO: u8 = 3;
    if CONSOLE.get().is_some_and(|console| console.level >= INFO) {
        print(line);
    }
}

/// Refuses to go on: says why on every console, then halts.
fn stop(error: impl core::fmt::Display) -> ! {
    print(format_args!("stop: secure loader: {error}"));
    halt()
}

fn print(line: core::fmt::Arguments<'_>) {
    let mut console = CONSOLE.get().copied().unwrap_or_default();
    if !has_own_tables() {
        // The screen is not mapped where the runtime's are in force already.
        console.vga = 0;
    }
    // Neither console reports failure.
    let _ = writeln!(Output::new(console, Processor, VgaText), "{line}");
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => stop(format_args!("Defect: {}:{}", place.file(), place.line())),
        None => stop("Defect: unknown place"),
    }
}

struct VgaText;

impl Screen for VgaText {
    fn get(&self, cell: usize) -> u16 {
        // SAFETY: see `VgaText::cell`.
        unsafe { ptr::read_volatile(Self::cell(cell)) }
    }

    fn put(&mut self, cell: usize, value: u16) {
        // SAFETY: see `VgaText::cell`.
        unsafe { ptr::write_volatile(Self::cell(cell), value) }
    }
}

impl VgaText {
    /// The secure loader's own tables map the first 2 MiB of memory there, and the index is bounded.
    fn cell(cell: usize) -> *mut u16 {
        const TEXT: u64 = 0xb_8000;
        at::<u16>(LOW_MEMORY + TEXT).wrapping_add(cell % CELLS)
    }
}
