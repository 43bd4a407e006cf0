//! The walk of the guest's page tables (SDM, "Paging"): one loop for all modes.

use super::canonical::is_canonical;
use super::paging::{Mode, Paging, has};
use super::{GuestMemory, Refused};
use crate::vcpu::Vcpu;
use x86::address::{GuestLinearAddr, GuestPhysAddr};
use x86::cr::{Cr0, Cr4};
use x86::event::Event;
use x86::paging::{PageFaultError, PageFlags};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// On whose behalf an access is made (SDM, "Access Rights").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// An instruction at CPL 3.
    User,
    /// An instruction at CPL 0 to 2.
    Supervisor,
    /// The processor's own access to a system data structure, at any CPL.
    Implicit,
}

impl Privilege {
    /// Returns what an instruction of `vcpu` has.
    pub fn of<V: Vcpu + ?Sized>(vcpu: &V) -> Self {
        if vcpu.cpl() == 3 { Self::User } else { Self::Supervisor }
    }
}

/// An access to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What it does.
    pub intent: Intent,
    /// On whose behalf.
    pub privilege: Privilege,
}

/// Walks that another processor may spoil by changing an entry before the guest takes a fault instead.
const ATTEMPTS: usize = 64;

/// Returns the guest-physical address behind `address`; sets accessed and dirty flags as the processor does.
///
/// # Errors
///
/// #PF as the processor raises it; #GP(0) for an address that is not canonical, and where the tables are not
/// in the guest's memory.
pub(super) fn translate<M: GuestMemory + ?Sized>(
    memory: &M,
    paging: &Paging,
    address: GuestLinearAddr,
    access: Access,
) -> Result<GuestPhysAddr, Event> {
    let address = match paging.mode {
        Mode::Long { .. } if !is_canonical(address.get(), paging.cr4) => return Err(Event::GP0),
        Mode::Long { .. } => address.get(),
        _ => address.get() & 0xffff_ffff,
    };
    if paging.mode == Mode::Off {
        return Ok(GuestPhysAddr::new(address));
    }
    for _ in 0..ATTEMPTS {
        let walk = Walk { memory, paging, address, access };
        let path = walk.descend()?;
        walk.check(&path)?;
        if walk.mark(&path)? {
            return Ok(path.target(paging, address));
        }
    }
    // Only a guest that rewrites the entry without pause gets here; a fault on a changed entry is allowed.
    Err(Walk { memory, paging, address, access }.fault(PageFaultError::empty()))
}

/// The entries that a walk used, the last of them a leaf.
#[derive(Default)]
struct Path {
    entries: [(GuestPhysAddr, u64); 5],
    length: usize,
    level: u8,
}

impl Path {
    fn used(&self) -> &[(GuestPhysAddr, u64)] {
        &self.entries[..self.length]
    }

    fn leaf(&self) -> u64 {
        self.used().last().map_or(0, |&(_, entry)| entry)
    }

    fn all_have(&self, flag: PageFlags) -> bool {
        self.used().iter().all(|&(_, entry)| has(entry, flag))
    }

    fn target(&self, paging: &Paging, address: u64) -> GuestPhysAddr {
        let offset = address & ((1 << paging.index_shift(self.level)) - 1);
        GuestPhysAddr::new(paging.address(self.leaf(), self.level) | offset)
    }
}

struct Walk<'a, M: ?Sized> {
    memory: &'a M,
    paging: &'a Paging,
    address: u64,
    access: Access,
}

