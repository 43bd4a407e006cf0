//! A process and its memory in maps, for host tests.

use crate::layout::{Layout, PAGE};
use crate::machine::{Cover, Inaccessible, Pages, Process, Use};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use trustvisor::flags;
use trustvisor::parameter::{ParameterRecord, ParameterType, WordSize};
use trustvisor::section::{SectionRecord, SectionType};
use trustvisor::status::Status;

/// Where the lists are, in pages of their own.
pub(crate) const SECTIONS: u64 = 0x1_0000;
pub(crate) const PARAMETERS: u64 = 0x1_2000;
/// Where the four sections are that [`Fake::with_pal`] makes: code, data, parameters, stack.
pub(crate) const PAL: u64 = 0x40_0000;

/// What may be done with a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) page: u64,
    pub(crate) is_writable: bool,
    pub(crate) is_executable: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) mappings: RefCell<BTreeMap<u64, Mapping>>,
    contents: RefCell<BTreeMap<u64, Vec<u8>>>,
    pub(crate) devices: BTreeSet<u64>,
    pub(crate) covers: RefCell<BTreeMap<u64, Cover>>,
}

impl Fake {
    /// A process with both lists and a PAL of four pages; each page lies at 16 times its linear address.
    pub(crate) fn with_pal(parameters: &[(ParameterType, u64)]) -> Self {
        let fake = Self::default();
        for page in [SECTIONS, SECTIONS + PAGE, PARAMETERS, PARAMETERS + PAGE] {
            fake.map(page, true, false);
        }
        for index in 0..4 {
            fake.map(PAL + index * PAGE, true, index == 0);
        }
        fake.list_sections(&standard());
        fake.list_parameters(parameters);
        fake
    }

    pub(crate) fn map(&self, linear: u64, is_writable: bool, is_executable: bool) {
        let mapping = Mapping { page: linear * 16, is_writable, is_executable };
        self.mappings.borrow_mut().insert(linear, mapping);
    }

    pub(crate) fn list_sections(&self, sections: &[SectionRecord]) {
        self.poke(SECTIONS, &(sections.len() as u64).to_le_bytes());
        for (address, section) in (SECTIONS + 8..).step_by(16).zip(sections) {
            self.poke(address, &section.to_bytes());
        }
    }

    pub(crate) fn list_parameters(&self, parameters: &[(ParameterType, u64)]) {
        self.poke(PARAMETERS, &(parameters.len() as u64).to_le_bytes());
        for (address, &(kind, words)) in (PARAMETERS + 8..).step_by(16).zip(parameters) {
            let record = ParameterRecord { kind: kind as u32, unused: 7, words };
            self.poke(address, &record.to_bytes());
        }
    }

    /// Writes as the process does, where it can.
    pub(crate) fn poke(&self, address: u64, bytes: &[u8]) {
        assert_eq!(Process::write(self, address, bytes), Ok(()), "{address:#x} is mapped");
    }

    /// The word at a physical address.
    pub(crate) fn word(&self, physical: u64, size: WordSize) -> u64 {
        let mut bytes = [0; 8];
        Pages::read(self, physical, &mut bytes[..usize::try_from(size.bytes()).unwrap_or(8)]);
        u64::from_le_bytes(bytes)
    }

    fn walk(
        &self,
        address: u64,
        length: usize,
        is_write: bool,
        mut act: impl FnMut(u64, usize),
    ) -> Result<(), Inaccessible> {
        for offset in 0..length {
            let at = address.checked_add(offset as u64).ok_or(Inaccessible)?;
            let mappings = self.mappings.borrow();
            let mapping = mappings.get(&(at & !(PAGE - 1))).ok_or(Inaccessible)?;
            if is_write && !mapping.is_writable {
                return Err(Inaccessible);
            }
            act(mapping.page + at % PAGE, offset);
        }
        Ok(())
    }
}

/// What a registration of the process makes, with all its pages.
pub(crate) fn whole(process: &Fake, word: WordSize, lists: [u64; 3]) -> Result<Layout, Status> {
    let mut layout = Layout::read(process, word, flags::ORIGINAL, lists)?;
    while !layout.is_whole() {
        let step = layout.find_next(process, process)?;
        layout.take(&step);
    }
    Ok(layout)
}

/// Code, data, parameters and stack, a page each.
pub(crate) fn standard() -> [SectionRecord; 4] {
    let kinds = [SectionType::Code, SectionType::Data, SectionType::Parameters, SectionType::Stack];
    let mut start = PAL - PAGE;
    kinds.map(|kind| {
        start += PAGE;
        SectionRecord { kind: kind as u32, pages: 1, start }
    })
}

impl Process for Fake {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Inaccessible> {
        self.walk(address, bytes.len(), false, |physical, offset| {
            Pages::read(self, physical, &mut bytes[offset..=offset]);
        })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.walk(address, bytes.len(), true, |_, _| ())?;
        self.walk(address, bytes.len(), true, |physical, offset| {
            Pages::write(self, physical, &bytes[offset..=offset]);
        })
    }

    fn page(&self, address: u64, wanted: Use) -> Result<u64, Inaccessible> {
        let mappings = self.mappings.borrow();
        let mapping = mappings.get(&(address & !(PAGE - 1))).ok_or(Inaccessible)?;
        let may = match wanted {
            Use::Execute => mapping.is_executable,
            Use::Write => mapping.is_writable,
            Use::WriteAndExecute => mapping.is_writable && mapping.is_executable,
        };
        if may { Ok(mapping.page) } else { Err(Inaccessible) }
    }
}

impl Pages for Fake {
    fn is_memory(&self, page: u64) -> bool {
        !self.devices.contains(&page)
    }

    fn cover(&self, pages: &mut dyn Iterator<Item = (u64, Cover)>) -> Result<(), Inaccessible> {
        self.covers.borrow_mut().extend(pages);
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let contents = self.contents.borrow();
        let start = usize::try_from(address % PAGE).unwrap_or(0);
        match contents.get(&(address & !(PAGE - 1))) {
            Some(page) => bytes.copy_from_slice(&page[start..][..bytes.len()]),
            None => bytes.fill(0),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let mut contents = self.contents.borrow_mut();
        let start = usize::try_from(address % PAGE).unwrap_or(0);
        let page = contents.entry(address & !(PAGE - 1)).or_insert_with(|| vec![0; 4096]);
        page[start..][..bytes.len()].copy_from_slice(bytes);
    }
}
