//! The drivers and commands of `lib/tpm` before a TPM that nobody here wrote: swtpm, by its sockets.

use super::job::{Job, Verdict};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tpm::algorithm::{Algorithm, Digest};
use tpm::crb::Crb;
use tpm::device::Transport;
use tpm::error::TpmError;
use tpm::sim::{Chip, Fault, Kind, Simulated};
use tpm::tis::Tis;
use tpm::tpm2::{Selection, Startup, Tpm2};

/// Tests that boot nothing, and need no images for it.
pub(super) const GROUP: &str = "tpm";

struct Scenario {
    name: &'static str,
    kind: Kind,
}

const FIFO: Scenario = Scenario { name: "tpm-fifo", kind: Kind::Fifo };
const BUFFER: Scenario = Scenario { name: "tpm-crb", kind: Kind::Crb };

/// One job for each interface.
pub(super) fn jobs() -> Vec<Job> {
    let job = |scenario: Scenario| Job {
        name: format!("run/{}", scenario.name),
        group: GROUP,
        seconds: 3,
        needs: None,
        work: Box::new(move |folder| test(scenario.kind, folder)),
    };
    [FIFO, BUFFER].map(job).into()
}

fn test(kind: Kind, folder: &Path) -> Result<Verdict> {
    let swtpm = Swtpm::start(folder)?;
    let mut chip = swtpm.connect()?;
    chip.launch(b"authenticated code")?;
    let device = Simulated::new(kind, chip, Fault::None);
    let done = match kind {
        Kind::Fifo => all(&mut Tpm2::new(Tis::open(device)?)),
        Kind::Crb => all(&mut Tpm2::new(Crb::open(device)?)),
    };
    Ok(done.map_or_else(|why| Verdict::failed(format!("{why:#}")), |()| Verdict::Passed))
}

fn all<T: Transport>(tpm: &mut Tpm2<T>) -> Result<()> {
    tpm.startup(Startup::Clear)?;
    tpm.self_test()?;
    registers(tpm).context("registers")?;
    quote(tpm).context("quote")?;
    seal(tpm).context("sealing")?;
    counter(tpm).context("counter")?;
    Ok(tpm.shutdown(Startup::Clear)?)
}

/// The register that the launch reset, of the bank that is looked at.
const PCR: u8 = 17;
const SELECTION: Selection = Selection { algorithm: Algorithm::Sha256, registers: 1 << PCR };

pub(super) fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().to_vec()
}

fn registers<T: Transport>(tpm: &mut Tpm2<T>) -> Result<()> {
    let banks = tpm.banks()?;
    ensure!(
        banks.iter().iter().any(|bank| bank.algorithm == Algorithm::Sha256.number()),
        "no bank of SHA-256"
    );
    let mut expected = sha256(&[&[0; 32], &sha256(&[b"authenticated code"])]);
    ensure!(tpm.pcr_read(Algorithm::Sha256, PCR)?.bytes() == expected, "not what the launch leaves");
    // Each active bank gets a digest of its own.
    let digests: Vec<Digest> = banks
        .iter()
        .iter()
        .filter_map(|bank| Algorithm::of_number(bank.algorithm))
        .filter_map(|algorithm| Digest::new(algorithm, &vec![0x5a; algorithm.size()]))
        .collect();
    ensure!(digests.len() == banks.iter().len(), "a bank that is not known");
    let others: Vec<Digest> =
        digests.iter().map(|digest| tpm.pcr_read(digest.algorithm(), PCR)).collect::<Result<_, _>>()?;
    tpm.pcr_extend(PCR, &digests)?;
    expected = sha256(&[&expected, &[0x5a; 32]]);
    ensure!(tpm.pcr_read(Algorithm::Sha256, PCR)?.bytes() == expected, "not what the digest leaves");
    for before in others {
        ensure!(tpm.pcr_read(before.algorithm(), PCR)? != before, "{} was not extended", before.algorithm());
    }
    let mut told = Vec::new();
    tpm.pcr_event(PCR, b"an event", |digest| told.push(digest))?;
    let digest = sha256(&[b"an event"]);
    ensure!(told.iter().any(|told| told.bytes() == digest), "not the event's digest");
    ensure!(told.len() == digests.len(), "{} banks were extended", told.len());
    expected = sha256(&[&expected, &digest]);
    ensure!(tpm.pcr_read(Algorithm::Sha256, PCR)?.bytes() == expected, "not what the event leaves");
    let absent = tpm.pcr_read(Algorithm::Sha256, 24);
    ensure!(absent.is_err(), "there is a register 24");
    Ok(())
}

