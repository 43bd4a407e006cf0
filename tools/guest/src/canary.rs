//! A secret that PALs alone know, and the search that finds it wherever it may have got.
//!
//! The canary is [`KEY`] ^ [`HIDDEN`]. It is whole in vaults alone and, while they look for it, in registers of the
//! snippets here. A test calls [`is_nowhere`] after whatever it tried.

#![expect(unsafe_code, reason = "snippets")]
// UNSAFETY: a snippet's assembly is in a section of its own; only its addresses are taken here.

use core::hint::black_box;

use trustvisor::parameter::ParameterType;
use trustvisor::section::{SectionRecord, SectionType};

use crate::memory::{read64, write64};
use crate::pal::{self, CF, IF, PAGE, PALS, Pal};
use crate::trap::Frame;
use crate::vmx::Registers;
use crate::{Fault, Mode, Regs, Snippet, boot, check, check_eq, run, snippet};

/// One half, in the vault's code.
const KEY: u64 = 0x5ec2_e7c0_de00_5ec2;
/// The other, which the vault is told.
const HIDDEN: u64 = 0x1234_5678_9abc_def0;
const INTEGERS: [(ParameterType, u64); 4] = [(ParameterType::Integer, 0); 4];
const KEEP: u64 = 1;
const CHECK: u64 = 2;
const HOLD: u64 = 3;

/// A PAL that keeps the canary in its data, its parameters' section and on its stack, and forgets it in no register.
#[derive(Clone, Copy, Debug)]
pub struct Vault {
    /// Physical address of its code, before data, parameters and stack, a page each.
    pub at: u64,
    /// Linear address of its entry.
    pub entry: u64,
}

impl Vault {
    /// A vault in place `number`, not registered.
    pub fn place(number: u64) -> Self {
        let pal = Pal::place(Mode::User64, number, code());
        Self { at: pal.at, entry: pal.entry() }
    }

    /// The same vault by other linear addresses.
    pub fn seen_at(self, entry: u64) -> Self {
        Self { entry, ..self }
    }

    /// A vault in place `number`, registered and with the canary in it.
    pub fn open(number: u64) -> Self {
        let vault = Self::place(number);
        check_eq!(vault.register(), 0, "registering a vault");
        vault.keep();
        vault
    }

    /// Registers it; gives the status.
    pub fn register(&self) -> u32 {
        pal::register(Mode::User64, &self.sections(), &INTEGERS, self.entry)
    }

    /// Code, data, parameters and stack.
    pub fn sections(&self) -> [SectionRecord; 4] {
        let kinds = [SectionType::Code, SectionType::Data, SectionType::Parameters, SectionType::Stack];
        let mut start = self.entry.wrapping_sub(PAGE);
        kinds.map(|kind| {
            start += PAGE;
            SectionRecord { kind: kind as u32, pages: 1, start }
        })
    }

    /// Ends its registration; gives the status.
    pub fn unregister(&self) -> u32 {
        pal::hypercall(Mode::User64, trustvisor::command::Command::UNREGISTER.0, [self.entry, 0, 0, 0])
    }

    /// Gives it the canary.
    pub fn keep(&self) {
        check_eq!(self.ask(KEEP, 0), Ok((0, 0)), "a vault takes the canary");
    }

    /// Whether it has the canary and says so in order.
    pub fn knows(&self) -> bool {
        self.ask(CHECK, 0) == Ok((1, 0))
    }

    /// Has it go through `rounds` with the canary in every register; then as [`Self::knows`].
    pub fn holds(&self, rounds: u64) -> bool {
        self.ask(HOLD, rounds) == Ok((1, 0))
    }

    /// What [`Self::holds`] comes to: EAX, and CF where the call failed.
    ///
    /// # Errors
    ///
    /// The fault that the call took.
    pub fn held(&self, rounds: u64) -> Result<(u32, u64), Fault> {
        self.ask(HOLD, rounds)
    }

    /// What calling it comes to: EAX, and CF where the call failed.
    ///
    /// # Errors
    ///
    /// The fault that the call took.
    pub fn answer(&self) -> Result<(u32, u64), Fault> {
        self.ask(CHECK, 0)
    }

    /// The registers to call it with, its entry in R15, so that it holds the canary for so many rounds.
    pub fn registers(&self, rounds: u64) -> Regs {
        let data = self.entry + PAGE;
        Regs {
            rdi: HOLD,
            rsi: HIDDEN,
            rdx: data,
            rcx: rounds,
            r15: self.entry,
            rflags: IF,
            ..Regs::default()
        }
    }

    fn ask(&self, what: u64, rounds: u64) -> Result<(u32, u64), Fault> {
        let mut regs = Regs { rdi: what, ..self.registers(rounds) };
        let result = run(Mode::User64, call(), &mut regs);
        check!(!is_in(&regs), "registers behind a vault's call are free of the canary: {regs:x?}");
        result.map(|()| (regs.eax(), regs.rflags & CF))
    }
}

/// Calls R15; from one place, so that calls from it return to the same.
#[inline(never)]
pub fn call() -> Snippet {
    snippet!("call r15")
}

