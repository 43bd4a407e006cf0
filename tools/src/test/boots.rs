//! The boots that `boot` runs: what is different in each, and what it has to come to.

use crate::guest::Guest;

/// A boot with something different.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub(super) name: &'static str,
    /// What stands behind `stop: ` on the hypervisor's console; empty where the guest has to run all the same.
    pub(super) stop: &'static str,
    /// Words that the hypervisor's console shows besides.
    pub(super) also: &'static str,
    pub(super) guest: fn() -> Guest,
    pub(super) command_line: &'static str,
    pub(super) modules: &'static [Module],
    /// GRUB commands in front of the others.
    pub(super) before: &'static str,
    /// GRUB modules that these come from.
    pub(super) grub_modules: &'static [&'static str],
    pub(super) hypapp: &'static str,
    pub(super) cpu_model: Option<&'static str>,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) has_legacy_bios: bool,
    /// Whether the guest resets the machine once.
    pub(super) resets: bool,
}

/// A module line for GRUB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// The hypervisor image as built.
    Image,
    /// The first sector of the guest's disk.
    Sector,
    /// A hypervisor image without its end.
    Truncated,
    /// A hypervisor image with one bit of the runtime changed.
    Altered,
    /// 512 zeros.
    Zeros,
    /// More than any boot sector.
    Large,
    /// The first sector of the disk that the hypervisor itself came from.
    OwnSector,
    /// A hypervisor image whose secure loader executes an undefined instruction.
    FaultyLoader,
    /// One whose runtime begins with an undefined instruction, packed in order.
    FaultyRuntime,
}

pub(super) const SOUND: Boot = Boot {
    name: "",
    stop: "",
    also: "",
    guest: || Guest::Mbr,
    command_line: "serial=115200,8n1,0x2f8 boot_drive=0x81",
    modules: &[Module::Image, Module::Sector],
    before: "",
    grub_modules: &[],
    hypapp: "helloworld",
    cpu_model: None,
    cpus: 1,
    memory_mib: 64,
    has_legacy_bios: false,
    resets: false,
};

/// Boots the guest's disk without the hypervisor where the guest was here before: by its mark in CMOS memory.
pub(super) const BARE_AGAIN: &str =
    "if cmostest 0x7a:0; then\n set root=(hd1)\n chainloader +1\n boot\nelse\n normal_exit\nfi\n";

