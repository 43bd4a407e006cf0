//! This machine's one cache of L1's tables.
//!
//! Locks are taken in one order: the policy, then the cache. Nobody waits for other CPUs with either held.
//!
//! UNSAFETY: part of the pool becomes the lists of its frames and roots.
#![expect(unsafe_code, reason = "frames become lists")]

use super::access::{Access, Outcome, Shared};
use super::cache::{Ept02, Named, Root};
use super::pool::Frame;
use super::tables::Exhausted;
use crate::features::features;
use crate::machine::{self, RegionMemory, SECOND_LEVEL};
use crate::memory::guest::{GuestMemory, Refused};
use crate::memory::guest_physical::GuestPhysical;
use crate::memory::policy::Policy;
use crate::memory::range::GuestRange;
use crate::smp::cpus;
use crate::smp::percpu::{self, PerCpu};
use crate::smp::shootdown;
use crate::vmx::invalidate;
use crate::vmx::nested::memory::ept12::{Ept12, PageModificationLog, Translation};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hw::Msrs;
use hw::bare::Processor;
use platform::handoff::PhysRange;
use spin::{Mutex, Once};
use static_assertions::{assert_eq_align, const_assert};
use x86::address::{GuestPhysAddr, HostPhysAddr};
use x86::msr::Msr;
use x86::paging::{ENTRIES, PAGE_BYTES, PageSize, Rights};
use x86::vmx::capability::EptVpidCapability;
use x86::vmx::ept::EptPointer;
use x86::vmx::ept_entry::EptFeatures;

/// Frames that one CPU's L2 needs at least, to make progress whatever the others do.
const FRAMES_PER_CPU: usize = 8;

/// Words for each frame, by which pages are told that no table maps: a bit for each of its entries.
const FILTER_WORDS: usize = ENTRIES / 64;

static CACHE: Once<Cache> = Once::new();
/// Changes of what addresses in L1's memory mean, so far.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Some CPU may have translations of ours, or addresses that we translated.
static IS_USED: AtomicBool = AtomicBool::new(false);

struct Cache {
    ept02: Mutex<Ept02<RegionMemory>>,
    features: EptFeatures,
}

struct Locked;

impl Shared for Locked {
    type Memory = RegionMemory;

    fn with<T>(&self, act: impl FnOnce(&Policy, &mut Ept02<RegionMemory>) -> T) -> T {
        let second_level = SECOND_LEVEL.lock();
        act(second_level.policy(), &mut cache().ept02.lock())
    }
}

/// Makes the cache, of `roots` roots, in `memory`, which is part of the hypervisor region and page-aligned.
pub(in crate::vmx) fn start(memory: PhysRange, roots: usize) {
    let capability = Processor.read(Msr::IA32_VMX_EPT_VPID_CAP).unwrap_or_default();
    let capability = EptVpidCapability::from_bits_retain(capability);
    let features = EptFeatures {
        has_execute_only: capability.contains(EptVpidCapability::EXECUTE_ONLY),
        has_2mib_pages: capability.contains(EptVpidCapability::PAGES_2M),
        has_1gib_pages: capability.contains(EptVpidCapability::PAGES_1G),
        physical_address_bits: features().physical_address_bits,
    };
    let largest_page = match (features.has_1gib_pages, features.has_2mib_pages) {
        (true, _) => PageSize::Size1G,
        (false, true) => PageSize::Size2M,
        (false, false) => PageSize::Size4K,
    };
    let cpus = cpus::all().len();
    let roots = roots.clamp(cpus + 1, usize::from(u16::MAX) - 1);
    let bytes = usize::try_from(memory.length).unwrap_or(0);
    let bytes_per_frame = PAGE_BYTES + size_of::<Frame>() + FILTER_WORDS * size_of::<u64>();
    let frames = bytes.saturating_sub(roots * size_of::<Root>()) / bytes_per_frame;
    assert!(frames >= FRAMES_PER_CPU * (cpus + 1), "the nested pool is too small for {cpus} CPUs");
    // SAFETY: the lists and the tables behind them lie in the memory that the caller gave, apart.
    let (root_list, frame_list, words) = unsafe { lists(memory, roots, frames) };
    let tables = HostPhysAddr::new(memory.base + memory.length - (frames * PAGE_BYTES) as u64);
    let ept02 = Ept02::new(RegionMemory, tables, frame_list, root_list, words, largest_page);
    CACHE.call_once(|| Cache { ept02: Mutex::new(ept02), features });
    log::debug!("ept02 frames={frames} roots={roots}");
}

