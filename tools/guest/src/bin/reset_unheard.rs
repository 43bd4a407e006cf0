//! Memory in which a hypervisor was reset without its knowledge, as its handoff shows: the bootloader zeroes all of it,
//! wherever PALs may have lain, before the next system.
//! resets: yes
//! bare: no
//! expect-hypervisor: was reset without its knowledge; all memory was zeroed
#![no_std]
#![no_main]

use guest::boot;
use guest::cpu::out8;
use guest::memory::{FREE, read64, write64};
use guest::{check, check_eq, guest, println, reset, smp};

guest!(main);

const MARK: u64 = 0x5eed_ac0d_e123_4567;
/// The handoff's first word, and its offset in the region.
const HANDOFF_MAGIC: u64 = u64::from_le_bytes(*b"XMHFHAND");
const HANDOFF_OFFSET: u64 = 0x1_0000;

fn main() {
    // Where GRUB leaves neither modules nor the bootloader, in each part of memory, the last page included.
    let end = boot::e820_24()
        .iter()
        .filter(|record| record.kind == 1)
        .map(|record| record.end())
        .max()
        .unwrap_or(0);
    check!(end > FREE + 0x100_0000, "memory ends at {end:#x}");
    let marked = [0x6_0000, FREE + 0x80_0008, FREE + 0xc0_0000, end - 8];
    if reset::is_second_boot() {
        for at in marked {
            check_eq!(read64(at), Ok(0), "the word at {at:#x}");
        }
        return;
    }
    for at in marked {
        let _ = write64(at, MARK);
    }
    let _ = write64(FREE + 0x40_0000 + HANDOFF_OFFSET, HANDOFF_MAGIC);
    println!("first boot");
    out8(0xcf9, 2);
    out8(0xcf9, 6);
    guest::cpu::wait(smp::PATIENCE);
    check!(false, "the machine was not reset");
}
