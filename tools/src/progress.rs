//! Cargo's work told in few words: a line when it takes longer, what Cargo waits for, and what it complains of.

use crate::interrupt;
use crate::process::line;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a work may take without a word.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is told that it still goes on.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How soon a request to end is seen.
const POLL: Duration = Duration::from_millis(200);

/// Runs Cargo for `what` and returns what it wrote to its standard output.
///
/// Cargo is not told to be quiet, for then it says neither that it waits for another Cargo nor what it is at. Its lines
/// about single crates are not shown, but for the last one as a sign of life.
///
/// # Errors
///
/// Cargo cannot be started or fails, which it has told by then; or the user asked for an end.
pub fn cargo(what: &str, command: &mut Command) -> Result<String> {
    let (success, text) = try_cargo(what, command)?;
    ensure!(success, "{what}: {} failed", line(command));
    Ok(text)
}

/// As [`cargo`], where Cargo's failure is no error: `false` is returned with what it wrote.
///
/// # Errors
///
/// Cargo cannot be started, or the user asked for an end.
pub fn try_cargo(what: &str, command: &mut Command) -> Result<(bool, String)> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let stdout = child.stdout.take().context("cargo's output")?;
    let stderr = child.stderr.take().context("cargo's messages")?;
    let told = thread::scope(|threads| {
        let text = threads.spawn(move || {
            let mut text = Vec::new();
            let read = BufReader::new(stdout).read_to_end(&mut text);
            read.map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        let was_ended = follow(what, stderr, |line| eprintln!("{line}"), interrupt::is_requested);
        if was_ended {
            let _ = child.kill();
        }
        (was_ended, text.join())
    });
    let status = child.wait()?;
    let (was_ended, text) = told;
    if was_ended {
        bail!("{what}: ended on request");
    }
    let text = text.map_err(|_| anyhow::anyhow!("{what}: no output of cargo"))??;
    Ok((status.success(), text))
}

/// Reads Cargo's messages to their end and has `tell` told what a person wants to see; returns whether it stopped before
/// because `is_ended` said so.
fn follow(
    what: &str,
    messages: impl Read + Send + 'static,
    mut tell: impl FnMut(&str),
    is_ended: impl Fn() -> bool,
) -> bool {
    let (sender, receiver) = channel();
    // Not waited for: where the user asked for an end, Cargo is still to be ended.
    thread::spawn(move || {
        let lines = BufReader::new(messages).lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    let (start, mut next, mut latest) = (Instant::now(), PATIENCE, String::new());
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(line) if is_about_a_crate(&line) => latest = plain(&line),
            Ok(line) => tell(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        if is_ended() {
            return true;
        }
        if start.elapsed() >= next {
            tell(&sign_of_life(what, next, start.elapsed(), &latest));
            next = start.elapsed() + HEARTBEAT;
        }
    }
}

fn sign_of_life(what: &str, next: Duration, elapsed: Duration, latest: &str) -> String {
    if next == PATIENCE {
        return format!("xmhf: {what}");
    }
    let latest = if latest.is_empty() { String::new() } else { format!(": {latest}") };
    // What it takes at first has been told.
    let work = what.split(',').next().unwrap_or(what);
    format!("xmhf: still {work}, {:.0} s{latest}", elapsed.as_secs_f64())
}

/// Whether Cargo says no more than what crate it is at.
fn is_about_a_crate(line: &str) -> bool {
    const WORDS: [&str; 10] = [
        "Compiling",
        "Checking",
        "Documenting",
        "Downloaded",
        "Fresh",
        "Finished",
        "Running",
        "Generated",
        "Executable",
        "Doc-tests",
    ];
    let text = plain(line);
    text.split_whitespace().next().is_some_and(|word| WORDS.contains(&word))
}

fn plain(line: &str) -> String {
    strip_ansi_escapes::strip_str(line).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(messages: &str) -> Vec<String> {
        let mut lines = Vec::new();
        assert!(!follow(
            "building",
            std::io::Cursor::new(messages.to_owned()),
            |line| lines.push(line.to_owned()),
            || false
        ));
        lines
    }

    #[test]
    fn a_wait_for_another_cargo_is_told_and_single_crates_are_not() {
        let blocking = "    Blocking waiting for file lock on build directory";
        let text =
            format!("   Compiling hw v0.1.0\n{blocking}\n\u{1b}[32m   Compiling\u{1b}[0m x\nerror: broken\n");
        assert_eq!(told(&text), [blocking, "error: broken"]);
    }

    #[test]
    fn long_work_is_told_at_once_and_then_with_what_it_is_at() {
        let second = Duration::from_secs;
        assert_eq!(sign_of_life("building", PATIENCE, second(2), ""), "xmhf: building");
        let line = sign_of_life("building", second(22), second(22), "Compiling core v0.0.0");
        assert_eq!(line, "xmhf: still building, 22 s: Compiling core v0.0.0");
        let line = sign_of_life("building, a minute or two at first", second(22), second(22), "");
        assert_eq!(line, "xmhf: still building, 22 s");
    }

    #[test]
    fn a_silent_work_shows_that_it_lives() {
        let mut lines = Vec::new();
        let (reader, writer) = std::io::pipe().unwrap();
        thread::scope(|threads| {
            threads.spawn(move || {
                thread::sleep(PATIENCE + Duration::from_secs(1));
                drop(writer);
            });
            follow("building", reader, |line| lines.push(line.to_owned()), || false);
        });
        assert_eq!(lines, ["xmhf: building"]);
    }

    #[test]
    fn a_failure_names_the_work_and_a_request_ends_it() {
        let error = cargo("building", Command::new("sh").args(["-c", "exit 1"])).unwrap_err();
        assert!(error.to_string().starts_with("building: sh -c exit 1 failed"), "{error}");
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(follow("building", reader, |_| {}, || true));
    }
}
