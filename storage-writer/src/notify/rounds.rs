//! Who has to be told of what (NO-1, NO-2): looks through the members of chats whose messages have waited long enough, and through those
//! whose quiet hours are over. What each look leads to is one transaction, so that it may be broken off anywhere. Where nothing is decided,
//! it waits until something is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    sync::Arc,
};

use common::{
    cache::USERS_TOGETHER,
    ids::{ChatKey, EndpointId, Number, Partition, UserId},
    partition::partition_of,
    store::{Held, Looked, Waiting},
    time::Millis,
};
use tokio::{sync::watch, time::sleep};

use super::{
    Shared,
    decide::{Asked, Broken, check_quiet, decide, decide_again},
    talk::Talk,
};

/// Members that are looked at in one transaction.
const PAGE: u32 = 1_000;

/// Chats that are taken up by one query. Each holds the others up for its own time: some 10 ms, and 2 s for the largest.
const CHATS: u32 = 100;

/// Users whose quiet hours are over that are taken up by one query: each is a transaction.
const HELD: u32 = 500;

const _: () = assert!(PAGE as usize <= USERS_TOGETHER && HELD <= PAGE);

pub(super) struct Rounds {
    shared: Arc<Shared>,
    owned: watch::Receiver<BTreeSet<Partition>>,
}

