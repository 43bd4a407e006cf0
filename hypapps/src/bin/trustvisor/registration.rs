//! Registration and its end, in steps: between two of them the process stands at its VMCALL, and its CPU takes
//! interrupts.

use crate::command::{Arguments, Refusal};
use crate::memory::{Caller, Machine};
use crate::revocation::{self, Progress};
use crate::state::{self, ADMISSIONS, Belongings, Pal, REGISTRY};
use alloc::sync::Arc;
use pals::layout::{Layout, STEP_PAGES, Step};
use pals::machine::{Pages, Process, Use};
use pals::measurement::Measurement;
use pals::pal::{Asked, End, Key, State};
use pals::registry::Conflict;
use pals::sharing::read_shared;
use pals::signing::{Signing, read_header};
use runtime::services::compartment;
use runtime::vcpu::Vcpu;
use trustvisor::status::Status;

/// What a PAL is registered with beside its lists, as the process names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Terms {
    /// Its flags.
    Flags(u64),
    /// Address of its signed header, which has them.
    SignedHeader(u64),
}

/// Registers the PAL that the lists describe.
///
/// A page is looked for, claimed and covered in one step: its process cannot lose it meanwhile, as the system that
/// takes it away has to have this CPU forget it first. Only then is it looked at: what another CPU does to it comes too
/// early or too late.
pub(crate) fn register(vcpu: &dyn Vcpu, arguments: &Arguments, terms: Terms) -> Result<(), Refusal> {
    match try_register(vcpu, arguments, terms) {
        Err(Refusal::Status(Status::OUT_OF_MEMORY | Status::QUOTA)) if revocation::forget_one() => {
            Err(Refusal::Again)
        }
        result => result,
    }
}

fn try_register(vcpu: &dyn Vcpu, arguments: &Arguments, terms: Terms) -> Result<(), Refusal> {
    let lists = [arguments.ecx, arguments.esi, arguments.edi];
    let (Terms::Flags(word) | Terms::SignedHeader(word)) = terms;
    let asked = [lists[0], lists[1], lists[2], word];
    let process = Caller::of(vcpu);
    let entry = process.page(arguments.edi, Use::WriteAndExecute);
    if let Ok(page) = entry {
        let found = REGISTRY.lock().find(state::key_at(vcpu, arguments.edi, page));
        if let Some(result) = found.and_then(|pal| go_on(vcpu, &pal, asked)) {
            return result;
        }
    }
    let (layout, signing) = read(&process, arguments, lists, terms)?;
    let page = entry.map_err(|_| Status::SECTION_NOT_MAPPED)?;
    let key = state::key_at(vcpu, arguments.edi, page);
    if !ADMISSIONS.lock().admits(key.address_space) {
        return Err(Status::NOT_ADMITTED.into());
    }
    let pal = insert(vcpu, key, page, layout, signing)?;
    let mut inner = pal.lock();
    inner.state = State::Building(asked);
    if inner.amounts.pages > STEP_PAGES {
        // What was reserved for many is a step's work.
        return Err(Refusal::Again);
    }
    drop(inner);
    step(vcpu, &pal, asked)
}

/// Reads all that the process says of the PAL, once.
fn read(
    process: &Caller,
    arguments: &Arguments,
    lists: [u64; 3],
    terms: Terms,
) -> Result<(Layout, Signing), Status> {
    match terms {
        Terms::Flags(flags) => {
            let flags = u32::try_from(flags).map_err(|_| Status::FLAGS)?;
            Ok((Layout::read(process, arguments.word, flags, lists)?, Signing::none()))
        }
        Terms::SignedHeader(address) => {
            let header = read_header(process, address)?;
            let mut layout = Layout::read(process, arguments.word, header.flags, lists)?;
            layout.is_signed = true;
            let signing = Signing::claimed(header, &layout)?;
            Ok((layout, signing))
        }
    }
}

/// Goes on with what the same arguments began; `None` where that is at an end.
fn go_on(vcpu: &dyn Vcpu, pal: &Arc<Pal>, asked: Asked) -> Option<Result<(), Refusal>> {
    let inner = pal.lock();
    let (state, refused) = (inner.state, inner.belongings.refused);
    drop(inner);
    match (state, refused) {
        (State::Building(earlier), _) if earlier == asked => Some(step(vcpu, pal, asked)),
        (State::Ending(End::Gone), Some((earlier, status))) if earlier == asked => {
            Some(Err(give_up(pal, status)))
        }
        _ => None,
    }
}

fn insert(
    vcpu: &dyn Vcpu,
    key: Key,
    page: u64,
    layout: Layout,
    signing: Signing,
) -> Result<Arc<Pal>, Refusal> {
    let mode = state::mode(vcpu);
    let frames = compartment::frames_needed(mode, layout.runs());
    reserve(frames)?;
    let measurement = Some(Measurement::new(&layout, signing));
    let belongings = Belongings { mode, measurement, refused: None };
    let taken = REGISTRY.lock().insert(key, page, layout, belongings);
    taken.map_err(refusal)
}

/// Makes sure that each CPU can run what needs `frames` frames.
fn reserve(frames: usize) -> Result<(), Refusal> {
    match compartment::reserve(frames) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Again),
        Err(_) => Err(Status::OUT_OF_MEMORY.into()),
    }
}

