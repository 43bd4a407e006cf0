//! A process is gone without a word, and the system has a disk read into what was its PAL's page: it finds what was read.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]
#![expect(clippy::cast_possible_truncation, reason = "addresses below 4 GiB")]

use guest::canary::{self, Vault};
use guest::cpu::{in8, in32, out8, out32, rdtsc};
use guest::memory::{FREE, read8, write32, write64};
use guest::pal::{PAGE, PALS};
use guest::space::{Space, USER, WRITABLE, window};
use guest::{check, check_eq, guest};

guest!(main);

/// Where the controller is told what to do.
const PRD: u64 = FREE + 0x5_0000;
/// A page that was never a PAL's.
const PLAIN: u64 = FREE + 0x6_0000;
const TABLES: u64 = FREE + 0x4_0000;
const VAULT: Vault = Vault { at: PALS, entry: window(0) };

fn main() {
    let bus_master = bus_master();
    let _ = write64(PLAIN + 0x1f8, 0);
    read_boot_sector(bus_master, PLAIN);
    check_eq!(signature(PLAIN), 0xaa55, "what a disk writes to an ordinary page");

    let space = Space::new(TABLES);
    for page in 0..4 {
        space.map(page, PALS + page * PAGE, USER | WRITABLE);
    }
    let _ = Vault::place(0);
    space.within(|| {
        check_eq!(VAULT.register(), 0, "registering");
        VAULT.keep();
        check!(VAULT.knows(), "a PAL");
    });
    // Its process ends here: the system takes the last page first, and has the disk write all.
    for page in (0..4).rev() {
        space.unmap(page);
        read_boot_sector(bus_master, PALS + page * PAGE);
        check_eq!(signature(PALS + page * PAGE), 0xaa55, "what the system finds in page {page}");
    }
    for page in 0..4 {
        check_eq!(signature(PALS + page * PAGE), 0xaa55, "what is left in page {page}");
    }
    canary::is_nowhere("behind the process");
}

fn signature(page: u64) -> u32 {
    u32::from(read8(page + 510).unwrap_or(0)) | u32::from(read8(page + 511).unwrap_or(0)) << 8
}

/// Reads the first sector of the first disk into `page`, by the IDE controller's bus master.
fn read_boot_sector(bus_master: u16, page: u64) {
    let _ = write32(PRD, page as u32).and(write32(PRD + 4, 0x8000_0200));
    out32(bus_master + 4, PRD as u32);
    out8(bus_master, 8);
    out8(bus_master + 2, 6);
    out8(0x3f6, 2);
    out8(0x1f6, 0xe0);
    for (port, value) in [(0x1f2, 1), (0x1f3, 0), (0x1f4, 0), (0x1f5, 0), (0x1f7, 0xc8)] {
        out8(port, value);
    }
    out8(bus_master, 9);
    let start = rdtsc();
    while in8(bus_master + 2) & 5 != 4 && rdtsc() - start < 200_000_000 {}
    out8(bus_master, 0);
    // Reading the status ends the interrupt.
    let _ = in8(0x1f7);
}

/// The I/O base of the IDE controller's bus master (PCI device 1, function 1).
fn bus_master() -> u16 {
    let device = 0x8000_0900;
    out32(0xcf8, device | 4);
    out32(0xcfc, in32(0xcfc) & 0xffff | 5);
    out32(0xcf8, device | 0x20);
    (in32(0xcfc) & 0xfff0) as u16
}
