//! One unit, driven: translation, protected memory, invalidation, faults, interrupt remapping.
//!
//! Each wait has an end, and one that came to it is an error: a unit that does not answer protects nothing.

mod error;
mod faults;
mod interrupts;
mod invalidation;
mod protected;
mod queue;

pub use error::{UnitError, Wait};
pub use faults::Drained;
pub use protected::ProtectedRange;

use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

use crate::capability::{Capability, ExtendedCapability};
use crate::command::{Contexts, Global, ROOT_TABLE_MODE, Translations};
use crate::fault::{FaultControl, FaultStatus};
use crate::{Registers, TableMemory, offset};
use queue::Queue;

/// Reads of a register before a unit is called dead: far more than any command takes.
pub const PATIENCE: u32 = 10_000_000;

/// A unit.
#[derive(Debug)]
pub struct Unit<R, M> {
    registers: R,
    memory: M,
    capability: Capability,
    extended: ExtendedCapability,
    patience: u32,
    queue: Option<Queue>,
    has_root_table: bool,
}

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Takes the unit with these registers, which walks tables in `memory`, as it stands: no register is written.
    ///
    /// # Errors
    ///
    /// [`UnitError::Absent`].
    pub fn new(registers: R, memory: M) -> Result<Self, UnitError> {
        let [capability, extended] =
            [offset::CAPABILITY, offset::EXTENDED_CAPABILITY].map(|offset| registers.read_u64(offset));
        let version = registers.read_u32(offset::VERSION);
        if version == 0 || version == u32::MAX || capability == 0 || capability == u64::MAX {
            return Err(UnitError::Absent);
        }
        Ok(Self {
            capability: Capability::from_bits_retain(capability),
            extended: ExtendedCapability::from_bits_retain(extended),
            registers,
            memory,
            patience: PATIENCE,
            queue: None,
            has_root_table: false,
        })
    }

    /// The same, given up after `polls` reads of a register.
    #[must_use]
    pub fn with_patience(self, polls: u32) -> Self {
        Self { patience: polls, ..self }
    }

    /// What it can do.
    #[must_use]
    pub const fn capability(&self) -> Capability {
        self.capability
    }

    /// What more it can do.
    #[must_use]
    pub const fn extended_capability(&self) -> ExtendedCapability {
        self.extended
    }

    /// Takes over from firmware or a system before: faults interrupt nobody, and queue, interrupt remapping and
    /// the fault log are off.
    /// Translation stays as it was, so that nothing opens in between.
    ///
    /// # Errors
    ///
    /// [`UnitError::Silent`].
    pub fn take_over(&mut self) -> Result<(), UnitError> {
        let control = FaultControl::from_bits_retain(self.registers.read_u32(offset::FAULT_CONTROL));
        self.registers.write_u32(offset::FAULT_CONTROL, (control | FaultControl::MASK).bits());
        let status = self.status();
        if status.contains(Global::QUEUED_INVALIDATION) {
            // Behind the last descriptor, not into the middle of one.
            let ends = || [offset::QUEUE_HEAD, offset::QUEUE_TAIL].map(|end| self.registers.read_u64(end));
            self.wait(Wait::Queue, || {
                let [head, tail] = ends();
                head == tail || self.fault_status().intersects(FaultStatus::QUEUE_ERRORS)
            })?;
        }
        // A log in memory would keep faults out of the records.
        let left_on =
            [Global::QUEUED_INVALIDATION, Global::INTERRUPT_REMAPPING, Global::ADVANCED_FAULT_LOGGING];
        for on in left_on {
            if status.contains(on) {
                self.clear(on)?;
            }
        }
        self.queue = None;
        Ok(())
    }

    /// Makes `root`, in legacy mode, the table that the unit starts its walks from, and forgets all that came from
    /// another. Tables are complete and written back; while translation is on, they hold for the next request.
    ///
    /// # Errors
    ///
    /// [`UnitError`].
    pub fn set_root_table(&mut self, root: HostPhysAddr) -> Result<(), UnitError> {
        if !root.get().is_multiple_of(PAGE_SIZE) {
            return Err(UnitError::Unaligned(PAGE_SIZE));
        }
        let is_other_mode = self.registers.read_u64(offset::ROOT_TABLE) & ROOT_TABLE_MODE != 0;
        if is_other_mode && self.is_translating() {
            return Err(UnitError::Unsupported("change of the tables' mode while it translates"));
        }
        self.flush_write_buffer()?;
        self.registers.write_u64(offset::ROOT_TABLE, root.get() & !ROOT_TABLE_MODE);
        self.set(Global::SET_ROOT_TABLE)?;
        // Contexts first, by which translations are kept.
        if !self.capability.contains(Capability::SET_ROOT_TABLE_INVALIDATES) {
            self.invalidate_contexts(Contexts::All)?;
            self.invalidate_translations(Translations::All)?;
        }
        self.has_root_table = true;
        Ok(())
    }

    /// Turns translation on.
    ///
    /// # Errors
    ///
    /// [`UnitError::NoRootTable`] before [`Unit::set_root_table`]; [`UnitError::Silent`].
    pub fn enable_translation(&mut self) -> Result<(), UnitError> {
        if !self.has_root_table {
            return Err(UnitError::NoRootTable);
        }
        self.set(Global::TRANSLATION)
    }

    /// Turns translation off: devices reach all memory but what is protected.
    ///
    /// # Errors
    ///
    /// [`UnitError::Silent`].
    pub fn disable_translation(&mut self) -> Result<(), UnitError> {
        self.clear(Global::TRANSLATION)
    }

    /// Whether the unit translates.
    #[must_use]
    pub fn is_translating(&self) -> bool {
        self.status().contains(Global::TRANSLATION)
    }

    /// Lets the unit see what was written to tables, where it has write buffers that it does not look into.
    ///
    /// # Errors
    ///
    /// [`UnitError::Silent`].
    pub fn flush_write_buffer(&self) -> Result<(), UnitError> {
        if !self.capability.contains(Capability::REQUIRED_WRITE_BUFFER_FLUSH) {
            return Ok(());
        }
        let flush = Global::WRITE_BUFFER_FLUSH;
        self.command(self.lasting().union(flush));
        self.wait(Wait::Status(flush), || !self.status().contains(flush))
    }

    fn set(&self, bit: Global) -> Result<(), UnitError> {
        self.command(self.lasting().union(bit));
        self.wait(Wait::Status(bit), || self.status().contains(bit))
    }

    fn clear(&self, bit: Global) -> Result<(), UnitError> {
        self.command(self.lasting().difference(bit));
        self.wait(Wait::Status(bit), || !self.status().contains(bit))
    }

    fn command(&self, command: Global) {
        self.registers.write_u32(offset::GLOBAL_COMMAND, command.bits());
    }

    /// The command that changes nothing.
    fn lasting(&self) -> Global {
        self.status().difference(Global::ONE_SHOT)
    }

    fn status(&self) -> Global {
        Global::from_bits_retain(self.registers.read_u32(offset::GLOBAL_STATUS))
    }

    fn fault_status(&self) -> FaultStatus {
        FaultStatus::from_bits_retain(self.registers.read_u32(offset::FAULT_STATUS))
    }

    fn wait(&self, wait: Wait, is_done: impl Fn() -> bool) -> Result<(), UnitError> {
        for _ in 0..self.patience {
            if is_done() {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(UnitError::Silent(wait))
    }
}

#[cfg(test)]
#[path = "../unit_tests.rs"]
mod tests;
