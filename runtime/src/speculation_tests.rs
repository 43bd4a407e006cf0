use super::*;
use hw::sim::SpeculationAct::{FillReturnStack, OverwriteBuffers, Write};
use hw::sim::{SimCpuid, SimMsrs, SimSpeculation};
use x86::cpuid::CpuidResult;

const GUESTS: u64 = 4;

fn cpuid(edx: u32, further: u32) -> SimCpuid {
    SimCpuid::default()
        .with(0, 0, CpuidResult { eax: 7, ..CpuidResult::default() })
        .with(7, 0, CpuidResult { eax: 2, edx, ..CpuidResult::default() })
        .with(7, 2, CpuidResult { edx: further, ..CpuidResult::default() })
}

fn processor(capabilities: u64) -> SimSpeculation {
    SimSpeculation::new(SimMsrs::new([
        (Msr::IA32_ARCH_CAPABILITIES, capabilities),
        (Msr::IA32_SPEC_CTRL, GUESTS),
        (Msr::IA32_PRED_CMD, 0),
        (Msr::IA32_FLUSH_CMD, 0),
        (Msr::IA32_MCU_OPT_CTRL, 1),
        (Msr::IA32_UARCH_MISC_CTL, 0),
    ]))
}

fn crossing(mitigations: Mitigations) -> Crossing {
    let crossing = Crossing::new();
    crossing.start(mitigations, &SimMsrs::new([]));
    crossing
}

#[test]
fn each_cpu_does_what_it_can_whatever_another_has() {
    let processor = processor(0);
    let all = Mitigations::of(&cpuid(!0, !0), &processor);
    let none = Mitigations::default();
    let acts = |mitigations| {
        let crossing = crossing(mitigations);
        crossing.begin(&processor);
        crossing.end(&processor, false);
        processor.take_history().len()
    };
    assert_eq!([acts(none), acts(all), acts(none)], [1, 9, 1]);
}

#[test]
fn private_memory_is_behind_barriers_both_ways() {
    let processor = processor(0);
    let mitigations = Mitigations::of(&cpuid(!0, !0), &processor);
    let crossing = crossing(mitigations);
    crossing.begin(&processor);
    let strict = Write(Msr::IA32_SPEC_CTRL, 0x5ff);
    let barrier = Write(Msr::IA32_PRED_CMD, 1);
    let begun = [strict, Write(Msr::IA32_MCU_OPT_CTRL, 0), barrier, FillReturnStack];
    assert_eq!(processor.take_history(), begun);
    crossing.begin(&processor);
    assert_eq!(processor.take_history(), [], "nothing ran in between");
    crossing.end(&processor, true);
    let dropped = [barrier, Write(Msr::IA32_FLUSH_CMD, 1), OverwriteBuffers];
    assert_eq!(processor.take_history(), dropped, "a compartment runs under our choices");
    crossing.begin(&processor);
    assert_eq!(processor.take_history(), [barrier, FillReturnStack], "they hold already");
    crossing.end(&processor, false);
    let guests = [Write(Msr::IA32_MCU_OPT_CTRL, 1), Write(Msr::IA32_SPEC_CTRL, GUESTS)];
    assert_eq!(processor.take_history(), [&dropped[..], &guests].concat());
    crossing.end(&processor, false);
    assert_eq!(processor.take_history(), [], "nothing was touched");
}

#[test]
fn an_end_is_asked_for_once_a_crossing() {
    let (processor, crossing) = (processor(0), crossing(Mitigations::default()));
    assert!(!crossing.wants_end());
    crossing.begin(&processor);
    assert!(crossing.wants_end());
    crossing.leave();
    crossing.begin(&processor);
    assert!(!crossing.wants_end(), "the last look is under way");
    crossing.end(&processor, false);
    assert!(!crossing.wants_end());
    crossing.begin(&processor);
    assert!(crossing.wants_end());
}

#[test]
fn a_compartment_left_untouched_gives_the_guest_its_choices() {
    let processor = processor(0);
    let mitigations = Mitigations::of(&cpuid(1 << 26, 0), &processor);
    let crossing = crossing(mitigations);
    crossing.begin(&processor);
    crossing.end(&processor, true);
    assert!(!processor.take_history().is_empty());
    crossing.end(&processor, false);
    assert_eq!(processor.take_history(), [Write(Msr::IA32_SPEC_CTRL, GUESTS)]);
}

