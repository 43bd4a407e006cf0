//! `tools/xmhf demo`: Linux with TrustVisor, where a PAL keeps a secret from root, told step by step.

use crate::guest::{Guest, LinuxOptions};
use crate::pal::Platform;
use crate::quote::console;
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use crate::{backtrace, build};
use anyhow::{Result, bail};

/// What stands before each sentence on the guest's console.
pub(crate) const NARRATION: &str = "xmhf-guest: demo: ";
/// The hypapp that PALs need.
pub const HYPAPP: &str = "trustvisor";

/// What Linux does where it runs with TrustVisor: the demo, and the original's programs.
#[must_use]
pub fn actions() -> Vec<String> {
    ["pal_demo", "pal_notary", "pal_programs"].map(String::from).to_vec()
}

/// Builds, boots, shows the sentences as they come, and says how it went.
///
/// # Errors
///
/// The boot or a step of the demo failed.
pub fn demo() -> Result<()> {
    build::build_with(HYPAPP)?;
    println!("Booting Linux in an emulator, on two CPUs, with XMHF and TrustVisor beneath; a minute or two.");
    let nonce = console::nonce();
    let defaults = LinuxOptions::default();
    let arguments = format!("{} {}{nonce}", defaults.arguments, console::NONCE);
    let outcome = run(&RunOptions {
        guest: Guest::Linux,
        linux: LinuxOptions { actions: actions(), arguments, ..LinuxOptions::default() },
        cpus: 2,
        memory_mib: 512,
        hypapp: HYPAPP.into(),
        narration: Some(NARRATION),
        quiet: true,
        ..RunOptions::default()
    })?;
    if let Some(why) = failure(&outcome) {
        outcome.last_lines().iter().for_each(|(origin, line)| println!("{origin} {line}"));
        backtrace::of(&outcome, HYPAPP).iter().for_each(|line| println!("{line}"));
        bail!("{why}");
    }
    let folder = tempfile::tempdir()?;
    println!("- Here, outside, verify-quote checks it against the PAL's file and that number:");
    for line in console::verify(&outcome, Platform::Linux64, &nonce, folder.path())? {
        println!("-   {line}");
    }
    println!("The original's programs test, main and test_args pass too, with 64 and 32 bits.");
    println!("Done in {:.0} s.", outcome.elapsed.as_secs_f64());
    Ok(())
}

fn failure(outcome: &Outcome) -> Option<String> {
    if let Some(why) = outcome.failure() {
        return Some(why);
    }
    let is_ok = |action: &String| {
        let words = format!("xmhf-guest: {action} ok");
        outcome.lines.iter().any(|(_, line)| line.contains(&words))
    };
    actions().iter().find(|action| !is_ok(action)).map(|action| format!("{action} did not succeed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Origin;
    use crate::verdict::End;
    use std::time::Duration;

    #[test]
    fn every_part_has_to_succeed() {
        let why = |lines: &[&str]| {
            let mut outcome = Outcome::new(false);
            lines.iter().for_each(|line| {
                outcome.read_line(Origin::Guest, line, false);
            });
            outcome.finish(End::Off, true, Duration::ZERO);
            failure(&outcome)
        };
        let good = ["xmhf-guest: pal_demo ok", "xmhf-guest: pal_notary ok", "xmhf-guest: pal_programs ok"];
        assert_eq!(why(&good), None);
        assert!(why(&good[..2]).unwrap().contains("pal_programs"));
        let failed = ["xmhf-guest: pal_demo failed: seen", good[1], good[2]];
        assert!(why(&failed).unwrap().contains("seen"));
    }
}
