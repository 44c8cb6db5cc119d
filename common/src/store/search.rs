//! Finding messages by their words (ME-6): what an engine offers, and how it is found, which is the same in each. What matches, and the form
//! of the index, is in [`crate::search`].

mod make;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant as Moment;

pub(super) use self::make::{Due, Made, make};
use super::{Result, StoreError};
use crate::{
    ids::{AppId, ChatKey, Number, Seq, UserId},
    model::{Head, Message},
    search::{Match, Query, keys::Sought, segment},
    time::Millis,
};

/// Messages that one search finds at most, on all its pages.
pub const MESSAGES_FOUND: usize = 500;

/// Chats that a search in all of a user's chats looks through: those with the most recent activity. Of each up to 255 messages are in no
/// segment and are read: of fifty some 6,000, which takes longer than all else.
pub const CHATS_SEARCHED: usize = 50;

/// Messages of the index that one search looks at, those without a typo and the newer ones first. With those that are not in the index
/// yet they take some 10 ms.
const LOOKED_AT: usize = 1_000;

/// Messages that are not in the index and that one search looks at: 255 of each chat, unless the index is behind.
const NOT_INDEXED: usize = 30_000;

/// Of them the newest of each chat that are read at once.
const TAIL: u32 = 256;

/// Messages of the index that were changed since and that one search looks at.
const CHANGED: usize = 1_000;

/// Messages read at once.
const TOGETHER: usize = 256;

/// How long messages that are not in the index are looked through.
const PATIENCE: Duration = Duration::from_secs(2);

/// Segments that are asked together, the newest of each chat first: a word that many messages have is found in the first few.
const WAVES: [usize; 4] = [4, 12, 64, 256];

/// Changed messages of a segment after which it is made anew at once: so many, or one of so many of its messages.
pub(super) const MANY_CHANGED: i64 = 256;

/// How long a segment that one process makes is left alone by others.
pub(super) const LEASE_MS: i64 = 60_000;

/// Where somebody searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchScope {
    /// In one chat. Whether they are in it is the owner's to say, as with [`super::Chats::history`].
    Chat(ChatKey),
    /// In the [`CHATS_SEARCHED`] chats of a user with the most recent activity, as the store shows them.
    ChatsOf(AppId, UserId),
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// As it stands, with its `client_id`.
    pub message: Message,
    /// How well it matches.
    pub rank: Match,
}

impl Hit {
    /// The best first, of equal ones the newer.
    pub fn sort(hits: &mut [Self]) {
        hits.sort_by_key(|hit| {
            let Message { created_at, chat, number, .. } = hit.message;
            Reverse((hit.rank, created_at, chat, number))
        });
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The best first, at most [`MESSAGES_FOUND`].
    pub hits: Vec<Hit>,
    /// How far the one chat is in the store; of several, nothing.
    pub head: Head,
    /// Whether all was looked through. Not when more messages may match than are looked at, nor of more chats than are looked through, nor while
    /// the index is far behind.
    pub whole: bool,
}

/// What finds messages.
#[async_trait]
pub trait Search: Send + Sync {
    /// The messages that match, read at one instant. Deleted ones do not, and of an edited one only its present text does.
    async fn search(&self, within: SearchScope, query: &Query) -> Result<Findings>;

    /// Makes the segment of the index that is due first, if another process does not make it already; `false` when there is nothing to do.
    /// To be called again and again beside the writers, by any number of processes.
    async fn index_next(&self, now: Millis) -> Result<bool>;

    /// Calls for the segments in which messages were changed before `before`, or many of them; answers how many. What was deleted is in
    /// the index, as hashes of its parts, until its segment was made anew.
    async fn index_changed(&self, before: Millis) -> Result<u64>;
}

/// A segment of a chat's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) chat: ChatKey,
    pub(super) first: Number,
    pub(super) last: Number,
    pub(super) buckets: u32,
}

/// A bucket of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) chat: ChatKey,
    /// Of its segment.
    pub(super) first: Number,
    pub(super) bucket: u32,
}

/// Messages of a chat between two numbers, both not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) chat: ChatKey,
    pub(super) after: Number,
    pub(super) before: Number,
}

/// What is looked at of a message. Of a deleted one the text is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) chat: ChatKey,
    pub(super) number: Number,
    pub(super) at: Millis,
    pub(super) body: String,
}

