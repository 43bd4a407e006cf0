//! What the boot leaves on each processor.

use super::*;
use crate::vendor::Vendor;
use crate::vmx::enable::{self, EnableError};
use crate::vmx::{VMX, vm_entry};
use x86::msr::Msr;
use x86::paging::PageSize;

#[test]
fn a_processor_waits_for_the_guests_startup_ipi() {
    let cpu = TestCpu::new();
    assert_eq!(cpu.get(vmcs::GUEST_ACTIVITY), 3);
    assert!(!cpu.data.is_running());
    assert_eq!(cpu.get(vmcs::VMCS_LINK_POINTER), !0);
    let host = (cpu.get(vmcs::HOST_RIP), cpu.get(vmcs::HOST_GS_BASE), cpu.get(vmcs::HOST_TR_SELECTOR));
    assert_eq!(host, (vm_entry::exit_address(), cpu.data as *const _ as u64, 0x18));
    // Caches and write protection came on, and VMX.
    assert_eq!(own(|cpu| (cpu.cr0 & 0x6000_0000, cpu.cr0 >> 16 & 1, cpu.cr4 >> 13 & 1)), (0, 1, 1));
}

#[test]
fn the_guest_writes_no_msr_of_ours_unseen() {
    let cpu = TestCpu::new();
    let bitmap = cpu.get(vmcs::MSR_BITMAPS);
    let writes = |msr: u64| read::<1>(bitmap + 0x800 + msr / 8)[0] >> (msr % 8) & 1;
    for msr in [0x1b, 0x1a2, 0x2ff] {
        assert_eq!(writes(msr), 1, "{msr:#x}");
    }
    assert_eq!(writes(0x10), 0);
    let ports = cpu.get(vmcs::IO_BITMAP_A);
    assert_eq!(read::<1>(ports + 0x5a / 8)[0] >> (0x5a % 8) & 1, 1);
}

#[test]
fn a_processor_whose_firmware_locked_vmx_off_stays_outside() {
    let cpu = TestCpu::new();
    own(|cpu| cpu.msrs.set(Msr::IA32_FEATURE_CONTROL, 1));
    let region = cpu.data.machine.region;
    assert_eq!(enable::enable(cpu.data, &region), Err(EnableError::LockedOff));
    own(|cpu| cpu.msrs.set(Msr::IA32_FEATURE_CONTROL, 0));
    assert_eq!(enable::enable(cpu.data, &region), Ok(()));
    assert_eq!(own(|cpu| hw::Msrs::read(&cpu.msrs, Msr::IA32_FEATURE_CONTROL)), Ok(5));
}

#[test]
fn the_vendor_tells_what_the_processor_has() {
    let cpu = TestCpu::new();
    let features = VMX.second_level_features();
    assert_eq!((features.largest_page, features.has_execute_only), (PageSize::Size1G, true));
    assert_eq!(VMX.exit_name(10), ExitReason::CPUID.name());
    assert!(!VMX.is_nested() && VMX.nested_memory().is_none());
    let window = vm_entry::exit_address();
    assert_eq!(VMX.restart_after_nmi(window), None);
    VMX.leave();
    assert_eq!(own(|cpu| cpu.current_vmcs), None);
    drop(cpu);
}

#[test]
fn a_dump_has_the_guests_state_only_where_it_may() {
    let cpu = TestCpu::new();
    cpu.set(vmcs::EXIT_REASON, 10);
    let dump = |with_guest| {
        let mut text = String::new();
        VMX.dump(&mut text, with_guest).unwrap();
        text
    };
    assert!(dump(true).contains("vmcs 0x681e ") && dump(false).contains("vmcs 0x6c16 "));
    assert!(!dump(false).contains("vmcs 0x681e "));
    assert!(dump(false).starts_with("exit: "));
}
