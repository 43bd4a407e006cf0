//! The only structures that two images share: bootloader, secure loader and runtime meet here.
//!
//! # The hypervisor region
//!
//! The bootloader picks one 2 MiB-aligned range of physical memory, hides it from the guest, and fills it:
//!
//! ```text
//! base + 0        secure loader, LOADER_SIZE bytes, the measured image
//! base + HANDOFF  the Handoff, written by the untrusted bootloader
//! base + SCRATCH  the secure loader's stack and page tables
//! base + RUNTIME  the runtime image, then its bss, then free frames, then the pool of nested tables and
//!                 the hypapp module up to base + region size
//! ```
//!
//! All of it is mapped linearly at [`VIRTUAL_BASE`], in the secure loader and in the runtime alike, so
//! both are linked at fixed virtual addresses and run wherever in memory they were put.
//!
//! The file `xmhf-HYPAPP.bin` is the secure loader padded to [`LOADER_SIZE`], then the runtime image.

pub use crate::ecam::{ECAM_CAPACITY, EcamRange, NO_ECAM};
pub use crate::power_ports::{NO_POWER_PORTS, POWER_TABLE_CAPACITY, Pm1Ports, PowerPorts, SleepPorts};

use static_assertions::{assert_eq_size, const_assert};

/// Virtual address at which the hypervisor region is mapped.
pub const VIRTUAL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Size in bytes of the secure loader's measured image.
pub const LOADER_SIZE: u64 = 0x1_0000;
/// Offset of the [`Handoff`] in the region, in bytes.
pub const HANDOFF_OFFSET: u64 = 0x1_0000;
/// Offset in the region of the secure loader's stack and page tables, in bytes.
pub const SCRATCH_OFFSET: u64 = 0x2_0000;
/// Offset of the stack in it, on which the runtime is entered too, in bytes.
pub const STACK_OFFSET: u64 = SCRATCH_OFFSET;
/// Size of that stack in bytes.
pub const STACK_SIZE: u64 = 0x4000;
/// Offset of the secure loader's own page tables in it, in bytes: they map the whole region, writable, and stay.
pub const LOADER_TABLES_OFFSET: u64 = RUNTIME_OFFSET - 0x5000;
/// Offset of the runtime image in the region, in bytes.
pub const RUNTIME_OFFSET: u64 = 0x4_0000;
/// The region's base and size are multiples of this many bytes.
pub const REGION_ALIGNMENT: u64 = 0x20_0000;

/// Value of [`LoaderHeader::magic`]: "XMHFSLDR".
pub const LOADER_MAGIC: u64 = u64::from_le_bytes(*b"XMHFSLDR");
/// Value of [`ImageHeader::magic`]: "XMHFRUNT".
pub const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"XMHFRUNT");
/// Value of [`Handoff::magic`]: "XMHFHAND".
pub const HANDOFF_MAGIC: u64 = u64::from_le_bytes(*b"XMHFHAND");
/// Version of the [`Handoff`] layout.
pub const HANDOFF_VERSION: u32 = 6;

/// First bytes of the secure loader's image; filled in when the hypervisor image is packed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LoaderHeader {
    /// [`LOADER_MAGIC`].
    pub magic: u64,
    /// Offset of the 32-bit entry point in the image, in bytes.
    pub entry: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// Size in bytes of the runtime image that follows in the file.
    pub runtime_size: u64,
    /// SHA-256 of those bytes.
    pub runtime_sha256: [u8; 32],
}

/// First bytes of the runtime image; all offsets are in bytes from the region's base.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ImageHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: u64,
    /// Virtual address of the 64-bit entry point.
    pub entry: u64,
    /// Executable part: header and code, `[RUNTIME_OFFSET, text_end)`.
    pub text_end: u64,
    /// Read-only data, `[text_end, rodata_end)`.
    pub rodata_end: u64,
    /// Initialised data, `[rodata_end, data_end)`; the image file ends here.
    pub data_end: u64,
    /// Zeroed data, `[data_end, bss_end)`; free frames follow.
    pub bss_end: u64,
    /// Bytes of free frames wanted whatever the machine.
    pub pool_bytes: u64,
    /// Bytes of free frames wanted for each CPU.
    pub pool_bytes_per_cpu: u64,
}

