//! DMA protection: no device reads or writes the hypervisor's memory, which the machine's own unit sees to; the guest finds no unit.
//! devices: yes
//! bare: no
//! expect-hypervisor: remapping_units=1; devices are kept from the hypervisor
//! expect-hypervisor: devices are kept from the hypervisor: remapping_units=1
//! expect-hypervisor: refused device=00:05.0 write address=
#![no_std]
#![no_main]

use guest::boot::{self, Record};
use guest::memory::{FREE, read32, read64, write32, write64};
use guest::{acpi, check, check_eq, dma, guest, println};

guest!(main);

const DEVICE: u16 = 0x28;
/// Registers of the unit, which `tools/devices` puts there.
const UNIT: u64 = 0xfed9_0000;

fn main() {
    check!(dma::is_there(), "the engine");
    check_eq!(acpi::table(*b"DMAR"), None, "what tells of a unit");
    memory_of_the_guest_is_open();
    // The highest of the large ranges below the firmware's: it lies in the midst of memory otherwise.
    let is_region =
        |record: &&Record| record.kind == 2 && record.base() >= 1 << 20 && record.length() >= 8 << 20;
    let region = boot::e820_24().iter().filter(is_region).find(|record| record.end() < 0xf000_0000);
    check!(region.is_some(), "the hypervisor's memory");
    let Some(region) = region else { return };
    println!("region {:#x}..{:#x}", region.base(), region.end());
    // Each border, from both sides, and between.
    for address in [region.base(), region.base() + 0x1f_f000, region.base() + 0x40_0000, region.end() - 8] {
        for source in [DEVICE, 0, 0xffff] {
            check_eq!(
                dma::store(source, address, 0xbad),
                Ok(false),
                "a store of {source:#x} to {address:#x}"
            );
            check_eq!(dma::fetch(source, address), Ok(None), "a fetch of {source:#x} from {address:#x}");
        }
    }
    for address in [region.base() - 8, region.end()] {
        if let Ok(before) = read64(address) {
            check_eq!(dma::fetch(DEVICE, address), Ok(Some(before)), "beside the region, {address:#x}");
        }
    }
    registers_are_out_of_reach(region.base());
    memory_of_the_guest_is_open();
}

fn memory_of_the_guest_is_open() {
    check_eq!(write64(FREE, 1), Ok(()), "memory");
    check_eq!(dma::store(DEVICE, FREE, 0x5ec2), Ok(true), "a store");
    check_eq!(read64(FREE), Ok(0x5ec2), "what was stored");
    check_eq!(dma::fetch(DEVICE, FREE), Ok(Some(0x5ec2)), "a fetch");
}

/// Who could turn translation off, or put other tables in its place, would open everything.
fn registers_are_out_of_reach(region: u64) {
    for offset in (0..0x1000).step_by(4) {
        check_eq!(read32(UNIT + offset), Ok(0), "the unit's register {offset:#x}");
        check!(write32(UNIT + offset, 0).is_err(), "a store to the unit's register {offset:#x}");
    }
    for offset in (0..0x1000).step_by(0x20) {
        check_eq!(dma::store(DEVICE, UNIT + offset, 0), Ok(false), "a device's store to {offset:#x}");
    }
    check_eq!(dma::store(DEVICE, region, 0xbad), Ok(false), "a store behind all that");
}
