//! The commands that PALs give to their microTPM: arguments out of the PAL's memory, results into it.
//!
//! Buffers are described as in the original, by u32 fields for either word size: an input buffer is its address
//! and its length, an output buffer its address and the address of its length. SEAL and UNSEAL only store
//! lengths; QUOTE and ID_GETPUB read there what room there is.

use crate::fallible::{copied, filled};
use crate::layout::Layout;
use crate::machine::{Inaccessible, Pages};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::task::{Poll, ready};
use microtpm::{
    BLOB_BYTES_LIMIT, Credentials, DeprecatedSelection, Entropy, Error, Generator, Identity,
    PCR_INFO_BYTES_LIMIT, PcrBanks, PcrIndex, PcrInfo, Policy, PublicKey, RootSecret, SEAL_BYTES_LIMIT,
    SELECTION_BYTES, SealKeys, Selection,
};
use trustvisor::command::Command;
use trustvisor::status::Status;
use zeroize::Zeroizing;

/// What the machine has once, for all PALs.
#[derive(Debug)]
pub struct MicroTpm<E> {
    keys: SealKeys,
    generator: Generator<E>,
    identity: Identity,
}

/// A command: ECX, EDX, ESI and EDI, as wide as the PAL's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which.
    pub command: Command,
    /// ECX.
    pub ecx: u64,
    /// EDX.
    pub edx: u64,
    /// ESI.
    pub esi: u64,
    /// EDI.
    pub edi: u64,
}

/// A PAL's memory, by its own addresses.
#[derive(Clone, Copy, Debug)]
pub struct PalMemory<'a, P> {
    /// Where its pages are.
    pub layout: &'a Layout,
    /// The pages.
    pub pages: &'a P,
}

/// Where a result goes: an address, and where its length is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OutputBuffer {
    address: u64,
    length: u64,
}

/// Something to be stored.
type Store = (u64, Zeroizing<Vec<u8>>);

/// All that a command stores.
type Stores = ArrayVec<Store, 4>;

/// The microTPM's errors have the numbers of their statuses.
fn status(error: Error) -> Status {
    Status(error.code())
}

impl From<Inaccessible> for Status {
    fn from(_: Inaccessible) -> Self {
        Self::BAD_ADDRESS
    }
}

impl<E: Entropy> MicroTpm<E> {
    /// Makes the machine's, from its root secret.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientEntropy`].
    pub fn new(root: &mut impl RootSecret, source: E) -> Result<Self, Error> {
        let root = root.root_secret()?;
        let generator = Generator::new(source)?;
        Ok(Self { keys: SealKeys::new(&root), generator, identity: Identity::new(&root) })
    }

    /// Carries a command out, or does a step of one that takes long, which has to be given again.
    ///
    /// # Errors
    ///
    /// Why not; then nothing has changed.
    pub fn carry_out<P: Pages>(
        &mut self,
        request: &Request,
        banks: &mut PcrBanks,
        credentials: &Credentials,
        memory: &PalMemory<'_, P>,
    ) -> Poll<Result<(), Status>> {
        let stores = match request.command {
            Command::PCR_READ => {
                let pcr = PcrIndex::from_number(request.ecx).map_err(status)?;
                [store(request.edx, banks.read(pcr))?].into_iter().collect()
            }
            Command::PCR_EXTEND => {
                let pcr = PcrIndex::from_number(request.ecx).map_err(status)?;
                let measurement = memory.bytes(request.edx, pcr.bank.digest_bytes())?;
                banks.extend(pcr, &measurement).map_err(status)?;
                Stores::new()
            }
            Command::RANDOM => self.random(request, memory)?,
            Command::SEAL | Command::SEAL_DEPRECATED => self.seal(request, banks, credentials, memory)?,
            Command::SEAL_TO_SIGNER => self.seal_to_signer(request, banks, credentials, memory)?,
            Command::UNSEAL | Command::UNSEAL_DEPRECATED | Command::UNSEAL_OWN => {
                self.unseal(request, banks, credentials, memory)?
            }
            Command::QUOTE => ready!(self.quote(request, banks, credentials.is_debug, memory))?,
            Command::QUOTE_DEPRECATED => {
                ready!(self.quote_deprecated(request, banks, credentials.is_debug, memory))?
            }
            Command::ID_GETPUB => public_key(request, &ready!(self.identity.public_key()), memory)?,
            _ => return Poll::Ready(Err(Status::UNKNOWN_COMMAND)),
        };
        Poll::Ready(memory.store(&stores))
    }

    fn random<P: Pages>(&mut self, request: &Request, memory: &PalMemory<'_, P>) -> Result<Stores, Status> {
        let count = memory.number(request.edx)?;
        let bytes = self.generator.random(size(count)?).map_err(status)?;
        Ok([(request.ecx, bytes), store(request.edx, &count.to_le_bytes())?].into_iter().collect())
    }

