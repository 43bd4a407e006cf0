//! The structures of the table, one for each kind (Intel Virtualization Technology for Directed I/O, "Remapping
//! Structure Types").

use arrayvec::ArrayVec;

use super::device_scope::Scopes;
use super::fault::Fault;
use super::part::Part;
use crate::handoff::PhysRange;
use crate::physical::ReadPhysical;
use x86::paging::PAGE_SIZE;

/// First address that no processor can put on the bus.
const PHYSICAL_LIMIT: u64 = 1 << 52;
/// The longest name that is taken.
const NAME_CAPACITY: usize = 255;

/// Types.
const DRHD: u16 = 0;
const RMRR: u16 = 1;
const ATSR: u16 = 2;
const RHSA: u16 = 3;
const ANDD: u16 = 4;
const SATC: u16 = 5;
const SIDP: u16 = 6;

/// The one flag that each kind with flags has: INCLUDE_PCI_ALL, ALL_PORTS, ATC_REQUIRED.
const FIRST_FLAG: u8 = 1 << 0;

/// A structure.
#[expect(clippy::large_enum_variant, reason = "there is no heap, and one is held at a time")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Structure {
    /// A remapping unit.
    Drhd(Drhd),
    /// Memory that a device goes on using.
    Rmrr(Rmrr),
    /// Root ports whose devices may translate for themselves.
    Atsr(Atsr),
    /// Where a unit is near to.
    Rhsa(Rhsa),
    /// A device that only ACPI's name space has.
    Andd(Andd),
    /// Integrated devices that translate for themselves.
    Satc(Satc),
    /// Properties of integrated devices.
    Sidp(Sidp),
    /// What later revisions may have, of this type.
    Unknown(u16),
}

/// "DMA Remapping Hardware Unit Definition Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drhd {
    /// The unit has all devices of the segment that no other unit of it has.
    pub is_for_all: bool,
    /// Bytes of its registers.
    pub register_bytes: u64,
    /// PCI segment.
    pub segment: u16,
    /// Physical address of its registers: a page's.
    pub register_base: u64,
    /// Its devices.
    pub scopes: Scopes,
}

/// "Reserved Memory Region Reporting Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rmrr {
    /// PCI segment.
    pub segment: u16,
    /// Its first address.
    pub base: u64,
    /// Its last.
    pub limit: u64,
    /// Devices that use it.
    pub scopes: Scopes,
}

/// "Root Port ATS Capability Reporting Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atsr {
    /// Every root port of the segment.
    pub is_for_all: bool,
    /// PCI segment.
    pub segment: u16,
    /// Else these.
    pub scopes: Scopes,
}

/// "Remapping Hardware Static Affinity Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhsa {
    /// The unit, by the address of its registers.
    pub register_base: u64,
    /// What it is near to, in the numbers of ACPI's SRAT.
    pub proximity_domain: u32,
}

/// Name of an object: printable characters.
pub type Name = ArrayVec<u8, NAME_CAPACITY>;

/// "ACPI Name-space Device Declaration Structure".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Andd {
    /// What device scopes call it.
    pub number: u8,
    /// Its path in the name space.
    pub name: Name,
}

/// "SoC Integrated Address Translation Cache Reporting Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Satc {
    /// The devices do not work without.
    pub is_required: bool,
    /// PCI segment.
    pub segment: u16,
    /// The devices.
    pub scopes: Scopes,
}

/// "SoC Integrated Device Property Reporting Structure".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidp {
    /// PCI segment.
    pub segment: u16,
    /// The devices, each with its flags.
    pub scopes: Scopes,
}

impl Structure {
    /// Bytes of a structure of this type without what it has a variable number of.
    pub(super) const fn least_length(kind: u16) -> u64 {
        match kind {
            DRHD => 16,
            RMRR => 24,
            RHSA => 20,
            ATSR | SATC | SIDP => 8,
            // A name has at least its end.
            ANDD => 9,
            _ => 4,
        }
    }

