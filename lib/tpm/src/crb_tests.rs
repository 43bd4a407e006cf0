use super::*;
use std::collections::BTreeMap;

const BASE: u64 = 0x2_fed4_2000;

/// Registers that keep what is written, but for those that the TPM clears at once.
struct Registers(BTreeMap<u16, u32>);

impl Registers {
    /// A locality that is given, with buffers at `address` of `size` bytes.
    fn with_buffers(address: u64, size: u32) -> Self {
        let [low, high] = [address as u32, (address >> 32) as u32];
        Self(BTreeMap::from([
            (register::LOCALITY_STATE, STATE_VALID),
            (register::LOCALITY_STATUS, LOCALITY_GRANTED),
            (register::COMMAND_LOW, low),
            (register::COMMAND_HIGH, high),
            (register::COMMAND_SIZE, size),
            (register::ANSWER_LOW, low),
            (register::ANSWER_HIGH, high),
            (register::ANSWER_SIZE, size),
        ]))
    }

    fn open(self) -> Result<Buffer, TransportError> {
        Crb::open(self).map(|crb| crb.command)
    }
}

impl Device for Registers {
    fn read_u8(&mut self, offset: u16) -> u8 {
        // An answer of 10 bytes.
        if offset & 0xf == 5 { 10 } else { 0 }
    }
    fn write_u8(&mut self, _: u16, _: u8) {}
    fn read_u32(&mut self, offset: u16) -> u32 {
        self.0.get(&offset).copied().unwrap_or(0)
    }
    fn write_u32(&mut self, offset: u16, value: u32) {
        let is_cleared = [register::REQUEST, register::START].contains(&offset);
        self.0.insert(offset, if is_cleared { 0 } else { value });
    }
    fn base(&self) -> u64 {
        BASE
    }
    fn now(&mut self) -> u64 {
        0
    }
}

#[test]
fn registers_that_are_not_valid_are_no_tpm_s() {
    for state in [0, !STATE_VALID, u32::MAX] {
        let mut registers = Registers::with_buffers(BASE + 0x80, 0x100);
        registers.0.insert(register::LOCALITY_STATE, state);
        assert_eq!(registers.open(), Err(TransportError::Absent), "{state:#x}");
    }
}

#[test]
fn a_buffer_lies_among_its_locality_s_registers() {
    let open = |address: u64, size: u32| Registers::with_buffers(address, size).open();
    let inside = |offset: u16, size: u32| {
        assert_eq!(open(BASE + u64::from(offset), size), Ok(Buffer { offset, size: size as usize }))
    };
    inside(0, 0x1000);
    inside(0x80, 0xf80);
    inside(0x80, 10);
    inside(0xff6, 10);
    for (address, size) in [
        (BASE - 1, 0x80),
        (BASE + 0x80, 0xf81),
        (BASE + 0x80, 9),
        (BASE + 0xff7, 10),
        (BASE + 0x1000, 0x80),
        (BASE + 0x1000, 0),
        // Other halves of the address.
        (BASE - (1 << 32) + 0x80, 0x80),
        (BASE + (1 << 32) + 0x80, 0x80),
        (BASE + 0x1_0080, 0x80),
    ] {
        assert_eq!(
            open(address, size),
            Err(TransportError::BufferElsewhere(address)),
            "{address:#x} {size:#x}"
        );
    }
}

#[test]
fn a_command_is_a_header_at_least_and_a_buffer_at_most() {
    let mut crb = Crb::open(Registers::with_buffers(BASE + 0x80, 32)).unwrap();
    for (length, sent) in [
        (9, Err(TransportError::CommandSize(9))),
        (10, Ok(10)),
        (32, Ok(10)),
        (33, Err(TransportError::CommandSize(33))),
    ] {
        assert_eq!(crb.transact(&vec![0; length], &mut [0; 64], 0), sent, "{length}");
    }
}
