use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::vcpu::fake::{CODE64, FakeVcpu, flat};
use x86::segment::Segment;

const POLICY: ControlRegisterPolicy =
    ControlRegisterPolicy { nested: false, cr4_offered: CR4_KNOWN.difference(CR4_OWNED) };
const GP: Action = Action::Inject(Event::GP0);
const RAX: u8 = 0;

fn mov(vcpu: &mut FakeVcpu, control_register: u8, value: u64) -> Action {
    mov_with(vcpu, &FakeMemory::new(0x1_0000), control_register, value)
}

fn mov_with(vcpu: &mut FakeVcpu, memory: &FakeMemory, control_register: u8, value: u64) -> Action {
    vcpu.registers.set_rax(value);
    handle(vcpu, memory, &POLICY, ControlRegisterAccess::MovTo { control_register, register: RAX })
}

#[test]
fn cache_bits_are_the_guests_to_see() {
    let mut vcpu = FakeVcpu::long_mode();
    let value = vcpu.cr0 | Cr0::CD | Cr0::NE;
    assert_eq!(mov(&mut vcpu, 0, value.bits()), Action::Advance);
    assert_eq!((vcpu.cr0, vcpu.invalidations), (value, 1));
}

#[test]
fn combinations_that_cannot_be_fault_and_change_nothing() {
    let usual = FakeVcpu::long_mode();
    let cr0 = usual.cr0.bits();
    let with_pcid = FakeVcpu { cr4: usual.cr4 | Cr4::PCIDE, ..FakeVcpu::protected_mode() };
    let with_cet = FakeVcpu { cr4: usual.cr4 | Cr4::CET, ..usual.clone() };
    for (vcpu, value) in [
        (&usual, cr0 | 1 << 32),
        (&usual, cr0 & !Cr0::PE.bits()),
        (&usual, cr0 | Cr0::NW.bits()),
        (&usual, cr0 & !Cr0::PG.bits()),
        (&with_pcid, Cr0::PE.bits()),
        (&with_cet, cr0 & !Cr0::WP.bits()),
    ] {
        let mut after = vcpu.clone();
        assert_eq!(mov(&mut after, 0, value), GP, "{value:#x}");
        after.registers = vcpu.registers;
        assert_eq!(after, *vcpu);
    }
}

#[test]
fn reserved_low_bits_are_ignored_and_et_stays() {
    let mut vcpu = FakeVcpu::protected_mode();
    assert_eq!(mov(&mut vcpu, 0, 0x41), Action::Advance);
    assert_eq!(vcpu.cr0, Cr0::PE | Cr0::ET);
}

#[test]
fn paging_with_lme_begins_long_mode_and_its_end_leaves_it() {
    let mut vcpu = FakeVcpu { cr4: Cr4::PAE, efer: Efer::LME, cr3: 0x1000, ..FakeVcpu::protected_mode() };
    assert_eq!(mov(&mut vcpu, 0, 0x8000_0011), Action::Advance);
    assert_eq!(vcpu.efer, Efer::LME | Efer::LMA);
    assert_eq!(vcpu.pdptes, [0; 4]);
    assert_eq!(mov(&mut vcpu, 0, 0x11), Action::Advance);
    assert_eq!((vcpu.efer, vcpu.cr0), (Efer::LME, Cr0::PE | Cr0::ET));
}

#[test]
fn long_mode_does_not_begin_where_the_manual_forbids_it() {
    let ready = FakeVcpu { cr4: Cr4::PAE, efer: Efer::LME, ..FakeVcpu::protected_mode() };
    let mut code64 = ready.clone();
    code64.segments[SegmentRegister::Cs as usize] = flat(CODE64);
    let mut tss16 = ready.clone();
    tss16.segments[SegmentRegister::Tr as usize] = Segment::real_mode(0, 0x83);
    for mut vcpu in [FakeVcpu { cr4: Cr4::empty(), ..ready }, code64, tss16] {
        assert_eq!(mov(&mut vcpu, 0, 0x8000_0011), GP);
        assert!(!vcpu.efer.contains(Efer::LMA));
    }
}