/// Number of entries in [`Handoff::memory_map`].
pub const MEMORY_MAP_CAPACITY: usize = 256;
/// Number of entries in [`Handoff::apic_ids`].
pub const CPU_CAPACITY: usize = 1024;
/// Bytes of command line kept, with the terminating zero.
pub const COMMAND_LINE_CAPACITY: usize = 1024;
/// Bytes of guest boot sector kept.
pub const BOOT_SECTOR_CAPACITY: usize = 16 * 1024;

/// Number of entries in [`Handoff::remapping_units`].
pub const UNIT_CAPACITY: usize = 64;

/// One record of the BIOS memory map (ACPI, "INT 15H, E820H - Query System Address Map").
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte's physical address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// 1 usable, 2 reserved, 3 ACPI reclaimable, 4 ACPI NVS, 5 unusable, others as the firmware says.
    pub kind: u32,
    /// Extended attributes of a 24-byte record; 1 where the firmware gave 20 bytes.
    pub attributes: u32,
}

/// [`MemoryRange::kind`] of usable memory.
pub const USABLE: u32 = 1;
/// [`MemoryRange::kind`] of reserved memory.
pub const RESERVED: u32 = 2;

/// A range of physical memory; length zero means that there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhysRange {
    /// First byte's physical address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Where and how loud to log.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// I/O base of the serial port; 0 where there is none.
    pub serial_port: u16,
    /// Line control register: word length, stop bits, parity (16550 data sheet, "Line Control Register").
    pub line_control: u8,
    /// 1 where VGA text is written too.
    pub vga: u8,
    /// Divisor latch: clock / 16 / baud rate.
    pub divisor: u16,
    /// 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace: `log::LevelFilter` as a number.
    pub level: u8,
    /// Reserved, zero.
    pub reserved: u8,
}

/// Time stamps of the boot, in TSC ticks since reset.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootTimes {
    /// First instruction of the bootloader.
    pub bootloader: u64,
    /// Bootloader left for the secure loader.
    pub launch: u64,
    /// First instruction of the secure loader's Rust part.
    pub secure_loader: u64,
    /// Secure loader left for the runtime.
    pub verified: u64,
}

/// What the bootloader tells the secure loader, and that, once checked, the runtime.
///
/// Written by untrusted code: [`Handoff::check`] comes before any use.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handoff {
    /// [`HANDOFF_MAGIC`].
    pub magic: u64,
    /// [`HANDOFF_VERSION`].
    pub version: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// The hypervisor region.
    pub region: PhysRange,
    /// Optional hypapp module, inside the region after the runtime's own memory.
    pub hypapp_module: PhysRange,
    /// SINIT module where GRUB put it, outside the region.
    pub sinit_module: PhysRange,
    /// Memory for the page tables of the guest's guests, inside the region; none where `nested_ept02` is 0.
    pub nested_pool: PhysRange,
    /// Physical address of the RSDP; 0 where there is no ACPI.
    pub rsdp: u64,
    /// Boot time stamps.
    pub times: BootTimes,
    /// Consoles.
    pub console: Console,
    /// Reset and power ports.
    pub power: [PowerPorts; POWER_TABLE_CAPACITY],
    /// PCI configuration space in memory.
    pub ecam: [EcamRange; ECAM_CAPACITY],
    /// Registers of the units that are to keep devices from memory, whole pages; none behind the first that is empty.
    pub remapping_units: [PhysRange; UNIT_CAPACITY],
    /// Value of DL at the guest's boot sector.
    pub boot_drive: u8,
    /// 1 to set CPUID's hypervisor-present bit for the guest.
    pub hypervisor_bit: u8,
    /// 1 to refuse a machine on which devices cannot be kept from memory.
    pub device_protection_required: u8,
    /// Reserved, zero.
    pub reserved: u8,
    /// How many EPT pointers of the guest have page tables at a time; 0 where it may be no hypervisor.
    pub nested_ept02: u16,
    /// Used entries of `memory_map`.
    pub memory_map_count: u32,
    /// Used entries of `apic_ids`, at least 1.
    pub cpu_count: u32,
    /// Used bytes of `boot_sector`.
    pub boot_sector_size: u32,
    /// The machine's memory map with the hypervisor region already reserved, sorted by base.
    pub memory_map: [MemoryRange; MEMORY_MAP_CAPACITY],
    /// Local APIC IDs; the first is the bootstrap processor's.
    pub apic_ids: [u32; CPU_CAPACITY],
    /// The command line, zero-terminated.
    pub command_line: [u8; COMMAND_LINE_CAPACITY],
    /// The guest's boot sector.
    pub boot_sector: [u8; BOOT_SECTOR_CAPACITY],
}

