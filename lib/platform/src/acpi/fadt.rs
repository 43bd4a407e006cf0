//! Ports that reset the machine or cut its power (ACPI, "Fixed ACPI Description Table (FADT)").

use super::sleep::power_off_types;
use super::{AcpiError, Table};
use crate::handoff::{Pm1Ports, PowerPorts, SleepPorts};
use crate::physical::ReadPhysical;

/// Offsets of the fields used, in bytes.
const PM1A_EVENT: u64 = 56;
const PM1A_CONTROL: u64 = 64;
const PM1B_CONTROL: u64 = 68;
const FLAGS: u64 = 112;
const RESET_REGISTER: u64 = 116;
const RESET_VALUE: u64 = 128;
const X_PM1A_EVENT: u64 = 148;
const X_PM1A_CONTROL: u64 = 172;
const X_PM1B_CONTROL: u64 = 184;
const SLEEP_CONTROL: u64 = 244;
const SLEEP_STATUS: u64 = 256;

/// Registers by which a guest can sleep or cut the power.
const SLEEPING: [(u64, &str); 3] = [
    (X_PM1A_CONTROL, "PM1a_CNT_BLK"),
    (X_PM1B_CONTROL, "PM1b_CNT_BLK"),
    (SLEEP_CONTROL, "SLEEP_CONTROL_REG"),
];

/// Flags: RESET_REG is there.
const RESET_SUPPORTED: u32 = 1 << 10;
/// Bytes of a generic address structure.
const GENERIC_ADDRESS_SIZE: u64 = 12;
/// Address space of a generic address structure: I/O ports.
const SYSTEM_IO: u8 = 1;

/// Reads RESET_REG, the PM1 blocks and the sleep types; a register outside I/O space counts as absent.
///
/// # Errors
///
/// [`AcpiError::Unreadable`]; an old, short table only lacks registers.
pub fn power_ports(memory: &impl ReadPhysical, fadt: &Table) -> Result<PowerPorts, AcpiError> {
    let (old, extended) =
        ([PM1A_CONTROL, PM1B_CONTROL, PM1A_EVENT], [X_PM1A_CONTROL, X_PM1B_CONTROL, X_PM1A_EVENT]);
    let mut ports = PowerPorts {
        power_off_types: power_off_types(memory, fadt).unwrap_or(0),
        pm1: [
            pm1_ports(old, |offset| port(memory, fadt, offset))?,
            pm1_ports(extended, |offset| generic_port(memory, fadt, offset))?,
        ],
        sleep: SleepPorts {
            control: generic_port(memory, fadt, SLEEP_CONTROL)?,
            status: generic_port(memory, fadt, SLEEP_STATUS)?,
        },
        ..PowerPorts::default()
    };
    for (register, name) in SLEEPING {
        if is_elsewhere(memory, fadt, register)? {
            log::warn!("{name} is outside I/O space: power off and sleep by it go unnoticed");
        }
    }
    let has_reset =
        has(fadt, RESET_VALUE, 1) && memory.read_u32(fadt.address + FLAGS)? & RESET_SUPPORTED != 0;
    if has_reset {
        ports.reset_port = generic_port(memory, fadt, RESET_REGISTER)?;
        [ports.reset_value] = memory.read_array(fadt.address + RESET_VALUE)?;
    }
    Ok(ports)
}

/// Returns whether the register whose generic address lies at `offset` is there, and no port.
fn is_elsewhere(memory: &impl ReadPhysical, fadt: &Table, offset: u64) -> Result<bool, AcpiError> {
    if !has(fadt, offset, GENERIC_ADDRESS_SIZE) {
        return Ok(false);
    }
    let is_there = memory.read_u64(fadt.address + offset + 4)? != 0;
    Ok(is_there && generic_port(memory, fadt, offset)? == 0)
}

