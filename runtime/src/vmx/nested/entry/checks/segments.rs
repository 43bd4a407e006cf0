//! The guest's segment registers (SDM, "Checks on Guest Segment Registers"), in all modes of a guest.

use super::{Entry, Rule, require};
use crate::vmx::vcpu::segment_of;
use hw::Vmcs;
use x86::cr::{Cr0, Rflags};
use x86::segment::{AccessRights, Segment, SegmentRegister};

/// The six registers that code and stack and data use; LDTR and TR have rules of their own.
const ORDINARY: [(SegmentRegister, Rule); 6] = [
    (SegmentRegister::Cs, "guest CS"),
    (SegmentRegister::Ss, "guest SS"),
    (SegmentRegister::Ds, "guest DS"),
    (SegmentRegister::Es, "guest ES"),
    (SegmentRegister::Fs, "guest FS"),
    (SegmentRegister::Gs, "guest GS"),
];
/// Access rights of every segment in virtual-8086 mode.
const VIRTUAL_8086_RIGHTS: u32 = 0xf3;
/// Bits 11:8 and 31:17 of the access rights.
const RESERVED: u32 = 0xfffe_0f00;

// Types of a segment (SDM, "Code- and Data-Segment Descriptor Types"; "System Descriptor Types").
const ACCESSED: u8 = 1;
const READABLE: u8 = 2;
const CODE: u8 = 8;
const WRITABLE_DATA: u8 = 3;
const EXPAND_DOWN_DATA: u8 = 7;
const LDT: u8 = 2;
const BUSY_TSS_16: u8 = 3;
const BUSY_TSS: u8 = 11;

/// Makes all checks on segment registers.
pub(super) fn check<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let is_virtual_8086 = entry.guest_flags().contains(Rflags::VM);
    for (register, rule) in ORDINARY {
        let segment = segment_of(entry.vmcs, register);
        let is_valid = if is_virtual_8086 {
            is_virtual_8086_segment(&segment)
        } else {
            is_base_valid(register, &segment)
        };
        require(is_valid, rule)?;
    }
    if !is_virtual_8086 {
        let guest = Guest::of(entry);
        require(guest.is_code_valid(), "access rights of the guest's CS")?;
        require(guest.is_stack_valid(), "access rights of the guest's SS")?;
        for (register, rule) in &ORDINARY[2..] {
            require(guest.is_data_valid(&segment_of(entry.vmcs, *register)), rule)?;
        }
    }
    require(is_canonical_base(entry, SegmentRegister::Fs), "guest FS base")?;
    require(is_canonical_base(entry, SegmentRegister::Gs), "guest GS base")?;
    task_register(entry)?;
    local_descriptor_table(entry)
}

fn is_virtual_8086_segment(segment: &Segment) -> bool {
    segment.base == u64::from(segment.selector) << 4
        && segment.limit == 0xffff
        && segment.rights.bits() == VIRTUAL_8086_RIGHTS
}

/// Bases of CS, and of SS, DS and ES where they are usable, have 32 bits.
fn is_base_valid(register: SegmentRegister, segment: &Segment) -> bool {
    match register {
        SegmentRegister::Fs | SegmentRegister::Gs => true,
        SegmentRegister::Cs => segment.base >> 32 == 0,
        _ => !is_usable(segment) || segment.base >> 32 == 0,
    }
}

fn is_canonical_base<V: Vmcs>(entry: &Entry<'_, V>, register: SegmentRegister) -> bool {
    entry.processor.is_canonical(segment_of(entry.vmcs, register).base)
}

/// What the rules for access rights depend on.
struct Guest {
    code: Segment,
    stack: Segment,
    is_unrestricted: bool,
    is_ia32e: bool,
    is_protected: bool,
}

impl Guest {
    fn of<V: Vmcs>(entry: &Entry<'_, V>) -> Self {
        Self {
            code: segment_of(entry.vmcs, SegmentRegister::Cs),
            stack: segment_of(entry.vmcs, SegmentRegister::Ss),
            is_unrestricted: entry.is_unrestricted(),
            is_ia32e: entry.is_ia32e_guest(),
            is_protected: entry.guest_cr0().contains(Cr0::PE),
        }
    }

