//! The shutdown status byte of the CMOS memory: what a reset of the processor leads to on a PC.
//!
//! A program of the 80286's time comes back from protected mode by a reset: it leaves a code in the byte and an
//! address at 40:67, and the firmware jumps there before it changes anything (IBM PC AT Technical Reference, "Shutdown
//! Status Byte"). The firmware would do so without the hypervisor; so such a reset is carried out here, and at the
//! guest's true end the byte is cleared.

use super::keyboard_controller::{DATA, RESET_LINE};
use super::power_ports::SYSTEM_CONTROL_A;
use crate::exit::{ResetCause, init_sipi};
use crate::memory::guest::GuestMemory;
use crate::vcpu::{Activity, Vcpu};
use hw::{Cpuid, PortWidth, Ports};
use x86::address::GuestPhysAddr;
use x86::segment::{Segment, SegmentRegister};

const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
/// Index of the byte, with NMIs masked as the index port's high bit has it.
const STATUS: u32 = 0x8f;
/// An index that a read leaves selected: status register D, which has no effect.
const PARKED: u32 = 0x0d;
/// Go on at 40:67, after an end of interrupt to both interrupt controllers.
const JUMP_BEHIND_INTERRUPT: u32 = 5;
/// Go on at 40:67.
const JUMP: u32 = 0x0a;
/// Offset, then segment, where to go on.
const VECTOR: u64 = 0x467;
/// Command ports of the two interrupt controllers, the second first.
const INTERRUPT_CONTROLLERS: [u16; 2] = [0xa0, 0x20];
const END_OF_INTERRUPT: u32 = 0x20;

/// Carries out a reset by which the guest only wants back to real mode, and returns whether it was one. No other
/// processor of the guest's runs.
pub fn resume<V: Vcpu + ?Sized, M: GuestMemory + ?Sized>(
    vcpu: &mut V,
    memory: &M,
    ports: &impl Ports,
    cpuid: &impl Cpuid,
    cause: ResetCause,
) -> bool {
    if !resets_processor_alone(cause) {
        return false;
    }
    let status = read(ports);
    let mut vector = [0; 4];
    let is_known = matches!(status, JUMP | JUMP_BEHIND_INTERRUPT);
    if !is_known || memory.read(GuestPhysAddr::new(VECTOR), &mut vector).is_err() {
        return false;
    }
    clear(ports);
    if status == JUMP_BEHIND_INTERRUPT {
        INTERRUPT_CONTROLLERS
            .into_iter()
            .for_each(|port| ports.write(port, PortWidth::Byte, END_OF_INTERRUPT));
    }
    perform_rest(ports, cause);
    let [offset, segment] = [[vector[0], vector[1]], [vector[2], vector[3]]].map(u16::from_le_bytes);
    init_sipi::reset_state(vcpu, cpuid);
    vcpu.set_segment(SegmentRegister::Cs, Segment::real_mode(segment, init_sipi::CODE));
    vcpu.set_rip(offset.into());
    vcpu.set_activity(Activity::Active);
    true
}

/// Makes the firmware start the machine, whatever the guest left in the byte.
pub fn clear(ports: &impl Ports) {
    ports.write(CMOS_INDEX, PortWidth::Byte, STATUS);
    ports.write(CMOS_DATA, PortWidth::Byte, 0);
    ports.write(CMOS_INDEX, PortWidth::Byte, PARKED);
}

fn read(ports: &impl Ports) -> u32 {
    ports.write(CMOS_INDEX, PortWidth::Byte, STATUS);
    let status = ports.read(CMOS_DATA, PortWidth::Byte);
    ports.write(CMOS_INDEX, PortWidth::Byte, PARKED);
    status
}

/// The chipset's reset control register and the firmware's own reset the whole machine.
const fn resets_processor_alone(cause: ResetCause) -> bool {
    match cause {
        ResetCause::Init | ResetCause::TripleFault => true,
        ResetCause::Port { port, width, .. } => {
            let last = port.saturating_add(width as u16 - 1);
            port <= SYSTEM_CONTROL_A && last >= DATA
        }
    }
}

