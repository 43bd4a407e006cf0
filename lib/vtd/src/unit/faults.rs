//! The records of what was refused (VT-d, "Primary Fault Logging").

use super::{Unit, UnitError};
use crate::fault::{Fault, FaultStatus, RECORD_TAKEN};
use crate::{Registers, TableMemory, offset};

/// What was in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Records that were taken.
    pub told: u16,
    /// More was refused than there were records for.
    pub is_more: bool,
}

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Tells of each record, the oldest first, and frees it for the next. A record is read before it is freed, and
    /// all of them before the overflow is taken back, which lets the unit record again.
    ///
    /// # Errors
    ///
    /// [`UnitError::QueueStopped`] where the queue stands still; the records are told all the same.
    pub fn drain_faults(&self, mut tell: impl FnMut(Fault)) -> Result<Drained, UnitError> {
        let status = self.fault_status();
        let mut drained = Drained { told: 0, is_more: status.contains(FaultStatus::OVERFLOW) };
        if status.contains(FaultStatus::PENDING) {
            let count = self.capability.fault_record_count();
            for index in 0..count {
                let record = (status.first_record() + index) % count;
                let at = self.capability.fault_records() + offset::FAULT_RECORD_BYTES * record;
                // The half that says that the record is there comes last, and so is read first.
                let [high, low] = [at + 8, at].map(|half| self.registers.read_u64(half));
                if let Some(fault) = Fault::decode(low, high) {
                    tell(fault);
                    drained.told += 1;
                    self.registers.write_u64(at + 8, RECORD_TAKEN);
                }
            }
        }
        if drained.is_more {
            self.registers.write_u32(offset::FAULT_STATUS, FaultStatus::OVERFLOW.bits());
        }
        match status & FaultStatus::QUEUE_ERRORS {
            errors if errors.is_empty() => Ok(drained),
            errors => Err(UnitError::QueueStopped(errors)),
        }
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
