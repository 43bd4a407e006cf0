//! Fills a CPU's VMCS for the first entry.
//!
//! UNSAFETY: the VMCS that was just made current, and the place of the guest's registers.
#![expect(unsafe_code, reason = "current VMCS")]

use super::bitmaps;
use super::controls::Controls;
use super::enable::{EnableError, enable, revision};
use super::host_state::{self, HostRegisters};
use super::invalidate::VPID;
use super::nested;
use super::observers::observers;
use super::vcpu::{CR0_MASK, CR4_MASK, VmxVcpu};
use crate::exit::control_register::ControlRegisterPolicy;
use crate::exit::{init_sipi, pointer};
use crate::features::features;
use crate::machine;
use crate::memory::views::View;
use crate::smp::percpu::PerCpu;
use crate::vcpu::{Activity, EventState, PagingState, Registers};
use crate::vmx::vm_entry;
use hw::bare::vmx::CurrentVmcs;
use hw::bare::{Processor, address_space, control_registers};
use hw::{Msrs, Vmcs};
use x86::cr::Cr0;
use x86::debug::DR7_RESET;
use x86::msr::Msr;
use x86::vmx::ept::EptPointer;
use x86::vmx::vmcs;

const NO_LINK: u64 = u64::MAX;
const DEFAULT_PAT: u64 = 0x0007_0406_0007_0406;

/// Enters VMX operation on this CPU and fills its VMCS: the bootstrap processor at the guest's boot sector,
/// any other waiting for a start-up IPI. Returns the guest's registers on the top of this CPU's stack.
pub(super) fn set_up(cpu: &'static PerCpu) -> Result<*mut Registers, EnableError> {
    // Before VMX operation is entered: a CPU that lacks something stays outside, and can still say what.
    let controls = Controls::for_processor(&Processor, observers()).map_err(EnableError::Unsupported)?;
    // Before a guest runs here: by these pointers the processor reaches memory past the second-level tables.
    pointer::adopt(&Processor, features().feedback_bytes, &machine::SECOND_LEVEL)
        .map_err(EnableError::Pointers)?;
    enable(cpu, machine::region())?;
    // SAFETY: `enable` made this CPU's VMCS current.
    let mut vmcs = unsafe { CurrentVmcs::new() };
    write_controls(&mut vmcs, &controls, &cpu.machine.policies.control_register);
    // SAFETY: this CPU's own registers as they are, and VM entry's own landing.
    unsafe { host_state::write(&mut vmcs, cpu, &host_registers(cpu)) };
    write_fixed_guest_state(&mut vmcs);
    observers().begin(&mut vmcs, &Processor);
    nested::set_up(cpu, revision()?, |vmcs02| {
        let registers = HostRegisters { rip: vm_entry::l2_exit_address(), ..host_registers(cpu) };
        write_l2_controls(vmcs02);
        observers().begin(vmcs02, &Processor);
        // SAFETY: as above, with the landing for exits of L2.
        unsafe { host_state::write(vmcs02, cpu, &registers) };
    });
    // SAFETY: the place is on the top of this CPU's main stack, far from where it runs now.
    let registers = unsafe { &mut *cpu.registers() };
    *registers = Registers::default();
    let mut vcpu = VmxVcpu::new(vmcs, registers, cpu.index);
    // INIT keeps the cache bits, which a processor is born with (SDM, "Processor State After Reset").
    vcpu.set_cr0(Cr0::CD | Cr0::NW | Cr0::ET);
    init_sipi::reset_state(&mut vcpu, &Processor);
    if cpu.index == 0 {
        cpu.machine.guest_start.enter(&mut vcpu);
    } else {
        vcpu.set_activity(Activity::WaitForSipi);
    }
    Ok(cpu.registers())
}

