//! Journals read back from their files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use common::ids::{ChatId, UserId};

use crate::journal::{Entry, Line, VERSION};

/// The longest line that is read: a group with 1,000 members in it has 36 KiB.
const LINE_BYTES: u64 = 4 << 20;

/// Why the files cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableJournal {
    /// The file system said no.
    #[error("{file}: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What happened.
        error: io::Error,
    },
    /// A line is not one of a journal.
    #[error("{file}:{line}: {why}")]
    Line {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// What one device did and saw.
#[derive(Clone, Debug)]
pub struct DeviceJournal {
    /// The file's name.
    pub file: String,
    /// Whose device it was.
    pub user: UserId,
    /// Which clock its times are of.
    pub clock: u64,
    /// Its lines; the first one is line 1 of the file.
    pub lines: Vec<Line>,
}

/// One chat as it was read in the end.
#[derive(Clone, Debug)]
pub struct HistoryJournal {
    /// The file's name.
    pub file: String,
    /// Which chat.
    pub chat: ChatId,
    /// Its lines; the first one is the head.
    pub lines: Vec<Line>,
}

/// What was done to the cluster, by one who did it.
#[derive(Clone, Debug)]
pub struct FaultJournal {
    /// The file's name.
    pub file: String,
    /// Which clock its times are of.
    pub clock: u64,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// What log and store held when nothing moved any more.
#[derive(Clone, Debug)]
pub struct RestJournal {
    /// The file's name.
    pub file: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// Everything the judge knows.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// One for each device.
    pub devices: Vec<DeviceJournal>,
    /// One for each chat and reader.
    pub histories: Vec<HistoryJournal>,
    /// One for each who did something to the cluster.
    pub faults: Vec<FaultJournal>,
    /// Log and store at rest, if somebody looked.
    pub rest: Vec<RestJournal>,
}

impl Journals {
    /// Every `*.jsonl` in a folder.
    ///
    /// # Errors
    /// [`UnreadableJournal`]: a journal with a hole proves nothing, so one bad line is enough.
    pub fn read(folder: &Path) -> Result<Self, UnreadableJournal> {
        let io_error = |error| UnreadableJournal::Io { file: folder.display().to_string(), error };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                names.push(path);
            }
        }
        names.sort();
        let mut journals = Self::default();
        for path in names {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read =
                File::open(&path).map_err(|error| UnreadableJournal::Io { file: file.clone(), error })?;
            journals.add(file, BufReader::new(read))?;
        }
        Ok(journals)
    }

    /// Adds one file's lines.
    ///
    /// # Errors
    /// [`UnreadableJournal`].
    pub fn add(&mut self, file: String, read: impl BufRead) -> Result<(), UnreadableJournal> {
        let lines = lines(&file, read)?;
        self.add_lines(file, lines)
    }

    /// Adds lines that are at hand.
    ///
    /// # Errors
    /// [`UnreadableJournal`] when they do not begin as a journal begins.
    pub fn add_lines(&mut self, file: String, lines: Vec<Line>) -> Result<(), UnreadableJournal> {
        match lines.first().map(|line| &line.entry) {
            Some(&Entry::Device { version: VERSION, user, clock, .. }) => {
                self.devices.push(DeviceJournal { file, user, clock, lines });
            }
            Some(&Entry::History { version: VERSION, chat, .. }) => {
                self.histories.push(HistoryJournal { file, chat, lines });
            }
            Some(&Entry::Faults { version: VERSION, clock }) => {
                self.faults.push(FaultJournal { file, clock, lines });
            }
            Some(&Entry::AtRest { version: VERSION }) => self.rest.push(RestJournal { file, lines }),
            Some(_) => {
                let why = "does not begin as a journal of this version does".to_owned();
                return Err(UnreadableJournal::Line { file, line: 1, why });
            }
            // A process that was killed before its first line was written out.
            None => {}
        }
        Ok(())
    }
}

fn lines(file: &str, mut read: impl BufRead) -> Result<Vec<Line>, UnreadableJournal> {
    let mut lines = Vec::new();
    let mut text = String::new();
    loop {
        text.clear();
        let taken = io::Read::take(&mut read, LINE_BYTES).read_line(&mut text);
        match taken {
            Ok(0) => return Ok(lines),
            Ok(_) => {}
            Err(error) => return Err(UnreadableJournal::Io { file: file.to_owned(), error }),
        }
        let bad = |why: String| UnreadableJournal::Line { file: file.to_owned(), line: lines.len() + 1, why };
        if !text.ends_with('\n') {
            return Err(bad("cut off: its writer did not end well".into()));
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if line.n != lines.len() as u64 + 1 {
            return Err(bad(format!("is numbered {}", line.n)));
        }
        lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_with_a_hole_or_a_cut_is_not_judged() {
        let user = UserId::random();
        let first = format!(
            "{{\"n\":1,\"at\":0,\"entry\":{{\"device\":{{\"version\":1,\"device\":\"a\",\"user\":\"{user}\",\"clock\":7}}}}}}\n"
        );
        let chat = ChatId::random();
        let removed =
            |n| format!("{{\"n\":{n},\"at\":0,\"entry\":{{\"chat_removed\":{{\"chat\":\"{chat}\"}}}}}}\n");
        let read = |text: &str| Journals::default().add("a.jsonl".into(), text.as_bytes());
        read(&format!("{first}{}", removed(2))).unwrap();
        assert!(read(&format!("{first}{}", removed(3))).is_err(), "a line is missing");
        assert!(read(&format!("{first}{}", removed(2).trim_end())).is_err(), "the last line is cut off");
        assert!(read(&removed(1)).is_err(), "no device");
        assert!(read("{}\n").is_err());
    }
}
