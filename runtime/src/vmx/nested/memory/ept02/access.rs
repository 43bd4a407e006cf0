//! An access of L2 that its tables did not allow.

use super::cache::Ept02;
use crate::memory::guest::GuestMemory;
use crate::memory::policy::{Policy, Run};
use crate::vmx::nested::memory::ept12::{Ept12, Fault, LINE, PageModificationLog, Translation};
use hw::PhysMemory;
use x86::address::GuestPhysAddr;
use x86::paging::PAGE_SIZE;
use x86::paging::{PageSize, Rights};
use x86::vmx::ept_entry::{EptEntry, EptFeatures};
use x86::vmx::exit_qualification::EptViolationQualification;

/// An access of L2 that its tables did not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) struct Access {
    /// Guest-physical address in L2.
    pub(in crate::vmx) gpa: GuestPhysAddr,
    /// The hardware's exit qualification, of which the bits that say what the access was are kept for L1.
    pub(in crate::vmx) qualification: u64,
}

/// What became of an access of L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vmx) enum Outcome {
    /// The tables allow it now, or the next try finds out: L2 goes on.
    Mapped,
    /// L1's tables forbid it: an EPT violation for L1, with this exit qualification.
    Violation {
        /// For VMCS12: the bits of the access from the hardware, those of the rights from L1's tables.
        qualification: u64,
    },
    /// L1's tables hold a misconfigured entry: an EPT misconfiguration for L1.
    Misconfiguration,
    /// L1's page-modification log is full: that exit for L1, with this exit qualification.
    LogFull {
        /// Blocking by NMI, as the hardware says it.
        qualification: u64,
    },
    /// L1's tables allow it, the hypervisor's do not: a violation at this address of L1's memory.
    Ept01(GuestPhysAddr),
    /// No frame is free. The caller reclaims some, and L2 goes on, to fault again.
    Exhausted,
}

/// The cache and the policy, both of which all CPUs share.
pub(super) trait Shared {
    /// Where tables lie.
    type Memory: PhysMemory;

    /// Runs `act` with both locked.
    fn with<T>(&self, act: impl FnOnce(&Policy, &mut Ept02<Self::Memory>) -> T) -> T;
}

impl Access {
    /// Serves the access, by CPU `cpu`, under L1's tables `ept12`.
    pub(super) fn serve<S: Shared, G: GuestMemory + ?Sized>(
        self,
        shared: &S,
        cpu: usize,
        ept12: &Ept12<'_, G>,
        log: Option<&mut PageModificationLog>,
    ) -> Outcome {
        // Before the walk, and with no lock held during it: reads of L1's memory ask the policy themselves, and what
        // L1 drops meanwhile is noticed afterwards.
        let generation = shared.with(|_, cache| cache.generation());
        let mut translation = Translation::EMPTY;
        if let Err(fault) = ept12.translate(self.gpa, self.rights(), log, &mut translation) {
            return self.answer(shared, cpu, fault);
        }
        shared.with(|policy, cache| {
            if cache.generation() != generation {
                // What was read may be what L1 has had dropped since.
                return Outcome::Mapped;
            }
            self.fill(policy, cache, cpu, &translation, ept12.features)
        })
    }

    /// Rights that the access needs.
    fn rights(self) -> Rights {
        let facts = EptViolationQualification(self.qualification);
        let mut rights = Rights::empty();
        rights.set(Rights::READ, facts.is_read());
        rights.set(Rights::WRITE, facts.is_write());
        rights.set(Rights::EXECUTE, facts.is_fetch());
        rights
    }

    fn answer<S: Shared>(self, shared: &S, cpu: usize, fault: Fault) -> Outcome {
        match fault {
            Fault::Changed => Outcome::Mapped,
            Fault::Misconfiguration => Outcome::Misconfiguration,
            Fault::LogFull => Outcome::LogFull {
                qualification: self.qualification & EptViolationQualification::NMI_UNBLOCKING,
            },
            Fault::Violation(rights) => {
                shared.with(|_, cache| cache.violate(cpu, self.gpa));
                // Advanced VM-exit information is not offered.
                let facts = EptViolationQualification(self.qualification).without_advanced();
                Outcome::Violation { qualification: facts.with_allowed(rights).0 }
            }
        }
    }

    fn fill<M: PhysMemory>(
        self,
        policy: &Policy,
        cache: &mut Ept02<M>,
        cpu: usize,
        translation: &Translation,
        features: &EptFeatures,
    ) -> Outcome {
        let Some((view, root)) = cache.fill(cpu) else { return Outcome::Mapped };
        let at = self.gpa.get();
        let target = translation.page().get() + (at & (translation.size().bytes() - 1));
        let run = policy.run_at(view, target);
        let Some(attributes) = run.attributes.filter(|a| a.rights.contains(self.rights())) else {
            return Outcome::Ept01(GuestPhysAddr::new(target));
        };
        let is_small = translation.size() == PageSize::Size4K;
        // The decoy is a single frame and stands in for no larger page.
        let limit = if attributes.is_decoy { PageSize::Size4K } else { cache.largest_page() };
        let size = largest(run, target, translation.size().min(limit));
        let page = target & !(size.bytes() - 1);
        let tables = cache.tables();
        let Ok(table) = tables.table_for(root, at, size) else { return Outcome::Exhausted };
        if is_small && !attributes.is_decoy {
            let leaves = line(translation, &run, attributes.rights, features);
            let noted = leaves.pages.unwrap_or((page, page));
            tables.note_pages(table, noted.0, noted.1 + PAGE_SIZE);
            tables.set_line(table, at & !(LINE as u64 * PAGE_SIZE - 1), &leaves.entries);
        } else {
            let frame = if attributes.is_decoy { policy.decoy().get() } else { page };
            let rights = translation.rights() & attributes.rights;
            tables.set(table, at, size, translation.leaf().leaf(frame, size, rights), page);
        }
        Outcome::Mapped
    }
}

/// A line of entries to be filled.
struct Leaves {
    entries: [Option<EptEntry>; LINE],
    /// First and last page that they map.
    pages: Option<(u64, u64)>,
}

/// Returns what L1's line of entries gives for a page and those beside it, as far as they are of `run`: one fault then
/// serves several pages.
fn line(translation: &Translation, run: &Run, given: Rights, features: &EptFeatures) -> Leaves {
    let mut leaves = Leaves { entries: [None; LINE], pages: None };
    for (position, leaf) in leaves.entries.iter_mut().enumerate() {
        let Some((entry, rights)) = translation.neighbour(position, features) else { continue };
        let (page, rights) = (entry.address(PageSize::Size4K), rights & given);
        if page < run.range.start() || page >= run.range.end() || rights.is_empty() {
            continue;
        }
        *leaf = Some(entry.leaf(page, PageSize::Size4K, rights));
        let (first, last) = leaves.pages.unwrap_or((page, page));
        leaves.pages = Some((first.min(page), last.max(page)));
    }
    leaves
}

/// Returns the largest size, not above `limit`, of pages that around `target` lie wholly in `run`.
fn largest(run: Run, target: u64, limit: PageSize) -> PageSize {
    let fits = |size: &PageSize| {
        let start = target & !(size.bytes() - 1);
        *size <= limit && run.range.start() <= start && start + size.bytes() <= run.range.end()
    };
    PageSize::DESCENDING.into_iter().find(fits).unwrap_or(PageSize::Size4K)
}