/// Whether one of the registers holds the canary, or half of it.
pub fn is_in(regs: &Regs) -> bool {
    let Regs { rax, rbx, rcx, rdx, rsi, rdi, rbp, .. } = *regs;
    let Regs { r8, r9, r10, r11, r12, r13, r14, r15, rsp, cr2, .. } = *regs;
    [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rsp, cr2]
        .into_iter()
        .any(is_canary)
}

/// Whether one of an interrupted program's registers holds the canary, or half of it.
pub fn is_in_frame(frame: &Frame) -> bool {
    let mut regs = Regs::default();
    frame.to_regs(&mut regs);
    is_in(&regs)
}

/// Whether one of the registers with which a guest of this guest left holds the canary, or half of it.
pub fn is_in_nested(registers: &Registers) -> bool {
    let Registers { rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, cr2 } =
        *registers;
    [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, cr2].into_iter().any(is_canary)
}

/// A PAL that keeps the canary and tells it. RDI = 1: keeps RSI, uncovered, at RDX. RDI = 2: gives back what is there.
pub fn telling() -> Snippet {
    snippet!(
        "cmp rdi, 1",
        "jne 2f",
        "movabs rax, 0x5ec2e7c0de005ec2",
        "xor rax, rsi",
        "mov [rdx], rax",
        "xor eax, eax",
        "ret",
        "2: mov rax, [rdx]",
        "mov rcx, rax",
        "mov r8, rax",
        "ret"
    )
}

/// Checks that the canary is nowhere in memory, and that one in plain sight is found.
pub fn is_nowhere(what: &str) {
    check_eq!(copies(), 0, "copies of the canary {what}");
    let plain = PALS - 0x1000;
    let _ = write64(plain, KEY);
    toggle(plain);
    check_eq!(copies(), 1, "copies of the canary in plain sight, {what}");
    toggle(plain);
    check_eq!(read64(plain), Ok(KEY), "half a canary");
}

/// Number of words in the machine's memory that are the canary, as ring 0 reads it.
pub fn copies() -> u64 {
    let usable = boot::e820_24().iter().filter(|record| record.kind == 1 && record.base() < 1 << 32);
    usable.map(|record| copies_in(record.base().next_multiple_of(8), record.end().min(1 << 32))).sum()
}

/// Number of words in `[start, end)` that are the canary.
pub fn copies_in(start: u64, end: u64) -> u64 {
    let mut regs = Regs { rdi: start, rcx: (end - start) / 8, rsi: HIDDEN, ..Regs::default() };
    let code = snippet!(
        "movabs rax, 0x5ec2e7c0de005ec2",
        "xor rax, rsi",
        "xor ebx, ebx",
        "2: jrcxz 3f",
        "repne scasq",
        "jne 3f",
        "inc rbx",
        "jmp 2b",
        "3: xor eax, eax"
    );
    check_eq!(run(Mode::Kernel64, code, &mut regs), Ok(()), "the search");
    regs.rbx
}

/// Makes of half a canary at a physical address a whole one, and the other way round.
pub fn toggle(address: u64) {
    let mut regs = Regs { rdi: address, rsi: HIDDEN, ..Regs::default() };
    check_eq!(run(Mode::Kernel64, snippet!("xor [rdi], rsi"), &mut regs), Ok(()), "writing half a canary");
}

/// Compares halves: the whole is in no register of ours either.
fn is_canary(value: u64) -> bool {
    let hidden = black_box(HIDDEN);
    let half = |shift: u32| (value >> shift) as u32 ^ (KEY >> shift) as u32 == (hidden >> shift) as u32;
    half(0) || half(32)
}

/// RDI: what to do. RSI: what the canary is hidden behind. RDX: the data section. RCX: rounds.
fn code() -> Snippet {
    snippet!(
        "movabs rax, 0x5ec2e7c0de005ec2",
        "xor rax, rsi",
        "cmp edi, 2",
        "je 4f",
        "cmp edi, 3",
        "je 3f",
        "cmp edi, 1",
        "jne 9f",
        // Keeps it, in memory and registers.
        "mov [rdx], rax",
        "mov [rdx + 0xff8], rax",
        "mov [rdx + 0x1ff8], rax",
        "call 8f",
        "push rax",
        "pop rdx",
        "mov rsi, rax",
        "mov rdi, rax",
        "mov rcx, rax",
        "xor eax, eax",
        "ret",
        // Holds it in registers; the rounds are counted in memory.
        "3: mov [rdx + 16], rcx",
        "call 8f",
        "mov rcx, rax",
        "mov rdi, rax",
        "2: dec qword ptr [rdx + 16]",
        "jnz 2b",
        // Compares it.
        "4: cmp rax, [rdx]",
        "jne 5f",
        "cmp rax, [rdx + 0x1ff8]",
        "5: mov rdx, rax",
        "mov rcx, rax",
        "setz al",
        "movzx eax, al",
        "ret",
        "8: mov rbx, rax",
        "mov rbp, rax",
        "mov r8, rax",
        "mov r9, rax",
        "mov r10, rax",
        "mov r11, rax",
        "mov r12, rax",
        "mov r13, rax",
        "mov r14, rax",
        "mov r15, rax",
        "ret",
        "9: ud2"
    )
}