impl Rounds {
    pub(super) fn new(shared: Arc<Shared>, owned: watch::Receiver<BTreeSet<Partition>>) -> Self {
        Self { shared, owned }
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(self) -> Infallible {
        // With this process a whole cluster may have come up: whoever was connected has to come back first.
        sleep(self.shared.config.settle).await;
        loop {
            let more = match self.round().await {
                Ok(more) => more,
                Err(error) => {
                    self.tell(&error, None);
                    false
                }
            };
            if !more {
                sleep(self.shared.config.every).await;
            }
        }
    }

    /// Looks at what is due. Whether more may be due already.
    async fn round(&self) -> Result<bool, Broken> {
        let partitions: Vec<Partition> = self.owned.borrow().iter().copied().collect();
        if partitions.is_empty() {
            return Ok(false);
        }
        let notifying = self.shared.engines.notify.notifying().await?;
        let mut more = self.look_at_held(&partitions).await?;
        for (app, after) in notifying {
            let before = self.shared.now().minus(after.max(self.shared.config.settle));
            let due = self.shared.engines.notify.waiting(app, &partitions, before, CHATS).await?;
            let mut gone_on = false;
            for waiting in &due {
                match self.look(*waiting, before).await {
                    Ok(rest) => {
                        gone_on = true;
                        more |= rest;
                    }
                    // One chat holds up no other.
                    Err(error @ Broken::Store(_)) => self.tell(&error, Some(waiting.chat)),
                    Err(error) => return Err(error),
                }
            }
            more |= gone_on && due.len() >= CHATS as usize;
        }
        self.shared.metrics.looked_at("chats");
        Ok(more)
    }

    fn tell(&self, error: &Broken, chat: Option<ChatKey>) {
        if matches!(error, Broken::Store(_)) {
            self.shared.metrics.store_errors.inc();
        }
        let chat = chat.map(tracing::field::display);
        tracing::warn!(%error, chat, "who is to be notified is not decided: later");
    }

    /// One round through the members of a chat. Whether more of its messages may be due.
    async fn look(&self, mut waiting: Waiting, before: Millis) -> Result<bool, Broken> {
        let Shared { engines, metrics, .. } = &*self.shared;
        let (chat, notify) = (waiting.chat, &engines.notify);
        let partition = partition_of(chat, engines.log.partitions());
        let mut talk = Talk::round(&engines.reads, chat, waiting.from, waiting.upto, before).await?;
        let last = talk.lines().last().map(|line| line.number);
        let Some(upto) = waiting.upto.or(last) else {
            // A chat that is no more, or the writers' clocks differ.
            if !notify.candidates(chat, None, 1).await?.is_empty() {
                return Ok(false);
            }
            let (upto, now) = (waiting.from, self.shared.now());
            let (send, hold) = (Vec::new(), Vec::new());
            let (after, next_at) = (None, Millis(0));
            notify.looked(&Looked { partition, waiting, upto, after, next_at, send, hold, now }).await?;
            return Ok(false);
        };
        // What was too much for this round is told at once, and what comes after it gathers.
        let next_at = if talk.is_full() { Millis(0) } else { before.plus(self.shared.config.gather) };
        while self.owned.borrow().contains(&partition) {
            let page = notify.candidates(chat, waiting.after, PAGE).await?;
            let after = page.last().filter(|_| page.len() >= PAGE as usize).map(|last| last.user);
            let asked = page.into_iter().map(|who| Asked { who, from: waiting.from, upto });
            let decided = decide(&self.shared, chat, &mut talk, asked.collect()).await?;
            let (send, hold, now) = (talk.tell(&decided.tell), decided.held(chat, None), self.shared.now());
            let looked = Looked { partition, waiting, upto, after, next_at, send, hold, now };
            if !notify.looked(&looked).await? {
                // Somebody else goes on with it.
                return Ok(false);
            }
            metrics.notified(decided.tell.len(), looked.hold.len());
            if !looked.send.is_empty() {
                self.shared.queued();
            }
            check_quiet(&self.shared, &looked.hold).await?;
            if after.is_none() {
                return Ok(talk.is_full());
            }
            waiting.upto = Some(upto);
            waiting.after = after;
        }
        Ok(false)
    }

    /// Looks at those whose quiet hours are over. Whether there may be more of them.
    async fn look_at_held(&self, partitions: &[Partition]) -> Result<bool, Broken> {
        let notify = &self.shared.engines.notify;
        let all = notify.held(partitions, self.shared.now(), HELD).await?;
        let full = all.len() >= HELD as usize;
        // What one endpoint is to be sent is older than what all are.
        let mut apart: BTreeMap<(Reverse<Option<EndpointId>>, ChatKey), Vec<Held>> = BTreeMap::new();
        for held in all {
            apart.entry((Reverse(held.endpoint), held.chat)).or_default().push(held);
        }
        let mut gone_on = false;
        for ((_, chat), held) in apart {
            match self.look_again(chat, held).await {
                Ok(()) => gone_on = true,
                Err(error @ Broken::Store(_)) => self.tell(&error, Some(chat)),
                Err(error) => return Err(error),
            }
        }
        Ok(full && gone_on)
    }

    async fn look_again(&self, chat: ChatKey, mut held: Vec<Held>) -> Result<(), Broken> {
        held.sort_by_key(|held| Reverse(held.upto));
        while let Some(newest) = held.first() {
            // All who have to be told of anything in what is read at once; the last of theirs is news to each.
            let read = newest.upto.saturating_sub(Talk::MOST - 1)..=newest.upto;
            let rest = held.split_off(held.partition_point(|held| read.contains(&held.upto)));
            self.look_at_some(chat, std::mem::replace(&mut held, rest)).await?;
        }
        Ok(())
    }

    async fn look_at_some(&self, chat: ChatKey, held: Vec<Held>) -> Result<(), Broken> {
        let Shared { engines, metrics, .. } = &*self.shared;
        let ranges: HashMap<UserId, (Number, Number)> =
            held.iter().map(|held| (held.user, (held.from, held.upto))).collect();
        let (talk, decided) = decide_again(&self.shared, chat, &ranges).await?;
        let mut still = Vec::new();
        for held in held {
            let again = decided.hold.iter().find(|(who, ..)| who.user == held.user).map(|(.., until)| *until);
            still.extend(again.map(|until| Held { until, ..held }));
            let now = self.shared.now();
            let tell = decided.tell.iter().find(|(who, _)| who.user == held.user);
            let send = tell.map(|told| talk.tell(std::slice::from_ref(told))).unwrap_or_default();
            let sends = !send.is_empty();
            if engines.notify.told(&held, again, send, now).await? && sends {
                metrics.notified(1, 0);
                self.shared.queued();
            }
        }
        check_quiet(&self.shared, &still).await?;
        Ok(())
    }
}
