//! The bootloader's image. On the host this is only a reminder that the image is a bare-metal one.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boot;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the bootloader runs on bare metal; build it with tools/xmhf build");
}
