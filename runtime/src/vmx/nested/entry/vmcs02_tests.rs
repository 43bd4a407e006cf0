use super::*;
use crate::memory::guest::fake::FakeMemory;
use crate::smp::watched_events::WatchedEvents;
use crate::vcpu::{EventState, PagingState, RegisterState, Registers};
use crate::vmx::nested::cr_masks::CR0_OF_L0;
use crate::vmx::nested::exit::reflect::{self, ExitFacts, InheritedByL1};
use crate::vmx::nested::vmcs12::fields;
use crate::vmx::switch;
use hw::sim::{SimMsrs, SimVmcs};
use x86::vmx::exit_reason::ExitReason;
use x86::vmx::interruption::{Interruption, InterruptionType};
use x86::vmx::vmcs::{FIELDS, FieldInfo, Treatment};

fn own() -> Controls {
    Controls {
        pin_based: PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS,
        primary: PrimaryControls::USE_IO_BITMAPS | PrimaryControls::USE_MSR_BITMAPS,
        secondary: SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID,
        exit: ExitControls::HOST_ADDRESS_SPACE_SIZE | ExitControls::SAVE_EFER | ExitControls::LOAD_EFER,
        entry: EntryControls::LOAD_EFER | EntryControls::LOAD_PAT | EntryControls::LOAD_DEBUG_CONTROLS,
    }
}

fn capability() -> Capability {
    Capability::of(&SimMsrs::new(crate::vmx::nested::entry::checks::fixture::hardware()), 39).unwrap()
}

fn enter_fake(vmcs02: &mut SimVmcs, vmcs12: &mut Vmcs12, l0: &Controls, inherited: &InheritedByL2) {
    // SAFETY: no processor enters a guest under a fake.
    unsafe { enter(vmcs02, vmcs12, &capability(), l0, inherited) }
}

/// L1 as it enters, and VMCS02 after the entry that `set` describes.
fn entered(set: impl FnOnce(&mut Vmcs12)) -> (SimVmcs, Vmcs12) {
    entered_beside(&own(), set)
}

/// The same, with these controls of the hypervisor's.
fn entered_beside(l0: &Controls, set: impl FnOnce(&mut Vmcs12)) -> (SimVmcs, Vmcs12) {
    let mut vmcs12 = Vmcs12::new();
    set(&mut vmcs12);
    let mut vmcs01 = SimVmcs::default();
    vmcs01.write(vmcs::GUEST_EFER, 0xd01);
    vmcs01.write(vmcs::GUEST_PAT, 0x11);
    vmcs01.write(vmcs::GUEST_DR7, 0x455);
    vmcs01.write(vmcs::GUEST_DEBUGCTL, 1);
    vmcs01.write(vmcs::CR0_READ_SHADOW, Cr0::CD.bits());
    let mut registers = Registers::default();
    let inherited = InheritedByL2::of(&VmxVcpu::new(vmcs01, &mut registers, 0));
    let mut vmcs02 = SimVmcs::default();
    enter_fake(&mut vmcs02, &mut vmcs12, l0, &inherited);
    (vmcs02, vmcs12)
}

#[test]
fn guest_state_is_copied_whole_and_comes_back_whole() {
    let kinds = [Treatment::Hot, Treatment::Cold];
    // Those that an entry changes on its way, or copies only under a control.
    let special = [0x0810, 0x2806, 0x280a, 0x280c, 0x280e, 0x2810, 0x482e, 0x6800, 0x2802, 0x2804, 0x681a];
    let (vmcs02, mut vmcs12) = entered(|vmcs12| {
        vmcs12.write(
            vmcs::ENTRY_CONTROLS,
            (EntryControls::LOAD_PAT | EntryControls::LOAD_DEBUG_CONTROLS).bits(),
        );
        for (index, field) in
            FIELDS.iter().enumerate().filter(|(index, _)| kinds.contains(&fields::treatment(*index)))
        {
            vmcs12.set_value(fields::Access { index, is_high: false }, u64::from(field.encoding) & 0x7ff);
        }
    });
    let mut changed = SimVmcs::default();
    for &(encoding, value) in vmcs02.writes() {
        let is_state = |index: &usize| kinds.contains(&fields::treatment(*index));
        if let Some(index) = fields::index(encoding).filter(is_state)
            && !special.contains(&encoding)
        {
            assert_eq!(value, u64::from(encoding) & 0x7ff, "{}", FIELDS[index].name);
        }
    }
    let copied = |field: &FieldInfo| vmcs02.writes().iter().any(|w| w.0 == field.encoding);
    for (index, field) in FIELDS.iter().enumerate() {
        if kinds.contains(&fields::treatment(index)) && !special.contains(&field.encoding) {
            assert!(copied(field), "{}", field.name);
        }
    }
    changed.write(vmcs::GUEST_RIP, 0x77);
    changed.write(vmcs::GUEST_ES_BASE, 0x78);
    reflect::save_guest_state(&changed, &mut vmcs12);
    assert_eq!((vmcs12.read(vmcs::GUEST_RIP), vmcs12.is_stale), (0x77, true));
    copy_cold_guest_state(&changed, &mut vmcs12, &capability());
    assert_eq!(vmcs12.read(vmcs::GUEST_ES_BASE), 0x78);
    assert_eq!(vmcs12.dirty, Dirty::empty());
}

