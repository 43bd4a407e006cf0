//! Snippets: a few instructions, executed in any mode with every fault caught.

#![expect(unsafe_code, reason = "enters code that only assembly describes")]
// UNSAFETY: a snippet runs with the registers it is given and ends by INT 80h or a fault; both restore the
// caller's stack and saved registers. What it does to memory is the test's business.

use crate::legacy;
use crate::smp::{Cpu, descriptor};
use crate::trap::Frame;

/// Where the first 4 GiB of memory are mapped for ring 3.
pub const USER_BASE: u64 = 1 << 39;

/// Processor mode of a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode, CPL 0.
    Kernel64,
    /// 64-bit mode, CPL 1. It takes selectors 0x50 and 0x58.
    Ring1,
    /// 64-bit mode, CPL 2. It takes them too.
    Ring2,
    /// 64-bit mode, CPL 3; memory is at [`USER_BASE`].
    User64,
    /// Compatibility mode, CPL 0.
    Compatibility32,
    /// Compatibility mode, CPL 3.
    CompatibilityUser32,
    /// 32-bit protected mode without paging, CPL 0.
    Protected32,
    /// 32-bit protected mode without paging, CPL 3.
    ProtectedUser32,
    /// 32-bit protected mode with the test's own paging, CPL 3. All below 4 GiB that the code and the guest's own
    /// handlers touch is mapped to itself.
    PagedUser32 {
        /// Address of the tables, not 0.
        cr3: u32,
        /// CR4 bits to set: PSE or PAE.
        cr4: u32,
    },
    /// 16-bit protected mode without paging, CPL 0.
    Protected16,
    /// Virtual-8086 mode, all segments 0.
    Virtual8086,
    /// Real mode, all segments 0.
    Real,
}

/// An exception that ended a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u8,
    /// Error code, 0 where the vector or the mode has none.
    pub error_code: u32,
}

impl Fault {
    /// Debug exception.
    pub const DB: Self = Self { vector: 1, error_code: 0 };
    /// Invalid opcode.
    pub const UD: Self = Self { vector: 6, error_code: 0 };
    /// Device not available.
    pub const NM: Self = Self { vector: 7, error_code: 0 };
    /// Double fault.
    pub const DF: Self = Self { vector: 8, error_code: 0 };
    /// General protection, error code 0.
    pub const GP: Self = Self { vector: 13, error_code: 0 };
}

/// General registers before and after a snippet; legacy modes know the lower halves of the first eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "register names")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    /// RFLAGS; bit 1 is added, and IOPL 3 in virtual-8086 mode.
    pub rflags: u64,
    /// After: instruction pointer, from the snippet's first byte; past its end after INT 80h.
    pub rip: u64,
    /// After: stack pointer.
    pub rsp: u64,
    /// After: CS.
    pub cs: u16,
    /// After: CR2, meaningful after a page fault.
    pub cr2: u64,
}

impl Regs {
    /// EAX.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    #[must_use]
    pub const fn eax(&self) -> u32 {
        self.rax as u32
    }
}

/// Assembled instructions that end in INT 80h. Made by [`crate::snippet!`].
#[derive(Clone, Copy, Debug)]
pub struct Snippet {
    start: usize,
    end: usize,
}

/// Assembles instructions (Intel syntax, one string each) into a [`Snippet`]; `code16:` or `code32:` in front
/// for other than 64-bit code. Local labels are numbers.
#[macro_export]
macro_rules! snippet {
    (code16: $($line:expr),+ $(,)?) => { $crate::snippet!(@ ".code16", $($line),+) };
    (code32: $($line:expr),+ $(,)?) => { $crate::snippet!(@ ".code32", $($line),+) };
    (@ $mode:literal, $($line:expr),+) => {{
        let (start, end): (usize, usize);
        // SAFETY: the instructions go to a section of their own; here only two addresses are taken.
        unsafe {
            core::arch::asm!(
                ".pushsection .text.snippet, \"ax\", @progbits",
                $mode,
                "9990:",
                $($line,)+
                ".byte 0xcd, 0x80",
                "9991:",
                ".code64",
                ".popsection",
                "lea {0}, [rip + 9990b]",
                "lea {1}, [rip + 9991b]",
                out(reg) start,
                out(reg) end,
                options(nomem, nostack, preserves_flags),
            );
        }
        $crate::Snippet::new(start, end)
    }};
    ($($line:expr),+ $(,)?) => { $crate::snippet!(@ ".code64", $($line),+) };
}

impl Snippet {
    /// Code at `start..end`. Called by [`crate::snippet!`].
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Address of the first byte.
    pub const fn address(self) -> u64 {
        self.start as u64
    }

    /// Length in bytes with the closing INT 80h.
    pub const fn length(self) -> usize {
        self.end - self.start
    }
}

/// Executes `code` in `mode` with `regs`, and leaves in `regs` what the registers were at its end.
///
/// # Errors
///
/// The exception that ended it before its last instruction, unless [`crate::trap::handle`] took care of it.
pub fn run(mode: Mode, code: Snippet, regs: &mut Regs) -> Result<(), Fault> {
    let frame = match mode {
        Mode::Kernel64 => in_long_mode(0x08, 0x10, 0, code, regs),
        Mode::Ring1 => in_ring(1, code, regs),
        Mode::Ring2 => in_ring(2, code, regs),
        Mode::User64 => in_long_mode(0x43, 0x3b, USER_BASE, code, regs),
        Mode::Compatibility32 => in_long_mode(0x18, 0x10, 0, code, regs),
        Mode::CompatibilityUser32 => {
            crate::memory::open_low_memory_to_users(true);
            let frame = in_long_mode(0x33, 0x3b, 0, code, regs);
            crate::memory::open_low_memory_to_users(false);
            frame
        }
        _ => return legacy::run(mode, code, regs),
    };
    outcome(&frame)
}

/// Linear address at which snippets run in the modes outside long mode.
pub fn legacy_address() -> u32 {
    legacy::snippet_area()
}

fn outcome(frame: &Frame) -> Result<(), Fault> {
    match frame.vector {
        0x80 => Ok(()),
        vector => Err(Fault { vector: vector as u8, error_code: frame.error_code as u32 }),
    }
}

unsafe extern "C" {
    fn snippet_enter(frame: *const Frame, kept_rsp: *mut u64, rsp0: *mut u64);
}

fn in_ring(level: u64, code: Snippet, regs: &mut Regs) -> Frame {
    descriptor(0x50).set(0x00af_9b00_0000_ffff | level << 45);
    descriptor(0x58).set(0x00cf_9300_0000_ffff | level << 45);
    in_long_mode(0x50 | level, 0x58 | level, 0, code, regs)
}

fn in_long_mode(cs: u64, ss: u64, base: u64, code: Snippet, regs: &mut Regs) -> Frame {
    let cpu = Cpu::current();
    let mut frame = Frame::from_regs(regs);
    frame.cs = cs;
    frame.ss = ss;
    frame.rip = code.address() + base;
    frame.rsp = cpu.user_stack_top() + base;
    let outer = cpu.resume_rsp.get();
    // SAFETY: both pointers are this CPU's own cells; the frame describes code that ends by INT 80h.
    unsafe { snippet_enter(&frame, cpu.resume_rsp.as_ptr(), cpu.rsp0()) };
    cpu.resume_rsp.set(outer);
    frame = cpu.outcome.get();
    frame.to_regs(regs);
    regs.rip = frame.rip.wrapping_sub(code.address() + base);
    regs.cr2 = crate::cpu::read_cr2();
    frame
}