#[test]
fn pae_paging_loads_the_pdptes_or_faults() {
    let memory = FakeMemory::new(0x1_0000);
    memory.put_u64(0x2020, 0x3001);
    memory.put_u64(0x2038, 0x5001);
    let ready = FakeVcpu { cr4: Cr4::PAE, cr3: 0x2020, ..FakeVcpu::protected_mode() };
    let mut vcpu = ready.clone();
    assert_eq!(mov_with(&mut vcpu, &memory, 0, 0x8000_0011), Action::Advance);
    assert_eq!((vcpu.pdptes, vcpu.efer), ([0x3001, 0, 0, 0x5001], Efer::empty()));
    for reserved in [0x3003, 0x3021, 0x80_0000_3001] {
        memory.put_u64(0x2020, reserved);
        let mut vcpu = ready.clone();
        assert_eq!(mov_with(&mut vcpu, &memory, 0, 0x8000_0011), GP, "{reserved:#x}");
        assert_eq!(vcpu.cr0, ready.cr0);
    }
}

#[test]
fn a_cache_bit_reloads_pdptes_in_use() {
    let memory = FakeMemory::new(0x1_0000);
    memory.put_u64(0x2000, 0x7001);
    let mut vcpu = FakeVcpu { cr4: Cr4::PAE, cr3: 0x2000, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    let value = (vcpu.cr0 | Cr0::CD).bits();
    assert_eq!(mov_with(&mut vcpu, &memory, 0, value), Action::Advance);
    assert_eq!(vcpu.pdptes[0], 0x7001);
}

#[test]
fn vmx_and_smx_cannot_be_enabled_while_hidden() {
    for bit in [Cr4::VMXE, Cr4::SMXE] {
        let mut vcpu = FakeVcpu::long_mode();
        assert_eq!(mov(&mut vcpu, 4, (Cr4::PAE | bit).bits()), GP);
        assert_eq!(vcpu.cr4, Cr4::PAE);
    }
    let nested = ControlRegisterPolicy { nested: true, ..POLICY };
    let run = |bit: Cr4| {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.registers.set_rax((vcpu.cr4 | bit).bits());
        let access = ControlRegisterAccess::MovTo { control_register: 4, register: RAX };
        handle(&mut vcpu, &FakeMemory::new(0), &nested, access)
    };
    assert_eq!((run(Cr4::VMXE), run(Cr4::SMXE)), (Action::Advance, GP));
}

#[test]
fn cr4_faults_as_the_processor_does() {
    let long = FakeVcpu::long_mode();
    let low_cr3 = FakeVcpu { cr3: 0x1001, ..long.clone() };
    let protected = FakeVcpu::protected_mode();
    let no_wp = FakeVcpu { cr0: long.cr0 - Cr0::WP, ..long.clone() };
    for (vcpu, value) in [
        (&long, Cr4::PAE.bits() | 1 << 15),
        (&long, Cr4::PAE.bits() | 1 << 40),
        (&long, 0),
        (&long, (Cr4::PAE | Cr4::LA57).bits()),
        (&low_cr3, (Cr4::PAE | Cr4::PCIDE).bits()),
        (&protected, (Cr4::PAE | Cr4::PCIDE).bits()),
        (&no_wp, (Cr4::PAE | Cr4::CET).bits()),
    ] {
        let mut after = vcpu.clone();
        assert_eq!(mov(&mut after, 4, value), GP, "{value:#x}");
        assert_eq!(after.cr4, vcpu.cr4);
    }
    let mut vcpu = long;
    assert_eq!(mov(&mut vcpu, 4, (Cr4::PAE | Cr4::PCIDE | Cr4::PGE).bits()), Action::Advance);
    assert_eq!((vcpu.cr4, vcpu.invalidations), (Cr4::PAE | Cr4::PCIDE | Cr4::PGE, 1));
}

#[test]
fn cr3_is_checked_against_the_address_width() {
    let mut vcpu = FakeVcpu::long_mode();
    assert_eq!(mov(&mut vcpu, 3, 1 << 39), GP);
    assert_eq!(mov(&mut vcpu, 3, 1 << 63), GP);
    assert_eq!(mov(&mut vcpu, 3, 0x5018), Action::Advance);
    assert_eq!(vcpu.cr3, 0x5018);
    vcpu.cr4 |= Cr4::PCIDE;
    assert_eq!(mov(&mut vcpu, 3, 1 << 63 | 0x6001), Action::Advance);
    assert_eq!(vcpu.cr3, 0x6001);
}

#[test]
fn lmsw_sets_pe_but_never_clears_it() {
    let run = |mut vcpu: FakeVcpu, source| {
        let access = ControlRegisterAccess::Lmsw { source };
        assert_eq!(handle(&mut vcpu, &FakeMemory::new(0), &POLICY, access), Action::Advance);
        vcpu.cr0
    };
    assert_eq!(run(FakeVcpu::real_mode(), 0xfff1), Cr0::ET | Cr0::PE);
    assert_eq!(run(FakeVcpu::protected_mode(), 1), Cr0::ET | Cr0::PE);
    assert_eq!(run(FakeVcpu::protected_mode(), 0x0e), Cr0::ET | Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS);
    let task_switched = FakeVcpu { cr0: Cr0::ET | Cr0::TS | Cr0::MP, ..FakeVcpu::real_mode() };
    assert_eq!(run(task_switched, 0), Cr0::ET);
}

#[test]
fn clts_clears_one_bit() {
    let mut vcpu = FakeVcpu::long_mode();
    let before = vcpu.cr0;
    vcpu.cr0 |= Cr0::TS;
    handle(&mut vcpu, &FakeMemory::new(0), &POLICY, ControlRegisterAccess::Clts);
    assert_eq!(vcpu.cr0, before);
}

#[test]
fn all_sixteen_registers_can_be_operands() {
    for register in 0..16 {
        let mut vcpu = FakeVcpu::long_mode();
        let access = ControlRegisterAccess::MovFrom { control_register: 3, register };
        handle(&mut vcpu, &FakeMemory::new(0), &POLICY, access);
        let value = if register == 4 { vcpu.rsp } else { vcpu.registers.0[usize::from(register)] };
        assert_eq!(value, 0x1000);
        vcpu.cr3 = 0;
        let access = ControlRegisterAccess::MovTo { control_register: 3, register };
        handle(&mut vcpu, &FakeMemory::new(0), &POLICY, access);
        assert_eq!(vcpu.cr3, 0x1000);
    }
}

#[test]
fn outside_64bit_mode_the_upper_half_of_the_source_is_ignored() {
    let mut vcpu = FakeVcpu::protected_mode();
    assert_eq!(mov(&mut vcpu, 0, 0xdead_beef_0000_0031), Action::Advance);
    assert_eq!(vcpu.cr0, Cr0::PE | Cr0::ET | Cr0::NE);
}

#[test]
fn a_control_register_that_does_not_exist_is_undefined() {
    let mut vcpu = FakeVcpu::long_mode();
    assert_eq!(mov(&mut vcpu, 5, 0), Action::Inject(Event::UD));
}

/// A VM entry refuses a guest with CR4.FRED outside IA-32e mode; of bits without a name nobody knows.
#[test]
fn bits_of_cr4_that_the_hypervisor_does_not_know_cannot_be_set() {
    const FRED: u64 = 1 << 32;
    for bit in (0..64).map(|bit| 1 << bit).filter(|&bit| !CR4_KNOWN.contains(Cr4::from_bits_retain(bit))) {
        let mut vcpu = FakeVcpu::long_mode();
        let value = vcpu.cr4.bits() | bit;
        assert_eq!(mov(&mut vcpu, 4, value), GP, "{bit:#x}");
    }
    assert!(!CR4_KNOWN.contains(Cr4::from_bits_retain(FRED)));
}

#[test]
fn five_levels_of_paging_can_be_withheld() {
    let policy = ControlRegisterPolicy { cr4_offered: POLICY.cr4_offered - Cr4::LA57, ..POLICY };
    let mut vcpu = FakeVcpu::protected_mode();
    vcpu.registers.set_rax((vcpu.cr4 | Cr4::LA57).bits());
    let access = ControlRegisterAccess::MovTo { control_register: 4, register: RAX };
    assert_eq!(handle(&mut vcpu, &FakeMemory::new(0x1_0000), &policy, access), GP);
    assert_eq!(handle(&mut vcpu, &FakeMemory::new(0x1_0000), &POLICY, access), Action::Advance);
}

/// A guest whose paging takes four PDPTEs, which memory has others of by now.
fn with_pdptes_in_use() -> (FakeVcpu, FakeMemory) {
    let memory = FakeMemory::new(0x1_0000);
    memory.put_u64(0x2000, 0x7001);
    let mut vcpu = FakeVcpu { cr4: Cr4::PAE, cr3: 0x2000, ..FakeVcpu::protected_mode() };
    vcpu.cr0 |= Cr0::PG;
    (vcpu, memory)
}

/// Whether MOV to the control register with `value` loads the PDPTEs of memory.
fn reloads((mut vcpu, memory): (FakeVcpu, FakeMemory), control_register: u8, value: u64) -> bool {
    assert_eq!(mov_with(&mut vcpu, &memory, control_register, value), Action::Advance);
    assert!([0, 0x7001].contains(&vcpu.pdptes[0]));
    vcpu.pdptes[0] != 0
}

/// SDM, "PDPTE Registers".
#[test]
fn cr0_reloads_pdptes_where_paging_or_caching_changes() {
    let cr0 = with_pdptes_in_use().0.cr0;
    let of = |toggled: Cr0| reloads(with_pdptes_in_use(), 0, (cr0 ^ toggled).bits());
    for toggled in [Cr0::CD, Cr0::CD | Cr0::NW] {
        assert!(of(toggled), "{toggled:?}");
    }
    for toggled in [Cr0::empty(), Cr0::TS, Cr0::WP, Cr0::AM, Cr0::PG, Cr0::PG | Cr0::CD] {
        assert!(!of(toggled), "{toggled:?}");
    }
    let elsewhere = |change: &dyn Fn(&mut FakeVcpu)| {
        let (mut vcpu, memory) = with_pdptes_in_use();
        change(&mut vcpu);
        let value = (vcpu.cr0 ^ Cr0::CD).bits();
        reloads((vcpu, memory), 0, value)
    };
    assert!(!elsewhere(&|vcpu| vcpu.cr0 -= Cr0::PG), "without paging");
    assert!(!elsewhere(&|vcpu| vcpu.cr4 -= Cr4::PAE), "with two levels");
    assert!(!elsewhere(&|vcpu| vcpu.efer = Efer::LME | Efer::LMA), "with four levels");
}

/// SDM, "PDPTE Registers".
#[test]
fn cr4_reloads_pdptes_where_one_of_four_bits_changes() {
    let old = Cr4::PAE | Cr4::PGE | Cr4::SMEP | Cr4::DE;
    let of = |cr4: Cr4, toggled: Cr4| {
        let (vcpu, memory) = with_pdptes_in_use();
        reloads((FakeVcpu { cr4, ..vcpu }, memory), 4, (cr4 ^ toggled).bits())
    };
    for toggled in [Cr4::PGE, Cr4::PSE, Cr4::SMEP] {
        assert!(of(old, toggled), "{toggled:?}");
    }
    assert!(of(old - Cr4::PAE, Cr4::PAE));
    for toggled in [Cr4::empty(), Cr4::DE, Cr4::OSXSAVE, Cr4::PCE, Cr4::PAE] {
        assert!(!of(old, toggled), "{toggled:?}");
    }
    let elsewhere = |change: &dyn Fn(&mut FakeVcpu)| {
        let (mut vcpu, memory) = with_pdptes_in_use();
        change(&mut vcpu);
        let value = (vcpu.cr4 ^ Cr4::PGE).bits();
        reloads((vcpu, memory), 4, value)
    };
    assert!(!elsewhere(&|vcpu| vcpu.cr0 -= Cr0::PG), "without paging");
    assert!(!elsewhere(&|vcpu| vcpu.cr4 -= Cr4::PAE), "with two levels");
    assert!(!elsewhere(&|vcpu| vcpu.efer = Efer::LME | Efer::LMA), "with four levels");
}

#[test]
fn only_where_process_contexts_begin_has_cr3_to_name_the_first() {
    let cr4 = Cr4::PAE | Cr4::PCIDE;
    let mut vcpu = FakeVcpu { cr4, cr3: 0x1001, ..FakeVcpu::long_mode() };
    assert_eq!(mov(&mut vcpu, 4, (cr4 | Cr4::PGE).bits()), Action::Advance);
    assert_eq!(mov(&mut vcpu, 4, Cr4::PAE.bits()), Action::Advance);
    assert_eq!(mov(&mut vcpu, 4, cr4.bits()), GP);
}

#[test]
fn each_control_register_is_read_by_its_number() {
    let vcpu = FakeVcpu { cr3: 0x1234, ..FakeVcpu::long_mode() };
    for (control_register, value) in [(0, vcpu.cr0.bits()), (3, 0x1234), (4, vcpu.cr4.bits())] {
        let mut vcpu = vcpu.clone();
        let access = ControlRegisterAccess::MovFrom { control_register, register: RAX };
        assert_eq!(handle(&mut vcpu, &FakeMemory::new(0), &POLICY, access), Action::Advance);
        assert_eq!(vcpu.registers.rax(), value, "{control_register}");
    }
    let access = ControlRegisterAccess::MovFrom { control_register: 2, register: RAX };
    let mut vcpu = vcpu;
    assert_eq!(handle(&mut vcpu, &FakeMemory::new(0), &POLICY, access), Action::Inject(Event::UD));
}
