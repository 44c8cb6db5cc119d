//! Log and store of a cluster, read when nobody uses them any more and written down for the judge: what the log's valid records make of
//! every message, and what rows there are.
//!
//! The one place here that knows the cluster from within: its engines, its records and the rule of terms.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use common::{
    engines::{EngineError, EngineUrls, Engines, masked},
    ids::{ChatKey, Number, Partition},
    log::{OpenError, ReadLimit, SharedLog},
    model::Head,
    store::{Position, Range},
    term::{TermState, Verdict},
    wire::record::{Change, Record, What},
};

use crate::journal::{Drained, Entry, Kept, VERSION};

/// Rows asked for at once.
const TOGETHER: u32 = 1_000;

/// Why they cannot be read. An engine's own words.
#[derive(Debug, thiserror::Error)]
#[error("log and store ({place}) cannot be read: {why}")]
pub struct Unreadable {
    place: String,
    why: String,
    in_use: bool,
}

impl Unreadable {
    /// Whether a cluster still uses them.
    pub fn in_use(&self) -> bool {
        self.in_use
    }
}

/// What the valid records of the log make.
#[derive(Default)]
struct Made {
    messages: BTreeMap<(ChatKey, Number), Kept>,
    heads: BTreeMap<ChatKey, Head>,
}

/// Reads the data folder of a standalone cluster that has stopped, and writes `rest.jsonl` into `journals`. Opened by the cluster's own engines,
/// which take the folder's lock: a cluster that still runs is refused.
///
/// # Errors
/// [`Unreadable`].
pub async fn read_stored(data: &Path, journals: &Path) -> Result<(), Unreadable> {
    let place = data.display().to_string();
    if !data.join("log.db").exists() {
        // Opening would make one.
        return Err(Unreadable { place, why: "there is no log".to_owned(), in_use: false });
    }
    write_down(&EngineUrls::embedded(data), &place, journals).await
}

/// Reads the engines of a cluster of processes that has stopped, and writes `rest.jsonl` into `journals`. Servers do not say whether a
/// cluster still uses them: of one that does, what is written down is at odds with itself.
///
/// # Errors
/// [`Unreadable`].
pub async fn read_stored_at(urls: &EngineUrls, journals: &Path) -> Result<(), Unreadable> {
    write_down(urls, &format!("{} and {}", masked(&urls.log), masked(&urls.store)), journals).await
}

async fn write_down(urls: &EngineUrls, place: &str, journals: &Path) -> Result<(), Unreadable> {
    let unreadable = |why: String| Unreadable { place: place.to_owned(), why, in_use: false };
    let engines = open(urls).await.map_err(|error| {
        let in_use = matches!(error, EngineError::Log(OpenError::InUse { .. }));
        Unreadable { in_use, ..unreadable(error.to_string()) }
    })?;
    let read = read(&engines).await.map_err(&unreadable);
    let closed = engines.log.close().await.map_err(|error| unreadable(error.to_string()));
    let entries = read?;
    closed?;
    super::reading::write(&journals.join("rest.jsonl"), entries.into_iter())
        .map_err(|error| unreadable(error.to_string()))
}

/// Opens what is there, whatever number of partitions it has.
async fn open(urls: &EngineUrls) -> Result<Engines, EngineError> {
    match Engines::open(urls, 16).await {
        Err(EngineError::Log(OpenError::PartitionCount { has, .. })) => Engines::open(urls, has).await,
        other => other,
    }
}

async fn read(engines: &Engines) -> Result<Vec<Entry>, String> {
    let positions: HashMap<Partition, Position> =
        engines.store.positions().await.map_err(|error| error.to_string())?.into_iter().collect();
    let mut entries = vec![Entry::AtRest { version: VERSION }];
    let mut made = Made::default();
    for partition in 0..engines.log.partitions() {
        let position = positions.get(&partition).copied();
        let drained = partition_of_log(&engines.log, partition, position, &mut made).await?;
        entries.push(Entry::Drained(drained));
    }
    let logged = made.messages.into_iter();
    entries.extend(logged.map(|((key, _), message)| Entry::Logged { chat: key.chat, message }));
    for (chat, logged) in made.heads {
        let row = rows(engines, chat, &mut entries).await?;
        entries.push(Entry::Heads { chat: chat.chat, logged, row });
    }
    Ok(entries)
}

