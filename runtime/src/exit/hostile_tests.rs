//! Every handler over states and memory that no sane guest has: none may panic, leave the guest's memory, or
//! leave a state that an entry into the guest would refuse.

use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::RegisterState;
use crate::vcpu::fake::FakeVcpu;
use hw::{Caches, Ports};
use platform::handoff::{MemoryRange, Pm1Ports, PowerPorts};
use proptest::prelude::*;
use x86::cr::{Cr0, Cr4, Efer, Rflags};
use x86::segment::{AccessRights, DescriptorTable, Segment, SegmentRegister};

const MEMORY_BYTES: usize = 0x1_0000;
const HIDDEN: core::ops::Range<u64> = 0xe000..0xf000;

struct Nothing;

impl Ports for Nothing {
    fn read(&self, _port: u16, _width: PortWidth) -> u32 {
        0xffff_ffff
    }
    fn write(&self, _port: u16, _width: PortWidth, _value: u32) {}
}

impl Caches for Nothing {
    fn write_back_and_invalidate(&self) {}
}

impl crate::hypapp::Hypapp for Nothing {}

/// Numbers that lie around what the fake memory has, or anywhere.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..MEMORY_BYTES as u64 + 16,
        any::<u64>(),
        Just(0xffff_ffff),
        Just(u64::MAX),
        (0..64_u32).prop_map(|bit| 1 << bit),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<u16>(), number(), any::<u32>(), any::<u32>()).prop_map(|(selector, base, limit, rights)| Segment {
        selector: selector & 0x7f,
        base,
        limit,
        rights: AccessRights::from_bits_retain(rights & 0x1_f0ff),
    })
}

fn vcpu() -> impl Strategy<Value = FakeVcpu> {
    let controls = (number(), number(), number(), number(), any::<u32>());
    let pointers = (number(), number(), number(), number(), any::<u16>());
    let rest =
        (prop::array::uniform16(number()), prop::array::uniform8(segment()), prop::array::uniform4(number()));
    (controls, pointers, rest, 0..4_u8, 1..16_u64).prop_map(|(controls, pointers, rest, cpl, length)| {
        FakeVcpu {
            cr0: Cr0::from_bits_truncate(controls.0 | u64::from(controls.4 & 0x8001_0001)),
            cr4: Cr4::from_bits_truncate(controls.1 | u64::from(controls.4 >> 1 & 0x30)),
            cr3: controls.2,
            efer: Efer::from_bits_truncate(controls.3),
            pkru: controls.4,
            rip: pointers.0,
            rsp: pointers.1,
            rflags: Rflags::from_bits_truncate(pointers.2),
            gdtr: DescriptorTable { base: pointers.3, limit: pointers.4 },
            registers: crate::vcpu::Registers(rest.0),
            segments: rest.1,
            pdptes: rest.2,
            cpl,
            instruction_length: length,
            ..FakeVcpu::real_mode()
        }
    })
}

/// Memory of words that often are present entries or descriptors.
fn memory() -> impl Strategy<Value = FakeMemory> {
    prop::collection::vec(
        prop_oneof![any::<u64>(), (0..16_u64, 0..256_u64).prop_map(|(page, flags)| page << 12 | flags)],
        64,
    )
    .prop_map(|words| {
        let mut memory = FakeMemory::new(MEMORY_BYTES);
        for at in 0..MEMORY_BYTES as u64 / 8 {
            memory.put_u64(8 * at, words[(at % 61) as usize]);
        }
        memory.put(HIDDEN.start, &[0x5a; 0x1000]);
        memory.hidden = HIDDEN;
        memory
    })
}

fn assert_hidden_memory_is_untouched(memory: &FakeMemory) {
    assert_eq!(memory.get::<0x1000>(HIDDEN.start), [0x5a; 0x1000]);
}

const GDT: u64 = 0x1000;
const TSS: u64 = 0x3000;