    /// Reads the structure of type `kind` that is all of `part`, which is as long as the type wants.
    pub(super) fn read(memory: &impl ReadPhysical, kind: u16, part: Part) -> Result<Self, Fault> {
        let start = part.table + part.at;
        let scopes = Scopes { kind, part: Part { at: part.at + Self::least_length(kind), ..part } };
        let segment = || memory.read_u16(start + 6);
        let has_flag = || memory.read_array(start + 4).map(|[flags]| flags & FIRST_FLAG != 0);
        Ok(match kind {
            DRHD => Self::Drhd(Drhd::read(memory, start, segment()?, scopes)?),
            RMRR => Self::Rmrr(Rmrr::read(memory, start, segment()?, scopes)?),
            ATSR => Self::Atsr(Atsr { is_for_all: has_flag()?, segment: segment()?, scopes }),
            RHSA => Self::Rhsa(Rhsa {
                register_base: memory.read_u64(start + 8)?,
                proximity_domain: memory.read_u32(start + 16)?,
            }),
            ANDD => Self::Andd(Andd::read(memory, part)?),
            SATC => Self::Satc(Satc { is_required: has_flag()?, segment: segment()?, scopes }),
            SIDP => Self::Sidp(Sidp { segment: segment()?, scopes }),
            _ => Self::Unknown(kind),
        })
    }

    /// Its device scopes, if its kind has any.
    #[must_use]
    pub const fn scopes(&self) -> Option<Scopes> {
        match self {
            Self::Drhd(Drhd { scopes, .. })
            | Self::Rmrr(Rmrr { scopes, .. })
            | Self::Atsr(Atsr { scopes, .. })
            | Self::Satc(Satc { scopes, .. })
            | Self::Sidp(Sidp { scopes, .. }) => Some(*scopes),
            Self::Rhsa(_) | Self::Andd(_) | Self::Unknown(_) => None,
        }
    }
}

impl Drhd {
    fn read(memory: &impl ReadPhysical, start: u64, segment: u16, scopes: Scopes) -> Result<Self, Fault> {
        let [flags, size] = memory.read_array(start + 4)?;
        let register_base = memory.read_u64(start + 8)?;
        let register_bytes = PAGE_SIZE << (size & 0xf);
        let is_possible = register_base != 0
            && register_base.is_multiple_of(PAGE_SIZE)
            && register_base.checked_add(register_bytes).is_some_and(|end| end <= PHYSICAL_LIMIT);
        if !is_possible {
            return Err(Fault::RegisterBase(register_base));
        }
        let is_for_all = flags & FIRST_FLAG != 0;
        Ok(Self { is_for_all, register_bytes, segment, register_base, scopes })
    }
}

impl Rmrr {
    fn read(memory: &impl ReadPhysical, start: u64, segment: u16, scopes: Scopes) -> Result<Self, Fault> {
        let (base, limit) = (memory.read_u64(start + 8)?, memory.read_u64(start + 16)?);
        if limit < base || limit >= PHYSICAL_LIMIT {
            return Err(Fault::Region(base, limit));
        }
        Ok(Self { segment, base, limit, scopes })
    }

    /// The whole pages that hold it: what a page of the tables opens is opened whole.
    #[must_use]
    pub const fn pages(&self) -> PhysRange {
        let base = self.base / PAGE_SIZE * PAGE_SIZE;
        PhysRange { base, length: (self.limit / PAGE_SIZE + 1) * PAGE_SIZE - base }
    }
}

impl Andd {
    fn read(memory: &impl ReadPhysical, part: Part) -> Result<Self, Fault> {
        let [number] = memory.read_array(part.table + part.at + 7)?;
        let mut this = Self { number, name: Name::new() };
        for at in part.at + 8..part.end {
            match memory.read_array(part.table + at)? {
                [0] if this.name.is_empty() => return Err(Fault::Name),
                [0] => return Ok(this),
                [byte] if byte.is_ascii_graphic() => this.name.try_push(byte).map_err(|_| Fault::Name)?,
                _ => return Err(Fault::Name),
            }
        }
        Err(Fault::Name)
    }
}
