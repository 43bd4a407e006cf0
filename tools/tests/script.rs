//! `tools/xmhf` itself, the shell script: what it answers alone, what it says is missing, which tree it builds.
//!
//! It runs in a folder that holds a few files of the tree, and finds no program but those that a test gives it.

#![expect(clippy::unwrap_used, reason = "a test may stop where it is")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the script takes from a Debian without anything installed.
const SYSTEM: [&str; 16] = [
    "basename", "cat", "cut", "dirname", "env", "grep", "head", "ln", "mkdir", "readlink", "rm", "sed", "sh",
    "sort", "timeout", "uname",
];
/// Programs that are there where a tree can be built; each does nothing.
const TOOLS: [&str; 6] = ["cc", "strip", "grub-mkimage", "setpriv", "ld.lld", "apt-cache"];

/// A tree, with blanks in its path, and the programs on its machine.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        let from = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..");
        fs::create_dir_all(tree.root().join("tools/help")).unwrap();
        fs::create_dir_all(tree.programs()).unwrap();
        for name in ["Cargo.toml", "rust-toolchain.toml", "tools/xmhf"] {
            fs::copy(from.join(name), tree.root().join(name)).unwrap();
        }
        for entry in from.join("tools/help").read_dir().unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), tree.root().join("tools/help").join(entry.file_name())).unwrap();
        }
        for name in SYSTEM {
            let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
            symlink(found.iter().find(|path| path.exists()).unwrap(), tree.programs().join(name)).unwrap();
        }
        tree
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("a tree")
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    /// Adds a program that writes its call to `calls` and then does `does`.
    fn program(&self, name: &str, does: &str) {
        let path = self.programs().join(name);
        let calls = self.folder.path().join("calls");
        fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >>'{}'\n{does}\n", calls.display())).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds what a build takes: a toolchain, and a Cargo that makes a runner which says what it is told.
    fn with_toolchain(self) -> Self {
        TOOLS.iter().for_each(|name| self.program(name, ""));
        let library = self.folder.path().join("lib/rustlib/src/rust/library/core");
        fs::create_dir_all(&library).unwrap();
        fs::write(library.join("Cargo.toml"), "").unwrap();
        let sysroot = self.folder.path().display();
        let version = "case $1 in --version) echo rustc 1.99.0;; *) echo";
        self.program("rustc", &format!("{version} '{sysroot}';; esac"));
        let runner = "mkdir -p target/debug; { echo '#!/bin/sh'; echo 'echo \"root=$XMHF_ROOT\" \"$@\"'; } \
                      >target/debug/xmhf; /bin/chmod +x target/debug/xmhf";
        self.program("cargo", &format!("case $1 in build) {runner};; esac"));
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.root().join("tools/xmhf"));
        command.args(arguments).env_clear().env("PATH", self.programs()).env("HOME", self.folder.path());
        command.output().unwrap()
    }

    /// Programs that were called, with their words.
    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_and_version_need_nothing() {
    let tree = Tree::new();
    for arguments in
        [&["--help"][..], &["help"], &["run", "--help"], &["help", "run"], &["run", "--bare", "-h"]]
    {
        let output = tree.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let is_of_run = text(&output.stdout).contains("Usage: tools/xmhf run ");
        assert_eq!(is_of_run, arguments.contains(&"run"), "{arguments:?}: {output:?}");
    }
    assert_eq!(text(&tree.run(&["--version"]).stdout), format!("xmhf {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(tree.run(&[]).status.code(), Some(2));
    assert_eq!(tree.calls(), "");
}

#[test]
fn a_misspelt_command_is_answered_with_those_there_are() {
    let tree = Tree::new().with_toolchain();
    for command in ["tset", "../help/run", "--bare"] {
        let output = tree.run(&[command]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(command) && said.contains("tools/xmhf verify-quote"), "{said}");
    }
    assert_eq!(tree.calls(), "");
}

#[test]
fn misspelt_options_install_and_build_nothing() {
    let tree = Tree::new().with_toolchain();
    for (arguments, wrong) in [
        (&["coverage", "extra"][..], "extra"),
        (&["lint", "--fix"], "--fix"),
        (&["run", "disk.img"], "disk.img"),
        (&["run", "--hypap=x"], "--hypap"),
        (&["run", "--args", "--guest", "--cpu", "2"], "--cpu"),
        (&["run", "--args=x", "--bare", "x"], "'x'"),
    ] {
        let output = tree.run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wrong) && said.contains("--help"), "{arguments:?}: {said}");
    }
    assert_eq!(tree.calls(), "");
    for arguments in
        [&["verify-quote", "--nonce", "--x", "--pcr=1=2"][..], &["mutants", "pals", "--shard=1/2"]]
    {
        assert!(tree.run(arguments).status.success(), "{arguments:?}");
    }
}

