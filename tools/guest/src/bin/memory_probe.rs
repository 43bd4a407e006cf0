//! The hypervisor probes its own memory where there is none, and goes on: page faults and #GP by the table.
//! hypapp: stop
//! bare: no
#![no_std]
#![no_main]

use guest::{Mode, Regs, check_eq, guest, run, snippet};

guest!(main);

/// First byte of the hypervisor's image: the region begins there with the secure loader (docs/memory-layout.md).
const REGION: u64 = 0xffff_ffff_8000_0000;
/// Ends of the halves of the address space: what lies between is no address.
const CANONICAL_END: u64 = 0x8000_0000_0000;

fn main() {
    let places = [
        (REGION, 1, "the region's first word"),
        (REGION + 0xfff, 1, "a word over two pages"),
        (0x1000, 0, "guest memory, which is not mapped"),
        (CANONICAL_END, 0, "what is no address"),
        (CANONICAL_END - 4, 0, "a word that ends in what is no address"),
        (u64::MAX - 7, 0, "the last word"),
        (u64::MAX, 0, "a word that wraps"),
        (REGION, 1, "the region's first word, again"),
    ];
    for (address, is_there, what) in places {
        let mut regs = Regs { rax: 4, rbx: 0x5354_4f50, rdx: address, ..Regs::default() };
        check_eq!(run(Mode::Kernel64, snippet!("vmcall"), &mut regs), Ok(()), "the call, {what}");
        check_eq!(regs.rax, is_there, "{what}");
    }
}
