//! The runner as a process, with an emulator of this test's.

#![expect(clippy::unwrap_used, reason = "a test may stop where it is")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The runner, which Cargo builds before this test, two folders above it.
fn runner() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("xmhf")
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (emulator, number, disk) =
        (folder.path().join("emulator"), folder.path().join("number"), folder.path().join("disk.img"));
    fs::write(&emulator, format!("#!/bin/sh\necho $$ >'{}'\nexec sleep 600\n", number.display())).unwrap();
    fs::set_permissions(&emulator, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&disk, [0; 512]).unwrap();
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(runner());
    command
        .args(["run", "--bare", "--guest"])
        .arg(&disk)
        .env("XMHF_BOCHS", &emulator)
        .env("TMPDIR", &temporary);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the emulator starts", || fs::read_to_string(&number).is_ok_and(|text| text.ends_with('\n')));
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ended on request"), "{output:?}");
    assert_eq!(temporary.read_dir().unwrap().count(), 0);
    let process = PathBuf::from("/proc").join(fs::read_to_string(&number).unwrap().trim());
    wait_for("the emulator is gone", || !process.exists());
}

#[test]
fn figures_that_cannot_be_written_cost_no_run() {
    let mut command = Command::new(runner());
    command.args(["bench", "--json", "/nowhere/figures.json"]);
    let output = command.env("PATH", "").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("writing /nowhere/figures.json"), "{output:?}");
}