/// An engine's tables as they are at one instant.
#[async_trait]
pub(super) trait Instant: Send {
    /// Of many one more than is looked through.
    async fn chats(&mut self, within: SearchScope) -> Result<Vec<(ChatKey, Head)>>;

    /// In no order.
    async fn segments(&mut self, chats: &[ChatKey]) -> Result<Vec<Segment>>;

    /// With each its place in `wanted`; those that are empty may be missing.
    async fn buckets(&mut self, wanted: &[Bucket]) -> Result<Vec<(usize, Vec<u8>)>>;

    /// Messages in segments that were changed since and still say something, the newest of each chat first, at most `limit` of a chat.
    async fn changed(&mut self, chats: &[ChatKey], limit: usize) -> Result<Vec<(ChatKey, Number)>>;

    /// Of each its newest messages, at most `limit`.
    async fn tails(&mut self, tails: &[Tail], limit: u32) -> Result<Vec<Body>>;

    /// Those of these that are there.
    async fn bodies(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Body>>;

    /// Those of these that are there.
    async fn messages(&mut self, messages: &[(ChatKey, Number)]) -> Result<Vec<Message>>;

    /// The oldest messages of a chat after `after` up to `upto`, in order.
    async fn from(&mut self, chat: ChatKey, after: Number, upto: Number, limit: u32) -> Result<Vec<Body>>;

    /// The changes of messages from `first` up to `upto` that are noted.
    async fn changes(&mut self, chat: ChatKey, first: Number, upto: Number) -> Result<Vec<(Number, Seq)>>;
}

/// Finds messages.
pub(super) async fn find(instant: &mut impl Instant, within: SearchScope, query: &Query) -> Result<Findings> {
    let chats = instant.chats(within).await?;
    let head = match (within, chats.first()) {
        (SearchScope::Chat(_), Some((_, head))) => *head,
        _ => Head::default(),
    };
    if query.is_empty() || chats.is_empty() {
        return Ok(Findings { hits: Vec::new(), head, whole: true });
    }
    let whole = chats.len() <= CHATS_SEARCHED;
    let chats: Vec<ChatKey> = chats.into_iter().map(|(chat, _)| chat).take(CHATS_SEARCHED).collect();
    let segments = instant.segments(&chats).await?;
    let mut finding = Finding { query, seen: HashSet::new(), matches: Vec::new(), whole };
    finding.look_at_tails(instant, &chats, &segments).await?;
    finding.look_at_changed(instant, &chats).await?;
    finding.look_at_index(instant, segments).await?;
    let Finding { matches, whole, .. } = finding;
    Ok(Findings { hits: hits(instant, matches).await?, head, whole })
}

/// A message that matches.
struct Matching {
    rank: Match,
    at: Millis,
    chat: ChatKey,
    number: Number,
}

/// The best of what matches, as messages.
async fn hits(instant: &mut impl Instant, mut matches: Vec<Matching>) -> Result<Vec<Hit>> {
    matches.sort_unstable_by_key(|one| Reverse((one.rank, one.at, one.chat.chat, one.number)));
    matches.truncate(MESSAGES_FOUND);
    let keys: Vec<(ChatKey, Number)> = matches.iter().map(|one| (one.chat, one.number)).collect();
    let ranks: HashMap<_, Match> =
        matches.iter().map(|one| ((one.chat.chat, one.number), one.rank)).collect();
    let messages = instant.messages(&keys).await?;
    let hit = |message: Message| {
        let rank = *ranks.get(&(message.chat, message.number))?;
        Some(Hit { message, rank })
    };
    let mut hits: Vec<Hit> = messages.into_iter().filter_map(hit).collect();
    Hit::sort(&mut hits);
    Ok(hits)
}

/// A message that may match.
struct Candidate {
    exact: bool,
    /// How many segments of its chat are newer.
    depth: usize,
    chat: ChatKey,
    number: Number,
}

struct Finding<'q> {
    query: &'q Query,
    seen: HashSet<(ChatKey, Number)>,
    matches: Vec<Matching>,
    whole: bool,
}

