//! Passes the linker script, for the bare target only: on the host this package is a library with tests.

fn main() {
    println!("cargo:rerun-if-changed=linker.ld");
    println!("cargo:rerun-if-changed=src/entry.S");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Cargo links in the workspace's root; a relative path survives moving the tree.
    println!("cargo:rustc-link-arg-bins=-Tsecureloader/linker.ld");
    for argument in ["-no-pie", "-nostdlib", "--gc-sections", "-zmax-page-size=0x1000", "--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
