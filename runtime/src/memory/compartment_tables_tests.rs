//! Compartments as a processor walks them: the guest's page tables over the second-level ones.

use super::{Compartment, FillError, Mode, Page, Roots, TABLES_START, TooSmall, frames_needed};
use crate::memory::TableRoot;
use crate::memory::guest::{Access, GuestMemory, GuestView, Intent, Privilege, Refused};
use crate::memory::plain_format::PlainFormat;
use crate::memory::radix::translate;
use crate::vcpu::fake::FakeVcpu;
use hw::PhysMemory;
use hw::sim::SimMemory;
use proptest::prelude::*;
use x86::address::{GuestLinearAddr, GuestPhysAddr, HostPhysAddr};
use x86::cr::{Cr0, Cr4, Efer};
use x86::paging::{PageSize, Rights};

/// Behind all pages.
const POOL: u64 = 0x10_0000_0000;
const MODES: [Mode; 4] = [Mode::Bits32, Mode::Pae, Mode::Levels4, Mode::Levels5];
const CODE: Rights = Rights::READ.union(Rights::EXECUTE);
const DATA: Rights = Rights::READ.union(Rights::WRITE);

/// A compartment and the memory of the machine, which counts as the guest's through the compartment alone.
struct Fixture {
    memory: SimMemory,
    compartment: Compartment<PlainFormat>,
    roots: Roots,
    mode: Mode,
    next: u64,
}

impl Fixture {
    fn new(mode: Mode, stock: usize) -> Self {
        let memory = SimMemory::new(0);
        let roots = Roots { second_level: TableRoot::new(HostPhysAddr::new(0)), cr3: 0, pdptes: [0; 4] };
        let mut machine = Self { memory, compartment: Compartment::new(), roots, mode, next: POOL };
        machine.grow(stock);
        machine
    }

    fn grow(&mut self, stock: usize) {
        let next = &mut self.next;
        let take = || {
            *next += 4096;
            Ok::<_, TooSmall>(HostPhysAddr::new(*next))
        };
        assert_eq!(self.compartment.grow(&self.memory, stock, take), Ok(()));
    }

    fn fill(&mut self, serial: u64, pages: &[Page]) -> Result<(), FillError> {
        let is_guests = |frame: HostPhysAddr| frame.get() < POOL;
        self.roots =
            self.compartment.fill(&self.memory, serial, self.mode, pages.iter().copied(), is_guests)?;
        Ok(())
    }

    fn vcpu(&self) -> FakeVcpu {
        let mut vcpu = FakeVcpu::long_mode();
        vcpu.cr0 = Cr0::PE | Cr0::PG | Cr0::WP;
        (vcpu.cr4, vcpu.efer) = match self.mode {
            Mode::Bits32 => (Cr4::empty(), Efer::empty()),
            Mode::Pae => (Cr4::PAE, Efer::empty()),
            Mode::Levels4 => (Cr4::PAE, Efer::LMA | Efer::LME),
            Mode::Levels5 => (Cr4::PAE | Cr4::LA57, Efer::LMA | Efer::LME),
        };
        vcpu.cr3 = self.roots.cr3;
        vcpu.pdptes = self.roots.pdptes;
        vcpu
    }

    /// Where an access at CPL 3 goes.
    fn reach(&self, linear: u64, intent: Intent) -> Option<u64> {
        let view = GuestView::new(&self.vcpu(), self);
        let access = Access { intent, privilege: Privilege::User };
        let gpa = view.translate(GuestLinearAddr::new(linear), access).ok()?;
        let (frame, rights) = self.second_level(gpa.get())?;
        let wanted = match intent {
            Intent::Read => Rights::READ,
            Intent::Write => Rights::WRITE,
            Intent::Fetch => Rights::EXECUTE,
        };
        rights.contains(wanted).then_some(frame + linear % 4096)
    }

    fn second_level(&self, gpa: u64) -> Option<(u64, Rights)> {
        let (frame, size, attributes) =
            translate::<PlainFormat>(&self.memory, self.roots.second_level.table(), gpa)?;
        assert_eq!(size, PageSize::Size4K);
        Some((frame.get(), attributes.rights))
    }
}

impl GuestMemory for Fixture {
    fn read(&self, gpa: GuestPhysAddr, bytes: &mut [u8]) -> Result<(), Refused> {
        let (frame, _) = self.second_level(gpa.get()).ok_or(Refused)?;
        self.memory.read(HostPhysAddr::new(frame + gpa.get() % 4096), bytes);
        Ok(())
    }

    fn write(&self, _: GuestPhysAddr, _: &[u8]) -> Result<(), Refused> {
        panic!("a walk has nothing to write")
    }

    fn read_words(&self, gpa: GuestPhysAddr, words: &mut [u64]) -> Result<(), Refused> {
        let (frame, _) = self.second_level(gpa.get()).ok_or(Refused)?;
        let frame = HostPhysAddr::new(frame + gpa.get() % 4096);
        assert_eq!(words.len(), 1, "a walk reads word by word");
        words[0] = self.memory.read_u64(frame);
        Ok(())
    }

    fn compare_exchange(&self, _: GuestPhysAddr, _: u64, _: u64) -> Result<bool, Refused> {
        panic!("accessed and dirty flags are set from the start")
    }

