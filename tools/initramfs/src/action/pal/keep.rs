//! A secret in a PAL, and a root that tries everything to get at it.

use super::super::Failure;
use super::ensure;
use super::search::{self, Found};
use super::servant::{FAILED, Order, Servant};
use std::ops::Range;
use xmhf_pal::trustvisor::call::Failure as CallFailure;

const PAGE_BYTES: u64 = 4096;

/// Shows in steps, told by `tell`, that a PAL keeps its secret, and that what is no PAL does not.
pub(super) fn perform(tell: &dyn Fn(&str)) -> Result<(), Failure> {
    let mut servant = Servant::start()?;
    in_the_open(&mut servant, tell)?;
    let pages = hide(&mut servant, tell)?;
    read(&mut servant, pages.clone(), tell)?;
    guess(&mut servant, tell)?;
    write(&mut servant, pages, tell)?;
    servant.kill()?;
    tell("Killed the process with its PAL. The machine goes on.");
    Ok(())
}

/// Memory like any other is open to root: the search finds what there is.
fn in_the_open(servant: &mut Servant, tell: &dyn Fn(&str)) -> Result<(), Failure> {
    let pid = servant.pid;
    servant.ask(Order::Remember)?;
    let open = search::process(pid)?;
    ensure(open.secrets > 0, format!("the search does not find what is there: {open:?}"))?;
    tell(&format!("Process {pid} keeps a secret in its memory, as programs do."));
    tell(&format!("Root reads the {} bytes of the process, and finds it: no protection.", open.bytes));
    servant.expect(Order::Forget, 0)?;
    let wiped = search::process(pid)?;
    ensure(wiped.secrets == 0, format!("wiped, yet found: {wiped:?}"))
}

/// Has the PAL take the secret, and gives its code and data pages.
fn hide(servant: &mut Servant, tell: &dyn Fn(&str)) -> Result<Range<u64>, Failure> {
    servant.expect(Order::Hide, 0)?;
    let start = servant.ask(Order::Where)?;
    tell(&format!(
        "Now the process registers a PAL, at {start:#x}, gives it the secret and wipes its own copy."
    ));
    Ok(start..start + 2 * PAGE_BYTES)
}

fn read(servant: &mut Servant, pages: Range<u64>, tell: &dyn Fn(&str)) -> Result<(), Failure> {
    let pid = servant.pid;
    let nothing = |how: &str, found: Found| {
        ensure(found.secrets == 0 && found.bytes > 0, format!("{how} finds the secret: {found:?}"))
    };
    let all = search::process(pid)?;
    nothing("/proc/PID/mem", all)?;
    tell(&format!("Root reads the {} bytes of the process again, by /proc/{pid}/mem: no secret.", all.bytes));
    let attempts = [
        ("/proc/PID/mem", search::pages(pid, pages.clone())?),
        ("ptrace", search::as_debugger(pid, pages.clone())?),
        ("the kernel's view of physical memory, /proc/kcore,", search::physical(pid, pages)?),
    ];
    for (how, found) in attempts {
        nothing(how, found)?;
        ensure(found.not_zero == 0, format!("{how} sees something of the PAL: {found:?}"))?;
        tell(&format!("Root reads the PAL's own pages by {how} and gets {} zeros.", found.bytes));
    }
    Ok(())
}

fn guess(servant: &mut Servant, tell: &dyn Fn(&str)) -> Result<(), Failure> {
    servant.expect(Order::GuessRight, 1)?;
    servant.expect(Order::GuessWrong, 0)?;
    tell("The PAL still knows its secret: it says yes to the right guess, and no to a wrong one.");
    Ok(())
}

/// A write takes the PAL's pages away from it, empty.
fn write(servant: &mut Servant, pages: Range<u64>, tell: &dyn Fn(&str)) -> Result<(), Failure> {
    let pid = servant.pid;
    search::write(pid, pages.start + PAGE_BYTES + 8)?;
    servant.expect(Order::GuessRight, FAILED | u64::from(CallFailure::DEAD.0))?;
    tell("Root writes into the PAL's data instead: it is no PAL any more, and each call of it is refused.");
    let after = [search::process(pid)?, search::physical(pid, pages)?];
    ensure(after.iter().all(|found| found.secrets == 0), format!("the secret came out: {after:?}"))?;
    tell("The pages are root's to read again, but were zeroed before: the secret is gone, not out.");
    servant.expect(Order::GiveUp, 0)
}
