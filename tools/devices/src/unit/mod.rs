//! A remapping unit: its registers, and every access of a device through it.

#[cfg(test)]
mod fixture;
mod interrupts;
mod queue;
mod registers;
#[cfg(test)]
mod tests;
mod translation;

use crate::bus::{Bus, Message, SourceId};
use registers::{FaultStatus, Global, PROTECTED_LOW_BITS, RECORDS, Registers, at, halves};
use translation::{Reason, Scope, Target, Translations};

pub(crate) use registers::SIZE;

/// Address of the unit's registers.
pub(crate) const BASE: u64 = 0xfed9_0000;

/// The unit.
pub(crate) struct Unit {
    registers: Registers,
    /// The tables' addresses as the last commands to set them found them.
    root: u64,
    interrupts: u64,
    translations: Translations,
    next_record: usize,
    /// Numbers of accesses, told at the machine's end.
    pub(crate) passed: u64,
    pub(crate) blocked: u64,
}

/// An access of a device's.
pub(crate) enum Access<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

/// An access was blocked, all or part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocked;

impl Unit {
    pub(crate) fn new() -> Self {
        Self {
            registers: Registers::at_reset(),
            root: 0,
            interrupts: 0,
            translations: Translations::default(),
            next_record: 0,
            passed: 0,
            blocked: 0,
        }
    }

    /// What a reset of the machine leaves.
    pub(crate) fn reset(&mut self) {
        *self = Self { passed: self.passed, blocked: self.blocked, ..Self::new() };
    }

    /// Carries out a device's access. A read that is blocked gives ones.
    pub(crate) fn access(
        &mut self,
        bus: &mut impl Bus,
        source: SourceId,
        address: u64,
        access: Access<'_>,
    ) -> Result<(), Blocked> {
        let mut outcome = Ok(());
        match access {
            Access::Write(data) if Message::is_at(address) => {
                return self.message(bus, source, address, data);
            }
            Access::Write(data) => {
                for (at, part) in pages(address, data.len()) {
                    match self.target(bus, source, at, true) {
                        Ok(to) => bus.write(to, &data[part]),
                        Err(blocked) => outcome = Err(blocked),
                    }
                }
            }
            Access::Read(data) => {
                for (at, part) in pages(address, data.len()) {
                    match self.target(bus, source, at, false) {
                        Ok(to) => bus.read(to, &mut data[part]),
                        Err(blocked) => {
                            data[part].fill(0xff);
                            outcome = Err(blocked);
                        }
                    }
                }
            }
        }
        outcome
    }

    /// Where an access within a page goes.
    fn target(
        &mut self,
        bus: &mut impl Bus,
        source: SourceId,
        address: u64,
        writes: bool,
    ) -> Result<u64, Blocked> {
        let is_on = self.registers.status().contains(Global::TRANSLATION);
        let target = if is_on {
            self.translations.translate(bus, self.root, source, address, writes)
        } else {
            Ok(Target::PassThrough)
        };
        match target {
            Ok(Target::Mapped(to)) => {
                self.passed += 1;
                Ok(to)
            }
            // Of these no fault is recorded.
            Ok(Target::PassThrough) if self.is_protected(address) => {
                self.blocked += 1;
                Err(Blocked)
            }
            Ok(Target::PassThrough) => {
                self.passed += 1;
                Ok(address)
            }
            Err(reason) => {
                self.fault(bus, source, address & !0xfff, !writes, reason);
                Err(Blocked)
            }
        }
    }

    /// Whether an address is in a protected region ("Protected Memory Regions").
    fn is_protected(&self, address: u64) -> bool {
        let region = |base: u64, limit: u64| base..=limit | u64::from(PROTECTED_LOW_BITS);
        let low = region(
            self.registers.get(at::PROTECTED_LOW_BASE).into(),
            self.registers.get(at::PROTECTED_LOW_LIMIT).into(),
        );
        let high = region(
            self.registers.get64(at::PROTECTED_HIGH_BASE),
            self.registers.get64(at::PROTECTED_HIGH_LIMIT),
        );
        self.registers.get(at::PROTECTED_ENABLE) & 1 != 0
            && (low.contains(&address) || high.contains(&address))
    }

