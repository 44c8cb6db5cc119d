//! The `loadtest` command. See [`loadtest::cli`].

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{self, Cli};

fn main() -> std::io::Result<ExitCode> {
    let cli = Cli::parse();
    Ok(common::runtime::start()?.block_on(cli::run(cli)))
}
