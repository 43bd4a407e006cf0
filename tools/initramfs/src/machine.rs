//! What the kernel offers: file systems, the command line, CPUs, reset and power.

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::{fs, io};

const NO_DATA: Option<&str> = None;

/// The machine as the kernel shows it.
#[derive(Debug)]
pub(crate) struct Machine {
    command_line: String,
}

impl Machine {
    /// Mounts the kernel's file systems and reads the command line; what fails is reported and left out.
    pub(crate) fn prepare() -> Self {
        for (kind, path) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
            if let Err(why) = mount(Some(kind), path, Some(kind), MsFlags::empty(), NO_DATA) {
                println!("xmhf-guest: mount {path} failed: {why}");
            }
        }
        // The kernel's own lines would cut ours in two.
        if let Err(why) = fs::write("/proc/sys/kernel/printk", "1") {
            println!("xmhf-guest: kernel messages stay on: {why}");
        }
        Self { command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default() }
    }

    /// Names behind `xmhf.do=`, in their order.
    pub(crate) fn actions(&self) -> impl Iterator<Item = &str> {
        let list = self.command_line.split_whitespace().find_map(|word| word.strip_prefix("xmhf.do="));
        list.unwrap_or_default().split(',').filter(|name| !name.is_empty())
    }

    /// Numbers of the CPUs that run now.
    #[expect(clippy::unused_self, reason = "the file is there once the machine was prepared")]
    pub(crate) fn online_cpus(&self) -> Vec<usize> {
        parse_cpu_list(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default())
    }
}

/// Switches the machine off through ACPI; returns only where the kernel cannot.
pub(crate) fn power_off() {
    restart(RebootMode::RB_POWER_OFF);
}

/// Restarts the machine as the kernel thinks best; returns only where the kernel cannot.
pub(crate) fn reset() {
    restart(RebootMode::RB_AUTOBOOT);
}

fn restart(mode: RebootMode) {
    // The last lines wait in the UART's buffer.
    let _ = nix::sys::termios::tcdrain(io::stdout());
    let Err(why) = reboot(mode);
    println!("xmhf-guest: {mode:?} failed: {why}");
}

/// Numbers in a list as the kernel prints it, such as `0-2,5`.
fn parse_cpu_list(list: &str) -> Vec<usize> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_ranges_and_numbers() {
        assert_eq!(parse_cpu_list("0\n"), [0]);
        assert_eq!(parse_cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_cpu_list(""), [0usize; 0]);
    }

    #[test]
    fn actions_come_from_the_command_line() {
        let machine = Machine { command_line: "quiet xmhf.do=forkexec,,load root=/dev/sda".into() };
        assert_eq!(machine.actions().collect::<Vec<_>>(), ["forkexec", "load"]);
    }
}
