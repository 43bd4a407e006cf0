//! What root can read of a process, and a search in it: by the process's memory file, by the debugger's call, and by
//! the kernel's own view of physical memory.

use super::super::Failure;
use super::servant::{HIDDEN, MASK};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;

const PAGE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 16 * PAGE_BYTES;

/// What a search came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes that were read.
    pub(super) bytes: usize,
    /// Bytes of them that are not zero.
    pub(super) not_zero: usize,
    /// Places that hold the secret's first half.
    pub(super) secrets: usize,
}

impl Found {
    /// Looks through `bytes`, of which the first one is aligned.
    fn look(&mut self, bytes: &[u8]) {
        self.not_zero += bytes.iter().filter(|&&byte| byte != 0).count();
        self.look_for_secrets(bytes);
    }

    fn look_for_secrets(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        // The secret itself never stands in this process, nor in its code.
        let mask = black_box(MASK);
        let is_secret = |word: &&[u8]| (**word).try_into().map_or(0, u64::from_le_bytes) ^ mask == HIDDEN[0];
        self.secrets += bytes.chunks_exact(8).filter(is_secret).count();
    }
}

/// Searches all memory of the process, by `/proc/PID/mem`.
pub(super) fn process(pid: Pid) -> Result<Found, Failure> {
    let mut found = Found::default();
    for range in ranges(pid)? {
        search_file(&format!("/proc/{pid}/mem"), range, &mut found)?;
    }
    Ok(found)
}

/// Searches some pages of the process, by `/proc/PID/mem`.
pub(super) fn pages(pid: Pid, range: Range<u64>) -> Result<Found, Failure> {
    let mut found = Found::default();
    search_file(&format!("/proc/{pid}/mem"), range, &mut found)?;
    Ok(found)
}

/// Searches some pages of the process as a debugger that is attached to it.
pub(super) fn as_debugger(pid: Pid, range: Range<u64>) -> Result<Found, Failure> {
    let describe = |why| format!("ptrace: {why}");
    ptrace::attach(pid).map_err(describe)?;
    waitpid(pid, None).map_err(describe)?;
    let mut found = Found::default();
    for address in range.step_by(8) {
        let place = usize::try_from(address).unwrap_or(0) as *mut nix::libc::c_void;
        let word = ptrace::read(pid, place).map_err(describe)?;
        found.look(&word.to_le_bytes());
    }
    ptrace::detach(pid, None).map_err(describe)?;
    Ok(found)
}

/// Searches the physical pages behind some pages of the process, by the kernel's view of all memory.
pub(super) fn physical(pid: Pid, range: Range<u64>) -> Result<Found, Failure> {
    of_frames(&frames(pid, range)?)
}

/// Addresses of the physical pages behind some pages of the process.
pub(super) fn frames(pid: Pid, range: Range<u64>) -> Result<Vec<u64>, Failure> {
    range.step_by(PAGE_BYTES).map(|page| frame(pid, page)).collect()
}

/// Searches physical pages, by the kernel's view of all memory.
pub(super) fn of_frames(frames: &[u64]) -> Result<Found, Failure> {
    let memory = File::open("/proc/kcore").map_err(|why| format!("/proc/kcore: {why}"))?;
    let segments = segments(&memory)?;
    let mut found = Found::default();
    for &frame in frames {
        let segment = segments.iter().find(|segment| segment.physical.contains(&frame));
        let segment = segment.ok_or_else(|| format!("/proc/kcore has no {frame:#x}"))?;
        let mut bytes = [0; PAGE_BYTES];
        let offset = segment.offset + (frame - segment.physical.start);
        memory.read_exact_at(&mut bytes, offset).map_err(|why| format!("/proc/kcore: {why}"))?;
        found.look(&bytes);
    }
    Ok(found)
}

