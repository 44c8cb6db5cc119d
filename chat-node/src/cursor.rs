//! Cursors: where a session was, as its client keeps it. Opaque to the client, and good on any node of the cluster.
//!
//! A version byte, the log's short name, then for each partition an offset: everything that stands before it was shown to the session, and
//! everybody's coming and going before it was told. The bytes are written as base64url (RFC 4648, section 5) without padding: 64
//! partitions with offsets below 2²⁸ are some 350 characters.
//!
//! Whoever writes a cursor of their own is shown less than they could have been, and nothing that is not theirs.

use common::{
    ids::{Offset, Partition},
    partition::stable_hash,
};
use uuid::Uuid;

/// The version that is written and read.
const VERSION: u8 = 1;
/// Characters of a text that is read at all: 1,024 partitions with offsets of ten bytes.
const LONGEST: usize = 16 * 1024;

/// Where a session was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    log: u64,
    offsets: Vec<Offset>,
}

impl Cursor {
    /// Of this log. `offsets` are by partition.
    pub(crate) fn new(log: Uuid, offsets: Vec<Offset>) -> Self {
        Self { log: short(log), offsets }
    }

    /// The cursor in a client's words; none when it is not one of this log.
    pub(crate) fn read(text: &str, log: Uuid, partitions: Partition) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = decode(text)?;
        let (version, rest) = bytes.split_first()?;
        let (name, mut rest) = rest.split_at_checked(8)?;
        let mut offsets = Vec::with_capacity(usize::from(partitions));
        while !rest.is_empty() {
            let (offset, after) = varint(rest)?;
            offsets.push(offset);
            rest = after;
        }
        let known = *version == VERSION
            && name == short(log).to_be_bytes()
            && offsets.len() == usize::from(partitions);
        known.then(|| Self { log: short(log), offsets })
    }

    /// As a client is told.
    pub(crate) fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.log.to_be_bytes());
        for offset in &self.offsets {
            put_varint(&mut bytes, *offset);
        }
        encode(&bytes)
    }

    /// Everything of this partition before this offset was shown.
    pub(crate) fn offset(&self, partition: Partition) -> Offset {
        self.offsets.get(usize::from(partition)).copied().unwrap_or(0)
    }
}

fn short(log: Uuid) -> u64 {
    stable_hash(&[log.as_bytes()])
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits.
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        let shift = u32::try_from(place * 7).ok()?;
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for place in 0..=chunk.len() {
            let digit = word >> (18 - 6 * place) & 0x3f;
            text.push(ALPHABET.get(digit as usize).copied().map_or('A', char::from));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut word: u32 = 0;
        for place in 0..4 {
            let digit = match chunk.get(place) {
                Some(letter) => ALPHABET.iter().position(|known| known == letter)?,
                None => 0,
            };
            word = word << 6 | u32::try_from(digit).ok()?;
        }
        let [_, decoded @ ..] = word.to_be_bytes();
        // Two letters are one byte, three are two; a single one is none.
        bytes.extend(decoded.iter().take(chunk.len().checked_sub(1).filter(|count| *count > 0)?));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);

    #[test]
    fn a_cursor_keeps_its_form() {
        let cursor = Cursor::new(LOG, vec![0, 127, 128, 300, u64::MAX]);
        assert_eq!(cursor.text(), GOLDEN);
        assert_eq!(Cursor::read(GOLDEN, LOG, 5), Some(cursor));
    }

    const GOLDEN: &str = "ARlHnYD_QqgkAH-AAawC____________AQ";

    #[test]
    fn a_cursor_of_another_log_or_another_number_of_partitions_is_none() {
        let text = Cursor::new(LOG, vec![1, 2]).text();
        assert!(Cursor::read(&text, LOG, 2).is_some());
        assert_eq!(Cursor::read(&text, Uuid::from_u128(8), 2), None);
        assert_eq!(Cursor::read(&text, LOG, 3), None);
        for bad in ["", "0", "A", "AQ==", "é", &text[1..], &format!("{text}A"), &"A".repeat(20_000)] {
            assert_eq!(Cursor::read(bad, LOG, 2), None, "{bad}");
        }
    }

    #[test]
    fn the_cursor_of_sixty_four_partitions_is_short() {
        let text = Cursor::new(LOG, vec![(1 << 28) - 1; 64]).text();
        assert!(text.len() < 360, "{} characters", text.len());
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back(offsets in proptest::collection::vec(any::<u64>(), 1..80)) {
            let cursor = Cursor::new(LOG, offsets.clone());
            let count = Partition::try_from(offsets.len()).unwrap();
            prop_assert_eq!(Cursor::read(&cursor.text(), LOG, count), Some(cursor));
        }

        #[test]
        fn no_text_at_all_does_harm(text in "[A-Za-z0-9_=é-]{0,60}") {
            let _ = Cursor::read(&text, LOG, 2);
        }
    }
}
