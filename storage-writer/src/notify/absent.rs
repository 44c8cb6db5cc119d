//! Of which messages a member has to be told (NO-1, NO-2). Pure: who is connected and who has blocked whom, others look up.

use std::collections::{BTreeSet, HashSet};

use common::{
    ids::{Number, UserId},
    model::Message,
    notifications::NotificationKind,
    store::Candidate,
    time::Millis,
};

/// A message, as far as it matters who is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: Number,
    pub(super) from: UserId,
    pub(super) at: Millis,
    /// Nobody is told of one that was deleted, or is past its time.
    pub(super) deleted: bool,
    pub(super) mentions: Vec<UserId>,
    pub(super) mention_all: bool,
    /// The number of the message that it answers.
    pub(super) reply_to: Option<Number>,
    /// Who wrote that one, once it was looked up.
    pub(super) answers: Option<UserId>,
}

impl From<&Message> for Line {
    fn from(message: &Message) -> Self {
        Self {
            number: message.number,
            from: message.from,
            at: message.created_at,
            deleted: message.deleted,
            mentions: message.mentions.clone(),
            mention_all: message.mention_all,
            reply_to: message.reply_to,
            answers: None,
        }
    }
}

impl Line {
    fn mentions(&self, user: UserId) -> bool {
        self.mention_all || self.mentions.contains(&user)
    }

    fn is_any_of(&self, kinds: &BTreeSet<NotificationKind>, user: UserId) -> bool {
        kinds.iter().any(|kind| match kind {
            NotificationKind::Message => true,
            NotificationKind::Mention => self.mentions(user),
            NotificationKind::Reply => self.answers == Some(user),
        })
    }
}

/// Who has blocked whom: the former is not told of what the latter writes.
pub(super) type Blocks = HashSet<(UserId, UserId)>;

/// What somebody has to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unseen {
    /// The first of the messages.
    pub(super) first: Number,
    /// The last one.
    pub(super) last: Number,
    /// How many they are.
    pub(super) count: u32,
    /// Whether any of them mentions the user.
    pub(super) mentioned: bool,
}

/// Which of these messages, in the order of their numbers, a member has not seen and wants to be told of; none: nothing is to be told.
/// That they are not connected now is for the caller to see.
pub(super) fn unseen<'a>(
    lines: impl IntoIterator<Item = &'a Line>,
    who: &Candidate,
    blocks: &Blocks,
) -> Option<Unseen> {
    let kinds = wanted(who);
    if kinds.is_empty() {
        return None;
    }
    let muted_until = who.preferences.muted_until.max(who.chat.muted_until);
    let concern = |line: &&Line| {
        !line.deleted
            && line.from != who.user
            && line.number > who.read
            // Whoever was connected after it was written was not away.
            && who.last_seen.is_none_or(|seen| line.at > seen)
            && muted_until.is_none_or(|until| line.at >= until)
            && line.is_any_of(kinds, who.user)
            && !blocks.contains(&(who.user, line.from))
    };
    let told = lines.into_iter().filter(concern).map(|line| Unseen {
        first: line.number,
        last: line.number,
        count: 1,
        mentioned: line.mentions(who.user),
    });
    told.reduce(|told, one| Unseen {
        first: told.first,
        last: one.last,
        count: told.count.saturating_add(1),
        mentioned: told.mentioned || one.mentioned,
    })
}

/// Whether it matters for them who wrote what a message answers.
pub(super) fn wants_answers(who: &Candidate) -> bool {
    let kinds = wanted(who);
    kinds.contains(&NotificationKind::Reply) && !kinds.contains(&NotificationKind::Message)
}

fn wanted(who: &Candidate) -> &BTreeSet<NotificationKind> {
    who.chat.kinds.as_ref().unwrap_or(&who.preferences.kinds)
}

#[cfg(test)]
mod tests {
    use common::notifications::{ChatPreferences, Preferences};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    const ANA: u128 = 1;
    const BEN: u128 = 2;
    const EVE: u128 = 3;

    /// Written by Ana, at the hundredfold of its number.
    fn line(number: Number) -> Line {
        Line {
            number,
            from: user(ANA),
            at: Millis(number as i64 * 100),
            deleted: false,
            mentions: Vec::new(),
            mention_all: false,
            reply_to: None,
            answers: None,
        }
    }

