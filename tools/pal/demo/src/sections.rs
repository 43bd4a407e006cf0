//! A PAL as the original's programs lay it out: four sections, each of pages of its own from the system.
#![expect(unsafe_code, reason = "pages become a PAL's")]
// UNSAFETY: the pages are this value's own; pointers come with the PAL's parameter list.

use crate::functions::code;
use xmhf_pal::memory::Pages;
use xmhf_pal::registration::Parameters;
use xmhf_pal::system::Rights;
use xmhf_pal::trustvisor::parameter::ParameterRecord;
use xmhf_pal::trustvisor::section::SectionType;
use xmhf_pal::{Error, Registration, Sections};

/// What pages are filled with before they are registered: NOP.
const FILL: u8 = 0x90;

/// Pages for a PAL, with the functions' code in them.
#[derive(Debug)]
pub struct Memory {
    code: Pages,
    data: Pages,
    parameters: Pages,
    stack: Pages,
}

/// A registered PAL; its pages are the [`Memory`]'s it was made of.
#[derive(Debug)]
pub struct Registered<'a> {
    registration: Registration,
    memory: &'a mut Memory,
}

impl Memory {
    /// Takes a page for each section from the system and copies the functions there.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn new() -> Result<Self, Error> {
        let page = || {
            let mut pages = Pages::anywhere(1)?;
            pages.bytes_mut().fill(FILL);
            pages.protect(0, 1, Rights::All)?;
            Ok::<_, Error>(pages)
        };
        let mut memory = Self { code: page()?, data: page()?, parameters: page()?, stack: page()? };
        memory.code.bytes_mut()[..code().len()].copy_from_slice(code());
        Ok(memory)
    }

    /// Registers the copy of `function` with `parameters`.
    ///
    /// # Errors
    ///
    /// TrustVisor is not there, or refuses.
    pub fn register(
        &mut self,
        function: *const (),
        parameters: &[ParameterRecord],
    ) -> Result<Registered<'_>, Error> {
        let entry = self.code.start() + (function.addr() - code().as_ptr().addr());
        let mut sections = Sections::new();
        sections.add(SectionType::Code, self.code.start(), 1)?;
        sections.add(SectionType::Data, self.data.start(), 1)?;
        sections.add(SectionType::Parameters, self.parameters.start(), 1)?;
        sections.add(SectionType::Stack, self.stack.start(), 1)?;
        let parameters = Parameters::new(parameters)?;
        // SAFETY: the pages are this value's own, and it is borrowed for as long as they are registered.
        let registration = unsafe { Registration::new(&sections, &parameters, entry)? };
        Ok(Registered { registration, memory: self })
    }
}

impl Registered<'_> {
    /// Addresses of the pages: code, data, parameters, stack.
    #[must_use]
    pub fn pages(&self) -> [usize; 4] {
        let Memory { code, data, parameters, stack } = &*self.memory;
        [code, data, parameters, stack].map(Pages::start)
    }

    /// Calls the PAL.
    ///
    /// # Safety
    ///
    /// Words whose parameter is a pointer name memory of the registered size, which may be read and written.
    ///
    /// # Errors
    ///
    /// As [`Registration::call`].
    pub unsafe fn call(&self, words: &[usize]) -> Result<usize, Error> {
        // SAFETY: the duty is the caller's.
        unsafe { self.registration.call(words) }
    }

    /// Ends the registration.
    ///
    /// # Errors
    ///
    /// TrustVisor refuses.
    pub fn unregister(self) -> Result<(), Error> {
        self.registration.unregister()
    }
}
