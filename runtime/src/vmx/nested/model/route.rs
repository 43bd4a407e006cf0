//! Whose an exit is, from what L2 did: would the processor exit, were VMCS12 all that it runs under (SDM, "Instructions
//! That Cause VM Exits"; "Other Causes of VM Exits")? Bits of registers and bitmaps are looked at one by one.

use super::bytes::Bytes;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::Registers;
use crate::vmx::nested::exit::route::{Route, route};
use crate::vmx::nested::vmcs12::Vmcs12;
use hw::Vmcs;
use hw::sim::SimVmcs;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, Field, TrustedField};

const MEMORY: u64 = 0x8000;
/// Where bitmaps may lie: in memory, over its end, and nowhere.
const PAGES: [u64; 6] = [0, 0x1000, 0x2000, 0x7000, MEMORY, 1 << 40];

/// What L2 did, or what happened to it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Exception {
        vector: u8,
        error_code: u32,
    },
    Nmi,
    Interrupt,
    InterruptWindow,
    NmiWindow,
    Trap,
    /// MOV to CR0 or CR4 from a register.
    MovToCr {
        cr: u8,
        register: u8,
        value: u64,
    },
    Clts,
    Lmsw {
        source: u16,
    },
    MovCr3,
    Port {
        port: u16,
        bytes: u8,
    },
    Msr {
        number: u32,
        is_write: bool,
    },
    /// VMREAD or VMWRITE, with the field named in a register.
    Field {
        register: u8,
        value: u64,
        is_long: bool,
        is_write: bool,
    },
    Cpuid,
    Call {
        eax: u64,
    },
    SecondLevel {
        is_violation: bool,
    },
    Other(u32),
}

/// The routes of deeds that `input` has, under a VMCS12 that it has, are those of the model.
pub(super) fn check(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let mut fixture = Fixture::drawn(&mut bytes);
    while !bytes.is_over() {
        let deed = draw(&mut bytes);
        let expected = fixture.expected(deed);
        let (vmcs02, registers, reason) = told(deed, &fixture);
        let routed = route(&vmcs02, &fixture.vmcs12, &registers, reason, &fixture.memory);
        assert_eq!(routed, expected, "{deed:x?}");
        fixture.change(&mut bytes);
    }
}

/// VMCS12 and L1's memory.
struct Fixture {
    vmcs12: Vmcs12,
    memory: FakeMemory,
}

const WORDS: [TrustedField<u32>; 6] = [
    vmcs::PIN_BASED_CONTROLS,
    vmcs::PRIMARY_CONTROLS,
    vmcs::SECONDARY_CONTROLS,
    vmcs::EXCEPTION_BITMAP.trusted(),
    vmcs::PAGE_FAULT_ERROR_CODE_MASK.trusted(),
    vmcs::PAGE_FAULT_ERROR_CODE_MATCH.trusted(),
];
const LONGS: [Field<u64>; 4] = [vmcs::CR0_MASK, vmcs::CR0_READ_SHADOW, vmcs::CR4_MASK, vmcs::CR4_READ_SHADOW];
const BITMAPS: [TrustedField<u64>; 5] = [
    vmcs::IO_BITMAP_A,
    vmcs::IO_BITMAP_B,
    vmcs::MSR_BITMAPS,
    vmcs::VMREAD_BITMAP_ADDRESS,
    vmcs::VMWRITE_BITMAP_ADDRESS,
];

impl Fixture {
    fn drawn(bytes: &mut Bytes<'_>) -> Self {
        let mut fixture = Self { vmcs12: Vmcs12::new(), memory: FakeMemory::new(MEMORY as usize) };
        for field in WORDS {
            let value = bytes.word();
            fixture.vmcs12.write(field, value);
        }
        for field in LONGS {
            let value = bytes.number();
            fixture.vmcs12.write(field, value);
        }
        for field in BITMAPS {
            fixture.vmcs12.write(field, bytes.one_of(&PAGES));
        }
        fixture
    }

    /// One more bit of memory, or another control.
    fn change(&mut self, bytes: &mut Bytes<'_>) {
        if bytes.flag() {
            let at = bytes.word() as u64 % MEMORY;
            self.memory.put(at, &[bytes.byte()]);
        } else {
            let field = bytes.one_of(&WORDS);
            let value = self.vmcs12.read(field) ^ 1 << (bytes.byte() % 32);
            self.vmcs12.write(field, value);
        }
    }

    fn has<const IS_TRUSTED: bool>(&self, field: Field<u32, IS_TRUSTED>, number: u32) -> bool {
        bit(self.vmcs12.read(field).into(), number)
    }

    fn primary(&self, number: u32) -> bool {
        self.has(vmcs::PRIMARY_CONTROLS, number)
    }

    /// A bit of L1's memory; what is no memory reads as ones.
    fn in_bitmap(&self, page: TrustedField<u64>, number: u64) -> bool {
        let address = self.vmcs12.read(page) + number / 8;
        address >= MEMORY || bit(u64::from(self.memory.get::<1>(address)[0]), (number % 8) as u32)
    }

