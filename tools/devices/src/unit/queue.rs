//! The invalidation queue ("Queued Invalidation Interface").

use super::Unit;
use super::registers::{FaultStatus, Global, at, bits16, halves};
use crate::bus::Bus;

impl Unit {
    /// Carries out the descriptors from the queue's head to its tail.
    pub(super) fn work_off_queue(&mut self, bus: &mut impl Bus) {
        if !self.registers.status().contains(Global::QUEUE) {
            return;
        }
        let place = self.registers.get64(at::QUEUE_ADDRESS);
        let size = 0x1000 << (place & 7);
        // The head would never meet a tail beyond the queue's end.
        if self.registers.get(at::QUEUE_TAIL) >= size {
            self.raise(FaultStatus::QUEUE_ERROR);
            return;
        }
        while self.registers.get(at::QUEUE_HEAD) != self.registers.get(at::QUEUE_TAIL) {
            let head = self.registers.get(at::QUEUE_HEAD);
            let descriptor = (place & !0xfff) + u64::from(head);
            let [low, high] = [bus.read64(descriptor), bus.read64(descriptor + 8)];
            if self.carry_out(bus, low, high).is_none() {
                self.raise(FaultStatus::QUEUE_ERROR);
                return;
            }
            self.registers.put(at::QUEUE_HEAD, (head + 16) % size);
        }
    }

    /// A descriptor; nothing where there is none of this type.
    fn carry_out(&mut self, bus: &mut impl Bus, low: u64, high: u64) -> Option<()> {
        match low & 0xf {
            // The device's fields are 16 bits higher than in the register.
            1 => {
                let command = u64::from(bits16(low, 16)) | u64::from(bits16(low, 32)) << 16;
                self.translations.forget_contexts_as(low >> 4 & 3, command);
            }
            2 => self.translations.forget_pages_as(low >> 4 & 3, bits16(low, 16), high),
            // Interrupt entries are read anew each time.
            4 => {}
            5 => {
                if low & 0x20 != 0 {
                    bus.write(high & !3, &halves(low)[1].to_le_bytes());
                }
                if low & 0x10 != 0 {
                    self.registers.put(at::COMPLETION_STATUS, 1);
                    self.event(bus, at::COMPLETION_EVENT);
                }
            }
            _ => return None,
        }
        Some(())
    }
}
