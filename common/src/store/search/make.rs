//! Making a segment of the index from the messages as they are.

use super::{Body, Instant, Segment};
use crate::{
    ids::{ChatKey, Number, Seq},
    search::segment::{self, Builder},
    store::{Result, StoreError},
};

/// Messages of a segment that are read at once.
const READ_TOGETHER: u32 = 512;

/// Buckets, of 1 KiB each, of smaller segments that one takes the place of: those of 131,072 ordinary messages are some 20,000, which are
/// made in some seconds and written in one. More stay in the smaller ones.
const BUCKETS: u64 = 24 * 1_024;

/// A segment that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Due {
    pub(in crate::store) chat: ChatKey,
    /// Its last message.
    pub(in crate::store) upto: Number,
}

/// A segment that was made.
#[derive(Debug)]
pub(in crate::store) struct Made {
    pub(in crate::store) first: Number,
    pub(in crate::store) buckets: Vec<Vec<u8>>,
    /// The changes that are in it.
    pub(in crate::store) changes: Vec<(Number, Seq)>,
}

/// Makes a segment from the messages as they are; none when a larger one has them.
pub(in crate::store) async fn make(instant: &mut impl Instant, due: &Due) -> Result<Option<Made>> {
    let Some(first) = first_of(&instant.segments(&[due.chat]).await?, due.upto) else { return Ok(None) };
    let changes = instant.changes(due.chat, first, due.upto).await?;
    let (mut builder, mut after) = (Builder::default(), first - 1);
    loop {
        let bodies = instant.from(due.chat, after, due.upto, READ_TOGETHER).await?;
        let Some(last) = bodies.last() else { break };
        after = last.number;
        builder = aside(move || {
            for Body { number, body, .. } in bodies {
                builder.add(u32::try_from(number.saturating_sub(first)).unwrap_or(u32::MAX), &body);
            }
            builder
        })
        .await?;
    }
    Ok(Some(Made { first, buckets: aside(|| builder.finish()).await?, changes }))
}

/// The first message of the segment that is to end with `upto`, in a chat that has these: of the largest, unless smaller ones have all else of it
/// already and are too much to be made into one. None when a larger one has it.
fn first_of(segments: &[Segment], upto: Number) -> Option<Number> {
    if segments.iter().any(|segment| segment.first <= upto && upto < segment.last) {
        return None;
    }
    let mut firsts = segment::firsts(upto).peekable();
    while let Some(first) = firsts.next() {
        let Some(next) = firsts.peek() else { return Some(first) };
        let (mut messages, mut buckets) = (0, 0);
        for segment in segments.iter().filter(|segment| first <= segment.first && segment.last < *next) {
            messages += segment.last - segment.first + 1;
            buckets += u64::from(segment.buckets);
        }
        if messages < next - first || buckets <= BUCKETS {
            return Some(first);
        }
    }
    None
}

/// Does what takes some milliseconds off the threads that others wait for.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Unavailable(format!("a segment of the search index: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, ChatId};

    fn segments(ranges: &[(Number, Number, u32)]) -> Vec<Segment> {
        let chat = ChatKey { app: AppId::DEFAULT, chat: ChatId::random() };
        let segment =
            |(first, last, buckets): &_| Segment { chat, first: *first, last: *last, buckets: *buckets };
        ranges.iter().map(segment).collect()
    }

    /// What a chat of so many messages comes to, each smallest part of which has so many buckets.
    fn made(messages: Number, buckets: u32) -> Vec<(Number, Number)> {
        let mut all: Vec<(Number, Number, u32)> = Vec::new();
        for upto in segment::due(0, messages) {
            let first = first_of(&segments(&all), upto).unwrap();
            all.retain(|(other, ..)| *other < first);
            let parts = u32::try_from((upto + 1 - first) / segment::STEP).unwrap();
            all.push((first, upto, parts * buckets));
        }
        all.into_iter().map(|(first, last, _)| (first, last)).collect()
    }

    #[test]
    fn a_segment_takes_the_place_of_smaller_ones_unless_they_are_too_much() {
        assert_eq!(made(131_072, 40), [(1, 131_072)]);
        let heavy = made(131_072, 400);
        assert_eq!(heavy.len(), 8);
        assert_eq!((heavy[0], heavy[7]), ((1, 16_384), (114_689, 131_072)));
        assert_eq!(made(16_384, 3_000).len(), 8);
        assert_eq!(made(16_384, 4_000).len(), 64);
        for buckets in [1, 40, 400, 4_000, 40_000] {
            let mut next = 1;
            for (first, last) in made(140_000, buckets) {
                assert_eq!(first, next);
                next = last + 1;
            }
            assert_eq!(next, 140_000 / 256 * 256 + 1);
        }
    }

    #[test]
    fn what_is_made_anew_or_has_nothing_before_it_is_as_large_as_it_can_be() {
        let first = |all: &[_], upto| first_of(&segments(all), upto);
        assert_eq!(first(&[(1, 131_072, 60_000)], 131_072), Some(1));
        assert_eq!(first(&[], 131_072), Some(1));
        assert_eq!(first(&[(1, 114_688, 60_000)], 131_072), Some(114_689));
        assert_eq!(first(&[(16_385, 114_688, 60_000)], 131_072), Some(1), "nothing else has the first ones");
        assert_eq!(first(&[(1, 131_072, 1)], 16_384), None);
        assert_eq!(first(&[(1, 16_384, 1)], 16_384), Some(1));
    }
}