    /// Has read nothing, was never there, has chosen nothing.
    fn ben() -> Candidate {
        Candidate {
            user: user(BEN),
            read: 0,
            last_seen: None,
            timezone: None,
            preferences: Preferences::default(),
            chat: ChatPreferences::default(),
            subscribed: false,
        }
    }

    fn kinds(kinds: &[NotificationKind]) -> BTreeSet<NotificationKind> {
        kinds.iter().copied().collect()
    }

    fn only(kinds_: &[NotificationKind]) -> Candidate {
        Candidate { preferences: Preferences { kinds: kinds(kinds_), ..Preferences::default() }, ..ben() }
    }

    fn here(kinds_: &[NotificationKind], who: Candidate) -> Candidate {
        Candidate { chat: ChatPreferences { kinds: Some(kinds(kinds_)), muted_until: None }, ..who }
    }

    fn muted(until: Option<i64>, in_chat: Option<i64>) -> Candidate {
        Candidate {
            preferences: Preferences { muted_until: until.map(Millis), ..Preferences::default() },
            chat: ChatPreferences { kinds: None, muted_until: in_chat.map(Millis) },
            ..ben()
        }
    }

    /// Four messages: one that mentions Ben, one that answers him, one by Eve that mentions all, and one that says nothing of him.
    fn talk() -> Vec<Line> {
        vec![
            Line { mentions: vec![user(EVE), user(BEN)], ..line(1) },
            Line { reply_to: Some(1), answers: Some(user(BEN)), ..line(2) },
            Line { from: user(EVE), mention_all: true, ..line(3) },
            line(4),
        ]
    }

    /// The numbers that are told, and whether Ben is mentioned there.
    fn told(lines: &[Line], who: &Candidate, blocks: &Blocks) -> (Vec<Number>, bool) {
        let numbers: Vec<_> = lines
            .iter()
            .filter_map(|one| unseen([one], who, blocks).map(|unseen| (unseen.first, unseen.mentioned)))
            .collect();
        let whole = unseen(lines, who, blocks);
        let summed = numbers.first().zip(numbers.last()).map(|(first, last)| Unseen {
            first: first.0,
            last: last.0,
            count: numbers.len() as u32,
            mentioned: numbers.iter().any(|(_, mentioned)| *mentioned),
        });
        assert_eq!(whole, summed, "all at once is what each is");
        (numbers.iter().map(|(number, _)| *number).collect(), summed.is_some_and(|sum| sum.mentioned))
    }

    #[test]
    fn no_1_who_has_seen_what_is_not_told_and_no_2_nor_who_does_not_want_it() {
        use NotificationKind::{Mention, Message, Reply};
        let eve = Candidate { user: user(EVE), ..ben() };
        let deleted: Vec<Line> = talk().into_iter().map(|line| Line { deleted: true, ..line }).collect();
        let cases: &[(&str, Candidate, &[Number], bool)] = &[
            ("everything", ben(), &[1, 2, 3, 4], true),
            ("not one's own", eve, &[1, 2, 4], true),
            ("not what was read", Candidate { read: 2, ..ben() }, &[3, 4], true),
            ("nothing unread", Candidate { read: 4, ..ben() }, &[], false),
            ("read by a later mark", Candidate { read: 9, ..ben() }, &[], false),
            ("here when it was written", Candidate { last_seen: Some(Millis(300)), ..ben() }, &[4], false),
            ("here before", Candidate { last_seen: Some(Millis(99)), ..ben() }, &[1, 2, 3, 4], true),
            ("here since", Candidate { last_seen: Some(Millis(400)), ..ben() }, &[], false),
            ("muted until then", muted(Some(300), None), &[3, 4], true),
            ("muted here", muted(None, Some(301)), &[4], false),
            ("muted twice: the longer one", muted(Some(400), Some(200)), &[4], false),
            ("muted for ever", muted(Some(i64::MAX), None), &[], false),
            ("no kind", only(&[]), &[], false),
            ("mentions", only(&[Mention]), &[1, 3], true),
            ("replies", only(&[Reply]), &[2], false),
            ("both", only(&[Reply, Mention]), &[1, 2, 3], true),
            ("messages are all of them", only(&[Reply, Message]), &[1, 2, 3, 4], true),
            ("the chat's kinds in place of one's own", here(&[Reply], ben()), &[2], false),
            ("none here", here(&[], ben()), &[], false),
            ("here all the same", here(&[Message], only(&[])), &[1, 2, 3, 4], true),
        ];
        for (what, who, numbers, mentioned) in cases {
            assert_eq!(told(&talk(), who, &Blocks::new()), (numbers.to_vec(), *mentioned), "{what}");
            assert_eq!(told(&deleted, who, &Blocks::new()), (vec![], false), "{what}, deleted");
        }
    }

