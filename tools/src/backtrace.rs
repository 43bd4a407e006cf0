//! The hypervisor's backtraces with the names of functions and source lines.

use crate::paths;
use crate::process::output;
use crate::stage::Origin;
use crate::verdict::Outcome;
use std::path::Path;
use std::process::Command;

/// What stands in front of a return address in the dump of a stop.
const MARK: &str = "backtrace 0x";

/// The backtrace that the hypervisor with this hypapp printed, one line each; none where it did not stop.
#[must_use]
pub fn of(outcome: &Outcome, hypapp: &str) -> Vec<String> {
    let elf = paths::elf().join(hypapp);
    addresses(&outcome.lines)
        .map(|address| format!("backtrace {address}  {}", place(&elf, address)))
        .collect()
}

fn addresses(lines: &[(Origin, String)]) -> impl Iterator<Item = &str> {
    let hypervisor = lines.iter().filter(|(origin, _)| *origin == Origin::Hypervisor);
    hypervisor.filter_map(|(_, line)| {
        let start = line.find(MARK)? + MARK.len() - 2;
        line[start..].split_whitespace().next()
    })
}

fn place(elf: &Path, address: &str) -> String {
    // Inlined callers come in lines of their own.
    let mut command = Command::new("addr2line");
    command.args(["--functions", "--demangle", "--pretty-print", "--inlines", "--exe"]).arg(elf).arg(address);
    let text = output(&mut command).unwrap_or_else(|why| why.to_string());
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_hypervisor_alone() {
        let lines = [
            (Origin::Hypervisor, "stop: runtime: broken".to_owned()),
            (Origin::Hypervisor, "cpu=0 backtrace 0xfffffffff8012345".to_owned()),
            (Origin::Guest, "backtrace 0x1".to_owned()),
        ];
        assert_eq!(addresses(&lines).collect::<Vec<_>>(), ["0xfffffffff8012345"]);
    }

    #[test]
    fn an_address_is_named_by_the_symbols() {
        let program = std::env::current_exe().unwrap();
        assert!(place(&program, "0x0").contains("??"), "{}", place(&program, "0x0"));
        assert!(place(Path::new("/nowhere"), "0x0").contains("addr2line"));
    }
}
