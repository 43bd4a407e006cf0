use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::reset::kept_registers::{ConfigurationSpace, KeptRegisters};
use crate::vcpu::fake::{FakeVcpu, flat};
use core::cell::{Cell, RefCell};
use platform::handoff::{Pm1Ports, PowerPorts};
use x86::segment::SegmentRegister;

#[path = "port_hypapp_tests.rs"]
mod hypapp;

/// Sleep type 7 cuts the power, others do not.
fn power() -> PowerControl {
    PowerControl::new(&[PowerPorts {
        pm1: [Pm1Ports { a_control: 0x404, a_status: 0x400, ..Pm1Ports::default() }, Pm1Ports::default()],
        power_off_types: 1 << 7,
        ..PowerPorts::default()
    }])
}

/// A device whose reads count up, and which keeps what is written.
#[derive(Default)]
struct Device {
    reads: Cell<u32>,
    writes: RefCell<Vec<(u16, u32)>>,
}

impl Ports for Device {
    fn read(&self, _port: u16, width: PortWidth) -> u32 {
        self.reads.set(self.reads.get() + 1);
        let value = 0xf1e2_d300 + self.reads.get();
        if width == PortWidth::Dword { value } else { value & ((1 << (8 * width as u32)) - 1) }
    }
    fn write(&self, port: u16, _width: PortWidth, value: u32) {
        self.writes.borrow_mut().push((port, value));
    }
}

struct Chaining;
impl Hypapp for Chaining {}

fn plain(port: u16, width: PortWidth, is_input: bool) -> PortAccess {
    PortAccess { port, width, is_input, string: None }
}

fn ins(width: PortWidth, address_bits: u8, is_repeated: bool) -> PortAccess {
    let string = StringPort { is_repeated, address_bits, segment: SegmentRegister::Es };
    PortAccess { port: 0x500, width, is_input: true, string: Some(string) }
}

fn outs(width: PortWidth, address_bits: u8, is_repeated: bool) -> PortAccess {
    let string = StringPort { is_repeated, address_bits, segment: SegmentRegister::Ds };
    PortAccess { port: 0x500, width, is_input: false, string: Some(string) }
}

fn run(vcpu: &mut FakeVcpu, memory: &FakeMemory, device: &Device, access: PortAccess) -> Action {
    handle(vcpu, memory, &Chaining, device, &power(), access)
}

/// 64-bit mode with the first 2 MiB mapped one to one, but without the page at 0x9000.
fn long_mode() -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x20_0000);
    memory.put_u64(0x1000, 0x2007);
    memory.put_u64(0x2000, 0x3007);
    memory.put_u64(0x3000, 0x4007);
    for page in (0..512).filter(|&page| page != 9) {
        memory.put_u64(0x4000 + 8 * page, page << 12 | 7);
    }
    (FakeVcpu::long_mode(), memory)
}

#[test]
fn in_changes_as_much_of_rax_as_the_processor_does() {
    let memory = FakeMemory::new(0);
    for (width, expected) in [
        (PortWidth::Byte, 0xffff_ffff_ffff_ff01),
        (PortWidth::Word, 0xffff_ffff_ffff_d301),
        (PortWidth::Dword, 0xf1e2_d301),
    ] {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.registers.set_rax(!0);
        let action = run(&mut vcpu, &memory, &Device::default(), plain(0x500, width, true));
        assert_eq!((action, vcpu.registers.rax()), (Action::Advance, expected));
    }
}

#[test]
fn a_pci_configuration_address_passes() {
    let device = Device::default();
    let mut vcpu = FakeVcpu::long_mode();
    vcpu.registers.set_rax(0x8000_ff04);
    let access = plain(0xcf8, PortWidth::Dword, false);
    assert_eq!(run(&mut vcpu, &FakeMemory::new(0), &device, access), Action::Advance);
    assert_eq!(*device.writes.borrow(), [(0xcf8, 0x8000_ff04)]);
}