#[test]
fn what_l1_did_not_write_is_not_written_again() {
    let (_, mut vmcs12) = entered(|_| ());
    let mut registers = Registers::default();
    let inherited = InheritedByL2::of(&VmxVcpu::new(SimVmcs::default(), &mut registers, 0));
    let mut vmcs02 = SimVmcs::default();
    enter_fake(&mut vmcs02, &mut vmcs12, &own(), &inherited);
    let written = |field: u32| vmcs02.writes().iter().any(|write| write.0 == field);
    assert!(written(vmcs::GUEST_RIP.encoding()));
    assert!(!written(vmcs::PIN_BASED_CONTROLS.encoding()) && !written(vmcs::GUEST_ES_BASE.encoding()));
    assert!(vmcs02.writes().len() <= 12, "{}", vmcs02.writes().len());
}

#[test]
fn the_hypervisors_controls_are_added_and_softwares_left_out() {
    let (vmcs02, _) = entered(|vmcs12| {
        let primary = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS | PrimaryControls::HLT_EXITING;
        vmcs12.write(vmcs::PRIMARY_CONTROLS, primary.bits());
        vmcs12.write(vmcs::SECONDARY_CONTROLS, SecondaryControls::ENABLE_PML.bits());
        vmcs12.write(vmcs::PIN_BASED_CONTROLS, PinBasedControls::PREEMPTION_TIMER.bits());
        vmcs12.write(vmcs::PREEMPTION_TIMER, 77);
        vmcs12.write(vmcs::CR3_TARGET_COUNT, 2);
        vmcs12.write(vmcs::CR3_TARGET_1, 0x5000);
    });
    let pin = PinBasedControls::from_bits_retain(vmcs02.read(vmcs::PIN_BASED_CONTROLS));
    assert!(pin.contains(own().pin_based | PinBasedControls::PREEMPTION_TIMER));
    let primary = PrimaryControls::from_bits_retain(vmcs02.read(vmcs::PRIMARY_CONTROLS));
    assert!(primary.contains(PrimaryControls::USE_IO_BITMAPS | PrimaryControls::HLT_EXITING));
    assert!(!primary.contains(PrimaryControls::USE_MSR_BITMAPS));
    assert_eq!(vmcs02.read(vmcs::SECONDARY_CONTROLS), own().secondary.bits());
    let exit = ExitControls::from_bits_retain(vmcs02.read(vmcs::EXIT_CONTROLS));
    assert!(exit.contains(ExitControls::SAVE_PREEMPTION_TIMER));
    assert_eq!(vmcs02.read(vmcs::PREEMPTION_TIMER), 77);
    assert_eq!((vmcs02.read(vmcs::CR3_TARGET_COUNT), vmcs02.read(vmcs::CR3_TARGET_1)), (2, 0x5000));
    let (every_port, _) = entered(|vmcs12| {
        vmcs12.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::UNCONDITIONAL_IO_EXITING.bits());
    });
    let primary = PrimaryControls::from_bits_retain(every_port.read(vmcs::PRIMARY_CONTROLS));
    assert!(!primary.contains(PrimaryControls::USE_IO_BITMAPS));
}