/// Searches all physical memory, by the kernel's view of it.
pub(super) fn everywhere() -> Result<Found, Failure> {
    let memory = File::open("/proc/kcore").map_err(|why| format!("/proc/kcore: {why}"))?;
    let mut found = Found::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    for Segment { physical, offset } in segments(&memory)? {
        let bytes = physical.end - physical.start;
        for start in (0..bytes).step_by(CHUNK_BYTES) {
            let count = usize::try_from(bytes - start).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let read = memory.read_exact_at(&mut chunk[..count], offset + start);
            read.map_err(|why| format!("/proc/kcore: {why}"))?;
            found.look_for_secrets(&chunk[..count]);
        }
    }
    // What was read is memory too.
    black_box(&mut chunk[..]).fill(0);
    Ok(found)
}

/// Overwrites a byte of the process, by `/proc/PID/mem`.
pub(super) fn write(pid: Pid, address: u64) -> Result<(), Failure> {
    let file = format!("/proc/{pid}/mem");
    let opened = File::options().write(true).open(&file);
    opened.and_then(|memory| memory.write_all_at(&[0xff], address)).map_err(|why| format!("{file}: {why}"))
}

/// The process's mappings that can be read.
fn ranges(pid: Pid) -> Result<Vec<Range<u64>>, Failure> {
    let file = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&file).map_err(|why| format!("{file}: {why}"))?;
    let lines = text.lines().filter(|line| line.contains(" r") && !line.contains("[v"));
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    };
    Ok(lines.filter_map(range).collect())
}

fn search_file(file: &str, range: Range<u64>, found: &mut Found) -> Result<(), Failure> {
    let memory = File::open(file).map_err(|why| format!("{file}: {why}"))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for start in range.clone().step_by(CHUNK_BYTES) {
        let count = usize::try_from(range.end - start).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        // A page that was never touched in a mapping of a file's end cannot be read.
        if memory.read_exact_at(&mut chunk[..count], start).is_ok() {
            found.look(&chunk[..count]);
        }
    }
    Ok(())
}

/// Address of the physical page behind a page (Linux, "pagemap").
fn frame(pid: Pid, page: u64) -> Result<u64, Failure> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let file = format!("/proc/{pid}/pagemap");
    let mut entry = [0; 8];
    let opened = File::open(&file);
    let read = opened.and_then(|map| map.read_exact_at(&mut entry, page / PAGE_BYTES as u64 * 8));
    read.map_err(|why| format!("{file}: {why}"))?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 {
        return Err(format!("{page:#x} is not present"));
    }
    Ok((entry & FRAME) * PAGE_BYTES as u64)
}

/// Physical memory in the kernel's core file.
struct Segment {
    physical: Range<u64>,
    offset: u64,
}

/// The program headers that have a physical address (ELF-64, "Program header").
fn segments(memory: &File) -> Result<Vec<Segment>, Failure> {
    let describe = |why| format!("/proc/kcore: {why}");
    let mut header = [0; 64];
    memory.read_exact_at(&mut header, 0).map_err(describe)?;
    let number = |bytes: &[u8], at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let first = number(&header, 32);
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    let mut segments = Vec::new();
    for index in 0..count {
        let mut entry = [0; 56];
        memory.read_exact_at(&mut entry, first + 56 * index).map_err(describe)?;
        let (offset, physical, size) = (number(&entry, 8), number(&entry, 24), number(&entry, 40));
        // Segments that are no memory have an address of all ones.
        if let Some(end) = physical.checked_add(size).filter(|_| size > 0) {
            segments.push(Segment { physical: physical..end, offset });
        }
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_the_secret_where_it_stands() {
        let mut bytes = [0; 64];
        let mut found = Found::default();
        found.look(&bytes);
        assert_eq!(found, Found { bytes: 64, not_zero: 0, secrets: 0 });
        bytes[16..24].copy_from_slice(&(HIDDEN[0] ^ MASK).to_le_bytes());
        found.look(&bytes);
        assert_eq!((found.bytes, found.secrets), (128, 1));
    }
}