#[test]
fn the_base_of_power_registers_is_not_written() {
    /// Function 0:1.3, whose register 40H holds the base.
    struct Space;
    impl ConfigurationSpace for Space {
        fn read(&self, function: u16, register: u8) -> u32 {
            let is_there = function == 0x0b;
            if is_there { 0x401 * u32::from(register == 0x40) } else { u32::MAX }
        }
    }
    /// A bus whose data ports show the register of this address.
    struct Bus(u32, RefCell<Vec<u32>>);
    impl Ports for Bus {
        fn read(&self, port: u16, _: PortWidth) -> u32 {
            assert_eq!(port, 0xcf8);
            self.0
        }
        fn write(&self, _: u16, _: PortWidth, value: u32) {
            self.1.borrow_mut().push(value);
        }
    }
    let kept = KeptRegisters::find(&Space, |port| power().is_base(port), &[]).unwrap();
    for (address, written) in [(0x8000_0b40, vec![]), (0x8000_0b44, vec![0x601])] {
        let (bus, power) = (Bus(address, RefCell::default()), power().keeping(kept.clone()));
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.registers.set_rax(0x601);
        let access = plain(0xcfc, PortWidth::Dword, false);
        let action = handle(&mut vcpu, &FakeMemory::new(0), &Chaining, &bus, &power, access);
        assert_eq!((action, bus.1.take()), (Action::Advance, written), "{address:#x}");
    }
}

#[test]
fn a_reset_is_left_to_the_shutdown() {
    let device = Device::default();
    let mut vcpu = FakeVcpu::long_mode();
    vcpu.registers.set_rax(0xfe);
    let access = plain(0x64, PortWidth::Byte, false);
    let cause = ResetCause::Port { port: 0x64, width: PortWidth::Byte, value: 0xfe };
    assert_eq!(run(&mut vcpu, &FakeMemory::new(0), &device, access), Action::Reset(cause));
    assert!(device.writes.borrow().is_empty());
}

#[test]
fn a_sleep_loses_its_enable_bit() {
    let device = Device::default();
    let mut vcpu = FakeVcpu::long_mode();
    vcpu.registers.set_rax(0x3401);
    let access = plain(0x404, PortWidth::Word, false);
    assert_eq!(run(&mut vcpu, &FakeMemory::new(0), &device, access), Action::Advance);
    assert_eq!(*device.writes.borrow(), [(0x404, 0x1401)]);
}

#[test]
fn a_sleep_left_out_shows_in_status_by_every_instruction() {
    let (mut vcpu, memory) = long_mode();
    let (device, power) = (Device::default(), power());
    power.write(0x404, PortWidth::Word, 0x1401);
    assert_eq!(power.read(0x400, PortWidth::Word, 0), 0, "type 5, no SLP_EN");
    power.write(0x404, PortWidth::Word, 0x2401);
    let mut read = |access| handle(&mut vcpu, &memory, &Chaining, &device, &power, access);
    assert_eq!(read(plain(0x401, PortWidth::Byte, true)), Action::Advance);
    let string = PortAccess { port: 0x401, ..ins(PortWidth::Byte, 64, false) };
    assert_eq!(read(string), Action::Advance);
    assert_eq!((vcpu.registers.rax() & 0x80, memory.get::<1>(0)[0] & 0x80), (0x80, 0x80));
}

#[test]
fn rep_ins_fills_memory_upwards() {
    let (mut vcpu, memory) = long_mode();
    vcpu.registers.set_rdi(0x6000);
    vcpu.registers.set_rcx(3);
    assert_eq!(run(&mut vcpu, &memory, &Device::default(), ins(PortWidth::Word, 64, true)), Action::Advance);
    assert_eq!(memory.get::<8>(0x6000), [1, 0xd3, 2, 0xd3, 3, 0xd3, 0, 0]);
    assert_eq!((vcpu.registers.rdi(), vcpu.registers.rcx()), (0x6006, 0));
}

#[test]
fn rep_outs_reads_memory_downwards_with_the_direction_flag() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    memory.put(0x6000, &[1, 2, 3, 4]);
    vcpu.rflags |= Rflags::DF;
    vcpu.registers.set_rsi(0x6003);
    vcpu.registers.set_rcx(4);
    assert_eq!(run(&mut vcpu, &memory, &device, outs(PortWidth::Byte, 64, true)), Action::Advance);
    assert_eq!(*device.writes.borrow(), [(0x500, 4), (0x500, 3), (0x500, 2), (0x500, 1)]);
    assert_eq!((vcpu.registers.rsi(), vcpu.registers.rcx()), (0x5fff, 0));
}

#[test]
fn a_count_of_zero_touches_nothing() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    vcpu.registers.set_rdi(0x9000);
    vcpu.registers.set_rcx(0x1_0000_0000);
    assert_eq!(run(&mut vcpu, &memory, &device, ins(PortWidth::Byte, 32, true)), Action::Advance);
    assert_eq!((device.reads.get(), vcpu.registers.rdi()), (0, 0x9000));
}