const_assert!(size_of::<Handoff>() as u64 <= SCRATCH_OFFSET - HANDOFF_OFFSET);
assert_eq_size!(LoaderHeader, [u64; 7]);
assert_eq_size!(ImageHeader, [u64; 8]);

/// Why a [`Handoff`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoffError {
    /// Magic, version or size differ: bootloader and hypervisor image are of different builds.
    Version,
    /// The region is empty, unaligned, above 4 GiB or wraps.
    Region,
    /// The number of CPUs, memory ranges or boot sector bytes exceeds what the structure holds, or is zero.
    Count,
    /// The memory map calls part of the hypervisor region usable.
    RegionNotHidden,
    /// The hypapp module does not lie inside the region, or the SINIT module overlaps it.
    Module,
    /// Registers of a remapping unit are no whole pages, wrap, or overlap the region.
    RemappingUnit,
    /// The pool of nested tables is not made of pages inside the region, below the hypapp module.
    NestedPool,
}

impl Handoff {
    /// A handoff of this build's magic, version and size, with nothing else in it; it does not pass
    /// [`Handoff::check`].
    #[expect(clippy::cast_possible_truncation, reason = "the assertion above bounds the size")]
    pub const EMPTY: Self = Self {
        magic: HANDOFF_MAGIC,
        version: HANDOFF_VERSION,
        size: size_of::<Self>() as u32,
        region: PhysRange { base: 0, length: 0 },
        hypapp_module: PhysRange { base: 0, length: 0 },
        sinit_module: PhysRange { base: 0, length: 0 },
        nested_pool: PhysRange { base: 0, length: 0 },
        rsdp: 0,
        times: BootTimes { bootloader: 0, launch: 0, secure_loader: 0, verified: 0 },
        console: Console { serial_port: 0, line_control: 0, vga: 0, divisor: 0, level: 0, reserved: 0 },
        power: [NO_POWER_PORTS; POWER_TABLE_CAPACITY],
        ecam: [NO_ECAM; ECAM_CAPACITY],
        remapping_units: [PhysRange { base: 0, length: 0 }; UNIT_CAPACITY],
        boot_drive: 0,
        hypervisor_bit: 0,
        device_protection_required: 0,
        reserved: 0,
        nested_ept02: 0,
        memory_map_count: 0,
        cpu_count: 0,
        boot_sector_size: 0,
        memory_map: [MemoryRange { base: 0, length: 0, kind: 0, attributes: 0 }; MEMORY_MAP_CAPACITY],
        apic_ids: [0; CPU_CAPACITY],
        command_line: [0; COMMAND_LINE_CAPACITY],
        boot_sector: [0; BOOT_SECTOR_CAPACITY],
    };

