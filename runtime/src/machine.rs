//! The one machine: what the boot found, and what all CPUs share.
//!
//! UNSAFETY: builds the per-CPU data in frames of the pool.
#![expect(unsafe_code, reason = "frames become per-CPU data")]

use crate::exit::bios_memory_map;
use crate::exit::control_register::ControlRegisterPolicy;
use crate::exit::cpuid::{CpuidPolicy, Instructions};
use crate::exit::msr::MsrPolicy;
use crate::exit::power::PowerControl;
use crate::features::features;
use crate::hypapp::Hypapp;
use crate::memory::flush::Flush;
use crate::memory::frame;
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::host::{self, FrameSource, GuestFrames};
use crate::memory::policy::Machine as Facts;
use crate::memory::second_level::SecondLevel;
use crate::smp::percpu::{self, Frames, PerCpu};
use crate::smp::shootdown;
use crate::speculation::Means;
use crate::vmx;
use core::sync::atomic::Ordering;
use hw::bare::random::Generators;
use hw::bare::{Processor, Region};
use hw::{Msrs, PhysMemory};
use platform::handoff::{Handoff, ImageHeader, RUNTIME_OFFSET, VIRTUAL_BASE};
use spin::{Mutex, Once};
use x86::address::HostPhysAddr;
use x86::cr::Cr4;
use x86::msr::Msr;
use x86::paging::PageSize;
use x86::vmx::capability::{Allowed, EptVpidCapability};
use x86::vmx::controls::SecondaryControls;
use x86::vmx::ept::EptFormat;

/// What the boot found; constant from then on.
struct Boot {
    handoff: &'static Handoff,
    region: Region,
    hypapp: &'static dyn Hypapp,
}

struct Policies {
    generators: Generators,
    cpuid: CpuidPolicy,
    msr: MsrPolicy,
    control_register: ControlRegisterPolicy,
    power: PowerControl,
    speculation: Means,
}

/// Where a BIOS puts a boot sector.
const BOOT_SECTOR: u64 = 0x7c00;

static POLICIES: Once<Policies> = Once::new();
static BOOT: Once<Boot> = Once::new();
/// The bootstrap processor, until all CPUs are known.
static BOOTSTRAP: Once<&'static PerCpu> = Once::new();
static CPUS: Once<&'static [&'static PerCpu]> = Once::new();

/// The format of this processor's second-level tables.
pub(crate) type SecondLevelFormat = EptFormat;

/// The guest's memory, which all CPUs share.
pub(crate) static SECOND_LEVEL: Mutex<SecondLevel<RegionMemory, SecondLevelFormat>> =
    Mutex::new(SecondLevel::new(RegionMemory));

/// The hypervisor region, for statics that are built before it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegionMemory;

impl PhysMemory for RegionMemory {
    fn read(&self, address: HostPhysAddr, bytes: &mut [u8]) {
        region().read(address, bytes);
    }

    fn write(&self, address: HostPhysAddr, bytes: &[u8]) {
        region().write(address, bytes);
    }

    fn read_u64(&self, address: HostPhysAddr) -> u64 {
        region().read_u64(address)
    }

    fn write_u64(&self, address: HostPhysAddr, value: u64) {
        region().write_u64(address, value);
    }
}

/// Takes note of what the boot found, and gives the pool its frames.
pub(crate) fn start(handoff: &'static Handoff, region: Region, hypapp: &'static dyn Hypapp) {
    BOOT.call_once(|| Boot { handoff, region, hypapp });
    let image = image_header();
    let pool = handoff.region.base + image.bss_end.next_multiple_of(4096);
    let mut second_level = SECOND_LEVEL.lock();
    let frames = second_level.frames();
    // The bootloader sizes the region by a generous figure a CPU; what the pool cannot hold stays unused.
    let bytes = ((handoff.own_end() & !0xfff) - pool).min(frame::CAPACITY as u64 * 4096);
    if let Err(error) = frames.add(HostPhysAddr::new(pool), bytes) {
        panic!("the hypervisor region has no room for a pool: {error:?}");
    }
}

/// Makes the data of the executing CPU, the bootstrap processor, whose local APIC has the ID `apic_id`.
pub(crate) fn create_bootstrap(apic_id: u32) -> &'static PerCpu {
    BOOTSTRAP.call_once(|| create_cpu(0, apic_id))
}

/// Makes the data of the other CPUs: of all `apic_ids`, `count` of them, but the first, which is the bootstrap
/// processor's.
pub(crate) fn create_others(count: usize, apic_ids: impl Iterator<Item = u32>) {
    let bytes = count * size_of::<&PerCpu>();
    let list = region().virt(with_frame_run(bytes.div_ceil(4096)), bytes).cast::<&'static PerCpu>();
    let mut written = 0;
    for (index, apic_id) in apic_ids.take(count).enumerate() {
        let cpu = if index == 0 { create_bootstrap(apic_id) } else { create_cpu(index, apic_id) };
        // SAFETY: the list has room for `count` CPUs.
        let slot = unsafe { list.add(index) };
        // SAFETY: as above.
        unsafe { slot.write(cpu) };
        written = index + 1;
    }
    // SAFETY: so many elements were written.
    let list = unsafe { core::slice::from_raw_parts(list, written) };
    CPUS.call_once(|| list);
}

