//! PALs of processes on kernels of 32 bits, with 32-bit paging and with PAE: the original's 32-bit interface.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::{FREE, low, read32, read64, write32, write64};
use guest::pal;
use guest::pal::prelude::*;
use guest::pal_code::{cpuid_of_32_bits, increment_of_32_bits, sum_of_32_bits};
use guest::{Fault, Regs, run};
use trustvisor::call::Failure;
use trustvisor::probe;

guest!(main);

/// Paging structures, in front of the PALs and behind the lists.
const DIRECTORY32: u64 = FREE + 0x1_0000;
const TABLE32: u64 = FREE + 0x1_1000;
const PDPT: u64 = FREE + 0x1_2000;
const DIRECTORIES: u64 = FREE + 0x1_3000;
const TABLE: u64 = FREE + 0x1_7000;
/// Buffers of the caller's, in two pages.
const BUFFERS: u64 = FREE + 0x2_0000;

const PSE: u32 = 1 << 4;
const PAE: u32 = 1 << 5;
const INTEGERS: [(ParameterType, u64); 10] = [(ParameterType::Integer, 0); 10];
const POINTERS: [(ParameterType, u64); 10] = [(ParameterType::Pointer, 1); 10];
const ARGUMENTS: [u64; 10] = [3, 5, 7, 11, 13, 17, 19, 23, 29, 0xffff_fff0];
const PF: u64 = 14;

fn main() {
    make_tables();
    for cr4 in [PSE, PAE] {
        let cr3 = low(if cr4 == PSE { DIRECTORY32 } else { PDPT });
        let mode = Mode::PagedUser32 { cr3, cr4 };
        check_eq!(pal::hypercall(mode, Command::TEST.0, [0x42, 0, 0, 0]), 0, "{mode:?}: the test hypercall");
        check_eq!(pal::hypercall(mode, 9, [0; 4]), Status::NOT_IN_PAL.0, "{mode:?}: a PAL's");
        for round in 0..3 {
            integers(mode, round);
            pointers(mode);
        }
        tells_that_it_is_a_pal(mode);
        draws_random_bytes(mode);
        reads_zeros_outside(mode);
        faults(mode);
        other_tables(mode);
    }
}

/// Large pages for all but the memory from 2 MiB to 4 MiB, which both have in pages of 4 KiB; all of it for ring 3.
fn make_tables() {
    for page in 0..1024 {
        let large = if page == 0 { TABLE32 | 7 } else { page << 22 | 0x87 };
        check_eq!(write32(DIRECTORY32 + 4 * page, low(large)), Ok(()), "write");
        check_eq!(write32(TABLE32 + 4 * page, low(page << 12 | 7)), Ok(()), "write");
    }
    for page in 0..2048 {
        let large = if page == 1 { TABLE | 7 } else { page << 21 | 0x87 };
        check_eq!(write64(DIRECTORIES + 8 * page, large), Ok(()), "write");
    }
    for page in 0..512 {
        check_eq!(write64(TABLE + 8 * page, (FREE + page * PAGE) | 7), Ok(()), "write");
    }
    for directory in 0..4 {
        check_eq!(write64(PDPT + 8 * directory, (DIRECTORIES + directory * PAGE) | 1), Ok(()), "write");
    }
}

/// Integers arrive on the stack, the sum comes in EAX; registers are cleared or kept as in C.
fn integers(mode: Mode, round: u32) {
    let adder = Pal::place(mode, 0, sum_of_32_bits());
    let expected =
        (1..).zip(ARGUMENTS).map(|(factor, argument)| factor * argument).sum::<u64>() & 0xffff_ffff;
    check_eq!(adder.register(&INTEGERS), 0, "{mode:?} round {round}: registering");
    check_eq!(adder.register(&INTEGERS), Status::ALREADY_REGISTERED.0, "{mode:?}: registering again");
    for _ in 0..3 {
        let Ok(regs) = adder.call(ARGUMENTS) else {
            check!(false, "{mode:?} round {round}: the call faulted");
            return;
        };
        check_eq!((regs.rax, regs.rflags & CF), (expected, 0), "{mode:?} round {round}: the sum");
        check_eq!([regs.rcx, regs.rdx], [0; 2], "{mode:?}: registers that are no results");
        check_eq!([regs.rbx, regs.rbp], [0x2222_2222, 0x4444_4444], "{mode:?}: registers that are kept");
        check_eq!([regs.rsi, regs.rdi], [FREE + 0x2000, adder.entry()], "{mode:?}: kept too");
    }
    let off = pal::call(mode, adder.entry(), ARGUMENTS, 0).map(|regs| (low(regs.rax), regs.rflags & CF));
    check_eq!(off, Ok((Failure::INTERRUPTS_OFF.0, CF)), "{mode:?}: a call with interrupts off");
    let second = pal::call(mode, adder.entry() + 1, ARGUMENTS, pal::IF).map(|_| ());
    check_eq!(second, Err(Fault::GP), "{mode:?}: a call of the second byte");
    check_eq!(adder.unregister(), 0, "{mode:?} round {round}: unregistering");
    check_eq!(adder.unregister(), Status::NOT_REGISTERED.0, "{mode:?}: unregistering again");
    check_eq!(adder.call(ARGUMENTS).map(|regs| regs.rax), Ok(expected), "{mode:?}: a plain function again");
}

