//! Links the programs without any library, and makes the PALs that one of them calls.

use xmhf_pal_build::{Signing, build, build_signed};

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && let Err(why) = pals()
    {
        println!("cargo:warning={why:#}");
        std::process::exit(1);
    }
    let arguments: &[&str] = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => &["-no-pie", "-nostdlib", "--gc-sections", "--build-id=none", "-znognustack"],
        Ok("windows") => &["-nostartfiles", "-nostdlib", "-Wl,--gc-sections", "-lkernel32"],
        _ => &[],
    };
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}

/// Two versions of a signed one, by a key that everybody has: for a demonstration alone.
fn pals() -> xmhf_pal_build::Result<()> {
    let key = "pal/everybody.pem".as_ref();
    build(&["notary"])?;
    build_signed(&["till"], "", &Signing::new(key, 1, 1))?;
    build_signed(&["till2"], "", &Signing::new(key, 1, 2))
}
