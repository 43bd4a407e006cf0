//! Memory of a PAL whose process was killed, before and after the kernel gives it to others.

use super::super::Failure;
use super::search::{self, Found};
use super::servant::{Order, Servant};
use super::{child, ensure};
use std::fs;

const PAGE_BYTES: u64 = 4096;
/// What stays free for the kernel.
const SPARE_BYTES: usize = 64 << 20;

/// No search of all memory finds the secret of a PAL: not while it lives, not once its process is killed, and not
/// when all memory has been handed out again.
pub(super) fn perform() -> Result<(), Failure> {
    // On one CPU, whose list of free pages has first what a process left that ran there.
    child::wait(child::start(|| match child::bind(0).and_then(|()| search_and_kill()) {
        Ok(()) => 0,
        Err(why) => {
            println!("xmhf-guest: {why}");
            1
        }
    })?)
}

fn search_and_kill() -> Result<(), Failure> {
    let mut servant = Servant::start()?;
    servant.ask(Order::Remember)?;
    let open = search::everywhere()?;
    ensure(open.secrets > 0, format!("the search does not find what is there: {open:?}"))?;
    servant.expect(Order::Forget, 0)?;
    servant.expect(Order::Hide, 0)?;
    let start = servant.ask(Order::Where)?;
    let frames = search::frames(servant.pid, start..start + 2 * PAGE_BYTES)?;
    none("with the PAL", search::everywhere()?)?;
    servant.kill()?;
    none("once the process is killed", search::everywhere()?)?;
    fill_memory()?;
    none("after memory was handed out again", search::everywhere()?)?;
    let after = search::of_frames(&frames)?;
    ensure(after.not_zero > 0, format!("nobody got the PAL's memory: {after:?}"))
}

fn none(when: &str, found: Found) -> Result<(), Failure> {
    ensure(found.secrets == 0 && found.bytes > 0, format!("the secret is in memory {when}: {found:?}"))
}

/// Has the kernel hand out nearly all memory, and writes to it.
fn fill_memory() -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|why| format!("/proc/meminfo: {why}"))?;
    let free =
        text.lines().find_map(|line| line.strip_prefix("MemFree:")?.split_whitespace().next()?.parse().ok());
    let free: usize = free.ok_or("/proc/meminfo does not tell what is free")?;
    let bytes = (free << 10).saturating_sub(SPARE_BYTES);
    ensure(bytes > 0, "there is too little memory")?;
    let filled = vec![0xa5u8; bytes];
    ensure(filled.iter().step_by(4096).all(|&byte| byte == 0xa5), "memory does not keep what is written")
}