    fn seal<P: Pages>(
        &mut self,
        request: &Request,
        banks: &PcrBanks,
        credentials: &Credentials,
        memory: &PalMemory<'_, P>,
    ) -> Result<Stores, Status> {
        let data = memory.input(request.ecx, SEAL_BYTES_LIMIT)?;
        let is_deprecated = request.command == Command::SEAL_DEPRECATED;
        let policy = if is_deprecated {
            memory.value(request.edx, banks)?
        } else {
            memory.policy(request.edx, banks)?
        };
        let output = memory.output(request.esi)?;
        let random = self.generator.ready().map_err(status)?;
        let (policy, with_creation) = (policy.as_ref(), !is_deprecated);
        let blob = microtpm::seal(&self.keys, random, banks, credentials, policy, with_creation, &data);
        output.filled(Zeroizing::new(blob.map_err(status)?))
    }

    fn seal_to_signer<P: Pages>(
        &mut self,
        request: &Request,
        banks: &PcrBanks,
        credentials: &Credentials,
        memory: &PalMemory<'_, P>,
    ) -> Result<Stores, Status> {
        let data = memory.input(request.ecx, SEAL_BYTES_LIMIT)?;
        let minimum = u32::try_from(request.edx).map_err(|_| Status::BAD_PARAMETER)?;
        let output = memory.output(request.esi)?;
        let random = self.generator.ready().map_err(status)?;
        let blob = microtpm::seal_to_signer(&self.keys, random, banks, credentials, minimum, &data);
        output.filled(Zeroizing::new(blob.map_err(status)?))
    }

    fn unseal<P: Pages>(
        &self,
        request: &Request,
        banks: &PcrBanks,
        credentials: &Credentials,
        memory: &PalMemory<'_, P>,
    ) -> Result<Stores, Status> {
        let blob = memory.input(request.ecx, BLOB_BYTES_LIMIT)?;
        let output = memory.output(request.edx)?;
        let unsealed = microtpm::unseal(&self.keys, banks, credentials, &blob).map_err(status)?;
        if request.command == Command::UNSEAL_OWN && !unsealed.is_own {
            return Err(Status::FOREIGN_BLOB);
        }
        let mut stores = output.filled(unsealed.data)?;
        if request.command == Command::UNSEAL {
            stores.push(store(request.esi, &unsealed.digest_at_creation)?);
        }
        Ok(stores)
    }

    fn quote<P: Pages>(
        &mut self,
        request: &Request,
        banks: &PcrBanks,
        is_debug: bool,
        memory: &PalMemory<'_, P>,
    ) -> Poll<Result<Stores, Status>> {
        // A step of the search leaves no time for what is to be signed.
        let _ = ready!(self.identity.public_key());
        let selection = memory.selection(request.ecx)?;
        let nonce = memory.bytes(request.esi, selection.bank.digest_bytes())?;
        let (signature, composite) = (memory.output(request.edx)?, memory.output(request.edi)?);
        let composite_bytes = selection.composite(banks).len();
        memory.require_room(&[(signature, microtpm::MODULUS_BYTES), (composite, composite_bytes)])?;
        let quote = microtpm::quote(&mut self.identity, banks, selection, &nonce, is_debug);
        let quote = ready!(quote).map_err(status)?;
        let mut stores = signature.filled(Zeroizing::new(copied(&quote.signature)?))?;
        stores.extend(composite.filled(Zeroizing::new(copied(&quote.composite)?))?);
        Poll::Ready(Ok(stores))
    }

    fn quote_deprecated<P: Pages>(
        &mut self,
        request: &Request,
        banks: &PcrBanks,
        is_debug: bool,
        memory: &PalMemory<'_, P>,
    ) -> Poll<Result<Stores, Status>> {
        let _ = ready!(self.identity.public_key());
        let bytes = DeprecatedSelection::bytes(memory.number(request.ecx)?).map_err(status)?;
        let selection = DeprecatedSelection::parse(&memory.bytes(request.ecx, bytes)?).map_err(status)?;
        let mut nonce = [0; 20];
        memory.read(request.esi, &mut nonce)?;
        let output = memory.output(request.edx)?;
        let quote = microtpm::quote_deprecated(&mut self.identity, banks, &selection, &nonce, is_debug);
        Poll::Ready(output.filled(Zeroizing::new(ready!(quote).map_err(status)?)))
    }
}

fn public_key<P: Pages>(
    request: &Request,
    key: &PublicKey,
    memory: &PalMemory<'_, P>,
) -> Result<Stores, Status> {
    let output = OutputBuffer { address: request.ecx, length: request.edx };
    let room = size(memory.number(output.length)?)?;
    match key.for_room(room) {
        Ok(bytes) => output.filled(Zeroizing::new(copied(&bytes)?)),
        Err(needed) => {
            memory.store(&[store(output.length, &number(needed)?.to_le_bytes())?])?;
            Err(Status::NO_ROOM)
        }
    }
}

