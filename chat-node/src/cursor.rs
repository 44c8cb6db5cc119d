//! Cursors: where a session was, as its client keeps it. Opaque to the client, and good on any node of the cluster.
//!
//! A version byte, the log's short name, then for each partition an offset and where the rule of terms stands there: everything that stands
//! before it was shown to the session, and everybody's coming and going before it was told. Then a seal. The bytes are written as base64url
//! (RFC 4648, section 5) without padding: 64 partitions with offsets below 2²⁸ are some 550 characters.
//!
//! The seal is over all of it and the application, under a secret of the cluster: where the rule of terms stands decides which records
//! count, and a place how much of the log is read, so neither may be a client's invention. It does not name the user, on purpose: a round
//! tells all sessions of an application the same cursor, made and sealed once. Whoever uses another user's has, on the word of the cluster, a
//! real place in the log, and is told of their own chats from there: less than they could have been, and nothing that is not theirs.

use common::{
    ids::{AppId, Offset, Partition},
    partition::stable_hash,
    seal::{SEAL_BYTES, Sealer},
    store::Position,
    term::TermState,
    wire::marks::LogPlace,
};
use uuid::Uuid;

/// The version that is written and read. The first had no seal.
const VERSION: u8 = 2;
/// What the seal is on, so that it is none on anything else.
const PURPOSE: &[u8] = b"cursor";
/// Characters of a text that is read at all: 512 partitions with three numbers of ten bytes.
const LONGEST: usize = 21 * 1024;

/// Reads and writes cursors, as every node of the cluster does.
#[derive(Clone, Debug)]
pub(crate) struct Cursors {
    log: Uuid,
    partitions: Partition,
    sealer: Sealer,
}

impl Cursors {
    pub(crate) fn new(log: Uuid, partitions: Partition, sealer: Sealer) -> Self {
        Self { log, partitions, sealer }
    }

    /// The cursor in a client's words; none when it is not one of this log that was given to somebody of this application.
    pub(crate) fn read(&self, app: AppId, text: &str) -> Option<Cursor> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = decode(text)?;
        let (sealed, seal) = bytes.split_last_chunk::<SEAL_BYTES>()?;
        if !self.sealer.holds(&[PURPOSE, app.as_bytes(), sealed], seal) {
            return None;
        }
        let (version, rest) = sealed.split_first()?;
        let (name, mut rest) = rest.split_at_checked(8)?;
        let mut places = Vec::with_capacity(usize::from(self.partitions));
        while !rest.is_empty() {
            let (place, after) = place(rest)?;
            places.push(place);
            rest = after;
        }
        let known = *version == VERSION
            && name == short(self.log).to_be_bytes()
            && (places.is_empty() || places.len() == usize::from(self.partitions));
        known.then(|| Cursor { log: short(self.log), places })
    }

    /// As a client of this application is told.
    pub(crate) fn text(&self, app: AppId, cursor: &Cursor) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&cursor.log.to_be_bytes());
        for LogPlace { offset, state } in &cursor.places {
            put_varint(&mut bytes, *offset);
            // A term lies close before its records. 0 is none.
            let back = state.term.map_or(0, |term| offset.saturating_sub(term).saturating_add(1));
            put_varint(&mut bytes, back);
            put_varint(&mut bytes, state.n);
        }
        let seal = self.sealer.seal(&[PURPOSE, app.as_bytes(), &bytes]);
        bytes.extend_from_slice(&seal);
        encode(&bytes)
    }
}

/// Where a session was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    log: u64,
    places: Vec<LogPlace>,
}

impl Cursor {
    /// Of this log. `places` are by partition.
    pub(crate) fn new(log: Uuid, places: Vec<LogPlace>) -> Self {
        Self { log: short(log), places }
    }

    /// The one that says nothing of any partition: of a client that has only said how far it is in some chats.
    pub(crate) fn nowhere(log: Uuid) -> Self {
        Self::new(log, Vec::new())
    }

    /// Whether it says nothing.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.places.is_empty()
    }

    /// Where the writers are.
    pub(crate) fn drained(log: Uuid, partitions: Partition, positions: &[(Partition, Position)]) -> Self {
        let mut cursor = Self::new(log, vec![LogPlace::default(); usize::from(partitions)]);
        for (partition, position) in positions.iter().filter(|(_, position)| position.log == log) {
            if let Some(place) = cursor.places.get_mut(usize::from(*partition)) {
                *place = LogPlace { offset: position.offset, state: position.state };
            }
        }
        cursor
    }

    /// Everything of this partition before this place was shown, if anything is said of it.
    pub(crate) fn place(&self, partition: Partition) -> Option<LogPlace> {
        self.places.get(usize::from(partition)).copied()
    }
}

