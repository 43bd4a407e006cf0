//! The shadow VMCS of one processor.
//!
//! UNSAFETY: another VMCS is made current, and made inactive.
#![expect(unsafe_code, reason = "VMCS frames")]

use super::shadowing::{self, BITMAP_BYTES, Bitmap, PIECE_BYTES, Told};
use super::{NO_LINK, SHADOW_VMCS, Vmcs12};
use crate::machine;
use hw::bare::Processor;
use hw::bare::vmx::{self, CurrentVmcs};
use hw::{Msrs, PhysMemory, Vmcs, VmcsData};
use x86::address::HostPhysAddr;
use x86::msr::Msr;
use x86::vmx::capability::{Allowed, VmxMisc};
use x86::vmx::controls::SecondaryControls;
use x86::vmx::vmcs::{self, Field, FieldValue, TrustedField};

/// The bitmaps, which all processors share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmaps {
    read: HostPhysAddr,
    write: HostPhysAddr,
    has_log: bool,
}

impl Bitmaps {
    /// Makes them, where the processor has VMCS shadowing and lets us write VM-exit information.
    pub(crate) fn make() -> Option<Self> {
        let capability = |msr| Processor.read(msr).unwrap_or_default();
        let secondary = Allowed(capability(Msr::IA32_VMX_PROCBASED_CTLS2));
        let has_shadowing = secondary.may_be_one() & SecondaryControls::VMCS_SHADOWING.bits() != 0;
        if !has_shadowing || !VmxMisc(capability(Msr::IA32_VMX_MISC)).writes_exit_information() {
            return None;
        }
        let has_log = secondary.may_be_one() & SecondaryControls::ENABLE_PML.bits() != 0;
        Some(Self { read: frame_of(Bitmap::Read, has_log), write: frame_of(Bitmap::Write, has_log), has_log })
    }
}

fn frame_of(bitmap: Bitmap, has_log: bool) -> HostPhysAddr {
    let frame = machine::with_frame_run(1);
    for offset in (0..BITMAP_BYTES).step_by(PIECE_BYTES) {
        machine::region()
            .write(HostPhysAddr::new(frame.get() + offset as u64), &bitmap.piece(offset, has_log));
    }
    frame
}

/// A shadow VMCS while it is the current one.
struct Selected(CurrentVmcs);

impl Vmcs for Selected {
    #[inline(always)]
    fn read<T: FieldValue, const IS_TRUSTED: bool>(&self, field: Field<T, IS_TRUSTED>) -> T {
        self.0.read(field)
    }

    #[inline(always)]
    fn write<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        self.0.write(field, value);
    }

    #[inline(always)]
    unsafe fn write_trusted<T: FieldValue>(&mut self, field: TrustedField<T>, value: T) {
        // SAFETY: by the caller's duties.
        unsafe { self.0.write_trusted(field, value) }
    }
}

impl VmcsData for Selected {
    #[inline(always)]
    fn set<T: FieldValue, const IS_TRUSTED: bool>(&mut self, field: Field<T, IS_TRUSTED>, value: T) {
        // SAFETY: no guest is ever entered under a shadow VMCS: the processor refuses (SDM, "VMCS Shadowing").
        unsafe { self.0.write_trusted(field.trusted(), value) }
    }
}

/// The shadow VMCS of one processor.
#[derive(Debug)]
pub(crate) struct ShadowVmcs {
    frame: HostPhysAddr,
    bitmaps: Bitmaps,
    /// L1 has a current VMCS, of which this holds fields.
    is_on: bool,
    told: Told,
}

impl ShadowVmcs {
    /// One in a frame of its own, not in use.
    pub(crate) fn new(bitmaps: Bitmaps) -> Self {
        let told = Told::new(bitmaps.has_log);
        Self { frame: machine::with_frame_run(1), bitmaps, is_on: false, told }
    }

    /// Initialises the frame; the VMCS of L1 is current.
    pub(crate) fn set_up(&self, revision: u32, vmcs01: &mut CurrentVmcs) {
        machine::region().write(self.frame, &(revision | SHADOW_VMCS).to_le_bytes());
        // VMCLEAR initialises the region, whose revision has to be there (SDM, "Format of the VMCS Region").
        self.clear();
        for (field, frame) in [
            (vmcs::VMREAD_BITMAP_ADDRESS, self.bitmaps.read),
            (vmcs::VMWRITE_BITMAP_ADDRESS, self.bitmaps.write),
        ] {
            // SAFETY: a frame of the pool that holds this bitmap for good.
            unsafe { vmcs01.write_trusted(field, frame.get()) }
        }
    }

    /// Takes over what L1 wrote; another VMCS has to be made current behind it.
    pub(crate) fn fetch(&mut self, vmcs12: &mut Vmcs12) {
        if self.is_on {
            shadowing::fetch(&self.select(), &mut self.told, vmcs12);
            self.clear();
        }
    }

    /// Writes an exit to it for L1; another VMCS has to be made current behind it.
    pub(crate) fn tell_exit(&mut self, vmcs12: &Vmcs12) {
        if self.is_on {
            shadowing::tell_exit(&mut self.select(), &mut self.told, vmcs12);
            self.clear();
        }
    }

    /// Holds the fields of `vmcs12` from now on; another VMCS has to be made current behind it.
    pub(crate) fn hold(&mut self, vmcs12: &Vmcs12) {
        shadowing::tell_all(&mut self.select(), &mut self.told, vmcs12);
        self.clear();
    }

    /// Lets L1's VMREAD and VMWRITE reach it, or not; the VMCS of L1 is current.
    pub(crate) fn switch(&mut self, is_on: bool, vmcs01: &mut CurrentVmcs) {
        self.is_on = is_on;
        let mut secondary = SecondaryControls::from_bits_retain(vmcs01.read(vmcs::SECONDARY_CONTROLS));
        secondary.set(SecondaryControls::VMCS_SHADOWING, is_on);
        // SAFETY: `set_up` named both bitmaps, and the link pointer follows before any entry.
        unsafe { vmcs01.write_trusted(vmcs::SECONDARY_CONTROLS, secondary.bits()) }
        let link = if is_on { self.frame.get() } else { NO_LINK };
        // SAFETY: a frame of this CPU's own, initialised as a shadow VMCS by `set_up`; or none.
        unsafe { vmcs01.write_trusted(vmcs::VMCS_LINK_POINTER, link) }
    }

    fn select(&self) -> Selected {
        // SAFETY: a frame of this CPU's own, initialised by `set_up`.
        if unsafe { vmx::vmptrld(self.frame) }.is_err() {
            panic!("VMPTRLD of the shadow VMCS failed");
        }
        // SAFETY: just made current.
        Selected(unsafe { CurrentVmcs::new() })
    }

    /// The processor reads it in L1's stead only once it is inactive.
    fn clear(&self) {
        // SAFETY: a frame of this CPU's own with the revision.
        if unsafe { vmx::vmclear(self.frame) }.is_err() {
            panic!("VMCLEAR of the shadow VMCS failed");
        }
    }
}
