//! Checks of a VM entry over the bytes of the page of a VMCS12.

use super::bytes::Bytes;
use crate::memory::guest::fake::FakeMemory;
use crate::vmx::nested::entry::checks::fixture::{FakeVmcs, Fixture, MODES, sound};
use crate::vmx::nested::entry::checks::model::agree;
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::fields::{self, Access, COUNT};
use x86::address::GuestPhysAddr;
use x86::vmx::vmcs::{FIELDS, Width};

const REGION: GuestPhysAddr = GuestPhysAddr::new(0x1000);
/// Where the fields begin in the page.
const VALUES: u64 = 16;

/// A sound VMCS, some of whose bytes are others, is entered or refused as in the model.
pub(super) fn check(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let mode = bytes.one_of(&MODES);
    let mut machine = Fixture::new();
    machine.is_ia32e = !bytes.byte().is_multiple_of(8);
    let page = FakeMemory::new(0x2000);
    stored(&sound(mode)).store(&page, REGION);
    while !bytes.is_over() {
        let place = bytes.word() % (8 * COUNT as u32 + 8);
        let at = REGION.get() + VALUES - 8 + u64::from(place);
        let [old] = page.get::<1>(at);
        page.put(at, &[if bytes.flag() { bytes.byte() } else { old ^ 1 << (bytes.byte() % 8) }]);
    }
    let mut vmcs12 = Vmcs12::new();
    vmcs12.load(&page, REGION).unwrap();
    let mut vmcs = sound(mode);
    for (index, field) in FIELDS.iter().enumerate() {
        let value = vmcs12.value(Access { index, is_high: false });
        assert!(field.width() == Width::Bits64 || value & !super::l2::mask(field.encoding) == 0);
        vmcs.set_value(field.encoding, value);
    }
    agree(&machine, &vmcs, &format!("{mode:?}"));
}

fn stored(vmcs: &FakeVmcs) -> Vmcs12 {
    let mut vmcs12 = Vmcs12::new();
    for field in FIELDS {
        let Some(index) = fields::index(field.encoding) else { continue };
        vmcs12.set_value(Access { index, is_high: false }, vmcs.value(field.encoding));
    }
    vmcs12
}
