//! Whose a PAL is, by its signed header.
//!
//! That the header fits what is registered shows at once. Whether the signature is good shows when the PAL first asks
//! for its microTPM, step by step, as its measurement does: most PALs never ask. A PAL whose signature is not good has no
//! microTPM at all.

use crate::fallible::{put, reserved};
use crate::layout::Layout;
use crate::machine::{Inaccessible, Process};
use alloc::vec::Vec;
use microtpm::{Ed25519Verification, Signer};
use trustvisor::section::SectionType;
use trustvisor::signature::{BYTES, SignedHeader};
use trustvisor::status::Status;

/// What is known of a PAL's signer.
#[derive(Debug)]
pub struct Signing(State);

#[derive(Debug)]
enum State {
    /// Nobody signed it.
    Unsigned,
    /// Somebody is said to have.
    Claimed(Step),
    /// A step is under way.
    Away,
    /// This one has.
    Signed(Signer),
    /// The signature is not its signer's, or of another PAL.
    Forged,
}

/// A claim with its verification: a step on its way, alone in its list.
#[derive(Debug)]
pub struct Step(Vec<Claim>);

#[derive(Debug)]
struct Claim {
    header: SignedHeader,
    verification: Option<Ed25519Verification>,
    is_good: Option<bool>,
}

/// Bytes of the heap that a signed PAL takes until its signature is verified.
pub(crate) const CLAIM_BYTES: usize = size_of::<Claim>();

/// Reads the signed header at `address`.
///
/// # Errors
///
/// [`Status::BAD_ADDRESS`] or [`Status::SIGNED_HEADER`].
pub fn read_header(process: &impl Process, address: u64) -> Result<SignedHeader, Status> {
    let mut bytes = [0; BYTES];
    process.read(address, &mut bytes).map_err(|Inaccessible| Status::BAD_ADDRESS)?;
    SignedHeader::from_bytes(&bytes).ok_or(Status::SIGNED_HEADER)
}

impl Signing {
    /// Of a PAL that nobody signed.
    #[must_use]
    pub const fn none() -> Self {
        Self(State::Unsigned)
    }

    /// Of a PAL with this header, if that fits its layout; nothing is verified yet.
    ///
    /// # Errors
    ///
    /// [`Status::SIGNED_HEADER`] or [`Status::OUT_OF_MEMORY`].
    pub fn claimed(header: SignedHeader, layout: &Layout) -> Result<Self, Status> {
        let stack = layout.section(SectionType::Stack).map(|stack| stack.count);
        if header.flags != layout.flags || Some(header.stack_pages) != stack {
            return Err(Status::SIGNED_HEADER);
        }
        let mut claims = reserved(1)?;
        put(&mut claims, Claim { header, verification: None, is_good: None })?;
        Ok(Self(State::Claimed(Step(claims))))
    }

    /// Everything that there is to find out is known.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.0, State::Unsigned | State::Signed(_) | State::Forged)
    }

    /// Returns the next step, which has to come back by [`Self::give`]; `measurement` is register 0 of the SHA-256
    /// bank. `None` where there is none, or one is out.
    pub fn take(&mut self, measurement: &[u8]) -> Option<Step> {
        match core::mem::replace(&mut self.0, State::Away) {
            State::Claimed(step)
                if step.0.iter().all(|claim| claim.header.measurement[..] == *measurement) =>
            {
                Some(step)
            }
            State::Claimed(_) => {
                self.0 = State::Forged;
                None
            }
            other => {
                self.0 = other;
                None
            }
        }
    }

    /// Takes a step back that was made.
    pub fn give(&mut self, step: Step) {
        self.0 = match step.0.first() {
            Some(Claim { is_good: None, .. }) => State::Claimed(step),
            Some(Claim { is_good: Some(true), header, .. }) => {
                State::Signed(Signer::new(&header.public_key, header.product, header.version))
            }
            _ => State::Forged,
        };
    }

    /// Returns the signer, where there is one.
    ///
    /// # Errors
    ///
    /// [`Status::SIGNATURE`]: the one that is said to be is not.
    pub const fn signer(&self) -> Result<Option<Signer>, Status> {
        match self.0 {
            State::Unsigned => Ok(None),
            State::Signed(signer) => Ok(Some(signer)),
            State::Claimed(_) | State::Away | State::Forged => Err(Status::SIGNATURE),
        }
    }
}

impl Step {
    /// Makes the step.
    pub fn make(&mut self) {
        let Some(claim) = self.0.first_mut() else { return };
        let header = &claim.header;
        match &mut claim.verification {
            Some(verification) => claim.is_good = verification.step(),
            None => {
                let signed = header.signed_bytes();
                claim.verification = Ed25519Verification::new(&header.public_key, &signed, &header.signature);
                claim.is_good = claim.verification.is_none().then_some(false);
            }
        }
    }
}

#[cfg(test)]
#[path = "signing_tests.rs"]
mod tests;
