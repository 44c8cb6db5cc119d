//! A journal being written.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use common::ids::UserId;
use parking_lot::Mutex;

use super::{Answer, Ask, Entry, Fate, Line, VERSION};
use crate::clock::Clock;

/// A journal being written. Clones write to the same file; the order of the lines is the order of the calls. Lines are buffered (64 KiB)
/// and reach the file at [`Journal::flush`] and when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Journal {
    clock: Clock,
    file: Arc<Mutex<Open>>,
}

#[derive(Debug)]
struct Open {
    n: u64,
    requests: u64,
    out: BufWriter<File>,
    /// The first write that failed: said once, at the flush.
    failed: Option<io::Error>,
}

impl Journal {
    /// A new file for a device of `user`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, device: &str, user: UserId, clock: Clock) -> io::Result<Self> {
        let first = Entry::Device { version: VERSION, device: device.to_owned(), user, clock: clock.id() };
        Self::begin(path, first, clock)
    }

    /// A new file for what is done to the cluster.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of_faults(path: &Path, clock: Clock) -> io::Result<Self> {
        Self::begin(path, Entry::Faults { version: VERSION, clock: clock.id() }, clock)
    }

    fn begin(path: &Path, first: Entry, clock: Clock) -> io::Result<Self> {
        let out = BufWriter::with_capacity(64 << 10, File::create_new(path)?);
        let journal =
            Self { clock, file: Arc::new(Mutex::new(Open { n: 0, requests: 0, out, failed: None })) };
        journal.write(first);
        Ok(journal)
    }

    /// Something begins to be done to the cluster.
    pub fn fault_begins(&self, what: &str) {
        self.write(Entry::Fault(Fate::Begins { what: what.to_owned() }));
    }

    /// It is over: 10 s from here every view must be whole.
    pub fn fault_ends(&self, what: &str) {
        self.write(Entry::Fault(Fate::Ends { what: what.to_owned() }));
    }

    /// Appends a line. A failure of the disk is kept and told by [`Journal::flush`].
    pub fn write(&self, entry: Entry) {
        let mut open = self.file.lock();
        open.n += 1;
        let line = Line { n: open.n, at: self.clock.micros(), entry };
        open.append(&line);
    }

    /// Appends what is about to be asked; the mark is for [`Journal::answered`].
    pub fn asked(&self, ask: Ask) -> u64 {
        let mut open = self.file.lock();
        open.n += 1;
        open.requests += 1;
        let request = open.requests;
        let line = Line { n: open.n, at: self.clock.micros(), entry: Entry::Asked { request, ask } };
        open.append(&line);
        request
    }

    /// Appends the answer to what was asked.
    pub fn answered(&self, request: u64, answer: Answer) {
        self.write(Entry::Answered { request, answer });
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first failure since the journal was made: then it is not whole, and proves nothing.
    pub fn flush(&self) -> io::Result<()> {
        let mut open = self.file.lock();
        if let Some(error) = open.failed.take() {
            return Err(error);
        }
        open.out.flush()
    }
}

impl Open {
    fn append(&mut self, line: &Line) {
        let written = serde_json::to_writer(&mut self.out, line)
            .map_err(io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}