/// The exits of VMCS02 that can be watched, and whether it acknowledges interrupts.
fn watched(vmcs02: &SimVmcs) -> (WatchedEvents, bool) {
    let mut events = WatchedEvents::empty();
    let pins = PinBasedControls::from_bits_retain(vmcs02.read(vmcs::PIN_BASED_CONTROLS));
    let interrupts = pins.contains(PinBasedControls::EXTERNAL_INTERRUPT_EXITING);
    events.set(WatchedEvents::EXTERNAL_INTERRUPT, interrupts);
    let primary = PrimaryControls::from_bits_retain(vmcs02.read(vmcs::PRIMARY_CONTROLS));
    let windows = primary.contains(PrimaryControls::INTERRUPT_WINDOW_EXITING);
    events.set(WatchedEvents::INTERRUPT_WINDOW, windows);
    let exit = ExitControls::from_bits_retain(vmcs02.read(vmcs::EXIT_CONTROLS));
    (events, exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT))
}

#[test]
fn what_a_hypapp_watches_exits_beside_what_l1_wants() {
    let all = || (0..=WatchedEvents::all().bits()).map(WatchedEvents::from_bits_retain);
    for (of_l1, of_hypapp) in all().flat_map(|of_l1| all().map(move |of_hypapp| (of_l1, of_hypapp))) {
        let wants_interrupts = of_l1.contains(WatchedEvents::EXTERNAL_INTERRUPT);
        let write = |vmcs12: &mut Vmcs12| {
            let wanted = own().watching(of_l1);
            vmcs12.write(vmcs::PIN_BASED_CONTROLS, wanted.pin_based.bits());
            vmcs12.write(vmcs::PRIMARY_CONTROLS, wanted.primary.bits());
            vmcs12.write(vmcs::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits());
        };
        // An interrupt that L1 does not want stays pending.
        let expected = (of_l1 | of_hypapp, wants_interrupts);
        let (entered, vmcs12) = entered_beside(&own().watching(of_hypapp), write);
        assert_eq!(watched(&entered), expected);
        // Asked for while L2 runs, and taken back: L1's own stay.
        let (mut running, _) = entered_beside(&own(), write);
        let of_l1 = L1Controls::of(&vmcs12).watched_events();
        switch::watched_events(&mut running, of_hypapp | of_l1);
        assert_eq!(watched(&running), expected);
        switch::watched_events(&mut running, of_l1);
        assert_eq!(watched(&running), (of_l1, wants_interrupts));
        let pins = [&entered, &running].map(|vmcs| {
            vmcs.read(vmcs::PIN_BASED_CONTROLS) & !PinBasedControls::EXTERNAL_INTERRUPT_EXITING.bits()
        });
        assert_eq!(pins[0], pins[1]);
    }
}

// Fields that live by a control alone.
#[test]
fn a_field_comes_with_the_control_that_needs_it() {
    use SecondaryControls as Secondary;
    let secondary: [(Secondary, &[u32]); 6] = [
        (Secondary::VIRTUAL_INTERRUPT_DELIVERY, &[0x0810, 0x201c, 0x201e, 0x2020, 0x2022]),
        (Secondary::PAUSE_LOOP_EXITING, &[0x4020, 0x4022]),
        (Secondary::ENABLE_XSAVES, &[0x202c]),
        (Secondary::ENABLE_ENCLS_EXITING, &[0x202e]),
        (Secondary::ENABLE_ENCLV_EXITING, &[0x2036]),
        (Secondary::USE_TSC_SCALING, &[0x2032]),
    ];
    let all: Vec<u32> = secondary.iter().flat_map(|(_, fields)| fields.iter().copied()).collect();
    for (control, fields) in secondary {
        for is_activated in [true, false] {
            let (vmcs02, _) = entered(|vmcs12| {
                for &encoding in &all {
                    let index = fields::index(encoding).unwrap();
                    vmcs12.set_value(fields::Access { index, is_high: false }, 0x1234);
                }
                vmcs12.write(vmcs::SECONDARY_CONTROLS, control.bits());
                if is_activated {
                    let primary = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
                    vmcs12.write(vmcs::PRIMARY_CONTROLS, primary.bits());
                }
            });
            let written = |field: &u32| vmcs02.writes().contains(&(*field, 0x1234));
            let found: Vec<_> = all.iter().copied().filter(written).collect();
            assert_eq!(found, if is_activated { fields } else { &[] }, "{control:?} {is_activated}");
        }
    }
}

