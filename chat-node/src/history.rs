//! Reading messages: what the store has, and what its owner confirmed that the store may not have yet, joined by `seq`.
//!
//! The owner is asked first. It answers members only, with confirmed changes that reach at least back to what the store had then; the store
//! is read afterwards, so the two overlap and nothing falls between. A message that was acknowledged is therefore in the next answer.
//! When the owner is silent, the store alone answers, and `complete` is false.

use std::collections::BTreeMap;

use common::{
    ids::{ChatId, ChatKey, Number, Seq},
    model::{ChatsPage, Head, Message, PageRequest, limits},
    problem::Problem,
    store::{Range, Slice},
    token::Caller,
    wire::{
        client::FieldError,
        codes::ErrorCode,
        owner::{Answer, Ask},
        record::{Change, Record, What},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::commands::{Commands, hide_client_id, is_application, undone};

/// Answers of about 1 MiB that an owner is asked for: all that it holds of a partition.
const ANSWERS: usize = 64;

/// Chats of one bundle that are read at once.
const TOGETHER: usize = 10;

/// Messages of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// In the order asked for, no hole between them. A deleted one keeps its number and has no body.
    pub messages: Vec<Message>,
    /// How far the chat is, as far as could be seen.
    pub head: Head,
    /// Whether everything that was acknowledged before the request was looked at.
    pub complete: bool,
}

/// What the owner said: how far the chat is, and the changes that the store may lack.
#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) head: Head,
    pub(crate) changes: Vec<Change>,
}

impl Recent {
    /// From an owner's answer; none when it cannot be read, which is said.
    pub(crate) fn read(chat: ChatId, head: Head, changes: &[bytes::Bytes]) -> Option<Self> {
        let changes = decode(changes);
        if changes.is_none() {
            tracing::error!(%chat, "an owner answered with bytes that are no changes of the chat");
        }
        Some(Self { head, changes: changes? })
    }

    /// Its changes behind `seq`, up to the head; none when one is missing.
    pub(crate) fn behind(&self, seq: Seq) -> Option<Vec<&Change>> {
        let behind: Vec<&Change> = self.changes.iter().filter(|change| change.seq > seq).collect();
        let follow = behind.iter().zip(seq + 1..).all(|(change, seq)| change.seq == seq);
        let reach = behind.last().map_or(seq, |change| change.seq) >= self.head.seq;
        (follow && reach).then_some(behind)
    }
}

impl Commands {
    /// Messages of a chat: `limit` of them (1 to [`limits::PER_PAGE`]) from one end of `range` on.
    ///
    /// # Errors
    /// `invalid` for a limit out of range, `not_found` to who is not in the chat, `retry_later` when neither owner nor store answers.
    pub async fn history(
        &self,
        caller: &Caller,
        chat: ChatId,
        range: Range,
        limit: u32,
    ) -> Result<History, Problem> {
        if !(1..=limits::PER_PAGE).contains(&limit) {
            let msg = format!("must be 1 to {}", limits::PER_PAGE);
            return Err(Problem::invalid(FieldError::body("limit", msg)));
        }
        let recent = self.recent(caller, chat).await?;
        self.joined(caller, chat, recent.as_ref(), range, limit).await
    }

