//! The boot story, in call order.
#![expect(
    unsafe_code,
    reason = "an image entry: what GRUB left in memory, and the jump to the secure loader"
)]
// UNSAFETY: this code alone runs, on one processor, with 4 GiB mapped one to one.

mod console;
mod exception;
mod memory;

use core::arch::global_asm;
use core::convert::Infallible;

use arrayvec::ArrayVec;
use bootloader::plan::{self, Boot};
use bootloader::requirements;
use bootloader::stop::Stop;
use hw::bare::Processor;
use hw::bare::processor::{halt, time_stamp};
use hw::{Cpuid, Msrs};
use log::{info, warn};
use memory::{PhysicalMemory, Region};
use platform::acpi;
use platform::command_line::{Options, serial_of_broken};
use platform::e820::MemoryMap;
use platform::handoff::{Handoff, PhysRange};
use platform::launch::Launch;
use platform::mtrr_map::{Mtrrs, TypeMap};
use platform::multiboot::{
    BootInformation, BootInformationError, MODULE_CAPACITY, MULTIBOOT1_MAGIC, MULTIBOOT2_MAGIC,
};
use platform::near_miss::near_misses;
use platform::remains;
use platform::serial::SerialLine;
use spin::Mutex;

global_asm!(
    include_str!("../entry.S"),
    main = sym bootloader_main,
    exception = sym exception::exception,
    stack_size = const 128 * 1024,
);

/// BIOS number of the first hard disk; below are floppy disk drives.
const FIRST_HARD_DISK: u8 = 0x80;

/// Too large for the stack, filled in place; all zero, so that the image file need not hold it.
static HANDOFF: Mutex<Handoff> = Mutex::new(Handoff { magic: 0, version: 0, size: 0, ..Handoff::EMPTY });

/// Called by `entry.S` in 64-bit mode, interrupts off.
extern "C" fn bootloader_main(magic: u32, information: u32, started: u64) -> ! {
    match boot(magic, information, started) {
        Err(stop) => refuse(format_args!("{stop}")),
    }
}

fn boot(magic: u32, information: u32, started: u64) -> Result<Infallible, Stop> {
    let information = copy_boot_information(magic, information)?;
    // Before anything else can fail: who boots next would find it.
    let remains = clear_remains(&information);
    let options = open_consoles(&information)?;
    info!("eXtensible Modular Hypervisor {}", env!("CARGO_PKG_VERSION"));
    if let Some(region) = remains {
        warn!("a hypervisor at {region:#x} was reset without its knowledge; all memory was zeroed");
    }
    warn_of_slips(information.command_line(), &options);
    requirements::check(&Processor)?;
    requirements::check_beneath(&Processor, options.nested_xmhf)?;

    let mut handoff = HANDOFF.lock();
    let own = memory::own_range();
    let memory_types = memory_types();
    let boot = Boot {
        information: &information,
        options: &options,
        own,
        memory: &PhysicalMemory,
        processor: &Processor,
        memory_types: memory_types.as_ref(),
    };
    let parts = plan::make(&boot, &mut handoff)?;
    if !console::has_serial() {
        handoff.console.serial_port = 0;
    }
    if !handoff.remapping_units().is_empty() {
        hide_units();
    }

    let launch = Launch::of_this_boot();
    info!("launch={} entry={:#x}", launch.name(), parts.entry());
    // SAFETY: the plan put the region into usable memory below 4 GiB, apart from this code and what it still reads.
    let mut region = unsafe { Region::new(parts.region) };
    let placed = launch.place(&mut region, &parts);
    handoff.times.bootloader = started;
    handoff.times.launch = time_stamp();
    // After `place`, which clears where this goes.
    region.write_handoff(&handoff);
    placed.enter(&mut region)
}

/// Copies what GRUB said before anything else in memory is written.
fn copy_boot_information(magic: u32, address: u32) -> Result<BootInformation, BootInformationError> {
    match magic {
        MULTIBOOT1_MAGIC => BootInformation::from_multiboot1(&PhysicalMemory, address),
        MULTIBOOT2_MAGIC => {
            if !BootInformation::is_multiboot2_readable(&PhysicalMemory, address) {
                return Err(BootInformationError::Malformed);
            }
            let pointer = core::ptr::with_exposed_provenance(address as usize);
            // SAFETY: the magic says that a Multiboot 2 loader left its information there; as long as it says that it is,
            // it is mapped, and nothing changes it while the reference lives.
            let information = unsafe { multiboot2::BootInformation::load(pointer) };
            BootInformation::from_multiboot2(&information.map_err(|_| BootInformationError::Malformed)?)
        }
        _ => Err(BootInformationError::NotMultiboot(magic)),
    }
}

/// Says what on the command line looks like a slip.
fn warn_of_slips(line: &str, options: &Options) {
    for (word, key) in near_misses(line) {
        warn!("{word}= is no key of ours; {key}= is");
    }
    let drive = options.boot_drive;
    if drive < FIRST_HARD_DISK {
        warn!("boot_drive={drive:#x} is a floppy disk drive; hard disks begin at {FIRST_HARD_DISK:#x}");
    }
}

/// Zeroes all memory where an earlier boot's hypervisor did not end in order; gives where that was.
fn clear_remains(information: &BootInformation) -> Option<u64> {
    let map = MemoryMap::sanitise(information.memory_map()).ok()?;
    let region = remains::find(&PhysicalMemory, &map)?;
    let mut kept = ArrayVec::<PhysRange, { MODULE_CAPACITY + 1 }>::new();
    kept.push(memory::own_range());
    kept.extend(information.modules().iter().copied());
    remains::pieces(&map, &kept, |piece| {
        // SAFETY: usable memory but this code's and the modules', and nothing else was put there yet.
        unsafe { memory::zero(piece) }
    });
    Some(region)
}

/// Takes the table that tells of remapping units from the guest: they are the hypervisor's.
fn hide_units() {
    if acpi::remove_all(&mut PhysicalMemory, b"DMAR").is_err() {
        warn!("the firmware's table of remapping units stays; the guest will find no unit where it says");
    }
}

/// Returns what this processor's MTRRs make of memory; `None` where they are off.
fn memory_types() -> Option<TypeMap> {
    const NARROWEST: u8 = 36;
    let [bits, ..] = Processor.cpuid(0x8000_0008, 0).eax.to_le_bytes();
    let bits = bits.clamp(NARROWEST, 52);
    let mut types = TypeMap::disabled(bits);
    let mtrrs = Mtrrs::of_processor(bits, |msr| Processor.read(msr).unwrap_or(0));
    if !mtrrs.default_type.is_enabled() {
        warn!("the firmware left the MTRRs off: all memory is uncacheable, and everything is slow");
        return None;
    }
    types.set(&mtrrs);
    Some(types)
}

/// Opens the consoles that the command line names, or the likeliest where it is broken.
fn open_consoles(information: &BootInformation) -> Result<Options, Stop> {
    let line = information.command_line();
    let options = Options::parse(line);
    match options {
        Ok(options) => console::open(options.serial, &options.console()),
        Err(_) => console::open(Some(serial_of_broken(line)), &Options::default().console()),
    }
    Ok(options?)
}

/// Says why on every console, then halts.
fn refuse(line: core::fmt::Arguments<'_>) -> ! {
    if !console::is_open() {
        console::open(Some(SerialLine::default()), &Options::default().console());
    }
    console::say_everywhere(line);
    halt()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::seize();
    let place = info.location().map_or(("unknown", 0), |place| (place.file(), place.line()));
    refuse(format_args!("stop: bootloader: defect: {} at {}:{}; report it", info.message(), place.0, place.1))
}
