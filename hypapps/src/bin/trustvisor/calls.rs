//! Calls of PALs: in by a fetch from the entry, out by the return address that nothing is mapped at.

use crate::memory::{Caller as Process, Machine};
use crate::revocation;
use crate::state::{self, Belongings, Caller, Pal, Running};
use alloc::sync::Arc;
use pals::layout::{Layout, PAGE};
use pals::machine::Inaccessible;
use pals::marshal::{Arguments, REGISTERS, STEP_BYTES};
use pals::pal::{End, Entry, Inner, Inside, Refusal, State};
use runtime::exit::{CompartmentExit, SecondLevelViolation};
use runtime::hypapp::ViolationAnswer;
use runtime::memory::guest::canonical::is_canonical;
use runtime::services::compartment::{self, Page, Roots};
use runtime::services::pages;
use runtime::vcpu::{Registers, Vcpu};
use trustvisor::call::{Failure, FaultKind, SENTINEL};
use trustvisor::parameter::WordSize;
use x86::address::HostPhysAddr;
use x86::cr::Rflags;
use x86::event::{Event, Vector};
use x86::paging::Rights;

/// RDI, RSI, RDX, RCX, R8, R9.
const PARAMETER_REGISTERS: [usize; REGISTERS] = [7, 6, 2, 1, 8, 9];
const ARITHMETIC: Rflags =
    Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);

/// What a caller learns of a call that failed.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    failure: Failure,
    kind: FaultKind,
    address: u64,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, kind: FaultKind(0), address: 0 }
    }
}

/// A fetch from a PAL's page. From its entry, by its process, it is a call; anything else is a fault of the guest's.
pub(crate) fn enter(vcpu: &mut dyn Vcpu, violation: SecondLevelViolation, pal: &Arc<Pal>) -> ViolationAnswer {
    let entry = violation.gla.map(|address| address.get());
    let is_entry = entry == Some(pal.key.entry)
        && state::key_at(vcpu, vcpu.rip(), violation.gpa.page().get()) == pal.key
        && state::word_size(vcpu).is_some();
    if !is_entry {
        let state = pal.lock().state;
        if matches!(state, State::Ending(_)) {
            revocation::go_on(pal);
            return ViolationAnswer::Resume;
        }
        // Of a PAL that was revoked only the entry is left, and its page is somebody else's by now.
        let is_gone = state == State::InTransit || revocation::forget(pal);
        return if is_gone { ViolationAnswer::Resume } else { ViolationAnswer::Chain };
    }
    match begin(vcpu, pal) {
        Ok(()) | Err(Refusal::Retry) => {}
        Err(Refusal::Failure(failure)) => refuse(vcpu, failure),
    }
    ViolationAnswer::Resume
}

/// The PAL on this CPU left its compartment.
pub(crate) fn compartment_exit(vcpu: &mut dyn Vcpu, exit: CompartmentExit) {
    let cpu = vcpu.index();
    let taken = state::running(cpu).and_then(|running| running.lock().take());
    let Some(running) = taken else { return };
    // Asked before the exit counts for anything: another CPU may have revoked the PAL since it was entered.
    if running.pal.lock().state != State::Running(cpu) {
        return fail(vcpu, &running, Failure::REVOKED.into());
    }
    match exit {
        CompartmentExit::Exception(Event::PageFault { address: SENTINEL, .. }) if vcpu.rip() == SENTINEL => {
            finish(vcpu, &running);
        }
        CompartmentExit::TimeOver => suspend(vcpu, &running),
        CompartmentExit::Called => keep(cpu, running),
        CompartmentExit::Exception(event) => fault(vcpu, &running, event),
        CompartmentExit::Violation(violation) => {
            let address = violation.gla.map_or(0, |address| address.get());
            end(vcpu, &running, FaultKind(u32::from(Vector::PF.0)), address);
        }
        CompartmentExit::Forbidden => {
            let rip = vcpu.rip();
            end(vcpu, &running, FaultKind::FORBIDDEN_INSTRUCTION, rip);
        }
        // It ends the caller's processor.
        CompartmentExit::Init => {
            running.pal.lock().begin_end(End::Faulted);
            compartment::leave();
            revocation::go_on(&running.pal);
        }
    }
}

