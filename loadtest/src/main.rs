//! The `loadtest` command. See [`loadtest::cli`].

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
