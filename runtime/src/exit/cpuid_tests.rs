use super::*;
use crate::vcpu::fake::FakeVcpu;
use core::cell::RefCell;

/// Leaves that the hardware answers; all bits of any other are set.
struct Hardware {
    leaves: Vec<((u32, u32), CpuidResult)>,
    asked: RefCell<Vec<u32>>,
}

const ONES: CpuidResult = CpuidResult { eax: !0, ebx: !0, ecx: !0, edx: !0 };

impl Hardware {
    fn all_ones() -> Self {
        Self { leaves: Vec::new(), asked: RefCell::default() }
    }

    fn with(mut self, leaf: u32, result: CpuidResult) -> Self {
        self.leaves.push(((leaf, 0), result));
        self
    }

    fn without_hypervisor() -> Self {
        Self::all_ones().with(1, CpuidResult { ecx: !(1 << 31), ..ONES })
    }
}

impl Cpuid for Hardware {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.asked.borrow_mut().push(leaf);
        self.leaves.iter().find(|(key, _)| *key == (leaf, subleaf)).map_or(ONES, |(_, result)| *result)
    }
}

struct Silent;
impl Hypapp for Silent {}

struct Answering;
impl Hypapp for Answering {
    fn cpuid(&self, _vcpu: &mut dyn Vcpu, leaf: u32, subleaf: u32) -> Option<CpuidResult> {
        (leaf == 1).then_some(CpuidResult { eax: subleaf, ..CpuidResult::default() })
    }
}

fn ask_as(mut vcpu: FakeVcpu, policy: CpuidPolicy, hardware: &Hardware, leaf: u32) -> CpuidResult {
    vcpu.registers.set_rax(0xdead_beef_0000_0000 | u64::from(leaf));
    vcpu.registers.set_rcx(0xdead_beef_0000_0000);
    assert_eq!(handle(&mut vcpu, &Silent, &policy, hardware), Action::Advance);
    let register = |value: u64| u32::try_from(value).unwrap();
    CpuidResult {
        eax: register(vcpu.registers.rax()),
        ebx: register(vcpu.registers.rbx()),
        ecx: register(vcpu.registers.rcx()),
        edx: register(vcpu.registers.rdx()),
    }
}

fn ask(policy: CpuidPolicy, hardware: &Hardware, leaf: u32) -> CpuidResult {
    ask_as(FakeVcpu::long_mode(), policy, hardware, leaf)
}

#[test]
fn an_ordinary_leaf_is_the_hardwares_and_asked_once() {
    let result = CpuidResult { eax: 1, ebx: 2, ecx: 3, edx: 4 };
    let hardware = Hardware::all_ones().with(0, result);
    assert_eq!(ask(CpuidPolicy::default(), &hardware, 0), result);
    assert_eq!(*hardware.asked.borrow(), [0]);
}

#[test]
fn leaf_1_hides_vmx_smx_and_the_debug_store_only() {
    let result = ask(CpuidPolicy::default(), &Hardware::all_ones(), 1);
    let hidden = 1 << 5 | 1 << 6 | 1 << 2 | 1 << 4 | 1 << 27;
    assert_eq!(result, CpuidResult { ecx: !hidden, edx: !(1 << 21), ..ONES });
}

#[test]
fn nesting_shows_vmx_but_never_smx() {
    let policy = CpuidPolicy { nested: true, ..CpuidPolicy::default() };
    assert_eq!(ask(policy, &Hardware::all_ones(), 1).ecx >> 5 & 3, 1);
}

#[test]
fn the_hypervisor_bit_is_the_hardwares_unless_asked_for() {
    let bit = |policy, hardware: &Hardware| ask(policy, hardware, 1).ecx >> 31;
    let asked = CpuidPolicy { hypervisor_bit: true, ..CpuidPolicy::default() };
    assert_eq!(bit(CpuidPolicy::default(), &Hardware::all_ones()), 1);
    assert_eq!(bit(CpuidPolicy::default(), &Hardware::without_hypervisor()), 0);
    assert_eq!(bit(asked, &Hardware::without_hypervisor()), 1);
}

#[test]
fn enable_bits_follow_the_guests_cr4_both_ways() {
    let zeros = |leaf| Hardware::all_ones().with(leaf, CpuidResult::default());
    for (leaf, enable, read) in [
        (1, Cr4::OSXSAVE, (|result| result.ecx >> 27 & 1) as fn(CpuidResult) -> u32),
        (7, Cr4::PKE, |result| result.ecx >> 4 & 1),
        (0x19, Cr4::KL, |result| result.ebx & 1),
    ] {
        let off = FakeVcpu::long_mode();
        let on = FakeVcpu { cr4: off.cr4 | enable, ..off.clone() };
        assert_eq!(read(ask_as(off, CpuidPolicy::default(), &Hardware::all_ones(), leaf)), 0);
        for hardware in [zeros(leaf), Hardware::all_ones()] {
            assert_eq!(read(ask_as(on.clone(), CpuidPolicy::default(), &hardware, leaf)), 1);
        }
    }
}

