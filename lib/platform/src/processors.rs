//! The list of CPUs, from the best source that the machine has.

use core::fmt;

use arrayvec::ArrayVec;

use crate::acpi::{self, Rsdp};
use crate::handoff::CPU_CAPACITY;
use crate::mp_table;
use crate::physical::ReadPhysical;

/// Where the list of CPUs came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// ACPI's MADT.
    Madt,
    /// The MP configuration table.
    MpTable,
    /// Neither: only the CPU that runs.
    BootstrapOnly,
}

/// The machine has more CPUs than a [`crate::handoff::Handoff`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyProcessors;

/// Local APIC IDs without doubles, the bootstrap processor's first.
#[derive(Clone, Debug)]
pub struct Processors {
    ids: ArrayVec<u32, CPU_CAPACITY>,
    /// Where the list came from.
    pub source: Source,
    /// Its source has no broken part, so that the list may well be whole.
    pub is_sound: bool,
}

impl Processors {
    /// Lists the CPUs of the machine whose bootstrap processor has the local APIC ID `bootstrap`.
    ///
    /// # Errors
    ///
    /// [`TooManyProcessors`].
    pub fn list(
        memory: &impl ReadPhysical,
        rsdp: Option<&Rsdp>,
        bootstrap: u32,
    ) -> Result<Self, TooManyProcessors> {
        let madt = rsdp.and_then(|rsdp| acpi::find(memory, rsdp, b"APIC").ok());
        for source in [Source::Madt, Source::MpTable] {
            let mut this = Self { ids: ArrayVec::from_iter([bootstrap]), source, is_sound: true };
            let (mut found, mut fits) = (false, Ok(()));
            let add = |id| {
                found = true;
                fits = fits.and(this.add(id));
            };
            let is_sound = match source {
                Source::Madt => madt.is_some_and(|madt| acpi::enabled_processors(memory, &madt, add).is_ok()),
                _ => mp_table::enabled_processors(memory, add).unwrap_or(false),
            };
            fits?;
            if found {
                return Ok(Self { is_sound, ..this });
            }
        }
        Ok(Self { ids: ArrayVec::from_iter([bootstrap]), source: Source::BootstrapOnly, is_sound: true })
    }

    /// Local APIC IDs, at least one.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Adds an ID that is not in the list yet: firmware may name a CPU by APIC and by x2APIC ID.
    fn add(&mut self, id: u32) -> Result<(), TooManyProcessors> {
        if self.ids.contains(&id) {
            return Ok(());
        }
        self.ids.try_push(id).map_err(|_| TooManyProcessors)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Madt => "madt",
            Self::MpTable => "mp-table",
            Self::BootstrapOnly => "bootstrap-only",
        })
    }
}

impl fmt::Display for TooManyProcessors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the machine has more than {CPU_CAPACITY} CPUs; switch some off in the firmware set-up")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::tests::machine_with_madt;
    use crate::mp_table::tests::put_pointer;
    use crate::physical::TestMemory;

    fn list(memory: &TestMemory, bootstrap: u32) -> Result<(Vec<u32>, Source), TooManyProcessors> {
        let rsdp = Rsdp::search(memory).ok();
        Processors::list(memory, rsdp.as_ref(), bootstrap).map(|list| (list.ids().to_vec(), list.source))
    }

    /// A MADT entry of an enabled CPU.
    fn x2apic(id: u32) -> Vec<u8> {
        let mut entry = vec![9, 16, 0, 0];
        entry.extend([id, 1, 0].map(u32::to_le_bytes).concat());
        entry
    }

    #[test]
    fn the_bootstrap_processor_comes_first_and_once() {
        let memory = machine_with_madt(&[&[0, 8, 0, 4, 1, 0, 0, 0], &[0, 8, 1, 2, 1, 0, 0, 0], &x2apic(4)]);
        assert_eq!(list(&memory, 2), Ok((vec![2, 4], Source::Madt)));
    }

    #[test]
    fn without_a_madt_the_mp_table_serves_and_then_one_cpu() {
        for entries in [&[&[0_u8, 0][..]][..], &[]] {
            let mut memory = machine_with_madt(entries);
            assert_eq!(list(&memory, 3), Ok((vec![3], Source::BootstrapOnly)));
            put_pointer(&mut memory, 0xf_0000, 0, 1);
            assert_eq!(list(&memory, 0), Ok((vec![0, 1], Source::MpTable)));
        }
    }

    #[test]
    fn what_is_told_before_a_broken_entry_counts() {
        let memory = machine_with_madt(&[&x2apic(4), &[0, 0]]);
        let rsdp = Rsdp::search(&memory).ok();
        let list = Processors::list(&memory, rsdp.as_ref(), 2).unwrap();
        assert_eq!((list.ids(), list.source, list.is_sound), (&[2, 4][..], Source::Madt, false));
    }

    #[test]
    fn no_acpi_falls_back_too() {
        let mut memory = TestMemory::new();
        assert_eq!(list(&memory, 7), Ok((vec![7], Source::BootstrapOnly)));
        put_pointer(&mut memory, 0xf_0000, 0, 1);
        assert_eq!(list(&memory, 1), Ok((vec![1, 0], Source::MpTable)));
    }

    #[test]
    fn a_full_list_fits_and_one_more_is_refused() {
        let entries: Vec<_> = (0..=CPU_CAPACITY as u32).map(x2apic).collect();
        let entries: Vec<_> = entries.iter().map(Vec::as_slice).collect();
        let full = list(&machine_with_madt(&entries[1..]), 1).unwrap();
        assert_eq!(full.0.len(), CPU_CAPACITY);
        assert_eq!(list(&machine_with_madt(&entries), 0), Err(TooManyProcessors));
    }
}
