//! `storage-writer`: drains the log into the store.

use std::process::ExitCode;

use storage_writer::program::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::program::main::<Settings>()
}
