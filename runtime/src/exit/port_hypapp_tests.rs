use super::*;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

/// Owns two ports: what is read there counts up, what is written is kept from the device.
#[derive(Default)]
struct Owning {
    reads: AtomicU32,
    writes: Mutex<Vec<u32>>,
}

const OWNED: RangeInclusive<u16> = 0x500..=0x501;

impl Hypapp for Owning {
    fn read_port(&self, _vcpu: &mut dyn Vcpu, access: PortAccess) -> Option<u32> {
        access.touches(&OWNED).then(|| 0xa1b2_c300 + self.reads.fetch_add(1, Ordering::Relaxed))
    }

    fn write_port(&self, _vcpu: &mut dyn Vcpu, access: PortAccess, value: u32) -> WriteAnswer {
        if !access.touches(&OWNED) {
            return WriteAnswer::Chain;
        }
        self.writes.lock().unwrap().push(value);
        WriteAnswer::Handled
    }
}

#[test]
fn an_access_touches_as_many_ports_as_it_has_bytes() {
    let touches = |port, width| plain(port, width, true).touches(&OWNED);
    assert!(touches(0x4fd, PortWidth::Dword) && touches(0x4ff, PortWidth::Word));
    assert!(!touches(0x4fc, PortWidth::Dword) && !touches(0x4ff, PortWidth::Byte));
    assert!(touches(0x501, PortWidth::Byte) && !touches(0x502, PortWidth::Dword));
    assert!(plain(0xffff, PortWidth::Word, true).touches(&(0..=0)));
}

#[test]
fn the_hypapp_comes_first_and_the_core_carries_its_value() {
    let (device, hypapp, mut vcpu) = (Device::default(), Owning::default(), FakeVcpu::long_mode());
    let run = |vcpu: &mut FakeVcpu, access| {
        let action = handle(vcpu, &FakeMemory::new(0), &hypapp, &device, &power(), access);
        assert_eq!(action, Action::Advance);
        vcpu.registers.rax()
    };
    vcpu.registers.set_rax(0x1122_3344_5566_7788);
    assert_eq!(run(&mut vcpu, plain(0x500, PortWidth::Byte, true)), 0x1122_3344_5566_7700);
    assert_eq!(run(&mut vcpu, plain(0x4fd, PortWidth::Dword, true)), 0xa1b2_c301);
    run(&mut vcpu, plain(0x501, PortWidth::Byte, false));
    assert_eq!(device.reads.get(), 0);
    run(&mut vcpu, plain(0x502, PortWidth::Byte, false));
    // Bits above the width are the device's to ignore.
    assert_eq!(*device.writes.borrow(), [(0x502, 0xa1b2_c301)]);
    assert_eq!(*hypapp.writes.lock().unwrap(), [1]);
}

#[test]
fn the_hypapp_s_values_fill_and_leave_memory_element_by_element() {
    let (mut vcpu, memory) = long_mode();
    let (device, hypapp) = (Device::default(), Owning::default());
    vcpu.registers.set_rdi(0x6000);
    vcpu.registers.set_rsi(0x6000);
    vcpu.registers.set_rcx(3);
    let action = handle(&mut vcpu, &memory, &hypapp, &device, &power(), ins(PortWidth::Word, 64, true));
    assert_eq!((action, vcpu.registers.rcx(), vcpu.registers.rdi()), (Action::Advance, 0, 0x6006));
    assert_eq!(memory.get::<6>(0x6000), [0x00, 0xc3, 0x01, 0xc3, 0x02, 0xc3]);
    vcpu.registers.set_rcx(2);
    handle(&mut vcpu, &memory, &hypapp, &device, &power(), outs(PortWidth::Word, 64, true));
    assert_eq!(*hypapp.writes.lock().unwrap(), [0xc300, 0xc301]);
    assert_eq!((device.reads.get(), device.writes.borrow().len()), (0, 0));
}