/// A descriptor that could be of use in a task switch.
fn descriptor() -> impl Strategy<Value = u64> {
    let kind = prop_oneof![
        1 => prop::sample::select(vec![0x89_u64, 0x8b, 0x81, 0x83, 0x82]),
        6 => prop::sample::select(vec![0x9a_u64, 0x92, 0xfa, 0xf2, 0x9e, 0xfe]),
        1 => 0..=255_u64,
    ];
    let base = prop_oneof![3 => Just(TSS), 1 => 0..MEMORY_BYTES as u64];
    let limit = prop_oneof![4 => Just(0xffff_u64), 1 => 0..0x100_u64];
    (kind, base, limit).prop_map(|(kind, base, limit)| limit | base << 16 | kind << 40)
}

/// A selector of flat code, of flat data, or of anything.
fn selector() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0x08), 3 => Just(0x10), 1 => 0..0x80_u16]
}

/// SDM, "Checks on Guest Segment Registers": what an entry into the guest would refuse.
fn assert_can_be_entered(vcpu: &FakeVcpu) {
    let [cs, ss, tr] = [SegmentRegister::Cs, SegmentRegister::Ss, SegmentRegister::Tr]
        .map(|register| vcpu.segment(register));
    assert!(vcpu.rip >> 32 == 0);
    assert!(matches!(tr.rights.kind(), 3 | 11) && tr.rights.contains(AccessRights::P));
    assert!(!tr.rights.intersects(AccessRights::S | AccessRights::UNUSABLE));
    if vcpu.rflags.contains(Rflags::VM) {
        assert!(cs.rights.bits() == 0xf3 && cs.base == u64::from(cs.selector) << 4);
        return;
    }
    let is_conforming = cs.rights.kind() & 4 != 0;
    let (code, stack) = (cs.rights.dpl(), ss.rights.dpl());
    assert!(cs.rights.kind() & 9 == 9 && cs.rights.contains(AccessRights::P | AccessRights::S));
    assert!(code == stack || is_conforming && code < stack, "{cs:?} {ss:?}");
}

fn width() -> impl Strategy<Value = PortWidth> {
    prop_oneof![Just(PortWidth::Byte), Just(PortWidth::Word), Just(PortWidth::Dword)]
}

fn source() -> impl Strategy<Value = TaskSwitchSource> {
    prop_oneof![
        Just(TaskSwitchSource::Call),
        Just(TaskSwitchSource::Iret),
        Just(TaskSwitchSource::Jump),
        Just(TaskSwitchSource::SoftwareInterrupt),
        any::<Option<u32>>().prop_map(|error_code| TaskSwitchSource::Event { error_code }),
    ]
}

