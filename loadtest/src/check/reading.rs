//! The final read: every message of a chat, by a fresh sign-in, into a file for the judge.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use common::ids::ChatId;

use crate::{
    client::{http::HttpError, rest::Session},
    journal::{Entry, Kept, Line, VERSION},
};

/// How often a history that is not complete is read again, a second apart: by what a cluster may need that was just killed.
pub const ATTEMPTS: u32 = 30;

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server did not give it.
    #[error("the history of chat {chat} cannot be read: {error}")]
    Server {
        /// Which chat.
        chat: ChatId,
        /// What was answered.
        error: HttpError,
    },
    /// It could not be written down.
    #[error("the history of chat {chat} cannot be written down: {error}")]
    File {
        /// Which chat.
        chat: ChatId,
        /// What happened.
        error: io::Error,
    },
}

/// Reads the chat's history as `reader`, up to `attempts` times, a second apart, until it is complete, and writes it to
/// `history-{chat}.jsonl` in `folder`.
///
/// # Errors
/// [`ReadError`].
pub async fn read_history(
    reader: &Session,
    chat: ChatId,
    folder: &Path,
    attempts: u32,
) -> Result<(), ReadError> {
    let mut attempt = 1;
    let whole = loop {
        let whole = reader.whole_history(chat).await.map_err(|error| ReadError::Server { chat, error })?;
        if whole.complete || attempt >= attempts {
            break whole;
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let head = Entry::History {
        version: VERSION,
        chat,
        reader: reader.user(),
        head: whole.head,
        complete: whole.complete,
    };
    let entries =
        std::iter::once(head).chain(whole.messages.iter().map(|message| Entry::Message(Kept::from(message))));
    write(&folder.join(format!("history-{chat}.jsonl")), entries)
        .map_err(|error| ReadError::File { chat, error })
}

pub(super) fn write(path: &Path, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for (n, entry) in (1..).zip(entries) {
        serde_json::to_writer(&mut out, &Line { n, at: 0, entry })?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
