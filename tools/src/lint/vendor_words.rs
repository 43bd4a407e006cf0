//! The runtime never imports a vendor's modules, nor speaks a vendor's words in its comments: what it decides holds for any
//! processor, and calls the vendor by its contract.

use super::{Finding, Source};

const RUNTIME: &str = "runtime/src/";
/// The vendor's folder, the contract that it keeps, and the root of the modules.
const VENDORS_OWN: [&str; 3] = ["runtime/src/vmx/", "runtime/src/vendor.rs", "runtime/src/lib.rs"];
const VENDORS: [&str; 2] = ["vmx", "svm"];
/// What only one vendor's manual calls so.
const WORDS: [&str; 10] =
    ["VMX", "VMXON", "VMXOFF", "VMCS", "VMCSs", "EPT", "INVEPT", "INVVPID", "VPID", "VMCB"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let is_neutral =
        source.path.starts_with(RUNTIME) && !VENDORS_OWN.iter().any(|place| source.path.starts_with(place));
    if !source.is_rust() || !is_neutral {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    lines.filter_map(|(index, line)| Some(source.finding(index + 1, what_is_wrong(line)?))).collect()
}

fn what_is_wrong(line: &str) -> Option<&'static str> {
    if names_vendor(code_of(line)) {
        return Some("a neutral file names a vendor's module");
    }
    let comment = &line[code_of(line).len()..];
    let mut words = comment.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| WORDS.contains(&word)).then_some("a neutral file speaks a vendor's words")
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
    fn names_that_only_contain_a_vendor_are_not() {
        let neutral = "runtime/src/smp/quiesce.rs";
        assert_eq!(findings(neutral, "// see vmx::enable\nlet vmxe = 1; let has_vmx = true;\n"), 0);
        assert_eq!(findings(neutral, "let vmx = cpuid.vmx;\nlet bit = Leaf1Ecx::VMX;\n"), 0);
    }

    #[test]
    fn a_vendors_words_are_found_in_comments() {
        let neutral = "runtime/src/smp/quiesce.rs";
        assert_eq!(findings(neutral, "/// The VMCS of this CPU.\nlet a = 1; // an EPT entry\n"), 2);
        assert_eq!(findings(neutral, "/// CR4.VMXE, IA32_VMX_BASIC and VMCALL; accept.\n"), 0);
        assert_eq!(findings("runtime/src/vendor.rs", "/// A VMCS.\n"), 0);
    }

    #[test]
    fn the_vendors_own_folder_may() {
        assert_eq!(findings("runtime/src/vmx/vcpu.rs", "use x86::vmx::vmcs;\n"), 0);
        assert_eq!(findings("runtime/src/vendor.rs", "use crate::vmx::SecondLevelFormat;\n"), 0);
    }
}
