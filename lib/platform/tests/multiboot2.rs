//! Multiboot 2 information as a boot loader builds it, copied out.
//!
//! UNSAFETY: the crate reads information by a pointer; here it points to what the crate's builder made.
#![expect(unsafe_code, reason = "information is read by a pointer")]
#![expect(clippy::unwrap_used, reason = "a test")]

use multiboot2::{CommandLineTag, MemoryArea, MemoryAreaType, MemoryMapTag, ModuleTag};
use platform::handoff::{COMMAND_LINE_CAPACITY, MEMORY_MAP_CAPACITY, MemoryRange, PhysRange};
use platform::multiboot::{BootInformation, BootInformationError, MODULE_CAPACITY};

fn load(builder: multiboot2::Builder) -> Result<BootInformation, BootInformationError> {
    let bytes = builder.build();
    // SAFETY: the builder made a complete structure, which lives until the end of this function.
    let info = unsafe { multiboot2::BootInformation::load((&raw const *bytes).cast()) };
    BootInformation::from_multiboot2(&info.unwrap())
}

fn builder() -> multiboot2::Builder {
    let areas = [
        MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
        MemoryArea::new(0x9_fc00, 0x400, MemoryAreaType::Reserved),
        MemoryArea::new(0x3fff_0000, 0x1_0000, MemoryAreaType::Custom(12)),
    ];
    multiboot2::Builder::new().mmap(MemoryMapTag::new(&areas))
}

#[test]
fn everything_is_copied_out() {
    let builder = builder()
        .cmdline(CommandLineTag::new("serial=115200 boot_drive=0x81"))
        .add_module(ModuleTag::new(0x10_0000, 0x10_2000, "image"))
        .add_module(ModuleTag::new(0x20_0000, 0x20_0200, ""));
    let info = load(builder).unwrap();
    assert_eq!(info.command_line(), "serial=115200 boot_drive=0x81");
    let second = PhysRange { base: 0x20_0000, length: 0x200 };
    assert_eq!(info.modules(), [PhysRange { base: 0x10_0000, length: 0x2000 }, second]);
    let kinds: Vec<_> = info.memory_map().iter().map(|range| range.kind).collect();
    assert_eq!(kinds, [1, 2, 12]);
    assert_eq!(info.memory_map()[1], MemoryRange { base: 0x9_fc00, length: 0x400, kind: 2, attributes: 1 });
}

#[test]
fn what_is_absent_or_does_not_fit_is_named() {
    assert_eq!(load(multiboot2::Builder::new()).unwrap_err(), BootInformationError::NoMemoryMap);
    let full = |count| (0..count).fold(builder(), |builder, _| builder.add_module(ModuleTag::new(1, 2, "")));
    assert!(load(full(MODULE_CAPACITY)).is_ok());
    assert_eq!(load(full(MODULE_CAPACITY + 1)).unwrap_err(), BootInformationError::TooManyModules);
    let areas = vec![MemoryArea::new(0, 1, MemoryAreaType::Available); MEMORY_MAP_CAPACITY + 1];
    let long = multiboot2::Builder::new().mmap(MemoryMapTag::new(&areas));
    assert_eq!(load(long).unwrap_err(), BootInformationError::MemoryMapTooLong);
    let line = "x".repeat(COMMAND_LINE_CAPACITY);
    assert_eq!(
        load(builder().cmdline(CommandLineTag::new(&line))).unwrap_err(),
        BootInformationError::CommandLine
    );
    assert!(load(builder().cmdline(CommandLineTag::new(&line[1..]))).is_ok());
}
