//! A registration with TrustVisor: sections, parameters and an entry address, of any making.
//!
//! Programs use [`pal!`](crate::pal!), which makes sections of a PAL's file; this is for those that lay out
//! memory themselves, as the original's did.
#![expect(unsafe_code, reason = "hypercalls, and calls of addresses")]
// UNSAFETY: lists are passed by address to hypercalls that read them; pages become a PAL's by an unsafe function.

use crate::call::{self, Returned};
use crate::hypercall::{self, Arguments};
use crate::{Error, Fault};
use core::mem::ManuallyDrop;
use trustvisor::call::{Failure, FaultKind};
use trustvisor::command::Command;
use trustvisor::parameter::{self, ParameterRecord};
use trustvisor::section::{self, SectionRecord, SectionType};
use trustvisor::signature::SignedHeader;

/// Words that the entry's assembly reads at least.
const WORDS_LEAST: usize = 6;

/// A section list.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Sections {
    count: u32,
    unused: u32,
    records: [SectionRecord; section::CAPACITY],
}

/// A parameter list.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Parameters {
    count: u32,
    unused: u32,
    records: [ParameterRecord; parameter::CAPACITY],
}

/// A registered PAL; unregistered when dropped.
#[derive(Debug)]
pub struct Registration {
    entry: usize,
}

impl Sections {
    /// A list without sections.
    #[must_use]
    pub const fn new() -> Self {
        let none = SectionRecord { kind: 0, pages: 0, start: 0 };
        Self { count: 0, unused: 0, records: [none; section::CAPACITY] }
    }

    /// Adds `pages` pages from `start` on.
    ///
    /// # Errors
    ///
    /// [`Error::ListFull`].
    pub fn add(&mut self, kind: SectionType, start: usize, pages: u32) -> Result<(), Error> {
        let record = self.records.get_mut(self.count as usize).ok_or(Error::ListFull)?;
        *record = SectionRecord { kind: kind as u32, pages, start: start as u64 };
        self.count += 1;
        Ok(())
    }
}

impl Default for Sections {
    fn default() -> Self {
        Self::new()
    }
}

impl Parameters {
    /// The list of `parameters`.
    ///
    /// # Errors
    ///
    /// [`Error::ListFull`].
    pub fn new(parameters: &[ParameterRecord]) -> Result<Self, Error> {
        let none = ParameterRecord { kind: 0, unused: 0, words: 0 };
        let mut records = [none; parameter::CAPACITY];
        records.get_mut(..parameters.len()).ok_or(Error::ListFull)?.copy_from_slice(parameters);
        Ok(Self { count: u32::try_from(parameters.len()).map_err(|_| Error::ListFull)?, unused: 0, records })
    }
}

impl Registration {
    /// Registers a PAL of `sections` with the entry address `entry`.
    ///
    /// # Safety
    ///
    /// Nobody but the PAL uses the sections, until they are unregistered.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`], or [`Error::Refused`] with what is wrong with the lists.
    pub unsafe fn new(sections: &Sections, parameters: &Parameters, entry: usize) -> Result<Self, Error> {
        // SAFETY: the duty is the caller's.
        unsafe { Self::register(Command::REGISTER, sections, parameters, entry, 0) }
    }

    /// As [`Self::new`], with [`flags`](trustvisor::flags), which are part of what the PAL is.
    ///
    /// # Safety
    ///
    /// As [`Self::new`].
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub unsafe fn with_flags(
        sections: &Sections,
        parameters: &Parameters,
        entry: usize,
        flags: u32,
    ) -> Result<Self, Error> {
        // SAFETY: the duty is the caller's.
        unsafe { Self::register(Command::REGISTER_WITH_FLAGS, sections, parameters, entry, flags as usize) }
    }

    /// As [`Self::new`], as the signed header says.
    ///
    /// # Safety
    ///
    /// As [`Self::new`].
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub unsafe fn signed(
        sections: &Sections,
        parameters: &Parameters,
        entry: usize,
        header: &SignedHeader,
    ) -> Result<Self, Error> {
        let bytes = header.to_bytes();
        let header = bytes.as_ptr().expose_provenance();
        // SAFETY: the duty is the caller's.
        unsafe { Self::register(Command::REGISTER_SIGNED, sections, parameters, entry, header) }
    }

    unsafe fn register(
        command: Command,
        sections: &Sections,
        parameters: &Parameters,
        entry: usize,
        d: usize,
    ) -> Result<Self, Error> {
        if !hypercall::is_present() {
            return Err(Error::Absent);
        }
        let arguments = Arguments {
            c: core::ptr::from_ref(sections).expose_provenance(),
            si: core::ptr::from_ref(parameters).expose_provenance(),
            di: entry,
            d,
        };
        // SAFETY: TrustVisor is there and reads the lists; what becomes of the sections is the caller's duty.
        let registered = unsafe { hypercall::checked(command, arguments) };
        registered.map_err(|status| Error::Refused { request: "registering", status })?;
        Ok(Self { entry })
    }

    /// Calls the PAL with one word for each parameter.
    ///
    /// # Safety
    ///
    /// Words whose parameter is a pointer name memory of the registered size, which may be read and written.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] or [`Error::Faulted`].
    pub unsafe fn call(&self, words: &[usize]) -> Result<usize, Error> {
        let mut passed = [0; parameter::CAPACITY];
        const { assert!(parameter::CAPACITY >= WORDS_LEAST) };
        passed.get_mut(..words.len()).ok_or(Error::Arguments)?.copy_from_slice(words);
        let mut returned = Returned::default();
        // SAFETY: a registered PAL; the words are the caller's duty.
        unsafe { call::call(self.entry, passed.as_ptr(), words.len(), &mut returned) };
        result(returned)
    }

