//! Signs a PAL's file: its signed header is put behind the ELF file, where `xmhf_pal::Image` finds it.

use crate::measured::Pal;
use anyhow::{Context, Result, ensure};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use elf::ElfBytes;
use elf::endian::AnyEndian;
use std::fs;
use std::path::Path;
use xmhf_pal::Image;
use xmhf_pal::image::DEFAULT_STACK_PAGES;
use xmhf_pal::trustvisor::flags;
use xmhf_pal::trustvisor::parameter::ParameterType;
use xmhf_pal::trustvisor::section::PAGES_LIMIT;
use xmhf_pal::trustvisor::signature::{BYTES, SignedHeader};

/// Where `xmhf_pal::entry!` leaves what the PAL's function takes: records of a parameter list.
const PARAMETERS: &str = ".xmhf_parameters";
const RECORD_BYTES: usize = 16;

/// What a signer says of a PAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing<'a> {
    /// The signer's Ed25519 key: PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` makes it.
    pub key: &'a Path,
    /// Which of the signer's products it is.
    pub product: u32,
    /// Its security version, to grow with each fault that is mended.
    pub version: u32,
    /// What it is registered with: [`flags`].
    pub flags: u32,
    /// Pages of its stack.
    pub stack_pages: u32,
}

impl<'a> Signing<'a> {
    /// Version `version` of `product`, without flags, and with the usual stack.
    #[must_use]
    pub const fn new(key: &'a Path, product: u32, version: u32) -> Self {
        Self { key, product, version, flags: 0, stack_pages: DEFAULT_STACK_PAGES }
    }
}

/// Signs the PAL in `file`, which may have been signed before; gives the signed file. `parameters` are types and sizes
/// in words of the function's parameters, where the file does not say them: one in C, or of another making.
///
/// # Errors
///
/// The key cannot be read, or what is wrong with the file.
pub fn sign(file: &[u8], parameters: Option<Vec<(u32, u64)>>, signing: &Signing<'_>) -> Result<Vec<u8>> {
    let path = signing.key;
    let pem = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let key = SigningKey::from_pkcs8_pem(&pem);
    let key = key.ok().with_context(|| format!("{} is no Ed25519 key, PKCS #8 in PEM", path.display()))?;
    ensure!(signing.flags & !flags::ALL == 0, "there are no flags {:#x}", signing.flags & !flags::ALL);
    let has_stack = signing.stack_pages != 0 && u64::from(signing.stack_pages) <= PAGES_LIMIT;
    ensure!(has_stack, "a stack has 1 to {PAGES_LIMIT} pages");
    let image = Image::parse(file).map_err(|why| anyhow::anyhow!("{why}"))?;
    let unsigned = &file[..file.len() - if image.signed.is_some() { BYTES } else { 0 }];
    let parameters = match parameters {
        Some(parameters) => parameters,
        None => parameters_of(unsigned)?,
    };
    let pal = Pal::new(&image, parameters, signing.flags, signing.stack_pages)?;
    let mut header = SignedHeader {
        flags: signing.flags,
        product: signing.product,
        version: signing.version,
        stack_pages: signing.stack_pages,
        measurement: pal.measurement(),
        public_key: key.verifying_key().to_bytes(),
        signature: [0; 64],
    };
    header.signature = key.sign(&header.signed_bytes()).to_bytes();
    Ok([unsigned, &header.to_bytes()].concat())
}

/// The parameters that the file says its function takes.
fn parameters_of(file: &[u8]) -> Result<Vec<(u32, u64)>> {
    let elf = ElfBytes::<AnyEndian>::minimal_parse(file)?;
    let section = elf.section_header_by_name(PARAMETERS)?;
    let section = section.context("the file does not say its parameters: name them")?;
    let (bytes, _) = elf.section_data(&section)?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    ensure!(rest.is_empty(), "its list of parameters is damaged");
    let parameter = |record: &[u8; RECORD_BYTES]| {
        let record = xmhf_pal::trustvisor::parameter::ParameterRecord::from_bytes(record);
        let kind = ParameterType::from_number(record.kind).context("its list of parameters is damaged")?;
        Ok((kind as u32, record.words))
    };
    records.iter().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    use ed25519_dalek::{Signature, VerifyingKey};
    use std::path::PathBuf;

    /// One page of code at 0x1000, and no section that names parameters.
    fn file() -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        bytes[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
        bytes[24..32].copy_from_slice(&0x1000_u64.to_le_bytes());
        (bytes[32], bytes[52], bytes[54], bytes[56]) = (64, 64, 56, 1);
        (bytes[64], bytes[68]) = (1, 5);
        for (place, field) in [120_u64, 0x1000, 0x1000, 4, 4, 4096].into_iter().enumerate() {
            bytes[72 + 8 * place..][..8].copy_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(b"\xc3\xc3\xc3\xc3");
        bytes
    }

    fn key(folder: &tempfile::TempDir) -> (SigningKey, PathBuf) {
        let key = SigningKey::from_bytes(&[0x21; 32]);
        let path = folder.path().join("key.pem");
        fs::write(&path, key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
        (key, path)
    }

    #[test]
    fn a_signed_file_has_its_measurement_and_signature_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (key, path) = key(&folder);
        let signing = Signing { flags: flags::ABORTABLE, stack_pages: 2, ..Signing::new(&path, 7, 3) };
        let parameters = vec![(1, 0), (2, 3)];
        let signed = sign(&file(), Some(parameters.clone()), &signing).unwrap();
        assert_eq!(signed[..file().len()], file());
        let image = Image::parse(&signed).unwrap();
        let header = image.signed.unwrap();
        assert_eq!((header.flags, header.product, header.version, header.stack_pages), (2, 7, 3, 2));
        let pal = Pal::new(&image, parameters.clone(), 2, 2).unwrap();
        assert_eq!((header.measurement, pal.sections.len()), (pal.measurement(), 3));
        let public = VerifyingKey::from_bytes(&header.public_key).unwrap();
        assert_eq!(public, key.verifying_key());
        let signature = Signature::from_bytes(&header.signature);
        assert!(public.verify_strict(&header.signed_bytes(), &signature).is_ok());
        // Signed again it has one header, the new one.
        let later = sign(&signed, Some(parameters), &Signing { version: 4, ..signing }).unwrap();
        assert_eq!((later.len(), Image::parse(&later).unwrap().signed.unwrap().version), (signed.len(), 4));
    }

    #[test]
    fn what_cannot_be_signed_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (_, path) = key(&folder);
        let why = |file: &[u8], parameters, signing: &Signing<'_>| {
            format!("{:#}", sign(file, parameters, signing).unwrap_err())
        };
        let none = || Some(Vec::new());
        let good = Signing::new(&path, 1, 1);
        assert!(why(&file(), none(), &Signing { flags: 8, ..good.clone() }).contains("no flags 0x8"));
        assert!(
            why(&file(), none(), &Signing { stack_pages: 0, ..good.clone() }).contains("1 to 4096 pages")
        );
        assert!(
            why(&file(), none(), &Signing::new(Path::new("/nowhere"), 1, 1)).contains("reading /nowhere")
        );
        assert!(why(b"#!/bin/sh", none(), &good).contains("no ELF executable"));
        assert!(why(&file(), None, &good).contains("does not say its parameters"));
        let other = folder.path().join("other.pem");
        fs::write(&other, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(why(&file(), none(), &Signing::new(&other, 1, 1)).contains("is no Ed25519 key"));
    }
}
