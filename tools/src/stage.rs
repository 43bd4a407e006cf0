//! Boot stages, recognised by what the consoles print.

use std::fmt;

/// Where the machine is on its way from reset to the guest's userspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The BIOS, until something prints.
    Firmware,
    /// GRUB on the disk that the machine boots from.
    Grub,
    /// The hypervisor's bootloader.
    Bootloader,
    /// The hypervisor's secure loader.
    SecureLoader,
    /// The hypervisor's runtime, before the guest's first instruction.
    Runtime,
    /// The guest's boot sector and boot loader.
    GuestBoot,
    /// The guest's kernel.
    GuestKernel,
    /// The guest's first process.
    Userspace,
}

/// Which console a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// COM1, which belongs to the guest (and to the GRUB on its disk).
    Guest,
    /// COM2, which belongs to the hypervisor (and to the GRUB that starts it).
    Hypervisor,
}

/// Words that a line must hold, and the stage that begins with it.
const MARKS: [(Origin, &str, Stage); 10] = [
    (Origin::Hypervisor, "GRUB", Stage::Grub),
    (Origin::Hypervisor, "stage=bootloader", Stage::Bootloader),
    (Origin::Hypervisor, "stage=secure-loader", Stage::SecureLoader),
    (Origin::Hypervisor, "stage=runtime", Stage::Runtime),
    (Origin::Hypervisor, "stage=guest", Stage::GuestBoot),
    // Xen's line names GRUB.
    (Origin::Guest, "(XEN) Bootloader: ", Stage::GuestKernel),
    (Origin::Guest, "GRUB", Stage::GuestBoot),
    (Origin::Guest, "Linux version", Stage::GuestKernel),
    (Origin::Guest, "Memtest86+", Stage::GuestKernel),
    (Origin::Guest, "xmhf-guest: userspace", Stage::Userspace),
];

impl Stage {
    /// The stage that begins with `line`, if any does.
    #[must_use]
    pub fn of_line(origin: Origin, line: &str) -> Option<Self> {
        MARKS
            .iter()
            .find(|(from, mark, _)| *from == origin && line.contains(mark))
            .map(|&(_, _, stage)| stage)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Firmware => "firmware",
            Self::Grub => "GRUB",
            Self::Bootloader => "bootloader",
            Self::SecureLoader => "secure loader",
            Self::Runtime => "runtime",
            Self::GuestBoot => "guest boot",
            Self::GuestKernel => "guest kernel",
            Self::Userspace => "userspace",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Guest => "guest |",
            Self::Hypervisor => "xmhf  |",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_anywhere_in_a_line() {
        let line = "[   0.000000] Linux version 6.1.0-56-cloud-amd64";
        assert_eq!(Stage::of_line(Origin::Guest, line), Some(Stage::GuestKernel));
        let line = "(XEN) Bootloader: GRUB 2.06-13+deb12u2";
        assert_eq!(Stage::of_line(Origin::Guest, line), Some(Stage::GuestKernel));
        let line = "cpu=0 INFO xmhf stage=secure-loader size=0x10000";
        assert_eq!(Stage::of_line(Origin::Hypervisor, line), Some(Stage::SecureLoader));
    }

    #[test]
    fn a_guest_cannot_speak_for_the_hypervisor() {
        assert_eq!(Stage::of_line(Origin::Guest, "stage=runtime"), None);
        assert_eq!(Stage::of_line(Origin::Hypervisor, "xmhf-guest: userspace tsc=1 cpus=1"), None);
    }

    #[test]
    fn stages_are_in_boot_order() {
        assert!(Stage::Runtime < Stage::GuestBoot && Stage::Firmware < Stage::Grub);
    }
}
