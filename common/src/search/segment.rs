//! Segments of the index: which messages make one, and the bytes that the store keeps of it.
//!
//! A segment is a list of buckets. Keys are spread over them evenly and in order, so a key's bucket follows from the key and the number of buckets
//! ([`bucket_of`]). In a bucket: a version (1); then each key, in order, as the difference to the one before, the length of its list in
//! bytes, and the list: the places of its messages in the segment, in order, each as the difference to the one before. All of them are
//! varints (LEB128).

use std::collections::HashMap;

use super::{fold::Folded, keys::keys};
use crate::ids::Number;

/// Messages of the segments, the smallest first: each divides the next.
const LENGTHS: [Number; 4] = [256, 2_048, 16_384, 131_072];

/// Messages of the smallest segment: after so many more, a segment of a chat is due.
pub(crate) const STEP: Number = LENGTHS[0];

/// The newest message that may be in a segment, of a chat with so many.
pub(crate) fn indexed(head: Number) -> Number {
    head / STEP * STEP
}

/// Bytes of one bucket, about: the more, the more is read for one key; the fewer, the more of the rows is overhead.
const BUCKET_BYTES: usize = 1_024;

/// Buckets of one segment at most. The largest segment has some 20,000.
const BUCKETS: usize = 1 << 16;

const VERSION: u8 = 1;

/// The first messages of the segments that end with `upto`, the largest segment first.
pub(crate) fn firsts(upto: Number) -> impl Iterator<Item = Number> {
    let ending = LENGTHS.into_iter().rev().filter(move |length| upto.is_multiple_of(*length));
    ending.map(move |length| upto.saturating_sub(length) + 1)
}

/// The ends of the segments that are due when a chat moves from its message `before` to `after`.
pub(crate) fn due(before: Number, after: Number) -> impl Iterator<Item = Number> {
    (before / STEP + 1..=after / STEP).map(|nth| nth * STEP)
}

/// In which of its segment's buckets a key is.
pub(crate) fn bucket_of(key: u32, buckets: u32) -> u32 {
    // Below `buckets`.
    ((u64::from(key) * u64::from(buckets)) >> 32) as u32
}

/// A segment in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    lists: HashMap<u32, List>,
}

#[derive(Debug, Default)]
struct List {
    next: u32,
    bytes: Vec<u8>,
}

impl Builder {
    /// Adds a message at its place, counted from the segment's first as 0: each once, in order.
    pub(crate) fn add(&mut self, place: u32, body: &str) {
        for key in keys(&Folded::of(body)) {
            let list = self.lists.entry(key).or_default();
            put(&mut list.bytes, place.saturating_sub(list.next));
            list.next = place.saturating_add(1);
        }
    }

    /// The segment's buckets; some may be empty.
    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        let bytes: usize = self.lists.values().map(|list| list.bytes.len() + 5).sum();
        let buckets = (bytes / BUCKET_BYTES).clamp(1, BUCKETS);
        let mut keys: Vec<(u32, List)> = self.lists.into_iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        let mut made: Vec<Vec<u8>> = vec![Vec::new(); buckets];
        let count = u32::try_from(buckets).unwrap_or(u32::MAX);
        let mut last = (u32::MAX, 0);
        for (key, list) in keys {
            let at = bucket_of(key, count);
            let Some(bucket) = usize::try_from(at).ok().and_then(|at| made.get_mut(at)) else { continue };
            if last.0 != at {
                bucket.push(VERSION);
                last = (at, 0);
            }
            put(bucket, key - last.1);
            put(bucket, u32::try_from(list.bytes.len()).unwrap_or(u32::MAX));
            bucket.extend(list.bytes);
            last.1 = key;
        }
        made
    }
}

/// A bucket's bytes are no bucket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bucket of the search index cannot be read")]
pub(crate) struct Unreadable;

