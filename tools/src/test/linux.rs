//! Whole systems under the hypervisor: Linux with its actions, memtest86+, a boot sector in 16-bit code.

use super::job::{Job, Verdict};
use crate::guest::{Guest, LinuxOptions};
use crate::image::{self, ImageOptions, Multiboot};
use crate::run::{RunOptions, run};
use crate::verdict::Outcome;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(900);

/// A system and the machine for it.
#[derive(Clone, Copy, Debug)]
struct System {
    name: &'static str,
    guest: fn() -> Guest,
    cpus: u32,
    hypapp: &'static str,
    /// What init does, with commas between.
    actions: &'static str,
    multiboot: Multiboot,
    /// Whether the disk is the one that `tools/xmhf image` leaves.
    image: bool,
    /// Rough length in host seconds.
    seconds: u32,
}

const LINUX: System = System {
    name: "",
    guest: || Guest::Linux,
    cpus: 1,
    hypapp: "helloworld",
    actions: "",
    multiboot: Multiboot::One,
    image: false,
    seconds: 40,
};
const SMALL: System = System { guest: || Guest::Mbr, seconds: 5, ..LINUX };

const SYSTEMS: [System; 9] = [
    System { name: "linux-1-cpu", actions: "forkexec,program32", ..LINUX },
    System { name: "linux-2-cpus", cpus: 2, actions: "forkexec,load,program32", seconds: 60, ..LINUX },
    System { name: "linux-offline", cpus: 2, actions: "offline", seconds: 60, ..LINUX },
    System { name: "linux-reboot", actions: "reboot", seconds: 60, ..LINUX },
    System { name: "linux-reboot-2-cpus", cpus: 2, actions: "reboot", seconds: 90, ..LINUX },
    System { name: "memtest", guest: || Guest::Memtest, seconds: 20, ..LINUX },
    System { name: "mbr", ..SMALL },
    System { name: "multiboot2", multiboot: Multiboot::Two, ..SMALL },
    System { name: "image", image: true, ..SMALL },
];

/// One job for each system.
pub(super) fn jobs() -> Vec<Job> {
    let job = |system: System| Job {
        name: format!("run/{}", system.name),
        group: "linux",
        seconds: system.seconds,
        work: Box::new(move |folder| test(&system, folder)),
    };
    SYSTEMS.into_iter().map(job).collect()
}

fn test(system: &System, folder: &Path) -> Result<Verdict> {
    let actions: Vec<String> = system.actions.split(',').map(str::to_owned).collect();
    let mut options = RunOptions {
        guest: (system.guest)(),
        linux: LinuxOptions { actions, ..LinuxOptions::default() },
        cpus: system.cpus,
        memory_mib: 512,
        hypapp: system.hypapp.into(),
        multiboot: system.multiboot,
        keep: Some(folder.to_path_buf()),
        timeout: TIMEOUT,
        quiet: true,
        ..RunOptions::default()
    };
    if system.image {
        options.hypervisor_disk = Some(image::write(&folder.join("image"), &ImageOptions::default())?);
    }
    let outcome = run(&options)?;
    Ok(Verdict::of(failure(system, &outcome), &outcome, &options))
}

fn failure(system: &System, outcome: &Outcome) -> Option<String> {
    if let Some(why) = outcome.failure() {
        return Some(why);
    }
    let said = |words: &str| outcome.lines.iter().any(|(_, line)| line.contains(words));
    let actions = system.actions.split(',').filter(|action| !action.is_empty());
    let silent = actions.map(|action| format!("xmhf-guest: {action} ok")).find(|words| !said(words));
    if let Some(words) = silent {
        return Some(format!("the guest did not print `{words}`"));
    }
    let cpus = Some(u64::from(system.cpus));
    if (system.guest)() == Guest::Linux && outcome.summary.guest_cpus != cpus {
        return Some(format!("Linux runs on {:?} CPUs", outcome.summary.guest_cpus));
    }
    // memtest86+ never ends, so that nothing makes the hypervisor sum up.
    let silent =
        (system.guest)() != Guest::Memtest && outcome.summary.hypervisor.get("cpus").copied() != cpus;
    silent.then(|| format!("the hypervisor's summary does not tell of {} CPUs", system.cpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Origin;
    use crate::verdict::End;

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = SYSTEMS.iter().map(|system| system.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SYSTEMS.len());
    }

    #[test]
    fn every_action_and_cpu_has_to_show() {
        let system = System { cpus: 2, actions: "load,offline", ..LINUX };
        let why = |lines: &[&str], summary: &str| {
            let mut outcome = Outcome::new(false);
            outcome.read_line(Origin::Hypervisor, summary, false);
            lines.iter().for_each(|line| {
                outcome.read_line(Origin::Guest, line, false);
            });
            outcome.finish(End::Off, true, Duration::ZERO);
            failure(&system, &outcome)
        };
        let two = "xmhf-guest: userspace tsc=1 cpus=2";
        let good = [two, "xmhf-guest: load ok", "xmhf-guest: offline ok"];
        assert_eq!(why(&good, "summary cpus=2"), None);
        assert!(why(&good[..2], "summary cpus=2").unwrap().contains("offline ok"));
        assert!(why(&good, "summary cpus=1").is_some());
        let alone = ["xmhf-guest: userspace tsc=1 cpus=1", good[1], good[2]];
        assert!(why(&alone, "summary cpus=2").unwrap().contains("Some(1)"));
    }
}