fn quote<T: Transport>(tpm: &mut Tpm2<T>) -> Result<()> {
    let key = tpm.attestation_key()?;
    let mut nonce = [0; 20];
    tpm.random(&mut nonce)?;
    ensure!(nonce != [0; 20], "random bytes are zeros");
    let (statement, signature) =
        tpm.quote(key, &nonce, SELECTION, |statement, signature| (statement.to_vec(), signature.to_vec()))?;
    let has = |part: &[u8]| statement.windows(part.len()).any(|window| window == part);
    let value = tpm.pcr_read(Algorithm::Sha256, PCR)?;
    // The statement starts with TPM_GENERATED, and has nonce and the registers' digest.
    ensure!(statement.starts_with(b"\xffTCG\x80\x18"), "no quote: {statement:02x?}");
    ensure!(has(&nonce) && has(&sha256(&[value.bytes()])), "a quote of something else");
    ensure!(signature.starts_with(&[0, 0x18, 0, 0xb]), "no signature by ECDSA: {signature:02x?}");
    Ok(tpm.flush(key.0)?)
}

fn seal<T: Transport>(tpm: &mut Tpm2<T>) -> Result<()> {
    const SECRET: &[u8] = b"the root secret";
    let trial = tpm.policy_session(true)?;
    tpm.policy_pcr(trial, SELECTION, None)?;
    let policy = tpm.policy_digest(trial)?;
    tpm.flush(trial.0)?;
    // TPM2_PolicyPCR by the library's formula.
    let value = tpm.pcr_read(Algorithm::Sha256, PCR)?;
    let selection = [0, 0, 0, 1, 0, 0xb, 3, 0, 0, 2];
    let wanted = sha256(&[&[0; 32], &0x17f_u32.to_be_bytes(), &selection, &sha256(&[value.bytes()])]);
    ensure!(policy.bytes() == wanted, "not the policy's digest");
    let parent = tpm.storage_key()?;
    let blob = tpm.seal(parent, SECRET, &policy)?;
    let sealed = tpm.load(parent, &blob)?;
    let session = tpm.policy_session(false)?;
    tpm.policy_pcr(session, SELECTION, None)?;
    let opened = tpm.unseal(sealed, session, <[u8]>::to_vec)?;
    ensure!(opened == SECRET, "another secret");
    tpm.flush(session.0)?;
    let mut private = blob.private().to_vec();
    *private.last_mut().context("no private part")? ^= 1;
    let changed = tpm::tpm2::SealedBlob::new(&private, blob.public()).context("too long")?;
    ensure!(matches!(tpm.load(parent, &changed), Err(TpmError::Refused { .. })), "a changed blob was loaded");
    // Once the register is another, the same blob stays shut.
    tpm.pcr_event(PCR, b"capped", |_| ())?;
    let session = tpm.policy_session(false)?;
    tpm.policy_pcr(session, SELECTION, None)?;
    let shut = tpm.unseal(sealed, session, <[u8]>::to_vec);
    ensure!(matches!(shut, Err(TpmError::Refused { .. })), "it opened behind the cap");
    let expected = Digest::new(Algorithm::Sha256, &sha256(&[value.bytes()]));
    let stale = tpm.policy_pcr(session, SELECTION, expected.as_ref());
    ensure!(matches!(stale, Err(TpmError::Refused { .. })), "registers of before the cap were taken");
    [session.0, sealed.0, parent.0].into_iter().try_for_each(|handle| Ok(tpm.flush(handle)?))
}

