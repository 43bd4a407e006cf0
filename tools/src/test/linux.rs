//! Whole systems under the hypervisor: Linux with its actions, memtest86+, a boot sector in 16-bit code.

use super::job::{Job, Verdict};
use crate::guest::{Guest, LinuxOptions};
use crate::image::{self, ImageOptions, Multiboot};
use crate::machine::Quirks;
use crate::pal::Platform;
use crate::quote::console;
use crate::run::{RunOptions, run};
use crate::stage::Origin;
use crate::summary;
use crate::verdict::Outcome;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(900);

/// A system and the machine for it.
#[derive(Clone, Copy, Debug)]
struct System {
    name: &'static str,
    guest: fn() -> Guest,
    cpus: u32,
    hypapp: &'static str,
    /// What init does, with commas between.
    actions: &'static str,
    /// Words for the kernel.
    kernel: &'static str,
    /// Words that the hypervisor's console has to show.
    hypervisor: &'static str,
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
    kernel: "cryptomgr.notests",
    hypervisor: "",
    multiboot: Multiboot::One,
    image: false,
    seconds: 40,
};
const REBOOT: System = System { cpus: 2, actions: "reboot", seconds: 90, ..LINUX };
/// What the hypervisor says of the way that was taken.
const CF9: &str = "the guest ends: Port { port: 3321";
const KEYBOARD: &str = "the guest ends: Port { port: 100";
const TRIPLE_FAULT: &str = "the guest ends: TripleFault";
/// Linux with KVM, the guests of which are the guest's guests.
const NESTED: System = System { guest: || Guest::Kvm, seconds: 60, ..LINUX };
const SMALL: System = System { guest: || Guest::Mbr, seconds: 5, ..LINUX };

const PAL: System =
    System { hypapp: "trustvisor", hypervisor: "test hypercall, rcx=0x", seconds: 90, ..LINUX };
/// The PAL programs in guests of KVM.
const KVM_PAL: System = System { guest: || Guest::Kvm, ..PAL };
/// One boot does all of it.
const PAL_ACTIONS: &str = "pal_programs,pal_readme,pal_keep,pal_faults,pal_kill,pal_reuse,pal_loop,pal_fork,pal_exec,pal_unmap,\
                           pal_threads,pal_processes,pal_random,pal_notary,pal_notary32";

/// What the original's programs print where nobody else reads it.
const PROGRAMS_LINES: [&str; 4] =
    ["0 = vmcall(TV_HC_TEST, 5)", " 0xa = my_pal(0x7, ptr)", ".....................", "Test pass"];
/// A kernel of 32 bits, whose init does all that it can.
const PAL32: System = System {
    cpus: 2,
    actions: "pal_programs,pal_keep,pal_exit,pal_notary",
    hypervisor: "test hypercall, ecx=0x00000005",
    seconds: 60,
    ..PAL
};

