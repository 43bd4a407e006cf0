//! L2 under L1's own second-level tables.

use super::*;
use crate::hypapp::HypercallAnswer;
use crate::memory::guest::Privilege;
use crate::memory::range::GuestRange;
use crate::services::{self, Scope, pages};
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::paging::Rights;

const EPT: u64 = FREE;
const PAGE_OF_L1: u64 = FREE + 0x8000;
/// Where L2 finds that page.
const GPA: u64 = 0x7000;
const READ: u64 = 1;
const WRITE: u64 = 2;
/// A linear address was accessed, and what it translates to.
const LINEAR: u64 = 3 << 7;

/// Writes L1's tables: of four levels, one page at [`GPA`] with `rights`, write-back.
fn map(l1: &L1, rights: u64) {
    let table = |level: u64| l1.base + EPT + level * 0x1000;
    for level in 0..3 {
        put_u64(table(level), table(level + 1) | 7);
    }
    put_u64(table(3) + GPA / 0x1000 * 8, (l1.base + PAGE_OF_L1) | 6 << 3 | rights);
}

fn under_ept(rights: u64, write: impl FnOnce(&mut L1)) -> L1 {
    L1::in_l2_with(|l1| {
        map(l1, rights);
        l1.add(vmcs::PRIMARY_CONTROLS, 1 << 31);
        l1.write(vmcs::SECONDARY_CONTROLS, 1 << 1);
        l1.write(vmcs::EPT_POINTER, (l1.base + EPT) | 3 << 3 | 6);
        write(l1);
    })
}

fn violate(l1: &mut L1, gpa: u64, qualification: u64) {
    l1.cpu.set(vmcs::GUEST_PHYSICAL_ADDRESS, gpa);
    l1.cpu.set(vmcs::GUEST_LINEAR_ADDRESS, 0x1234);
    l1.cpu.set(vmcs::EXIT_QUALIFICATION, qualification | LINEAR);
    l1.exit(ExitReason::EPT_VIOLATION);
}

/// Returns the entry by which the processor translates L2's `gpa`.
fn mapped(l1: &L1, gpa: u64) -> Option<u64> {
    let mut entry = l1.cpu.get(vmcs::EPT_POINTER);
    for level in (0..4).rev() {
        entry = u64::from_le_bytes(read((entry & !0xfff) + (gpa >> (12 + 9 * level) & 0x1ff) * 8));
        if entry & 7 == 0 {
            return None;
        }
    }
    Some(entry)
}

#[test]
fn a_page_of_l1s_tables_is_filled_when_l2_touches_it() {
    let mut l1 = under_ept(7, |_| ());
    assert!(services::has_nested_second_level());
    assert_ne!(l1.cpu.get(vmcs::EPT_POINTER) & !0xfff, l1.base + EPT, "tables of ours");
    assert_eq!(mapped(&l1, GPA), None);
    violate(&mut l1, GPA + 0x10, READ);
    assert_eq!(l1.goes_on(), (L2_RIP, 0));
    let entry = mapped(&l1, GPA).unwrap();
    assert_eq!((entry & !0xfff, entry & 7), (l1.base + PAGE_OF_L1, 7));
}

#[test]
fn an_access_that_l1s_tables_forbid_is_l1s_violation() {
    for (gpa, qualification, allowed) in [(GPA, WRITE, 1), (GPA + 0x1000, READ, 0)] {
        let mut l1 = under_ept(1, |_| ());
        violate(&mut l1, gpa, qualification);
        assert_eq!(l1.told(), ExitReason::EPT_VIOLATION);
        assert_eq!(l1.read(vmcs::GUEST_PHYSICAL_ADDRESS), gpa);
        assert_eq!(l1.read(vmcs::GUEST_LINEAR_ADDRESS), 0x1234);
        let told = l1.read(vmcs::EXIT_QUALIFICATION);
        assert_eq!((told & 7, told >> 3 & 7), (qualification, allowed), "{gpa:#x}");
    }
}

#[test]
fn what_l1_writes_wrongly_in_its_tables_is_its_misconfiguration() {
    // Writable and not readable.
    let mut l1 = under_ept(2, |_| ());
    violate(&mut l1, GPA, WRITE);
    assert_eq!(l1.told(), ExitReason::EPT_MISCONFIGURATION);
}

#[test]
fn invept_drops_what_was_filled() {
    let mut l1 = under_ept(7, |_| ());
    violate(&mut l1, GPA, READ);
    assert!(mapped(&l1, GPA).is_some());
    l1.exit(ExitReason::RDPMC);
    map(&l1, 1);
    let descriptor = l1.base + OPERAND;
    put_u64(descriptor, (l1.base + EPT) | 3 << 3 | 6);
    put_u64(descriptor + 8, 0);
    // Single context.
    l1.cpu.registers.set_rax(1);
    l1.cpu.set(vmcs::GUEST_RIP, L1_CODE);
    l1.cpu.set(vmcs::EXIT_INSTRUCTION_INFORMATION, MEMORY);
    assert_eq!(l1.execute_raw(ExitReason::INVEPT), (false, false));
    l1.resume();
    assert_eq!(mapped(&l1, GPA), None);
    violate(&mut l1, GPA, READ);
    assert_eq!(mapped(&l1, GPA).unwrap() & 7, 1);
}