/// # Safety
///
/// The memory is the caller's, for good, and holds `roots` roots, behind them `frames` frames' records, and behind these
/// [`FILTER_WORDS`] words for each frame.
unsafe fn lists(
    memory: PhysRange,
    roots: usize,
    frames: usize,
) -> (&'static mut [Root], &'static mut [Frame], &'static mut [u64]) {
    let words = frames * FILTER_WORDS;
    let bytes = roots * size_of::<Root>() + frames * size_of::<Frame>() + words * size_of::<u64>();
    let start = machine::region().virt(HostPhysAddr::new(memory.base), bytes);
    let root_list = start.cast::<Root>();
    for index in 0..roots {
        // SAFETY: inside the memory, which is page-aligned.
        let place = unsafe { root_list.add(index) };
        // SAFETY: as above.
        unsafe { place.write(Root::EMPTY) };
    }
    // SAFETY: right behind the roots, whose size is a multiple of eight bytes.
    let frame_list = unsafe { root_list.add(roots) }.cast::<Frame>();
    for index in 0..frames {
        // SAFETY: inside the memory.
        let place = unsafe { frame_list.add(index) };
        // SAFETY: as above.
        unsafe { place.write(Frame::NEW) };
    }
    // SAFETY: right behind the frames' records, whose size is a multiple of eight bytes.
    let filter = unsafe { frame_list.add(frames) }.cast::<u64>();
    // SAFETY: inside the memory; any value is a word.
    unsafe { filter.write_bytes(0, words) };
    // SAFETY: all written, used by nobody else.
    let root_list = unsafe { core::slice::from_raw_parts_mut(root_list, roots) };
    // SAFETY: as above.
    let frame_list = unsafe { core::slice::from_raw_parts_mut(frame_list, frames) };
    // SAFETY: as above.
    (root_list, frame_list, unsafe { core::slice::from_raw_parts_mut(filter, words) })
}

const_assert!(size_of::<Root>().is_multiple_of(8));
assert_eq_align!(Root, Frame, u64);

/// There is a cache: L1 can have EPT of its own.
pub(in crate::vmx) fn is_ready() -> bool {
    CACHE.is_completed()
}

/// Returns the EPT pointer for this CPU to run L2 with, under L1's `pointer`; to be asked for at each entry of L2, as
/// other CPUs and hypapps change what it is.
pub(in crate::vmx) fn enter(cpu: &PerCpu, pointer: EptPointer) -> EptPointer {
    // Before the policy is first asked for a page to fill: `forget_changes` relies on it.
    IS_USED.store(true, Ordering::Relaxed);
    loop {
        let entered = cache().ept02.lock().enter(cpu.index, pointer, cpu.view());
        match entered {
            Ok(pointer) => return pointer,
            // The lock is free again by now: `reclaim` waits for CPUs that may themselves wait for it.
            Err(Exhausted) => reclaim(),
        }
    }
}

/// Serves an access of this CPU's L2 that its tables did not allow.
pub(in crate::vmx) fn serve(
    cpu: &PerCpu,
    pointer: EptPointer,
    access: Access,
    log: Option<&mut PageModificationLog>,
) -> Outcome {
    let memory = TableMemory { run: Cell::new(None) };
    let ept12 = Ept12 { memory: &memory, pointer, features: &cache().features };
    match access.serve(&Locked, cpu.index, &ept12, log) {
        Outcome::Exhausted => {
            reclaim();
            Outcome::Mapped
        }
        outcome => outcome,
    }
}

/// Returns where `gpa` of L2's memory under L1's `pointer` is in L1's, where L1's tables allow `access`; for what the
/// hypervisor does in L2's stead. A dirty flag that it sets for the first time is logged in `log`; without room there,
/// nothing is allowed.
pub(in crate::vmx) fn translate_l2(
    pointer: EptPointer,
    gpa: GuestPhysAddr,
    access: Rights,
    log: Option<&mut PageModificationLog>,
) -> Option<GuestPhysAddr> {
    let ept12 = Ept12 { memory: &GuestPhysical, pointer, features: &cache().features };
    let mut found = Translation::EMPTY;
    ept12.translate(gpa, access, log, &mut found).ok()?;
    let offset = gpa.get() & (found.size().bytes() - 1);
    Some(GuestPhysAddr::new(found.page().get() + offset))
}