    fn is_code_valid(&self) -> bool {
        let rights = self.code.rights;
        let stack_level = self.stack.rights.dpl();
        let is_level_right = match rights.kind() {
            // Code of real mode, as a data segment.
            WRITABLE_DATA => self.is_unrestricted && rights.dpl() == 0,
            // Not conforming, accessed.
            9 | 11 => rights.dpl() == stack_level,
            // Conforming, accessed.
            13 | 15 => rights.dpl() <= stack_level,
            _ => false,
        };
        let is_size_right =
            !self.is_ia32e || !rights.contains(AccessRights::L) || !rights.contains(AccessRights::DB);
        is_level_right && is_size_right && is_well_formed(&self.code, true)
    }

    fn is_stack_valid(&self) -> bool {
        let rights = self.stack.rights;
        let requested_level = requested_level(&self.stack);
        if !self.is_unrestricted
            && (requested_level != requested_level_of(self.code.selector) || requested_level != rights.dpl())
        {
            return false;
        }
        if (self.code.rights.kind() == WRITABLE_DATA || !self.is_protected) && rights.dpl() != 0 {
            return false;
        }
        !is_usable(&self.stack)
            || matches!(rights.kind(), WRITABLE_DATA | EXPAND_DOWN_DATA) && is_well_formed(&self.stack, true)
    }

    fn is_data_valid(&self, segment: &Segment) -> bool {
        if !is_usable(segment) {
            return true;
        }
        let kind = segment.rights.kind();
        let is_readable = kind & CODE == 0 || kind & READABLE != 0;
        let is_conforming = kind > 11;
        let is_level_right =
            self.is_unrestricted || is_conforming || segment.rights.dpl() >= requested_level(segment);
        kind & ACCESSED != 0 && is_readable && is_level_right && is_well_formed(segment, true)
    }
}

fn task_register<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let task = segment_of(entry.vmcs, SegmentRegister::Tr);
    let kind = task.rights.kind();
    require(is_global(&task), "selector of the guest's TR")?;
    require(entry.processor.is_canonical(task.base), "guest TR base")?;
    let is_kind_right = kind == BUSY_TSS || kind == BUSY_TSS_16 && !entry.is_ia32e_guest();
    let is_valid = is_kind_right && is_usable(&task) && is_well_formed(&task, false);
    require(is_valid, "access rights of the guest's TR")
}

fn local_descriptor_table<V: Vmcs>(entry: &Entry<'_, V>) -> Result<(), Rule> {
    let table = segment_of(entry.vmcs, SegmentRegister::Ldtr);
    if !is_usable(&table) {
        return Ok(());
    }
    require(is_global(&table), "selector of the guest's LDTR")?;
    require(entry.processor.is_canonical(table.base), "guest LDTR base")?;
    require(table.rights.kind() == LDT && is_well_formed(&table, false), "access rights of the guest's LDTR")
}

/// S as wanted, present, reserved bits 0, and a limit that the granularity can express.
fn is_well_formed(segment: &Segment, is_code_or_data: bool) -> bool {
    let rights = segment.rights;
    let has_pages = segment.limit & 0xfff == 0xfff;
    let has_bytes = segment.limit >> 20 == 0;
    let is_limit_right = if rights.contains(AccessRights::G) { has_pages } else { has_bytes };
    rights.contains(AccessRights::S) == is_code_or_data
        && rights.contains(AccessRights::P)
        && rights.bits() & RESERVED == 0
        && is_limit_right
}

fn is_usable(segment: &Segment) -> bool {
    !segment.rights.contains(AccessRights::UNUSABLE)
}

/// Returns whether the selector names the global descriptor table.
const fn is_global(segment: &Segment) -> bool {
    segment.selector & 4 == 0
}

const fn requested_level(segment: &Segment) -> u8 {
    requested_level_of(segment.selector)
}

const fn requested_level_of(selector: u16) -> u8 {
    (selector & 3) as u8
}
