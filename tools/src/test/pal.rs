//! The PAL programs on this machine, without any hypervisor.

use super::job::{Job, Verdict};
use crate::pal::{self, Platform};
use crate::sdk_example::{self, Example};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

const ABSENT: &str = "Error: TrustVisor not present according to CPUID\n";

/// A program's name and words that it takes.
const PROGRAMS: [(&str, &[&str]); 3] =
    [("test", &["5"]), ("main", &["7", "3"]), ("test_args", &["7", "7", "7"])];

/// Tests that boot nothing, and need no images for it.
pub(super) const GROUP: &str = "programs";

/// One job for all programs.
pub(super) fn jobs() -> Vec<Job> {
    let job = |scenario: Scenario| Job {
        name: format!("run/{}", scenario.name),
        group: GROUP,
        seconds: 5,
        needs: None,
        work: Box::new(scenario.work),
    };
    SCENARIOS.map(job).into()
}

const ABSENCE: Scenario = Scenario { name: "pal-absent", work: test };
const WINDOWS: Scenario = Scenario { name: "pal-windows", work: windows };
const SCENARIOS: [Scenario; 2] = [ABSENCE, WINDOWS];

struct Scenario {
    name: &'static str,
    work: fn(&Path) -> Result<Verdict>,
}

/// The machines of programs for Windows (Microsoft, "PE Format": "Machine Types").
const MACHINES: [(Platform, u16); 2] = [(Platform::Windows64, 0x8664), (Platform::Windows32, 0x14c)];

/// The programs for Windows are built, and are what they are called.
fn windows(_: &Path) -> Result<Verdict> {
    for (platform, machine) in MACHINES {
        for level_2 in [true, false] {
            let files = pal::build(platform, level_2)?;
            let bits = if platform == Platform::Windows64 { "64" } else { "32" };
            for (program, _) in PROGRAMS {
                let name = format!("{program}{bits}{}.exe", if level_2 { "L2" } else { "" });
                let Some((_, path)) = files.iter().find(|(file, _)| *file == name) else {
                    return Ok(Verdict::failed(format!("{name} was not built")));
                };
                if machine_of(&std::fs::read(path)?) != Some(machine) {
                    return Ok(Verdict::failed(format!("{name} is not for that Windows")));
                }
            }
        }
    }
    Ok(Verdict::Passed)
}

/// The machine that a program for Windows is for (Microsoft, "PE Format": "COFF File Header").
fn machine_of(file: &[u8]) -> Option<u16> {
    let start = usize::try_from(u32::from_le_bytes(file.get(0x3c..0x40)?.try_into().ok()?)).ok()?;
    let header = file.get(start..start + 6)?;
    (file.starts_with(b"MZ") && header.starts_with(b"PE\0\0"))
        .then(|| u16::from_le_bytes([header[4], header[5]]))
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
    let c = Command::new(sdk_example::c()?).output()?;
    let is_told = String::from_utf8_lossy(&c.stdout).starts_with(ABSENT.trim_end());
    if c.status.code() != Some(1) || !is_told {
        return Ok(Verdict::failed(format!("the example in C without TrustVisor: {c:?}")));
    }
    for example in [Example::Alone, Example::WithCrates] {
        let rust = Command::new(sdk_example::rust(example)?).output()?;
        // What `main` returns is written to standard error.
        let is_told = String::from_utf8_lossy(&rust.stderr).starts_with(ABSENT.trim_end());
        if rust.status.code() != Some(1) || !is_told {
            return Ok(Verdict::failed(format!("{example:?} in Rust without TrustVisor: {rust:?}")));
        }
    }
    Ok(Verdict::Passed)
}
