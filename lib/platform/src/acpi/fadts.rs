//! What all FADTs of a machine say of reset and power.

use super::{fadt, find_all};
use crate::handoff::{NO_POWER_PORTS, POWER_TABLE_CAPACITY, Pm1Ports, PowerPorts};
use crate::physical::ReadPhysical;
use arrayvec::ArrayVec;

/// Reads every FADT that a root table names, each that says something else once; the rest is [`NO_POWER_PORTS`]. Without,
/// a guest could cut the power, or sleep, without our knowledge; so could one that finds a table where we do not.
pub fn power_tables(memory: &impl ReadPhysical) -> [PowerPorts; POWER_TABLE_CAPACITY] {
    let mut tables = ArrayVec::<PowerPorts, POWER_TABLE_CAPACITY>::new();
    find_all(memory, b"FACP", |found| {
        let ports = found.and_then(|table| {
            table.warn_of_sum();
            fadt::power_ports(memory, &table)
        });
        let is_new = |ports: &PowerPorts| *ports != NO_POWER_PORTS && !tables.contains(ports);
        match ports {
            Ok(ports) if is_new(&ports) && tables.try_push(ports).is_err() => {
                log::warn!("too many FADTs disagree: power off and sleep by one of them go unnoticed");
            }
            Ok(_) => {}
            Err(error) => log::warn!("a FADT cannot be used ({error:?})"),
        }
    });
    explain(&tables);
    core::array::from_fn(|index| tables.get(index).copied().unwrap_or(NO_POWER_PORTS))
}

fn explain(tables: &[PowerPorts]) {
    let disagrees = |ports: &PowerPorts| ports.pm1[0] != ports.pm1[1] && ports.pm1[1] != Pm1Ports::default();
    if tables.is_empty() {
        log::warn!("no usable FADT: power off and sleep go unnoticed");
    }
    if tables.len() > 1 {
        log::warn!("the machine has several FADTs, which disagree; the ports of all are watched");
    }
    if tables.iter().any(disagrees) {
        log::warn!("the FADT's 32-bit and 64-bit fields disagree; the ports of both are watched");
    }
}

#[cfg(test)]
mod tests {
    use super::super::rsdp::tests::put_rsdp;
    use super::super::sdt::tests::put_table;
    use super::*;
    use crate::physical::TestMemory;
    use crate::warnings::warnings;

    const PM1A_CONTROL: usize = 64;
    const X_PM1A_CONTROL: usize = 172;

    /// Puts a FADT whose PM1a control block is at `port`.
    fn put_fadt(memory: &mut TestMemory, address: usize, port: u32) {
        let mut body = [0; 80];
        body[PM1A_CONTROL - 36..PM1A_CONTROL - 32].copy_from_slice(&port.to_le_bytes());
        put_table(memory, address, b"FACP", &body);
    }

    /// A machine whose RSDT and XSDT name these tables.
    fn machine(rsdt: &[u32], xsdt: &[u64]) -> TestMemory {
        let mut memory = TestMemory::new();
        put_rsdp(&mut memory, 0xe_0000, 0x1000, 0x2000);
        let narrow: Vec<_> = rsdt.iter().flat_map(|address| address.to_le_bytes()).collect();
        put_table(&mut memory, 0x1000, b"RSDT", &narrow);
        let wide: Vec<_> = xsdt.iter().flat_map(|address| address.to_le_bytes()).collect();
        put_table(&mut memory, 0x2000, b"XSDT", &wide);
        for (index, port) in (0..6).zip((0x400..).step_by(0x100)) {
            put_fadt(&mut memory, 0x4000 + 0x1000 * index, port);
        }
        memory
    }

    /// PM1a control ports of what is found.
    fn ports(memory: &TestMemory) -> Vec<u16> {
        let tables = power_tables(memory);
        tables.iter().filter(|&&table| table != NO_POWER_PORTS).map(|table| table.pm1[0].a_control).collect()
    }

