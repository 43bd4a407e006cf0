//! The runtime image: its size and SHA-256 as the secure loader's own header has them, then its layout.

use crate::digest::sha256;
use core::fmt;
use platform::handoff::{
    Handoff, IMAGE_MAGIC, ImageHeader, LOADER_MAGIC, LoaderHeader, RUNTIME_OFFSET, VIRTUAL_BASE,
};
use x86::paging::PAGE_SIZE;

/// Returns the size in bytes of the runtime image that the secure loader was packed with.
///
/// # Errors
///
/// [`VerifyError::NotPacked`] where the header was never filled in, [`VerifyError::Size`] where the image does
/// not fit a region of `region_length` bytes.
pub fn runtime_size(header: &LoaderHeader, region_length: u64) -> Result<usize, VerifyError> {
    if header.magic != LOADER_MAGIC || header.runtime_size == 0 {
        return Err(VerifyError::NotPacked);
    }
    let room = region_length.saturating_sub(RUNTIME_OFFSET);
    if header.runtime_size < size_of::<ImageHeader>() as u64 || header.runtime_size > room {
        return Err(VerifyError::Size);
    }
    usize::try_from(header.runtime_size).map_err(|_| VerifyError::Size)
}

/// Checks that `image` is the very runtime that `header` was packed with and that it fits the machine of
/// `handoff`; returns its header.
///
/// # Errors
///
/// The first rule that is broken; the image must not be entered then.
pub fn verify(header: &LoaderHeader, image: &[u8], handoff: &Handoff) -> Result<ImageHeader, VerifyError> {
    // Before anything of the image is believed.
    if sha256(image) != header.runtime_sha256 {
        return Err(VerifyError::Digest);
    }
    let runtime = parse(image)?;
    check_layout(&runtime, image.len() as u64)?;
    check_room(&runtime, handoff)?;
    Ok(runtime)
}

fn parse(image: &[u8]) -> Result<ImageHeader, VerifyError> {
    let (words, _) = image.as_chunks::<8>();
    let [magic, entry, text_end, rodata_end, data_end, bss_end, pool_bytes, pool_bytes_per_cpu] =
        *words.first_chunk::<8>().ok_or(VerifyError::Size)?;
    let word = u64::from_le_bytes;
    Ok(ImageHeader {
        magic: word(magic),
        entry: word(entry),
        text_end: word(text_end),
        rodata_end: word(rodata_end),
        data_end: word(data_end),
        bss_end: word(bss_end),
        pool_bytes: word(pool_bytes),
        pool_bytes_per_cpu: word(pool_bytes_per_cpu),
    })
}

fn check_layout(runtime: &ImageHeader, file_size: u64) -> Result<(), VerifyError> {
    if runtime.magic != IMAGE_MAGIC {
        return Err(VerifyError::Layout);
    }
    let borders = [RUNTIME_OFFSET, runtime.text_end, runtime.rodata_end, runtime.data_end, runtime.bss_end];
    let page_aligned = borders.iter().all(|border| border % PAGE_SIZE == 0);
    let code = VIRTUAL_BASE + RUNTIME_OFFSET + size_of::<ImageHeader>() as u64
        ..VIRTUAL_BASE.saturating_add(runtime.text_end);
    let ends_with_file = runtime.data_end.checked_sub(RUNTIME_OFFSET) == Some(file_size);
    if page_aligned && borders.is_sorted() && ends_with_file && code.contains(&runtime.entry) {
        Ok(())
    } else {
        Err(VerifyError::Layout)
    }
}

/// The memory that the runtime wants must lie in the region, below the optional nested pool and hypapp module.
fn check_room(runtime: &ImageHeader, handoff: &Handoff) -> Result<(), VerifyError> {
    let end = handoff.own_end().saturating_sub(handoff.region.base);
    let pool = runtime
        .pool_bytes_per_cpu
        .checked_mul(u64::from(handoff.cpu_count))
        .and_then(|bytes| bytes.checked_add(runtime.pool_bytes))
        .and_then(|bytes| bytes.checked_add(runtime.bss_end));
    match pool {
        Some(needed) if needed <= end => Ok(()),
        _ => Err(VerifyError::Room),
    }
}

