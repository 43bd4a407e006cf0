//! SHA-256 of an image, by the processor's own instructions where it has them: twenty times as fast as without.
//!
//! UNSAFETY: the instructions work on registers that this target does not use, and are assembly.
#![expect(unsafe_code, reason = "SHA extensions, and control registers around them")]

use core::arch::global_asm;
use raw_cpuid::CpuId;
use sha2::{Digest, Sha256};

const BLOCK: usize = 64;
/// What the last block has behind its padding: the length in bits.
const LENGTH: usize = 8;

/// SHA-256 of `image` (FIPS 180-4, "SHA-256").
#[must_use]
pub fn sha256(image: &[u8]) -> [u8; 32] {
    if has_instructions() { by_instructions(image) } else { Sha256::digest(image).into() }
}

/// Returns whether the processor has the instructions below.
fn has_instructions() -> bool {
    let cpuid = CpuId::new();
    cpuid.get_extended_feature_info().is_some_and(|extended| extended.has_sha())
        && cpuid.get_feature_info().is_some_and(|features| features.has_ssse3() && features.has_sse41())
}

/// On a processor that has them.
fn by_instructions(image: &[u8]) -> [u8; 32] {
    let mut state = FIRST_STATE;
    let (blocks, rest) = image.as_chunks::<BLOCK>();
    compress(&mut state, blocks);
    // One bit, zeros, and the length: in the block of the rest where they fit, else in one more.
    let mut last = [[0; BLOCK]; 2];
    let count = if rest.len() + 1 + LENGTH <= BLOCK { 1 } else { 2 };
    last[0][..rest.len()].copy_from_slice(rest);
    last[0][rest.len()] = 0x80;
    let bits = 8 * image.len() as u64;
    last[count - 1][BLOCK - LENGTH..].copy_from_slice(&bits.to_be_bytes());
    compress(&mut state, &last[..count]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

/// Takes whole blocks in, in one go. Nothing where the processor lacks the instructions, so that this is sound.
fn compress(state: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
    if blocks.is_empty() || !has_instructions() {
        return;
    }
    // SAFETY: the processor has the instructions, the vector registers are nobody's, and all that the function reads and
    // writes are the arguments.
    with_vectors(|| unsafe {
        sha256_compress(state, blocks.as_ptr(), blocks.len(), &raw const ROUND_CONSTANTS.0);
    });
}

/// Runs `work` while instructions on vectors can be executed. The registers hold zeros afterwards.
#[cfg(target_os = "none")]
fn with_vectors(work: impl FnOnce()) {
    use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
    let (cr0, cr4) = (Cr0::read(), Cr4::read());
    // SAFETY: no other bit changes, nothing here but `work` uses vector registers, and the old value comes back below.
    unsafe { Cr0::write(cr0 - Cr0Flags::EMULATE_COPROCESSOR - Cr0Flags::TASK_SWITCHED) };
    // SAFETY: as above.
    unsafe { Cr4::write(cr4 | Cr4Flags::OSFXSR) };
    work();
    // SAFETY: the value that was in force.
    unsafe { Cr4::write(cr4) };
    // SAFETY: the value that was in force.
    unsafe { Cr0::write(cr0) };
}

/// An operating system has seen to it.
#[cfg(not(target_os = "none"))]
fn with_vectors(work: impl FnOnce()) {
    work();
}

unsafe extern "sysv64" {
    /// Takes `count` blocks of 64 bytes into `state`, and leaves zeros in the vector registers that it used.
    ///
    /// # Safety
    ///
    /// The processor can execute the instructions, and the pointers are good for what they lead to.
    fn sha256_compress(
        state: *mut [u32; 8],
        blocks: *const [u8; BLOCK],
        count: usize,
        constants: *const [u32; 64],
    );
}

// RDI: state, RSI: blocks, RDX: count, RCX: constants. XMM1 holds the state's words A, B, E, F from the top down, XMM2 its
// C, D, G, H; XMM3 to XMM6 hold sixteen words of the message schedule (SDM, "SHA256RNDS2", "SHA256MSG1", "SHA256MSG2").
global_asm!(
    ".macro four_rounds words, number",
    "  movdqa xmm0, [rcx + 16 * (\\number)]",
    "  paddd xmm0, \\words",
    "  sha256rnds2 xmm2, xmm1",
    "  pshufd xmm0, xmm0, 0x0e",
    "  sha256rnds2 xmm1, xmm2",
    ".endm",
    // `words`, which are sixteen back, become the next four; the others follow them in order.
    ".macro next_words words, second, third, last",
    "  sha256msg1 \\words, \\second",
    "  movdqa xmm7, \\last",
    "  palignr xmm7, \\third, 4",
    "  paddd \\words, xmm7",
    "  sha256msg2 \\words, \\last",
    ".endm",
    ".macro four_words words, number",
    "  movdqu \\words, [rsi + 16 * (\\number)]",
    "  pshufb \\words, xmm8",
    "  four_rounds \\words, \\number",
    ".endm",
    ".macro sixteen_rounds number",
    "  next_words xmm3, xmm4, xmm5, xmm6",
    "  four_rounds xmm3, \\number",
    "  next_words xmm4, xmm5, xmm6, xmm3",
    "  four_rounds xmm4, (\\number+1)",
    "  next_words xmm5, xmm6, xmm3, xmm4",
    "  four_rounds xmm5, (\\number+2)",
    "  next_words xmm6, xmm3, xmm4, xmm5",
    "  four_rounds xmm6, (\\number+3)",
    ".endm",
    ".pushsection .text.sha256_compress, \"ax\", @progbits",
    ".globl sha256_compress",
    "sha256_compress:",
    // The bytes of each word are the other way round in memory.
    "  mov rax, 0x0405060700010203",
    "  movq xmm8, rax",
    "  mov rax, 0x0c0d0e0f08090a0b",
    "  pinsrq xmm8, rax, 1",
    "  movdqu xmm1, [rdi]",
    "  movdqu xmm0, [rdi + 16]",
    "  pshufd xmm1, xmm1, 0x1b",
    "  pshufd xmm0, xmm0, 0x1b",
    "  movdqa xmm2, xmm0",
    "  punpcklqdq xmm2, xmm1",
    "  punpckhqdq xmm0, xmm1",
    "  movdqa xmm1, xmm0",
    "2:",
    "  movdqa xmm9, xmm1",
    "  movdqa xmm10, xmm2",
    "  four_words xmm3, 0",
    "  four_words xmm4, 1",
    "  four_words xmm5, 2",
    "  four_words xmm6, 3",
    "  sixteen_rounds 4",
    "  sixteen_rounds 8",
    "  sixteen_rounds 12",
    "  paddd xmm1, xmm9",
    "  paddd xmm2, xmm10",
    "  add rsi, 64",
    "  dec rdx",
    "  jnz 2b",
    "  movdqa xmm0, xmm2",
    "  punpckhqdq xmm0, xmm1",
    "  punpcklqdq xmm2, xmm1",
    "  pshufd xmm0, xmm0, 0x1b",
    "  pshufd xmm2, xmm2, 0x1b",
    "  movdqu [rdi], xmm0",
    "  movdqu [rdi + 16], xmm2",
    "  .irp register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    "    pxor xmm\\register, xmm\\register",
    "  .endr",
    "  ret",
    ".popsection",
);

/// The first state (FIPS 180-4, "SHA-256" in "Setting the Initial Hash Value").
#[rustfmt::skip]
const FIRST_STATE: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
];

#[repr(C, align(16))]
struct Aligned([u32; 64]);

/// The constants of the rounds (FIPS 180-4, "SHA-224 and SHA-256 Constants").
#[rustfmt::skip]
static ROUND_CONSTANTS: Aligned = Aligned([
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
]);

#[cfg(test)]
mod tests {
    use super::{by_instructions, has_instructions, sha256};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn an_empty_image_has_the_digest_that_fips_180_4_gives_it() {
        assert_eq!(sha256(b"")[..8], [0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14]);
    }

    #[test]
    fn the_processor_is_asked_for_all_that_is_used() {
        use std::arch::is_x86_feature_detected as has;
        assert_eq!(has_instructions(), has!("sha") && has!("ssse3") && has!("sse4.1"));
    }

    #[test]
    fn every_length_around_a_block_is_padded_as_it_has_to_be() {
        let image: Vec<u8> = (0..=255).collect();
        for length in 0..image.len() {
            assert_eq!(
                sha256(&image[..length]),
                <[u8; 32]>::from(Sha256::digest(&image[..length])),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_instructions_give_what_the_library_does(image in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            // A processor without them leaves it to the library alone.
            if has_instructions() {
                prop_assert_eq!(by_instructions(&image), <[u8; 32]>::from(Sha256::digest(&image)));
            }
            prop_assert_eq!(sha256(&image), <[u8; 32]>::from(Sha256::digest(&image)));
        }
    }
}