fn begin(vcpu: &mut dyn Vcpu, pal: &Arc<Pal>) -> Result<(), Refusal> {
    let failure = |failure| Err(Refusal::Failure(failure));
    let (rsp, rflags, registers) = (vcpu.rsp(), vcpu.rflags(), *vcpu.registers());
    let word = state::word_size(vcpu);
    if !pal.lock().layout.shared.is_empty() {
        // It may be a revoked PAL's page that is in the way.
        refresh(vcpu, pal)
            .map_err(|failure| if revocation::forget_one() { Refusal::Retry } else { refusal(failure) })?;
    }
    if matches!(pal.lock().state, State::Ending(_)) {
        revocation::go_on(pal);
        return Err(Refusal::Retry);
    }
    let mut inner = pal.lock();
    if word != Some(inner.layout.word) || state::mode(vcpu) != inner.belongings.mode {
        return failure(Failure::BAD_MODE);
    }
    if !rflags.contains(Rflags::IF) {
        return failure(Failure::INTERRUPTS_OFF);
    }
    let word = inner.layout.word;
    let rsp = word.truncate(rsp);
    let inside = match inner.enter(vcpu.index(), rsp)? {
        Entry::Resumed(inside) => {
            let again = Arguments::read(&Process::of(vcpu), &inner.layout, &registers_of(&registers), rsp);
            if again.as_ref() != Ok(&inner.arguments) {
                // Another call from the same place: the earlier one was left, and its result is not this one's.
                inner.suspend(rsp, inside);
                return match again {
                    Ok(_) => failure(Failure::BUSY),
                    Err(Inaccessible) => Err(refusal(Failure::BAD_STACK)),
                };
            }
            inside
        }
        Entry::Fresh(carried) => {
            let arguments = registers_of(&registers);
            match pass_in(&Process::of(vcpu), &mut inner, &arguments, rsp, carried) {
                Ok(_) if !is_canonical(inner.arguments.return_address, vcpu.cr4()) => {
                    inner.finish();
                    return failure(Failure::BAD_STACK);
                }
                Ok(Some(inside)) => inside,
                Ok(None) => return Err(Refusal::Retry),
                Err(failure) => {
                    inner.finish();
                    return Err(refusal(failure));
                }
            }
        }
    };
    let Ok(roots) = prepare(&inner.layout, inner.serial, inner.belongings.mode) else {
        // The registration reserved what this needs.
        inner.finish();
        return failure(Failure::BUSY);
    };
    let return_address = inner.arguments.return_address;
    // The PAL runs unlocked, so that another CPU can look at it and revoke it.
    drop(inner);
    compartment::enter(&roots, state::ticks());
    // What `enter` leaves to its caller. The process's own were read above.
    vcpu.set_rip(inside.rip);
    vcpu.set_rsp(inside.rsp);
    vcpu.set_rflags(vcpu.rflags() | Rflags::from_bits_retain(inside.rflags) & ARITHMETIC.union(Rflags::DF));
    *vcpu.registers_mut() = Registers(inside.general);
    let caller = Caller { registers, rsp, rflags, return_address, word };
    keep(vcpu.index(), Running { pal: pal.clone(), caller });
    Ok(())
}

/// Moves the PAL's shared pages to where its process has them by now.
fn refresh(vcpu: &dyn Vcpu, pal: &Arc<Pal>) -> Result<(), Failure> {
    let now = pal.lock().shared_now(&Process::of(vcpu), &Machine)?;
    now.map_or(Ok(()), |pages| state::REGISTRY.lock().settle(pal, &pages))
}

/// Returns what becomes of a call that lacks memory of its process: where a hypervisor of the process's can help, it
/// comes again.
fn refusal(failure: Failure) -> Refusal {
    if pages::ask_hypervisor() { Refusal::Retry } else { Refusal::Failure(failure) }
}

/// Passes a step of a call's parameters, from the byte `carried` of them on, and keeps what was passed; `None` where
/// there are more.
fn pass_in(
    process: &Process,
    inner: &mut Inner<Belongings>,
    registers: &[u64; REGISTERS],
    rsp: u64,
    carried: u64,
) -> Result<Option<Inside>, Failure> {
    let arguments = Arguments::read(process, &inner.layout, registers, rsp);
    let arguments = arguments.map_err(|Inaccessible| Failure::BAD_STACK)?;
    // Another call from the same place begins afresh: the earlier one was left.
    let carried = if arguments == inner.arguments { carried } else { 0 };
    let Some(start) = arguments.carry_in(process, &Machine, &inner.layout, carried)? else {
        inner.put_in(rsp, arguments, carried + STEP_BYTES);
        return Ok(None);
    };
    inner.arguments = arguments;
    inner.carried = 0;
    let mut general = [0; 16];
    for (register, value) in PARAMETER_REGISTERS.into_iter().zip(start.registers) {
        general[register] = value;
    }
    Ok(Some(Inside { general, rip: inner.layout.entry, rsp: start.stack_pointer, rflags: 0 }))
}

fn registers_of(registers: &Registers) -> [u64; REGISTERS] {
    PARAMETER_REGISTERS.map(|register| registers.0[register])
}

fn prepare(layout: &Layout, serial: u64, mode: compartment::Mode) -> Result<Roots, Inaccessible> {
    let pages = || {
        layout.all_sections().flat_map(|section| {
            let rights = if section.kind.is_writable() { Rights::WRITE } else { Rights::EXECUTE };
            let linear = (0..).map(|index| section.start + index * PAGE);
            let frames = section.pages.iter().map(|&page| HostPhysAddr::new(page));
            linear.zip(frames).map(move |(linear, frame)| Page { linear, frame, rights })
        })
    };
    compartment::prepare(serial, mode, pages).map_err(|_| Inaccessible)
}

fn keep(cpu: usize, call: Running) {
    if let Some(running) = state::running(cpu) {
        *running.lock() = Some(call);
    }
}

