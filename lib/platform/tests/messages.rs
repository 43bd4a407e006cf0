//! Each message of a boot that is refused, word for word: what is wrong, and what to do.

use platform::modules::ModuleError;
use platform::multiboot::BootInformationError;
use platform::placement::PlacementError;
use platform::processors::{Source, TooManyProcessors};
use platform::serial::SerialError;
use std::fmt::Display;

fn check(said: &[(&dyn Display, &str)]) {
    for (error, message) in said {
        assert_eq!(error.to_string(), *message);
    }
}

#[test]
fn refused_modules_are_named_with_what_to_do() {
    check(&[
        (
            &ModuleError::NoImage,
            "GRUB brought no hypervisor image; add: module /boot/xmhf-HYPAPP.bin as the first module",
        ),
        (&ModuleError::Truncated, "the hypervisor image is cut short; copy xmhf-HYPAPP.bin to /boot again"),
        (
            &ModuleError::Foreign,
            "the first module is no hypervisor image of this build; make xmhf-HYPAPP.bin the first module",
        ),
        (
            &ModuleError::NoBootSector,
            "GRUB brought no boot sector for the guest; add: module --nounzip (hd1)+1 as the second module",
        ),
        (
            &ModuleError::BootSectorTooLarge(16385),
            "the boot sector module has 16385 bytes, 16384 at most fit; \
             name one sector: module --nounzip (hd1)+1",
        ),
        (
            &ModuleError::NotBootable,
            "the second module is no boot sector (signature 55 AA missing); name the guest's disk: \
             module --nounzip (hd1)+1",
        ),
        (&ModuleError::Unreadable, "a module lies above 4 GiB; load it below"),
    ]);
}

#[test]
fn refused_boot_information_is_named_with_what_to_do() {
    check(&[
        (
            &BootInformationError::NotMultiboot(0x1badb002),
            "no Multiboot loader started us (EAX=0x1badb002); use GRUB's multiboot or multiboot2",
        ),
        (
            &BootInformationError::Malformed,
            "GRUB's information contradicts itself; use another version of GRUB",
        ),
        (
            &BootInformationError::Unreadable,
            "GRUB's information lies above 4 GiB; use another version of GRUB",
        ),
        (&BootInformationError::NoMemoryMap, "GRUB gave no memory map; start it by a BIOS that has E820"),
        (
            &BootInformationError::MemoryMapTooLong,
            "the memory map has more than 256 records; update the firmware",
        ),
        (&BootInformationError::TooManyModules, "GRUB brought more than 16 modules; remove module lines"),
        (
            &BootInformationError::CommandLine,
            "the command line has more than 1023 characters, or not only ASCII; shorten it",
        ),
    ]);
}

#[test]
fn a_machine_that_does_not_fit_is_named_with_what_to_do() {
    check(&[
        (
            &PlacementError::TooLarge,
            "the hypervisor image asks for more than 4 GiB; copy the image to /boot again",
        ),
        (
            &PlacementError::NoHole(8 << 20),
            "no free 8 MiB below 4 GiB; add memory, or load fewer and smaller modules",
        ),
        (
            &PlacementError::NotWriteBack(6 << 20),
            "no free 6 MiB below 4 GiB are write-back memory; update the firmware, which sets the MTRRs",
        ),
        (&TooManyProcessors, "the machine has more than 1024 CPUs; switch some off in the firmware set-up"),
        (&Source::Madt, "madt"),
        (&Source::MpTable, "mp-table"),
        (&Source::BootstrapOnly, "bootstrap-only"),
    ]);
}

#[test]
fn the_broken_part_of_a_serial_line_is_named() {
    check(&[
        (&SerialError::Baud, "the baud rate cannot be made from the clock"),
        (&SerialError::Clock, "the clock is not a number of Hz"),
        (&SerialError::Format, "the line format is not like 8n1"),
        (&SerialError::Port, "the I/O base is not a port number"),
        (&SerialError::Excess, "there are more than three parts"),
    ]);
}
