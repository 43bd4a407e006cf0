//! From the secure loader's jump to the guest's first instruction, in the order of events.
//!
//! UNSAFETY: the image's entry point.
#![expect(unsafe_code, reason = "image entry")]

use crate::dma::{Devices, remapping};
use crate::guest_start::GuestStart;
use crate::hypapp::{Boot, Hypapp};
use crate::machine::{Machine, VIRTUAL_BASE};
use crate::memory::GuestRange;
use crate::memory::guarded::GUARDED_PAGES;
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::host;
use crate::memory::policy::MemoryFacts as Facts;
use crate::memory::protect::Protection;
use crate::memory::second_level::{ProtectError, SecondLevel};
use crate::policies::Policies;
use crate::smp::cpus;
use crate::smp::percpu::PerCpu;
use crate::smp::rendezvous::Rendezvous;
use crate::smp::roster::Roster;
use crate::smp::startup::{self, Trampoline};
use crate::speculation::Mitigations;
use crate::vendor::Vendor;
use crate::{VENDOR, exception, features, log, machine};
use core::sync::atomic::{AtomicBool, AtomicUsize};
use hw::PhysMemory;
use hw::apic::Mode;
use hw::bare::apic::own_id;
use hw::bare::{Processor, Region};
use hw::topology::processors_of_package;
use platform::handoff::{CPU_CAPACITY, Handoff, PhysRange};
use spin::{Mutex, Once};
use x86::address::{GIB, GuestPhysAddr, HostPhysAddr, HostVirtAddr};
use x86::paging::{PAGE_BYTES, TableFormat};

/// Runs the guest under `hypapp`, for ever. Called by the entry point that [`crate::hypapp!`] makes.
///
/// # Safety
///
/// Called once, by the secure loader's jump, with its first two arguments: the checked handoff, and the
/// physical address of the page tables in force.
pub unsafe fn start(hypapp: &'static dyn Hypapp, handoff: &'static Handoff, page_tables: u64) -> ! {
    /// Where the machine is, for every CPU to lead to.
    static MACHINE: Once<Machine> = Once::new();
    exception::load_early();
    log::start(&handoff.console);
    let base = HostPhysAddr::new(handoff.region.base);
    // SAFETY: the secure loader mapped the region there; frames come from the pool, apart from the image.
    let region = unsafe { Region::new(base, handoff.region.length, HostVirtAddr::new(VIRTUAL_BASE)) };
    machine::start(handoff, region);
    let root = HostPhysAddr::new(page_tables);
    machine::with_frames(|frames| host::start(root, frames));
    // The screen is mapped by now.
    log::show_on_screen(&handoff.console);
    let limit = features::show_all_leaves(&Processor);
    features::start(&Processor, &Processor);
    let machine = MACHINE.call_once(|| Machine {
        handoff,
        region,
        hypapp,
        vendor: &VENDOR,
        policies: Policies::decide(handoff, VENDOR.cr4_for_guest(), VENDOR.missing_instructions()),
        guest_start: GuestStart::of(handoff),
        devices: Devices::new(),
        rendezvous: Rendezvous::new(AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0)),
    });
    let cpu = cpus::create_bootstrap(machine, own_id());
    // SAFETY: this is the bootstrap processor's data, on it.
    unsafe { cpu.install() };
    exception::load();
    // The local APIC's window is this CPU's own, and CPUs are called by it.
    host::follow_apic();
    let trampoline = call_cpus(cpu, handoff.apic_ids());
    let cpus = cpus::all().len();
    let plural = if cpus == 1 { "" } else { "s" };
    ::log::info!("stage=runtime eXtensible Modular Hypervisor, {cpus} CPU{plural}");
    start_guest_memory(cpu);
    if let Some(remapping) = remapping::start(handoff) {
        machine.devices.hold(remapping);
    }
    cpu.crossing.start(Mitigations::of(&Processor, &Processor), &Processor);
    machine.vendor.prepare(handoff, hypapp, &machine.policies);
    if let Err(missing) =
        trampoline.start(&cpus::all()[1..], |cpu| cpu.machine.vendor.run_application_processor())
    {
        panic!("CPU with local APIC ID {:#x} did not start", missing.apic_id);
    }
    let boot = Boot {
        command_line: handoff.command_line(),
        cpus: cpus::all().len(),
        boot_drive: handoff.boot_drive,
        module: machine::hypapp_module(),
    };
    if let Err(error) = hypapp.init(&boot) {
        panic!("the hypapp refuses this configuration: {error}");
    }
    // Behind `init`, which may have taken pages out of the address space: CPUs drop their translations on their way.
    startup::finish();
    // After the CPUs are up: the page that was borrowed for their start has its old content back, and a long boot
    // sector reaches into it.
    if let Err(refused) = machine.guest_start.place(&GuestPhysical) {
        panic!("the memory that the guest starts from is not the guest's: {refused:?}");
    }
    machine.vendor.run_bootstrap_processor(&mut || features::limit_cpuid_again(&Processor, limit))
}