fn write_controls(vmcs: &mut impl Vmcs, controls: &Controls, policy: &ControlRegisterPolicy) {
    for (field, word) in [
        (vmcs::PIN_BASED_CONTROLS, controls.pin_based.bits()),
        (vmcs::PRIMARY_CONTROLS, controls.primary.bits()),
        (vmcs::SECONDARY_CONTROLS, controls.secondary.bits()),
        (vmcs::EXIT_CONTROLS, controls.exit.bits()),
        (vmcs::ENTRY_CONTROLS, controls.entry.bits()),
    ] {
        // SAFETY: those that we need on this processor: exits load host state, EPT translates, and the bitmaps are
        // named below.
        unsafe { vmcs.write_trusted(field, word) }
    }
    forbid_msr_areas(vmcs);
    for field in [
        vmcs::EXCEPTION_BITMAP,
        vmcs::PAGE_FAULT_ERROR_CODE_MASK,
        vmcs::PAGE_FAULT_ERROR_CODE_MATCH,
        vmcs::CR3_TARGET_COUNT,
        vmcs::ENTRY_INTERRUPTION_INFORMATION,
    ] {
        vmcs.write(field, 0);
    }
    vmcs.write(vmcs::VPID, VPID);
    if controls.secondary.contains(x86::vmx::controls::SecondaryControls::ENABLE_XSAVES) {
        vmcs.write(vmcs::XSS_EXITING_BITMAP, 0);
    }
    vmcs.write(vmcs::CR0_MASK, CR0_MASK.bits());
    vmcs.write(vmcs::CR4_MASK, (CR4_MASK | !policy.cr4_offered).bits());
    if let Some(bitmaps) = bitmaps::shared() {
        for (field, address) in [
            (vmcs::MSR_BITMAPS, bitmaps.msr.get()),
            (vmcs::IO_BITMAP_A, bitmaps.io.get()),
            (vmcs::IO_BITMAP_B, bitmaps.io.get() + 4096),
        ] {
            // SAFETY: a frame of the pool that holds this bitmap for good.
            unsafe { vmcs.write_trusted(field, address) }
        }
    }
    if let Some(root) = machine::SECOND_LEVEL.lock().root(View::SHARED) {
        // SAFETY: the guest's tables, which give it nothing of the hypervisor's.
        unsafe { vmcs.write_trusted(vmcs::EPT_POINTER, EptPointer::new(root.table()).0) }
    }
}

/// MSR areas are software's.
fn forbid_msr_areas(vmcs: &mut impl Vmcs) {
    for field in [vmcs::EXIT_MSR_STORE_COUNT, vmcs::EXIT_MSR_LOAD_COUNT, vmcs::ENTRY_MSR_LOAD_COUNT] {
        // SAFETY: of no entries, no address is followed.
        unsafe { vmcs.write_trusted(field, 0) }
    }
}

/// No shadow VMCS serves VMREAD and VMWRITE.
fn unlink(vmcs: &mut impl Vmcs) {
    // SAFETY: it leads nowhere.
    unsafe { vmcs.write_trusted(vmcs::VMCS_LINK_POINTER, NO_LINK) }
}

/// What never changes in the VMCS under which a guest of the guest runs.
fn write_l2_controls(vmcs: &mut impl Vmcs) {
    forbid_msr_areas(vmcs);
    unlink(vmcs);
}

fn host_registers(cpu: &PerCpu) -> HostRegisters {
    HostRegisters {
        cr0: control_registers::cr0(),
        cr3: address_space::root().get(),
        cr4: control_registers::cr4(),
        efer: Processor.read(Msr::IA32_EFER).unwrap_or_default(),
        pat: DEFAULT_PAT,
        idt_base: control_registers::idt_base(),
        rip: vm_entry::exit_address(),
        rsp: PerCpu::registers_address(cpu) + size_of::<Registers>() as u64,
    }
}

fn write_fixed_guest_state(vmcs: &mut impl Vmcs) {
    unlink(vmcs);
    vmcs.write(vmcs::GUEST_DEBUGCTL, 0);
    vmcs.write(vmcs::GUEST_PAT, Processor.read(Msr::IA32_PAT).unwrap_or(DEFAULT_PAT));
    vmcs.write(vmcs::GUEST_EFER, 0);
    vmcs.write(vmcs::GUEST_SYSENTER_CS, 0);
    vmcs.write(vmcs::GUEST_SYSENTER_ESP, 0);
    vmcs.write(vmcs::GUEST_SYSENTER_EIP, 0);
    vmcs.write(vmcs::GUEST_INTERRUPTIBILITY, 0);
    vmcs.write(vmcs::GUEST_ACTIVITY, 0);
    vmcs.write(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    vmcs.write(vmcs::GUEST_DR7, DR7_RESET);
}
