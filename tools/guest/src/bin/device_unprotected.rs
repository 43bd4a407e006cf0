//! DMA protection, the other way round: with `dmap=off` a device reads and writes the hypervisor's memory, so what the protected runs see is the unit's doing.
//! devices: yes
//! bare: no
//! cmdline: dmap=off
//! expect-hypervisor: remapping_units=1; devices are not restricted, and reach all memory
#![no_std]
#![no_main]

use guest::boot::{self, Record};
use guest::{acpi, check, check_eq, dma, guest};

guest!(main);

const DEVICE: u16 = 0x28;
/// In the secure loader's first page, which nothing uses any more.
const OFFSET: u64 = 0x800;

fn main() {
    check!(acpi::table(*b"DMAR").is_some(), "the guest is told of the unit");
    let is_region =
        |record: &&Record| record.kind == 2 && record.base() >= 1 << 20 && record.length() >= 2 << 20;
    let region = boot::e820_24().iter().filter(is_region).find(|record| record.end() < 0xf000_0000);
    check!(region.is_some(), "the hypervisor's memory");
    let Some(region) = region else { return };
    let at = region.base() + OFFSET;
    check!(dma::fetch(DEVICE, at).is_ok_and(|word| word.is_some()), "a fetch from the hypervisor");
    check_eq!(dma::store(DEVICE, at, 0xbad), Ok(true), "a store to it");
    check_eq!(dma::fetch(DEVICE, at), Ok(Some(0xbad)), "what was stored");
}