/// Writes the byte that the guest wrote, without the reset in it: a controller that was told of a data byte waits for
/// it, and port 92H has the address line 20 too.
fn perform_rest(ports: &impl Ports, cause: ResetCause) {
    match cause {
        ResetCause::Port { port: DATA, value, .. } => {
            ports.write(DATA, PortWidth::Byte, value & 0xff | u32::from(RESET_LINE));
        }
        ResetCause::Port { port: SYSTEM_CONTROL_A, value, .. } => {
            ports.write(SYSTEM_CONTROL_A, PortWidth::Byte, value & 0xfe);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::guest::fake::FakeMemory;
    use crate::vcpu::RegisterState;
    use crate::vcpu::fake::FakeVcpu;
    use std::cell::{Cell, RefCell};
    use x86::cpuid::CpuidResult;
    use x86::cr::Cr0;

    struct NoCpuid;
    impl Cpuid for NoCpuid {
        fn cpuid(&self, _leaf: u32, _subleaf: u32) -> CpuidResult {
            CpuidResult::default()
        }
    }

    /// A machine whose CMOS memory has the byte alone.
    #[derive(Default)]
    struct Device {
        status: Cell<u32>,
        index: Cell<u32>,
        others: RefCell<Vec<(u16, u32)>>,
    }

    impl Ports for Device {
        fn read(&self, port: u16, _width: PortWidth) -> u32 {
            assert_eq!((port, self.index.get() & 0x7f), (CMOS_DATA, 0xf));
            self.status.get()
        }
        fn write(&self, port: u16, _width: PortWidth, value: u32) {
            match port {
                CMOS_INDEX => self.index.set(value),
                CMOS_DATA if self.index.get() & 0x7f == 0xf => self.status.set(value),
                _ => self.others.borrow_mut().push((port, value)),
            }
        }
    }

    fn port(port: u16, value: u32) -> ResetCause {
        ResetCause::Port { port, width: PortWidth::Byte, value }
    }

    /// Resets a processor in long mode; gives it and the machine where it goes on.
    fn reset(status: u32, cause: ResetCause) -> Option<(FakeVcpu, Device)> {
        let (device, memory) =
            (Device { status: Cell::new(status), ..Device::default() }, FakeMemory::new(0x1000));
        memory.put(0x467, &[0x34, 0x12, 0x00, 0x90]);
        let before = FakeVcpu { index: 0, ..FakeVcpu::long_mode() };
        let mut vcpu = before.clone();
        if resume(&mut vcpu, &memory, &device, &NoCpuid, cause) {
            assert_eq!((device.status.get(), device.index.get()), (0, PARKED));
            return Some((vcpu, device));
        }
        assert_eq!(vcpu, before);
        assert_eq!(device.status.get(), status);
        None
    }

    #[test]
    fn the_guest_goes_on_in_real_mode_at_its_vector() {
        for cause in [ResetCause::TripleFault, ResetCause::Init, port(0x64, 0xfe)] {
            let (vcpu, device) = reset(0x0a, cause).unwrap();
            let cs = vcpu.segment(SegmentRegister::Cs);
            assert_eq!((cs.selector, cs.base, vcpu.rip), (0x9000, 0x9_0000, 0x1234));
            assert_eq!((vcpu.cr0, vcpu.activity), (Cr0::ET, Activity::Active));
            assert!(device.others.borrow().is_empty());
        }
    }

    #[test]
    fn code_5_ends_an_interrupt_first() {
        let (_, device) = reset(5, ResetCause::TripleFault).unwrap();
        assert_eq!(*device.others.borrow(), [(0xa0, 0x20), (0x20, 0x20)]);
    }

    #[test]
    fn what_the_guest_wrote_beside_the_reset_is_performed() {
        let written = |cause| reset(0x0a, cause).unwrap().1.others.take();
        assert_eq!(written(port(0x60, 0xde)), [(0x60, 0xdf)]);
        assert_eq!(written(port(0x92, 0x03)), [(0x92, 0x02)]);
    }

    #[test]
    fn other_codes_and_resets_of_the_machine_are_its_end() {
        for status in (0..=255).filter(|status| ![5, 10].contains(status)) {
            assert!(reset(status, ResetCause::TripleFault).is_none(), "{status:#x}");
        }
        assert!(reset(0x0a, port(0xcf9, 6)).is_none());
        assert!(reset(0x0a, port(0x610, 0x0e)).is_none());
    }

    #[test]
    fn a_true_end_clears_the_byte() {
        let device = Device { status: Cell::new(0x0a), ..Device::default() };
        clear(&device);
        assert_eq!((device.status.get(), device.index.get()), (0, PARKED));
        assert!(device.others.borrow().is_empty());
    }
}