fn create_cpu(index: usize, apic_id: u32) -> &'static PerCpu {
    const { assert!(size_of::<PerCpu>() <= PER_CPU_FRAMES * 4096) };
    let place = with_frame_run(PER_CPU_FRAMES);
    let place = region().virt(place, size_of::<PerCpu>()).cast::<PerCpu>();
    let stacks = with_frames(|frames| host::map_stacks(index, frames));
    let frames = Frames { vmxon: with_frame_run(1), vmcs: with_frame_run(1) };
    // SAFETY: fresh zeroed frames, page-aligned, never freed; the stacks were mapped for this CPU.
    unsafe { PerCpu::create(place, index, apic_id, stacks, frames) }
}

const PER_CPU_FRAMES: usize = 2;

/// Everything is known that a dump wants.
pub(crate) fn is_ready() -> bool {
    BOOTSTRAP.get().is_some()
}

/// All CPUs, the bootstrap processor first and, before the others have been called, alone.
pub(crate) fn cpus() -> &'static [&'static PerCpu] {
    let bootstrap = || BOOTSTRAP.get().map(core::slice::from_ref);
    CPUS.get().copied().or_else(bootstrap).unwrap_or_default()
}

/// The hypervisor region.
pub(crate) fn region() -> &'static Region {
    &boot().region
}

/// What the bootloader said, checked.
pub(crate) fn handoff() -> &'static Handoff {
    boot().handoff
}

/// The hypapp of this image.
pub(crate) fn hypapp() -> &'static dyn Hypapp {
    boot().hypapp
}

/// Reset and power ports.
pub(crate) fn power() -> &'static PowerControl {
    &policies().power
}

/// Bytes of the runtime image file.
pub(crate) fn image_bytes() -> u64 {
    image_header().data_end - RUNTIME_OFFSET
}

/// Virtual address of the first byte that the runtime may write; all up to the region's end follows.
pub(crate) fn data_start() -> u64 {
    VIRTUAL_BASE + image_header().rodata_end
}

/// Virtual addresses of the hypervisor's code.
pub(crate) fn text_range() -> core::ops::Range<u64> {
    VIRTUAL_BASE + RUNTIME_OFFSET..VIRTUAL_BASE + image_header().text_end
}

/// The module that GRUB loaded for the hypapp; empty where there is none.
pub(crate) fn hypapp_module() -> &'static [u8] {
    let module = handoff().hypapp_module;
    let Ok(bytes) = usize::try_from(module.length) else { return &[] };
    if bytes == 0 {
        return &[];
    }
    let start = region().virt(HostPhysAddr::new(module.base), bytes);
    // SAFETY: the handoff's check put it inside the region, behind the pool: nobody writes there.
    unsafe { core::slice::from_raw_parts(start, bytes) }
}

/// A run of zeroed frames for good. At boot the pool was sized for them: running out is a bug of ours.
pub(crate) fn with_frame_run(count: usize) -> HostPhysAddr {
    match SECOND_LEVEL.lock().frames().allocate_run(&RegionMemory, count) {
        Ok(frame) => frame,
        Err(error) => panic!("the pool is too small for this machine: {error:?}"),
    }
}

/// Zeroed memory for good, of frames of the pool.
pub(crate) fn take_memory(bytes: usize) -> &'static mut [u8] {
    let frames = bytes.div_ceil(4096);
    let start = region().virt(with_frame_run(frames), frames * 4096);
    // SAFETY: fresh zeroed frames that follow each other, never freed, and used for nothing else.
    unsafe { core::slice::from_raw_parts_mut(start, bytes) }
}