proptest! {
    #[test]
    fn string_ports(
        mut vcpu in vcpu(),
        memory in memory(),
        width in width(),
        (port, power_off_types) in any::<(u16, u8)>(),
        (is_input, is_repeated) in any::<(bool, bool)>(),
        address_bits in prop_oneof![Just(16), Just(32), Just(64)],
        register in 0..6_usize,
    ) {
        let string = StringPort { is_repeated, address_bits, segment: SegmentRegister::ALL[register] };
        let access = PortAccess { port, width, is_input, string: Some(string) };
        let power = crate::reset::power_ports::PowerControl::new(&[PowerPorts {
            reset_port: 0x610,
            reset_value: 1,
            power_off_types,
            pm1: [Pm1Ports { a_control: 0xffff, b_control: 0x404, a_status: 0xffff }, Pm1Ports::default()],
            ..PowerPorts::default()
        }, PowerPorts::default()]);
        port::handle(&mut vcpu, &memory, &Nothing, &Nothing, &power, access);
        assert_hidden_memory_is_untouched(&memory);
    }

    #[test]
    fn task_switches(
        mut vcpu in vcpu(),
        memory in memory(),
        descriptors in prop::collection::vec(descriptor(), 16),
        selectors in prop::collection::vec(selector(), 6),
        new_kind in prop_oneof![3 => Just(0x89_u64), 2 => Just(0x8b), 1 => Just(0x81), 1 => 0..=255_u64],
        (has_paging, is_virtual_8086) in (any::<bool>(), prop::bool::weighted(0.2)),
        selector in prop_oneof![7 => Just(0x20_u16), 1 => 0..0x80_u16],
        source in source(),
    ) {
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            memory.put_u64(GDT + 8 * index as u64, descriptor);
        }
        memory.put_u64(GDT + 0x08, 0x00cf_9a00_0000_ffff);
        memory.put_u64(GDT + 0x10, 0x00cf_9200_0000_ffff);
        memory.put_u64(GDT + 0x20, 0xffff | TSS << 16 | new_kind << 40);
        memory.put(TSS + 0x26, &[u8::from(is_virtual_8086) << 1]);
        for (index, selector) in selectors.into_iter().enumerate() {
            memory.put(TSS + 0x48 + 4 * index as u64, &selector.to_le_bytes());
        }
        // The LDT field of the TSS is null, as it mostly is.
        memory.put(TSS + 0x60, &[0; 2]);
        vcpu.gdtr = DescriptorTable { base: GDT, limit: 0x7f };
        vcpu.cr0.set(Cr0::PG, has_paging && vcpu.cr0.contains(Cr0::PG));
        vcpu.segments[SegmentRegister::Tr as usize] = Segment { base: 0x6000, ..Segment::real_mode(0x18, 0x8b) };
        let before = vcpu.clone();
        let action = task_switch::handle(&mut vcpu, &memory, TaskSwitch { selector, source });
        assert_hidden_memory_is_untouched(&memory);
        prop_assert!(matches!(action, Action::Resume | Action::Inject(_)));
        if vcpu != before {
            assert_can_be_entered(&vcpu);
        }
    }

    #[test]
    fn control_registers(
        mut vcpu in vcpu(),
        memory in memory(),
        control_register in 0..16_u8,
        register in 0..16_u8,
        is_write in any::<bool>(),
    ) {
        let policy = control_register::ControlRegisterPolicy { nested: false, cr4_offered: control_register::CR4_KNOWN - control_register::CR4_OWNED };
        let access = if is_write {
            ControlRegisterAccess::MovTo { control_register, register }
        } else {
            ControlRegisterAccess::MovFrom { control_register, register }
        };
        let before = vcpu.clone();
        let action = control_register::handle(&mut vcpu, &memory, &policy, access);
        if is_write && action != Action::Advance {
            prop_assert_eq!(&vcpu, &before);
        }
        if is_write && action == Action::Advance && control_register == 4 {
            prop_assert!(!vcpu.cr4.intersects(control_register::CR4_OWNED));
        }
        if is_write && action == Action::Advance && control_register == 0 {
            let (cr0, is_long) = (vcpu.cr0, vcpu.efer.contains(Efer::LMA));
            prop_assert!(cr0.contains(Cr0::PE) || !cr0.contains(Cr0::PG));
            prop_assert!(cr0.contains(Cr0::CD) || !cr0.contains(Cr0::NW));
            prop_assert!(!is_long || before.efer.contains(Efer::LMA) || vcpu.cr4.contains(Cr4::PAE));
        }
    }

    #[test]
    fn hypercalls_at_the_hook(mut vcpu in vcpu(), memory in memory(), map_length in 0..4_usize, eax in prop_oneof![Just(0xe820_u64), Just(0xe801), Just(0x8800), any::<u64>()]) {
        vcpu.segments[SegmentRegister::Cs as usize] = Segment::real_mode(0x40, 0x9b);
        vcpu.rip = 0xac;
        vcpu.registers.set_rax(eax);
        let map = [MemoryRange { base: u64::MAX - 5, length: 100, kind: 1, attributes: 1 }; 4];
        hypercall::handle(&mut vcpu, &memory, &Nothing, &map[..map_length]);
        assert_hidden_memory_is_untouched(&memory);
    }
}