    /// A page of a chat's messages, newest first; beside it how many messages there are.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn history_page(
        &self,
        caller: &Caller,
        chat: ChatId,
        page: PageRequest,
    ) -> Result<(History, u64), Problem> {
        let recent = self.recent(caller, chat).await?;
        // Pages are counted from the newest message, so that one must be known first: by the owner, or else by the store.
        let newest = match &recent {
            Some(recent) => recent.head.number,
            None => self.joined(caller, chat, None, Range::Before(Number::MAX), 1).await?.head.number,
        };
        let before = newest.saturating_sub(page.skip()).saturating_add(1);
        let history =
            self.joined(caller, chat, recent.as_ref(), Range::Before(before), page.per_page).await?;
        Ok((history, newest))
    }

    /// A page of the caller's chats, and the newest messages of each (ME-10): at most `limit`, newest first. None for a chat that the caller has
    /// left meanwhile.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn bundle(
        &self,
        caller: &Caller,
        page: PageRequest,
        limit: u32,
    ) -> Result<(ChatsPage, Vec<Option<History>>), Problem> {
        let chats = self.chats(caller, page).await?;
        let read =
            async |chat: ChatId| match self.history(caller, chat, Range::Before(Number::MAX), limit).await {
                Ok(history) => Ok(Some(history)),
                Err(problem) if problem.code == ErrorCode::NotFound => Ok(None),
                Err(problem) => Err(problem),
            };
        let ids: Vec<ChatId> = chats.results.iter().map(|chat| chat.id).collect();
        let histories = stream::iter(ids).map(read).buffered(TOGETHER).try_collect().await?;
        Ok((chats, histories))
    }

    /// One message as it stands.
    ///
    /// # Errors
    /// `not_found`, `retry_later`: also when the store does not have it and the owner, who might, is silent.
    pub async fn message(&self, caller: &Caller, chat: ChatId, number: Number) -> Result<Message, Problem> {
        let recent = self.recent(caller, chat).await?;
        let range = Range::Before(number.saturating_add(1));
        let history = self.joined(caller, chat, recent.as_ref(), range, 1).await?;
        match history.messages.into_iter().find(|message| message.number == number) {
            Some(message) => Ok(message),
            None if history.complete => Err(Problem::not_found("message")),
            None => Err(Problem::retry_later("the chat's newest messages cannot be read at the moment")),
        }
    }

    /// What the store may lack; none when the owner is silent and the store shows the caller in the chat.
    pub(crate) async fn recent(&self, caller: &Caller, chat: ChatId) -> Result<Option<Recent>, Problem> {
        match self.ask(caller, chat, false, Ask::Recent).await {
            Answer::Recent { head, changes } => {
                if let Some(recent) = Recent::read(chat, head, &changes) {
                    return Ok(Some(recent));
                }
            }
            Answer::Unknown | Answer::NotOwner => {}
            Answer::Refused(refusal) if refusal.code.temporary() => {}
            other => return Err(undone(other)),
        }
        // Nobody but the store can say now who is a member.
        let key = ChatKey { app: caller.app, chat };
        if is_application(caller) || self.store.is_member(key, caller.user).await? {
            Ok(None)
        } else {
            Err(Problem::not_found("chat"))
        }
    }

    async fn joined(
        &self,
        caller: &Caller,
        chat: ChatId,
        recent: Option<&Recent>,
        range: Range,
        limit: u32,
    ) -> Result<History, Problem> {
        let range = storable_range(range);
        let key = ChatKey { app: caller.app, chat };
        // A chat that the store does not know is one of which nothing is drained.
        let stored = self.store.history(key, range, limit).await?.unwrap_or(Slice {
            messages: Vec::new(),
            head: Head::default(),
            expired: 0,
        });
        let filled = match recent {
            Some(recent) => self.filled(caller, chat, recent, stored.head.seq).await,
            None => None,
        };
        let mut history = match filled.as_ref().or(recent) {
            Some(recent) => join(stored, recent, range, limit),
            None => History { messages: stored.messages, head: stored.head, complete: false },
        };
        for message in &mut history.messages {
            hide_client_id(caller, Some(message));
        }
        Ok(history)
    }

    /// An owner tells its newest changes, as far as they fit one answer. When the writers are far behind, those between what is stored and
    /// them are asked for as well; none when there is nothing between, or it cannot be had.
    pub(crate) async fn filled(
        &self,
        caller: &Caller,
        chat: ChatId,
        recent: &Recent,
        drained: Seq,
    ) -> Option<Recent> {
        let first = recent.changes.iter().find(|change| change.seq > drained)?.seq;
        let mut changes: Vec<Change> = Vec::new();
        let mut reached = drained;
        for _ in 0..ANSWERS {
            if reached + 1 >= first {
                break;
            }
            match self.ask(caller, chat, false, Ask::Changes { after: reached }).await {
                Answer::Changes { changes: more, .. } => changes.extend(decode(&more)?),
                _ => return None,
            }
            let before = std::mem::replace(&mut reached, changes.last()?.seq);
            if reached <= before {
                return None;
            }
        }
        if changes.is_empty() {
            return None;
        }
        changes.retain(|change| change.seq < first);
        changes.extend(recent.changes.iter().cloned());
        Some(Recent { head: recent.head, changes })
    }
}

/// Numbers are stored in signed 64 bits; no chat gets that far.
fn storable_range(range: Range) -> Range {
    let last = Number::MAX / 2;
    match range {
        Range::Before(number) if number > last => Range::Before(Number::MAX),
        Range::Before(number) => Range::Before(number),
        Range::After(number) => Range::After(number.min(last)),
    }
}

fn decode(records: &[bytes::Bytes]) -> Option<Vec<Change>> {
    let change = |bytes: &bytes::Bytes| match Record::decode(bytes) {
        Ok(Record::Change(change)) => Some(change),
        Ok(Record::Claim(_)) | Err(_) => None,
    };
    records.iter().map(change).collect()
}

