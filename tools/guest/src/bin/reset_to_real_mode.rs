//! Back to real mode by a reset, as programs for the 80286 do: CMOS shutdown status 0AH, an address at 40:67, and the
//! keyboard controller's pulse. The machine, and the hypervisor beneath, are still there.
//! resets: yes
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "real-mode code")]
// UNSAFETY: the code is read here as bytes, and runs behind the reset, where nothing of this program does.

use core::arch::global_asm;
use guest::cpu::{in8, out8, under_hypervisor, wait, wait_until};
use guest::memory::{write8, write16};
use guest::{acpi, check, cmos, console, guest, println, smp};

guest!(main);

// Prints the text behind it, by what CPUID says of the hypervisor now and what was said before, and ends.
global_asm!(
    ".pushsection .rodata",
    ".code16",
    "resume_start:",
    "cli",
    "mov eax, 0x46484d58",
    "cpuid",
    "cmp eax, 0x46484d58",
    "sete al",
    "mov bx, 0x80",
    "cmp al, byte ptr cs:[0x7f]",
    "je 4f",
    "mov bx, 0xc0",
    "4: mov dx, 0x3fd",
    "6: in al, dx",
    "test al, 0x20",
    "jz 6b",
    "mov al, cs:[bx]",
    "inc bx",
    "test al, al",
    "jz 7f",
    "mov dx, 0x3f8",
    "out dx, al",
    "jmp 4b",
    "7: mov dx, 0x3fd",
    "8: in al, dx",
    "test al, 0x40",
    "jz 8b",
    "mov dx, cs:[0x7b]",
    "mov ax, cs:[0x7d]",
    "out dx, ax",
    "9: hlt",
    "jmp 9b",
    ".org resume_start + 0x7b",
    ".word 0, 0", // PM1a control register and what cuts the power
    ".byte 0",    // 1 under the hypervisor
    ".asciz \"xmhf-guest: PASS reset_to_real_mode checks=3\\n\"",
    ".org resume_start + 0xc0",
    ".asciz \"xmhf-guest: FAIL reset_to_real_mode: the hypervisor is not what it was\\n\"",
    "resume_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static resume_start: u8;
    static resume_end: u8;
}

const SEGMENT: u16 = 0x9000;
/// Offsets: what cuts the power, its port first; the byte that says whether there is a hypervisor.
const POWER_OFF: u64 = 0x7b;
const FLAG: u64 = 0x7f;
const SLEEP_ENABLE: u16 = 1 << 13;

fn main() {
    let [start, end] = [&raw const resume_start, &raw const resume_end];
    let place = u64::from(SEGMENT) << 4;
    for at in start.addr()..end.addr() {
        // SAFETY: between the two labels.
        let byte = unsafe { core::ptr::with_exposed_provenance::<u8>(at).read() };
        let _ = write8(place + (at - start.addr()) as u64, byte);
    }
    let _ = write8(place + FLAG, u8::from(under_hypervisor()));
    let power_off = acpi::power_off_register();
    check!(power_off.is_some(), "the FADT names a power-off register");
    let (port, sleep_type) = power_off.unwrap_or_default();
    let _ =
        (write16(place + POWER_OFF, port), write16(place + POWER_OFF + 2, sleep_type << 10 | SLEEP_ENABLE));
    cmos::write(0x0f, 0x0a);
    let _ = (write16(0x467, 0), write16(0x469, SEGMENT));
    let ready = wait_until(smp::PATIENCE, || in8(0x64) & 2 == 0);
    check!(ready, "the keyboard controller takes commands");
    println!("first boot");
    console::drain();
    out8(0x64, 0xfe);
    wait(smp::PATIENCE);
    check!(false, "no reset");
}
