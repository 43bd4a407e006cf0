//! What devices reach beyond themselves.

/// Memory as the chipset sees it, and the way of interrupts to the CPUs.
pub(crate) trait Bus {
    /// Reads memory.
    fn read(&mut self, address: u64, data: &mut [u8]);

    /// Writes memory.
    fn write(&mut self, address: u64, data: &[u8]);

    /// Sends an interrupt as the message says.
    fn interrupt(&mut self, message: Message);

    /// Reads a little-endian word of 64 bits.
    fn read64(&mut self, address: u64) -> u64 {
        let mut word = [0; 8];
        self.read(address, &mut word);
        u64::from_le_bytes(word)
    }
}

/// A write of 32 bits to the interrupts' addresses (SDM, "Message Signalled Interrupts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where it is written to.
    pub(crate) address: u32,
    /// What is written.
    pub(crate) data: u32,
}

impl Message {
    /// Whether writes to `address` are interrupts.
    pub(crate) fn is_at(address: u64) -> bool {
        address >> 20 == 0xfee
    }
}

/// Bus, device and function by which a device asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceId(pub(crate) u16);

#[cfg(test)]
pub(crate) mod fake {
    use super::{Bus, Message};
    use std::collections::HashMap;

    /// Memory that is zero where nothing was written, and the messages that arrived.
    #[derive(Default)]
    pub(crate) struct FakeBus {
        bytes: HashMap<u64, u8>,
        pub(crate) messages: Vec<Message>,
    }

    impl FakeBus {
        pub(crate) fn put64(&mut self, address: u64, value: u64) {
            self.write(address, &value.to_le_bytes());
        }
    }

    impl Bus for FakeBus {
        fn read(&mut self, address: u64, data: &mut [u8]) {
            for (address, byte) in (address..).zip(data) {
                *byte = self.bytes.get(&address).copied().unwrap_or(0);
            }
        }
        fn write(&mut self, address: u64, data: &[u8]) {
            self.bytes.extend((address..).zip(data.iter().copied()));
        }
        fn interrupt(&mut self, message: Message) {
            self.messages.push(message);
        }
    }
}
