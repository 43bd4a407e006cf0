//! What a boot will do, decided before anything in memory is changed.

use arrayvec::ArrayVec;
use hw::Cpuid;
use hw::topology::processors_of_package;
use log::{debug, info, warn};
use platform::acpi::{self, Rsdp};
use platform::command_line::{DeviceProtection, Options};
use platform::e820::MemoryMap;
use platform::handoff::{COMMAND_LINE_CAPACITY, CPU_CAPACITY, Handoff, PhysRange};
use platform::launch::{HypappModule, Parts};
use platform::modules::{ModuleError, Modules};
use platform::mtrr_map::TypeMap;
use platform::multiboot::{BootInformation, MODULE_CAPACITY};
use platform::physical::ReadPhysical;
use platform::placement::{self, PlacementError};
use platform::processors::{Processors, Source};

use crate::remapping;
use crate::requirements::local_apic_id;
use crate::stop::Stop;

/// The machine and what it was booted with.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a, Memory, Processor> {
    /// What the boot loader said.
    pub information: &'a BootInformation,
    /// What its command line asks for.
    pub options: &'a Options,
    /// The memory that this bootloader runs in.
    pub own: PhysRange,
    /// Physical memory.
    pub memory: &'a Memory,
    /// The bootstrap processor.
    pub processor: &'a Processor,
    /// What its MTRRs make of memory; `None` where they are off, and all memory is alike.
    pub memory_types: Option<&'a TypeMap>,
}

/// Decides everything and fills `handoff`, except for its time stamps.
///
/// # Errors
///
/// [`Stop`]: the boot is refused.
pub fn make<M: ReadPhysical, P: Cpuid>(boot: &Boot<'_, M, P>, handoff: &mut Handoff) -> Result<Parts, Stop> {
    let modules = Modules::assign(boot.memory, boot.information.modules())?;
    debug!("modules {modules:x?}");
    let mut map = MemoryMap::sanitise(boot.information.memory_map())?;

    let rsdp = Rsdp::search(boot.memory).ok();
    let processors = Processors::list(boot.memory, rsdp.as_ref(), local_apic_id(boot.processor))?;
    warn_of_fallbacks(rsdp.as_ref(), processors.source);
    if !processors.is_sound {
        warn!("the {} is broken; the CPUs of its sound entries are used", processors.source);
    }
    debug!("apic_ids {:?}", processors.ids());

    let hypapp_bytes = modules.hypapp.map_or(0, |file| file.length);
    let usable = map.usable().map(|range| range.length).sum();
    let room = cpus_with_room(boot.processor, processors.ids().len());
    let nested_bytes = placement::nested_pool_size(boot.options, usable, room);
    let devices = remapping::survey(boot.memory, &map, boot.options.device_protection)?;
    let more_bytes = hypapp_bytes.saturating_add(nested_bytes).saturating_add(devices.pool_bytes);
    let size = placement::region_size(&modules.image, room, more_bytes)?;
    let region = place(&devices.free, size, boot, &modules)?;
    // Before the lists are made: the guest's map is without the region.
    map.hide(region)?;
    for range in map.ranges() {
        debug!("memory base={:#x} length={:#x} kind={}", range.base, range.length, range.kind);
    }
    let (cpus, source) = (processors.ids().len(), processors.source);
    info!("cpus={cpus} source={source} region={:#x} size={size:#x}", region.base);

    let hypapp =
        modules.hypapp.map(|file| HypappModule { file, place: placement::hypapp_place(region, file.length) });
    let parts = Parts { region, image: modules.image, hypapp };
    fill(&parts, boot, handoff, &modules, rsdp.as_ref())?;
    // After `fill`, which begins with an empty handoff.
    handoff.nested_pool = placement::nested_pool_place(region, hypapp_bytes, nested_bytes);
    set_lists(handoff, &map, processors.ids());
    handoff.remapping_units[..devices.units.len()].copy_from_slice(&devices.units);
    Ok(parts)
}

