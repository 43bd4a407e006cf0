//! Links the programs without any library, and makes the PAL that one of them calls.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && let Err(why) = xmhf_pal_build::build(&["notary"])
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
