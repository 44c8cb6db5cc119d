//! `dispatcher`: says which node serves whom, forwards frames between nodes, and is the cluster's one address.

use std::process::ExitCode;

use dispatcher::program::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::program::main::<Settings>()
}
