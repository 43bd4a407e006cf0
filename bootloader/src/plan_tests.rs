//! A whole boot over made-up memory.

use hw::sim::SimCpuid;
use platform::handoff::{
    IMAGE_MAGIC, LOADER_MAGIC, LOADER_SIZE, POWER_TABLE_CAPACITY, PowerPorts, RUNTIME_OFFSET, USABLE,
};
use platform::mtrr_map::Mtrrs;
use platform::physical::Unreadable;
use x86::cpuid::CpuidResult;
use x86::msr::Msr;

use super::*;

const MIB: u64 = 1 << 20;
const OWN: PhysRange = PhysRange { base: MIB, length: 0x5_0000 };
const INFORMATION: u32 = 0x9000;

/// The first MiBs of a machine, as a Multiboot 1 loader leaves them.
struct Fixture(Vec<u8>, TypeMap);

/// A processor that caches all memory, or none.
fn types(is_cached: bool) -> TypeMap {
    let mut types = TypeMap::disabled(39);
    if is_cached {
        let read = |msr| if msr == Msr::IA32_MTRR_DEF_TYPE { 1 << 11 | 6 } else { 0 };
        types.set(&Mtrrs::of_processor(39, read));
    }
    types
}

impl ReadPhysical for Fixture {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(address).map_err(|_| Unreadable)?;
        bytes.copy_from_slice(self.0.get(start..start + bytes.len()).ok_or(Unreadable)?);
        Ok(())
    }
}

impl Fixture {
    /// A machine with `memory_mib` MiB, the image at 0x20_0000, the boot sector at 0x28_0000.
    fn new(memory_mib: u64) -> Self {
        let mut machine = Self(vec![0; 0x40_0000], types(true));
        machine.put(0x20_0000, &[LOADER_MAGIC, 0x80, 0x1000]);
        let end = RUNTIME_OFFSET + 0x1000;
        machine
            .put(0x20_0000 + LOADER_SIZE, &[IMAGE_MAGIC, 0, end, end, end, end + 0x2000, 2 * MIB, 0x3_0000]);
        machine.bytes(0x28_01fe, &[0x55, 0xaa]);
        machine.bytes(u64::from(INFORMATION), &0x4c_u32.to_le_bytes());
        machine.bytes(0x9010, &0x9200_u32.to_le_bytes());
        machine.bytes(0x9200, b"serial=115200,8n1,0x2f8 boot_drive=0x81 hypervisor_bit=on\0");
        machine.modules(&[(0x20_0000, 0x20_0000 + 0x1_1000), (0x28_0000, 0x28_0200)]);
        machine.memory(&[(0, 0x9_fc00), (MIB, (memory_mib - 1) * MIB)]);
        machine
    }

    fn put(&mut self, address: u64, words: &[u64]) {
        for (address, word) in (address..).step_by(8).zip(words) {
            self.bytes(address, &word.to_le_bytes());
        }
    }