#[test]
fn pdptes_are_l1s_with_its_ept_and_those_of_memory_without() {
    let pae = |vmcs12: &mut Vmcs12| {
        vmcs12.write(vmcs::GUEST_CR0, (Cr0::PE | Cr0::PG).bits());
        vmcs12.write(vmcs::GUEST_CR4, Cr4::PAE.bits());
        vmcs12.write(vmcs::GUEST_PDPTE3, 0x3001);
    };
    let (mut without, vmcs12) = entered(pae);
    assert!(uses_pdptes(&vmcs12));
    assert_eq!(without.read(vmcs::GUEST_PDPTE3), 0);
    set_pdptes(&mut without, [1, 2, 3, 4]);
    assert_eq!((without.read(vmcs::GUEST_PDPTE0), without.read(vmcs::GUEST_PDPTE3)), (1, 4));
    let (with, _) = entered(|vmcs12| {
        pae(vmcs12);
        vmcs12.write(vmcs::PRIMARY_CONTROLS, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS.bits());
        vmcs12.write(vmcs::SECONDARY_CONTROLS, SecondaryControls::ENABLE_EPT.bits());
    });
    assert_eq!(with.read(vmcs::GUEST_PDPTE3), 0x3001);
    // Long mode has none.
    let (long, vmcs12) = entered(|vmcs12| {
        pae(vmcs12);
        vmcs12.write(vmcs::ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST.bits());
    });
    assert!(!uses_pdptes(&vmcs12));
    assert_eq!(long.read(vmcs::GUEST_PDPTE3), 0);
}

#[test]
fn what_controls_do_not_load_is_l1s() {
    let (vmcs02, _) = entered(|vmcs12| vmcs12.write(vmcs::GUEST_CR0, 0x8000_0031));
    assert_eq!((vmcs02.read(vmcs::GUEST_PAT), vmcs02.read(vmcs::GUEST_DR7)), (0x11, 0x455));
    assert_eq!((vmcs02.read(vmcs::GUEST_DEBUGCTL), vmcs02.read(vmcs::GUEST_EFER)), (1, 0x801));
    let (long, _) = entered(|vmcs12| {
        vmcs12
            .write(vmcs::ENTRY_CONTROLS, (EntryControls::IA32E_MODE_GUEST | EntryControls::LOAD_EFER).bits());
        vmcs12.write(vmcs::GUEST_EFER, 0x500);
    });
    assert_eq!(long.read(vmcs::GUEST_EFER), 0x500);
    // The cache bits are L1's; in L1's mask, its shadow's.
    assert_eq!(vmcs02.read(vmcs::CR0_READ_SHADOW) & CR0_OF_L0.bits(), Cr0::CD.bits());
    let (masked, _) = entered(|vmcs12| vmcs12.write(vmcs::CR0_MASK, Cr0::CD.bits()));
    assert_eq!(masked.read(vmcs::CR0_READ_SHADOW) & CR0_OF_L0.bits(), 0);
}

#[test]
fn each_entry_loads_what_controls_say_whatever_exits_saved() {
    let fields = [vmcs::GUEST_PAT, vmcs::GUEST_DR7, vmcs::GUEST_DEBUGCTL];
    let loads = EntryControls::LOAD_PAT | EntryControls::LOAD_DEBUG_CONTROLS;
    let saves = ExitControls::SAVE_PAT | ExitControls::SAVE_DEBUG_CONTROLS;
    let mut registers = Registers::default();
    let inherited = InheritedByL2::of(&VmxVcpu::new(SimVmcs::default(), &mut registers, 0));
    for (entry, exit, expected) in [
        (loads, ExitControls::empty(), 0x22),
        (loads, saves, 0x33),
        (EntryControls::empty(), saves, 0),
        (EntryControls::empty(), ExitControls::empty(), 0),
    ] {
        let (mut vmcs02, mut vmcs12) = entered(|vmcs12| {
            fields.into_iter().for_each(|field| vmcs12.write(field, 0x22));
            vmcs12.write(vmcs::ENTRY_CONTROLS, entry.bits());
            vmcs12.write(vmcs::EXIT_CONTROLS, exit.bits());
        });
        fields.into_iter().for_each(|field| vmcs02.write(field, 0x33));
        reflect::save_guest_state(&vmcs02, &mut vmcs12);
        enter_fake(&mut vmcs02, &mut vmcs12, &own(), &inherited);
        assert_eq!(fields.map(|field| vmcs02.read(field)), [expected; 3], "{entry:?} {exit:?}");
    }
}

