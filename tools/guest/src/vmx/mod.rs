//! VMX operation of the test guest itself: it is then the hypervisor, L1, of a guest of its own, L2.
//!
//! [`enter_operation`] executes VMXON; a [`Guest`] is a VMCS whose guest runs a function of this program in
//! the same address space, with or without extended page tables of [`Ept`]; [`instruction`] holds the VMX
//! instructions with their outcome, [`form`] all of them as code. A controlling field is written by its name of `x86::vmx::vmcs`. Nothing here
//! executes IRET, which would unblock NMIs.

mod attempt;
mod ept;
pub mod form;
mod guest;
pub mod instruction;
pub mod many;
pub mod nmi;
mod operation;
mod page;
pub mod prelude;
mod random;
pub mod state;
pub mod trial;
pub mod verdict;

pub use attempt::{Outcome, attempt, attempt_with};
pub use ept::Ept;
pub use guest::{Guest, Registers, ept_violation};
pub use instruction::Failure;
pub use operation::{capability, enter_operation, has_vmx, leave_operation, prepare, region, revision};
pub use page::{allocate, allocate_run, clear, read, write};
pub use random::Random;
pub use x86::vmx::exit_reason::ExitReason;
pub use x86::vmx::vmcs;