/// Calls every CPU that there is beside `bootstrap`, which executes this, and makes the data of each that answers.
fn call_cpus(bootstrap: &'static PerCpu, listed: &[u32]) -> Trampoline {
    static ROSTER: Mutex<Roster> = Mutex::new(Roster::new());
    if host::local_apic().mode() == Mode::Disabled {
        panic!("the local APIC is off, by which other CPUs are called; switch it on in the firmware set-up");
    }
    let mut roster = ROSTER.lock();
    let trampoline = Trampoline::new();
    let called = roster.answer(own_id()).and_then(|()| trampoline.call(&mut roster, listed));
    if called.is_err() {
        panic!("the machine has more than {CPU_CAPACITY} CPUs; switch some off in the firmware set-up");
    }
    for id in roster.missing(listed) {
        ::log::warn!(
            "CPU with local APIC ID {id:#x} does not answer: the firmware lists it, the guest does not get it"
        );
    }
    for id in roster.unlisted(listed) {
        ::log::warn!(
            "CPU with local APIC ID {id:#x} answers: the firmware does not list it, the hypervisor takes it"
        );
    }
    let count = roster.members(listed).count();
    if let Some(ids) = processors_of_package(&Processor) {
        ::log::debug!("cpus={count} listed={} ids_of_package={ids}", listed.len());
    }
    cpus::create_others(bootstrap, count, roster.members(listed));
    trampoline
}

/// Gives the guest its memory, as the bootstrap processor `cpu` has it.
pub(crate) fn start_guest_memory(cpu: &PerCpu) {
    let machine = cpu.machine;
    let tables = machine.vendor.second_level_features();
    let facts = Facts {
        region: machine.handoff.region,
        memory_map: machine.handoff.memory_map(),
        physical_address_bits: features::features().physical_address_bits,
        largest_page: tables.largest_page,
        has_execute_only: tables.has_execute_only,
        mtrrs: cpu.mtrrs.lock().registers().clone(),
    };
    let mut second_level = machine::SECOND_LEVEL.lock();
    let started = second_level.start(&facts);
    guard_configuration_space(machine, &mut second_level);
    hide_remapping_units(machine, &mut second_level);
    let filled = started.and_then(|()| second_level.fill_below(GuestPhysAddr::new(4 * GIB)));
    if let Err(error) = filled {
        panic!("the pool is too small for the guest's page tables: {error:?}");
    }
}

/// Has the guest's stores exit to functions that have a register to be kept.
fn guard_configuration_space<M: PhysMemory, F: TableFormat>(
    machine: &Machine,
    second_level: &mut SecondLevel<M, F>,
) {
    for (register, range) in
        machine.policies.power.kept().iter().flat_map(|kept| machine.handoff.ecam.map(|range| (kept, range)))
    {
        let Some(page) = range.page_of(register.function) else { continue };
        match second_level.guard(GuestPhysAddr::new(page)) {
            Ok(()) => {}
            Err(ProtectError::TooManyRanges) => {
                panic!("more than {GUARDED_PAGES} pages of PCI configuration space have registers to be kept")
            }
            Err(error) => ::log::warn!(
                "the MCFG has PCI configuration space at {page:#x}, where none can be ({error:?}): that is left alone"
            ),
        }
    }
}

/// Has zeros stand for the registers of units that keep devices from memory.
fn hide_remapping_units<M: PhysMemory, F: TableFormat>(
    machine: &Machine,
    second_level: &mut SecondLevel<M, F>,
) {
    let pages = |unit: &PhysRange| (unit.base..unit.base + unit.length).step_by(PAGE_BYTES);
    for page in machine.handoff.remapping_units().iter().flat_map(pages) {
        let range = GuestRange::page(GuestPhysAddr::new(page));
        // No table maps it yet, so nobody has to flush.
        if let Err(error) = second_level.cover(range, Some(Protection::Decoy)) {
            panic!(
                "the registers of the remapping unit at {page:#x} cannot be kept from the guest: {error:?}"
            );
        }
    }
}

/// Makes a hypapp the one of this image.
///
/// Takes an expression of a type that implements [`Hypapp`], constant.
#[macro_export]
macro_rules! hypapp {
    ($hypapp:expr) => {
        /// The image's entry point, where the secure loader jumps to.
        #[unsafe(no_mangle)]
        extern "C" fn xmhf_runtime_entry(handoff: &'static $crate::Handoff, page_tables: u64) -> ! {
            static HYPAPP: &dyn $crate::hypapp::Hypapp = &$hypapp;
            // SAFETY: this is the entry point, and these are its arguments.
            unsafe { $crate::entry::start(HYPAPP, handoff, page_tables) }
        }
    };
}
