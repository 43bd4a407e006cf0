//! A process that does as it is told, and has a PAL to hide a secret in.

use super::super::Failure;
use super::child;
use super::{CHECK, KEEP, Keeper, describe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use xmhf_pal::Error;

/// The secret, combined with [`MASK`]: only those who are to know it take that away.
pub(super) const HIDDEN: [u64; 2] = [0x7365_6372_6574_2d31 ^ MASK, 0x6f66_2d74_6865_2d70 ^ MASK];
/// What it is combined with.
pub(super) const MASK: u64 = 0x5a5a_a5a5_3c3c_c3c3;

/// What the process is asked for.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Order {
    /// Put the secret in memory like any other.
    Remember = b'r',
    /// Wipe it from there.
    Forget = b'f',
    /// Register the PAL and give it the secret.
    Hide = b'h',
    /// Have the PAL check the right guess.
    GuessRight = b'g',
    /// Have the PAL check a wrong one.
    GuessWrong = b'w',
    /// Unregister the PAL.
    GiveUp = b'u',
    /// Say where the PAL's data begins.
    Where = b'd',
}

/// The process, from its parent's side.
#[derive(Debug)]
pub(super) struct Servant {
    pub(super) pid: Pid,
    orders: PipeWriter,
    answers: PipeReader,
}

impl Servant {
    /// Starts it.
    pub(super) fn start() -> Result<Self, Failure> {
        let (mut to_read, orders) = pipe().map_err(|why| format!("pipe: {why}"))?;
        let (answers, mut to_write) = pipe().map_err(|why| format!("pipe: {why}"))?;
        let pid = child::start(move || match serve(&mut to_read, &mut to_write) {
            Ok(()) => 0,
            Err(why) => {
                println!("xmhf-guest: servant: {why}");
                1
            }
        })?;
        Ok(Self { pid, orders, answers })
    }

    /// Gives an order and awaits the answer; errors of the PAL are [`encode`]d.
    pub(super) fn ask(&mut self, order: Order) -> Result<u64, Failure> {
        let mut answer = [0; 8];
        let sent = self.orders.write_all(&[order as u8]);
        sent.and_then(|()| self.answers.read_exact(&mut answer))
            .map_err(|why| format!("{order:?}: {why}"))?;
        Ok(u64::from_le_bytes(answer))
    }

    /// As [`Servant::ask`], for an order that has to be answered like this.
    pub(super) fn expect(&mut self, order: Order, expected: u64) -> Result<(), Failure> {
        match self.ask(order)? {
            answer if answer == expected => Ok(()),
            answer => Err(format!("{order:?}: answer {answer:#x}, expected {expected:#x}")),
        }
    }

    /// Ends it, which its PAL does not outlive.
    pub(super) fn kill(self) -> Result<(), Failure> {
        kill(self.pid, Signal::SIGKILL).map_err(|why| format!("kill: {why}"))?;
        child::wait_for_signal(self.pid, Signal::SIGKILL)
    }
}

fn serve(orders: &mut PipeReader, answers: &mut PipeWriter) -> Result<(), Failure> {
    let mut memory = Box::new([0u64; 2]);
    let mut keeper: Option<Keeper> = None;
    let mut order = [0];
    while orders.read_exact(&mut order).is_ok() {
        let answer = match order[0] {
            b'r' => {
                reveal(&mut memory);
                memory.as_ptr().addr() as u64
            }
            b'f' => {
                *black_box(&mut *memory) = [0; 2];
                0
            }
            b'h' => {
                let registered = Keeper::register().map_err(describe)?;
                reveal(&mut memory);
                let kept = registered.call(KEEP, &mut memory);
                keeper = Some(registered);
                encode(kept)
            }
            b'g' | b'w' => {
                let Some(keeper) = &keeper else { return Err("there is no PAL".into()) };
                reveal(&mut memory);
                memory[1] ^= u64::from(order[0] == b'w');
                let answer = keeper.call(CHECK, &mut memory);
                *black_box(&mut *memory) = [0; 2];
                encode(answer)
            }
            b'u' => encode(keeper.take().map_or(Ok(()), Keeper::unregister).map(|()| 0)),
            _ => keeper.as_ref().map_or(0, |keeper| keeper.pal().memory().start() as u64),
        };
        answers.write_all(&answer.to_le_bytes()).map_err(|why| why.to_string())?;
    }
    Ok(())
}

/// Puts the secret into `memory`, and nowhere else.
#[inline(never)]
fn reveal(memory: &mut [u64; 2]) {
    for (word, hidden) in memory.iter_mut().zip(black_box(&HIDDEN)) {
        *word = black_box(hidden ^ MASK);
    }
}

/// A result of a PAL as one number: errors have a kind from bit 32 on, and their own number below.
pub(super) fn encode(result: Result<usize, Error>) -> u64 {
    match result {
        Ok(value) => value as u64,
        Err(Error::Failed(failure)) => FAILED | u64::from(failure.0),
        Err(Error::Faulted(fault)) => FAULTED | u64::from(fault.kind.0),
        Err(Error::Refused { status, .. }) => REFUSED | u64::from(status.0),
        Err(_) => OTHER,
    }
}

/// A call that failed, with its failure.
pub(super) const FAILED: u64 = 1 << 32;
/// A PAL that faulted, with the kind.
pub(super) const FAULTED: u64 = 2 << 32;
/// A hypercall that was refused, with its status.
pub(super) const REFUSED: u64 = 3 << 32;
const OTHER: u64 = 4 << 32;
