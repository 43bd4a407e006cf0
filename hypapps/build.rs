//! Passes the runtime's linker script, for the bare target only.

fn main() {
    println!("cargo:rerun-if-changed=../linker.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Cargo links in the workspace's root; a relative path survives moving the tree.
    println!("cargo:rustc-link-arg-bins=-Tlinker.ld");
    // Its heap of 8 MiB, and 4 MiB of frames for tables of small pages, beside what every image has.
    println!("cargo:rustc-link-arg-bin=trustvisor=--defsym=HYPAPP_BYTES=0xc00000");
    // And 32 frames for what each CPU has of a PAL.
    println!("cargo:rustc-link-arg-bin=trustvisor=--defsym=HYPAPP_BYTES_PER_CPU=0x20000");
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
