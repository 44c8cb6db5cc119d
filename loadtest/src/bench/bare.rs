//! The bare loop that a server is held against: the same bytes to as many sockets with one `send` call each, and nothing else. In a process
//! of its own, so that its CPU time is counted in the same way.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use common::{
    ids::{ChatId, MessageId, UserId},
    model::{Message, MessageKind},
    time::Millis,
    wire::{client::ServerFrame, codec::encode_server},
};

use super::frames::unmasked;
use crate::server_process::ServerProcess;

/// The frame of a message with a body of so many bytes, as its members are sent it.
fn sample(body_bytes: usize) -> Vec<u8> {
    let (chat, by, at) = (ChatId::random(), UserId::random(), Millis::now());
    let message = Message {
        id: MessageId::random(),
        chat,
        room_id: chat,
        number: 100_000,
        from: by,
        body: "x".repeat(body_bytes),
        kind: MessageKind::Text,
        created_at: at,
        edited_at: None,
        deleted: false,
        expired: false,
        reply_to: None,
        attachments: Vec::new(),
        reactions: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        client_id: None,
    };
    unmasked(encode_server(&ServerFrame::NewMessage { chat, seq: 100_000, at, by, message }).as_bytes())
}

/// What the process does: takes so many connections, and writes a round to all of them for each line that it reads, which says how many frames
/// at once.
///
/// # Errors
/// When a socket fails.
#[allow(clippy::print_stdout, reason = "this is how it is talked to")]
pub fn serve(sockets: usize, body_bytes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let sockets = (0..sockets).map(|_| -> std::io::Result<TcpStream> {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        Ok(socket)
    });
    let mut sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let frame = sample(body_bytes);
    for line in std::io::stdin().lock().lines() {
        let bytes = frame.repeat(line?.trim().parse()?);
        for socket in &mut sockets {
            socket.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// The process, from outside; ended when dropped.
#[derive(Debug)]
pub(super) struct Bare {
    child: Child,
    ask: ChildStdin,
    /// Where its sockets are.
    pub(super) url: String,
}

impl Bare {
    pub(super) fn start(sockets: usize, body_bytes: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bare", &sockets.to_string(), &body_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().context("no standard input")?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut address)?;
        ensure!(!address.is_empty(), "the bare loop did not start");
        Ok(Self { child, ask, url: format!("ws://{}/", address.trim()) })
    }

    /// Writes so many frames at once to every socket.
    pub(super) fn round(&mut self, frames: u32) -> std::io::Result<()> {
        self.ask.write_all(format!("{frames}\n").as_bytes())
    }

    pub(super) fn process(&self) -> anyhow::Result<ServerProcess> {
        ServerProcess::with_pid(self.child.id()).context("the bare loop has ended")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
