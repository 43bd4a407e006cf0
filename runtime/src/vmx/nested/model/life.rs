//! What VMCSs hold, and with what L2 runs, over a life of VMREAD, VMWRITE, VMPTRLD, VMCLEAR, entries and exits.
//!
//! The model keeps every field of every VMCS as the manual has it, and the registers of L2. The code is lazy: it
//! copies what changed, fetches what is asked for, and lets a shadow VMCS answer. Nobody may see that.

use super::bytes::Bytes;
use super::l2::{self, Fields, bit};
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::Registers;
use crate::vmx::nested::capability::Capability;
use crate::vmx::nested::entry::checks::Processor;
use crate::vmx::nested::entry::checks::fixture::{REVISION, hardware};
use crate::vmx::nested::entry::vmcs02::{self, InheritedByL2};
use crate::vmx::nested::exit::reflect;
use crate::vmx::nested::instruction::{self, Hardware, L1, VpidScope};
use crate::vmx::nested::vmcs12::Vmcs12;
use crate::vmx::nested::vmcs12::shadowing::{self, Bitmap, PIECE_BYTES, Told};
use crate::vmx::nested::{Facts, Nested};
use crate::vmx::vcpu::VmxVcpu;
use hw::Vmcs;
use hw::sim::{SimCpuid, SimMsrs, SimVmcs};
use std::collections::BTreeMap;
use x86::address::GuestPhysAddr;
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::vmcs::{self, FIELDS, FieldInfo, Group, Width};

const OPERAND: u64 = 0x1008;
const VMXON_REGION: u64 = 0x2000;
const REGIONS: [u64; 3] = [0x3000, 0x4000, 0x5000];
/// Operand at the exit qualification in memory; operand in RAX and encoding in RDX.
const MEMORY: u32 = 2 << 7 | 3 << 15 | 1 << 22 | 1 << 27;
const RAX_AND_RDX: u32 = 1 << 10 | 2 << 28;

/// A life that `input` has goes as in the model.
pub(super) fn check(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let mut fixture = Fixture::new(bytes.flag());
    fixture.load(REGIONS[0]);
    while !bytes.is_over() {
        match bytes.byte() % 8 {
            0 => fixture.load(bytes.one_of(&REGIONS)),
            1 => fixture.clear(bytes.one_of(&REGIONS)),
            2 | 3 => fixture.write(&mut bytes),
            4 => fixture.read(&mut bytes),
            _ => fixture.live(&mut bytes),
        }
    }
    fixture.read_all();
}

/// The hardware's two VMCSs beside L1's own.
#[derive(Debug)]
struct Fake {
    capability: Capability,
    vmcs02: SimVmcs,
    /// `None` where the processor has no VMCS shadowing.
    shadow: Option<(SimVmcs, Told)>,
}

impl Hardware for Fake {
    fn fetch_guest_state(&mut self, vmcs12: &mut Vmcs12) {
        vmcs02::copy_cold_guest_state(&self.vmcs02, vmcs12, &self.capability);
    }
    fn fetch_shadow(&mut self, vmcs12: &mut Vmcs12) {
        if let Some((shadow, told)) = &mut self.shadow {
            shadowing::fetch(shadow, told, vmcs12);
        }
    }
    fn invalidate_ept(&mut self, _: Option<u64>) {}
    fn invalidate_vpid(&mut self, _: VpidScope) {}
    fn current_changed(&mut self, vmcs12: Option<&Vmcs12>) {
        if let (Some((shadow, told)), Some(vmcs12)) = (&mut self.shadow, vmcs12) {
            shadowing::tell_all(shadow, told, vmcs12);
        }
    }

    fn left_operation(&mut self) {}
}

/// The code's state beside the model's.
struct Fixture {
    nested: Nested,
    hardware: Fake,
    memory: FakeMemory,
    facts: Facts,
    vmcs01: SimVmcs,
    /// By VMCS; those that are not defined are not there.
    model: BTreeMap<u64, Fields>,
    current: Option<u64>,
}

