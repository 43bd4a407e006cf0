//! Bits of the manual's registers have their names in `lib/x86`, once: no other part of the product defines a constant of a
//! single bit.

use super::{Finding, Source};

/// Where the manual's words are used. Formats of others (ACPI, Multiboot, XMHF's own) have their names where they are read,
/// in `lib/platform` and the like.
const USERS: [&str; 5] =
    ["runtime/src/", "bootloader/src/", "secureloader/src/", "lib/hw/src/", "hypapps/src/"];
/// Bits that no manual has: of formats that are the hypervisor's own, and of devices.
const OWN: [&str; 6] = [
    "runtime/src/reset/power_ports.rs",
    "runtime/src/log_limit.rs",
    "runtime/src/memory/plain_format.rs",
    "runtime/src/memory/protect.rs",
    "secureloader/src/console.rs",
    "lib/hw/src/sim/",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let is_user = USERS.iter().any(|place| source.path.starts_with(place));
    let is_own = OWN.iter().any(|place| source.path.starts_with(place));
    let is_test = source.path.ends_with("tests.rs") || source.path.contains("/model");
    if !source.is_rust() || !is_user || is_own || is_test {
        return Vec::new();
    }
    let product = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let bits = product.lines().enumerate().filter(|(_, line)| is_single_bit(line));
    let finding =
        |index: usize| source.finding(index + 1, "a bit of the manual's has its name in lib/x86, once");
    bits.map(|(index, _)| finding(index)).collect()
}

/// Whether `line` defines a number by one bit of it, such as `const LOCK: u64 = 1 << 0;`.
fn is_single_bit(line: &str) -> bool {
    let Some((declared, value)) = line.split_once(" = 1 << ") else { return false };
    let is_number =
        ["u8", "u16", "u32", "u64", "usize"].iter().any(|kind| declared.ends_with(&format!(": {kind}")));
    declared.contains("const ") && is_number && value.trim_end_matches(';').parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_with_a_name_elsewhere_is_found() {
        let text = "use x;\n    pub(super) const LOCK: u64 = 1 << 0;\nconst SIZE: u64 = 1 << ORDER;\n#[cfg(test)]\nconst T: u8 = 1 << 1;";
        let findings = check(&Source::new("runtime/src/exit/msr.rs", text));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].line, 2);
        for path in ["lib/x86/src/cr.rs", "runtime/src/exit/msr_tests.rs", "runtime/src/memory/protect.rs"] {
            assert!(check(&Source::new(path, text)).is_empty(), "{path}");
        }
    }
}