#[test]
fn an_entry_loads_no_cache_bits_and_an_exit_leaves_l1_its_own() {
    // L1 owns both bits, and its VMCS has them set.
    let (vmcs02, mut vmcs12) = entered(|vmcs12| {
        vmcs12.write(vmcs::CR0_MASK, CR0_OF_L0.bits());
        vmcs12.write(vmcs::GUEST_CR0, (CR0_OF_L0 | Cr0::PE).bits());
    });
    reflect::save_guest_state(&vmcs02, &mut vmcs12);
    assert_eq!(vmcs12.read(vmcs::GUEST_CR0), (Cr0::CD | Cr0::PE).bits());
}

#[test]
fn an_exit_loads_the_host_state_and_fixed_attributes() {
    let mut vmcs12 = Vmcs12::new();
    vmcs12
        .write(vmcs::EXIT_CONTROLS, (ExitControls::HOST_ADDRESS_SPACE_SIZE | ExitControls::LOAD_PAT).bits());
    vmcs12.write(vmcs::HOST_RIP, 0x1234);
    vmcs12.write(vmcs::HOST_CR0, 0x8000_0031);
    vmcs12.write(vmcs::HOST_CR4, 0x2000);
    vmcs12.write(vmcs::HOST_CS_SELECTOR, 8);
    vmcs12.write(vmcs::HOST_FS_BASE, 0xf5);
    vmcs12.write(vmcs::HOST_PAT, 0x22);
    let mut vmcs02 = SimVmcs::default();
    vmcs02.write(vmcs::GUEST_EFER, 1);
    vmcs02.write(vmcs::CR0_READ_SHADOW, Cr0::CD.bits());
    let inherited = InheritedByL1::of(&vmcs02, &vmcs12);
    let mut registers = Registers::default();
    let mut l1 = VmxVcpu::new(SimVmcs::default(), &mut registers, 0);
    reflect::load_host_state(&mut l1, &vmcs12, &inherited, &FakeMemory::new(0x1000)).unwrap();
    assert_eq!((l1.rip(), l1.rflags().bits(), l1.dr7()), (0x1234, 2, 0x400));
    assert_eq!(l1.efer(), Efer::SCE | Efer::LME | Efer::LMA);
    assert!(l1.cr0().contains(Cr0::CD | Cr0::PG) && l1.cr4().contains(Cr4::PAE | Cr4::VMXE));
    let read = |field| l1.vmcs.read(field);
    assert_eq!((read(vmcs::GUEST_CS_ACCESS_RIGHTS), read(vmcs::GUEST_DS_ACCESS_RIGHTS)), (0xa09b, 0x1_c093));
    assert_eq!((read(vmcs::GUEST_TR_LIMIT), read(vmcs::GUEST_IDTR_LIMIT)), (0x67, 0xffff));
    assert_eq!((l1.vmcs.read(vmcs::GUEST_FS_BASE), l1.vmcs.read(vmcs::GUEST_PAT)), (0xf5, 0x22));
    // PDPTEs of a PAE host that are not valid abort the exit.
    vmcs12.write(vmcs::EXIT_CONTROLS, 0);
    vmcs12.write(vmcs::HOST_CR4, 0x2020);
    let memory = FakeMemory::new(0x1000);
    memory.put_u64(0, 3);
    assert!(reflect::load_host_state(&mut l1, &vmcs12, &inherited, &memory).is_err());
    memory.put_u64(0, 1);
    reflect::load_host_state(&mut l1, &vmcs12, &inherited, &memory).unwrap();
    assert_eq!((l1.pdptes()[0], l1.efer()), (1, Efer::SCE));
}

