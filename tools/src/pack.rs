//! The hypervisor image `xmhf-HYPAPP.bin`: secure loader, padded, then the runtime it is bound to by digest.

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::{ET_EXEC, PT_LOAD, SHT_REL, SHT_RELA};
use elf::endian::LittleEndian;
use platform::handoff::{
    IMAGE_MAGIC, ImageHeader, LOADER_MAGIC, LOADER_SIZE, LoaderHeader, RUNTIME_OFFSET, VIRTUAL_BASE,
};
use sha2::{Digest, Sha256};
use std::mem::offset_of;

/// Most bytes of a runtime's data that are not zero at the start. There is little; more is a static that was to be zero,
/// and lies in the image for one field that is not.
const DATA_LIMIT: u64 = 64 << 10;

/// Makes the hypervisor image of the two ELF files' contents.
///
/// # Errors
///
/// A file is no image of ours: wrong format, address, size or header.
pub fn pack(loader_elf: &[u8], runtime_elf: &[u8]) -> Result<Vec<u8>> {
    let mut image = flatten(loader_elf, VIRTUAL_BASE).context("secure loader")?;
    let runtime = flatten(runtime_elf, VIRTUAL_BASE + RUNTIME_OFFSET).context("runtime")?;
    check_runtime(&runtime).context("runtime")?;
    let used = image.len() as u64;
    ensure!(used <= LOADER_SIZE, "the secure loader is {used} bytes, more than {LOADER_SIZE}");
    ensure!(word(&image, 0) == Some(LOADER_MAGIC), "the secure loader does not start with its header");

    image.resize(LOADER_BYTES, 0);
    image.extend_from_slice(&runtime);
    Ok(bind(image))
}

/// Tells the secure loader in `image` of the runtime that follows it.
pub fn bind(mut image: Vec<u8>) -> Vec<u8> {
    let runtime = image.get(LOADER_BYTES..).unwrap_or_default();
    let (size, digest): (_, [u8; 32]) = (runtime.len() as u64, Sha256::digest(runtime).into());
    patch(&mut image, offset_of!(LoaderHeader, runtime_size), &size.to_le_bytes());
    patch(&mut image, offset_of!(LoaderHeader, runtime_sha256), &digest);
    image
}

#[expect(clippy::cast_possible_truncation, reason = "64 KiB")]
const LOADER_BYTES: usize = LOADER_SIZE as usize;

/// Bytes of an ELF executable as they lie in memory from `base` on, without the zeroed part at the end.
///
/// # Errors
///
/// The file is no executable, needs relocation, or its first byte is not at `base`.
pub fn flatten(file: &[u8], base: u64) -> Result<Vec<u8>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    ensure!(elf.ehdr.e_type == ET_EXEC, "not an executable");
    let relocated = |kind| matches!(kind, SHT_REL | SHT_RELA);
    let sections = elf.section_headers().context("no sections")?;
    ensure!(!sections.iter().any(|s| relocated(s.sh_type) && s.sh_size != 0), "relocations are left");

    let mut image = Vec::new();
    for segment in elf.segments().context("no segments")? {
        if segment.p_type != PT_LOAD || segment.p_filesz == 0 {
            continue;
        }
        let offset = segment.p_vaddr.checked_sub(base).context("a segment lies below the base")?;
        let start = usize::try_from(offset)?;
        ensure!(start >= image.len(), "segments overlap or are out of order");
        ensure!(start < 64 << 20, "a segment lies {start} bytes above the base");
        ensure!(start == 0 || !image.is_empty(), "the first segment is not at the base");
        image.resize(start, 0);
        image.extend_from_slice(elf.segment_data(&segment)?);
    }
    ensure!(!image.is_empty(), "nothing to load");
    Ok(image)
}

