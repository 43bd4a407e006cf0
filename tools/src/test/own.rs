//! What a user of `tools/xmhf run` brings: a file, a command, words for the bootloader.

use super::job::{Job, Verdict};
use crate::guest::{Guest, LinuxOptions};
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use anyhow::Result;
use std::fs;
use std::path::Path;

struct Scenario {
    name: &'static str,
}

const SCENARIO: Scenario = Scenario { name: "linux-own-things" };

/// One job.
pub(super) fn jobs() -> Vec<Job> {
    let name = format!("run/{}", SCENARIO.name);
    vec![Job { name, group: "linux", seconds: 40, needs: None, work: Box::new(test) }]
}

fn test(folder: &Path) -> Result<Verdict> {
    fs::create_dir_all(folder)?;
    let program = folder.join("my program");
    fs::write(&program, "#!/bin/sh\necho $((6 * 7)) of $1\n")?;
    let options = RunOptions {
        guest: Guest::Linux,
        linux: LinuxOptions {
            actions: vec![LinuxOptions::EXEC.into()],
            added: vec![program],
            command: Some("sh './my program' mine; grep -c hypervisor /proc/cpuinfo".into()),
            ..LinuxOptions::default()
        },
        cpus: 1,
        memory_mib: 512,
        arguments: "hypervisor_bit=on".into(),
        keep: Some(folder.to_path_buf()),
        quiet: true,
        ..RunOptions::default()
    };
    let outcome = run(&options)?;
    let said =
        |words: &str| outcome.lines.iter().any(|(origin, line)| *origin == Origin::Guest && line == words);
    let missing = ["42 of mine", "1", "xmhf-guest: exec ok"].into_iter().find(|words| !said(words));
    let why = outcome.failure().or_else(|| missing.map(|words| format!("nobody printed `{words}`")));
    Ok(Verdict::of(why, &outcome, &options))
}
