//! The runner behind `tools/xmhf`: builds the images, makes disks, runs guests, tests and measures.
//!
//! [`cli`] names the subcommands; [`build`] leaves the images in [`paths::boot`]; [`lint`] holds the house
//! rules that no compiler knows.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may stop where it is"))]

mod acm;
pub mod backtrace;
pub mod bare_guest;
pub mod bench;
pub mod book;
pub mod build;
pub mod cli;
pub mod console;
pub mod coverage;
pub mod demo;
mod devices;
pub mod disk;
pub mod doc;
pub mod grub;
pub mod guest;
pub mod image;
mod installed;
pub mod interrupt;
pub mod lint;
pub mod machine;
pub mod mutants;
pub mod output;
pub mod pack;
pub mod pal;
pub mod paths;
pub mod process;
pub mod progress;
pub mod quote;
pub mod run;
mod run_arguments;
pub mod sdk_example;
mod sign;
pub mod stage;
pub mod summary;
pub mod test;
pub mod toolchain;
pub mod verdict;