/// L1's memory for one walk of its tables, which mostly lie in one run of the policy: that is asked once. What
/// changes meanwhile is not complete before this CPU has left the hypervisor.
struct TableMemory {
    /// Readable pages.
    run: Cell<Option<GuestRange>>,
}

impl GuestMemory for TableMemory {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        GuestPhysical.read(gpa, bytes)
    }

    fn write(&self, gpa: GuestPhysAddr, bytes: &[u8]) -> Result<(), Refused> {
        GuestPhysical.write(gpa, bytes)
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        let page = GuestRange::page(gpa);
        if self.run.get().is_none_or(|run| !run.contains(page)) {
            let run = SECOND_LEVEL.lock().policy().run_at(percpu::current().view(), gpa.get());
            let attributes = run.attributes.ok_or(Refused)?;
            if !attributes.rights.contains(Rights::READ) {
                return Err(Refused);
            }
            if attributes.is_decoy {
                words.fill(0);
                return Ok(());
            }
            self.run.set(Some(run.range));
        }
        GuestPhysical::read_allowed_words(HostPhysAddr::new(gpa.get()), words)
    }

    fn compare_exchange(&self, gpa: GuestPhysAddr, current: u64, new: u64) -> Result<bool, Refused> {
        GuestPhysical.compare_exchange(gpa, current, new)
    }

    fn physical_address_bits(&self) -> u8 {
        features().physical_address_bits
    }

    fn has_1gib_pages(&self) -> bool {
        GuestPhysical.has_1gib_pages()
    }
}

/// Carries out L1's INVEPT.
pub(in crate::vmx) fn invalidate(named: Named) {
    cache().ept02.lock().invalidate(named, |pointer| {
        // SAFETY: in VMX root operation, while an exit is handled; a pointer that entries of L2 use.
        if unsafe { hw::bare::vmx::invept_single(pointer.0) }.is_err() {
            invalidate::all_guest_physical();
        }
    });
}

/// This CPU's L1 left VMX operation.
pub(in crate::vmx) fn leave(cpu: &PerCpu) {
    if let Some(cache) = CACHE.get() {
        cache.ept02.lock().leave(cpu.index);
    }
}

/// Returns where `gpa` of L1's memory is in the machine's, as far as L1 has the rights `access` there.
///
/// It holds until [`changes`] has changed.
pub(in crate::vmx) fn translate(gpa: GuestPhysAddr, access: Rights) -> Option<HostPhysAddr> {
    IS_USED.store(true, Ordering::Relaxed);
    let run = SECOND_LEVEL.lock().policy().run_at(percpu::current().view(), gpa.get());
    let attributes =
        run.attributes.filter(|attributes| attributes.rights.contains(access) && !attributes.is_decoy)?;
    (!attributes.rights.is_empty()).then_some(HostPhysAddr::new(gpa.get()))
}

/// Grows when an address that was translated may have to be translated again. Every CPU looks around before
/// its guest goes on then.
pub(in crate::vmx) fn changes() -> u64 {
    CHANGES.load(Ordering::SeqCst)
}

/// Drops what was derived from protections that have changed; tells whether all CPUs must flush.
///
/// They must even where nothing was found: another CPU may have taken the change, and not have flushed yet.
pub(crate) fn forget_changes() -> bool {
    let Some(cache) = CACHE.get() else { return false };
    let mut second_level = SECOND_LEVEL.lock();
    let changes = second_level.take_changes();
    // Set before the policy is asked, which takes the lock: whoever is not seen here has yet to ask.
    let is_used = IS_USED.load(Ordering::Relaxed);
    if is_used {
        cache.ept02.lock().forget(&changes, second_level.policy().decoy());
    }
    // After the policy's change: whoever sees the new count translates by what holds now.
    CHANGES.fetch_add(1, Ordering::SeqCst);
    is_used
}

/// Makes frames free, which takes all CPUs; no lock is held.
fn reclaim() {
    // What is dropped by now is noted before the flush begins: a table that another CPU drops meanwhile may be in use on
    // one that has flushed already, and waits for the next.
    let dropped = cache().ept02.lock().reclaim();
    // With no lock held, as it waits for all CPUs.
    shootdown::shoot_down();
    cache().ept02.lock().flushed(dropped);
}

fn cache() -> &'static Cache {
    match CACHE.get() {
        Some(cache) => cache,
        None => unreachable!("without a cache L1 has no EPT"),
    }
}