/// The PM1 blocks whose addresses lie at these offsets, as `port` reads them.
fn pm1_ports(
    [a_control, b_control, a_status]: [u64; 3],
    port: impl Fn(u64) -> Result<u16, AcpiError>,
) -> Result<Pm1Ports, AcpiError> {
    Ok(Pm1Ports { a_control: port(a_control)?, b_control: port(b_control)?, a_status: port(a_status)? })
}

fn port(memory: &impl ReadPhysical, fadt: &Table, offset: u64) -> Result<u16, AcpiError> {
    if !has(fadt, offset, 4) {
        return Ok(0);
    }
    Ok(u16::try_from(memory.read_u32(fadt.address + offset)?).unwrap_or(0))
}

fn generic_port(memory: &impl ReadPhysical, fadt: &Table, offset: u64) -> Result<u16, AcpiError> {
    if !has(fadt, offset, GENERIC_ADDRESS_SIZE) {
        return Ok(0);
    }
    let [space] = memory.read_array(fadt.address + offset)?;
    let address = memory.read_u64(fadt.address + offset + 4)?;
    Ok(if space == SYSTEM_IO { u16::try_from(address).unwrap_or(0) } else { 0 })
}

fn has(fadt: &Table, offset: u64, size: u64) -> bool {
    fadt.length >= offset + size
}

#[cfg(test)]
mod tests {
    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::TestMemory;

    fn table(length: usize, edits: &[(u64, &[u8])]) -> (TestMemory, Table) {
        let mut table = vec![0; 276];
        for (offset, bytes) in edits {
            let start = *offset as usize;
            table[start..start + bytes.len()].copy_from_slice(bytes);
        }
        let mut memory = TestMemory::new();
        put_table(&mut memory, 0x4000, b"FACP", &table[36..length]);
        let table = Table::read(&memory, 0x4000).unwrap();
        (memory, table)
    }

    fn ports(length: usize, edits: &[(u64, &[u8])]) -> PowerPorts {
        let (memory, table) = table(length, edits);
        power_ports(&memory, &table).unwrap()
    }

    const RESET: [u8; 13] = [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6];