    fn expected(&self, deed: Deed) -> Route {
        let own_unless = |l1: bool, own: Route| if l1 { Route::L1 } else { own };
        match deed {
            Deed::Nmi => Route::Nmi,
            Deed::SecondLevel { .. } => Route::SecondLevel,
            Deed::Cpuid => Route::HypappThenL1,
            Deed::Call { eax } if eax as u32 >> 8 == 0x4c4150 => Route::HypappThenL1,
            Deed::Call { .. } | Deed::Other(_) | Deed::MovCr3 => Route::L1,
            Deed::NmiWindow => own_unless(self.primary(22), Route::NmiWindow),
            Deed::Trap => Route::Trap,
            Deed::Field { .. } => own_unless(self.exits(deed), Route::Linked),
            _ => own_unless(self.exits(deed), Route::L0),
        }
    }

    /// Whether the deed exits by VMCS12.
    fn exits(&self, deed: Deed) -> bool {
        match deed {
            Deed::Exception { vector: 14, error_code } => {
                let mask = self.vmcs12.read(vmcs::PAGE_FAULT_ERROR_CODE_MASK);
                let equal = error_code & mask == self.vmcs12.read(vmcs::PAGE_FAULT_ERROR_CODE_MATCH);
                let exits_if_equal = self.has(vmcs::EXCEPTION_BITMAP, 14);
                if equal { exits_if_equal } else { !exits_if_equal }
            }
            Deed::Exception { vector, .. } => self.has(vmcs::EXCEPTION_BITMAP, vector.into()),
            Deed::Interrupt => self.has(vmcs::PIN_BASED_CONTROLS, 0),
            Deed::InterruptWindow => self.primary(2),
            Deed::MovToCr { cr, value, .. } => {
                let (mask, shadow) = self.owned(cr);
                (0..64).any(|n| bit(mask, n) && bit(value, n) != bit(shadow, n))
            }
            Deed::Clts => {
                let (mask, shadow) = self.owned(0);
                bit(mask, 3) && bit(shadow, 3)
            }
            Deed::Lmsw { source } => {
                let (mask, shadow) = self.owned(0);
                let source = source.into();
                bit(mask, 0) && bit(source, 0) && !bit(shadow, 0)
                    || (1..4).any(|n| bit(mask, n) && bit(source, n) != bit(shadow, n))
            }
            Deed::Port { port, bytes } => self.port_exits(port, bytes),
            Deed::Msr { number, is_write } => self.msr_exits(number, is_write),
            Deed::Field { value, is_long, is_write, .. } => {
                let encoding = if is_long { value } else { value & 0xffff_ffff };
                let bitmap =
                    if is_write { vmcs::VMWRITE_BITMAP_ADDRESS } else { vmcs::VMREAD_BITMAP_ADDRESS };
                let has_shadowing = self.primary(31) && self.has(vmcs::SECONDARY_CONTROLS, 14);
                !has_shadowing || encoding >> 15 != 0 || self.in_bitmap(bitmap, encoding)
            }
            _ => true,
        }
    }

    fn owned(&self, cr: u8) -> (u64, u64) {
        let [mask, shadow] = if cr == 0 {
            [vmcs::CR0_MASK, vmcs::CR0_READ_SHADOW]
        } else {
            [vmcs::CR4_MASK, vmcs::CR4_READ_SHADOW]
        };
        (self.vmcs12.read(mask), self.vmcs12.read(shadow))
    }

    fn port_exits(&self, port: u16, bytes: u8) -> bool {
        if !self.primary(25) {
            return self.primary(24);
        }
        (0..u64::from(bytes)).map(|n| u64::from(port) + n).any(|port| match port {
            0..0x8000 => self.in_bitmap(vmcs::IO_BITMAP_A, port),
            0x8000..0x1_0000 => self.in_bitmap(vmcs::IO_BITMAP_B, port - 0x8000),
            _ => true,
        })
    }

    fn msr_exits(&self, number: u32, is_write: bool) -> bool {
        let within = match number {
            0..0x2000 => number,
            0xc000_0000..0xc000_2000 => number - 0xc000_0000 + 0x400 * 8,
            _ => return true,
        };
        let half = if is_write { 0x800 * 8 } else { 0 };
        !self.primary(28) || self.in_bitmap(vmcs::MSR_BITMAPS, u64::from(within) + half)
    }
}

fn bit(value: u64, number: u32) -> bool {
    value >> number & 1 == 1
}