fn fill<M: ReadPhysical, P>(
    parts: &Parts,
    boot: &Boot<'_, M, P>,
    handoff: &mut Handoff,
    modules: &Modules,
    rsdp: Option<&Rsdp>,
) -> Result<(), Stop> {
    *handoff = Handoff::EMPTY;
    handoff.region = parts.region;
    handoff.hypapp_module = parts.hypapp.map(|hypapp| hypapp.place).unwrap_or_default();
    handoff.sinit_module = modules.sinit.unwrap_or_default();
    handoff.rsdp = rsdp.map_or(0, |rsdp| rsdp.address);
    handoff.power = acpi::power_tables(boot.memory);
    handoff.ecam = acpi::ecam_ranges(boot.memory);

    handoff.console = boot.options.console();
    handoff.boot_drive = boot.options.boot_drive;
    handoff.hypervisor_bit = u8::from(boot.options.hypervisor_bit);
    handoff.device_protection_required =
        u8::from(boot.options.device_protection == DeviceProtection::Require);
    handoff.nested_ept02 = if boot.options.nested { boot.options.nested_ept02 } else { 0 };
    let line = boot.information.command_line().as_bytes();
    let kept = line.len().min(COMMAND_LINE_CAPACITY - 1);
    handoff.command_line[..kept].copy_from_slice(&line[..kept]);

    let sector = modules.boot_sector;
    let too_large = ModuleError::BootSectorTooLarge(sector.length);
    let length = usize::try_from(sector.length).map_err(|_| too_large)?;
    let kept = handoff.boot_sector.get_mut(..length).ok_or(too_large)?;
    boot.memory.read(sector.base, kept).map_err(ModuleError::from)?;
    handoff.boot_sector_size = u32::try_from(length).map_err(|_| too_large)?;
    Ok(())
}

/// CPUs that the region has room for: those that are `listed`, or those that the processor's package may have, if these
/// are more. The runtime calls every CPU, and takes those that the firmware leaves out.
fn cpus_with_room(processor: &impl Cpuid, listed: usize) -> usize {
    let of_package = processors_of_package(processor).and_then(|count| usize::try_from(count).ok());
    listed.max(of_package.unwrap_or(0).min(CPU_CAPACITY))
}

/// Finds a place clear of this code and of every module; as a last resort one across the image itself, which
/// the launch can move.
fn place<M, P>(
    map: &MemoryMap,
    size: u64,
    boot: &Boot<'_, M, P>,
    modules: &Modules,
) -> Result<PhysRange, PlacementError> {
    // Other than in `Modules` every module counts here, also one that has no role.
    let mut taken = ArrayVec::<PhysRange, { MODULE_CAPACITY + 1 }>::new();
    taken.push(boot.own);
    taken.extend(boot.information.modules().iter().copied());
    placement::choose(map, boot.memory_types, size, &taken).or_else(|_| {
        taken.retain(|range| *range != modules.image.file);
        placement::choose(map, boot.memory_types, size, &taken)
    })
}

fn set_lists(handoff: &mut Handoff, map: &MemoryMap, apic_ids: &[u32]) {
    for (entry, range) in handoff.memory_map.iter_mut().zip(map.ranges()) {
        *entry = *range;
        handoff.memory_map_count += 1;
    }
    for (entry, id) in handoff.apic_ids.iter_mut().zip(apic_ids) {
        *entry = *id;
        handoff.cpu_count += 1;
    }
}

fn warn_of_fallbacks(rsdp: Option<&Rsdp>, source: Source) {
    match (rsdp, source) {
        (_, Source::Madt) => {}
        (None, Source::MpTable) => warn!("no ACPI tables; CPUs are taken from the MP table"),
        (None, Source::BootstrapOnly) => warn!("no ACPI and no MP table list the CPUs; each is called"),
        (Some(_), Source::MpTable) => warn!("no sound MADT; CPUs are taken from the MP table"),
        (Some(_), Source::BootstrapOnly) => {
            warn!("no sound MADT and no MP table list the CPUs; each is called")
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
