//! Passes the runtime's linker script, for the bare target only.

fn main() {
    println!("cargo:rerun-if-changed=../linker.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Cargo links in the workspace's root; a relative path survives moving the tree.
    println!("cargo:rustc-link-arg-bins=-Tlinker.ld");
    // Its heap, beside what every image has.
    println!("cargo:rustc-link-arg-bin=trustvisor=--defsym=HEAP_BYTES=0x800000");
    for argument in [
        "-no-pie",
        "-nostdlib",
        "--gc-sections",
        "-zmax-page-size=0x1000",
        "-zseparate-code",
        "--build-id=none",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
