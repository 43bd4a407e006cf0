//! The command line of `tools/xmhf`.

use crate::toolchain::cargo;
use crate::{build, lint, process};
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// XMHF, a small hypervisor beneath one unmodified guest: build it, boot a guest under it, test and measure it.
#[derive(Debug, Parser)]
#[command(name = "tools/xmhf", arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Build the bootloader and every hypervisor image into target/xmhf/boot
    Build,
    /// Run tests: all of them, or one kind
    Test {
        /// Which tests
        #[arg(value_enum, default_value_t)]
        kind: TestKind,
    },
    /// Check format, compiler lints, documentation and the house rules
    Lint,
}

/// Kinds of test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TestKind {
    /// Everything
    #[default]
    All,
    /// Host tests, without an emulator
    Unit,
}

/// Does what the command line says.
///
/// # Errors
///
/// What went wrong, for the user.
pub fn execute(cli: &Cli) -> Result<()> {
    match &cli.command {
        Subcommands::Build => build::report(&build::build()?),
        Subcommands::Test { kind } => test(*kind),
        Subcommands::Lint => lint::run(),
    }
}

fn test(kind: TestKind) -> Result<()> {
    process::run(cargo().args(["test", "--quiet"]))?;
    if kind == TestKind::Unit {
        return Ok(());
    }
    lint::run()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn test_takes_a_kind() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        assert!(matches!(parse("xmhf test"), Ok(Subcommands::Test { kind: TestKind::All })));
        assert!(matches!(parse("xmhf test unit"), Ok(Subcommands::Test { kind: TestKind::Unit })));
        assert!(parse("xmhf test nonsense").is_err());
        assert!(parse("xmhf").is_err());
    }
}
