//! Ports by which a machine is reset or switched off, as the bootloader hands them on.

/// Port writes that reset the machine or cut its power, by one FADT (ACPI, "Fixed ACPI Description Table").
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerPorts {
    /// I/O port of RESET_REG; 0 where the table names none in I/O space.
    pub reset_port: u16,
    /// RESET_VALUE.
    pub reset_value: u8,
    /// Bit n: SLP_TYP n in the PM1 control registers cuts the power. 0 where that is not known.
    pub power_off_types: u8,
    /// By the 32-bit fields, and by the 64-bit ones, which firmware is known to let disagree: systems differ in which
    /// they believe.
    pub pm1: [Pm1Ports; 2],
    /// SLEEP_CONTROL_REG and SLEEP_STATUS_REG, which machines with hardware-reduced ACPI have in their stead.
    pub sleep: SleepPorts,
}

/// Most FADTs that differ, of those that a machine's root tables name: systems differ in which they believe.
pub const POWER_TABLE_CAPACITY: usize = 4;

/// Those of a machine without a FADT.
pub const NO_POWER_PORTS: PowerPorts = PowerPorts {
    reset_port: 0,
    reset_value: 0,
    power_off_types: 0,
    pm1: [Pm1Ports { a_control: 0, b_control: 0, a_status: 0 }; 2],
    sleep: SleepPorts { control: 0, status: 0 },
};

/// I/O ports of the PM1 registers; 0 where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pm1Ports {
    /// PM1a_CNT_BLK.
    pub a_control: u16,
    /// PM1b_CNT_BLK.
    pub b_control: u16,
    /// PM1a_EVT_BLK, whose first half is the status register.
    pub a_status: u16,
}

/// I/O ports of the sleep registers, each of a byte; 0 where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SleepPorts {
    /// SLEEP_CONTROL_REG.
    pub control: u16,
    /// SLEEP_STATUS_REG.
    pub status: u16,
}
