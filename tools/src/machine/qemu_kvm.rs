//! QEMU on KVM, for processors with VMX whose KVM allows nesting (`kvm_intel nested=1`).
//!
//! Takes the same images as Bochs. It could not be tried where this was written, for want of such a processor:
//! only its command line is tested.

use super::{Machine, tethered};
use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;

const KVM: &str = "/dev/kvm";
const NESTED: &str = "/sys/module/kvm_intel/parameters/nested";

/// The command that runs `machine`.
///
/// # Errors
///
/// The machine at hand has no KVM, or its KVM does not give VMX to its guests.
pub(super) fn command(machine: &Machine<'_>) -> Result<Command> {
    ensure!(
        Path::new(KVM).exists(),
        "{KVM} is missing: qemu-kvm needs a processor with VMX switched on in the firmware, and the module \
         kvm_intel; --machine bochs runs anywhere"
    );
    let nested = std::fs::read_to_string(NESTED).unwrap_or_default();
    ensure!(
        matches!(nested.trim(), "Y" | "1"),
        "KVM gives no VMX to its guests here ({NESTED} is not Y): load kvm_intel with nested=1; --machine \
         bochs runs anywhere"
    );
    let mut command = tethered(Path::new("qemu-system-x86_64"));
    command.args(arguments(machine));
    Ok(command)
}

/// What QEMU says of its own failure; it prints nothing else.
pub(super) fn fault(output: &str) -> Option<String> {
    let text = output.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn arguments(machine: &Machine<'_>) -> Vec<String> {
    let model = machine.cpu_model.unwrap_or("host");
    let serial = |path: &Path| format!("file:{}", path.display());
    let mut arguments: Vec<String> =
        ["-enable-kvm", "-display", "none", "-monitor", "none", "-snapshot"].map(String::from).to_vec();
    arguments.extend(["-cpu".into(), format!("{model},+vmx"), "-smp".into(), machine.cpus.to_string()]);
    arguments.extend(["-m".into(), machine.memory_mib.to_string()]);
    for console in [machine.guest_console(), machine.hypervisor_console()] {
        arguments.extend(["-serial".into(), serial(&console)]);
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        // A comma in a value of this option is written twice.
        let path = disk.display().to_string().replace(',', ",,");
        arguments.extend(["-drive".into(), format!("file={path},format=raw,if=ide,index={index}")]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Quirks;
    use std::path::PathBuf;

    #[test]
    fn arguments_give_vmx_consoles_and_disks() {
        let disks = [PathBuf::from("/d/xmhf.img"), PathBuf::from("/d/a,b.img")];
        let machine = Machine {
            cpus: 4,
            memory_mib: 2048,
            cpu_model: None,
            disks: &disks,
            quirks: Quirks::default(),
            folder: Path::new("/run"),
            is_typed_at: false,
        };
        let line = arguments(&machine).join(" ");
        for words in [
            "-enable-kvm",
            "-cpu host,+vmx",
            "-smp 4",
            "-m 2048",
            "-serial file:/run/guest.log -serial file:/run/xmhf.log",
            "-drive file=/d/xmhf.img,format=raw,if=ide,index=0",
            "-drive file=/d/a,,b.img,format=raw,if=ide,index=1",
        ] {
            assert!(line.contains(words), "{words} in {line}");
        }
    }
}
