//! `chat-node`: holds the sockets of its users, runs the REST API, and decides for the chats it owns.

use std::process::ExitCode;

use chat_node::program::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::program::main::<Settings>()
}
