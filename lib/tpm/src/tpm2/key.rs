//! Keys, sealed data and quotes (TPM 2.0 Library part 3, "Object Commands", "Attestation Commands").

use super::{Selection, Session, Tpm2, code, parameters, patience};
use crate::algorithm::{Algorithm, Digest};
use crate::command::Command;
use crate::device::Transport;
use crate::error::TpmError;

/// Most bytes of a blob's private or public part.
pub const BLOB_LIMIT: usize = 512;

const OWNER: u32 = 0x4000_0001;
const KEYED_HASH: u16 = 0x8;
const AES: u16 = 0x6;
const CFB: u16 = 0x43;
const ECC: u16 = 0x23;
const ECDSA: u16 = 0x18;
const NULL: u16 = 0x10;
const NIST_P256: u16 = 0x3;

/// Attributes of an object (TPM 2.0 Library part 2, "TPMA_OBJECT").
mod attribute {
    pub(super) const FIXED_TPM: u32 = 1 << 1;
    pub(super) const FIXED_PARENT: u32 = 1 << 4;
    pub(super) const SENSITIVE_ORIGIN: u32 = 1 << 5;
    pub(super) const USER_WITH_AUTH: u32 = 1 << 6;
    pub(super) const NO_DICTIONARY_ATTACKS: u32 = 1 << 10;
    pub(super) const RESTRICTED: u32 = 1 << 16;
    pub(super) const DECRYPT: u32 = 1 << 17;
    pub(super) const SIGN: u32 = 1 << 18;
}

const OF_PARENT: u32 = attribute::FIXED_TPM
    | attribute::FIXED_PARENT
    | attribute::SENSITIVE_ORIGIN
    | attribute::USER_WITH_AUTH
    | attribute::NO_DICTIONARY_ATTACKS
    | attribute::RESTRICTED;

/// A key in the TPM, until it is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub u32);

/// Sealed data, as it is kept outside of the TPM: only the TPM that made it opens it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealedBlob {
    private: ([u8; BLOB_LIMIT], usize),
    public: ([u8; BLOB_LIMIT], usize),
}

impl SealedBlob {
    /// The blob of these two parts, where they are not longer than [`BLOB_LIMIT`].
    #[must_use]
    pub fn new(private: &[u8], public: &[u8]) -> Option<Self> {
        let kept = |bytes: &[u8]| {
            let mut kept = [0; BLOB_LIMIT];
            kept.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((kept, bytes.len()))
        };
        Some(Self { private: kept(private)?, public: kept(public)? })
    }

    /// What only the TPM reads.
    #[must_use]
    pub fn private(&self) -> &[u8] {
        self.private.0.get(..self.private.1).unwrap_or_default()
    }

    /// What everybody reads, the policy's digest among it.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.public.0.get(..self.public.1).unwrap_or_default()
    }
}

impl core::fmt::Debug for SealedBlob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealedBlob")
            .field("private", &self.private.1)
            .field("public", &self.public.1)
            .finish()
    }
}

impl<T: Transport> Tpm2<T> {
    /// TPM2_CreatePrimary: the owner's storage key on the curve P-256, always the same for the same TPM and owner.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn storage_key(&mut self) -> Result<Handle, TpmError> {
        self.primary(OF_PARENT | attribute::DECRYPT, |public| {
            // Protects its children by AES-128 in CFB mode.
            public.u16(AES).u16(128).u16(CFB).u16(NULL);
        })
    }

    /// TPM2_CreatePrimary: a key on the curve P-256 that signs quotes and nothing else, always the same for the same TPM
    /// and owner.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn attestation_key(&mut self) -> Result<Handle, TpmError> {
        self.primary(OF_PARENT | attribute::SIGN, |public| {
            public.u16(NULL).u16(ECDSA).u16(Algorithm::Sha256.number());
        })
    }

    /// A key by these attributes, and what `scheme` writes of its symmetric algorithm and scheme.
    fn primary(&mut self, attributes: u32, scheme: impl FnOnce(&mut Command)) -> Result<Handle, TpmError> {
        let mut command = Command::by_password(code::CREATE_PRIMARY, &[OWNER], 1);
        command.structure(|sensitive| {
            sensitive.sized(&[]).sized(&[]);
        });
        command.structure(|public| {
            public.u16(ECC).u16(Algorithm::Sha256.number()).u32(attributes).sized(&[]);
            scheme(public);
            public.u16(NIST_P256).u16(NULL).sized(&[]).sized(&[]);
        });
        command.sized(&[]).u32(0);
        self.execute(&mut command, patience::KEY, |answer| answer.u32().map(Handle))
    }

    /// TPM2_Create: seals `secret`, at most 128 bytes, so that only a policy of this digest opens it.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn seal(&mut self, parent: Handle, secret: &[u8], policy: &Digest) -> Result<SealedBlob, TpmError> {
        let mut command = Command::by_password(code::CREATE, &[parent.0], 1);
        command.structure(|sensitive| {
            sensitive.sized(&[]).sized(secret);
        });
        let attributes = attribute::FIXED_TPM | attribute::FIXED_PARENT | attribute::NO_DICTIONARY_ATTACKS;
        command.structure(|public| {
            public.u16(KEYED_HASH).u16(policy.algorithm().number()).u32(attributes);
            public.sized(policy.bytes()).u16(NULL).sized(&[]);
        });
        command.sized(&[]).u32(0);
        self.execute(&mut command, patience::KEY, |answer| {
            parameters(answer)?;
            SealedBlob::new(answer.sized()?, answer.sized()?)
        })
    }

    /// TPM2_Load: brings sealed data in under the key that sealed it.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; [`TpmError::Refused`] where a byte of it was changed or another TPM made it.
    pub fn load(&mut self, parent: Handle, blob: &SealedBlob) -> Result<Handle, TpmError> {
        let mut command = Command::by_password(code::LOAD, &[parent.0], 1);
        command.sized(blob.private()).sized(blob.public());
        self.execute(&mut command, patience::LONG, |answer| answer.u32().map(Handle))
    }

    /// TPM2_Unseal: gives what was sealed to `opened`, where the session's policy is that of the sealing.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; [`TpmError::Refused`] where it is another.
    pub fn unseal<R>(
        &mut self,
        sealed: Handle,
        session: Session,
        mut opened: impl FnMut(&[u8]) -> R,
    ) -> Result<R, TpmError> {
        let mut command = Command::by_sessions(code::UNSEAL, &[sealed.0], &[session.0]);
        let done = self.execute(&mut command, patience::LONG, |answer| {
            parameters(answer)?;
            Some(opened(answer.sized()?))
        });
        // The secret does not stay behind.
        self.answer.fill(0);
        done
    }

    /// TPM2_Quote: gives the statement over registers and `nonce`, and its signature, to `quoted`.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn quote<R>(
        &mut self,
        key: Handle,
        nonce: &[u8],
        selection: Selection,
        mut quoted: impl FnMut(&[u8], &[u8]) -> R,
    ) -> Result<R, TpmError> {
        let mut command = Command::by_password(code::QUOTE, &[key.0], 1);
        command.sized(nonce).u16(NULL);
        selection.write(&mut command);
        self.execute(&mut command, patience::LONG, |answer| {
            let length = answer.u32()? as usize;
            let mut parameters = crate::answer::Answer::new(answer.take(length)?);
            let statement = parameters.sized()?;
            Some(quoted(statement, parameters.rest()))
        })
    }
}