    #[test]
    fn no_1_what_somebody_writes_whom_one_has_blocked_is_not_told() {
        let blocks = Blocks::from([(user(BEN), user(ANA)), (user(EVE), user(BEN)), (user(ANA), user(EVE))]);
        assert_eq!(told(&talk(), &ben(), &blocks), (vec![3], true));
    }

    #[test]
    fn no_2_authors_of_what_is_answered_matter_to_whom_it_is_a_reason() {
        use NotificationKind::{Mention, Message, Reply};
        assert!(wants_answers(&only(&[Reply])));
        assert!(wants_answers(&here(&[Reply, Mention], ben())));
        assert!(!wants_answers(&only(&[Reply, Message])));
        assert!(!wants_answers(&here(&[Mention], only(&[Reply]))));
        assert!(!wants_answers(&ben()));
    }

    fn people() -> impl Strategy<Value = UserId> {
        (ANA..=EVE).prop_map(user)
    }

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let one = (people(), 0..1_000i64, prop::bool::weighted(0.1), prop::collection::vec(people(), 0..2));
        let more = (prop::bool::weighted(0.1), prop::option::of(people()));
        prop::collection::vec((one, more), 0..12).prop_map(|all| {
            let lines =
                (1..).zip(all).map(|(number, ((from, at, deleted, mentions), (mention_all, answers)))| {
                    Line { from, at: Millis(at), deleted, mentions, mention_all, answers, ..line(number) }
                });
            lines.collect()
        })
    }

    fn chosen() -> impl Strategy<Value = BTreeSet<NotificationKind>> {
        use NotificationKind::{Mention, Message, Reply};
        prop::sample::subsequence(vec![Message, Mention, Reply], 0..=3)
            .prop_map(|kinds| kinds.into_iter().collect())
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let moment = || prop::option::of((0..1_000i64).prop_map(Millis));
        let choices = (chosen(), prop::option::of(chosen()), moment(), moment());
        (0..12u64, moment(), choices).prop_map(|(read, last_seen, (own, here, muted, muted_here))| {
            Candidate {
                read,
                last_seen,
                preferences: Preferences { kinds: own, muted_until: muted, quiet_hours: None },
                chat: ChatPreferences { kinds: here, muted_until: muted_here },
                ..ben()
            }
        })
    }

    proptest! {
        #[test]
        fn no_1_more_seen_or_muted_or_blocked_never_tells_more(
            lines in lines(), who in candidate(), later in 0..1_000i64, number in 0..12u64, blocked in people(),
        ) {
            let none = Blocks::new();
            let (before, _) = told(&lines, &who, &none);
            for number in &before {
                let line = &lines[*number as usize - 1];
                prop_assert!(line.from != who.user && !line.deleted && *number > who.read);
            }
            let later = Some(Millis(later));
            let mut others = vec![
                Candidate { read: who.read.max(number), ..who.clone() },
                Candidate { last_seen: who.last_seen.max(later), ..who.clone() },
                who.clone(),
                who.clone(),
                who.clone(),
            ];
            others[2].preferences.muted_until = who.preferences.muted_until.max(later);
            others[3].chat.muted_until = who.chat.muted_until.max(later);
            others[4].chat.kinds = Some(wanted(&who).iter().skip(1).copied().collect());
            for other in &others {
                let (after, _) = told(&lines, other, &none);
                prop_assert!(after.iter().all(|number| before.contains(number)));
            }
            let (after, _) = told(&lines, &who, &Blocks::from([(who.user, blocked)]));
            let theirs = |number: &&Number| lines[**number as usize - 1].from == blocked;
            let rest: Vec<Number> = before.iter().filter(|number| !theirs(number)).copied().collect();
            prop_assert_eq!(after, rest);
        }

        #[test]
        fn no_1_told_in_parts_is_told_as_a_whole(lines in lines(), who in candidate(), at in 0..12usize) {
            let (first, second) = lines.split_at(at.min(lines.len()));
            let none = Blocks::new();
            let mut parts = told(first, &who, &none).0;
            parts.extend(told(second, &who, &none).0);
            prop_assert_eq!(parts, told(&lines, &who, &none).0);
        }
    }
}