    #[test]
    fn a_modern_table_gives_all_ports_by_either_kind_of_field() {
        let read = ports(
            244,
            &[
                (FLAGS, &RESET_SUPPORTED.to_le_bytes()),
                (RESET_REGISTER, &RESET),
                (PM1A_CONTROL, &[0xff, 0xff]),
                (X_PM1A_CONTROL, &[1, 16, 0, 2, 0x04, 0x06]),
                (PM1B_CONTROL, &[0x04, 0x07]),
                (PM1A_EVENT, &[0xff, 0xff]),
                (X_PM1A_EVENT, &[1, 32, 0, 2, 0x00, 0x06]),
            ],
        );
        let expected = PowerPorts {
            reset_port: 0xcf9,
            reset_value: 6,
            pm1: [
                Pm1Ports { a_control: 0xffff, b_control: 0x704, a_status: 0xffff },
                Pm1Ports { a_control: 0x604, b_control: 0, a_status: 0x600 },
            ],
            ..PowerPorts::default()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn sleep_types_come_from_the_table_that_it_names() {
        let dsdt = 0x5000_u32;
        let mut table = [0; 208];
        table[4..8].copy_from_slice(&dsdt.to_le_bytes());
        let mut memory = TestMemory::new();
        put_table(&mut memory, 0x4000, b"FACP", &table);
        put_table(&mut memory, 0x5000, b"DSDT", b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x05\0\0");
        let fadt = Table::read(&memory, 0x4000).unwrap();
        assert_eq!(power_ports(&memory, &fadt).unwrap().power_off_types, 1 << 5);
    }

    #[test]
    fn an_old_table_lacks_registers_only() {
        let read = ports(116, &[(PM1A_CONTROL, &[0x04, 0xb0])]);
        assert_eq!(read.pm1, [Pm1Ports { a_control: 0xb004, ..Pm1Ports::default() }, Pm1Ports::default()]);
        assert_eq!(ports(36, &[]), PowerPorts::default());
    }

    #[test]
    fn registers_in_memory_or_without_the_flag_count_as_absent() {
        assert_eq!(ports(244, &[(RESET_REGISTER, &RESET)]), PowerPorts::default());
        let mut in_memory = RESET;
        in_memory[0] = 0;
        let flag = RESET_SUPPORTED.to_le_bytes();
        let read = ports(244, &[(FLAGS, &flag), (RESET_REGISTER, &in_memory)]);
        assert_eq!(read.reset_port, 0);
        let wide = ports(244, &[(X_PM1A_CONTROL, &[1, 16, 0, 2, 4, 6, 1]), (PM1A_CONTROL, &[0, 0, 1])]);
        assert_eq!(wide.pm1, [Pm1Ports::default(); 2]);
    }

    #[test]
    fn what_lies_behind_a_table_is_no_field_of_it() {
        let mut full = [0; 276];
        // There is no table at address 2, and no memory as high as the other address.
        (full[40], full[147]) = (2, 1);
        for old in [PM1A_EVENT, PM1A_CONTROL, PM1B_CONTROL] {
            full[old as usize..][..2].copy_from_slice(&[4, 6]);
        }
        full[FLAGS as usize..RESET_REGISTER as usize].copy_from_slice(&RESET_SUPPORTED.to_le_bytes());
        full[RESET_REGISTER as usize..][..RESET.len()].copy_from_slice(&RESET);
        for (register, space) in [
            (X_PM1A_EVENT, 1),
            (X_PM1A_CONTROL, 1),
            (X_PM1B_CONTROL, 0),
            (SLEEP_CONTROL, 0),
            (SLEEP_STATUS, 1),
        ] {
            full[register as usize..][..6].copy_from_slice(&[space, 8, 0, 1, 4, 6]);
        }
        for length in 36..276 {
            let read = |behind: &[u8]| {
                let mut memory = TestMemory::new();
                put_table(&mut memory, 0x4000, b"FACP", &full[36..length]);
                memory.put(0x4000 + length, behind);
                let table = Table::read(&memory, 0x4000).unwrap();
                let elsewhere =
                    SLEEPING.map(|(register, _)| is_elsewhere(&memory, &table, register).unwrap());
                (power_ports(&memory, &table).unwrap(), elsewhere, power_off_types(&memory, &table))
            };
            assert_eq!(read(&full[length..]), read(&vec![0; 276 - length]), "{length}");
        }
    }

    #[test]
    fn hardware_reduced_machines_have_sleep_registers_of_their_own() {
        let edits =
            [(SLEEP_CONTROL, &[1, 8, 0, 1, 0x05, 0x06][..]), (SLEEP_STATUS, &[1, 8, 0, 1, 0x06, 0x06])];
        assert_eq!(ports(276, &edits).sleep, SleepPorts { control: 0x605, status: 0x606 });
        // Revisions before 5 have none.
        assert_eq!(ports(244, &edits).sleep, SleepPorts::default());
        let in_memory = [(SLEEP_CONTROL, &[0, 8, 0, 1, 0, 0, 0xd0, 0xfe][..])];
        assert_eq!(ports(276, &in_memory).sleep, SleepPorts::default());
        let elsewhere = |length, edits: &[(u64, &[u8])]| {
            let (memory, table) = table(length, edits);
            SLEEPING.map(|(register, _)| is_elsewhere(&memory, &table, register).unwrap())
        };
        assert_eq!(elsewhere(276, &in_memory), [false, false, true]);
        let blocks =
            [(X_PM1A_CONTROL, &[0, 16, 0, 2, 0, 0, 0xd0, 0xfe][..]), (X_PM1B_CONTROL, &[1, 16, 0, 2, 4, 6])];
        assert_eq!(elsewhere(244, &blocks), [true, false, false]);
        // A register of some kind at address 0 is none.
        let absent = [(SLEEP_CONTROL, &[0, 8, 0, 1][..])];
        for (length, edits) in [(276, &edits[..]), (244, &in_memory), (276, &absent), (276, &[])] {
            assert_eq!(elsewhere(length, edits), [false; 3], "{length}");
        }
    }
}
