//! The invalidation queue (VT-d, "Queued Invalidation Interface"): one page, and a word that the unit writes.

use x86::address::HostPhysAddr;
use x86::paging::PAGE_SIZE;

use super::{Unit, UnitError, Wait};
use crate::capability::ExtendedCapability;
use crate::command::Global;
use crate::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::fault::FaultStatus;
use crate::{Registers, TableMemory, offset};

/// A queue in use. Each request is waited for, so it never fills.
#[derive(Debug)]
pub(super) struct Queue {
    page: HostPhysAddr,
    /// Of 8 bytes.
    status: HostPhysAddr,
    /// Offset of the next descriptor.
    tail: u64,
    /// What the last wait wrote.
    ticket: u32,
}

impl<R: Registers, M: TableMemory> Unit<R, M> {
    /// Invalidates by a queue from now on: `page` is its, and the unit writes the 8 bytes at `status`.
    ///
    /// # Errors
    ///
    /// [`UnitError::Unsupported`] where there is none, [`UnitError::Unaligned`], [`UnitError::Silent`].
    pub fn enable_queue(&mut self, page: HostPhysAddr, status: HostPhysAddr) -> Result<(), UnitError> {
        if !self.extended.contains(ExtendedCapability::QUEUED_INVALIDATION) {
            return Err(UnitError::Unsupported("queued invalidation"));
        }
        if !page.get().is_multiple_of(PAGE_SIZE) {
            return Err(UnitError::Unaligned(PAGE_SIZE));
        }
        if !status.get().is_multiple_of(8) {
            return Err(UnitError::Unaligned(8));
        }
        self.memory.write_u64(status, 0);
        self.memory.write_back(status, 8);
        self.registers.write_u64(offset::QUEUE_TAIL, 0);
        // 256 descriptors of 128 bits.
        self.registers.write_u64(offset::QUEUE_ADDRESS, page.get());
        self.set(Global::QUEUED_INVALIDATION)?;
        self.queue = Some(Queue { page, status, tail: 0, ticket: 0 });
        Ok(())
    }

    /// Has the unit do what `descriptor` says, and returns when it is done.
    pub(super) fn submit(&mut self, descriptor: Descriptor) -> Result<(), UnitError> {
        let queue = self.queue.as_mut().ok_or(UnitError::NoQueue)?;
        queue.ticket = queue.ticket.wrapping_add(1);
        let (status, ticket) = (queue.status, queue.ticket);
        for Descriptor([low, high]) in [descriptor, Descriptor::wait(status, ticket)] {
            let at = HostPhysAddr::new(queue.page.get() + queue.tail);
            self.memory.write_u64(at, low);
            self.memory.write_u64(HostPhysAddr::new(at.get() + 8), high);
            if !self.extended.contains(ExtendedCapability::COHERENT_WALKS) {
                self.memory.write_back(at, DESCRIPTOR_BYTES);
            }
            queue.tail = (queue.tail + DESCRIPTOR_BYTES) % PAGE_SIZE;
        }
        self.registers.write_u64(offset::QUEUE_TAIL, queue.tail);
        let errors = || self.fault_status() & FaultStatus::QUEUE_ERRORS;
        let is_done = || self.memory.read_u64(status) & u64::from(u32::MAX) == u64::from(ticket);
        self.wait(Wait::Queue, || is_done() || !errors().is_empty())?;
        if is_done() { Ok(()) } else { Err(UnitError::QueueStopped(errors())) }
    }
}
