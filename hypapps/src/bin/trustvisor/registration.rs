//! Registration and its end.

use crate::hypercalls::{Arguments, Refusal};
use crate::memory::{Caller, Machine};
use crate::revocation;
use crate::state::{self, Belongings, Pal, REGISTRY};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use pals::layout::{Kind, Layout};
use pals::machine::{Cover, Inaccessible, Pages};
use pals::measurement::Measurement;
use pals::pal::State;
use pals::registry::Conflict;
use pals::sharing::read_shared;
use runtime::services::world;
use runtime::vcpu::Vcpu;
use trustvisor::status::Status;

/// Most pages that are covered at a time.
const BATCH: usize = 128;

/// Registers the PAL that the lists describe. Its pages are claimed first, then covered for all CPUs, and only
/// then looked at: what another CPU does to them or to the page tables meanwhile comes too early or too late.
pub(crate) fn register(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Refusal> {
    match try_register(vcpu, arguments) {
        Err(Refusal::Status(Status::OUT_OF_MEMORY)) if revocation::forget_one() => Err(Refusal::Again),
        result => result,
    }
}

fn try_register(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Refusal> {
    let lists = [arguments.ecx, arguments.esi, arguments.edi];
    let layout = Layout::read(&Caller::of(vcpu), &Machine, arguments.word, lists)?;
    let mode = state::mode(vcpu);
    let frames = world::frames_needed(mode, layout.runs());
    world::reserve(frames).map_err(|_| Status::OUT_OF_MEMORY)?;
    let pal = insert(vcpu, layout, mode)?;
    if cover(&pal, |_, kind| kind.cover()).is_err() {
        give_back(&pal);
        return Err(Status::OUT_OF_MEMORY.into());
    }
    let mut inner = pal.lock();
    inner.belongings.measurement = Some(Measurement::new(&inner.layout, &Machine));
    inner.state = State::Idle;
    Ok(())
}

/// Ends the registration of the PAL with this entry.
pub(crate) fn unregister(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Refusal> {
    let key = state::key(vcpu, arguments.ecx).ok_or(Status::NOT_REGISTERED)?;
    let pal = REGISTRY.lock().find(key).ok_or(Status::NOT_REGISTERED)?;
    {
        let mut inner = pal.lock();
        if inner.state == State::InTransit {
            return Err(Refusal::Again);
        }
        inner.begin_unregister(&Machine)?;
    }
    give_back(&pal);
    Ok(())
}

/// Gives the PAL with this entry more pages, which its process goes on using.
pub(crate) fn share(vcpu: &dyn Vcpu, arguments: &Arguments) -> Result<(), Status> {
    let key = state::key(vcpu, arguments.ecx).ok_or(Status::NOT_REGISTERED)?;
    let pal = REGISTRY.lock().find(key).ok_or(Status::NOT_REGISTERED)?;
    let lists = [arguments.edx, arguments.esi, arguments.edi];
    let more = read_shared(&Caller::of(vcpu), &Machine, arguments.word, lists)?;
    let frames = {
        let inner = pal.lock();
        let runs = more.iter().map(|section| (section.start, section.pages.len() as u64));
        world::frames_needed(inner.belongings.mode, inner.layout.runs().chain(runs))
    };
    world::reserve(frames).map_err(|_| Status::OUT_OF_MEMORY)?;
    for page in more.iter().flat_map(|section| &section.pages) {
        let owner = REGISTRY.lock().find_page(*page);
        if let Some(owner) = owner {
            revocation::forget(&owner);
        }
    }
    REGISTRY.lock().share(&pal, more)
}

/// Gives a PAL's pages back to the guest and forgets it. It is in transit, or has nothing left.
pub(crate) fn give_back(pal: &Arc<Pal>) {
    // Uncovering frees room; at most two pages' worth is kept for it. What does not fit at first fits when its
    // neighbours are open.
    let pages = pal.lock().layout.pages().count();
    for _ in 0..pages {
        if cover(pal, |_, _| Cover::Open).is_ok() {
            break;
        }
    }
    REGISTRY.lock().remove(pal);
}

fn insert(vcpu: &dyn Vcpu, layout: Layout, mode: world::Mode) -> Result<Arc<Pal>, Refusal> {
    let page = layout.entry_page().unwrap_or(0);
    let key = state::key_at(vcpu, layout.entry, page);
    let taken = REGISTRY.lock().insert(key, layout, Belongings { mode, measurement: None });
    match taken {
        Ok(pal) => Ok(pal),
        Err(Conflict::Status(status)) => Err(status.into()),
        Err(Conflict::Stale(old)) => {
            // Another CPU may be at it, and may want this one to leave the hypervisor for that.
            revocation::revoke(&old);
            revocation::forget(&old);
            Err(Refusal::Again)
        }
    }
}

/// Covers a PAL's pages, some at a time: what is copied of them takes no heap, which the process could exhaust.
pub(crate) fn cover(pal: &Pal, how: impl Fn(u64, Kind) -> Cover) -> Result<(), Inaccessible> {
    let mut batch = ArrayVec::<_, BATCH>::new();
    let mut result = Ok(());
    for first in (0..).step_by(BATCH) {
        batch.clear();
        {
            // Copied, so that no lock is held while other CPUs are waited for.
            let inner = pal.lock();
            let listed = inner.layout.pages().filter(|(_, section)| section.kind != Kind::Shared);
            let covers = listed.map(|(page, section)| (page, how(page, section.kind)));
            batch.extend(covers.skip(first).take(BATCH));
        }
        result = Machine.cover(&mut batch.iter().copied()).and(result);
        if !batch.is_full() {
            break;
        }
    }
    result
}