    #[test]
    fn tables_of_both_root_tables_count_and_several_of_one() {
        assert_eq!(ports(&machine(&[0x4000], &[0x4000])), [0x400]);
        assert_eq!(ports(&machine(&[0x4000], &[0x5000])), [0x500, 0x400]);
        assert_eq!(ports(&machine(&[0x4000, 0x6000], &[0x5000, 0x4000])), [0x500, 0x400, 0x600]);
        assert_eq!(ports(&machine(&[], &[])), []);
        let many = [0x4000, 0x5000, 0x6000, 0x7000, 0x8000];
        assert_eq!(ports(&machine(&many, &[])).len(), POWER_TABLE_CAPACITY);
    }

    #[test]
    fn a_table_that_cannot_be_used_costs_no_other() {
        for (rsdt, xsdt) in [([0x5000], [0x4000]), ([0x4000], [0x5000])] {
            let mut memory = machine(&rsdt, &xsdt);
            memory.put(0x5004, &[0; 4]);
            assert_eq!(ports(&memory), [0x400]);
        }
        // Its fields lie where nothing can be read.
        let mut memory = machine(&[0xf_ffd8], &[0x4000]);
        memory.put(0xf_ffd8, b"FACP");
        memory.put(0xf_ffdc, &40_u32.to_le_bytes());
        assert_eq!(ports(&memory), [0x400]);
    }

    #[test]
    fn what_is_odd_about_the_tables_is_warned_of() {
        const NONE: &str = "no usable FADT: power off and sleep go unnoticed";
        const SEVERAL: &str = "the machine has several FADTs, which disagree; the ports of all are watched";
        const TWO_BLOCKS: &str =
            "the FADT's 32-bit and 64-bit fields disagree; the ports of both are watched";
        const TOO_MANY: &str = "too many FADTs disagree: power off and sleep by one of them go unnoticed";
        let warned = |memory: &TestMemory| warnings(|| _ = power_tables(memory));
        assert_eq!(warned(&machine(&[], &[])), [NONE]);
        assert_eq!(warned(&machine(&[0x4000], &[0x4000])), [""; 0]);
        assert_eq!(warned(&machine(&[0x4000], &[0x5000])), [SEVERAL]);
        assert_eq!(warned(&machine(&[0x4000, 0x5000, 0x6000, 0x7000, 0x8000], &[])), [TOO_MANY, SEVERAL]);
        // The 64-bit field is there and says the same, or something else.
        for (port, expected) in [(0x400_u16, &[][..]), (0x500, &[TWO_BLOCKS])] {
            let mut body = [0; 208];
            body[PM1A_CONTROL - 36..][..2].copy_from_slice(&0x400_u16.to_le_bytes());
            body[X_PM1A_CONTROL - 36] = 1;
            body[X_PM1A_CONTROL - 32..][..2].copy_from_slice(&port.to_le_bytes());
            let mut memory = machine(&[0x9000], &[]);
            put_table(&mut memory, 0x9000, b"FACP", &body);
            assert_eq!(warned(&memory), expected, "{port:#x}");
        }
    }

    #[test]
    fn a_wrong_sum_is_warned_of_and_an_unusable_table() {
        let mut memory = machine(&[0x4000], &[]);
        memory.0[0x4009] ^= 1;
        let used = "ACPI table FACP: the checksum is wrong; the table is used, as operating systems do";
        assert_eq!(warnings(|| assert_eq!(ports(&memory), [0x400])), [used]);
        memory.put(0x4004, &[0; 4]);
        let warned = warnings(|| assert_eq!(ports(&memory), []));
        assert_eq!(warned[0], "a FADT cannot be used (Malformed)");
    }

    #[test]
    fn a_second_root_pointer_counts_too() {
        let mut memory = machine(&[0x4000], &[0x4000]);
        put_table(&mut memory, 0x3000, b"RSDT", &0x5000_u32.to_le_bytes());
        put_rsdp(&mut memory, 0xf_0000, 0x3000, 0);
        assert_eq!(ports(&memory), [0x400, 0x500]);
    }
}