impl<M: GuestMemory + ?Sized> Walk<'_, M> {
    /// Follows the tables down to the leaf.
    fn descend(&self) -> Result<Path, Event> {
        let (mut table, top) = self.root()?;
        let mut path = Path::default();
        for level in (1..=top).rev() {
            let at = self.entry_address(table, level);
            let entry = self.read_entry(at)?;
            if !has(entry, PageFlags::P) {
                return Err(self.fault(PageFaultError::empty()));
            }
            if entry & self.paging.reserved(entry, level) != 0 {
                return Err(self.fault(PageFaultError::P | PageFaultError::RSVD));
            }
            path.entries[path.length] = (at, entry);
            path.length += 1;
            path.level = level;
            if self.paging.is_leaf(entry, level) {
                break;
            }
            table = self.paging.address(entry, level);
        }
        Ok(path)
    }

    /// Address and level of the first table.
    fn root(&self) -> Result<(u64, u8), Event> {
        match self.paging.mode {
            Mode::Off | Mode::Bits32 => Ok((self.paging.cr3 & 0xffff_f000, 2)),
            Mode::Long { levels } => Ok((self.paging.cr3 & 0xf_ffff_ffff_f000, levels)),
            Mode::Pae => {
                let pdpte = self.paging.pdptes[(self.address >> 30 & 3) as usize];
                if !has(pdpte, PageFlags::P) {
                    Err(self.fault(PageFaultError::empty()))
                } else {
                    Ok((pdpte & 0xf_ffff_ffff_f000, 2))
                }
            }
        }
    }

    fn entry_address(&self, table: u64, level: u8) -> GuestPhysAddr {
        let index = self.address >> self.paging.index_shift(level);
        let offset = if self.is_32bit() { (index & 0x3ff) * 4 } else { (index & 0x1ff) * 8 };
        GuestPhysAddr::new(table + offset)
    }

    fn read_entry(&self, at: GuestPhysAddr) -> Result<u64, Refused> {
        let mut word = [0];
        self.memory.read_words(GuestPhysAddr::new(at.get() & !7), &mut word)?;
        let shift = (at.get() & 4) * 8;
        Ok(if self.is_32bit() { word[0] >> shift & 0xffff_ffff } else { word[0] })
    }

    fn is_32bit(&self) -> bool {
        self.paging.mode == Mode::Bits32
    }

    /// Checks access rights (SDM, "Determination of Access Rights").
    fn check(&self, path: &Path) -> Result<(), Event> {
        let Access { intent, privilege } = self.access;
        let is_user_page = path.all_have(PageFlags::US);
        let is_user = privilege == Privilege::User;
        let writes_ignore_protection = !is_user && !self.paging.cr0.contains(Cr0::WP);
        let is_execute_disabled = self.paging.has_execute_disable()
            && path.used().iter().any(|(_, entry)| has(*entry, PageFlags::XD));
        let is_kept_from_supervisor = !is_user && is_user_page && self.keeps_from_supervisor();
        let is_denied = is_user && !is_user_page
            || is_kept_from_supervisor
            || intent == Intent::Write && !path.all_have(PageFlags::RW) && !writes_ignore_protection
            || intent == Intent::Fetch && is_execute_disabled;
        let rights = if is_user_page { self.paging.pkru } else { self.paging.pkrs };
        let is_key_denied = self.is_key_denied(rights, path.leaf(), writes_ignore_protection);
        match (is_denied, is_key_denied) {
            (false, false) => Ok(()),
            (_, false) => Err(self.fault(PageFaultError::P)),
            (_, true) => Err(self.fault(PageFaultError::P | PageFaultError::PK)),
        }
    }

    /// SMEP and SMAP: whether a supervisor's access to a user page is a fault.
    fn keeps_from_supervisor(&self) -> bool {
        let Access { intent, privilege } = self.access;
        if intent == Intent::Fetch {
            return self.paging.cr4.contains(Cr4::SMEP);
        }
        let is_excused = privilege == Privilege::Supervisor && self.paging.is_alignment_check_set;
        self.paging.cr4.contains(Cr4::SMAP) && !is_excused
    }

    /// Returns whether a key register, PKRU for user pages and IA32_PKRS for others, forbids a data access to the page
    /// of `leaf` (SDM, "Protection Keys"). It is 0 where CR4 has such keys mean nothing.
    fn is_key_denied(&self, register: u32, leaf: u64, writes_ignore_protection: bool) -> bool {
        let is_long = matches!(self.paging.mode, Mode::Long { .. });
        if !is_long || self.access.intent == Intent::Fetch {
            return false;
        }
        let rights = register >> (2 * (leaf >> 59 & 0xf));
        rights & 1 != 0 || rights & 2 != 0 && self.access.intent == Intent::Write && !writes_ignore_protection
    }

    /// Sets accessed flags, and the leaf's dirty flag for a write; false where an entry has changed since.
    fn mark(&self, path: &Path) -> Result<bool, Event> {
        for (position, &(at, entry)) in path.used().iter().enumerate() {
            let is_leaf = position + 1 == path.length;
            let dirty = if is_leaf && self.access.intent == Intent::Write { PageFlags::D.bits() } else { 0 };
            let marked = entry | PageFlags::A.bits() | dirty;
            if marked != entry && !self.exchange(at, entry, marked)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn exchange(&self, at: GuestPhysAddr, entry: u64, marked: u64) -> Result<bool, Refused> {
        if !self.is_32bit() {
            return self.memory.compare_exchange(at, entry, marked);
        }
        // The exchange is of 64 bits: the neighbour entry is kept as it was read just before.
        let pair = GuestPhysAddr::new(at.get() & !7);
        let shift = (at.get() & 4) * 8;
        let mut bytes = [0; 8];
        self.memory.read(pair, &mut bytes)?;
        let neighbour = u64::from_le_bytes(bytes) & !(0xffff_ffff << shift);
        self.memory.compare_exchange(pair, neighbour | entry << shift, neighbour | marked << shift)
    }

    /// #PF with `cause` and the facts of the access.
    fn fault(&self, cause: PageFaultError) -> Event {
        let Access { intent, privilege } = self.access;
        let mut error = cause;
        if intent == Intent::Write {
            error |= PageFaultError::WR;
        }
        if privilege == Privilege::User {
            error |= PageFaultError::US;
        }
        if intent == Intent::Fetch
            && (self.paging.cr4.contains(Cr4::SMEP) || self.paging.has_execute_disable())
        {
            error |= PageFaultError::ID;
        }
        Event::PageFault { address: self.address, error_code: error.bits() }
    }
}