/// The PAL returned.
fn finish(vcpu: &mut dyn Vcpu, running: &Running) {
    let result = running.caller.word.truncate(vcpu.registers().rax());
    // Before results are carried out: the process's memory is found by its own control registers, which come back
    // here.
    compartment::leave();
    let process = Process::of(vcpu);
    let copied = {
        let mut inner = running.pal.lock();
        let copied = inner.arguments.carry_out(&process, &Machine, &inner.layout, inner.carried);
        let has_more = copied == Ok(false);
        if has_more {
            inner.carried += STEP_BYTES;
        }
        if has_more || copied.is_err() && pages::ask_hypervisor() {
            drop(inner);
            // The call goes on with this return.
            return put_aside(vcpu, running);
        }
        inner.finish();
        copied
    };
    let outcome = copied.map(|_| result).map_err(Trouble::from);
    return_to(vcpu, &running.caller, outcome);
}

/// The PAL's time is over: the guest sees its caller stand at the entry, about to call.
fn suspend(vcpu: &mut dyn Vcpu, running: &Running) {
    compartment::leave();
    put_aside(vcpu, running);
}

fn put_aside(vcpu: &mut dyn Vcpu, running: &Running) {
    // Leaving the compartment has left these as the PAL had them: they are read before the caller's take their place.
    let inside = Inside {
        general: vcpu.registers().0,
        rip: vcpu.rip(),
        rsp: vcpu.rsp(),
        rflags: vcpu.rflags().bits(),
    };
    running.pal.lock().suspend(running.caller.rsp, inside);
    *vcpu.registers_mut() = running.caller.registers;
    vcpu.set_rip(running.pal.key.entry);
    vcpu.set_rsp(running.caller.rsp);
    vcpu.set_rflags(running.caller.rflags);
}

fn fault(vcpu: &mut dyn Vcpu, running: &Running, event: Event) {
    let rip = vcpu.rip();
    match event {
        Event::PageFault { address, .. } => end(vcpu, running, FaultKind(u32::from(Vector::PF.0)), address),
        Event::Exception { vector, .. } => {
            end(vcpu, running, FaultKind(u32::from(vector.0)), rip);
            if vector == Vector::MC {
                // The machine's, not the PAL's.
                vcpu.inject(event);
            }
        }
        Event::Nmi => end(vcpu, running, FaultKind(2), rip),
    }
}

fn end(vcpu: &mut dyn Vcpu, running: &Running, kind: FaultKind, address: u64) {
    // Before the caller goes on: another thread of its process may call the PAL at once.
    running.pal.lock().begin_end(End::Faulted);
    log::debug!("pal={} ends: kind={:#x} address={address:#x}", running.pal.number, kind.0);
    fail(vcpu, running, Trouble { failure: Failure::FAULTED, kind, address });
    // The rest of a large one when somebody meets it; until then nobody can read it.
    revocation::go_on(&running.pal);
}

fn fail(vcpu: &mut dyn Vcpu, running: &Running, trouble: Trouble) {
    compartment::leave();
    return_to(vcpu, &running.caller, Err(trouble));
}

/// A call that does not begin returns at once; where its return address cannot be read, or none can return to it,
/// that is the caller's fault.
fn refuse(vcpu: &mut dyn Vcpu, failure: Failure) {
    let Some(word) = state::word_size(vcpu) else { return };
    let rsp = word.truncate(vcpu.rsp());
    let mut bytes = [0; 8];
    let size = if word == WordSize::Bits64 { 8 } else { 4 };
    if let Err(event) = Process::of(vcpu).try_read(rsp, &mut bytes[..size]) {
        if !pages::ask_hypervisor() {
            vcpu.inject(event);
        }
        return;
    }
    let return_address = u64::from_le_bytes(bytes);
    if !is_canonical(return_address, vcpu.cr4()) {
        return vcpu.inject(Event::GP0);
    }
    let caller = Caller { registers: *vcpu.registers(), rsp, rflags: vcpu.rflags(), return_address, word };
    return_to(vcpu, &caller, Err(failure.into()));
}

/// Goes on behind the call, as the calling convention has it.
fn return_to(vcpu: &mut dyn Vcpu, caller: &Caller, outcome: Result<u64, Trouble>) {
    let mut registers = caller.registers;
    let mut rflags = caller.rflags - ARITHMETIC - Rflags::RF;
    if caller.word == WordSize::Bits64 {
        for scratch in PARAMETER_REGISTERS.into_iter().chain([10, 11]) {
            registers.0[scratch] = 0;
        }
    }
    let (rax, rdx, rcx) = match outcome {
        Ok(result) => (result, 0, 0),
        Err(trouble) => {
            rflags |= Rflags::CF;
            (u64::from(trouble.failure.0), u64::from(trouble.kind.0), trouble.address)
        }
    };
    registers.set_rax(rax);
    registers.set_rdx(rdx);
    registers.set_rcx(rcx);
    *vcpu.registers_mut() = registers;
    vcpu.set_rflags(rflags);
    vcpu.set_rip(caller.return_address);
    vcpu.set_rsp(caller.word.truncate(caller.rsp + caller.word.bytes()));
    vcpu.end_user_call(caller.word.bytes());
}
