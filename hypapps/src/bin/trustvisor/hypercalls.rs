//! Hypercalls: who may call, and which command goes where.

use crate::command::{Arguments, Refusal};
use crate::microtpm;
use crate::registration::Terms;
use crate::{registration, state};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Poll;
use runtime::hypapp::HypercallAnswer;
use runtime::services::{self, compartment, pages, private};
use runtime::vcpu::{CodeSize, Vcpu};
use trustvisor::command::Command;
use trustvisor::flags;
use trustvisor::status::Status;

/// Answers VMCALL. Every number has an answer, from wherever it comes.
#[expect(clippy::cast_possible_truncation, reason = "the command is in EAX")]
pub(crate) fn answer(vcpu: &mut dyn Vcpu) -> HypercallAnswer {
    let eax = vcpu.registers().rax() as u32;
    let Some(command) = Command::of(eax, services::is_nested(), compartment::is_inside()) else {
        return HypercallAnswer::Chain;
    };
    let _open = private::open();
    let result = if command.is_of_pals() {
        match of_pal(vcpu, command) {
            Poll::Ready(result) => result,
            Poll::Pending => return HypercallAnswer::Moved,
        }
    } else {
        // The process gives the command again, and its CPU takes interrupts in between.
        let Some(_admission) = Admission::take() else { return HypercallAnswer::Moved };
        match carry_out(vcpu, command) {
            Ok(()) => Ok(()),
            Err(Refusal::Status(_)) if pages::ask_hypervisor() => return HypercallAnswer::Moved,
            Err(Refusal::Status(status)) => Err(status),
            Err(Refusal::Again) => return HypercallAnswer::Moved,
        }
    };
    let status = result.err().unwrap_or(Status::SUCCESS);
    vcpu.registers_mut().set_rax(u64::from(status.0));
    HypercallAnswer::Handled
}

/// Most commands that are carried out at a time: each takes up to 128 KiB of the heap while it lasts, and what PALs
/// leave of that is for few.
const ADMISSIONS: usize = 4;

static ADMITTED: AtomicUsize = AtomicUsize::new(0);

/// The right to carry out a command, until it is dropped.
struct Admission;

impl Admission {
    fn take() -> Option<Self> {
        let more = |admitted| (admitted < ADMISSIONS).then_some(admitted + 1);
        ADMITTED.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        ADMITTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A command that only PALs have.
fn of_pal(vcpu: &mut dyn Vcpu, command: Command) -> Poll<Result<(), Status>> {
    let Some(word) = state::word_size(vcpu).filter(|_| compartment::is_inside()) else {
        return Poll::Ready(Err(Status::NOT_IN_PAL));
    };
    let arguments = Arguments::of(vcpu, word);
    if command == Command::LOG {
        return Poll::Ready(microtpm::print(vcpu, &arguments));
    }
    microtpm::answer(vcpu, command, &arguments)
}

fn carry_out(vcpu: &mut dyn Vcpu, command: Command) -> Result<(), Refusal> {
    let registers = *vcpu.registers();
    if command == Command::TEST {
        if vcpu.code_size() == CodeSize::Bits64 {
            log::info!("test hypercall, rcx={:#018x}", registers.rcx());
        } else {
            log::info!("test hypercall, ecx={:#010x}", registers.ecx());
        }
        return Ok(());
    }
    if command == Command::ADMIT {
        return Ok(admit(vcpu)?);
    }
    let word = state::word_size(vcpu).ok_or(Status::NOT_A_PROCESS)?;
    let arguments = Arguments::of(vcpu, word);
    let is_inside = compartment::is_inside();
    match command {
        Command::REGISTER
        | Command::REGISTER_WITH_FLAGS
        | Command::REGISTER_SIGNED
        | Command::UNREGISTER
        | Command::ABORT
        | Command::SHARE
            if is_inside =>
        {
            Err(Status::IN_PAL.into())
        }
        Command::REGISTER => registration::register(vcpu, &arguments, Terms::Flags(flags::ORIGINAL.into())),
        Command::REGISTER_WITH_FLAGS => registration::register(vcpu, &arguments, Terms::Flags(arguments.edx)),
        Command::REGISTER_SIGNED => {
            registration::register(vcpu, &arguments, Terms::SignedHeader(arguments.edx))
        }
        Command::ABORT => Ok(registration::abort(vcpu, &arguments)?),
        Command::UNREGISTER => registration::unregister(vcpu, &arguments),
        Command::SHARE => registration::share(vcpu, &arguments),
        _ => Err(Status::UNKNOWN_COMMAND.into()),
    }
}

/// Takes ring 0's word on who may register.
fn admit(vcpu: &dyn Vcpu) -> Result<(), Status> {
    if vcpu.cpl() != 0 || compartment::is_inside() {
        return Err(Status::NOT_ADMITTED);
    }
    let registers = vcpu.registers();
    state::ADMISSIONS.lock().say(u64::from(registers.ecx()), registers.rdx())
}