#[test]
fn a_page_that_the_hypapp_closes_is_closed_to_l2() {
    let mut l1 = under_ept(7, |_| ());
    violate(&mut l1, GPA, READ);
    let page = GuestPhysAddr::new(l1.base + PAGE_OF_L1);
    services::set_protection(Scope::AllCpus, GuestRange::page(page), Rights::READ).unwrap();
    l1.cpu.attend();
    heard();
    violate(&mut l1, GPA, READ);
    assert_eq!(mapped(&l1, GPA).unwrap() & 7, 1);
    // By L1's address, which the hypapp knows.
    violate(&mut l1, GPA, WRITE);
    assert_eq!(heard(), [Heard::Violation(l1.base + PAGE_OF_L1)]);
    services::reset_protection(Scope::AllCpus, GuestRange::page(page)).unwrap();
}

#[test]
fn a_hypapp_reads_l2s_memory_through_both_tables() {
    let mut l1 = L1::with_vmcs(Mode::Bits64);
    // L2's linear addresses: one page of 1 GiB at 0, by tables that lie in L2's memory where L1's page is.
    map(&l1, 7);
    let table = l1.base + EPT + 0x3000;
    put_u64(table + 8 * 8, (l1.base + PAGE_OF_L1 + 0x1000) | 6 << 3 | 7);
    put_u64(l1.base + PAGE_OF_L1, 0x8003);
    put_u64(l1.base + PAGE_OF_L1 + 0x1000, 0x83);
    put(l1.base + PAGE_OF_L1 + 0xff0, b"deep");
    l1.add(vmcs::PRIMARY_CONTROLS, 1 << 31);
    l1.write(vmcs::SECONDARY_CONTROLS, 1 << 1);
    l1.write(vmcs::EPT_POINTER, (l1.base + EPT) | 3 << 3 | 6);
    l1.write(vmcs::GUEST_CR3, GPA);
    l1.launch();
    assert!(l1.is_l2());
    script(|script| {
        script.hypercall = HypercallAnswer::Handled;
        script.at_hypercall = |vcpu| {
            let space = pages::address_space(vcpu);
            let mut bytes = [0; 4];
            let at = GuestLinearAddr::new(GPA + 0xff0);
            assert_eq!(space.read(at, &mut bytes, Privilege::Supervisor), Ok(()));
            assert_eq!(&bytes, b"deep");
            // What L1's tables lack, L1 is asked for.
            let missing = GuestLinearAddr::new(0x9000);
            assert!(space.read(missing, &mut bytes, Privilege::Supervisor).is_err());
            assert!(pages::ask_hypervisor());
            script_moves();
        };
    });
    l1.cpu.registers.set_rax(0x4c41_5001);
    l1.exit(ExitReason::VMCALL);
    assert_eq!(l1.told(), ExitReason::EPT_VIOLATION);
    assert_eq!(l1.read(vmcs::GUEST_PHYSICAL_ADDRESS), 0x9000);
    assert_eq!(l1.read(vmcs::GUEST_RIP), L2_RIP);
}

fn script_moves() {
    script(|script| script.hypercall = HypercallAnswer::Moved);
}

#[test]
fn a_write_is_logged_where_l1_keeps_a_log() {
    const LOG: u64 = FREE + 0xa000;
    let mut l1 = under_ept(7, |l1| {
        l1.write(vmcs::SECONDARY_CONTROLS, 1 << 1 | 1 << 17);
        l1.write(vmcs::EPT_POINTER, (l1.base + EPT) | 1 << 6 | 3 << 3 | 6);
        l1.write(vmcs::PML_ADDRESS, l1.base + LOG);
        l1.write(vmcs::PML_INDEX, 511);
    });
    violate(&mut l1, GPA + 8, WRITE);
    assert_eq!(l1.goes_on(), (L2_RIP, 0));
    assert_eq!(u64::from_le_bytes(read(l1.base + LOG + 511 * 8)), GPA);
    l1.exit(ExitReason::RDPMC);
    assert_eq!(l1.told(), ExitReason::RDPMC);
    assert_eq!(l1.read(vmcs::PML_INDEX), 510);
}

#[test]
fn the_virtual_apic_page_is_l1s_where_it_is() {
    let l1 = L1::in_l2_with(|l1| {
        l1.add(vmcs::PRIMARY_CONTROLS, 1 << 21);
        l1.write(vmcs::VIRTUAL_APIC_ADDRESS, l1.base + FREE);
        l1.write(vmcs::TPR_THRESHOLD, 0);
    });
    assert_eq!(l1.cpu.get(vmcs::VIRTUAL_APIC_ADDRESS), l1.base + FREE);
    assert_eq!(l1.cpu.get(vmcs::PRIMARY_CONTROLS) & 1 << 21, 1 << 21);
}

#[test]
fn a_view_of_this_cpu_is_l2s_too() {
    let mut l1 = L1::in_l2();
    let shared = l1.cpu.get(vmcs::EPT_POINTER);
    services::open_view().unwrap();
    l1.cpu.attend();
    let own_view = l1.cpu.get(vmcs::EPT_POINTER);
    assert_ne!(own_view, shared);
    l1.exit(ExitReason::RDPMC);
    assert_eq!(l1.cpu.get(vmcs::EPT_POINTER), own_view);
    services::close_view();
    assert_eq!(l1.cpu.get(vmcs::EPT_POINTER), shared);
}