#[test]
fn without_rep_one_element_moves_and_rcx_stays() {
    let (mut vcpu, memory) = long_mode();
    vcpu.registers.set_rdi(0x6000);
    vcpu.registers.set_rcx(5);
    assert_eq!(
        run(&mut vcpu, &memory, &Device::default(), ins(PortWidth::Dword, 64, false)),
        Action::Advance
    );
    assert_eq!((vcpu.registers.rdi(), vcpu.registers.rcx()), (0x6004, 5));
    assert_eq!(memory.get_u32(0x6000), 0xf1e2_d301);
}

#[test]
fn a_page_fault_keeps_progress_and_loses_no_input() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    vcpu.registers.set_rdi(0x8ffc);
    vcpu.registers.set_rcx(4);
    let access = ins(PortWidth::Word, 64, true);
    let fault = Event::PageFault { address: 0x9000, error_code: 2 };
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Inject(fault));
    assert_eq!((vcpu.registers.rdi(), vcpu.registers.rcx(), device.reads.get()), (0x9000, 2, 2));
    memory.put_u64(0x4000 + 8 * 9, 0x9007);
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Advance);
    assert_eq!((vcpu.registers.rcx(), device.reads.get(), memory.get_u16(0x9002)), (0, 4, 0xd304));
}

#[test]
fn an_element_across_pages_faults_before_the_port_is_read() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    vcpu.registers.set_rdi(0x8ffe);
    let fault = Event::PageFault { address: 0x9000, error_code: 2 };
    assert_eq!(run(&mut vcpu, &memory, &device, ins(PortWidth::Dword, 64, false)), Action::Inject(fault));
    assert_eq!((device.reads.get(), memory.get_u16(0x8ffe)), (0, 0));
    vcpu.registers.set_rdi(0x7ffe);
    assert_eq!(run(&mut vcpu, &memory, &device, ins(PortWidth::Dword, 64, false)), Action::Advance);
    assert_eq!(memory.get::<4>(0x7ffe), 0xf1e2_d301_u32.to_le_bytes());
}

#[test]
fn a_long_repetition_goes_on_at_the_next_exit() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    let access = outs(PortWidth::Byte, 64, true);
    vcpu.registers.set_rsi(0x10000);
    vcpu.registers.set_rcx(300);
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Resume);
    assert_eq!((vcpu.registers.rcx(), vcpu.iterations), (44, 1));
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Advance);
    assert_eq!((vcpu.registers.rcx(), device.writes.borrow().len()), (0, 300));
    vcpu.registers.set_rsi(0x10000);
    vcpu.registers.set_rcx(256);
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Advance);
}

#[test]
fn sixteen_bit_addresses_wrap_and_keep_the_upper_half() {
    let memory = FakeMemory::new(0x2_0000);
    let mut vcpu = FakeVcpu::real_mode();
    vcpu.registers.set_rsi(0xaaaa_bbbb_cccc_ffff);
    vcpu.registers.set_rcx(0xaaaa_bbbb_cccc_0002);
    let action = run(&mut vcpu, &memory, &Device::default(), outs(PortWidth::Byte, 16, true));
    assert_eq!(action, Action::Advance);
    assert_eq!(vcpu.registers.rsi(), 0xaaaa_bbbb_cccc_0001);
    assert_eq!(vcpu.registers.rcx(), 0xaaaa_bbbb_cccc_0000);
}

#[test]
fn thirty_two_bit_addresses_clear_the_upper_half() {
    let (mut vcpu, memory) = long_mode();
    vcpu.registers.set_rdi(0xffff_ffff_0000_6000);
    vcpu.registers.set_rcx(0xffff_ffff_0000_0001);
    assert_eq!(run(&mut vcpu, &memory, &Device::default(), ins(PortWidth::Byte, 32, true)), Action::Advance);
    assert_eq!((vcpu.registers.rdi(), vcpu.registers.rcx()), (0x6001, 0));
}

#[test]
fn segments_are_checked_as_for_any_operand() {
    let memory = FakeMemory::new(0x2_0000);
    let mut vcpu = FakeVcpu::protected_mode();
    let read_only = flat(0xc091);
    vcpu.segments[SegmentRegister::Es as usize] = read_only;
    let access = ins(PortWidth::Byte, 32, false);
    assert_eq!(run(&mut vcpu, &memory, &Device::default(), access), Action::Inject(Event::GP0));
    vcpu = FakeVcpu::real_mode();
    vcpu.registers.set_rsi(0xffff);
    let access = outs(PortWidth::Word, 16, false);
    assert_eq!(run(&mut vcpu, &memory, &Device::default(), access), Action::Inject(Event::GP0));
}