/// Returns what becomes of a registration with something in its way.
fn refusal(conflict: Conflict<Belongings>) -> Refusal {
    match conflict {
        Conflict::Status(status) => status.into(),
        Conflict::Busy => Refusal::Again,
        Conflict::Stale(old) => {
            // Another CPU may be at it, and may want this one to leave the hypervisor for that.
            revocation::revoke(&old);
            revocation::forget(&old);
            Refusal::Again
        }
    }
}

/// Takes the next pages, or measures a piece, or has the PAL be ready.
fn step(vcpu: &dyn Vcpu, pal: &Arc<Pal>, asked: Asked) -> Result<(), Refusal> {
    let mut inner = pal.lock();
    if inner.state != State::Building(asked) {
        return Err(Refusal::Again);
    }
    let found = match inner.layout.find_next(&Caller::of(vcpu), &Machine) {
        Ok(found) => found,
        Err(status) => {
            drop(inner);
            return Err(refuse(pal, asked, status));
        }
    };
    // The PAL is not locked while pages are taken or measured: whoever meets it meanwhile comes again.
    inner.state = State::InTransit;
    let before = inner.layout.last_taken();
    drop(inner);
    if !found.is_empty() {
        take(pal, asked, &found, before)?;
    } else if !revocation::measure(pal) {
        pal.lock().state = State::Idle;
        return Ok(());
    }
    let mut inner = pal.lock();
    let is_kept = inner.belongings.measurement.as_ref().is_some_and(Measurement::is_kept);
    if found.len() < STEP_PAGES && is_kept {
        inner.state = State::Idle;
        return Ok(());
    }
    inner.state = State::Building(asked);
    Err(Refusal::Again)
}

/// Claims pages, covers them, and keeps what has to be measured of them.
fn take(pal: &Arc<Pal>, asked: Asked, found: &Step, before: Option<u64>) -> Result<(), Refusal> {
    // Claimed before they are covered: no page is covered for two PALs.
    let claimed = REGISTRY.lock().claim(pal, found, before);
    match claimed.map_err(refusal) {
        Ok(()) => {}
        Err(Refusal::Again) => {
            pal.lock().state = State::Building(asked);
            return Err(Refusal::Again);
        }
        Err(Refusal::Status(status)) => return Err(refuse(pal, asked, status)),
    }
    let covered = Machine.cover(&mut found.iter().map(|found| (found.page, found.kind.cover())));
    let mut inner = pal.lock();
    // Claimed they are the PAL's, to be given back with the others.
    inner.layout.take(found);
    if covered.is_err() {
        drop(inner);
        return Err(refuse(pal, asked, Status::OUT_OF_MEMORY));
    }
    // After they are covered, so that what is measured is what the PAL gets.
    if let Some(measurement) = &mut inner.belongings.measurement {
        measurement.keep(found, &Machine);
    }
    Ok(())
}

/// Ends a registration that cannot go on; the process is told when its pages are its own again.
fn refuse(pal: &Arc<Pal>, asked: Asked, status: Status) -> Refusal {
    let mut inner = pal.lock();
    inner.belongings.refused = Some((asked, status));
    inner.begin_end(End::Gone);
    drop(inner);
    give_up(pal, status)
}

fn give_up(pal: &Arc<Pal>, status: Status) -> Refusal {
    match revocation::go_on(pal) {
        Progress::Ended(_) => Refusal::Status(status),
        Progress::More => Refusal::Again,
    }
}

/// Ends the registration of the PAL with this entry.
pub(crate) fn unregister(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Refusal> {
    let key = state::key(vcpu, arguments.ecx).ok_or(Status::NOT_REGISTERED)?;
    let pal = REGISTRY.lock().find(key).ok_or(Status::NOT_REGISTERED)?;
    pal.lock().begin_unregister()?;
    match revocation::go_on(&pal) {
        Progress::Ended(End::Gone) => Ok(()),
        _ => Err(Refusal::Again),
    }
}

/// Gives up the suspended call of the PAL with this entry.
pub(crate) fn abort(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Status> {
    let key = state::key(vcpu, arguments.ecx).ok_or(Status::NOT_REGISTERED)?;
    let pal = REGISTRY.lock().find(key).ok_or(Status::NOT_REGISTERED)?;
    pal.lock().abort()
}

/// Gives the PAL with this entry more pages, which its process goes on using.
pub(crate) fn share(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Refusal> {
    let key = state::key(vcpu, arguments.ecx).ok_or(Status::NOT_REGISTERED)?;
    let pal = REGISTRY.lock().find(key).ok_or(Status::NOT_REGISTERED)?;
    let lists = [arguments.edx, arguments.esi, arguments.edi];
    let more = read_shared(&Caller::of(vcpu), &Machine, arguments.word, lists)?;
    let frames = {
        let inner = pal.lock();
        let runs = more.iter().map(|section| (section.start, section.count.into()));
        compartment::frames_needed(inner.belongings.mode, inner.layout.runs().chain(runs))
    };
    reserve(frames)?;
    for page in more.iter().flat_map(|section| &section.pages) {
        let owner = REGISTRY.lock().find_page(*page);
        if let Some(owner) = owner {
            revocation::forget(&owner);
        }
    }
    Ok(REGISTRY.lock().share(&pal, more)?)
}
