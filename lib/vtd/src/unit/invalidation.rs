//! Forgetting what the unit keeps of tables (VT-d, "Invalidation of Translation Caches").

use super::{Unit, UnitError, Wait};
use crate::capability::Capability;
use crate::command::{ContextCommand, Contexts, IotlbCommand, Translations};
use crate::descriptor::Descriptor;
use crate::{Registers, TableMemory, offset};

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Returns when no device goes by what second-level tables said before: of `which`, and of requests on their way,
    /// where the unit can wait for these.
    ///
    /// # Errors
    ///
    /// [`UnitError`].
    pub fn follow_tables(&mut self, which: Translations) -> Result<(), UnitError> {
        self.flush_write_buffer()?;
        self.invalidate_translations(which)
    }

    /// Returns when no device goes by the contexts of before, nor by translations that were kept by them.
    ///
    /// # Errors
    ///
    /// [`UnitError`].
    pub fn follow_contexts(&mut self, which: Contexts) -> Result<(), UnitError> {
        self.flush_write_buffer()?;
        self.invalidate_contexts(which)?;
        self.invalidate_translations(match which {
            Contexts::All => Translations::All,
            Contexts::Domain(domain) | Contexts::Device(domain, _) => Translations::Domain(domain),
        })
    }

    pub(super) fn invalidate_contexts(&mut self, which: Contexts) -> Result<(), UnitError> {
        if self.queue.is_some() {
            return self.submit(Descriptor::contexts(which));
        }
        let read = || ContextCommand::from_bits_retain(self.registers.read_u64(offset::CONTEXT_COMMAND));
        self.registers.write_u64(offset::CONTEXT_COMMAND, ContextCommand::from(which).bits());
        self.wait(Wait::Contexts, || !read().contains(ContextCommand::INVALIDATE))?;
        if read().intersects(ContextCommand::DONE) { Ok(()) } else { Err(UnitError::Refused(Wait::Contexts)) }
    }

    pub(super) fn invalidate_translations(&mut self, which: Translations) -> Result<(), UnitError> {
        let which = self.within_capability(which);
        let [reads, writes] = [Capability::READ_DRAINING, Capability::WRITE_DRAINING]
            .map(|draining| self.capability.contains(draining));
        if self.queue.is_some() {
            return self.submit(Descriptor::iotlb(which, reads, writes));
        }
        let mut command = IotlbCommand::from(which);
        command.set(IotlbCommand::DRAIN_READS, reads);
        command.set(IotlbCommand::DRAIN_WRITES, writes);
        let address = self.extended.iotlb_registers();
        let register = address + offset::IOTLB_COMMAND;
        self.registers.write_u64(address, which.address());
        self.registers.write_u64(register, command.bits());
        let read = || IotlbCommand::from_bits_retain(self.registers.read_u64(register));
        self.wait(Wait::Iotlb, || !read().contains(IotlbCommand::INVALIDATE))?;
        if read().intersects(IotlbCommand::DONE) { Ok(()) } else { Err(UnitError::Refused(Wait::Iotlb)) }
    }

    /// The least that the unit can do which covers `which`.
    fn within_capability(&self, which: Translations) -> Translations {
        match which {
            Translations::Pages { domain, mask, .. }
                if !self.capability.contains(Capability::PAGE_SELECTIVE_INVALIDATION)
                    || mask > self.capability.largest_page_mask() =>
            {
                Translations::Domain(domain)
            }
            within => within,
        }
    }
}

#[cfg(test)]
#[path = "invalidation_tests.rs"]
mod tests;
