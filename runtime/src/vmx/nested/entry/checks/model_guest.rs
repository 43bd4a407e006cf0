//! The manual's list of checks on the guest state, in its order.

use super::fixture::CURRENT;
use super::model::{Model, Verdict, bit};
use crate::memory::guest::GuestMemory;
use x86::address::GuestPhysAddr;
use x86::vmx::vmcs::{self, Field};

/// One segment register as the checks see it.
struct Seg {
    selector: u16,
    base: u64,
    limit: u32,
    rights: u32,
}

impl Seg {
    fn kind(&self) -> u32 {
        self.rights & 15
    }

    fn dpl(&self) -> u32 {
        self.rights >> 5 & 3
    }

    fn rpl(&self) -> u32 {
        u32::from(self.selector & 3)
    }

    fn usable(&self) -> bool {
        !bit(self.rights, 16)
    }

    /// Bits 7, 11:8, 15 and 31:17 of the rights.
    fn shape(&self) -> bool {
        let granular = bit(self.rights, 15);
        bit(self.rights, 7)
            && (8..12).all(|number| !bit(self.rights, number))
            && (17..32).all(|number| !bit(self.rights, number))
            && ((0..12).all(|number| bit(self.limit, number)) || !granular)
            && ((20..32).all(|number| !bit(self.limit, number)) || granular)
    }
}

type Fields = (Field<u16>, Field<u64>, Field<u32>, Field<u32>);

macro_rules! segment {
    ($selector:ident $base:ident $limit:ident $rights:ident) => {
        (vmcs::$selector, vmcs::$base, vmcs::$limit, vmcs::$rights)
    };
}

const CS: Fields = segment!(GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS);
const SS: Fields = segment!(GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS);
const DS: Fields = segment!(GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS);
const ES: Fields = segment!(GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS);
const FS: Fields = segment!(GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS);
const GS: Fields = segment!(GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS);
const TR: Fields = segment!(GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS);
const LDTR: Fields = segment!(GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS);

