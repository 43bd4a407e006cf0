use super::fixture::{COUNTERS, RECORDS, msrs, processor_with};
use super::*;
use hw::sim::{SimMsrs, SimVmcs};

const COUNTER_CONTROL: Msr = Msr::IA32_PERF_GLOBAL_CTRL;
const RECORD_CONTROL: Msr = Msr::IA32_LBR_CTL;
const SWITCHES_COUNTERS: ExitControls = ExitControls::LOAD_PERF_GLOBAL_CTRL;

#[test]
fn exits_stop_what_is_there_and_entries_go_on_with_it() {
    let everything = processor_with(ExitControls::empty());
    let (exit, entry) = everything.controls();
    assert_eq!(exit, SWITCHES_COUNTERS | ExitControls::SAVE_PERF_GLOBAL_CTRL | ExitControls::CLEAR_LBR_CTL);
    assert_eq!(entry, EntryControls::LOAD_PERF_GLOBAL_CTRL | EntryControls::LOAD_LBR_CTL);
    assert_eq!(everything.intercepted().count(), 0);
    // The guest finds what the firmware left, and exits load 0.
    let mut vmcs = SimVmcs::default();
    vmcs.set_value(vmcs::HOST_PERF_GLOBAL_CTRL.encoding(), 0xff);
    everything.begin(&mut vmcs, &SimMsrs::new([(COUNTER_CONTROL, 3), (RECORD_CONTROL, 5)]));
    assert_eq!((vmcs.read(vmcs::HOST_PERF_GLOBAL_CTRL), everything.values(&vmcs)), (0, [3, 5]));
}

#[test]
fn counters_that_exits_do_not_save_are_kept_by_their_writes() {
    let observers = processor_with(ExitControls::SAVE_PERF_GLOBAL_CTRL);
    assert_eq!(observers.controls().0, SWITCHES_COUNTERS | ExitControls::CLEAR_LBR_CTL);
    assert!(observers.intercepted().eq([COUNTER_CONTROL]));
    let (mut vmcs, hardware) = (SimVmcs::default(), msrs(0));
    assert_eq!(observers.write(&mut vmcs, &hardware, COUNTER_CONTROL, 7), Some(Ok(())));
    // The guest's is in the VMCS alone.
    assert_eq!((vmcs.value(COUNTERS), hardware.read(COUNTER_CONTROL)), (7, Ok(0)));
    let refusing = msrs(0).with_read_only(COUNTER_CONTROL);
    let refused = observers.write(&mut vmcs, &refusing, COUNTER_CONTROL, 1 << 63);
    assert_eq!((refused, vmcs.value(COUNTERS)), (Some(Err(GeneralProtection)), 7));
    assert_eq!(observers.write(&mut vmcs, &hardware, Msr::IA32_LSTAR, 7), None);
}

#[test]
fn without_a_control_compartments_alone_stop_a_register() {
    for (missing, register, field) in [
        (SWITCHES_COUNTERS, COUNTER_CONTROL, COUNTERS),
        (ExitControls::CLEAR_LBR_CTL, RECORD_CONTROL, RECORDS),
    ] {
        let observers = processor_with(missing);
        assert!(!observers.controls().0.contains(missing), "{register:?}");
        assert_eq!(observers.field(register), None, "{register:?}");
        let (mut vmcs, hardware) = (SimVmcs::default(), msrs(9));
        let guests = observers.put_aside(&mut vmcs, &hardware);
        assert_eq!((hardware.read(register), guests.contains(&9)), (Ok(0), true), "{register:?}");
        observers.give_back(&mut vmcs, &hardware, guests);
        assert_eq!(hardware.read(register), Ok(9), "{register:?}");
        // There may be no such field.
        assert!(vmcs.writes().iter().all(|write| write.0 != field), "{register:?}");
    }
}

#[test]
fn compartments_stop_what_exits_switch_too() {
    let observers = processor_with(ExitControls::empty());
    let (mut vmcs, hardware) = (SimVmcs::default(), msrs(0));
    vmcs.set_value(COUNTERS, 3);
    vmcs.set_value(RECORDS, 5);
    let guests = observers.put_aside(&mut vmcs, &hardware);
    assert_eq!((observers.values(&vmcs), guests), ([0, 0], [3, 5]));
    observers.give_back(&mut vmcs, &hardware, guests);
    assert_eq!((observers.values(&vmcs), hardware.writes()), ([3, 5], Vec::new()));
}

#[test]
fn what_is_not_there_is_neither_asked_for_nor_touched() {
    for observers in [Observers::of([false; 2], &msrs(0)), Observers::of([true; 2], &SimMsrs::new([]))] {
        assert_eq!(observers.controls(), (ExitControls::empty(), EntryControls::empty()));
        let (mut vmcs, hardware) = (SimVmcs::default(), msrs(9));
        observers.begin(&mut vmcs, &hardware);
        let guests = observers.put_aside(&mut vmcs, &hardware);
        observers.give_back(&mut vmcs, &hardware, guests);
        observers.set_values(&mut vmcs, [1, 1], None);
        assert!(vmcs.writes().is_empty() && hardware.writes().is_empty());
        assert!(REGISTERS.iter().all(|register| observers.field(register.msr).is_none()));
    }
}

#[test]
fn the_registers_are_those_that_are_covered() {
    let covered = (0..0x2000).map(Msr).filter(|&msr| covers(msr));
    assert!(covered.eq(REGISTERS.iter().map(|register| register.msr)));
}