#[test]
fn what_is_not_enumerated_is_not_done() {
    let processor = processor(0);
    for cpuid in [
        cpuid(0, 0),
        SimCpuid::default().with(0, 0, CpuidResult::default()).with(
            7,
            0,
            CpuidResult { edx: !0, ..CpuidResult::default() },
        ),
    ] {
        let mitigations = Mitigations::of(&cpuid, &processor);
        assert_eq!(mitigations, Mitigations::default());
        let crossing = crossing(mitigations);
        crossing.begin(&processor);
        crossing.end(&processor, false);
        assert_eq!(processor.take_history(), [FillReturnStack]);
    }
}

#[test]
fn capabilities_decide_flushes_and_buffers() {
    let of = |edx, capabilities| {
        let mitigations = Mitigations::of(&cpuid(edx, 0), &processor(capabilities));
        (mitigations.flushes_cache, mitigations.overwrites_buffers)
    };
    let (md_clear, flush, has_capabilities) = (1 << 10, 1 << 28, 1 << 29);
    assert_eq!(of(flush, 0), (true, false));
    assert_eq!(of(flush, 1), (true, false), "capabilities that are not there say nothing");
    assert_eq!(of(flush | has_capabilities, 1), (false, false), "not vulnerable");
    assert_eq!(of(flush | has_capabilities, 1 << 3), (false, false), "done beneath");
    assert_eq!(of(md_clear, 0), (false, true));
    assert_eq!(of(has_capabilities, 1 << 17), (false, true));
    assert_eq!(of(has_capabilities, 1 << 28), (false, true));
    assert_eq!(of(0, 0), (false, false));
}

/// What the way writes to `msr` in and out, where the guest has `value` there.
fn writes(capabilities: u64, features: u32, msr: Msr, value: u64) -> Vec<u64> {
    let msrs =
        SimMsrs::new([(Msr::IA32_ARCH_CAPABILITIES, capabilities), (Msr::IA32_PRED_CMD, 0), (msr, value)]);
    let processor = SimSpeculation::new(msrs);
    let crossing = crossing(Mitigations::of(&cpuid(1 << 29 | features, 0), &processor));
    crossing.begin(&processor);
    crossing.end(&processor, false);
    let values = processor.take_history().into_iter().map(|act| match act {
        Write(written, value) if written == msr => Some(value),
        _ => None,
    });
    values.flatten().collect()
}

#[test]
fn mitigations_that_the_guest_switched_off_are_on_in_between() {
    let mcu = |capabilities, features, value| writes(capabilities, features, Msr::IA32_MCU_OPT_CTRL, value);
    let (fb_clear_ctrl, srbds_ctrl) = (1 << 18, 1 << 9);
    assert_eq!(mcu(fb_clear_ctrl, 0, 0x29), [0x21, 0x29]);
    assert_eq!(mcu(0, srbds_ctrl, 0x29), [0x28, 0x29]);
    assert_eq!(mcu(fb_clear_ctrl, srbds_ctrl, 0x29), [0x20, 0x29]);
    assert_eq!(mcu(fb_clear_ctrl, srbds_ctrl, 0x20), [], "none is off");
    assert_eq!(mcu(0, 0, 9), [], "there is no such register");
}

#[test]
fn timing_does_not_depend_on_data_in_between() {
    let timing = |capabilities, value| writes(capabilities, 0, Msr::IA32_UARCH_MISC_CTL, value);
    assert_eq!(timing(1 << 12, 8), [9, 8]);
    assert_eq!(timing(1 << 12, 9), [], "it is the guest's choice already");
    assert_eq!(timing(0, 8), [], "there is no such register");
}

#[test]
fn a_guest_cannot_have_its_gathers_sample() {
    let locked = |capabilities, before| {
        let msrs =
            SimMsrs::new([(Msr::IA32_ARCH_CAPABILITIES, capabilities), (Msr::IA32_MCU_OPT_CTRL, before)]);
        Crossing::new().start(Mitigations::of(&cpuid(1 << 29, 0), &msrs), &msrs);
        msrs.read(Msr::IA32_MCU_OPT_CTRL).unwrap()
    };
    assert_eq!([locked(1 << 25, 0), locked(1 << 25, 0x11)], [0x20, 0x21]);
    assert_eq!(locked(0, 0x11), 0x11);
}
