//! What a hypapp asks the core for.

use super::*;
use crate::memory::second_level::ProtectError;
use crate::services::compartment::{self, CompartmentExit, Mode, Page};
use crate::services::pages::Cover;
use crate::vmx::fixture::{Heard, REGION, put};
use x86::address::HostPhysAddr;

#[test]
fn a_hidden_page_is_read_by_the_hypapp_alone() {
    let cpu = TestCpu::running();
    let page = GuestPhysAddr::new(cpu.memory());
    put(page.get(), b"secret");
    pages::cover([(page, Cover::Hidden)]).unwrap();
    assert_eq!(services::protection(Scope::AllCpus, page), Rights::READ);
    let mut bytes = [0; 6];
    assert_eq!(pages::read(page, &mut bytes), Ok(()));
    assert_eq!(&bytes, b"secret");
    assert_eq!(pages::write(page, b"deeper"), Ok(()));
    assert_eq!(&read::<6>(page.get()), b"deeper");
    pages::cover([(page, Cover::Open)]).unwrap();
    assert_eq!(services::protection(Scope::AllCpus, page), Rights::all());
}

#[test]
fn only_the_guests_memory_is_covered() {
    let _cpu = TestCpu::running();
    let region = GuestPhysAddr::new(REGION.base);
    assert!(!pages::is_memory(region));
    assert!(pages::is_memory(GuestPhysAddr::new(0x10_0000)));
    assert!(!pages::is_memory(GuestPhysAddr::new(0xfee0_0000)));
    assert_eq!(pages::cover([(region, Cover::ReadOnly)]), Err(ProtectError::HypervisorMemory));
}

#[test]
fn a_view_holds_for_its_cpu_alone() {
    let cpu = TestCpu::running();
    let page = GuestPhysAddr::new(cpu.memory());
    let shared = cpu.get(vmcs::EPT_POINTER);
    services::open_view().unwrap();
    assert_ne!(cpu.get(vmcs::EPT_POINTER), shared);
    services::set_protection(Scope::ThisCpu, GuestRange::page(page), Rights::READ).unwrap();
    assert_eq!(services::protection(Scope::ThisCpu, page), Rights::READ);
    assert_eq!(services::protection(Scope::AllCpus, page), Rights::all());
    services::close_view();
    assert_eq!(cpu.get(vmcs::EPT_POINTER), shared);
}

/// Puts the guest into a compartment of one page at its linear address 0x5000.
fn enter(cpu: &TestCpu, ticks: u64) {
    let needed = compartment::frames_needed(Mode::Levels4, [(0x5000, 1)]);
    while !compartment::reserve(needed).unwrap() {}
    let page = Page {
        linear: 0x5000,
        frame: HostPhysAddr::new(cpu.memory()),
        rights: Rights::READ | Rights::EXECUTE,
    };
    let roots = compartment::prepare(1, Mode::Levels4, || [page]).unwrap();
    compartment::enter(&roots, ticks);
    assert_eq!(cpu.get(vmcs::GUEST_CR3), roots.cr3);
}

#[test]
fn the_guests_processor_is_put_aside_for_a_compartment() {
    let cpu = TestCpu::running();
    let fields = [
        vmcs::GUEST_CR0,
        vmcs::GUEST_CR3,
        vmcs::GUEST_CR4,
        vmcs::GUEST_EFER,
        vmcs::GUEST_DR7,
        vmcs::GUEST_FS_BASE,
    ];
    for (index, field) in fields.into_iter().enumerate() {
        cpu.set(field, 0x1_0000 * (index as u64 + 1));
    }
    let all = |cpu: &TestCpu| {
        let controls = [vmcs::PIN_BASED_CONTROLS, vmcs::EXIT_CONTROLS].map(|field| cpu.get(field));
        (
            fields.map(|field| cpu.get(field)),
            controls,
            cpu.get(vmcs::EPT_POINTER),
            cpu.get(vmcs::EXCEPTION_BITMAP),
        )
    };
    let before = all(&cpu);
    enter(&cpu, 1 << 20);
    assert!(compartment::is_inside());
    assert_ne!(all(&cpu), before);
    assert_eq!(cpu.get(vmcs::EXCEPTION_BITMAP), !0);
    assert_ne!(cpu.get(vmcs::PREEMPTION_TIMER), 0);
    compartment::leave();
    assert!(!compartment::is_inside());
    assert_eq!(all(&cpu), before);
    // Nothing happens where it is in none.
    compartment::leave();
    assert_eq!(all(&cpu), before);
}

#[test]
fn exits_of_a_compartment_come_to_the_hypapp() {
    let mut cpu = TestCpu::running();
    enter(&cpu, 1 << 20);
    cpu.exit(ExitReason::PREEMPTION_TIMER);
    cpu.set(vmcs::GUEST_PHYSICAL_ADDRESS, 0x9000);
    cpu.set(vmcs::EXIT_QUALIFICATION, 2);
    cpu.exit(ExitReason::EPT_VIOLATION);
    script(|script| script.at_compartment_exit = |_| compartment::leave());
    cpu.exit(ExitReason::INVD);
    assert!(!compartment::is_inside());
    let heard = script(|script| script.heard.clone());
    let [Heard::Compartment(first), Heard::Compartment(second), Heard::Compartment(third)] = heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!((first, third), (CompartmentExit::TimeOver, CompartmentExit::Forbidden));
    assert!(matches!(second, CompartmentExit::Violation(_)), "{second:?}");
}

#[test]
fn a_compartment_takes_nothing_of_the_hypervisors() {
    let _cpu = TestCpu::running();
    while !compartment::reserve(8).unwrap() {}
    let page = Page { linear: 0, frame: HostPhysAddr::new(REGION.base), rights: Rights::READ };
    assert_eq!(compartment::prepare(2, Mode::Bits32, || [page]), Err(ProtectError::HypervisorMemory));
    assert_eq!(compartment::reserve(1 << 20), Err(ProtectError::Exhausted));
}

#[test]
fn others_stand_still_while_one_acts() {
    let mut cpu = TestCpu::running();
    cpu.exit(ExitReason::CPUID);
    let first = services::quiesce(services::exits_of_others);
    cpu.exit(ExitReason::CPUID);
    // Its own exits are not counted.
    assert_eq!(services::quiesce(services::exits_of_others), first);
    assert_eq!(services::cpu(), cpu.data.index);
    assert!(!services::is_nested() && !services::has_nested_second_level());
}

#[test]
fn memory_for_good_is_zeroed_and_nobody_elses() {
    let _cpu = TestCpu::running();
    let first = services::take_memory(100);
    assert_eq!(first, [0; 100]);
    first.fill(0xa5);
    assert_eq!(services::take_memory(5000), [0; 5000]);
}
