//! Makes the PALs that the actions call.

fn main() {
    if let Err(why) = xmhf_pal_build::build(&["keeper"]) {
        println!("cargo:warning={why:#}");
        std::process::exit(1);
    }
}