pub(super) const BOOTS: [Boot; 35] = [
    Boot { name: "no-module", stop: "bootloader: no-module: ", modules: &[], ..SOUND },
    Boot { name: "no-boot-sector", stop: "bootloader: no-boot-sector: ", modules: &[Module::Image], ..SOUND },
    Boot {
        name: "image-truncated",
        stop: "bootloader: image-truncated: ",
        modules: &[Module::Truncated, Module::Sector],
        ..SOUND
    },
    Boot {
        name: "image-altered",
        stop: "secure loader: RuntimeDigest: ",
        modules: &[Module::Altered, Module::Sector],
        ..SOUND
    },
    Boot {
        name: "image-foreign",
        stop: "bootloader: image-foreign: ",
        modules: &[Module::Sector, Module::Image],
        ..SOUND
    },
    Boot {
        name: "boot-sector-too-large",
        stop: "bootloader: boot-sector-too-large: ",
        modules: &[Module::Image, Module::Large],
        ..SOUND
    },
    Boot {
        name: "boot-sector-not-bootable",
        stop: "bootloader: boot-sector-not-bootable: ",
        modules: &[Module::Image, Module::Zeros],
        ..SOUND
    },
    Boot {
        name: "too-many-modules",
        stop: "bootloader: too-many-modules: ",
        modules: &[Module::Zeros; 17],
        ..SOUND
    },
    Boot {
        name: "command-line-broken",
        stop: "bootloader: command-line-broken: ",
        command_line: "serial=115200,8n1,0x2f8 boot_drive=second",
        ..SOUND
    },
    Boot { name: "too-little-memory", stop: "bootloader: too-little-memory: ", memory_mib: 4, ..SOUND },
    Boot { name: "no-vmx", stop: "bootloader: no-vmx: ", cpu_model: Some("athlon64_clawhammer"), ..SOUND },
    Boot {
        name: "no-long-mode",
        stop: "bootloader: no-long-mode: ",
        cpu_model: Some("p4_willamette"),
        ..SOUND
    },
    Boot {
        name: "no-ept",
        stop: "bootloader: vmx-incomplete: ",
        also: "enable EPT",
        cpu_model: Some("core2_penryn_t9600"),
        ..SOUND
    },
    // This BIOS leaves IA32_FEATURE_CONTROL alone, so that GRUB can lock it with VMX off.
    Boot {
        name: "vmx-locked-off",
        stop: "bootloader: vmx-locked-off: ",
        before: "wrmsr 0x3a 1",
        grub_modules: &["wrmsr"],
        has_legacy_bios: true,
        ..SOUND
    },
    // The second CPU could not be called, and the guest could start it.
    Boot {
        name: "local-apic-off",
        stop: "bootloader: local-apic-off: ",
        before: "wrmsr 0x1b 0xfee00100",
        grub_modules: &["wrmsr"],
        cpus: 2,
        ..SOUND
    },
    Boot {
        name: "no-acpi",
        guest: || Guest::Bare("hello".into()),
        also: "no ACPI and no MP table list the CPUs; each is called",
        has_legacy_bios: true,
        ..SOUND
    },
    Boot {
        name: "cpu-unlisted-without-acpi",
        guest: || Guest::Bare("unlisted_cpu".into()),
        also: "CPU with local APIC ID 0x1 answers",
        cpus: 2,
        has_legacy_bios: true,
        ..SOUND
    },
    // The BIOS puts its MADT at these addresses where there are so much memory and so many CPUs. The second CPU's
    // entry is switched off here.
    Boot {
        name: "cpu-unlisted",
        guest: || Guest::Bare("unlisted_cpu".into()),
        also: "CPU with local APIC ID 0x1 answers",
        before: "write_dword 0x3ff0fb8 0\nwrite_byte 0x3ff0f89 0xbb",
        grub_modules: &["memrw"],
        cpus: 2,
        ..SOUND
    },
    Boot {
        name: "madt-sum",
        guest: || Guest::Bare("unlisted_cpu".into()),
        also: "ACPI table APIC: the checksum is wrong",
        before: "write_byte 0x3ff0f89 0",
        grub_modules: &["memrw"],
        cpus: 2,
        ..SOUND
    },
    // An enabled x2APIC entry behind the others, of a CPU that does not exist.
    Boot {
        name: "madt-extra",
        guest: || Guest::Bare("unlisted_cpu".into()),
        also: "CPU with local APIC ID 0x17161514 does not answer",
        before: "write_dword 0x3ff0f84 88\nwrite_dword 0x3ff0fc8 0x00001009\n\
                 write_dword 0x3ff0fcc 0x17161514\nwrite_dword 0x3ff0fd0 1\nwrite_dword 0x3ff0fd4 16\n\
                 write_byte 0x3ff0f89 0x42",
        grub_modules: &["memrw"],
        cpus: 2,
        ..SOUND
    },
    // Enabled with the ID 255, which addresses every CPU, and with 253, which no CPU has.
    Boot {
        name: "madt-everybody",
        guest: || Guest::Bare("hello".into()),
        also: "CPU with local APIC ID 0xfd does not answer",
        before: "write_dword 0x3ff0f74 80\nwrite_dword 0x3ff0fb0 0xff010800\nwrite_dword 0x3ff0fb4 1\n\
                 write_dword 0x3ff0fb8 0xfd020800\nwrite_dword 0x3ff0fbc 1\nwrite_byte 0x3ff0f79 0xc5",
        grub_modules: &["memrw"],
        ..SOUND
    },
    Boot {
        name: "no-serial",
        stop: "bootloader: command-line-broken: ",
        command_line: "serial=fast",
        ..SOUND
    },
    // The hypervisor and the guest share the port; the guest is at its end when the summary comes.
    Boot {
        name: "first-serial-port",
        also: "summary cpus=1 ",
        command_line: "serial=115200,8n1,0x3f8 boot_drive=0x81",
        ..SOUND
    },
    // The firmware names no reset register, so GRUB puts a table in place that does.
    Boot {
        name: "fadt-reset",
        guest: || Guest::Bare("reset_fadt".into()),
        also: "the guest ends: Port { port: 1552, width: Byte, value: 14 }",
        before: "acpi --exclude=FACP /boot/fadt.aml",
        grub_modules: &["acpi"],
        resets: true,
        ..SOUND
    },
    Boot {
        name: "reset-remains",
        guest: || Guest::Bare("reset_remains".into()),
        hypapp: "trustvisor",
        before: "normal /boot/bare-again.cfg",
        grub_modules: &["normal", "cmostest", "chain"],
        resets: true,
        ..SOUND
    },
    Boot {
        name: "starts-itself",
        stop: "bootloader: xmhf-beneath: ",
        command_line: "serial=115200,8n1,0x2f8 boot_drive=0x80",
        modules: &[Module::Image, Module::OwnSector],
        ..SOUND
    },
    Boot {
        name: "command-line-slips",
        also: "warning: boot_drvie= is no key of ours; boot_drive= is",
        command_line: "serial=115200,8n1,0x2f8 boot_drvie=0x80 boot_drive=0x81",
        ..SOUND
    },
    // Default type uncacheable, and no other range that is not.
    Boot {
        name: "uncacheable",
        stop: "bootloader: uncacheable-memory: ",
        before: "wrmsr 0x2ff 0xc00",
        grub_modules: &["wrmsr"],
        ..SOUND
    },
    Boot {
        name: "fault-in-loader",
        stop: "secure loader: Exception: vector 6 ",
        modules: &[Module::FaultyLoader, Module::Sector],
        ..SOUND
    },
    Boot {
        name: "fault-at-runtime-entry",
        stop: "secure loader: Exception: vector 6 ",
        modules: &[Module::FaultyRuntime, Module::Sector],
        ..SOUND
    },
    // The byte of the emulator's FADT that makes its sum.
    Boot {
        name: "fadt-sum",
        guest: || Guest::Bare("hello".into()),
        also: "the guest ends: Port { port: 45060,",
        before: "write_byte 0x3ff003d 0",
        grub_modules: &["memrw"],
        ..SOUND
    },
    Boot {
        name: "fadt-disagrees",
        guest: || Guest::Bare("hello".into()),
        also: "the guest ends: Port { port: 45060,",
        before: "acpi --exclude=FACP /boot/fadt-disagrees.aml",
        grub_modules: &["acpi"],
        ..SOUND
    },
    // The guest cuts the power by the first block, which is not there; the second has to be written too.
    Boot {
        name: "fadt-second-block",
        guest: || Guest::Bare("hello".into()),
        also: "the guest ends: Port { port: 1568,",
        before: "acpi --exclude=FACP /boot/fadt-second.aml",
        grub_modules: &["acpi"],
        ..SOUND
    },
    // The emulator's chipset has no configuration space in memory: one MiB of plain memory stands in for it.
    Boot {
        name: "ecam",
        guest: || Guest::Bare("pm_base_ecam".into()),
        command_line: "serial=115200,8n1,0x2f8 boot_drive=0x81 log=debug",
        also: "kept function=0x000b register=0x40",
        before: "cutmem 0x2000000 0x2100000\nacpi /boot/mcfg.aml",
        grub_modules: &["acpi", "mmap"],
        ..SOUND
    },
    Boot { name: "sound", ..SOUND },
];
