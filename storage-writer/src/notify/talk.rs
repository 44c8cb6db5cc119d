//! What was said in a chat, as far as somebody may have to be told of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{
    ids::{ChatKey, Number, UserId},
    model::Message,
    store::{Candidate, Range, Result, Sending, SharedStore},
    time::Millis,
};
use uuid::Uuid;

use super::{
    absent::{Line, Unseen},
    body::{Kept, recipient},
};

/// Messages that are read at once: 16 KiB each at most.
const MESSAGES: u32 = 200;

/// Members whom one delivery to a webhook is about: 100 bytes each.
const RECIPIENTS: usize = 500;

/// Some messages of one chat.
pub(super) struct Talk {
    chat: ChatKey,
    lines: Vec<Line>,
    answers_known: bool,
}

impl Talk {
    /// Messages that one round is about, and that somebody is told of at most when their quiet hours are over: of more, the newest. Some 100
    /// bytes each, and as many decisions for each member of a page.
    pub(super) const MOST: Number = 1_000;

    /// The messages from `from` on that were written by `before`, or up to `upto` if it is given, at most [`Self::MOST`].
    pub(super) async fn round(
        store: &SharedStore,
        chat: ChatKey,
        from: Number,
        upto: Option<Number>,
        before: Millis,
    ) -> Result<Self> {
        let is_due = |message: &Message| match upto {
            Some(upto) => message.number <= upto,
            None => message.created_at <= before,
        };
        Self::read(store, chat, from, is_due).await
    }

    /// The messages from `from` to `upto`, of more than [`Self::MOST`] the newest.
    pub(super) async fn between(
        store: &SharedStore,
        chat: ChatKey,
        from: Number,
        upto: Number,
    ) -> Result<Self> {
        let from = from.max(upto.saturating_sub(Self::MOST - 1));
        Self::read(store, chat, from, |message| message.number <= upto).await
    }

    /// The messages from `from` on, as long as they are wanted, at most [`Self::MOST`].
    async fn read(
        store: &SharedStore,
        chat: ChatKey,
        from: Number,
        is_wanted: impl Fn(&Message) -> bool,
    ) -> Result<Self> {
        let mut talk = Self { chat, lines: Vec::new(), answers_known: false };
        let mut after = from.saturating_sub(1);
        while !talk.is_full() {
            let slice = store.history(chat, Range::After(after), MESSAGES).await?;
            let messages = slice.map(|slice| slice.messages).unwrap_or_default();
            let wanted: Vec<Line> =
                messages.iter().take_while(|one| is_wanted(one)).map(Line::from).collect();
            let Some(last) = wanted.last() else { break };
            after = last.number;
            let is_end = wanted.len() < MESSAGES as usize;
            talk.lines.extend(wanted);
            if is_end {
                break;
            }
        }
        Ok(talk)
    }

    /// Whether there may be more messages of its kind than one round is about.
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() as Number >= Self::MOST
    }

    /// In the order of their numbers.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Those between two of them.
    pub(super) fn lines_between(&self, from: Number, upto: Number) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| (from..=upto).contains(&line.number))
    }

    /// Everybody who wrote any of them.
    pub(super) fn authors(&self) -> HashSet<UserId> {
        self.lines.iter().filter(|line| !line.deleted).map(|line| line.from).collect()
    }

    /// Looks up who wrote what is answered, unless it was done.
    pub(super) async fn know_answers(&mut self, store: &SharedStore) -> Result<()> {
        if self.answers_known {
            return Ok(());
        }
        let mut authors: HashMap<Number, UserId> =
            self.lines.iter().map(|line| (line.number, line.from)).collect();
        for at in 0..self.lines.len() {
            let Some(number) = self.lines.get(at).and_then(|line| line.reply_to) else { continue };
            if !authors.contains_key(&number)
                && let Some(message) = message(store, self.chat, number).await?
            {
                authors.insert(number, message.from);
            }
            if let Some(line) = self.lines.get_mut(at) {
                line.answers = authors.get(&number).copied();
            }
        }
        self.answers_known = true;
        Ok(())
    }

    /// What is to be sent to tell these members, each of what they have not seen.
    pub(super) fn tell(&self, told: &[(Candidate, Unseen)]) -> Vec<Sending> {
        // Who is told of different newest messages must not be shown each other's: somebody may have blocked whoever wrote it.
        let mut by_newest: BTreeMap<Number, Vec<&(Candidate, Unseen)>> = BTreeMap::new();
        for one in told {
            by_newest.entry(one.1.last).or_default().push(one);
        }
        let sending = |user, number, some: &[&(Candidate, Unseen)]| {
            let recipients = some.iter().map(|(who, unseen)| recipient(who.user, *unseen)).collect();
            let kept = Kept::new(self.chat.chat, number, recipients);
            Sending { id: Uuid::now_v7(), user, body: kept.to_json() }
        };
        let mut sendings = Vec::new();
        for (number, told) in by_newest {
            sendings.extend(told.chunks(RECIPIENTS).map(|some| sending(None, number, some)));
            let subscribed = told.iter().filter(|(who, _)| who.subscribed);
            sendings.extend(subscribed.map(|one| sending(Some(one.0.user), number, &[*one])));
        }
        sendings
    }
}

/// One message of a chat.
pub(super) async fn message(store: &SharedStore, chat: ChatKey, number: Number) -> Result<Option<Message>> {
    let slice = store.history(chat, Range::After(number.saturating_sub(1)), 1).await?;
    let messages = slice.map(|slice| slice.messages).unwrap_or_default();
    Ok(messages.into_iter().find(|message| message.number == number))
}