    /// An interrupt that a device asks for.
    fn message(
        &mut self,
        bus: &mut impl Bus,
        source: SourceId,
        address: u64,
        data: &[u8],
    ) -> Result<(), Blocked> {
        let Ok(data) = <[u8; 4]>::try_from(data) else {
            return Err(Blocked);
        };
        let request = Message { address: halves(address)[0], data: u32::from_le_bytes(data) };
        let status = self.registers.status();
        let allows_compatibility = status.contains(Global::COMPATIBILITY_FORMAT);
        let message = if status.contains(Global::INTERRUPT_REMAPPING) {
            interrupts::remap(bus, self.interrupts, allows_compatibility, source, request)
        } else {
            Ok(request)
        };
        match message {
            Ok(message) => {
                self.passed += 1;
                bus.interrupt(message);
                Ok(())
            }
            Err(reason) => {
                // The record has the index where memory's has the address.
                let index =
                    u64::from(request.address >> 5 & 0x7fff) | u64::from(request.address >> 2 & 1) << 15;
                self.fault(bus, source, index << 48, false, reason);
                Err(Blocked)
            }
        }
    }

    /// Records a fault ("Primary Fault Logging").
    fn fault(&mut self, bus: &mut impl Bus, source: SourceId, what: u64, reads: bool, reason: Reason) {
        self.blocked += 1;
        let record = at::FAULT_RECORDS + 16 * self.next_record;
        if self.registers.get(record + 12) >> 31 != 0 {
            self.raise(FaultStatus::OVERFLOW);
            return;
        }
        self.registers.put64(record, what);
        let about = u64::from(source.0) | u64::from(reason as u8) << 32 | u64::from(reads) << 62 | 1 << 63;
        self.registers.put64(record + 8, about);
        self.next_record = (self.next_record + 1) % RECORDS;
        self.event(bus, at::FAULT_EVENT);
    }

    fn raise(&mut self, status: FaultStatus) {
        self.registers.put(at::FAULT_STATUS, self.registers.get(at::FAULT_STATUS) | status.bits());
    }

    /// Sends the interrupt that the registers from `control` on describe, unless it is masked.
    fn event(&mut self, bus: &mut impl Bus, control: usize) {
        const MASKED: u32 = 1 << 31;
        const PENDING: u32 = 1 << 30;
        let mask = self.registers.get(control) & MASKED;
        self.registers.put(control, mask | if mask != 0 { PENDING } else { 0 });
        if mask == 0 {
            let [data, address] = [control + 4, control + 8].map(|offset| self.registers.get(offset));
            bus.interrupt(Message { address, data });
        }
    }