    /// Checks everything that the secure loader and the runtime rely on.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; nothing of the structure may be used then.
    pub fn check(&self) -> Result<(), HandoffError> {
        if self.magic != HANDOFF_MAGIC
            || self.version != HANDOFF_VERSION
            || self.size as usize != size_of::<Self>()
        {
            return Err(HandoffError::Version);
        }
        let end = self.region.end().ok_or(HandoffError::Region)?;
        if self.region.length <= RUNTIME_OFFSET
            || !self.region.base.is_multiple_of(REGION_ALIGNMENT)
            || !self.region.length.is_multiple_of(REGION_ALIGNMENT)
            || end > 1 << 32
        {
            return Err(HandoffError::Region);
        }
        if self.memory_map_count as usize > MEMORY_MAP_CAPACITY
            || self.cpu_count as usize > CPU_CAPACITY
            || self.boot_sector_size as usize > BOOT_SECTOR_CAPACITY
            || self.cpu_count == 0
            || self.memory_map_count == 0
        {
            return Err(HandoffError::Count);
        }
        for range in self.memory_map() {
            let range_end = range.base.saturating_add(range.length);
            if range.kind == USABLE && range.base < end && range_end > self.region.base {
                return Err(HandoffError::RegionNotHidden);
            }
        }
        let inside = |m: PhysRange| m.base >= self.region.base && m.end().is_some_and(|e| e <= end);
        let outside = |m: PhysRange| m.base >= end || m.end().is_some_and(|e| e <= self.region.base);
        if (self.hypapp_module.length != 0 && !inside(self.hypapp_module))
            || (self.sinit_module.length != 0 && !outside(self.sinit_module))
        {
            return Err(HandoffError::Module);
        }
        let are_pages = |m: PhysRange| (m.base | m.length).is_multiple_of(4096) && m.end().is_some();
        if !self.remapping_units().iter().all(|&unit| are_pages(unit) && outside(unit)) {
            return Err(HandoffError::RemappingUnit);
        }
        let pool = self.nested_pool;
        let is_paged = pool.base.is_multiple_of(4096) && pool.length.is_multiple_of(4096);
        let is_below =
            self.hypapp_module.length == 0 || pool.end().is_some_and(|end| end <= self.hypapp_module.base);
        if pool.length != 0 && !(is_paged && is_below && inside(pool)) {
            return Err(HandoffError::NestedPool);
        }
        Ok(())
    }

    /// Returns the first address behind the runtime's own memory, which the pool of nested tables and the hypapp module
    /// follow.
    #[must_use]
    pub const fn own_end(&self) -> u64 {
        if self.nested_pool.length != 0 {
            self.nested_pool.base
        } else if self.hypapp_module.length != 0 {
            self.hypapp_module.base
        } else {
            self.region.base + self.region.length
        }
    }

    /// Returns the used part of the memory map.
    #[must_use]
    pub fn memory_map(&self) -> &[MemoryRange] {
        let count = (self.memory_map_count as usize).min(MEMORY_MAP_CAPACITY);
        &self.memory_map[..count]
    }

    /// Returns the registers of the units that are to keep devices from memory.
    #[must_use]
    pub fn remapping_units(&self) -> &[PhysRange] {
        let count = self.remapping_units.iter().take_while(|unit| unit.length != 0).count();
        &self.remapping_units[..count]
    }

    /// Local APIC IDs of all CPUs, the bootstrap processor's first.
    #[must_use]
    pub fn apic_ids(&self) -> &[u32] {
        let count = (self.cpu_count as usize).min(CPU_CAPACITY);
        &self.apic_ids[..count]
    }

    /// Returns the guest's boot sector.
    #[must_use]
    pub fn boot_sector(&self) -> &[u8] {
        let count = (self.boot_sector_size as usize).min(BOOT_SECTOR_CAPACITY);
        &self.boot_sector[..count]
    }

    /// Returns the command line; what follows invalid UTF-8 is dropped.
    #[must_use]
    pub fn command_line(&self) -> &str {
        let end = self.command_line.iter().position(|&b| b == 0).unwrap_or(0);
        self.command_line[..end].utf8_chunks().next().map_or("", |chunk| chunk.valid())
    }
}

impl PhysRange {
    /// Returns the first address behind the range; `None` where it wraps.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        self.base.checked_add(self.length)
    }
}

#[cfg(test)]
#[path = "handoff_tests.rs"]
mod tests;