/// Words of four bytes go in and come back, one of them across two pages; their neighbours stay.
fn pointers(mode: Mode) {
    let pal = Pal::place(mode, 1, increment_of_32_bits());
    check_eq!(pal.register(&POINTERS), 0, "{mode:?}: registering");
    let at = |index: u64| BUFFERS + 0xff2 - 36 + 8 * index;
    for (index, value) in (0..10).zip((0..).step_by(100)) {
        let _ = write32(at(index), value);
        let _ = write32(at(index) + 4, 0x9a5d);
    }
    let sum: u64 = (0..10).map(|index| 100 * index * (index + 1)).sum();
    let seen = pal.call(core::array::from_fn(|index| at(index as u64)));
    check_eq!(seen.map(|regs| (regs.rax, regs.rflags & CF)), Ok((sum, 0)), "{mode:?}: the sum");
    for (index, value) in (0..10).zip((0..).step_by(100)) {
        let around = [read32(at(index)), read32(at(index) + 4)];
        check_eq!(around, [Ok(value + 1), Ok(0x9a5d)], "{mode:?}: buffer {index}");
    }
    for pointer in [pal.entry(), pal.data() - 2] {
        let seen = pal.call([pointer; 10]).map(|regs| (regs.eax(), regs.rflags & CF));
        check_eq!(seen, Ok((Failure::BAD_OUTPUT.0, CF)), "{mode:?}: a pointer into the PAL: {pointer:#x}");
    }
    check_eq!(pal.unregister(), 0, "{mode:?}: unregistering");
}

fn tells_that_it_is_a_pal(mode: Mode) {
    let teller = Pal::place(mode, 2, cpuid_of_32_bits());
    let tells = || teller.call([0; 10]).map(|regs| low(regs.rax));
    check_eq!(tells(), Ok(probe::NOT_IN_PAL), "{mode:?}: outside a PAL");
    check_eq!(teller.register(&[]), 0, "{mode:?}: registering without parameters");
    let number = tells();
    check!(
        number.is_ok_and(|number| number < probe::PAL_NUMBER_LIMIT),
        "{mode:?}: inside a PAL: {number:x?}"
    );
    check_eq!(teller.unregister(), 0, "{mode:?}: unregistering");
}

/// The microTPM, with arguments in registers of 32 bits and pointers into the PAL.
fn draws_random_bytes(mode: Mode) {
    let drawer = Pal::place(mode, 2, random());
    check_eq!(drawer.register(&[(ParameterType::Integer, 0)]), 0, "{mode:?}: registering");
    let draw = || drawer.call([drawer.data(); 10]).map(|regs| (low(regs.rax), regs.rflags & CF));
    let drawn = [draw(), draw()];
    let is_good = drawn.iter().all(|drawn| drawn.is_ok_and(|(number, carry)| number > 0xff && carry == 0));
    check!(is_good && drawn[0] != drawn[1], "{mode:?}: random numbers: {drawn:x?}");
    check_eq!(drawer.unregister(), 0, "{mode:?}: unregistering");
}