#[test]
fn memory_that_is_not_the_guests_faults() {
    let (mut vcpu, mut memory) = long_mode();
    memory.hidden = 0x8000..0x9000;
    vcpu.registers.set_rsi(0x8000);
    let device = Device::default();
    let access = outs(PortWidth::Byte, 64, false);
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Inject(Event::GP0));
    assert!(device.writes.borrow().is_empty());
}

#[test]
fn user_code_that_asked_for_alignment_checks_gets_them() {
    let (mut vcpu, memory) = long_mode();
    vcpu.cpl = 3;
    vcpu.cr0 |= x86::cr::Cr0::AM;
    vcpu.rflags |= Rflags::AC;
    vcpu.registers.set_rsi(0x6001);
    let fault = Event::Exception { vector: Vector::AC, error_code: Some(0) };
    let access = outs(PortWidth::Word, 64, false);
    assert_eq!(run(&mut vcpu, &memory, &Device::default(), access), Action::Inject(fault));
}

#[test]
fn a_string_of_resets_stops_at_the_first() {
    let (mut vcpu, memory) = long_mode();
    let device = Device::default();
    memory.put(0x6000, &[0x20, 0xfe, 0x20]);
    vcpu.registers.set_rsi(0x6000);
    vcpu.registers.set_rcx(3);
    let access = PortAccess { port: 0x64, ..outs(PortWidth::Byte, 64, true) };
    let cause = ResetCause::Port { port: 0x64, width: PortWidth::Byte, value: 0xfe };
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Reset(cause));
    assert_eq!(*device.writes.borrow(), [(0x64, 0x20)]);
}

#[test]
fn single_step_traps_behind_every_iteration() {
    let (mut vcpu, memory) = long_mode();
    let access = ins(PortWidth::Byte, 64, true);
    vcpu.rflags |= Rflags::TF;
    vcpu.registers.set_rdi(0x6000);
    vcpu.registers.set_rcx(3);
    let mut step = || {
        let action = run(&mut vcpu, &memory, &Device::default(), access);
        (action, vcpu.registers.rcx(), vcpu.iterations)
    };
    assert_eq!(step(), (Action::Resume, 2, 1));
    assert_eq!(step(), (Action::Resume, 1, 2));
    assert_eq!(step(), (Action::Advance, 0, 2));
}

#[test]
fn breakpoints_on_the_port_strike_where_it_is_touched() {
    let memory = FakeMemory::new(0);
    let port_64h = FakeVcpu { dr7: 0x2_0402, breakpoints: [0x64, 0, 0, 0], ..FakeVcpu::long_mode() };
    for (port, width, has_extensions, expected) in [
        (0x64, PortWidth::Byte, true, 1),
        (0x64, PortWidth::Byte, false, 0),
        (0x61, PortWidth::Dword, true, 1),
        (0x65, PortWidth::Byte, true, 0),
    ] {
        for is_input in [true, false] {
            let mut vcpu = port_64h.clone();
            vcpu.cr4.set(x86::cr::Cr4::DE, has_extensions);
            let action = run(&mut vcpu, &memory, &Device::default(), plain(port, width, is_input));
            assert_eq!((action, vcpu.struck), (Action::Advance, expected), "{port:#x} {width:?}");
        }
    }
}

#[test]
fn breakpoints_on_the_operand_end_the_exit_behind_it() {
    let (vcpu, memory) = long_mode();
    // DR1: 2 bytes at 6002H, writes; DR2: the same, reads and writes.
    let mut vcpu = FakeVcpu { dr7: 0x0750_0428, breakpoints: [0, 0x6002, 0x6002, 0], ..vcpu };
    vcpu.registers.set_rsi(0x6000);
    vcpu.registers.set_rdi(0x6000);
    vcpu.registers.set_rcx(4);
    let mut reads = vcpu.clone();
    let (access, device) = (ins(PortWidth::Byte, 64, true), Device::default());
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Resume);
    assert_eq!((vcpu.registers.rcx(), vcpu.struck, vcpu.iterations), (1, 0b110, 1));
    assert_eq!(run(&mut vcpu, &memory, &device, access), Action::Advance);
    assert_eq!((vcpu.registers.rcx(), device.reads.get()), (0, 4));
    assert_eq!(run(&mut reads, &memory, &device, outs(PortWidth::Byte, 64, true)), Action::Resume);
    assert_eq!((reads.registers.rcx(), reads.struck), (1, 0b100));
}