/// The places of the messages that have these keys, which are in order, of a segment of `length` messages. A key that is not there is missing.
pub(crate) fn places(
    mut bucket: &[u8],
    keys: &[u32],
    length: Number,
) -> Result<Vec<(u32, Vec<u32>)>, Unreadable> {
    let mut found = Vec::new();
    let Some((version, rest)) = bucket.split_first() else { return Ok(found) };
    if *version != VERSION {
        return Err(Unreadable);
    }
    bucket = rest;
    let mut key = 0_u32;
    let mut wanted = keys.iter().copied().peekable();
    while !bucket.is_empty() {
        key = key.checked_add(take(&mut bucket)?).ok_or(Unreadable)?;
        let bytes = usize::try_from(take(&mut bucket)?).map_err(|_| Unreadable)?;
        let (list, rest) = bucket.split_at_checked(bytes).ok_or(Unreadable)?;
        bucket = rest;
        while wanted.next_if(|wanted| *wanted < key).is_some() {}
        match wanted.peek() {
            None => break,
            Some(wanted) if *wanted == key => found.push((key, numbers(list, length)?)),
            Some(_) => {}
        }
    }
    Ok(found)
}

fn numbers(mut list: &[u8], length: Number) -> Result<Vec<u32>, Unreadable> {
    let mut places = Vec::with_capacity(list.len());
    let mut next = 0_u32;
    while !list.is_empty() {
        let place = next.checked_add(take(&mut list)?).ok_or(Unreadable)?;
        if u64::from(place) >= length {
            return Err(Unreadable);
        }
        places.push(place);
        next = place.saturating_add(1);
    }
    Ok(places)
}

fn put(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u32, Unreadable> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable)?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && bits > 0xf {
            return Err(Unreadable);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_segments_of_a_chat_lie_side_by_side_and_grow() {
        assert_eq!(due(0, 255).count(), 0);
        assert_eq!(due(255, 256).collect::<Vec<_>>(), [256]);
        assert_eq!(due(256, 1_100).collect::<Vec<_>>(), [512, 768, 1_024]);
        assert_eq!(firsts(256).collect::<Vec<_>>(), [1]);
        assert_eq!(firsts(2_304).collect::<Vec<_>>(), [2_049]);
        assert_eq!(firsts(2_048).collect::<Vec<_>>(), [1, 1_793]);
        assert_eq!(firsts(32_768).collect::<Vec<_>>(), [16_385, 30_721, 32_513]);
        // Whatever a chat's length: each message up to the last step is in one segment, when each takes the place of those that it covers.
        let mut segments: Vec<(Number, Number)> = Vec::new();
        for upto in due(0, 300_000) {
            let first = firsts(upto).next().unwrap();
            segments.retain(|(other, _)| *other < first);
            segments.push((first, upto));
            let mut next = 1;
            for (first, last) in &segments {
                assert_eq!(*first, next);
                next = last + 1;
            }
            assert_eq!(next, upto + 1);
            assert!(segments.len() <= 2 + 7 + 7 + 7);
        }
    }

    fn read(buckets: &[Vec<u8>], key: u32) -> Vec<u32> {
        let at = bucket_of(key, buckets.len() as u32) as usize;
        let mut found = places(&buckets[at], &[key], 16_384).unwrap();
        assert!(found.len() <= 1);
        found.pop().map(|(_, places)| places).unwrap_or_default()
    }

    #[test]
    fn what_was_added_is_read_again() {
        let mut builder = Builder::default();
        let body = |n: u32| format!("message number {n} of {}, {}", n % 7, "東京".repeat((n % 2) as usize));
        for n in 0..3_000 {
            builder.add(n, &body(n));
        }
        let buckets = builder.finish();
        assert!(buckets.len() > 10, "{}", buckets.len());
        for text in ["message", "2999", "東京", "absent"] {
            for key in keys(&Folded::of(text)) {
                let expected: Vec<u32> =
                    (0..3_000).filter(|n| keys(&Folded::of(&body(*n))).contains(&key)).collect();
                assert_eq!(read(&buckets, key), expected, "{text}");
            }
        }
        assert_eq!(Builder::default().finish(), [Vec::<u8>::new()]);
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_bucket_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64), keys in proptest::collection::vec(any::<u32>(), 0..4)) {
            let _ = places(&bytes, &keys, 256);
            let mut with_version = vec![VERSION];
            with_version.extend(&bytes);
            let _ = places(&with_version, &keys, 256);
        }
    }
}