    /// Gives the PAL the ranges of `addresses` and `bytes`, all multiples of a page and below 4 GiB, which the
    /// process keeps.
    ///
    /// # Errors
    ///
    /// [`Error::ListFull`] where the lists differ in length, or [`Error::Refused`].
    pub fn share(&self, addresses: &[u32], bytes: &[u32]) -> Result<(), Error> {
        if addresses.len() != bytes.len() {
            return Err(Error::ListFull);
        }
        let arguments = Arguments {
            c: self.entry,
            d: addresses.as_ptr().expose_provenance(),
            si: bytes.as_ptr().expose_provenance(),
            di: addresses.len(),
        };
        // SAFETY: TrustVisor is there, for there is a registration; it reads the two lists.
        let shared = unsafe { hypercall::checked(Command::SHARE, arguments) };
        shared.map_err(|status| Error::Refused { request: "sharing", status })
    }

    /// Ends the registration, so that the pages are the process's again, zero where the PAL could write.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; then the pages are still the PAL's.
    pub fn unregister(self) -> Result<(), Error> {
        ManuallyDrop::new(self).give_up()
    }

    /// Gives up a call that its thread has left for good, of a PAL that was registered with
    /// [`flags::ABORTABLE`](trustvisor::flags::ABORTABLE). Until then other calls find it busy.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn abort(&self) -> Result<(), Error> {
        let arguments = Arguments { c: self.entry, ..Arguments::default() };
        // SAFETY: TrustVisor is there, for there is a registration.
        let aborted = unsafe { hypercall::checked(Command::ABORT, arguments) };
        aborted.map_err(|status| Error::Refused { request: "giving up a call", status })
    }

    /// The address that is called.
    #[must_use]
    pub fn entry(&self) -> usize {
        self.entry
    }

    fn give_up(&self) -> Result<(), Error> {
        let arguments = Arguments { c: self.entry, ..Arguments::default() };
        // SAFETY: TrustVisor is there, for there is a registration.
        let ended = unsafe { hypercall::checked(Command::UNREGISTER, arguments) };
        ended.map_err(|status| Error::Refused { request: "unregistering", status })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Nobody is there to be told. A PAL that still runs keeps its pages until the process ends.
        let _ = self.give_up();
    }
}

/// What the registers behind a call mean.
fn result(returned: Returned) -> Result<usize, Error> {
    if returned.carry == 0 {
        return Ok(returned.a);
    }
    // Both numbers have 32 bits.
    let number = |word: usize| u32::try_from(word as u64 & 0xffff_ffff).unwrap_or(u32::MAX);
    match Failure(number(returned.a)) {
        Failure::FAULTED => {
            Err(Error::Faulted(Fault { kind: FaultKind(number(returned.d)), address: returned.c }))
        }
        failure => Err(Error::Failed(failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argument::{integer, pointer};
    use core::mem::offset_of;

    #[test]
    fn lists_have_the_layout_of_the_original() {
        assert_eq!(offset_of!(Sections, records), section::HEADER_BYTES);
        assert_eq!(offset_of!(Parameters, records), parameter::HEADER_BYTES);
        assert_eq!(size_of::<Sections>(), section::HEADER_BYTES + section::CAPACITY * section::RECORD_BYTES);
        let mut sections = Sections::new();
        sections.add(SectionType::Stack, 0x7000, 2).unwrap();
        assert_eq!(
            (sections.count, sections.records[0]),
            (1, SectionRecord { kind: 4, pages: 2, start: 0x7000 })
        );
        let parameters = Parameters::new(&[integer(), pointer(3)]).unwrap();
        assert_eq!((parameters.count, parameters.records[1].words), (2, 3));
    }

    #[test]
    fn full_lists_are_refused() {
        let mut sections = Sections::new();
        (0..64).for_each(|page| sections.add(SectionType::Data, page << 12, 1).unwrap());
        assert_eq!(sections.add(SectionType::Data, 0, 1), Err(Error::ListFull));
        assert!(Parameters::new(&[integer(); 64]).is_ok());
        assert_eq!(Parameters::new(&[integer(); 65]).unwrap_err(), Error::ListFull);
    }

    #[test]
    fn the_carry_flag_tells_failures_from_results() {
        let registers = Returned { a: 0xffff_ff04, c: 0x1234, d: 14, carry: 0 };
        assert_eq!(result(registers), Ok(0xffff_ff04));
        assert_eq!(result(Returned { carry: 1, ..registers }), Err(Error::Failed(Failure::BUSY)));
        let fault = Fault { kind: FaultKind(14), address: 0x1234 };
        assert_eq!(result(Returned { a: 0xffff_ff05, carry: 1, ..registers }), Err(Error::Faulted(fault)));
    }

    #[test]
    fn without_trustvisor_the_error_says_so() {
        if !hypercall::is_present() {
            let parameters = Parameters::new(&[]).unwrap();
            // SAFETY: refused before anything is done.
            let refused = unsafe { Registration::new(&Sections::new(), &parameters, 0x1000) };
            assert_eq!(refused.unwrap_err(), Error::Absent);
        }
    }
}
