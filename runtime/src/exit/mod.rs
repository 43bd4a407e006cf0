//! Why the guest left, and what happens next: one cause a file, none of them in a vendor's words.

pub mod apic_base;
pub mod breakpoint;
pub(crate) mod compartment_exit;
pub mod configuration_store;
pub mod control_register;
pub mod cpuid;
pub(crate) mod dispatch;
pub mod e820;
pub mod exception;
#[cfg(test)]
mod hostile_tests;
pub mod hypercall;
pub mod init_sipi;
pub mod invd;
pub mod local_apic;
pub mod machine_check;
pub mod mov_store;
pub mod msr;
pub mod mtrr;
pub mod nmi_source;
pub mod pointer;
pub mod port;
pub mod real_mode;
pub mod task_switch;
pub mod triple_fault;
pub mod unwatchable;
pub mod xsetbv;

pub use hw::PortWidth;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::event::Event;
use x86::msr::Msr;

/// Why a guest's processor left the guest, with the facts already decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// RDMSR.
    ReadMsr {
        /// Which, from ECX.
        msr: Msr,
    },
    /// WRMSR.
    WriteMsr {
        /// Which, from ECX.
        msr: Msr,
        /// EDX:EAX.
        value: u64,
    },
    /// The hypercall instruction: VMCALL on Intel.
    Hypercall,
    /// MOV to or from a control register, CLTS or LMSW that touches a bit we own.
    ControlRegister(ControlRegisterAccess),
    /// IN, OUT, INS or OUTS at an intercepted port.
    Port(PortAccess),
    /// XSETBV; index in ECX, value in EDX:EAX.
    Xsetbv,
    /// The second-level page tables do not allow the access.
    SecondLevelViolation(SecondLevelViolation),
    /// A task switch was tried.
    TaskSwitch(TaskSwitch),
    /// INVD.
    Invd,
    /// WBINVD or WBNOINVD, where a hypapp asked for it.
    Wbinvd,
    /// An instruction that the guest's processor does not have: GETSEC, and those of virtualization.
    UndefinedInstruction,
    /// An INIT signal arrived.
    Init,
    /// A start-up IPI arrived.
    Startup {
        /// Page number of the start address.
        vector: u8,
    },
    /// An NMI arrived.
    Nmi,
    /// The guest can take an NMI now.
    NmiWindow,
    /// An exception that a hypapp intercepts.
    Exception(Event),
    /// An external interrupt that a hypapp intercepts.
    ExternalInterrupt,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest's processor shut down.
    TripleFault,
    /// The time is over that a compartment's software may run for.
    TimeOver,
}

/// Why software left the compartment that it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompartmentExit {
    /// It raised an exception. The guest knows nothing of it.
    Exception(Event),
    /// It touched what the compartment does not allow.
    Violation(SecondLevelViolation),
    /// It executed what no software in a compartment may.
    Forbidden,
    /// Its time is over, or interrupts wait no longer.
    TimeOver,
    /// Another CPU called this one, for whatever reason.
    Called,
    /// An INIT signal arrived: this CPU's guest starts anew. In a guest of its own it waits until the compartment is left.
    Init,
}

/// What to do with the guest after an exit was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on at the guest's RIP; an event that was being delivered is delivered again.
    Resume,
    /// Go on behind the instruction that exited.
    Advance,
    /// Go on behind the instruction, of so many bytes, where the exit does not tell its length.
    AdvanceBy(u8),
    /// The guest takes this event at the instruction that exited.
    Inject(Event),
    /// End the guest: all CPUs meet, the hypapp cleans up, the machine is reset.
    Reset(ResetCause),
}

/// What made the guest end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// INIT reached the bootstrap processor.
    Init,
    /// A guest processor shut down.
    TripleFault,
    /// The guest wrote a reset or power port; the write is performed once every CPU has stopped.
    Port {
        /// Which.
        port: u16,
        /// Its size.
        width: PortWidth,
        /// What was written.
        value: u32,
    },
}

/// How a control register was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRegisterAccess {
    /// MOV CRn, register: the value is in that general-purpose register (4 is RSP).
    MovTo {
        /// CR number: 0, 3, 4 or 8.
        control_register: u8,
        /// Encoding of the general-purpose register.
        register: u8,
    },
    /// MOV register, CRn.
    MovFrom {
        /// CR number.
        control_register: u8,
        /// Encoding of the general-purpose register.
        register: u8,
    },
    /// CLTS.
    Clts,
    /// LMSW with this source operand.
    Lmsw {
        /// The operand.
        source: u16,
    },
}

/// A port instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// First port touched.
    pub port: u16,
    /// Size of each transfer.
    pub width: PortWidth,
    /// IN or INS, rather than OUT or OUTS.
    pub is_input: bool,
    /// INS or OUTS.
    pub string: Option<StringPort>,
}

/// What INS and OUTS have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringPort {
    /// REP prefix.
    pub is_repeated: bool,
    /// Address size in bits: 16, 32 or 64.
    pub address_bits: u8,
    /// Segment of the memory operand: ES for INS, DS or an override for OUTS.
    pub segment: x86::segment::SegmentRegister,
}

/// An access that the second-level page tables stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondLevelViolation {
    /// Guest-physical address of the access.
    pub gpa: GuestPhysAddr,
    /// Guest-linear address, where the processor gives one.
    pub gla: Option<GuestLinearAddr>,
    /// The access was a read.
    pub is_read: bool,
    /// The access was a write.
    pub is_write: bool,
    /// The access was an instruction fetch.
    pub is_fetch: bool,
    /// The access was the processor's own walk of the guest's page tables.
    pub is_walk: bool,
}

/// A task switch that was tried (SDM, "Exit Qualification for Task Switches").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the new task's TSS.
    pub selector: u16,
    /// What started it.
    pub source: TaskSwitchSource,
}

/// What started a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jump,
    /// A task gate in the IDT, by an exception, an NMI or an external interrupt.
    Event {
        /// The error code that goes on the new task's stack.
        error_code: Option<u32>,
    },
    /// A task gate in the IDT, by INT n, INT1, INT3 or INTO.
    SoftwareInterrupt,
}