impl Finding<'_> {
    fn look_at(&mut self, bodies: &[Body]) {
        for Body { chat, number, at, body } in bodies {
            if let Some(rank) = self.query.rank(body).filter(|_| self.seen.insert((*chat, *number))) {
                self.matches.push(Matching { rank, at: *at, chat: *chat, number: *number });
            }
        }
    }

    /// What is not in the index yet.
    async fn look_at_tails(
        &mut self,
        instant: &mut impl Instant,
        chats: &[ChatKey],
        segments: &[Segment],
    ) -> Result<()> {
        let mut covered: HashMap<ChatKey, Number> = HashMap::new();
        for segment in segments {
            let last = covered.entry(segment.chat).or_default();
            *last = segment.last.max(*last);
        }
        let tail = |chat: &ChatKey| Tail {
            chat: *chat,
            after: covered.get(chat).copied().unwrap_or_default(),
            before: Number::MAX,
        };
        let mut tails: Vec<Tail> = chats.iter().map(tail).collect();
        let (begun, mut looked_at) = (Moment::now(), 0);
        while !tails.is_empty() {
            if looked_at >= NOT_INDEXED || begun.elapsed() > PATIENCE {
                self.whole = false;
                break;
            }
            let bodies = instant.tails(&tails, TAIL).await?;
            self.look_at(&bodies);
            looked_at += bodies.len();
            let mut read: HashMap<ChatKey, (u32, Number)> = HashMap::with_capacity(tails.len());
            for body in &bodies {
                let (count, oldest) = read.entry(body.chat).or_insert((0, Number::MAX));
                (*count, *oldest) = (*count + 1, body.number.min(*oldest));
            }
            tails.retain_mut(|tail| match read.get(&tail.chat) {
                Some((count, oldest)) if *count >= TAIL => {
                    tail.before = *oldest;
                    tail.after + 1 < tail.before
                }
                _ => false,
            });
        }
        Ok(())
    }

    /// What was changed since it came into the index.
    async fn look_at_changed(&mut self, instant: &mut impl Instant, chats: &[ChatKey]) -> Result<()> {
        let mut changed = instant.changed(chats, CHANGED + 1).await?;
        if changed.len() > CHANGED {
            self.whole = false;
            changed.truncate(CHANGED);
        }
        for some in changed.chunks(TOGETHER) {
            self.look_at(&instant.bodies(some).await?);
        }
        Ok(())
    }

    async fn look_at_index(&mut self, instant: &mut impl Instant, mut segments: Vec<Segment>) -> Result<()> {
        // The newest of each chat first.
        segments.sort_unstable_by_key(|segment| (segment.chat, Reverse(segment.first)));
        let mut deep: Vec<(usize, Segment)> = Vec::with_capacity(segments.len());
        for segment in segments {
            let depth =
                deep.last().filter(|(_, other)| other.chat == segment.chat).map_or(0, |(depth, _)| depth + 1);
            deep.push((depth, segment));
        }
        deep.sort_by_key(|(depth, _)| *depth);
        let sought = self.query.sought();
        let mut candidates: Vec<Candidate> = Vec::new();
        let (mut rest, mut waves) = (deep.as_slice(), WAVES.into_iter());
        let mut size = 0;
        while !rest.is_empty() && candidates.iter().filter(|one| one.exact).count() < LOOKED_AT {
            size = waves.next().unwrap_or(size);
            let (wave, later) = rest.split_at(size.min(rest.len()));
            rest = later;
            candidates.extend(ask(instant, wave, &sought).await?);
        }
        self.whole &= rest.is_empty() && candidates.len() <= LOOKED_AT;
        candidates.sort_unstable_by_key(|one| (!one.exact, one.depth, Reverse(one.number)));
        let keys: Vec<(ChatKey, Number)> = candidates.iter().map(|one| (one.chat, one.number)).collect();
        for some in keys.get(..keys.len().min(LOOKED_AT)).unwrap_or_default().chunks(TOGETHER) {
            self.look_at(&instant.bodies(some).await?);
        }
        Ok(())
    }
}

