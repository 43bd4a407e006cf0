//! Which devices a structure is about (Intel Virtualization Technology for Directed I/O, "Device Scope Structure").

use arrayvec::ArrayVec;

use super::fault::{DmarError, Fault};
use super::part::Part;
use crate::physical::ReadPhysical;

/// Bytes before the path.
const HEADER: u64 = 6;
/// Steps that fit a length of 255.
const MOST_HOPS: usize = 124;

/// What a device scope names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// One function of a PCI device.
    Endpoint,
    /// A PCI bridge with all that is behind it.
    SubHierarchy,
    /// An I/O APIC, by its ID in the MADT.
    IoApic,
    /// A timer block (HPET) that sends message-signaled interrupts, by its number.
    Hpet,
    /// A device of ACPI's name space, by the number that an ANDD structure gives it.
    Namespace,
    /// What later revisions may name.
    Unknown(u8),
}

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// PCI device number, below 32.
    pub device: u8,
    /// PCI function number, below 8.
    pub function: u8,
}

/// The way from the first bus to a device: each step but the last is a bridge.
pub type Path = ArrayVec<Hop, MOST_HOPS>;

/// A device, or a bridge and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceScope {
    /// What it names.
    pub kind: ScopeKind,
    /// Properties, which a SIDP structure gives.
    pub flags: u8,
    /// The ID that [`ScopeKind`] speaks of; 0 where it speaks of none.
    pub enumeration_id: u8,
    /// The bus that the path begins at.
    pub start_bus: u8,
    /// At least one step, except for what is unknown.
    pub path: Path,
}

/// The device scopes of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    pub(super) kind: u16,
    pub(super) part: Part,
}

impl Scopes {
    /// The scopes in the structure's order. A path that is none costs the one scope, an impossible length those
    /// behind it.
    #[must_use]
    pub const fn devices<'a, M: ReadPhysical>(&self, memory: &'a M) -> DeviceScopes<'a, M> {
        DeviceScopes { memory, kind: self.kind, part: self.part }
    }
}

/// A walk over device scopes.
#[derive(Debug)]
pub struct DeviceScopes<'a, M> {
    memory: &'a M,
    kind: u16,
    /// What is left.
    part: Part,
}

impl<M: ReadPhysical> Iterator for DeviceScopes<'_, M> {
    type Item = Result<DeviceScope, DmarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.part.at >= self.part.end {
            return None;
        }
        let offset = self.part.at;
        let scope = self.take().and_then(|scope| DeviceScope::read(self.memory, scope));
        Some(scope.map_err(|fault| DmarError { offset, kind: Some(self.kind), fault }))
    }
}

impl<M: ReadPhysical> DeviceScopes<'_, M> {
    /// Takes the next scope off what is left; nothing is left where its length is impossible.
    fn take(&mut self) -> Result<Part, Fault> {
        let Part { table, at, end } = self.part;
        self.part.at = end;
        let left = end - at;
        if left < HEADER {
            return Err(Fault::ScopeLength(u8::try_from(left).unwrap_or(0)));
        }
        let [length] = self.memory.read_array(table + at + 1)?;
        if u64::from(length) < HEADER || u64::from(length) > left {
            return Err(Fault::ScopeLength(length));
        }
        self.part.at = at + u64::from(length);
        Ok(Part { table, at, end: self.part.at })
    }
}

impl DeviceScope {
    fn read(memory: &impl ReadPhysical, part: Part) -> Result<Self, Fault> {
        let [kind, _, flags, _, enumeration_id, start_bus] = memory.read_array(part.table + part.at)?;
        let kind = ScopeKind::of(kind);
        let mut this = Self { kind, flags, enumeration_id, start_bus, path: Path::new() };
        if matches!(kind, ScopeKind::Unknown(_)) {
            return Ok(this);
        }
        let mut at = part.at + HEADER;
        while at < part.end {
            if part.end - at < 2 {
                return Err(Fault::ScopePath);
            }
            let [device, function] = memory.read_array(part.table + at)?;
            if device >= 32 || function >= 8 {
                return Err(Fault::ScopePath);
            }
            this.path.try_push(Hop { device, function }).map_err(|_| Fault::ScopePath)?;
            at += 2;
        }
        if this.path.is_empty() { Err(Fault::ScopePath) } else { Ok(this) }
    }
}

impl ScopeKind {
    const fn of(kind: u8) -> Self {
        match kind {
            1 => Self::Endpoint,
            2 => Self::SubHierarchy,
            3 => Self::IoApic,
            4 => Self::Hpet,
            5 => Self::Namespace,
            _ => Self::Unknown(kind),
        }
    }
}
