//! L1's bitmaps by turns, and MSRs that no bitmap of L1's opens.

use super::{BITMAPS, MsrBitmaps};
use crate::exit::msr;
use crate::vmx::nested::bitmap::merged_page::tests::{FRAME, Fake, OWN, WANTED};
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::msr::Msr;
use x86::vmx::bitmap::{MsrBitmap, intercept_msr, is_msr_intercepted};

fn frames() -> [HostPhysAddr; BITMAPS] {
    core::array::from_fn(|index| HostPhysAddr::new(FRAME.get() + 0x1000 * index as u64))
}

fn bitmap_at(fake: &Fake, frame: HostPhysAddr) -> MsrBitmap {
    let mut bitmap = [0; 4096];
    fake.memory.read(frame, &mut bitmap);
    bitmap
}

/// The hypervisor's bitmap as the machine has it, MTRRs aside.
fn own_bitmap() -> MsrBitmap {
    let mut l0 = [0; 4096];
    for wanted in msr::intercepted() {
        intercept_msr(&mut l0, wanted.msr, wanted.read, wanted.write);
    }
    l0
}

#[test]
fn msrs_exit_where_somebody_wants_them() {
    let fake = Fake::new();
    let mut wanted = [0; 4096];
    intercept_msr(&mut wanted, Msr::IA32_EFER, false, true);
    fake.memory.write(OWN, &own_bitmap());
    fake.guest.put(WANTED.get(), &wanted);
    let frame = MsrBitmaps::new(frames()).of(&fake.pages(), OWN, WANTED);
    let merged = bitmap_at(&fake, frame);
    assert!(is_msr_intercepted(&merged, Msr::IA32_EFER, true));
    assert!(!is_msr_intercepted(&merged, Msr::IA32_EFER, false));
    assert!(!is_msr_intercepted(&merged, Msr::IA32_TIME_STAMP_COUNTER, false));
}

#[test]
fn what_is_intercepted_for_l1_is_for_l2_whatever_l1s_bitmap() {
    for wanted in [0, 0xff, 0x5a] {
        let fake = Fake::new();
        fake.memory.write(OWN, &own_bitmap());
        fake.guest.put(WANTED.get(), &[wanted; 4096]);
        let frame = MsrBitmaps::new(frames()).of(&fake.pages(), OWN, WANTED);
        let merged = bitmap_at(&fake, frame);
        for number in Msr::IA32_VMX_BASIC.0..=Msr::IA32_VMX_LAST.0 {
            let both = [false, true].map(|is_write| is_msr_intercepted(&merged, Msr(number), is_write));
            assert_eq!(both, [true; 2], "{number:#x}");
        }
        assert!(is_msr_intercepted(&merged, Msr::IA32_FEATURE_CONTROL, false));
        assert!(is_msr_intercepted(&merged, Msr::IA32_APIC_BASE, true));
    }
}

#[test]
fn bitmaps_of_several_processors_of_l1_stay_merged() {
    let fake = Fake::new();
    let mut bitmaps = MsrBitmaps::new(frames());
    let mut of = |page: u64| bitmaps.of(&fake.pages(), OWN, GuestPhysAddr::new(page << 12));
    let first: Vec<_> = (1..=4).map(&mut of).collect();
    fake.memory.clear_history();
    assert_eq!((1..=4).map(&mut of).collect::<Vec<_>>(), first);
    assert!(fake.memory.history().is_empty());
    // A fifth takes the place of the first.
    assert_eq!(of(5), first[0]);
    assert_eq!(of(2), first[1]);
}