    fn physical_address_bits(&self) -> u8 {
        39
    }

    fn has_1gib_pages(&self) -> bool {
        true
    }
}

fn pages() -> [Page; 4] {
    let page = |linear, frame, rights| Page { linear, frame: HostPhysAddr::new(frame), rights };
    [
        page(0x1000, 0x123_4000, CODE),
        page(0x2000, 0x7_ffff_f000, DATA),
        page(0x40_0000, 0x5000, DATA),
        page(0xbfff_f000, 0x8000, CODE),
    ]
}

fn runs(pages: &[Page]) -> impl Iterator<Item = (u64, u64)> + '_ {
    pages.iter().map(|page| (page.linear, 1))
}

#[test]
fn each_page_is_where_it_was_put_and_nothing_else_is() {
    for mode in MODES {
        let needed = frames_needed(mode, runs(&pages()));
        let mut machine = Fixture::new(mode, needed);
        assert_eq!(machine.fill(1, &pages()), Ok(()), "{mode:?} in {needed} frames");
        for page in pages() {
            let at = page.linear + 0x123;
            let found = Some(page.frame.get() + 0x123);
            assert_eq!(machine.reach(at, Intent::Read), found, "{mode:?}");
            let writable = page.rights.contains(Rights::WRITE);
            assert_eq!(machine.reach(at, Intent::Write), found.filter(|_| writable), "{mode:?}");
            assert_eq!(machine.reach(at, Intent::Fetch), found.filter(|_| !writable), "{mode:?}");
        }
        for linear in [0, 4, 0x3000, 0x40_1000, 0xc000_0000, 0xffff_f000] {
            assert_eq!(machine.reach(linear, Intent::Read), None, "{mode:?} {linear:#x}");
        }
        assert_eq!(machine.second_level(4 * 4096), None);
        let tables = (TABLES_START..).step_by(4096).map_while(|gpa| machine.second_level(gpa));
        assert!(tables.into_iter().all(|(_, rights)| rights == Rights::READ));
    }
}

#[test]
fn a_compartment_that_is_filled_anew_forgets_what_it_was() {
    let mut machine = Fixture::new(Mode::Levels4, 32);
    assert_eq!(machine.fill(1, &pages()), Ok(()));
    let roots = machine.roots;
    assert_eq!((machine.compartment.roots(1), machine.compartment.roots(2)), (Some(roots), None));
    assert_eq!(machine.fill(2, &pages()[2..3]), Ok(()));
    assert_eq!(machine.compartment.roots(1), None);
    assert_eq!(machine.reach(0x40_0000, Intent::Read), Some(0x5000));
    assert_eq!(machine.reach(0x1000, Intent::Read), None);
    assert_eq!(machine.second_level(4096), None);
    assert_eq!(machine.compartment.roots(0), None);
}

#[test]
fn a_page_of_the_hypervisors_leaves_the_compartment_empty() {
    for mode in MODES {
        let mut machine = Fixture::new(mode, 20);
        // A table of the compartment's own: whoever writes it maps what it likes.
        let table = Page { frame: HostPhysAddr::new(POOL + 0x2000), ..pages()[0] };
        let mut pages = pages().to_vec();
        pages.push(table);
        assert_eq!(machine.fill(3, &pages), Err(FillError::Foreign));
        assert_eq!(machine.compartment.roots(3), None);
        pages.pop();
        assert_eq!(machine.fill(3, &pages), Ok(()));
    }
}

#[test]
fn a_compartment_short_of_frames_is_empty_until_its_stock_grows() {
    let mut machine = Fixture::new(Mode::Levels4, frames_needed(Mode::Levels4, runs(&pages())) - 1);
    assert_eq!(machine.fill(7, &pages()), Err(FillError::TooSmall));
    assert_eq!(machine.compartment.roots(7), None);
    machine.grow(frames_needed(Mode::Levels4, runs(&pages())));
    assert_eq!(machine.fill(7, &pages()), Ok(()));
    let refuse = || Err(TooSmall);
    assert_eq!(machine.compartment.grow(&machine.memory, super::STOCK_LIMIT + 1, refuse), Err(TooSmall));
}

proptest! {
    #[test]
    fn what_is_reserved_is_enough(
        mode in prop::sample::select(MODES.to_vec()),
        starts in prop::collection::btree_set(1_u64..0xf_f000, 1..20),
        length in 1_u64..600,
    ) {
        let mut pages = Vec::new();
        let mut runs = Vec::new();
        let mut end = 0;
        for start in starts {
            if start >= end {
                end = start + length;
                runs.push((start << 12, length));
                pages.extend((start..end).map(|number| Page {
                    linear: number << 12,
                    frame: HostPhysAddr::new(number << 12),
                    rights: DATA,
                }));
            }
        }
        prop_assume!(pages.len() <= super::PAGES_LIMIT);
        let needed = frames_needed(mode, runs);
        let mut machine = Fixture::new(mode, needed.min(super::STOCK_LIMIT));
        prop_assert_eq!(machine.fill(1, &pages), Ok(()));
        for page in pages.iter().step_by(97) {
            prop_assert_eq!(machine.reach(page.linear, Intent::Write), Some(page.linear));
        }
    }
}
