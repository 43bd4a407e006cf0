//! The PAL programs on this machine, without any hypervisor.

use super::job::{Job, Verdict};
use crate::pal::{self, Platform};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const ABSENT: &str = "Error: TrustVisor not present according to CPUID\n";

/// A program's name and words that it takes.
const PROGRAMS: [(&str, &[&str]); 3] =
    [("test", &["5"]), ("main", &["7", "3"]), ("test_args", &["7", "7", "7"])];

/// One job for all programs.
pub(super) fn jobs() -> Vec<Job> {
    let scenario = Scenario { name: "pal-absent" };
    vec![Job { name: format!("run/{}", scenario.name), group: "linux", seconds: 5, work: Box::new(test) }]
}

struct Scenario {
    name: &'static str,
}

fn test(_: &Path) -> Result<Verdict> {
    for platform in Platform::LINUX {
        let files = pal::build(platform, false)?;
        for (program, arguments) in PROGRAMS {
            let Some((name, path)) =
                files.iter().find(|(name, _)| name.trim_end_matches(['3', '2', '6', '4']) == program)
            else {
                return Ok(Verdict::failed(format!("{program} was not built for {platform:?}")));
            };
            let output = Command::new(path).args(arguments).output()?;
            if output.status.code() != Some(1) || output.stdout != ABSENT.as_bytes() {
                return Ok(Verdict::failed(format!("{name} without TrustVisor: {output:?}")));
            }
        }
    }
    let example = Command::new(pal::c_example()?).output()?;
    let is_told = String::from_utf8_lossy(&example.stdout).starts_with(ABSENT.trim_end());
    if example.status.code() != Some(1) || !is_told {
        return Ok(Verdict::failed(format!("the example in C without TrustVisor: {example:?}")));
    }
    Ok(Verdict::Passed)
}
