//! Tails: a stream per chat, whose ids are the `seq`s.

use redis::Script;

use crate::{
    cache::{CacheError, TAIL_BYTES, TAIL_ENTRIES, Tail, TailEntry},
    ids::{Offset, Seq},
};

/// Scripts count in floating point, exact up to here; no chat has ever as many changes, and no log as many records.
const LARGEST: u64 = 1 << 53;

#[derive(Debug)]
pub(super) struct Scripts {
    append: Script,
    after: Script,
    from: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            append: Script::new(include_str!("tail_append.lua")),
            after: Script::new(include_str!("tail_after.lua")),
            from: Script::new(include_str!("tail_from.lua")),
        }
    }
}

/// What `XRANGE` answers: id and fields of each entry.
pub(super) type Entries = Option<Vec<(String, Vec<Vec<u8>>)>>;

impl Scripts {
    pub(super) fn append(
        &self,
        key: &str,
        entries: Vec<TailEntry>,
        expiry_ms: u64,
    ) -> Option<redis::ScriptInvocation<'_>> {
        let entries = newest(entries);
        if entries.is_empty() {
            return None;
        }
        let mut call = self.append.key(key);
        call.arg(TAIL_ENTRIES).arg(TAIL_BYTES).arg(expiry_ms);
        for entry in &entries {
            call.arg(entry.seq).arg(entry.offset).arg(&*entry.bytes);
        }
        Some(call)
    }

    pub(super) fn after(&self, key: &str, after: Seq) -> redis::ScriptInvocation<'_> {
        let mut call = self.after.key(key);
        call.arg(after.min(LARGEST));
        call
    }

    pub(super) fn from(&self, key: &str, offset: Offset) -> redis::ScriptInvocation<'_> {
        let mut call = self.from.key(key);
        call.arg(offset.min(LARGEST));
        call
    }
}

/// In order, none twice, and no more than a tail can hold: older ones would go at once.
fn newest(mut entries: Vec<TailEntry>) -> Vec<TailEntry> {
    entries.retain(|entry| entry.seq < LARGEST && entry.offset < LARGEST);
    entries.sort_by_key(|entry| entry.seq);
    entries.dedup_by_key(|entry| entry.seq);
    let mut bytes = 0;
    let fitting = entries.iter().rev().take(TAIL_ENTRIES).take_while(|entry| {
        bytes += entry.bytes.len();
        bytes <= TAIL_BYTES
    });
    // One that is larger than a tail still ends what was before it.
    let kept = fitting.count().max(1);
    entries.drain(..entries.len().saturating_sub(kept));
    entries
}

pub(super) fn read(found: Entries) -> Result<Tail, CacheError> {
    let Some(found) = found else { return Ok(Tail::Missing) };
    found
        .into_iter()
        .map(|(id, fields)| entry(&id, fields))
        .collect::<Option<_>>()
        .map(Tail::Run)
        .ok_or_else(|| CacheError::Unavailable("a tail holds what is no change".into()))
}

fn entry(id: &str, fields: Vec<Vec<u8>>) -> Option<TailEntry> {
    let [_, offset, _, _, _, bytes] = <[Vec<u8>; 6]>::try_from(fields).ok()?;
    Some(TailEntry {
        seq: id.split('-').next()?.parse().ok()?,
        offset: str::from_utf8(&offset).ok()?.parse().ok()?,
        bytes: bytes.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(seq: Seq, bytes: usize) -> TailEntry {
        TailEntry { seq, offset: seq, bytes: vec![0; bytes].into() }
    }

    fn seqs(entries: Vec<TailEntry>) -> Vec<Seq> {
        newest(entries).into_iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn no_more_is_sent_than_a_tail_can_hold() {
        let most = TAIL_ENTRIES as u64;
        assert_eq!(
            seqs((1..=most + 5).rev().map(|seq| sized(seq, 1)).collect()),
            (6..=most + 5).collect::<Vec<_>>()
        );
        assert_eq!(seqs((1..=6).map(|seq| sized(seq, TAIL_BYTES / 4)).collect()), [3, 4, 5, 6]);
        assert_eq!(seqs(vec![sized(1, 1), sized(2, TAIL_BYTES + 1)]), [2]);
        assert_eq!(seqs(vec![sized(2, 1), sized(1, 1), sized(2, 1), sized(Seq::MAX, 1)]), [1, 2]);
        assert!(seqs(Vec::new()).is_empty());
    }

    #[test]
    fn what_is_no_change_is_no_tail() {
        let fields = |offset: &[u8]| vec![vec![], offset.to_vec(), vec![], vec![], vec![], vec![7]];
        assert!(read(Some(vec![("5-1".into(), fields(b"50"))])).is_ok());
        for (id, fields) in
            [("x-1", fields(b"50")), ("5-1", fields(b"x")), ("5-1", fields(&[255])), ("5-1", Vec::new())]
        {
            assert!(read(Some(vec![(id.into(), fields)])).is_err());
        }
    }
}