impl<P: Pages> PalMemory<'_, P> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Inaccessible> {
        let length = bytes.len();
        self.layout.pieces(address, length, false, |page, offset, count| {
            self.pages.read(page, &mut bytes[offset..offset + count]);
        })
    }

    fn bytes(&self, address: u64, length: usize) -> Result<Zeroizing<Vec<u8>>, Status> {
        let mut bytes = Zeroizing::new(filled(length, 0)?);
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    fn number(&self, address: u64) -> Result<u32, Inaccessible> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Returns the two fields of a buffer's description.
    fn pair(&self, address: u64) -> Result<[u32; 2], Inaccessible> {
        let second = address.checked_add(4).ok_or(Inaccessible)?;
        Ok([self.number(address)?, self.number(second)?])
    }

    /// Returns what is in the input buffer that is described at `address`.
    fn input(&self, address: u64, limit: usize) -> Result<Zeroizing<Vec<u8>>, Status> {
        let [at, length] = self.pair(address)?;
        let length = Some(size(length)?).filter(|&length| length <= limit).ok_or(Status::BAD_PARAMETER)?;
        self.bytes(u64::from(at), length)
    }

    fn output(&self, address: u64) -> Result<OutputBuffer, Inaccessible> {
        let [address, length] = self.pair(address)?.map(u64::from);
        Ok(OutputBuffer { address, length })
    }

    fn selection(&self, address: u64) -> Result<Selection, Status> {
        let mut bytes = [0; SELECTION_BYTES];
        self.read(address, &mut bytes[..2])?;
        if bytes[0] != 0 {
            self.read(address, &mut bytes)?;
        }
        Selection::take(&mut &bytes[..]).map_err(status)
    }

    /// Returns the policy of SEAL; 0 is none.
    fn policy(&self, address: u64, banks: &PcrBanks) -> Result<Option<Policy>, Status> {
        if address == 0 {
            return Ok(None);
        }
        let mut bytes = [0; PCR_INFO_BYTES_LIMIT];
        self.read(address, &mut bytes[..2])?;
        let length = PcrInfo::bytes([bytes[0], bytes[1]]);
        self.read(address, &mut bytes[..length])?;
        PcrInfo::policy(&bytes[..length], banks).map_err(status)
    }

    /// Returns the policy of the deprecated SEAL: a value of register 0, or for 0 the present one.
    fn value(&self, address: u64, banks: &PcrBanks) -> Result<Option<Policy>, Status> {
        let mut value = [0; 20];
        if address != 0 {
            self.read(address, &mut value)?;
        }
        Ok(Some(microtpm::deprecated_policy(banks, (address != 0).then_some(&value))))
    }

    /// Refuses buffers without the room that is needed; then the lengths are stored that are.
    fn require_room(&self, buffers: &[(OutputBuffer, usize)]) -> Result<(), Status> {
        let mut is_enough = true;
        let mut needs = Stores::new();
        for (buffer, needed) in buffers {
            is_enough &= size(self.number(buffer.length)?)? >= *needed;
            needs.push(store(buffer.length, &number(*needed)?.to_le_bytes())?);
        }
        if is_enough {
            return Ok(());
        }
        self.store(&needs)?;
        Err(Status::NO_ROOM)
    }

    /// Stores everything, or where the PAL cannot write something, nothing.
    fn store(&self, stores: &[Store]) -> Result<(), Status> {
        for (address, bytes) in stores {
            self.layout.pieces(*address, bytes.len(), true, |_, _, _| ())?;
        }
        for (address, bytes) in stores {
            self.layout.pieces(*address, bytes.len(), true, |page, offset, count| {
                self.pages.write(page, &bytes[offset..offset + count]);
            })?;
        }
        Ok(())
    }
}

impl OutputBuffer {
    /// Returns what is stored for a result.
    fn filled(self, bytes: Zeroizing<Vec<u8>>) -> Result<Stores, Status> {
        let length = number(bytes.len())?;
        Ok([(self.address, bytes), store(self.length, &length.to_le_bytes())?].into_iter().collect())
    }
}

fn store(address: u64, bytes: &[u8]) -> Result<Store, Status> {
    Ok((address, Zeroizing::new(copied(bytes)?)))
}

fn size(number: u32) -> Result<usize, Status> {
    usize::try_from(number).map_err(|_| Status::BAD_PARAMETER)
}

fn number(size: usize) -> Result<u32, Status> {
    u32::try_from(size).map_err(|_| Status::BAD_PARAMETER)
}

#[cfg(test)]
#[path = "tpm_tests.rs"]
pub(crate) mod tests;
