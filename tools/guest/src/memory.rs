//! Physical memory below 4 GiB: mapped at its own address, and for ring 3 from [`crate::run::USER_BASE`] on.

#![expect(unsafe_code, reason = "touches memory by number, page tables included")]
// UNSAFETY: every access is one instruction of assembly at an address that the test names.

use core::cell::Cell;

use crate::{Fault, Mode, Regs, Snippet, cpu, run, snippet};

/// Memory that no guest's image uses: 2 MiB and up, on any machine with 64 MiB.
pub const FREE: u64 = 0x20_0000;

/// The lower half of `value`, such as an address below 4 GiB.
pub const fn low(value: u64) -> u32 {
    value as u32
}

macro_rules! accesses {
    ($($read:ident $write:ident $width:ident $load:literal $store:literal;)*) => {$(
        /// Reads memory.
        ///
        /// # Errors
        ///
        /// The fault.
        pub fn $read(address: u64) -> Result<$width, Fault> {
            access(snippet!($load), address, 0).map(|value| value as $width)
        }

        /// Writes memory.
        ///
        /// # Errors
        ///
        /// The fault.
        pub fn $write(address: u64, value: $width) -> Result<(), Fault> {
            access(snippet!($store), address, value.into()).map(|_| ())
        }
    )*};
}

accesses! {
    read8 write8 u8 "movzx eax, byte ptr [rdi]" "mov [rdi], al";
    read16 write16 u16 "movzx eax, word ptr [rdi]" "mov [rdi], ax";
    read32 write32 u32 "mov eax, [rdi]" "mov [rdi], eax";
    read64 write64 u64 "mov rax, [rdi]" "mov [rdi], rax";
}

fn access(code: Snippet, address: u64, value: u64) -> Result<u64, Fault> {
    let mut regs = Regs { rdi: address, rax: value, ..Regs::default() };
    run(Mode::Kernel64, code, &mut regs)?;
    Ok(regs.rax)
}

/// Lets ring 3 use low addresses too, or no longer; for code that cannot name [`crate::run::USER_BASE`].
pub fn open_low_memory_to_users(is_open: bool) {
    unsafe extern "C" {
        static pml4: [Cell<u64>; 512];
    }
    // SAFETY: the table of boot.S.
    let entry = unsafe { &pml4[0] };
    entry.set(if is_open { entry.get() | 4 } else { entry.get() & !4 });
    // Rewriting CR3 with its own value flushes; it cannot fault.
    let _ = cpu::write_cr3(cpu::read_cr3());
}
