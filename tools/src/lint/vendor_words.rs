//! Neutral folders of the runtime never import a vendor's: what they decide holds for any processor.

use super::{Finding, Source};

const NEUTRAL: [&str; 5] = [
    "runtime/src/exit/",
    "runtime/src/memory/",
    "runtime/src/smp/",
    "runtime/src/dma/",
    "runtime/src/hypapp.rs",
];
const VENDORS: [&str; 2] = ["vmx", "svm"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || !NEUTRAL.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let bad = lines.filter(|(_, line)| names_vendor(code_of(line)));
    bad.map(|(index, _)| source.finding(index + 1, "a neutral file names a vendor's module")).collect()
}

/// The line without its comment.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Whether a path in `code` has a vendor's module as one of its parts.
fn names_vendor(code: &str) -> bool {
    let in_use = code.trim_start().trim_start_matches("pub ").starts_with("use ");
    let word = |c: char| c.is_alphanumeric() || c == '_';
    VENDORS.iter().any(|vendor| {
        code.match_indices(vendor).any(|(at, _)| {
            let (before, after) = (&code[..at], &code[at + vendor.len()..]);
            let whole = !before.ends_with(word) && !after.starts_with(word);
            whole && (in_use || before.ends_with("::") || after.starts_with("::"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn imports_and_paths_are_found() {
        let neutral = "runtime/src/exit/cpuid.rs";
        assert_eq!(findings(neutral, "use crate::vmx::enable;\n"), 1);
        assert_eq!(findings(neutral, "use x86::{cr, vmx};\n"), 1);
        assert_eq!(findings(neutral, "let f = x86::vmx::vmcs::GUEST_RIP;\n"), 1);
        assert_eq!(findings("runtime/src/hypapp.rs", "use crate::svm::vmcb;\n"), 1);
    }

    #[test]
    fn words_in_comments_and_names_are_not() {
        let neutral = "runtime/src/smp/quiesce.rs";
        assert_eq!(findings(neutral, "// see vmx::enable\nlet vmxe = 1; let has_vmx = true;\n"), 0);
        assert_eq!(findings(neutral, "let vmx = cpuid.vmx;\n"), 0);
    }

    #[test]
    fn the_vendors_own_folder_may() {
        assert_eq!(findings("runtime/src/vmx/vcpu.rs", "use x86::vmx::vmcs;\n"), 0);
    }
}
