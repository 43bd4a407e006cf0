//! Both halves of the ports.

use super::IoBitmaps;
use crate::vmx::nested::bitmap::merged_page::tests::{FRAME, Fake, OWN};
use hw::PhysMemory;
use x86::address::{GuestPhysAddr, HostPhysAddr};

#[test]
fn ports_of_the_hypervisor_and_of_l1_exit() {
    let fake = Fake::new();
    // The hypervisor wants 64H and 8004H, L1 3F8H and FFFFH; its bitmaps A and B lie in any order.
    fake.memory.write(HostPhysAddr::new(OWN.get() + 0x64 / 8), &[1 << 4]);
    fake.memory.write(HostPhysAddr::new(OWN.get() + 0x8004 / 8), &[1 << 4]);
    fake.guest.put(0x5000 + 0x3f8 / 8, &[1]);
    fake.guest.put(0x3000 + 0x7fff / 8, &[0x80]);
    let mut bitmaps = IoBitmaps::new(FRAME);
    let wanted = [0x5000, 0x3000].map(GuestPhysAddr::new);
    let frame = bitmaps.of(&fake.pages(), OWN, wanted);
    let exits: Vec<_> =
        (0..0x1_0000_u64).filter(|port| fake.byte(frame.get() + port / 8) >> (port % 8) & 1 == 1).collect();
    assert_eq!(exits, [0x64, 0x3f8, 0x8004, 0xffff]);
}

#[test]
fn each_half_follows_its_own_page() {
    let fake = Fake::new();
    let mut bitmaps = IoBitmaps::new(FRAME);
    let wanted = [0x5000, 0x3000].map(GuestPhysAddr::new);
    bitmaps.of(&fake.pages(), OWN, wanted);
    fake.memory.clear_history();
    fake.write(0x3000, 3);
    let frame = bitmaps.of(&fake.pages(), OWN, wanted);
    assert_eq!((fake.memory.history().len(), fake.byte(frame.get() + 0x1000)), (8, 3));
}