#[test]
fn an_exit_tells_what_happened_and_takes_the_injection_back() {
    let mut vmcs02 = SimVmcs::default();
    vmcs02.write(vmcs::EXIT_QUALIFICATION, 5);
    vmcs02.write(vmcs::IDT_VECTORING_INFORMATION, 0x8000_0302);
    vmcs02.write(vmcs::GUEST_PHYSICAL_ADDRESS, 0x9000);
    let mut vmcs12 = Vmcs12::new();
    vmcs12.write(vmcs::ENTRY_INTERRUPTION_INFORMATION, 0x8000_0202);
    reflect::save_exit(&vmcs02, &mut vmcs12, ExitReason::EPT_VIOLATION);
    assert_eq!((vmcs12.read(vmcs::EXIT_REASON), vmcs12.read(vmcs::EXIT_QUALIFICATION)), (48, 5));
    assert_eq!(vmcs12.read(vmcs::GUEST_PHYSICAL_ADDRESS), 0x9000);
    assert_eq!(vmcs12.read(vmcs::IDT_VECTORING_INFORMATION), 0x8000_0202);
    assert_eq!(vmcs12.read(vmcs::ENTRY_INTERRUPTION_INFORMATION), 0x0000_0202);
    let failure = crate::vmx::nested::entry::checks::EntryFailure::MsrLoading { entry: 3 };
    reflect::save_facts(&mut vmcs12, &failure.into());
    assert_eq!((vmcs12.read(vmcs::EXIT_REASON), vmcs12.read(vmcs::EXIT_QUALIFICATION)), (0x8000_0022, 3));
    // The failed entry keeps what it was to inject.
    assert_eq!(vmcs12.read(vmcs::IDT_VECTORING_INFORMATION), 0x8000_0202);
}

#[test]
fn flags_of_the_exit_reason_are_told_and_hide_no_address() {
    const ENCLAVE_MODE: u32 = 1 << 27;
    let mut vmcs02 = SimVmcs::default();
    vmcs02.write(vmcs::GUEST_PHYSICAL_ADDRESS, 0x9000);
    let mut vmcs12 = Vmcs12::new();
    reflect::save_exit(&vmcs02, &mut vmcs12, ExitReason(ENCLAVE_MODE | 48));
    assert_eq!(vmcs12.read(vmcs::EXIT_REASON), ENCLAVE_MODE | 48);
    assert_eq!(vmcs12.read(vmcs::GUEST_PHYSICAL_ADDRESS), 0x9000);
}

#[test]
fn an_exit_that_no_delivery_led_to_tells_of_none() {
    let nmi = Interruption::new(2, InterruptionType::NMI, false);
    let fault = |vector| Interruption::new(vector, InterruptionType::HARDWARE_EXCEPTION, true);
    let exit = |reason, interruption| ExitFacts { interruption, ..ExitFacts::new(reason, 0) };
    // What an earlier exit left in VMCS02, and VMCS12 has of it.
    let told = |save: fn(&mut Vmcs12, &ExitFacts), facts| {
        let mut vmcs12 = Vmcs12::new();
        vmcs12.write(vmcs::IDT_VECTORING_INFORMATION, 0x8000_0306);
        save(&mut vmcs12, &facts);
        vmcs12.read(vmcs::IDT_VECTORING_INFORMATION)
    };
    for (reason, interruption) in [
        (ExitReason::INIT, Interruption(0)),
        (ExitReason::NMI_WINDOW, Interruption(0)),
        (ExitReason::EXCEPTION_OR_NMI, nmi),
    ] {
        assert_eq!(told(reflect::save_early_exit, exit(reason, interruption)), 0, "{reason:?}");
    }
    // A page fault that was raised in a delivery interrupts it; double and triple faults are not considered to.
    let exception = ExitReason::EXCEPTION_OR_NMI;
    assert_eq!(told(reflect::save_facts, exit(exception, fault(14))), 0x8000_0306);
    assert_eq!(told(reflect::save_facts, exit(exception, fault(8))), 0);
    assert_eq!(told(reflect::save_facts, exit(ExitReason::TRIPLE_FAULT, Interruption(0))), 0);
}

#[test]
fn what_both_want_is_wanted() {
    let both = PrimaryControls::ACTIVATE_SECONDARY_CONTROLS | PrimaryControls::INTERRUPT_WINDOW_EXITING;
    let l0 = Controls { primary: both, ..own() };
    assert!(primary(both, &l0).contains(both));
    let needed = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
    assert_eq!([SecondaryControls::empty(), needed].map(secondary), [needed; 2]);
}