    /// A CPU reads registers.
    pub(crate) fn read(&mut self, offset: usize, data: &mut [u8]) {
        self.show_first_fault();
        let first = offset & !3;
        let words = [0, 4, 8].map(|next| self.registers.get((first + next) % SIZE).to_le_bytes());
        let bytes = words.as_flattened().iter().skip(offset - first);
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Brings the fault status in line with the records.
    fn show_first_fault(&mut self) {
        let is_full = |index: &usize| self.registers.get(at::FAULT_RECORDS + 16 * index + 12) >> 31 != 0;
        let shown = match (0..RECORDS).find(is_full) {
            Some(index) => u32::try_from(index).unwrap_or(0) << 8 | FaultStatus::PENDING.bits(),
            None => 0,
        };
        let kept = FaultStatus::CLEARED_BY_ONE.bits();
        self.registers.put(at::FAULT_STATUS, self.registers.get(at::FAULT_STATUS) & kept | shown);
    }

    /// A CPU writes registers: 4 or 8 bytes, aligned; anything else does nothing.
    pub(crate) fn write(&mut self, bus: &mut impl Bus, offset: usize, data: &[u8]) {
        if !offset.is_multiple_of(data.len().max(1)) {
            return;
        }
        if let Ok(word) = data.try_into() {
            self.write32(bus, offset, u32::from_le_bytes(word));
        } else if let Ok(word) = data.try_into() {
            let [low, high] = halves(u64::from_le_bytes(word));
            self.write32(bus, offset, low);
            self.write32(bus, offset + 4, high);
        }
    }

    fn write32(&mut self, bus: &mut impl Bus, offset: usize, value: u32) {
        const RECORDS_END: usize = at::FAULT_RECORDS + 16 * RECORDS;
        let registers = &mut self.registers;
        let old = registers.get(offset);
        match offset {
            at::GLOBAL_COMMAND => self.command(value),
            // Plain words; those of 64 bits act when their high half is written.
            at::ROOT_TABLE | 0x24 | at::CONTEXT_COMMAND | 0x3c | 0x40 | 0x44 => registers.put(offset, value),
            at::QUEUE_ADDRESS | 0x94 | 0xa4 | 0xa8 | 0xac | at::INTERRUPT_TABLE | 0xbc => {
                registers.put(offset, value)
            }
            at::INVALIDATE_ADDRESS | 0x104 | at::IOTLB => registers.put(offset, value),
            0x2c => {
                registers.put(offset, value);
                self.context_command();
            }
            0x10c => {
                registers.put(offset, value);
                self.iotlb_command();
            }
            at::FAULT_STATUS => registers.put(offset, old & !(value & FaultStatus::CLEARED_BY_ONE.bits())),
            at::FAULT_EVENT | at::COMPLETION_EVENT => {
                // Unmasked, one that was held back is sent.
                let was_pending = old >> 30 & 1 != 0;
                registers.put(offset, value & 1 << 31 | old & 1 << 30);
                if was_pending && value >> 31 == 0 {
                    self.event(bus, offset);
                }
            }
            at::PROTECTED_ENABLE => registers.put(offset, value & 1 << 31 | value >> 31),
            at::PROTECTED_LOW_BASE
            | at::PROTECTED_LOW_LIMIT
            | at::PROTECTED_HIGH_BASE
            | at::PROTECTED_HIGH_LIMIT => {
                registers.put(offset, value & !PROTECTED_LOW_BITS);
            }
            0x74 | 0x7c => registers.put(offset, value & 0xffff),
            at::QUEUE_TAIL => {
                registers.put(offset, value & 0x7_fff0);
                self.work_off_queue(bus);
            }
            at::COMPLETION_STATUS => registers.put(offset, old & !(value & 1)),
            // Of a record nothing can be written but F, to clear it.
            at::FAULT_RECORDS..RECORDS_END if offset & 0xf == 12 => {
                registers.put(offset, old & !(value & 1 << 31))
            }
            _ => {}
        }
    }

    fn command(&mut self, value: u32) {
        let command = Global::from_bits_truncate(value);
        let old = self.registers.status();
        let mut status = old & !Global::LEVELS | command & Global::LEVELS;
        if command.contains(Global::ROOT_TABLE) {
            self.root = self.registers.get64(at::ROOT_TABLE);
            status |= Global::ROOT_TABLE;
        }
        if command.contains(Global::INTERRUPT_TABLE) {
            self.interrupts = self.registers.get64(at::INTERRUPT_TABLE);
            status |= Global::INTERRUPT_TABLE;
        }
        if (command & !old).contains(Global::QUEUE) {
            self.registers.put(at::QUEUE_HEAD, 0);
        }
        self.registers.put(at::GLOBAL_STATUS, status.bits());
    }

    /// Invalidates contexts as the command register says; with the queue in use it has no effect, as no processor's.
    fn context_command(&mut self) {
        let value = self.registers.get64(at::CONTEXT_COMMAND);
        if value >> 63 == 0 {
            return;
        }
        if !self.registers.status().contains(Global::QUEUE) {
            self.translations.forget_contexts_as(value >> 61 & 3, value);
        }
        let done = value & !(1 << 63) & !(3 << 59) | (value >> 61 & 3) << 59;
        self.registers.put64(at::CONTEXT_COMMAND, done);
    }

    /// Invalidates pages likewise.
    fn iotlb_command(&mut self) {
        let value = self.registers.get64(at::IOTLB);
        if value >> 63 == 0 {
            return;
        }
        if !self.registers.status().contains(Global::QUEUE) {
            let address = self.registers.get64(at::INVALIDATE_ADDRESS);
            self.translations.forget_pages_as(value >> 60 & 3, registers::bits16(value, 32), address);
        }
        let done = value & !(1 << 63) & !(3 << 57) | (value >> 60 & 3) << 57;
        self.registers.put64(at::IOTLB, done);
    }
}

impl Translations {
    /// By the granularity that commands and descriptors have alike: all, a domain's, a device's.
    fn forget_contexts_as(&mut self, granularity: u64, command: u64) {
        match granularity {
            1 => self.forget_contexts(Scope::All),
            2 => self.forget_contexts(Scope::Domain(registers::bits16(command, 0))),
            3 => self.forget_contexts(Scope::Device(registers::bits16(command, 16))),
            _ => {}
        }
    }

    /// By granularity: all, a domain's, some pages of a domain's.
    fn forget_pages_as(&mut self, granularity: u64, domain: u16, address: u64) {
        match granularity {
            1 => self.forget_pages(Scope::All),
            2 => self.forget_pages(Scope::Domain(domain)),
            3 => {
                let order = u32::from(registers::bits16(address & 0x3f, 0));
                self.forget_pages(Scope::Pages { domain, address: address & !0xfff, order });
            }
            _ => {}
        }
    }
}

/// An access cut at pages' bounds: where each part is, and which bytes.
fn pages(address: u64, size: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = address + done as u64;
        let room = 0x1000 - usize::from(registers::bits16(at & 0xfff, 0));
        let part = done..size.min(done + room);
        done = part.end;
        (!part.is_empty()).then_some((at, part))
    })
}
