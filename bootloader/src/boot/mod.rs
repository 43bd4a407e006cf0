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

use bootloader::launch::Launch;
use bootloader::plan::{Boot, Plan};
use bootloader::requirements;
use bootloader::stop::Stop;
use hw::bare::Processor;
use hw::bare::processor::{halt, time_stamp};
use log::info;
use memory::PhysicalMemory;
use platform::command_line::{Options, serial_of_broken};
use platform::handoff::Handoff;
use platform::multiboot::{BootInformation, BootInformationError, MULTIBOOT1_MAGIC, MULTIBOOT2_MAGIC};
use platform::serial::SerialLine;
use spin::Mutex;

global_asm!(
    include_str!("../entry.S"),
    main = sym bootloader_main,
    exception = sym exception::exception,
    stack_size = const 128 * 1024,
);

unsafe extern "C" {
    /// Leaves 64-bit mode for 32-bit protected mode without paging and jumps.
    ///
    /// # Safety
    ///
    /// `entry` is the physical address of code that expects that mode, with EBX = `entry`.
    fn enter_protected_mode(entry: u32) -> !;
}

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
    let options = open_consoles(&information)?;
    info!("eXtensible Modular Hypervisor {}", env!("CARGO_PKG_VERSION"));
    requirements::check(&Processor)?;

    let mut handoff = HANDOFF.lock();
    let own = memory::own_range();
    let boot = Boot {
        information: &information,
        options: &options,
        own,
        memory: &PhysicalMemory,
        processor: &Processor,
    };
    let plan = Plan::make(&boot, &mut handoff)?;
    if !console::has_serial() {
        handoff.console.serial_port = 0;
    }

    let launch = Launch::of_this_boot();
    info!("launch={} entry={:#x}", launch.name(), plan.entry());
    let entry = launch.place(&mut PhysicalMemory, &plan);
    handoff.times.bootloader = started;
    handoff.times.launch = time_stamp();
    memory::write_handoff(&handoff, plan.region);
    // SAFETY: the secure loader was just copied there, and the entry offset is its own header's.
    unsafe { enter_protected_mode(entry) }
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