async fn partition_of_log(
    log: &SharedLog,
    partition: Partition,
    position: Option<Position>,
    made: &mut Made,
) -> Result<Drained, String> {
    let begin = log.begin(partition).await.map_err(|error| error.to_string())?;
    if begin > 0 {
        return Err(format!(
            "partition {partition} of the log begins at {begin}: what rows should be there cannot be told from what is left of it; \
             the writers' log_keep must be longer than the trial, or 0"
        ));
    }
    let at = position.map_or(0, |position| position.offset);
    let (mut next, mut state, mut should_be, mut undrained) = (0, TermState::default(), None, 0);
    loop {
        let records =
            log.read(partition, next, ReadLimit::default()).await.map_err(|error| error.to_string())?;
        if records.is_empty() {
            break;
        }
        for entry in records {
            if entry.offset == at {
                should_be = Some(state);
            }
            next = entry.offset + 1;
            let Ok(record) = Record::decode(&entry.payload) else { continue };
            if state.advance(record.header(), entry.offset) == Verdict::Void {
                continue;
            }
            if let Record::Change(change) = record {
                undrained += u64::from(entry.offset >= at);
                made.apply(&change);
            }
        }
    }
    if at == next {
        should_be = Some(state);
    }
    let state = position.map(|position| position.state).unwrap_or_default();
    // A position past the log's end has no state there.
    let should_be = should_be.unwrap_or_default();
    Ok(Drained { partition, position: position.map(|position| position.offset), state, should_be, undrained })
}

impl Made {
    /// Takes a valid change in.
    fn apply(&mut self, change: &Change) {
        let key = change.key();
        let head = self.heads.entry(key).or_default();
        head.seq = change.seq;
        match &change.what {
            What::Sent { number, .. } => {
                head.number = *number;
                if let Some(message) = change.message() {
                    self.messages.insert((key, *number), Kept::from(&message));
                }
            }
            What::Reacted { number, reactions, .. } => {
                if let Some(kept) = self.messages.get_mut(&(key, *number)) {
                    kept.reactions = Kept::reactions(reactions);
                }
            }
            What::Edited { message } => {
                if let Some(kept) = self.messages.get_mut(&(key, message.number)) {
                    *kept = Kept::from(&**message);
                }
            }
            What::Erased { number } => {
                if let Some(kept) = self.messages.get_mut(&(key, *number)) {
                    *kept = erased(kept);
                }
            }
            _ => {}
        }
    }
}

/// A deleted message shows its number, its author and nothing else.
fn erased(kept: &Kept) -> Kept {
    let (body, mentions) = (crate::journal::Print::of(""), Vec::new());
    Kept { body, edited: false, deleted: true, reactions: None, mentions, ..kept.clone() }
}

/// Writes a chat's rows down, and gives its head.
async fn rows(engines: &Engines, chat: ChatKey, entries: &mut Vec<Entry>) -> Result<Head, String> {
    let (mut after, mut head) = (0, Head::default());
    loop {
        let slice = engines.store.history(chat, Range::After(after), TOGETHER).await;
        let Some(slice) = slice.map_err(|error| error.to_string())? else { return Ok(head) };
        head = slice.head;
        for message in &slice.messages {
            let kept = Kept::from(message);
            let message = if kept.deleted { erased(&kept) } else { kept };
            entries.push(Entry::Row { chat: chat.chat, message });
        }
        match slice.messages.last() {
            Some(last) if last.number > after => after = last.number,
            _ => return Ok(head),
        }
    }
}