#[test]
fn processor_trace_is_gone_and_sgx_stays() {
    let result = ask(CpuidPolicy::default(), &Hardware::all_ones(), 7);
    assert_eq!((result.ebx >> 25 & 1, result.ebx >> 2 & 1, result.ecx >> 30 & 1), (0, 1, 1));
    assert_eq!(ask(CpuidPolicy::default(), &Hardware::all_ones(), 0x14), CpuidResult::default());
}

#[test]
fn instructions_without_their_control_are_hidden() {
    let policy = CpuidPolicy { without: Instructions::all(), ..CpuidPolicy::default() };
    let result = ask(policy, &Hardware::all_ones(), 7);
    assert_eq!(result.ebx, !(1 << 10 | 1 << 25));
    assert_eq!(result.ecx, !(1 << 4 | 1 << 5 | 1 << 22));
    assert_eq!(result.edx, !(1 << 18));
    assert_eq!(ask(policy, &Hardware::all_ones(), 0x8000_0001).edx, !(1 << 27));
    let extended_states = |subleaf| {
        let vcpu = FakeVcpu::long_mode();
        answer(&vcpu, &policy, &Hardware::all_ones(), 0xd, subleaf)
    };
    assert_eq!(extended_states(1), CpuidResult { eax: !(1 << 3), ..ONES });
    assert_eq!([0, 2].map(extended_states), [ONES; 2]);
}

#[test]
fn event_delivery_by_fred_and_newer_msr_instructions_are_hidden() {
    let result = answer(&FakeVcpu::long_mode(), &CpuidPolicy::default(), &Hardware::all_ones(), 7, 1);
    let hidden = (1 << 17 | 1 << 27, 0, 1 << 5, 1 << 15);
    assert_eq!((!result.eax, !result.ebx, !result.ecx, !result.edx), hidden);
}

#[test]
fn the_signature_stands_where_the_hardware_reports_none() {
    let hardware = Hardware::without_hypervisor();
    let result = ask(CpuidPolicy::default(), &hardware, 0x4000_0000);
    let text = [result.ebx, result.ecx, result.edx].map(u32::to_le_bytes).concat();
    assert_eq!((result.eax, text.as_slice()), (0x4000_0001, b"XMHFXMHFXMHF".as_slice()));
    assert_eq!(ask(CpuidPolicy::default(), &hardware, 0x4000_0001).eax, VERSION);
    assert_eq!(ask(CpuidPolicy::default(), &Hardware::all_ones(), 0x4000_0000), ONES);
}

#[test]
fn the_marker_climbs_a_stack_of_hypervisors() {
    let mut beneath = ONES;
    let mut counts = Vec::new();
    for _ in 0..5 {
        beneath = ask(CpuidPolicy::default(), &Hardware::all_ones().with(MARKER, beneath), MARKER);
        let registers = [beneath.eax, beneath.ebx, beneath.ecx, beneath.edx];
        counts.push(registers.iter().take_while(|&&register| register == MARKER).count());
        assert!(registers.iter().all(|&register| register == MARKER || register == 0));
    }
    assert_eq!(counts, [1, 2, 3, 4, 4]);
    assert_eq!(MARKER, 0x4648_4d58);
}

#[test]
fn the_hypapp_answers_first() {
    let mut vcpu = FakeVcpu::long_mode();
    vcpu.registers.set_rax(1);
    vcpu.registers.set_rcx(7);
    let hardware = Hardware::all_ones();
    handle(&mut vcpu, &Answering, &CpuidPolicy::default(), &hardware);
    assert_eq!((vcpu.registers.rax(), vcpu.registers.rdx()), (7, 0));
    assert!(hardware.asked.borrow().is_empty());
}

#[test]
fn version_digits_are_read() {
    assert_eq!((number("0"), number("10"), number("207")), (0, 10, 207));
}

#[test]
fn five_levels_and_their_width_can_be_hidden() {
    let policy = CpuidPolicy { hides_la57: true, ..CpuidPolicy::default() };
    let difference = |leaf| {
        let (with, without) = (
            ask(CpuidPolicy::default(), &Hardware::all_ones(), leaf),
            ask(policy, &Hardware::all_ones(), leaf),
        );
        (with.eax ^ without.eax, with.ebx ^ without.ebx, with.ecx ^ without.ecx, with.edx ^ without.edx)
    };
    assert_eq!(difference(7), (0, 0, 1 << 16, 0));
    assert_eq!(difference(0x8000_0008), ((0xff ^ 48) << 8, 0, 0, 0));
    for [hardware, shown] in [[0x302e, 0x302e], [0x302f, 0x302f], [0x2024, 0x2024], [0x392e, 0x302e]] {
        assert_eq!(four_levels(hardware), shown, "{hardware:#x}");
    }
}

#[test]
fn counters_do_not_show_what_writes_records() {
    let at = |subleaf| {
        answer(&FakeVcpu::long_mode(), &CpuidPolicy::default(), &Hardware::all_ones(), 0x23, subleaf)
    };
    assert_eq!(at(0).eax, !(1 << 4 | 1 << 5));
    assert_eq!([at(4), at(5)], [CpuidResult::default(); 2]);
    assert_eq!(at(1), ONES);
}