impl Model<'_> {
    pub(super) fn guest(&self) -> Verdict {
        let is_right = self.registers()
            && self.selectors_bases_limits()
            && self.access_rights()
            && self.system_segments()
            && self.rest()
            && self.activity()
            && self.interruptibility()
            && self.pending();
        if !is_right {
            Verdict::Guest(0)
        } else if !self.link() {
            Verdict::Guest(4)
        } else if !self.pdptes() {
            Verdict::Guest(2)
        } else {
            Verdict::Entered
        }
    }

    fn seg(&self, fields: Fields) -> Seg {
        let (selector, base, limit, rights) = fields;
        Seg { selector: self.f(selector), base: self.f(base), limit: self.f(limit), rights: self.f(rights) }
    }

    fn unrestricted(&self) -> bool {
        self.secondary(7)
    }

    fn long(&self) -> bool {
        self.entry(9)
    }

    fn flag(&self, number: u32) -> bool {
        bit(self.f(vmcs::GUEST_RFLAGS), number)
    }

    fn registers(&self) -> bool {
        let (cr0, cr4) = (self.f(vmcs::GUEST_CR0), self.f(vmcs::GUEST_CR4));
        let c = &self.machine.capability;
        let skip: &[u32] = if self.unrestricted() { &[0, 29, 30, 31] } else { &[29, 30] };
        let efer = self.f(vmcs::GUEST_EFER);
        Self::fixed(cr0, c.cr0_fixed[0], c.cr0_fixed[1], skip)
            && (!bit(cr0, 31) || bit(cr0, 0))
            && Self::fixed(cr4, c.cr4_fixed[0], c.cr4_fixed[1], &[])
            && (!bit(cr4, 23) || bit(cr0, 16))
            && (!self.entry(2) || self.f(vmcs::GUEST_DEBUGCTL) & !0xffc7 == 0)
            && (!self.long() || bit(cr0, 31) && bit(cr4, 5))
            && (self.long() || !bit(cr4, 17))
            && self.physical(self.f(vmcs::GUEST_CR3), 0)
            && (!self.entry(2) || self.f(vmcs::GUEST_DR7) <= 0xffff_ffff)
            && self.canonical(self.f(vmcs::GUEST_SYSENTER_ESP))
            && self.canonical(self.f(vmcs::GUEST_SYSENTER_EIP))
            && (!self.entry(13) || self.f(vmcs::GUEST_PERF_GLOBAL_CTRL) & !0x7_0000_000f == 0)
            && (!self.entry(14) || Self::pat(self.f(vmcs::GUEST_PAT)))
            && (!self.entry(15)
                || efer & !0xd01 == 0
                    && bit(efer, 10) == self.long()
                    && (!bit(cr0, 31) || bit(efer, 8) == bit(efer, 10)))
            && self.extensions()
    }

    fn extensions(&self) -> bool {
        let (bndcfgs, ssp) = (self.f(vmcs::GUEST_BNDCFGS), self.f(vmcs::GUEST_SSP));
        (!self.entry(16)
            || (2..12).all(|number| !bit(bndcfgs, number)) && self.canonical(bndcfgs >> 12 << 12))
            && (!self.entry(20)
                || self.s_cet(self.f(vmcs::GUEST_S_CET))
                    && ssp.is_multiple_of(4)
                    && self.pointer(ssp)
                    && self.canonical(self.f(vmcs::GUEST_INTERRUPT_SSP_TABLE)))
            && (!self.entry(22) || self.f(vmcs::GUEST_PKRS) <= 0xffff_ffff)
    }

    /// What RIP and SSP may hold.
    fn pointer(&self, value: u64) -> bool {
        if self.long() && bit(self.seg(CS).rights, 13) {
            let width = u32::from(self.machine.processor.linear_address_bits);
            (width..64).all(|number| bit(value, number) == bit(value, 63))
        } else {
            value <= 0xffff_ffff
        }
    }

    fn selectors_bases_limits(&self) -> bool {
        let (tr, ldtr, ss, cs) = (self.seg(TR), self.seg(LDTR), self.seg(SS), self.seg(CS));
        let is_virtual = self.flag(17);
        let selectors = !bit(tr.selector, 2)
            && (!ldtr.usable() || !bit(ldtr.selector, 2))
            && (is_virtual || self.unrestricted() || ss.rpl() == cs.rpl());
        let virtual_8086 = [CS, SS, DS, ES, FS, GS].into_iter().all(|fields| {
            let seg = self.seg(fields);
            !is_virtual || seg.base == u64::from(seg.selector) * 16 && seg.limit == 0xffff
        });
        let short = |seg: &Seg| seg.base <= 0xffff_ffff;
        let bases = self.canonical(tr.base)
            && self.canonical(self.seg(FS).base)
            && self.canonical(self.seg(GS).base)
            && (!ldtr.usable() || self.canonical(ldtr.base))
            && short(&cs)
            && [SS, DS, ES].into_iter().all(|fields| !self.seg(fields).usable() || short(&self.seg(fields)));
        selectors && virtual_8086 && bases
    }

    fn access_rights(&self) -> bool {
        let (cs, ss) = (self.seg(CS), self.seg(SS));
        if self.flag(17) {
            return [CS, SS, DS, ES, FS, GS].into_iter().all(|fields| self.seg(fields).rights == 0xf3);
        }
        let cs_type = match cs.kind() {
            3 => self.unrestricted() && cs.dpl() == 0,
            9 | 11 => cs.dpl() == ss.dpl(),
            13 | 15 => cs.dpl() <= ss.dpl(),
            _ => false,
        };
        let cs_rest =
            bit(cs.rights, 4) && cs.shape() && !(self.long() && bit(cs.rights, 13) && bit(cs.rights, 14));
        let ss_type = !ss.usable() || matches!(ss.kind(), 3 | 7) && bit(ss.rights, 4) && ss.shape();
        let is_real = cs.kind() == 3 || !bit(self.f(vmcs::GUEST_CR0), 0);
        let ss_dpl = (self.unrestricted() || ss.dpl() == ss.rpl()) && (!is_real || ss.dpl() == 0);
        let data = [DS, ES, FS, GS].into_iter().all(|fields| {
            let seg = self.seg(fields);
            let kind = seg.kind();
            !seg.usable()
                || bit(kind, 0)
                    && (!bit(kind, 3) || bit(kind, 1))
                    && bit(seg.rights, 4)
                    && (self.unrestricted() || kind >= 12 || seg.dpl() >= seg.rpl())
                    && seg.shape()
        });
        cs_type && cs_rest && ss_type && ss_dpl && data
    }

    fn system_segments(&self) -> bool {
        let (tr, ldtr) = (self.seg(TR), self.seg(LDTR));
        (if self.long() { tr.kind() == 11 } else { matches!(tr.kind(), 3 | 11) })
            && !bit(tr.rights, 4)
            && tr.usable()
            && tr.shape()
            && (!ldtr.usable() || ldtr.kind() == 2 && !bit(ldtr.rights, 4) && ldtr.shape())
    }

    fn rest(&self) -> bool {
        let flags = self.f(vmcs::GUEST_RFLAGS);
        let event = self.f(vmcs::ENTRY_INTERRUPTION_INFORMATION);
        self.canonical(self.f(vmcs::GUEST_GDTR_BASE))
            && self.canonical(self.f(vmcs::GUEST_IDTR_BASE))
            && self.f(vmcs::GUEST_GDTR_LIMIT) <= 0xffff
            && self.f(vmcs::GUEST_IDTR_LIMIT) <= 0xffff
            && self.pointer(self.f(vmcs::GUEST_RIP))
            && (22..64).chain([3, 5, 15]).all(|number| !bit(flags, number))
            && bit(flags, 1)
            && !(bit(flags, 17) && (self.long() || !bit(self.f(vmcs::GUEST_CR0), 0)))
            && (bit(flags, 9) || !(bit(event, 31) && event >> 8 & 7 == 0))
    }

    /// The kind and vector of the event to be injected.
    fn event(&self) -> Option<(u32, u32)> {
        let event = self.f(vmcs::ENTRY_INTERRUPTION_INFORMATION);
        bit(event, 31).then_some((event >> 8 & 7, event & 0xff))
    }

    fn activity(&self) -> bool {
        let (state, blocking) = (self.f(vmcs::GUEST_ACTIVITY), self.f(vmcs::GUEST_INTERRUPTIBILITY));
        if state > 3 || state == 1 && self.seg(SS).dpl() != 0 || state != 0 && blocking & 3 != 0 {
            return false;
        }
        match (state, self.event()) {
            (0, _) | (_, None) => true,
            (1, Some(event)) => matches!(event, (0 | 2, _) | (3, 1 | 18) | (7, 0)),
            (2, Some(event)) => matches!(event, (2, _) | (3, 18)),
            _ => false,
        }
    }

    fn interruptibility(&self) -> bool {
        let blocking = self.f(vmcs::GUEST_INTERRUPTIBILITY);
        let injects = |kind| self.event().is_some_and(|event| event.0 == kind);
        blocking < 32
            && blocking & 3 != 3
            && (self.flag(9) || !bit(blocking, 0))
            && !(injects(0) && blocking & 3 != 0)
            && !(injects(2) && bit(blocking, 1))
            && !bit(blocking, 2)
            && !(self.has_virtual_nmis() && injects(2) && bit(blocking, 3))
            && !(bit(blocking, 4) && bit(blocking, 1))
    }

    fn pending(&self) -> bool {
        let pending = self.f(vmcs::GUEST_PENDING_DEBUG_EXCEPTIONS);
        let blocking = self.f(vmcs::GUEST_INTERRUPTIBILITY);
        let stepping = self.flag(8) && !bit(self.f(vmcs::GUEST_DEBUGCTL), 1);
        let is_held = blocking & 3 != 0 || self.f(vmcs::GUEST_ACTIVITY) == 1;
        (4..11).chain([13, 15]).chain(17..64).all(|number| !bit(pending, number))
            && (!is_held || bit(pending, 14) == stepping)
            && (!bit(pending, 16)
                || pending & 0xfff == 0 && bit(pending, 12) && pending >> 13 & 7 == 0 && !bit(blocking, 1))
    }

    fn link(&self) -> bool {
        let link = self.f(vmcs::VMCS_LINK_POINTER);
        if link == u64::MAX {
            return true;
        }
        let mut word = [0; 4];
        let wanted = 0x2b | if self.secondary(14) { 1 << 31 } else { 0 };
        self.physical(link, 12)
            && self.machine.memory.read(GuestPhysAddr::new(link), &mut word).is_ok()
            && u32::from_le_bytes(word) == wanted
            && link != CURRENT.get()
    }

    fn pdptes(&self) -> bool {
        let (cr0, cr4) = (self.f(vmcs::GUEST_CR0), self.f(vmcs::GUEST_CR4));
        if !(bit(cr0, 31) && bit(cr4, 5)) || self.long() {
            return true;
        }
        let right = |pdpte: u64| {
            !bit(pdpte, 0) || self.physical(pdpte, 0) && [1, 2, 5, 6, 7, 8].iter().all(|&n| !bit(pdpte, n))
        };
        if self.secondary(1) {
            let fields = [vmcs::GUEST_PDPTE0, vmcs::GUEST_PDPTE1, vmcs::GUEST_PDPTE2, vmcs::GUEST_PDPTE3];
            return fields.into_iter().all(|field| right(self.f(field)));
        }
        let table = self.f(vmcs::GUEST_CR3) & 0xffff_ffe0;
        (0..4).all(|index| {
            let mut pdpte = [0; 8];
            let address = GuestPhysAddr::new(table + 8 * index);
            self.machine.memory.read(address, &mut pdpte).is_ok() && right(u64::from_le_bytes(pdpte))
        })
    }
}