fn place(bytes: &[u8]) -> Option<(LogPlace, &[u8])> {
    let (offset, rest): (Offset, _) = varint(bytes)?;
    let (back, rest) = varint(rest)?;
    let (n, rest) = varint(rest)?;
    let term = match back.checked_sub(1) {
        Some(back) => Some(offset.checked_sub(back)?),
        None => None,
    };
    Some((LogPlace { offset, state: TermState { term, n } }, rest))
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
    const APP: AppId = AppId::DEFAULT;

    fn cursors(log: Uuid, partitions: Partition) -> Cursors {
        Cursors::new(log, partitions, Sealer::new(&[3; 32]).unwrap())
    }

    fn told(offset: Offset, term: Option<Offset>, n: u64) -> LogPlace {
        LogPlace { offset, state: TermState { term, n } }
    }

    #[test]
    fn a_cursor_keeps_its_form() {
        let places = vec![
            told(0, None, 0),
            told(1, Some(0), 0),
            told(128, Some(100), 27),
            told(u64::MAX, Some(u64::MAX - 3), u64::MAX),
        ];
        let cursor = Cursor::new(LOG, places);
        assert_eq!(cursors(LOG, 4).text(APP, &cursor), GOLDEN);
        assert_eq!(cursors(LOG, 4).read(APP, GOLDEN), Some(cursor));
    }

    const GOLDEN: &str = "AhlHnYD_QqgkAAAAAQIAgAEdG____________wEE____________AThTiYiT3tJIYKiTdSKNZag";

    #[test]
    fn a_cursor_of_another_log_or_another_number_of_partitions_is_none() {
        let text =
            cursors(LOG, 2).text(APP, &Cursor::new(LOG, vec![told(1, Some(0), 0), told(2, Some(0), 1)]));
        let read = |text: &str, log, partitions| cursors(log, partitions).read(APP, text);
        assert!(read(&text, LOG, 2).is_some());
        assert_eq!(read(&text, Uuid::from_u128(8), 2), None);
        assert_eq!(read(&text, LOG, 3), None);
        for bad in ["", "0", "A", "AQ==", "é", &text[1..], &format!("{text}A"), &"A".repeat(30_000)] {
            assert_eq!(read(bad, LOG, 2), None, "{bad}");
        }
    }

    #[test]
    fn a_cursor_that_the_cluster_did_not_write_for_the_application_is_none() {
        let ours = cursors(LOG, 2);
        let cursor = Cursor::new(LOG, vec![told(9, Some(3), 5), told(2, Some(0), 1)]);
        let text = ours.text(APP, &cursor);
        assert_eq!(ours.read(APP, &text), Some(cursor.clone()));
        assert_eq!(ours.read(AppId(Uuid::from_u128(2)), &text), None, "another application's");
        let strangers = Cursors::new(LOG, 2, Sealer::new(&[4; 32]).unwrap());
        assert_eq!(strangers.read(APP, &text), None, "another cluster's");
        // Any claim of one's own: what is written, with any seal.
        let bytes = decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.read(APP, &encode(&forged)), None, "bit {bit}");
        }
        assert_eq!(ours.read(APP, &encode(&bytes[..bytes.len() - SEAL_BYTES])), None, "without a seal");
    }

    #[test]
    fn a_cursor_may_say_nothing() {
        let cursor = Cursor::nowhere(LOG);
        let text = cursors(LOG, 2).text(APP, &cursor);
        assert_eq!(cursors(LOG, 2).read(APP, &text), Some(cursor.clone()));
        assert!(cursor.is_nowhere());
        assert_eq!(cursor.place(0), None);
    }

    #[test]
    fn the_cursor_of_sixty_four_partitions_is_short() {
        let places = vec![told((1 << 28) - 1, Some((1 << 28) - 99), 97); 64];
        let text = cursors(LOG, 64).text(APP, &Cursor::new(LOG, places));
        assert!(text.len() < 560, "{} characters", text.len());
    }

    #[test]
    fn the_cursor_of_the_writers_has_every_position_of_its_log() {
        let state = TermState { term: Some(2), n: 4 };
        let positions = [
            (1, Position { log: LOG, offset: 7, state }),
            (2, Position { log: Uuid::from_u128(8), offset: 9, state }),
            (9, Position { log: LOG, offset: 7, state }),
        ];
        let cursor = Cursor::drained(LOG, 3, &positions);
        assert_eq!(cursor.place(1), Some(LogPlace { offset: 7, state }));
        assert_eq!([cursor.place(0), cursor.place(2)], [Some(LogPlace::default()); 2]);
        assert_eq!(cursor.place(9), None);
    }

    fn places() -> impl Strategy<Value = Vec<LogPlace>> {
        let place =
            (any::<u64>(), proptest::option::of(any::<u64>()), any::<u64>()).prop_map(|(offset, term, n)| {
                told(offset, term.map(|term| term.min(offset)).filter(|term| offset - term < u64::MAX), n)
            });
        proptest::collection::vec(place, 1..80)
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back(places in places()) {
            let cursor = Cursor::new(LOG, places.clone());
            let count = Partition::try_from(places.len()).unwrap();
            let cursors = cursors(LOG, count);
            prop_assert_eq!(cursors.read(APP, &cursors.text(APP, &cursor)), Some(cursor));
        }

        #[test]
        fn no_text_at_all_does_harm(text in "[A-Za-z0-9_=é-]{0,60}") {
            let _ = cursors(LOG, 2).read(APP, &text);
        }
    }
}