fn counter<T: Transport>(tpm: &mut Tpm2<T>) -> Result<()> {
    const INDEX: u32 = 0x0150_0001;
    tpm.counter_define(INDEX)?;
    ensure!(tpm.counter_read(INDEX).is_err(), "a counter that never counted was read");
    tpm.counter_increment(INDEX)?;
    let first = tpm.counter_read(INDEX)?;
    tpm.counter_increment(INDEX)?;
    ensure!(tpm.counter_read(INDEX)? == first + 1, "it does not count by one");
    tpm.counter_remove(INDEX)?;
    tpm.counter_define(INDEX)?;
    tpm.counter_increment(INDEX)?;
    ensure!(tpm.counter_read(INDEX)? > first, "a new counter starts lower");
    Ok(tpm.counter_remove(INDEX)?)
}

/// A TPM that runs, until it is dropped.
struct Swtpm {
    process: Child,
    folder: tempfile::TempDir,
}

impl Swtpm {
    fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        // A socket's path has to be short.
        let sockets = tempfile::tempdir()?;
        let socket = |name: &str| format!("type=unixio,path={}", sockets.path().join(name).display());
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.args(["--server", &socket("data"), "--ctrl", &socket("control")]);
        command.arg("--tpmstate").arg(format!("dir={}", sockets.path().display()));
        let log = std::fs::File::create(folder.join("swtpm.log"))?;
        let process = command.stdout(Stdio::null()).stderr(log).spawn().context("starting swtpm")?;
        Ok(Self { process, folder: sockets })
    }

    fn connect(&self) -> Result<Sockets> {
        Ok(Sockets { data: self.socket("data")?, control: self.socket("control")? })
    }

    fn socket(&self, name: &str) -> Result<UnixStream> {
        let path = self.folder.path().join(name);
        let start = Instant::now();
        loop {
            match UnixStream::connect(&path) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
                    return Ok(socket);
                }
                Err(why) if start.elapsed() > Duration::from_secs(30) => {
                    bail!("swtpm does not listen: {why}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A TPM behind its sockets, at locality 2.
struct Sockets {
    data: UnixStream,
    control: UnixStream,
}

/// Commands of the control socket (swtpm_ioctls(3)).
mod control {
    pub(super) const SET_LOCALITY: u32 = 5;
    pub(super) const HASH_START: u32 = 6;
    pub(super) const HASH_DATA: u32 = 7;
    pub(super) const HASH_END: u32 = 8;
}

impl Sockets {
    /// The event by which a processor measures authenticated code, and the locality of who runs then.
    fn launch(&mut self, code: &[u8]) -> Result<()> {
        self.control(control::HASH_START, &[])?;
        let length = u32::try_from(code.len())?.to_be_bytes();
        self.control(control::HASH_DATA, &[&length, code].concat())?;
        self.control(control::HASH_END, &[])?;
        self.control(control::SET_LOCALITY, &[2])
    }

    fn control(&mut self, command: u32, body: &[u8]) -> Result<()> {
        self.control.write_all(&[&command.to_be_bytes(), body].concat())?;
        let mut result = [0; 4];
        self.control.read_exact(&mut result)?;
        ensure!(result == [0; 4], "swtpm refuses control command {command}: {result:02x?}");
        Ok(())
    }

    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.data.write_all(command)?;
        let mut answer = vec![0; 10];
        self.data.read_exact(&mut answer)?;
        let size: &[u8] = answer.get(2..6).unwrap_or_default();
        let size = size.try_into().map_or(10, u32::from_be_bytes) as usize;
        answer.resize(size.clamp(10, 8192), 0);
        self.data.read_exact(&mut answer[10..])?;
        Ok(answer)
    }
}

impl Chip for Sockets {
    fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        // A TPM that is gone has no answer, which the driver tells.
        self.exchange(command).unwrap_or_default()
    }
}