/// Lends a source of zeroed frames.
pub(crate) fn with_frames<T>(act: impl FnOnce(FrameSource<'_>) -> T) -> T {
    act(&mut || with_frame_run(1))
}

/// Drops this CPU's translations of guest-physical addresses.
pub(crate) fn invalidate_second_level() {
    if !percpu::current().is_ready.load(Ordering::Relaxed) {
        // A hypapp that starts changes protections before this CPU has entered a guest, or VMX operation.
        return;
    }
    // SAFETY: a CPU is ready once it is in VMX operation, and `Controls::for_processor` has looked for all-context INVEPT.
    if unsafe { hw::bare::vmx::invept_all() }.is_err() {
        panic!("INVEPT failed");
    }
}

/// Makes every CPU drop its translations before its guest goes on, then frees what they named.
pub(crate) fn flush_second_level(flush: Flush) {
    let is_derived_stale = vmx::forget_changes();
    if flush.is_needed() || is_derived_stale {
        flush_all();
    }
    SECOND_LEVEL.lock().flushed(flush);
}

/// Makes every CPU drop its translations before its guest goes on.
pub(crate) fn flush_all() {
    shootdown::shoot_down();
}

/// Decides what exits' handlers are to know of the processor and the configuration; once, at boot.
pub(crate) fn set_policies() {
    let capability = |msr| Processor.read(msr).unwrap_or_default();
    let nested = handoff().nested_ept02 != 0;
    let cr4_offered = vmx::cr4_for_guest(&Processor);
    POLICIES.call_once(|| Policies {
        generators: Generators::find(),
        cpuid: CpuidPolicy {
            nested,
            hypervisor_bit: handoff().hypervisor_bit != 0,
            without: instructions_without_control(Allowed(capability(Msr::IA32_VMX_PROCBASED_CTLS2))),
            hides_la57: !cr4_offered.contains(Cr4::LA57),
        },
        msr: MsrPolicy {
            nested,
            physical_address_bits: features().physical_address_bits,
            has_x2apic: features().has_x2apic,
            feedback_bytes: features().feedback_bytes,
        },
        control_register: ControlRegisterPolicy { nested, cr4_offered },
        power: PowerControl::new(handoff().power),
        speculation: Means::of(&Processor, &Processor),
    });
}

/// Instructions that need a control to work in a guest, where the processor's VMX lacks the control.
fn instructions_without_control(secondary: Allowed) -> Instructions {
    let has = |control: SecondaryControls| secondary.may_be_one() & control.bits() != 0;
    let mut without = Instructions::PCONFIG;
    without.set(Instructions::RDTSCP, !has(SecondaryControls::ENABLE_RDTSCP));
    without.set(Instructions::INVPCID, !has(SecondaryControls::ENABLE_INVPCID));
    without.set(Instructions::XSAVES, !has(SecondaryControls::ENABLE_XSAVES));
    without.set(Instructions::WAITPKG, !has(SecondaryControls::ENABLE_USER_WAIT_AND_PAUSE));
    without
}

/// The processor's random numbers.
pub(crate) fn generators() -> Generators {
    policies().generators
}

/// What CPUID shows the guest.
pub(crate) fn cpuid_policy() -> &'static CpuidPolicy {
    &policies().cpuid
}

/// What this processor has against speculation.
pub(crate) fn speculation_means() -> &'static Means {
    &policies().speculation
}

/// Reads of IA32_APIC_BASE exit from now on: on some CPU it is not what the guest made it.
pub(crate) fn hide_apic_base() {
    vmx::intercept_apic_base();
}

/// How intercepted MSRs behave.
pub(crate) fn msr_policy() -> &'static MsrPolicy {
    &policies().msr
}

/// Which control-register bits the guest may set.
pub(crate) fn control_register_policy() -> &'static ControlRegisterPolicy {
    &policies().control_register
}

/// What the second-level tables are built by.
pub(crate) fn second_level_facts(cpu: &PerCpu) -> Facts {
    let capability = Processor.read(Msr::IA32_VMX_EPT_VPID_CAP).unwrap_or_default();
    let capability = EptVpidCapability::from_bits_retain(capability);
    let largest_page = if capability.contains(EptVpidCapability::PAGES_1G) {
        PageSize::Size1G
    } else if capability.contains(EptVpidCapability::PAGES_2M) {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    };
    Facts {
        region: handoff().region,
        memory_map: handoff().memory_map(),
        physical_address_bits: features().physical_address_bits,
        largest_page,
        has_execute_only: capability.contains(EptVpidCapability::EXECUTE_ONLY),
        mtrrs: cpu.mtrrs.lock().registers().clone(),
    }
}

/// Puts the guest's boot sector where a BIOS would, and the memory map's hook in its way.
pub(crate) fn place_boot_sector() {
    if GuestFrames::write(HostPhysAddr::new(BOOT_SECTOR), handoff().boot_sector()).is_err() {
        panic!("nothing is mapped where a boot sector goes");
    }
    if let Err(refused) = bios_memory_map::install(&GuestPhysical) {
        panic!("the BIOS data area is not the guest's: {refused:?}");
    }
}

fn policies() -> &'static Policies {
    match POLICIES.get() {
        Some(policies) => policies,
        None => unreachable!("the runtime's entry sets the policies before the guest runs"),
    }
}

fn boot() -> &'static Boot {
    match BOOT.get() {
        Some(boot) => boot,
        None => unreachable!("the runtime's entry calls `start` first"),
    }
}

fn image_header() -> ImageHeader {
    // SAFETY: the secure loader checked the header, which the image begins with.
    unsafe { ((VIRTUAL_BASE + RUNTIME_OFFSET) as *const ImageHeader).read() }
}
