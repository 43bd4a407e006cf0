//! What a reset under TrustVisor leaves of the hypervisor in memory, seen by a system that boots without it: code and
//! constants. The runner boots it twice, the second time bare (`run/reset-remains`).
//! hypapp: trustvisor
//! resets: yes
//! bare: no
//! hypervisor: no
#![no_std]
#![no_main]

use guest::boot;
use guest::canary::Vault;
use guest::cpu::{out8, under_hypervisor};
use guest::memory::{FREE, read64, write64};
use guest::{Mode, Regs, check, check_eq, guest, println, reset, run, smp, snippet};

guest!(main);

/// Where the first boot leaves the region's base and end for the second, far from everything.
const NOTE: u64 = FREE + 0x40_0000;
/// Offsets in the region (docs/memory-layout.md), and of the word in the image's header that says where data begins.
const HANDOFF: u64 = 0x1_0000;
const STACK: u64 = 0x2_0000;
const STACK_END: u64 = 0x2_4000;
const RUNTIME: u64 = 0x4_0000;
const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"XMHFRUNT");
const DATA_START: u64 = RUNTIME + 24;

fn main() {
    if reset::is_second_boot() {
        return look();
    }
    check!(under_hypervisor(), "the first boot is under the hypervisor");
    let vault = Vault::open(0);
    check!(vault.knows(), "a PAL lives");
    let region = boot::e820_24()
        .iter()
        .find(|record| record.kind == 2 && (FREE..0xf000_0000).contains(&record.base()));
    let Some(region) = region else {
        check!(false, "the hypervisor's region is reserved");
        return;
    };
    let _ = (write64(NOTE, region.base()), write64(NOTE + 8, region.end()));
    println!("first boot");
    out8(0xcf9, 2);
    out8(0xcf9, 6);
    guest::cpu::wait(smp::PATIENCE);
    check!(false, "the machine was not reset");
}

fn look() {
    check!(!under_hypervisor(), "the second boot is bare");
    let note = |at| read64(NOTE + at).unwrap_or(0);
    let (base, end) = (note(0), note(8));
    check!(base >= FREE && end > base, "the first boot's note: {base:#x}..{end:#x}");
    check_eq!(read64(base + RUNTIME), Ok(IMAGE_MAGIC), "memory outlived the reset");
    let data = read64(base + DATA_START).unwrap_or(0);
    check!((RUNTIME..0x100_0000).contains(&data), "data begins at {data:#x}");
    let parts = [("handoff", HANDOFF, STACK), ("stack", STACK, STACK_END), ("data", data, end - base)];
    for (name, start, end) in parts {
        check_eq!(words_in(base + start, base + end), 0, "words that are left of the {name}");
    }
}

/// Number of words in `[start, end)` that are not zero.
fn words_in(start: u64, end: u64) -> u64 {
    let mut regs = Regs { rdi: start, rcx: (end - start) / 8, ..Regs::default() };
    let code = snippet!(
        "xor eax, eax",
        "xor ebx, ebx",
        "2: jrcxz 3f",
        "repe scasq",
        "je 3f",
        "inc rbx",
        "jmp 2b",
        "3: nop"
    );
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "the search");
    regs.rbx
}
