//! Many tables of L2, each of which maps pages far apart.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

use super::prelude::*;
use super::{Ept, allocate, instruction, read, trial, write};
use crate::{Mode, Regs, snippet};

/// Blocks of 2 MiB of L2's memory, from the first of these on; each takes a table.
const BLOCKS: u64 = 1400;
const FIRST: u64 = 0x4000_0000;
/// The other page that every table maps.
const HIGH: u64 = 0xc00_0000;

/// Has L2 touch pages so that EPT02 has [`BLOCKS`] tables, each with a low and a high page of L1's memory by turns.
pub fn fill(nested: &mut Guest, ept: &mut Ept) {
    let known = read(ept.entry(FIRST, 2)) & !0xfff;
    if known == 0 {
        let (table, low) = (allocate(), allocate());
        write(low, 1);
        for index in 0..512 {
            let page = if index % 2 == 0 { low } else { HIGH };
            write(table + 8 * index, page | 6 << 3 | 7);
        }
        (0..BLOCKS).for_each(|number| write(ept.entry(FIRST + (number << 21), 2), table | 7));
    }
    check_eq!(instruction::invept(2, [0, 0]), Ok(()), "INVEPT of all");
    let regs = Regs { rdi: FIRST, rcx: BLOCKS, ..Regs::default() };
    let code =
        snippet!("2: mov rax, [rdi]", "mov rax, [rdi + 4096]", "add rdi, 0x200000", "dec rcx", "jnz 2b");
    trial::begin(nested, Mode::Kernel64, code, regs);
    check_eq!(nested.run(), ExitReason::VMCALL, "touching all");
    check_eq!(trial::result().0, Ok(()), "touching all");
}