    fn bytes(&mut self, address: u64, bytes: &[u8]) {
        let start = usize::try_from(address).unwrap();
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn modules(&mut self, list: &[(u32, u32)]) {
        self.bytes(0x9014, &[u32::try_from(list.len()).unwrap(), 0x9300].map(u32::to_le_bytes).concat());
        for (address, (start, end)) in (0x9300..).step_by(16).zip(list) {
            self.bytes(address, &[*start, *end].map(u32::to_le_bytes).concat());
        }
    }

    fn memory(&mut self, usable: &[(u64, u64)]) {
        self.bytes(
            0x902c,
            &[24 * u32::try_from(usable.len()).unwrap(), 0x9500].map(u32::to_le_bytes).concat(),
        );
        for (address, (base, length)) in (0x9500..).step_by(24).zip(usable) {
            self.bytes(address, &20_u32.to_le_bytes());
            self.put(address + 4, &[*base, *length]);
            self.bytes(address + 20, &1_u32.to_le_bytes());
        }
    }

    /// A root pointer, an RSDT, and a DMAR with one structure: these bytes, then these numbers.
    fn acpi(&mut self, start: &[u8], numbers: &[u64]) {
        let numbers: Vec<_> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let dmar = [&[38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], start, &numbers].concat();
        for (address, signature, body) in
            [(0xb000, b"RSDT", &0xc000_u32.to_le_bytes()[..]), (0xc000, b"DMAR", &dmar)]
        {
            self.bytes(address, signature);
            self.bytes(address + 4, &u32::try_from(36 + body.len()).unwrap().to_le_bytes());
            self.bytes(address + 36, body);
        }
        self.bytes(0xe_0000, b"RSD PTR ");
        self.bytes(0xe_0010, &0xb000_u32.to_le_bytes());
        let sum = self.0[0xe_0000..0xe_0014].iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        self.bytes(0xe_0008, &[sum.wrapping_neg()]);
    }

    fn plan(&self) -> (Result<Parts, Stop>, Box<Handoff>) {
        let mut handoff = Box::new(Handoff::EMPTY);
        let information = BootInformation::from_multiboot1(self, INFORMATION).unwrap();
        let options = Options::parse(information.command_line()).unwrap();
        let processor =
            SimCpuid::default().with(1, 0, CpuidResult { ebx: 3 << 24, ..CpuidResult::default() });
        let boot = Boot {
            information: &information,
            options: &options,
            own: OWN,
            memory: self,
            processor: &processor,
            memory_types: Some(&self.1),
        };
        (make(&boot, &mut handoff), handoff)
    }
}

#[test]
fn an_ordinary_boot_goes_to_the_top_and_passes_the_check() {
    let (plan, handoff) = Fixture::new(1024).plan();
    let plan = plan.unwrap();
    assert_eq!(plan.region, PhysRange { base: 1016 * MIB, length: 8 * MIB });
    assert_eq!(u64::from(plan.entry()), 1016 * MIB + 0x80);
    assert_eq!(handoff.check(), Ok(()));
    assert_eq!(handoff.region, plan.region);
    assert_eq!(handoff.memory_map().len(), 3);
    assert_eq!(handoff.apic_ids(), [3]);
    assert_eq!((handoff.boot_drive, handoff.hypervisor_bit, handoff.console.serial_port), (0x81, 1, 0x2f8));
    assert_eq!((handoff.rsdp, handoff.power), (0, [PowerPorts::default(); POWER_TABLE_CAPACITY]));
    assert!(handoff.command_line().ends_with("hypervisor_bit=on"));
    assert_eq!((handoff.boot_sector().len(), &handoff.boot_sector()[510..]), (512, &[0x55, 0xaa][..]));
}

#[test]
fn the_hypapp_module_moves_to_the_region_s_end() {
    let mut machine = Fixture::new(1024);
    machine.modules(&[(0x20_0000, 0x21_1000), (0x28_0000, 0x28_0200), (0x30_0000, 0x30_2001)]);
    let (plan, handoff) = machine.plan();
    let hypapp = plan.unwrap().hypapp.unwrap();
    assert_eq!(hypapp.file, PhysRange { base: 0x30_0000, length: 0x2001 });
    assert_eq!(hypapp.place, PhysRange { base: 1024 * MIB - 0x3000, length: 0x2001 });
    assert_eq!((handoff.hypapp_module, handoff.check()), (hypapp.place, Ok(())));
}

#[test]
fn a_nested_pool_makes_the_region_larger() {
    let mut machine = Fixture::new(1024);
    machine.bytes(0x9200, b"nested=on nested_pool=3 nested_ept02=9\0");
    machine.modules(&[(0x20_0000, 0x21_1000), (0x28_0000, 0x28_0200), (0x30_0000, 0x30_2001)]);
    let (plan, handoff) = machine.plan();
    assert_eq!(plan.unwrap().region, PhysRange { base: 1018 * MIB, length: 6 * MIB });
    let pool = PhysRange { base: 1021 * MIB - 0x3000, length: 3 * MIB };
    assert_eq!((handoff.nested_pool, handoff.nested_ept02, handoff.check()), (pool, 9, Ok(())));
}

#[test]
fn an_sinit_module_is_recognised_and_kept_for_the_launch() {
    let mut machine = Fixture::new(1024);
    // Type 2, subtype 0, of Intel, 32 units of 4 bytes.
    machine.bytes(0x30_0000, &[2, 0, 0, 0]);
    machine.bytes(0x30_0010, &0x8086_u32.to_le_bytes());
    machine.bytes(0x30_0018, &32_u32.to_le_bytes());
    machine.modules(&[(0x30_0000, 0x30_0100), (0x20_0000, 0x21_1000), (0x28_0000, 0x28_0200)]);
    let (plan, handoff) = machine.plan();
    assert!(plan.unwrap().hypapp.is_none());
    assert_eq!(
        (handoff.sinit_module, handoff.check()),
        (PhysRange { base: 0x30_0000, length: 0x100 }, Ok(()))
    );
}

#[test]
fn every_module_is_kept_clear_of_even_one_without_a_role() {
    let mut machine = Fixture::new(1024);
    let image_and_sector = [(0x20_0000, 0x21_1000), (0x28_0000, 0x28_0200)];
    machine.modules(&[&image_and_sector[..], &[(0x30_0000, 0x30_0010), (0x3fff_0000, 0x3fff_0001)]].concat());
    assert_eq!(machine.plan().0.unwrap().region.base, 1014 * MIB);
}

#[test]
fn memory_that_devices_go_on_using_is_no_place() {
    // The RSDP's place is behind what the fixture fills.
    let mut machine = Fixture::new(1024);
    machine.acpi(&[1, 0, 24, 0, 0, 0, 0, 0], &[1022 * MIB, 1022 * MIB + 0xfff]);
    let (plan, handoff) = machine.plan();
    assert_eq!(plan.unwrap().region, PhysRange { base: 1014 * MIB, length: 8 * MIB });
    // The guest is told of the memory as the firmware tells of it: the region alone is taken.
    let taken: Vec<_> = handoff.memory_map().iter().filter(|range| range.kind != USABLE).collect();
    assert_eq!((taken.len(), taken[0].base, taken[0].length), (1, 1014 * MIB, 8 * MIB));
}

#[test]
fn a_tight_machine_may_use_the_memory_of_the_image_alone() {
    let mut machine = Fixture::new(8);
    machine.memory(&[(0, 0x9_fc00), (MIB, 5 * MIB)]);
    machine.modules(&[(0x20_0000, 0x21_1000), (0x18_0000, 0x18_0200)]);
    machine.bytes(0x18_01fe, &[0x55, 0xaa]);
    assert_eq!(machine.plan().0.unwrap().region, PhysRange { base: 2 * MIB, length: 4 * MIB });
    machine.modules(&[(0x20_0000, 0x21_1000), (0x28_0000, 0x28_0200)]);
    assert_eq!(machine.plan().0.unwrap_err(), Stop::Placement(PlacementError::NoHole(4 * MIB)));
}

#[test]
fn what_is_wrong_stops_the_boot() {
    let mut machine = Fixture::new(1024);
    machine.modules(&[]);
    assert_eq!(machine.plan().0.unwrap_err(), Stop::Module(ModuleError::NoImage));
    let mut machine = Fixture::new(1024);
    machine.memory(&[]);
    assert_eq!(machine.plan().0.unwrap_err().name(), "memory-map-absurd");
    let mut machine = Fixture::new(1024);
    machine.memory(&[(MIB, 2 * MIB)]);
    assert_eq!(machine.plan().0.unwrap_err().name(), "too-little-memory");
    let machine = Fixture(Fixture::new(1024).0, types(false));
    assert_eq!(machine.plan().0.unwrap_err().name(), "uncacheable-memory");
}

#[test]
fn the_region_has_room_for_cpus_that_the_firmware_leaves_out() {
    let package = |ebx| {
        SimCpuid::default().with(0, 0, CpuidResult { eax: 0xb, ..CpuidResult::default() }).with(
            0xb,
            0,
            CpuidResult { ebx, ecx: 1 << 8, ..CpuidResult::default() },
        )
    };
    for (of_package, listed, expected) in [(8, 2, 8), (8, 12, 12), (0, 2, 2), (0xffff, 2, CPU_CAPACITY)] {
        assert_eq!(cpus_with_room(&package(of_package), listed), expected, "{of_package} and {listed}");
    }
}