const SYSTEMS: [System; 28] = [
    System { name: "linux-1-cpu", actions: "forkexec,program32", ..LINUX },
    System { name: "linux-2-cpus", cpus: 2, actions: "forkexec,load,program32", seconds: 60, ..LINUX },
    System { name: "linux-offline", cpus: 2, actions: "offline", seconds: 60, ..LINUX },
    System { name: "linux-suspend", cpus: 2, actions: "suspend", seconds: 60, ..LINUX },
    // Each way to reset a machine that Linux has on this one.
    System { name: "linux-reboot", kernel: "cryptomgr.notests reboot=pci", hypervisor: CF9, ..REBOOT },
    System { name: "linux-reboot-keyboard", hypervisor: KEYBOARD, ..REBOOT },
    System {
        name: "linux-reboot-triple-fault",
        kernel: "cryptomgr.notests reboot=triple",
        hypervisor: TRIPLE_FAULT,
        cpus: 1,
        ..REBOOT
    },
    System { name: "linux-helloworld", actions: "helloworld", hypervisor: "hello, world, from cpu", ..LINUX },
    System { name: "linux-quiesce", cpus: 2, hypapp: "quiesce", actions: "quiesce", seconds: 60, ..LINUX },
    System { name: "linux-verify", cpus: 2, hypapp: "verify", actions: "verify", seconds: 60, ..LINUX },
    System { name: "kvm-1-cpu", actions: "kvm", ..NESTED },
    System { name: "kvm-2-cpus", cpus: 2, actions: "kvm", seconds: 90, ..NESTED },
    System { name: "kvm-pal-1-cpu", actions: "kvm,kvm_pal", seconds: 90, ..KVM_PAL },
    System { name: "kvm-pal-2-cpus", cpus: 2, actions: "kvm,kvm_pal", seconds: 120, ..KVM_PAL },
    // Xen, whose first domain is its guest.
    System {
        name: "xen-pvh",
        guest: || Guest::Xen { pvh: true },
        actions: "xen,forkexec,program32",
        ..NESTED
    },
    System {
        name: "xen",
        cpus: 2,
        guest: || Guest::Xen { pvh: false },
        actions: "xen,forkexec,program32,pal_programs",
        ..PAL
    },
    System {
        name: "xen-pvh-pal",
        guest: || Guest::Xen { pvh: true },
        actions: "xen,forkexec,program32,pal_programs_l2",
        ..PAL
    },
    // The second hypervisor sums up on its guest's console.
    System { name: "xmhf-1-cpu", guest: || Guest::Xmhf, actions: "forkexec,program32", ..NESTED },
    System {
        name: "xmhf-2-cpus",
        cpus: 2,
        seconds: 90,
        guest: || Guest::Xmhf,
        actions: "forkexec,program32",
        ..NESTED
    },
    System { name: "linux-pal-1-cpu", actions: PAL_ACTIONS, ..PAL },
    System { name: "linux-pal-2-cpus", cpus: 2, actions: PAL_ACTIONS, seconds: 120, ..PAL },
    System { name: "linux-686-pal", guest: || Guest::Linux32 { pae: false }, ..PAL32 },
    System { name: "linux-686-pae-pal", guest: || Guest::Linux32 { pae: true }, ..PAL32 },
    // A CR3 for the kernel and one for the process.
    System {
        name: "linux-686-pae-pti-pal",
        guest: || Guest::Linux32 { pae: true },
        kernel: "cryptomgr.notests pti=on",
        ..PAL32
    },
    System { name: "memtest", guest: || Guest::Memtest, seconds: 120, ..LINUX },
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
        needs: None,
        work: Box::new(move |folder| test(&system, folder)),
    };
    SYSTEMS.into_iter().map(job).collect()
}

fn test(system: &System, folder: &Path) -> Result<Verdict> {
    let actions: Vec<String> = system.actions.split(',').map(str::to_owned).collect();
    let nonce = console::nonce();
    let arguments = format!("{} {}{nonce}", system.kernel, console::NONCE);
    let mut options = RunOptions {
        guest: (system.guest)(),
        linux: LinuxOptions { actions, arguments, ..LinuxOptions::default() },
        cpus: system.cpus,
        memory_mib: 512,
        // Bochs forgets to unlock IA32_FEATURE_CONTROL on the keyboard controller's reset, its BIOS dies of it,
        // and that triple fault has to be survived.
        quirks: Quirks { resets_on_triple_fault: system.actions == "reboot", ..Quirks::default() },
        hypapp: system.hypapp.into(),
        multiboot: system.multiboot,
        keep: Some(folder.to_path_buf()),
        patience: PATIENCE,
        quiet: true,
        ..RunOptions::default()
    };
    if system.image {
        options.hypervisor_disk = Some(image::write(&folder.join("image"), &ImageOptions::default())?);
    }
    let outcome = run(&options)?;
    let failure = failure(system, &outcome).or_else(|| quotes(system, &outcome, &nonce, folder));
    Ok(Verdict::of(failure, &outcome, &options))
}

