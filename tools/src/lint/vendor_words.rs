//! The runtime never imports a vendor's modules: what it decides holds for any processor, and calls the vendor by its
//! contract.

use super::{Finding, Source};

const RUNTIME: &str = "runtime/src/";
/// The vendor's folder, the contract that it keeps, and the root of the modules.
const VENDORS_OWN: [&str; 3] = ["runtime/src/vmx/", "runtime/src/vendor.rs", "runtime/src/lib.rs"];
const VENDORS: [&str; 2] = ["vmx", "svm"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let is_neutral =
        source.path.starts_with(RUNTIME) && !VENDORS_OWN.iter().any(|place| source.path.starts_with(place));
    if !source.is_rust() || !is_neutral {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    let bad = lines.filter(|(_, line)| names_vendor(code_of(line)));
    let finding = |index| source.finding(index + 1, "a neutral file names a vendor's module");
    bad.map(|(index, _)| finding(index)).collect()
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
        for path in ["runtime/src/hypapp.rs", "runtime/src/dma.rs", "runtime/src/a_new_file.rs"] {
            assert_eq!(findings(path, "use crate::svm::vmcb;\n"), 1, "{path}");
        }
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
        assert_eq!(findings("runtime/src/vendor.rs", "use crate::vmx::SecondLevelFormat;\n"), 0);
    }
}