/// Ring 3 by the same tables, and ring 0 by others.
fn reads_zeros_outside(mode: Mode) {
    let pal = Pal::place(mode, 0, sum_of_32_bits());
    check_eq!(pal.register(&INTEGERS), 0, "{mode:?}: registering");
    for page in 0..4 {
        let mut regs = Regs { rsi: pal.at + page * PAGE, ..Regs::default() };
        let code = snippet!(code32: "mov ecx, 1024", "xor ebx, ebx", "2: lodsd", "or ebx, eax", "loop 2b");
        check_eq!(
            run(mode, code, &mut regs).map(|()| regs.rbx),
            Ok(0),
            "{mode:?}: page {page} as ring 3 reads it"
        );
        let words = (0..PAGE).step_by(8).filter(|at| read64(pal.at + page * PAGE + at) != Ok(0)).count();
        check_eq!(words, 0, "{mode:?}: page {page} as ring 0 reads it");
    }
    check_eq!(pal.unregister(), 0, "{mode:?}: unregistering");
}

/// What a PAL must not do ends it with kind and address, and nothing of it is left.
fn faults(mode: Mode) {
    let lists = FREE;
    for (name, code, kind, address) in [
        ("a read of its caller's memory", snippet!(code32: "mov eax, [0x200000]", "ret"), PF, Some(lists)),
        ("a read of nothing", snippet!(code32: "mov eax, [0x77]", "ret"), PF, Some(0x77)),
        (
            "the top of the address space",
            snippet!(code32: "mov eax, [0xfffff000]", "ret"),
            PF,
            Some(0xffff_f000),
        ),
        ("a return to elsewhere", snippet!(code32: "push 8", "ret"), PF, Some(8)),
        ("UD2", snippet!(code32: "ud2"), 6, None),
        ("the FPU", snippet!(code32: "fninit", "ret"), 7, None),
        ("CLI", snippet!(code32: "cli", "ret"), 13, None),
        ("INT 80h", snippet!(code32: "int 0x80", "ret"), 13, None),
        ("SYSENTER", snippet!(code32: "sysenter"), 13, None),
    ] {
        let pal = Pal::place(mode, 0, code);
        check_eq!(pal.register(&INTEGERS), 0, "{mode:?}, {name}: registering");
        let seen = pal.call([0; 10]);
        let told = seen.map(|regs| (regs.eax(), regs.rflags & CF, regs.rdx));
        check_eq!(told, Ok((Failure::FAULTED.0, CF, kind)), "{mode:?}, {name}");
        if let (Ok(regs), Some(address)) = (seen, address) {
            check_eq!(regs.rcx, address, "{mode:?}, {name}: where");
        }
        let again = pal.call([0; 10]).map(|regs| (regs.eax(), regs.rflags & CF));
        check_eq!(again, Ok((Failure::DEAD.0, CF)), "{mode:?}, {name}: called again");
        check_eq!(pal.unregister(), 0, "{mode:?}, {name}: unregistering");
        let left = (pal.data()..pal.at + 4 * PAGE).step_by(8).filter(|&at| read64(at) != Ok(0)).count();
        check_eq!(left, 0, "{mode:?}, {name}: words that are left");
    }
}

/// Another process, by tables or by mode, does not reach a PAL.
fn other_tables(mode: Mode) {
    let pal = Pal::place(mode, 0, sum_of_32_bits());
    check_eq!(pal.register(&INTEGERS), 0, "{mode:?}: registering");
    let other = match mode {
        Mode::PagedUser32 { cr4: PSE, .. } => Mode::PagedUser32 { cr3: low(PDPT), cr4: PAE },
        _ => Mode::PagedUser32 { cr3: low(DIRECTORY32), cr4: PSE },
    };
    for other in [other, Mode::CompatibilityUser32] {
        let called = pal::call(other, pal.entry(), ARGUMENTS, pal::IF).map(|_| ());
        check_eq!(called, Err(Fault::GP), "{mode:?}: called from {other:?}");
        let ended = pal::hypercall(other, Command::UNREGISTER.0, [pal.entry(), 0, 0, 0]);
        check_eq!(ended, Status::NOT_REGISTERED.0, "{mode:?}: unregistered from {other:?}");
    }
    check_eq!(pal.unregister(), 0, "{mode:?}: unregistering");
}

/// Four bytes at the data page, which is the argument, by way of a count behind them; the status where there are none.
fn random() -> Snippet {
    snippet!(code32:
        "mov ecx, [esp + 4]",
        "lea edx, [ecx + 16]",
        "mov dword ptr [edx], 4",
        "mov eax, 9",
        "vmcall",
        "test eax, eax",
        "jnz 2f",
        "mov eax, [ecx]",
        "2: ret"
    )
}
