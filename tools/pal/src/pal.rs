//! A PAL from its file: mapped, registered and called.
#![expect(unsafe_code, reason = "pages become a PAL's")]
// UNSAFETY: the pages are our own and handed to nobody; a call's words are checked against the registration.

use crate::argument::Passed;
use crate::image::{Image, ImageError, parameter_pages};
use crate::memory::Pages;
use crate::registration::{Parameters, Registration, Sections};
use crate::system::Rights;
use crate::{Error, PAGE_SIZE};
use trustvisor::parameter::{ParameterRecord, WordSize};
use trustvisor::section::SectionType;

const WORD_SIZE: WordSize =
    if cfg!(target_pointer_width = "64") { WordSize::Bits64 } else { WordSize::Bits32 };

/// Makes a type of a PAL's file, with the parameters of its function.
///
/// ```ignore
/// xmhf_pal::pal! {
///     /// Counts.
///     pub struct Counter = xmhf_pal::image!("counter");
///     fn count(step: u32, total: &mut u64) -> usize;
/// }
/// ```
///
/// `Counter::register()` gives the PAL, `counter.call(step, &mut total)` runs it, `counter.unregister()` or dropping
/// it gives the memory back.
#[macro_export]
macro_rules! pal {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident = $image:expr;
     fn $function:ident($($argument:ident: $type:ty),* $(,)?) -> usize;) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visibility struct $name($crate::Pal);

        impl $name {
            /// The parameters of the PAL's function.
            pub const PARAMETERS: &'static [$crate::trustvisor::parameter::ParameterRecord] =
                &[$(<$type as $crate::Argument>::RECORD),*];

            /// Maps the PAL and hides it from everybody else.
            ///
            /// # Errors
            ///
            /// TrustVisor is not there, the memory is not to be had, or TrustVisor refuses.
            pub fn register() -> ::core::result::Result<Self, $crate::Error> {
                Self::register_with(0)
            }

            /// The same with [flags]($crate::trustvisor::flags), which are part of what the PAL is. A signed PAL has
            /// those that its signer gave it.
            ///
            /// # Errors
            ///
            /// As [`Self::register`].
            #[allow(dead_code, reason = "most programs need none")]
            pub fn register_with(flags: u32) -> ::core::result::Result<Self, $crate::Error> {
                let image = $crate::Image::parse($image)?;
                $crate::Pal::register(&image, Self::PARAMETERS, flags).map(Self)
            }

            /// Runs the PAL's function.
            ///
            /// # Errors
            ///
            /// The PAL could not run, or faulted.
            pub fn call(&self $(, $argument: $type)*) -> ::core::result::Result<usize, $crate::Error> {
                self.0.call(&[$($crate::Argument::pass($argument)),*])
            }

            /// Ends the PAL and gives its memory back.
            ///
            /// # Errors
            ///
            /// TrustVisor refuses, for the PAL runs.
            pub fn unregister(self) -> ::core::result::Result<(), $crate::Error> {
                self.0.unregister()
            }

            /// The PAL beneath.
            #[allow(dead_code, reason = "not every program looks beneath")]
            pub fn pal(&self) -> &$crate::Pal {
                &self.0
            }
        }
    };
}

/// The file that the build script made of the PAL of this name.
#[macro_export]
macro_rules! image {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".pal"))
    };
}

/// A registered PAL in memory of its own.
#[derive(Debug)]
pub struct Pal {
    // Dropped first: the pages are the system's only after the PAL is gone.
    registration: Registration,
    memory: Pages,
    parameters: &'static [ParameterRecord],
}

/// Where a PAL's pages are, by index from the first; the page before the stack belongs to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    parameters: usize,
    parameter_pages: u32,
    stack: usize,
}