/// What is wrong with the quotes of those systems that make some.
fn quotes(system: &System, outcome: &Outcome, nonce: &str, folder: &Path) -> Option<String> {
    if !system.actions.contains("pal_notary") {
        return None;
    }
    let is_32 = matches!((system.guest)(), Guest::Linux32 { .. });
    let platforms: &[Platform] = if is_32 { &[Platform::Linux32] } else { &Platform::LINUX };
    let wrong = |platform: &Platform| console::challenge(outcome, *platform, nonce, folder).err();
    platforms.iter().find_map(wrong).map(|why| format!("{why:#}"))
}

fn failure(system: &System, outcome: &Outcome) -> Option<String> {
    if let Some(why) = outcome.failure() {
        return Some(why);
    }
    let said = |words: &str| outcome.lines.iter().any(|(_, line)| line.contains(words));
    let actions = system.actions.split(',').filter(|action| !action.is_empty());
    let programs: &[&str] =
        if matches!((system.guest)(), Guest::Linux32 { .. }) { &PROGRAMS_LINES } else { &[] };
    let programs = programs.iter().map(|line| (*line).to_owned());
    let mut words = actions
        .map(|action| format!("xmhf-guest: {action} ok"))
        .chain([system.hypervisor.to_owned()])
        .chain(programs);
    if let Some(words) = words.find(|words| !said(words)) {
        return Some(format!("nobody printed `{words}`"));
    }
    let cpus = Some(u64::from(system.cpus));
    if !matches!((system.guest)(), Guest::Memtest | Guest::Mbr) && outcome.summary.guest_cpus != cpus {
        return Some(format!("Linux runs on {:?} CPUs", outcome.summary.guest_cpus));
    }
    let is_inner = |line: &str| line.starts_with("summary ") && line.contains("exit=\"CPUID\"");
    let tells = outcome.lines.iter().any(|(origin, line)| *origin == Origin::Guest && is_inner(line));
    if (system.guest)() == Guest::Xmhf && !tells {
        return Some("the second hypervisor does not sum up".into());
    }
    let nested = outcome.summary.nested_guests;
    if (system.guest)() == Guest::Kvm && Some(nested) != cpus {
        return Some(format!("{nested} guests of KVM came to their end"));
    }
    let levels = &outcome.summary.levels;
    let has_all = levels.len() == 3 && levels.values().all(|counts| counts.values().all(|&count| count > 0));
    if matches!((system.guest)(), Guest::Kvm | Guest::Xen { pvh: true }) && !has_all {
        return Some(format!("exits by level are {levels:?}"));
    }
    if let Guest::Xen { pvh } = (system.guest)()
        && let Some(why) = xen_failure(pvh, outcome)
    {
        return Some(why);
    }
    // memtest86+ never ends, so that nothing makes the hypervisor sum up.
    let silent =
        (system.guest)() != Guest::Memtest && outcome.summary.hypervisor.get("cpus").copied() != cpus;
    silent.then(|| format!("the hypervisor's summary does not tell of {}", summary::cpus(system.cpus)))
}

/// What Xen has to say, and what its first domain has to be.
fn xen_failure(pvh: bool, outcome: &Outcome) -> Option<String> {
    let lines = ["HVM: VMX enabled", "HVM: Hardware Assisted Paging (HAP) detected"];
    if let Some(line) = lines.iter().find(|line| !outcome.summary.xen.iter().any(|said| said == *line)) {
        return Some(format!("Xen does not say `{line}`"));
    }
    let kind = if pvh { "xen guest_type=\"PVH\"" } else { "xen guest_type=\"PV\"" };
    let said = |words: &str| outcome.lines.iter().any(|(_, line)| line.contains(words));
    [kind, "hvm-3.0-x86_64"]
        .into_iter()
        .find(|words| !said(words))
        .map(|words| format!("no domain says `{words}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
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
