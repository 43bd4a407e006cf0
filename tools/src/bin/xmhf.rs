//! The runner's entry; see the library.

use clap::Parser;
use std::process::ExitCode;
use tools::cli::{Cli, execute};
use tools::interrupt;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match interrupt::catch().and_then(|()| execute(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if interrupt::is_requested() { interrupt::EXIT_CODE.into() } else { ExitCode::FAILURE }
        }
    }
}
