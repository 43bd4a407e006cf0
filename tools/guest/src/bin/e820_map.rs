//! Memory map: E820 in both record sizes, E801h and 88h agree, and what is called usable is memory.
#![no_std]
#![no_main]

use guest::boot::{self, Record};
use guest::cpu::under_hypervisor;
use guest::memory::{read64, write64};
use guest::{Mode, Regs, check, check_eq, guest, println, run, snippet};

guest!(main);

const UNTOUCHED: u32 = 0xeeee_eeee;
const MIB: u64 = 1 << 20;

fn main() {
    let (small, large) = (boot::e820_20(), boot::e820_24());
    for record in large {
        println!(
            "e820 {:#x}..{:#x} kind={} stored={}",
            record.base(),
            record.end(),
            record.kind,
            record.stored
        );
    }
    check_eq!(small.len(), large.len(), "records of 20 and of 24 bytes");
    for (a, b) in small.iter().zip(large) {
        check_eq!(
            (a.base(), a.length(), a.kind),
            (b.base(), b.length(), b.kind),
            "record of 20 and of 24 bytes"
        );
        check_eq!((a.stored, a.attributes), (20, UNTOUCHED), "20 bytes stored");
        check!(matches!(b.stored, 20 | 24), "{} bytes stored of 24", b.stored);
        // ACPI, "INT 15H, E820H": bit 0 of the extended attributes is set in a record that counts.
        check!(b.stored == 20 || b.attributes & 1 == 1, "attributes {:#x}", b.attributes);
        check!(b.length() > 0, "length of the record at {:#x}", b.base());
    }
    let (last, others) = large.split_last().unwrap_or((&large[0], &[]));
    check!(last.next == 0 || last.next != others.last().map_or(0, |record| record.next), "the list ends");
    check!(others.iter().all(|record| record.next != 0), "only the last record ends the list");
    no_overlap(large);
    usable_is_memory(large);
    older_calls(large);
    if under_hypervisor() {
        let reserved =
            |record: &&Record| record.kind == 2 && record.base() >= MIB && record.end() < 0xf000_0000;
        let hidden: u64 = large.iter().filter(reserved).map(Record::length).sum();
        println!("reserved between 1 MiB and the devices: {hidden:#x} bytes");
        check!(hidden >= 2 * MIB, "the hypervisor's memory is reserved, {hidden:#x} bytes are");
    }
    bad_calls();
}

fn no_overlap(records: &[Record]) {
    for (index, a) in records.iter().enumerate() {
        for b in &records[index + 1..] {
            let overlaps = a.base() < b.end() && b.base() < a.end();
            check!(!overlaps || a.kind == b.kind, "{:#x} and {:#x} overlap", a.base(), b.base());
        }
    }
}

fn usable_is_memory(records: &[Record]) {
    for record in records.iter().filter(|record| record.kind == 1 && record.end() <= 1 << 32) {
        // The guest itself lies in the first range.
        let first = if record.base() == 0 { record.end() - 4096 } else { record.base() };
        for address in [(first + 7) & !7, (record.end() - 8) & !7] {
            let old = read64(address).unwrap_or(0);
            check_eq!(write64(address, !old), Ok(()), "write of {address:#x}");
            check_eq!(read64(address), Ok(!old), "usable memory at {address:#x}");
            check_eq!(write64(address, old), Ok(()), "write of {address:#x}");
        }
    }
}

/// End of the memory that goes on from `start`; Bochs's BIOS counts its ACPI tables in E801h and 88h too.
fn end_of_memory(records: &[Record], start: u64) -> u64 {
    let mut end = start;
    while let Some(next) = records.iter().find(|r| r.kind != 2 && r.base() <= end && r.end() > end) {
        end = next.end();
    }
    end
}

fn older_calls(records: &[Record]) {
    let end = end_of_memory(records, MIB);
    if let Some([ax, bx, cx, dx]) = boot::e801() {
        println!("e801 {ax:#x} {bx:#x} {cx:#x} {dx:#x}, 88 {:?}, memory to {end:#x}", boot::int15_88());
        check!(ax == cx || cx == 0, "AX and CX of E801h");
        check!(bx == dx || dx == 0, "BX and DX of E801h");
        let low = u64::from(ax.max(cx)) << 10;
        check!(low <= 15 * MIB && MIB + low <= end, "{low:#x} bytes from 1 MiB by E801h");
        let high = u64::from(bx.max(dx)) << 16;
        check!(16 * MIB + high <= end.max(16 * MIB), "{high:#x} bytes from 16 MiB by E801h");
        check!(
            16 * MIB + high + 0x2_0000 >= end,
            "{high:#x} bytes from 16 MiB by E801h are all but the last few"
        );
    }
    if let Some(kib) = boot::int15_88() {
        let seen = u64::from(kib) << 10;
        check!(MIB + seen <= end, "{seen:#x} bytes from 1 MiB by 88h");
    }
}

fn bad_calls() {
    let call = snippet!(code16: "int 0x15");
    // Signature, size, continuation.
    for (rdx, rcx, rbx) in [(0x1234, 20, 0), (0x534d_4150, 20, 0x7fff), (0x534d_4150, 20, 0xffff_ffff)] {
        let mut regs = Regs { rax: 0xe820, rdx, rcx, rbx, rdi: 0x600, ..Regs::default() };
        check_eq!(run(Mode::Real, call, &mut regs), Ok(()), "E820 with bad input returns");
        println!("E820 edx={rdx:#x} ecx={rcx} ebx={rbx:#x}: eax={:#x} flags={:#x}", regs.rax, regs.rflags);
        let refused = regs.rflags & 1 != 0 || regs.rax != 0x534d_4150;
        check!(refused, "E820 with edx={rdx:#x} ebx={rbx:#x} is refused");
    }
    // Another function of INT 15h still reaches the BIOS: 24h/03h asks about address line 20.
    let mut regs = Regs { rax: 0x2403, ..Regs::default() };
    check_eq!(run(Mode::Real, call, &mut regs), Ok(()), "INT 15h, AX=2403h");
    check_eq!((regs.rflags & 1, regs.rax >> 8 & 0xff), (0, 0), "INT 15h, AX=2403h");
}