#[test]
fn a_copied_tree_is_built_and_used_itself() {
    let tree = Tree::new().with_toolchain();
    let output = tree.run(&["test", "unit", "--junit", "a b"]);
    assert_eq!(
        text(&output.stdout),
        format!("root={} test unit --junit a b\n", tree.root().display()),
        "{output:?}"
    );
    assert!(tree.calls().contains("cargo build --package xmhf-tools"), "{}", tree.calls());
}

#[test]
fn cargo_is_not_silenced_for_it_may_have_to_wait() {
    let tree = Tree::new().with_toolchain();
    // The first build and those behind it.
    for _ in 0..2 {
        tree.run(&["lint"]);
    }
    assert_eq!(tree.calls().matches("cargo build").count(), 2);
    assert!(!tree.calls().contains("quiet"), "{}", tree.calls());
}

#[test]
fn without_root_all_that_is_missing_is_named_with_a_command() {
    let tree = Tree::new();
    for (name, does) in [("apt-get", ""), ("apt-cache", "echo found"), ("id", "echo 1000")] {
        tree.program(name, does);
    }
    let output = tree.run(&["run", "--machine", "qemu-kvm"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for what in ["C compiler", "binutils", "Rust compiler", "linker for the images", "GRUB's tools", "QEMU"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    let command = said.lines().last().unwrap();
    assert!(command.contains("apt-get install -y --no-install-recommends gcc"), "{said}");
    assert!(command.contains(" binutils") && command.contains(" qemu-system-x86"), "{said}");
    assert!(!tree.calls().contains("install") && !tree.calls().contains("update"), "{}", tree.calls());
}

#[test]
fn a_failed_installation_ends_with_what_to_do() {
    let tree = Tree::new();
    let apt = "case \"$*\" in *install*) echo E: Temporary failure resolving >&2; exit 100;; esac";
    for (name, does) in [("apt-get", apt), ("apt-cache", "echo found"), ("id", "echo 0")] {
        tree.program(name, does);
    }
    let output = tree.run(&["test", "unit"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("without a network") && last.contains(" gcc"), "{said}");
    assert!(!tree.calls().contains("cargo"), "{}", tree.calls());
}

#[test]
fn on_a_foreign_system_all_that_is_missing_is_named() {
    let tree = Tree::new();
    let output = tree.run(&["run"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("C compiler") && said.contains("GRUB's tools"), "{said}");
}

#[test]
fn a_first_build_without_room_is_refused_with_figures() {
    let table = |free_kib: u32| {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on";
        format!("echo '{head}'; echo '/dev/a disk 264212084   95 {free_kib}     100% /a b'")
    };
    let tree = Tree::new().with_toolchain();
    tree.program("df", &table(7499 * 1024));
    let output = tree.run(&["lint"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("7499 MiB free") && said.contains("CARGO_TARGET_DIR"), "{said}");
    assert!(!tree.calls().contains("cargo build"), "{}", tree.calls());
    for free in [7500 * 1024, 0] {
        // Built once, the tree has what it needs.
        tree.program("df", &table(free));
        assert!(tree.run(&["lint"]).status.success());
    }
}

/// What the hook for commit messages says of one; nothing where it is well formed.
fn refusal(message: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("message");
    fs::write(&file, message).unwrap();
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let output = Command::new(package.join("hooks/commit-msg")).arg(file).output().unwrap();
    (!output.status.success()).then(|| text(&output.stderr))
}

#[test]
fn the_hook_wants_a_component_a_short_summary_and_a_reason() {
    for good in [
        "vmx: load what is told\n\nIt was lost before.\n",
        "lib/x86, guest: name bits once\n\nWhy.\n# a comment\n",
        "# comment first\ndocs: say it\n\nBecause.\n",
        "Merge branch 'x'\n",
    ] {
        assert_eq!(refusal(good), None, "{good}");
    }
    let long = format!("vmx: {}\n\nWhy.\n", "x".repeat(68));
    for (bad, why) in [
        ("Load what is told\n\nWhy.\n", "component"),
        (&long, "72"),
        ("vmx: load.\n\nWhy.\n", "full stop"),
        ("vmx: load\nWhy.\n", "second line"),
        ("vmx: load\n", "body"),
        ("vmx: load\n\nSigned-off-by: A <a@b>\n", "body"),
    ] {
        assert!(refusal(bad).is_some_and(|text| text.contains(why)), "{bad}: {:?}", refusal(bad));
    }
}