impl Fixture {
    fn new(has_shadowing: bool) -> Self {
        let memory = FakeMemory::new(0x6000);
        for region in REGIONS.into_iter().chain([VMXON_REGION]) {
            memory.put(region, &REVISION.to_le_bytes());
        }
        let msrs = SimMsrs::new(hardware());
        let facts = Facts {
            capability: Capability::of(&msrs, 39).unwrap(),
            processor: Processor::of(&SimCpuid::default(), &msrs),
        };
        let mut vmcs01 = SimVmcs::default();
        vmcs01.write(vmcs::CR0_READ_SHADOW, 0x31);
        vmcs01.write(vmcs::CR4_READ_SHADOW, 0x2000);
        vmcs01.write(vmcs::GUEST_EFER, 0xd01);
        vmcs01.write(vmcs::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
        vmcs01.write(vmcs::GUEST_SS_ACCESS_RIGHTS, 0xc093);
        let all = FIELDS.iter().map(|field| (field.encoding, 0)).collect::<Fields>();
        let model = REGIONS.into_iter().map(|region| (region, all.clone())).collect();
        let shadow = has_shadowing.then(|| (SimVmcs::default(), Told::new(true)));
        let hardware = Fake { capability: facts.capability, vmcs02: SimVmcs::default(), shadow };
        let mut nested = Nested::new();
        nested.switch_on(GuestPhysAddr::new(VMXON_REGION));
        Self { nested, hardware, memory, facts, vmcs01, model, current: None }
    }

    /// Executes an instruction of L1's that succeeds or has no current VMCS; gives RAX.
    fn execute(&mut self, reason: ExitReason, information: u32, rax: u64, rdx: u64) -> u64 {
        let mut registers = Registers::default();
        registers.set_rax(rax);
        registers.set_rdx(rdx);
        self.vmcs01.write(vmcs::EXIT_INSTRUCTION_INFORMATION, information);
        self.vmcs01.write(vmcs::EXIT_QUALIFICATION, OPERAND);
        self.vmcs01.write(vmcs::GUEST_CR0, 0x31);
        let mut vcpu = VmxVcpu::new(self.vmcs01.clone(), &mut registers, 0);
        let mut l1 =
            L1 { vcpu: &mut vcpu, memory: &self.memory, facts: &self.facts, hardware: &mut self.hardware };
        instruction::execute(&mut self.nested, &mut l1, reason);
        assert_eq!(vcpu.vmcs.read(vmcs::GUEST_RFLAGS) & 0x41, 0, "{} succeeds", reason.name());
        registers.rax()
    }

    fn load(&mut self, region: u64) {
        self.memory.put_u64(OPERAND, region);
        self.execute(ExitReason::VMPTRLD, MEMORY, 0, 0);
        self.current = Some(region);
    }

    fn clear(&mut self, region: u64) {
        self.memory.put_u64(OPERAND, region);
        if self.current == Some(region) {
            self.current = None;
        }
        self.execute(ExitReason::VMCLEAR, MEMORY, 0, 0);
    }

    fn drawn_field(&self, bytes: &mut Bytes<'_>) -> FieldInfo {
        bytes.one_of(&self.there())
    }

    /// The fields that L1 has.
    fn there(&self) -> Vec<FieldInfo> {
        let is_there = |field: &FieldInfo| self.facts.capability.has_field(*field);
        FIELDS.iter().copied().filter(is_there).collect()
    }

    fn write(&mut self, bytes: &mut Bytes<'_>) {
        let field = self.drawn_field(bytes);
        let is_high = field.width() == Width::Bits64 && bytes.byte().is_multiple_of(8);
        let value = l2::allowed(field.encoding, bytes.number(), &self.facts.capability);
        let Some(current) = self.current else { return };
        let values = self.model.get_mut(&current).unwrap();
        let Some(old) = values.get(&field.encoding).copied() else {
            // Half of what is not defined is not defined.
            return self.write_whole(field.encoding, value);
        };
        if is_high {
            values.insert(field.encoding, old & 0xffff_ffff | value << 32);
            self.execute(ExitReason::VMWRITE, RAX_AND_RDX, value, u64::from(field.encoding | 1));
        } else {
            self.write_whole(field.encoding, value);
        }
    }

    fn write_whole(&mut self, encoding: u32, value: u64) {
        let Some(current) = self.current else { return };
        let kept = value & l2::mask(encoding);
        self.model.get_mut(&current).unwrap().insert(encoding, kept);
        match &mut self.hardware.shadow {
            Some((shadow, _)) if passes(Bitmap::Write, encoding) => shadow.set_value(encoding, kept),
            _ => {
                self.execute(ExitReason::VMWRITE, RAX_AND_RDX, value, encoding.into());
            }
        }
    }

    fn read(&mut self, bytes: &mut Bytes<'_>) {
        let field = self.drawn_field(bytes);
        self.compare(field.encoding);
    }

    fn compare(&mut self, encoding: u32) {
        let Some(current) = self.current else { return };
        let Some(expected) = self.model[&current].get(&encoding).copied() else { return };
        let seen = match &self.hardware.shadow {
            Some((shadow, _)) if passes(Bitmap::Read, encoding) => shadow.value(encoding),
            _ => self.execute(ExitReason::VMREAD, RAX_AND_RDX, 0, encoding.into()),
        };
        assert_eq!(seen, expected, "VMREAD of {}", l2::name(encoding));
    }

    fn read_all(&mut self) {
        for region in REGIONS {
            self.load(region);
            for field in self.there() {
                self.compare(field.encoding);
            }
        }
    }

    /// An entry, what L2 does, and its exit.
    fn live(&mut self, bytes: &mut Bytes<'_>) {
        let Some(current) = self.current else { return };
        l2::sound_controls(&self.model[&current], &self.facts.capability)
            .into_iter()
            .for_each(|(encoding, value)| self.write_whole(encoding, value));
        let l1 = l2::InheritedByL2::drawn(bytes);
        let mut runs = l2::entered(&self.model[&current], &l1);
        self.enter(&l1);
        l2::assert_runs(&self.hardware.vmcs02, &self.model[&current], &runs);
        self.run(bytes, &mut runs);
        let reason = self.exit(bytes);
        let values = self.model.get_mut(&current).unwrap();
        l2::save(values, &runs);
        l2::save_exit(values, &self.hardware.vmcs02, reason);
    }

    // UNSAFETY: a contract about a processor, and there is none here.
    #[expect(unsafe_code, reason = "a contract about a processor")]
    fn enter(&mut self, l1: &l2::InheritedByL2) {
        l1.write_to(&mut self.vmcs01);
        let mut registers = Registers::default();
        let inherited = InheritedByL2::of(&VmxVcpu::new(self.vmcs01.clone(), &mut registers, 0));
        self.vmcs01.write(vmcs::CR0_READ_SHADOW, 0x31);
        self.vmcs01.write(vmcs::GUEST_EFER, 0xd01);
        self.nested.fetch_shadow(&mut self.hardware);
        self.nested.begin_entry();
        let vmcs12 = &mut self.nested.vmcs12;
        // SAFETY: no processor enters a guest under a fake.
        unsafe {
            vmcs02::enter(&mut self.hardware.vmcs02, vmcs12, &self.facts.capability, &l2::own(), &inherited);
        }
        self.nested.pending.begin(&mut self.hardware.vmcs02, vmcs12);
    }

    /// L2 changes its state, as the hardware saves it.
    fn run(&mut self, bytes: &mut Bytes<'_>, runs: &mut Fields) {
        let state: Vec<_> = runs.keys().copied().collect();
        for _ in 0..bytes.byte() % 4 {
            let encoding = bytes.one_of(&state);
            let mut value = bytes.number() & l2::mask(encoding);
            // Writes to what the hypervisor owns exit.
            let owned = l2::owned(encoding);
            value = value & !owned | runs[&encoding] & owned;
            runs.insert(encoding, value);
            self.hardware.vmcs02.set_value(encoding, value);
        }
        // The processor tells of IA-32e mode in this control.
        let is_long = bit(runs[&vmcs::GUEST_EFER.encoding()], 10);
        let entry = self.hardware.vmcs02.read(vmcs::ENTRY_CONTROLS) & !(1 << 9) | u32::from(is_long) << 9;
        self.hardware.vmcs02.write(vmcs::ENTRY_CONTROLS, entry);
    }

    fn exit(&mut self, bytes: &mut Bytes<'_>) -> ExitReason {
        for field in FIELDS.iter().filter(|field| field.group() == Group::ExitInformation) {
            let value = bytes.number() & l2::mask(field.encoding);
            self.hardware.vmcs02.set_value(field.encoding, value);
        }
        let reason = ExitReason(bytes.one_of(&[0, 1, 10, 12, 30, 48, 49]));
        reflect::save_exit(&self.hardware.vmcs02, &mut self.nested.vmcs12, reason);
        reflect::save_guest_state(&self.hardware.vmcs02, &mut self.nested.vmcs12);
        if let Some((shadow, told)) = &mut self.hardware.shadow {
            shadowing::tell_exit(shadow, told, &self.nested.vmcs12);
        }
        reason
    }
}

/// Whether L1's access does not exit.
fn passes(bitmap: Bitmap, encoding: u32) -> bool {
    let byte = encoding as usize / 8;
    let piece = bitmap.piece(byte & !(PIECE_BYTES - 1), true);
    !bit(piece[byte % PIECE_BYTES].into(), encoding % 8)
}