fn draw(bytes: &mut Bytes<'_>) -> Deed {
    match bytes.byte() % 17 {
        0 => Deed::Exception { vector: bytes.byte() % 32, error_code: bytes.byte().into() },
        1 => Deed::Nmi,
        2 => Deed::Interrupt,
        3 => Deed::InterruptWindow,
        4 => Deed::NmiWindow,
        5 => Deed::Trap,
        6 => Deed::MovToCr { cr: bytes.one_of(&[0, 4]), register: bytes.byte() % 16, value: bytes.number() },
        7 => Deed::Clts,
        8 => Deed::Lmsw { source: bytes.byte().into() },
        9 => Deed::MovCr3,
        10 => Deed::Port { port: bytes.word() as u16, bytes: bytes.one_of(&[1, 2, 4]) },
        11 => Deed::Msr {
            number: bytes.word() & 0x3fff | bytes.one_of(&[0, 0, 0xc000_0000, 0x4000_0000]),
            is_write: bytes.flag(),
        },
        12 => Deed::Field {
            register: bytes.byte() % 16,
            value: bytes.word() as u64 & 0x7fff | bytes.one_of(&[0, 0, 0, 1 << 15, 1 << 32, 1 << 63]),
            is_long: bytes.flag(),
            is_write: bytes.flag(),
        },
        13 => Deed::Cpuid,
        14 => Deed::Call { eax: bytes.long() % 0x400 + 0x4c41_4f00 + (bytes.long() << 32) },
        15 => Deed::SecondLevel { is_violation: bytes.flag() },
        // HLT, INVLPG, RDPMC, RDTSC, VMX instructions, DR, PAUSE, TPR, APIC, tables, timer, VPID, WBINVD, XSETBV.
        _ => Deed::Other(bytes.one_of(&[12, 14, 15, 16, 20, 22, 29, 40, 43, 44, 46, 50, 52, 53, 54, 55])),
    }
}

/// How the hardware tells of the deed: VMCS02, registers and exit reason.
fn told(deed: Deed, fixture: &Fixture) -> (SimVmcs, Registers, ExitReason) {
    let (mut vmcs02, mut registers) = (SimVmcs::default(), Registers::default());
    // Not to be taken for what VMCS12 has.
    vmcs02.write(vmcs::CR0_MASK, !fixture.vmcs12.read(vmcs::CR0_MASK));
    vmcs02.write(vmcs::EXIT_QUALIFICATION, qualification(deed));
    let operand = match deed {
        Deed::Exception { vector, error_code } => {
            vmcs02.write(vmcs::EXIT_INTERRUPTION_INFORMATION, 0x8000_0b00 | u32::from(vector));
            vmcs02.write(vmcs::EXIT_INTERRUPTION_ERROR_CODE, error_code);
            None
        }
        Deed::Nmi => {
            vmcs02.write(vmcs::EXIT_INTERRUPTION_INFORMATION, 0x8000_0202);
            None
        }
        Deed::Field { register, value, is_long, .. } => {
            vmcs02.write(vmcs::EXIT_INSTRUCTION_INFORMATION, u32::from(register) << 28);
            vmcs02.write(vmcs::GUEST_CS_ACCESS_RIGHTS, if is_long { 0xa09b } else { 0xc09b });
            Some((register, value))
        }
        Deed::MovToCr { register, value, .. } => Some((register, value)),
        Deed::Call { eax } => Some((0, eax)),
        Deed::Msr { number, .. } => Some((1, u64::from(number) | 0x1234 << 32)),
        _ => None,
    };
    match operand {
        Some((4, value)) => vmcs02.write(vmcs::GUEST_RSP, value),
        Some((register, value)) => registers.0[usize::from(register)] = value,
        None => (),
    }
    (vmcs02, registers, ExitReason(reason(deed)))
}

/// Exit qualification (SDM, "Basic VM-Exit Information").
fn qualification(deed: Deed) -> u64 {
    match deed {
        Deed::MovToCr { cr, register, .. } => u64::from(cr) | u64::from(register) << 8,
        Deed::MovCr3 => 3,
        Deed::Clts => 2 << 4,
        Deed::Lmsw { source } => 3 << 4 | u64::from(source) << 16,
        Deed::Port { port, bytes } => (u64::from(bytes) - 1) | (u64::from(port) << 16),
        _ => 0,
    }
}

/// Basic exit reason (SDM, appendix "VMX Basic Exit Reasons").
fn reason(deed: Deed) -> u32 {
    match deed {
        Deed::Exception { .. } | Deed::Nmi => 0,
        Deed::Interrupt => 1,
        Deed::InterruptWindow => 7,
        Deed::NmiWindow => 8,
        Deed::Cpuid => 10,
        Deed::Call { .. } => 18,
        Deed::Field { is_write: false, .. } => 23,
        Deed::Field { .. } => 25,
        Deed::MovToCr { .. } | Deed::MovCr3 | Deed::Clts | Deed::Lmsw { .. } => 28,
        Deed::Port { .. } => 30,
        Deed::Msr { is_write: false, .. } => 31,
        Deed::Msr { .. } => 32,
        Deed::Trap => 37,
        Deed::SecondLevel { is_violation: true } => 48,
        Deed::SecondLevel { .. } => 49,
        Deed::Other(reason) => reason,
    }
}
