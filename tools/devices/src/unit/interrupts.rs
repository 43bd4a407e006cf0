//! Interrupts that devices ask for, remapped ("Interrupt Remapping").

use super::registers::{bits16, halves};
use super::translation::Reason;
use crate::bus::{Bus, Message, SourceId};

/// What a request of `source` becomes by the table that the register `table` tells of.
pub(super) fn remap(
    bus: &mut impl Bus,
    table: u64,
    allows_compatibility: bool,
    source: SourceId,
    request: Message,
) -> Result<Message, Reason> {
    let is_remappable = request.address & 0x10 != 0;
    if !is_remappable {
        return if allows_compatibility { Ok(request) } else { Err(Reason::CompatibilityFormat) };
    }
    let index = index(request)?;
    if index >= 2 << (table & 0xf) {
        return Err(Reason::InterruptIndex);
    }
    let at = (table & !0xfff) + index * 16;
    let entry = [bus.read64(at), bus.read64(at + 8)];
    if entry[0] & 1 == 0 {
        return Err(Reason::InterruptNotPresent);
    }
    // Posted interrupts are not offered.
    if entry[0] & 0xff00_f000 != 0 || entry[1] >> 20 != 0 || entry[0] & 1 << 15 != 0 {
        return Err(Reason::InterruptEntryReserved);
    }
    if !is_verified(entry[1], source) {
        return Err(Reason::InterruptSource);
    }
    Ok(message(entry[0]))
}

/// Which entry a request in remappable format names.
fn index(request: Message) -> Result<u64, Reason> {
    let handle = u64::from(request.address >> 5 & 0x7fff) | u64::from(request.address >> 2 & 1) << 15;
    let has_subhandle = request.address & 8 != 0;
    if request.data >> 16 != 0 || !has_subhandle && request.data != 0 {
        return Err(Reason::InterruptReserved);
    }
    Ok(handle + if has_subhandle { u64::from(request.data) } else { 0 })
}

/// Whether the entry is there for this device.
fn is_verified(high: u64, source: SourceId) -> bool {
    let (id, qualifier, kind) = (bits16(high, 0), high >> 16 & 3, high >> 18 & 3);
    let ignored: [u16; 4] = [0, 0b100, 0b110, 0b111];
    match kind {
        0 => true,
        1 => ignored.get(usize::from(bits16(qualifier, 0))).is_some_and(|mask| (id ^ source.0) & !mask == 0),
        2 => {
            let [last, first] = id.to_le_bytes();
            (first..=last).contains(&source.0.to_le_bytes()[1])
        }
        _ => false,
    }
}

/// The message that an entry's low half stands for, to a local APIC of eight bits.
fn message(low: u64) -> Message {
    let [low, destination] = halves(low);
    let (is_logical, is_redirected, is_level) = (low >> 2 & 1, low >> 3 & 1, low >> 4 & 1);
    let (delivery, vector) = (low >> 5 & 7, low >> 16 & 0xff);
    Message {
        address: 0xfee0_0000 | (destination >> 8 & 0xff) << 12 | is_redirected << 3 | is_logical << 2,
        data: is_level << 15 | is_level << 14 | delivery << 8 | vector,
    }
}