/// Why the runtime is not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The secure loader's header holds no runtime's size and digest.
    NotPacked,
    /// The runtime image cannot have the size that the header gives.
    Size,
    /// The runtime image is not the one that was packed.
    Digest,
    /// The runtime's header contradicts itself or the image.
    Layout,
    /// The region is smaller than what the runtime needs on this machine.
    Room,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPacked => "NotPacked: the hypervisor image was not packed; use xmhf-HYPAPP.bin as built",
            Self::Size => "RuntimeSize: the runtime does not fit the hypervisor region",
            Self::Digest => "RuntimeDigest: SHA-256 differs, the hypervisor image was altered or cut short",
            Self::Layout => "RuntimeLayout: the runtime's header is wrong",
            Self::Room => "RuntimeRoom: the hypervisor region is too small for this many CPUs",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanitize::tests::sound;
    use platform::handoff::PhysRange;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// An image of 4 pages: code, read-only data, 2 pages of data; bss of 1 page.
    fn image() -> Vec<u8> {
        let header = [
            IMAGE_MAGIC,
            VIRTUAL_BASE + RUNTIME_OFFSET + 0x40,
            RUNTIME_OFFSET + 0x1000,
            RUNTIME_OFFSET + 0x2000,
            RUNTIME_OFFSET + 0x4000,
            RUNTIME_OFFSET + 0x5000,
            2 << 20,
            192 << 10,
        ];
        let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        image.resize(0x4000, 0x5a);
        image
    }

    fn packed(image: &[u8]) -> LoaderHeader {
        LoaderHeader {
            magic: LOADER_MAGIC,
            entry: 0x40,
            reserved: 0,
            runtime_size: image.len() as u64,
            runtime_sha256: Sha256::digest(image).into(),
        }
    }

    fn with_word(index: usize, value: u64) -> Vec<u8> {
        let mut image = image();
        image[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
        image
    }

    fn verdict(image: &[u8]) -> Option<VerifyError> {
        verify(&packed(image), image, &sound()).err()
    }

    #[test]
    fn the_packed_runtime_passes() {
        let image = image();
        let header = verify(&packed(&image), &image, &sound()).unwrap();
        assert_eq!(header.bss_end, RUNTIME_OFFSET + 0x5000);
        assert_eq!(header.pool_bytes_per_cpu, 192 << 10);
    }

    #[test]
    fn the_digest_is_sha256_as_fips_180_4_has_it() {
        let digest = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
            0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
        ];
        let header = LoaderHeader { runtime_sha256: digest, ..packed(b"abc") };
        // Past the digest, three bytes cannot hold a header.
        assert_eq!(verify(&header, b"abc", &sound()).err(), Some(VerifyError::Size));
        assert_eq!(verify(&header, b"abd", &sound()).err(), Some(VerifyError::Digest));
    }

    #[test]
    fn an_unpacked_loader_is_refused() {
        let header = LoaderHeader { runtime_size: 0, ..packed(&image()) };
        assert_eq!(runtime_size(&header, 8 << 20), Err(VerifyError::NotPacked));
        let header = LoaderHeader { magic: 0, ..packed(&image()) };
        assert_eq!(runtime_size(&header, 8 << 20), Err(VerifyError::NotPacked));
    }

    #[test]
    fn a_size_beyond_the_region_is_refused_before_it_is_read() {
        let room = (8 << 20) - RUNTIME_OFFSET;
        let sized = |runtime_size| LoaderHeader { runtime_size, ..packed(&image()) };
        assert_eq!(runtime_size(&sized(room), 8 << 20), Ok(usize::try_from(room).unwrap()));
        assert_eq!(runtime_size(&sized(room + 1), 8 << 20), Err(VerifyError::Size));
        assert_eq!(runtime_size(&sized(u64::MAX), 8 << 20), Err(VerifyError::Size));
        assert_eq!(runtime_size(&sized(63), 8 << 20), Err(VerifyError::Size));
    }

    #[test]
    fn borders_that_no_packed_image_has_are_refused() {
        for (index, value) in [
            (0, 0),
            (2, RUNTIME_OFFSET + 0x3000),
            (2, RUNTIME_OFFSET + 0x800),
            (3, RUNTIME_OFFSET + 0x5000),
            (4, RUNTIME_OFFSET + 0x3000),
            (4, 0),
            (5, RUNTIME_OFFSET + 0x3000),
            (5, u64::MAX),
        ] {
            assert_eq!(
                verdict(&with_word(index, value)),
                Some(VerifyError::Layout),
                "word {index} = {value:#x}"
            );
        }
    }

    #[test]
    fn an_entry_outside_the_code_is_refused() {
        let start = VIRTUAL_BASE + RUNTIME_OFFSET;
        for entry in [0, start, start + 0x3f, start + 0x1000, u64::MAX] {
            assert_eq!(verdict(&with_word(1, entry)), Some(VerifyError::Layout), "entry {entry:#x}");
        }
        assert_eq!(verdict(&with_word(1, start + 0xfff)), None);
    }

    #[test]
    fn memory_for_every_cpu_must_fit_below_pool_and_hypapp_module() {
        let image = image();
        let mut handoff = sound();
        handoff.cpu_count = 29;
        assert!(verify(&packed(&image), &image, &handoff).is_ok());
        handoff.cpu_count = 31;
        assert_eq!(verify(&packed(&image), &image, &handoff).err(), Some(VerifyError::Room));
        handoff.cpu_count = 1;
        handoff.hypapp_module = PhysRange { base: handoff.region.base + (2 << 20), length: 4096 };
        assert_eq!(verify(&packed(&image), &image, &handoff).err(), Some(VerifyError::Room));
        handoff.hypapp_module = PhysRange::default();
        assert!(verify(&packed(&image), &image, &handoff).is_ok());
        handoff.nested_pool = PhysRange { base: handoff.region.base + (2 << 20), length: 1 << 20 };
        assert_eq!(verify(&packed(&image), &image, &handoff).err(), Some(VerifyError::Room));
        assert_eq!(verdict(&with_word(6, u64::MAX)), Some(VerifyError::Room));
    }

    proptest! {
        #[test]
        fn any_altered_byte_is_noticed(index in 0..0x4000usize, flip in 1..=255u8) {
            let sound_image = image();
            let mut altered = sound_image.clone();
            altered[index] ^= flip;
            let error = verify(&packed(&sound_image), &altered, &sound()).err();
            prop_assert_eq!(error, Some(VerifyError::Digest));
        }
    }
}