/// Asks some segments which messages may match.
async fn ask(
    instant: &mut impl Instant,
    segments: &[(usize, Segment)],
    sought: &[Sought],
) -> Result<Vec<Candidate>> {
    let mut keys: Vec<u32> = sought.iter().flat_map(|one| one.all.iter().chain(&one.any)).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let mut wanted: Vec<Bucket> = Vec::new();
    // Of each segment in `wanted`: where its buckets begin.
    let mut begins = Vec::with_capacity(segments.len());
    for (_, segment) in segments {
        begins.push(wanted.len());
        let mut last = None;
        for key in &keys {
            let bucket = segment::bucket_of(*key, segment.buckets);
            if last.replace(bucket) != Some(bucket) {
                wanted.push(Bucket { chat: segment.chat, first: segment.first, bucket });
            }
        }
    }
    let mut read: Vec<Vec<u8>> = vec![Vec::new(); wanted.len()];
    for (place, bytes) in instant.buckets(&wanted).await? {
        if let Some(bucket) = read.get_mut(place) {
            *bucket = bytes;
        }
    }
    let mut candidates = Vec::new();
    for ((depth, segment), begin) in segments.iter().zip(begins) {
        let mut lists: HashMap<u32, Vec<u32>> = HashMap::with_capacity(keys.len());
        for (bucket, bytes) in wanted.iter().zip(&read).skip(begin) {
            if bucket.first != segment.first || bucket.chat != segment.chat {
                break;
            }
            let found = segment::places(bytes, &keys, segment.last - segment.first + 1);
            lists.extend(found.map_err(|error| {
                StoreError::Corrupt(format!("segment {} of chat {}: {error}", segment.first, segment.chat))
            })?);
        }
        let candidate = |(exact, place): (bool, u32)| Candidate {
            exact,
            depth: *depth,
            chat: segment.chat,
            number: segment.first + u64::from(place),
        };
        candidates.extend(matching(&lists, sought).into_iter().map(candidate));
    }
    Ok(candidates)
}

/// The places of a segment's messages that have what is sought, and whether without a typo.
fn matching(lists: &HashMap<u32, Vec<u32>>, sought: &[Sought]) -> Vec<(bool, u32)> {
    let mut both: Option<(Vec<u32>, Vec<u32>)> = None;
    for Sought { all, any } in sought {
        let exact = with_all(lists, all);
        let mut either = exact.clone();
        either.extend(any.iter().filter_map(|key| lists.get(key)).flatten());
        either.sort_unstable();
        either.dedup();
        both = Some(match both {
            None => (exact, either),
            Some((before, either_before)) => (common(&before, &exact), common(&either_before, &either)),
        });
    }
    let (exact, either) = both.unwrap_or_default();
    either.into_iter().map(|place| (exact.binary_search(&place).is_ok(), place)).collect()
}

fn with_all(lists: &HashMap<u32, Vec<u32>>, keys: &[u32]) -> Vec<u32> {
    let mut found: Option<Vec<u32>> = None;
    for key in keys {
        let Some(list) = lists.get(key) else { return Vec::new() };
        found = Some(match found {
            None => list.clone(),
            Some(found) => common(&found, list),
        });
    }
    found.unwrap_or_default()
}

/// What is in both lists, which are in order.
fn common(one: &[u32], other: &[u32]) -> Vec<u32> {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let mut rest = long;
    let mut found = Vec::with_capacity(short.len());
    for place in short {
        rest = rest.get(rest.partition_point(|other| other < place)..).unwrap_or_default();
        if rest.first() == Some(place) {
            found.push(*place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_must_have_every_word_and_each_as_it_is_or_with_a_typo() {
        let lists = HashMap::from([
            (1, vec![0, 1, 2, 5, 9]),
            (2, vec![1, 2, 3, 9]),
            (3, vec![4, 5]),
            (4, vec![1, 4, 5, 9]),
        ]);
        let word = |all: &[u32], any: &[u32]| Sought { all: all.to_vec(), any: any.to_vec() };
        let found = |sought: &[Sought]| matching(&lists, sought);
        assert_eq!(found(&[word(&[1, 2], &[])]), [(true, 1), (true, 2), (true, 9)]);
        assert_eq!(found(&[word(&[1, 7], &[3])]), [(false, 4), (false, 5)]);
        assert_eq!(
            found(&[word(&[1, 2], &[3]), word(&[4], &[])]),
            [(true, 1), (false, 4), (false, 5), (true, 9)]
        );
        assert_eq!(found(&[word(&[7], &[8])]), []);
        assert_eq!(found(&[]), []);
    }
}