impl Pal {
    /// Maps a PAL at the addresses in its file, copies it there, and registers it with `flags`, or as its signer says.
    ///
    /// # Errors
    ///
    /// TrustVisor is not there, the memory is not to be had, or TrustVisor refuses.
    pub fn register(
        image: &Image<'_>,
        parameters: &'static [ParameterRecord],
        flags: u32,
    ) -> Result<Self, Error> {
        if !crate::is_present() {
            return Err(Error::Absent);
        }
        let list = Parameters::new(parameters)?;
        let layout = Layout::new(image, parameters)?;
        let start = to_word(image.start())?;
        let mut memory = Pages::at(start, layout.stack + image.stack_pages() as usize)?;
        let mut sections = Sections::new();
        for segment in image.segments() {
            let offset = to_word(segment.start - image.start())?;
            memory.bytes_mut()[offset..][..segment.bytes.len()].copy_from_slice(segment.bytes);
            sections.add(segment.kind, start + offset, segment.pages)?;
        }
        for segment in image.segments().filter(|segment| segment.kind.is_code()) {
            let first = to_word(segment.start - image.start())? / PAGE_SIZE;
            // What is hidden has to be this process's own to write.
            memory.protect(first, segment.pages as usize, Rights::All)?;
        }
        let address = |page: usize| start + page * PAGE_SIZE;
        sections.add(SectionType::Parameters, address(layout.parameters), layout.parameter_pages)?;
        sections.add(SectionType::Stack, address(layout.stack), image.stack_pages())?;
        let entry = to_word(image.entry)?;
        let registration = match &image.signed {
            // SAFETY: the pages are private to this value, which shows them to nobody while they are registered.
            None => unsafe { Registration::with_flags(&sections, &list, entry, flags)? },
            // SAFETY: as above.
            Some(header) => unsafe { Registration::signed(&sections, &list, entry, header)? },
        };
        let mut pal = Self { registration, memory, parameters };
        for segment in image.segments().filter(|segment| segment.kind.is_code()) {
            let first = to_word(segment.start - image.start())? / PAGE_SIZE;
            pal.memory.protect(first, segment.pages as usize, Rights::Execute)?;
        }
        Ok(pal)
    }

    /// Runs the PAL's function.
    ///
    /// # Errors
    ///
    /// [`Error::Arguments`] where they are not as registered, [`Error::Failed`] or [`Error::Faulted`].
    pub fn call(&self, arguments: &[Passed<'_>]) -> Result<usize, Error> {
        let mut words = [0; trustvisor::parameter::CAPACITY];
        let is_registered = arguments.len() == self.parameters.len()
            && arguments.iter().zip(self.parameters).all(|(argument, record)| argument.record == *record);
        if !is_registered {
            return Err(Error::Arguments);
        }
        words.iter_mut().zip(arguments).for_each(|(word, argument)| *word = argument.word);
        // SAFETY: each argument borrows memory of the size in its record, and the record is the registered one.
        unsafe { self.registration.call(&words[..arguments.len()]) }
    }

    /// Ends the PAL and gives its memory back.
    ///
    /// # Errors
    ///
    /// TrustVisor refuses, for the PAL runs; then the memory stays the PAL's.
    pub fn unregister(self) -> Result<(), Error> {
        let Self { registration, memory, .. } = self;
        let ended = registration.unregister();
        if ended.is_err() {
            core::mem::forget(memory);
        }
        ended
    }

    /// The PAL's pages, as the rest of the process sees them.
    #[must_use]
    pub fn memory(&self) -> &Pages {
        &self.memory
    }

    /// The registration beneath.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }
}

impl Layout {
    fn new(image: &Image<'_>, parameters: &[ParameterRecord]) -> Result<Self, Error> {
        if image.word_size != WORD_SIZE {
            return Err(Error::Image(ImageError::WordSize));
        }
        let parameter_pages = parameter_pages(parameters, WORD_SIZE);
        let pages = to_word(image.end() - image.start())? / PAGE_SIZE;
        let stack = pages.saturating_add(parameter_pages as usize).saturating_add(1);
        Ok(Self { parameters: pages, parameter_pages, stack })
    }
}

fn to_word(address: u64) -> Result<usize, Error> {
    usize::try_from(address).map_err(|_| Error::Image(ImageError::WordSize))
}
