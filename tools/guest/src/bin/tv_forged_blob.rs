//! A PAL opens, as the SDK's `unseal` does, only what it sealed itself: another PAL's blob with a key that everybody knows is refused.
//! hypapp: trustvisor
//! bare: no
#![no_std]
#![no_main]

use guest::memory::{low, read8, write32};
use guest::pal::PALS;
use guest::pal::prelude::*;
use guest::pal_code::commands_of_32_bits;
use guest::println;
use sha1::{Digest, Sha1};
use trustvisor::parameter::ParameterType::{self, Integer, Pointer};

guest!(main);

const MODE: Mode = Mode::CompatibilityUser32;
const READ: u64 = 0xffff_ffff;
const WRITE: u64 = 0xffff_fffe;
const FORGER: [(ParameterType, u64); 5] = [(Integer, 0); 5];
const VICTIM: [(ParameterType, u64); 1] = [(Pointer, 64)];
const BUFFER: u64 = PALS + 0x2_0000;
const KEY: u32 = 0x0bad_c0de;

fn main() {
    let victim = Pal::place(MODE, 1, victim_code());
    check_eq!(victim.register(&VICTIM), 0, "registering the victim");
    let register = first_register(&victim);
    // What any program does: a PAL of its own, that seals a key for the victim's registers.
    let forger = Pal::place(MODE, 0, commands_of_32_bits());
    check_eq!(forger.register(&FORGER), 0, "registering the forger");
    let mut hash = Sha1::new();
    hash.update([1, 0, 1, 0, 0, 0, 20]);
    hash.update(register);
    let release = <[u8; 20]>::from(hash.finalize());
    let mut info = [0; 44];
    info[..3].copy_from_slice(&[1, 0, 1]);
    info[3..23].copy_from_slice(&release);
    for (offset, word) in (0x40..).step_by(4).zip(info.chunks(4)) {
        write(&forger, offset, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    let words = [(0x200, KEY), (0x10, low(data(&forger, 0x200))), (0x14, 4)];
    let more = [(0x18, low(data(&forger, 0x300))), (0x1c, low(data(&forger, 0x20))), (0x20, 512)];
    words.iter().chain(&more).for_each(|&(offset, word)| write(&forger, offset, word));
    let arguments =
        [Command::SEAL.0.into(), data(&forger, 0x10), data(&forger, 0x40), data(&forger, 0x18), 0];
    check_eq!(call(&forger, arguments), 0, "sealing for another PAL");
    let length = read(&forger, 0x20);
    let _ = write32(BUFFER, length);
    for offset in (0..256).step_by(4) {
        let word = if offset < 248 { read(&forger, 0x300 + offset) } else { 0 };
        let _ = write32(BUFFER + 4 + offset, word);
    }
    check_eq!(forger.unregister(), 0, "unregistering the forger");
    let used = victim.call([BUFFER, 0, 0, 0, 0, 0, 0, 0, 0, 0]).map(|regs| (regs.eax(), regs.rflags & CF));
    println!("blob of {length} bytes; the victim takes for its key: {used:x?}");
    check!(used != Ok((KEY, 0)), "the victim's key is one that others know");
    check_eq!(victim.unregister(), 0, "unregistering");
}

fn first_register(pal: &Pal) -> [u8; 20] {
    let code = victim_code();
    let mut register = [0; 20];
    for section in pal.sections() {
        let mut hash = Sha1::new();
        hash.update(section.kind.to_le_bytes());
        if !matches!(section.kind, 3 | 4) {
            hash.update(section.start.to_le_bytes());
        }
        hash.update(PAGE.to_le_bytes());
        for at in 0..PAGE {
            let is_code = at < code.length() as u64;
            let byte = match section.kind {
                1 if is_code => read8(code.address() + at).unwrap_or(0),
                1 => 0,
                _ => 0x90,
            };
            hash.update([byte]);
        }
        let mut outer = Sha1::new();
        outer.update(register);
        outer.update(hash.finalize());
        register.copy_from_slice(&outer.finalize());
    }
    register
}

fn data(pal: &Pal, offset: u64) -> u64 {
    pal.entry() + PAGE + offset
}

fn read(pal: &Pal, offset: u64) -> u32 {
    call(pal, [READ, data(pal, offset), 0, 0, 0])
}

fn write(pal: &Pal, offset: u64, word: u32) {
    call(pal, [WRITE, data(pal, offset), word.into(), 0, 0]);
}

fn call(pal: &Pal, [a, b, c, d, e]: [u64; 5]) -> u32 {
    let called = pal.call([a, b, c, d, e, 0, 0, 0, 0, 0]);
    check!(called.is_ok_and(|regs| regs.rflags & CF == 0), "the call of {a:#x} came back: {called:x?}");
    called.map_or(u32::MAX, |regs| regs.eax())
}

/// Opens the blob in its parameter as `xmhf_pal::microtpm::unseal` does, and gives the key.
fn victim_code() -> Snippet {
    snippet!(code32:
        "mov edi, [esp + 4]",
        "lea ecx, [edi + 4]",
        "mov [0x305010], ecx",
        "mov ecx, [edi]",
        "mov [0x305014], ecx",
        "mov dword ptr [0x305018], 0x305040",
        "mov dword ptr [0x30501c], 0x305080",
        "mov eax, 15",
        "mov ecx, 0x305010",
        "mov edx, 0x305018",
        "mov esi, 0x305090",
        "vmcall",
        "test eax, eax",
        "jne 2f",
        "mov eax, [0x305040]",
        "2: ret"
    )
}