/// The same rules by which the secure loader would refuse the runtime, as far as the file alone shows them.
fn check_runtime(runtime: &[u8]) -> Result<()> {
    let field = |offset| word(runtime, offset);
    ensure!(field(offset_of!(ImageHeader, magic)) == Some(IMAGE_MAGIC), "it does not start with its header");
    let end = field(offset_of!(ImageHeader, data_end)).and_then(|end| end.checked_sub(RUNTIME_OFFSET));
    ensure!(end == Some(runtime.len() as u64), "its header gives another size than {}", runtime.len());
    let [start, end] = [offset_of!(ImageHeader, rodata_end), offset_of!(ImageHeader, data_end)].map(field);
    let data = end.zip(start).map_or(0, |(end, start)| end.saturating_sub(start));
    ensure!(
        data <= DATA_LIMIT,
        "it has {data} bytes of data: a large static is not all zero, and each boot reads and hashes it"
    );
    Ok(())
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

fn patch(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF executable with one segment for each of `pieces`: virtual address, bytes, size in memory.
    fn executable(pieces: &[(u64, Vec<u8>, u64)]) -> Vec<u8> {
        const HEADER: u64 = 64;
        const PROGRAM_HEADER: u64 = 56;
        let mut offset = HEADER + PROGRAM_HEADER * pieces.len() as u64;
        let (mut headers, mut contents) = (Vec::new(), Vec::new());
        for (address, bytes, memory) in pieces {
            let length = bytes.len() as u64;
            headers.extend_from_slice(&[1u32, 7].map(u32::to_le_bytes).concat());
            headers.extend_from_slice(
                &[offset, *address, *address, length, *memory, 1].map(u64::to_le_bytes).concat(),
            );
            contents.extend_from_slice(bytes);
            offset += length;
        }
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        // Entry, program headers, section headers (one empty section at the end of the file).
        file.extend_from_slice(&[0, HEADER, offset].map(u64::to_le_bytes).concat());
        let counts = [0, 0, 64, 56, u16::try_from(pieces.len()).unwrap(), 64, 1, 0];
        file.extend_from_slice(&counts.map(u16::to_le_bytes).concat());
        file.extend([headers, contents, vec![0; 64]].concat());
        file
    }

    fn loader() -> Vec<u8> {
        let mut bytes = LOADER_MAGIC.to_le_bytes().to_vec();
        bytes.resize(0x100, 0xcc);
        executable(&[(VIRTUAL_BASE, bytes, 0x100)])
    }

    fn runtime() -> Vec<u8> {
        runtime_with_data_from(RUNTIME_OFFSET + 0x1000)
    }

    fn runtime_with_data_from(start: u64) -> Vec<u8> {
        let end = RUNTIME_OFFSET + 0x2000;
        let header = [IMAGE_MAGIC, 0, 0, start, end, end + 0x1000, 0, 0];
        let mut text: Vec<u8> = header.map(u64::to_le_bytes).concat();
        text.resize(0x800, 0x90);
        let base = VIRTUAL_BASE + RUNTIME_OFFSET;
        executable(&[(base, text, 0x800), (base + 0x1000, vec![7; 0x1000], 0x2000)])
    }

    #[test]
    fn an_image_is_the_padded_loader_then_the_runtime_it_names() {
        let image = pack(&loader(), &runtime()).unwrap();
        assert_eq!(image.len(), 0x1_2000);
        assert_eq!(word(&image, 0), Some(LOADER_MAGIC));
        assert_eq!(word(&image, 16), Some(0x2000));
        let digest: [u8; 32] = Sha256::digest(&image[0x1_0000..]).into();
        assert_eq!(image[24..56], digest);
        assert_eq!(image[56], 0xcc);
        assert!(image[0x100..0x1_0000].iter().all(|&byte| byte == 0));
        assert_eq!(image[0x1_0800..0x1_1000], [0; 0x800], "the gap between segments");
        assert_eq!(image[0x1_1000..], [7; 0x1000], "without the zeroed data");
    }

    #[test]
    fn a_loader_of_more_than_64_kib_is_refused() {
        let mut bytes = LOADER_MAGIC.to_le_bytes().to_vec();
        bytes.resize(0x1_0001, 0);
        let error = pack(&executable(&[(VIRTUAL_BASE, bytes, 0x1_0001)]), &runtime()).unwrap_err();
        assert!(error.to_string().contains("more than 65536"), "{error}");
    }

    #[test]
    fn a_runtime_with_a_large_static_that_is_not_zero_is_refused() {
        assert!(pack(&loader(), &runtime_with_data_from(RUNTIME_OFFSET + 0x2000 - DATA_LIMIT)).is_ok());
        let error =
            pack(&loader(), &runtime_with_data_from(RUNTIME_OFFSET + 0x1000 - DATA_LIMIT)).unwrap_err();
        assert!(format!("{error:#}").contains("a large static"), "{error:#}");
    }

    #[test]
    fn images_of_another_address_or_without_header_are_refused() {
        assert!(pack(&runtime(), &runtime()).is_err());
        assert!(pack(&loader(), &loader()).is_err());
        let headless = executable(&[(VIRTUAL_BASE + RUNTIME_OFFSET, vec![0; 0x1000], 0x1000)]);
        assert!(pack(&loader(), &headless).is_err());
        assert!(pack(&loader(), b"\x7fELF").is_err());
    }

    #[test]
    fn segments_that_overlap_are_refused() {
        let overlapping = executable(&[(VIRTUAL_BASE, vec![1; 16], 16), (VIRTUAL_BASE + 8, vec![2; 16], 16)]);
        assert!(flatten(&overlapping, VIRTUAL_BASE).is_err());
    }
}