/// The messages of `range` with the owner's changes applied to what is stored.
///
/// What is stored ends at `stored.head`, whatever was drained between the owner's answer and the store's; the changes after it must follow
/// by one. Where they do not (a store that is behind what the owner knew of it), they are left out, and the answer says that it is not
/// complete.
fn join(stored: Slice, recent: &Recent, range: Range, limit: u32) -> History {
    let Slice { messages, head: drained, expired: _ } = stored;
    let Some(undrained) = recent.behind(drained.seq) else {
        return History { messages, head: drained, complete: false };
    };

    let asked = |number: Number| match range {
        Range::Before(end) => number < end,
        Range::After(start) => number > start,
    };
    let full = messages.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let mut head = drained;
    let mut by_number: BTreeMap<Number, Message> =
        messages.into_iter().map(|message| (message.number, message)).collect();
    for change in undrained {
        head.seq = change.seq;
        if let Some(number) = change.number() {
            head.number = number;
        }
        match &change.what {
            // A page of oldest messages that is full already ends before the newest.
            What::Sent { number, .. } if asked(*number) && !(full && matches!(range, Range::After(_))) => {
                by_number.extend(change.message().map(|message| (*number, message)));
            }
            what => {
                if let Some(present) = amended(what).and_then(|number| by_number.get_mut(&number)) {
                    amend(present, what);
                }
            }
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let messages = match range {
        Range::Before(_) => by_number.into_values().rev().take(limit).collect(),
        Range::After(_) => by_number.into_values().take(limit).collect(),
    };
    History { messages, head, complete: true }
}

/// The message that a change finds there and makes another.
pub(crate) fn amended(what: &What) -> Option<Number> {
    match what {
        What::Edited { message } => Some(message.number),
        What::Reacted { number, .. } | What::Erased { number } => Some(*number),
        _ => None,
    }
}

/// Makes the message that a change is about ([`amended`]) what it is from then on.
pub(crate) fn amend(message: &mut Message, what: &What) {
    match what {
        // What has ended stays so: the writer leaves it alone as well.
        _ if message.expired => {}
        What::Edited { message: edited } => message.clone_from(edited),
        What::Reacted { reactions, .. } => message.reactions.clone_from(reactions),
        What::Erased { .. } => erase(message),
        _ => {}
    }
}

/// A deleted message: its place without what it said.
pub(crate) fn erase(message: &mut Message) {
    message.deleted = true;
    message.body.clear();
    message.attachments.clear();
    message.reactions.clear();
    message.mentions.clear();
    message.mention_all = false;
}

#[cfg(test)]
mod tests {
    use common::{
        ids::{AppId, ChatId, MessageId, UserId},
        model::{MessageKind, Reaction, Role},
        time::Millis,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const CHAT: ChatId = ChatId(Uuid::from_u128(7));

    /// A chat's life: mostly messages, with edits, deletions and changes that are no message's between.
    fn life() -> impl Strategy<Value = Vec<Change>> {
        proptest::collection::vec((0_u8..10, any::<u16>()), 0..40).prop_map(|steps| {
            let mut alive: Vec<Message> = Vec::new();
            let mut number = 0;
            let mut changes: Vec<Change> = Vec::new();
            for (seq, (step, pick)) in (1..).zip(steps) {
                let picked = usize::from(pick) % alive.len().max(1);
                let what = match step {
                    0 => What::Joined { user: UserId::random(), role: Role::Member },
                    1 | 2 if !alive.is_empty() => {
                        let message = &mut alive[picked];
                        message.body = format!("edited by {seq}");
                        message.edited_at = Some(Millis(seq as i64));
                        What::Edited { message: Box::new(message.clone()) }
                    }
                    4 | 5 if !alive.is_empty() => {
                        let message = &mut alive[picked];
                        message.reactions =
                            vec![Reaction { emoji: "+".into(), count: seq, users: Vec::new() }];
                        let (number, reactions) = (message.number, message.reactions.clone());
                        What::Reacted { number, emoji: "+".into(), on: step == 4, reactions }
                    }
                    3 if !alive.is_empty() => What::Erased { number: alive.remove(picked).number },
                    _ => {
                        number += 1;
                        What::Sent {
                            id: MessageId::random(),
                            number,
                            client_id: None,
                            body: format!("message {number}"),
                            kind: MessageKind::Text,
                            reply_to: None,
                            attachments: vec!["a".into()],
                            mentions: vec![UserId(Uuid::from_u128(2))],
                            mention_all: true,
                            sent_as: None,
                        }
                    }
                };
                let (app, chat, by) = (AppId::DEFAULT, CHAT, UserId(Uuid::from_u128(1)));
                let change = Change { app, chat, term: 0, n: seq, seq, at: Millis(seq as i64), by, what };
                if change.number().is_some() {
                    alive.extend(change.message());
                }
                changes.push(change);
            }
            changes
        })
    }

    /// What a store answers that has drained these changes: all messages, told from the beginning, then the wanted ones picked.
    fn stored(changes: &[Change], range: Range, limit: u32) -> Slice {
        let mut all: Vec<Message> = Vec::new();
        for change in changes {
            match &change.what {
                What::Sent { .. } => all.extend(change.message()),
                What::Edited { message } => all[message.number as usize - 1] = (**message).clone(),
                What::Erased { number } => {
                    let message = &mut all[*number as usize - 1];
                    (message.deleted, message.body) = (true, String::new());
                    message.attachments = Vec::new();
                    (message.reactions, message.mentions) = (Vec::new(), Vec::new());
                    message.mention_all = false;
                }
                What::Reacted { number, reactions, .. } => {
                    all[*number as usize - 1].reactions = reactions.clone();
                }
                _ => {}
            }
        }
        let head = Head { number: all.len() as u64, seq: changes.len() as u64 };
        match range {
            Range::Before(end) => {
                all.retain(|message| message.number < end);
                all.reverse();
            }
            Range::After(start) => all.retain(|message| message.number > start),
        }
        all.truncate(limit as usize);
        Slice { messages: all, head, expired: 0 }
    }

    fn range() -> impl Strategy<Value = Range> {
        prop_oneof![
            (0_u64..45).prop_map(Range::Before),
            Just(Range::Before(Number::MAX)),
            (0_u64..45).prop_map(Range::After),
        ]
    }

    /// Three places in a life, in order.
    fn places(of: usize) -> impl Strategy<Value = [usize; 3]> {
        [0..=of, 0..=of, 0..=of].prop_map(|mut places| {
            places.sort_unstable();
            places
        })
    }

    fn lives() -> impl Strategy<Value = (Vec<Change>, [usize; 3])> {
        life().prop_flat_map(|changes| {
            let places = places(changes.len());
            (Just(changes), places)
        })
    }

    fn told(changes: &[Change], from: usize, to: usize) -> Recent {
        Recent { head: stored(&changes[..to], Range::After(0), 0).head, changes: changes[from..to].to_vec() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn wherever_store_and_owner_meet_the_page_is_that_of_a_store_that_has_everything(
            (changes, [known, one, other]) in lives(),
            range in range(),
            limit in 1_u32..12,
            store_is_ahead in any::<bool>(),
        ) {
            // The owner tells everything after what it knew the store to have; the store, read later, has that at least, and may have
            // what came after the owner's answer.
            let (answered, drained) = if store_is_ahead { (one, other) } else { (other, one) };
            let history = join(stored(&changes[..drained], range, limit), &told(&changes, known, answered), range, limit);
            let expected = stored(&changes[..other], range, limit);
            prop_assert_eq!(history.messages, expected.messages);
            prop_assert_eq!(history.head, expected.head);
            prop_assert!(history.complete);
        }

        #[test]
        fn a_hole_between_store_and_owner_is_never_called_complete(
            (changes, [drained, known, answered]) in lives(),
            range in range(),
            limit in 1_u32..12,
        ) {
            let slice = stored(&changes[..drained], range, limit);
            let history = join(slice.clone(), &told(&changes, known, answered), range, limit);
            prop_assert_eq!(history.complete, drained == known);
            if !history.complete {
                prop_assert_eq!(history.messages, slice.messages);
                prop_assert_eq!(history.head, slice.head);
            }
        }

        #[test]
        fn a_page_has_no_hole(
            (changes, [known, drained, answered]) in lives(),
            range in range(),
            limit in 1_u32..12,
        ) {
            let history = join(stored(&changes[..drained], range, limit), &told(&changes, known, answered), range, limit);
            let numbers: Vec<Number> = history.messages.iter().map(|message| message.number).collect();
            let step = |pair: &[Number]| match range {
                Range::Before(_) => pair[0] == pair[1] + 1,
                Range::After(_) => pair[0] + 1 == pair[1],
            };
            prop_assert!(numbers.windows(2).all(step), "{numbers:?}");
        }
    }
}
