//! Who has to be told of what (NO-1, NO-2): looks through the members of chats whose messages have waited long enough, and through those
//! whose quiet hours are over. What each look leads to is one transaction, so that it may be broken off anywhere.
//!
//! When the cache does not say who is connected, or may have forgotten it, nothing is decided: it waits until it does.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use common::{
    cache::{CacheError, USERS_TOGETHER},
    ids::{AppId, ChatKey, Number, Partition, UserId, UserKey},
    partition::partition_of,
    store::{Candidate, Held, Looked, StoreError, Waiting},
    time::Millis,
};
use tokio::{
    sync::watch,
    task::coop::consume_budget,
    time::{sleep, timeout},
};

use super::{
    Shared,
    absent::{Blocks, Unseen, unseen, wants_answers},
    quiet,
    talk::Talk,
};

/// Members that are looked at in one transaction.
const PAGE: u32 = 1_000;

/// Chats that are taken up by one query. Each holds the others up for its own time: some 10 ms, and 2 s for the largest.
const CHATS: u32 = 100;

/// Users whose quiet hours are over that are taken up by one query: each is a transaction.
const HELD: u32 = 500;

const _: () = assert!(PAGE as usize <= USERS_TOGETHER && HELD <= PAGE);

/// Authors of whom each is asked for by whom they are blocked; of more it is asked whom the members have blocked, so many members at once.
const AUTHORS: usize = 8;
const BLOCKERS: usize = 100;

/// How long the cache has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a look broke off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Others may be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who is absent is not known.
    #[error("{0}")]
    Cache(String),
}

/// What is to be done about some members.
#[derive(Default)]
struct Decided {
    tell: Vec<(Candidate, Unseen)>,
    /// Until then it is quiet.
    hold: Vec<(Candidate, Unseen, Millis)>,
}

/// A member, and which messages it is about.
struct Asked {
    who: Candidate,
    from: Number,
    upto: Number,
}

/// What the cache answers, in time.
async fn answered<T>(asking: impl Future<Output = Result<T, CacheError>>) -> Result<T, Broken> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| Broken::Cache(error.to_string())),
        Err(_) => Err(Broken::Cache("the cache does not answer".to_owned())),
    }
}

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
            let decided = self.decide(chat, &mut talk, asked.collect()).await?;
            let now = self.shared.now();
            let send = talk.tell(&decided.tell);
            let hold = decided.hold.iter().map(|(who, unseen, until)| {
                let Unseen { first: from, last: upto, .. } = *unseen;
                Held { chat, user: who.user, from, upto, until: *until }
            });
            let hold = hold.collect();
            let looked = Looked { partition, waiting, upto, after, next_at, send, hold, now };
            if !notify.looked(&looked).await? {
                // Somebody else goes on with it.
                return Ok(false);
            }
            metrics.notified(decided.tell.len(), decided.hold.len());
            if !looked.send.is_empty() {
                self.shared.queued();
            }
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
        let mut by_chat: HashMap<ChatKey, Vec<Held>> = HashMap::new();
        for held in all {
            by_chat.entry(held.chat).or_default().push(held);
        }
        let mut gone_on = false;
        for (chat, held) in by_chat {
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
        let notify = &engines.notify;
        let from = held.iter().map(|held| held.from).min().unwrap_or_default();
        let upto = held.iter().map(|held| held.upto).max().unwrap_or_default();
        let mut talk = Talk::between(&engines.reads, chat, from, upto).await?;
        let users: Vec<UserId> = held.iter().map(|held| held.user).collect();
        let ranges: HashMap<UserId, (Number, Number)> =
            held.iter().map(|held| (held.user, (held.from, held.upto))).collect();
        let who = notify.candidates_among(chat, &users).await?.into_iter();
        let asked = who.filter_map(|who| {
            let (from, upto) = *ranges.get(&who.user)?;
            Some(Asked { who, from, upto })
        });
        let asked = asked.collect();
        let decided = self.decide(chat, &mut talk, asked).await?;
        for held in held {
            let again = decided.hold.iter().find(|(who, ..)| who.user == held.user).map(|(.., until)| *until);
            let now = self.shared.now();
            let tell = decided.tell.iter().find(|(who, _)| who.user == held.user);
            let send = tell.map(|told| talk.tell(std::slice::from_ref(told))).unwrap_or_default();
            let sends = !send.is_empty();
            if notify.told(&held, again, send, now).await? && sends {
                metrics.notified(1, 0);
                self.shared.queued();
            }
        }
        Ok(())
    }

    /// Which of them are to be told, of what, and when.
    async fn decide(&self, chat: ChatKey, talk: &mut Talk, asked: Vec<Asked>) -> Result<Decided, Broken> {
        let store = &self.shared.engines.reads;
        if asked.iter().any(|asked| wants_answers(&asked.who)) {
            talk.know_answers(store).await?;
        }
        let nobody = Blocks::new();
        let away = self.away(chat.app, concerned(talk, asked, &nobody).await).await?;
        let concerned = concerned(talk, away, &nobody).await;
        let mut decided = Decided::default();
        if concerned.is_empty() {
            return Ok(decided);
        }
        let blocks = self.blocks(chat.app, talk, &concerned).await?;
        let now = self.shared.now();
        for asked in concerned {
            consume_budget().await;
            let Some(unseen) = unseen_by(&asked, talk, &blocks) else { continue };
            let who = asked.who;
            let quiet = who.preferences.quiet_hours;
            match quiet.and_then(|hours| quiet::until(hours, who.timezone.as_deref(), now)) {
                Some(until) => decided.hold.push((who, unseen, until)),
                None => decided.tell.push((who, unseen)),
            }
        }
        Ok(decided)
    }

    /// Those of them who are not connected.
    async fn away(&self, app: AppId, asked: Vec<Asked>) -> Result<Vec<Asked>, Broken> {
        if asked.is_empty() {
            return Ok(asked);
        }
        let engines = &self.shared.engines;
        let user = |asked: &Asked| UserKey { app, user: asked.who.user };
        let users: Vec<UserKey> = asked.iter().map(user).collect();
        let lives = answered(engines.cache.lives_of(&users)).await?;
        if lives.len() != users.len() {
            return Err(Broken::Cache("the cache left users out".to_owned()));
        }
        // Afterwards: what it forgot in between is found out as well.
        if lives.iter().any(Vec::is_empty) && !answered(engines.cache.is_whole()).await? {
            return Err(Broken::Cache("the cache is being told again who is connected".to_owned()));
        }
        let away = asked.into_iter().zip(lives).filter(|(_, lives)| lives.is_empty());
        let mut away: Vec<Asked> = away.map(|(asked, _)| asked).collect();
        let users: Vec<UserKey> = away.iter().map(user).collect();
        // Once more and after the cache was asked: whoever went in between was noted before the cache showed them as gone.
        let seen: HashMap<UserKey, Millis> = engines.reads.last_seen(&users).await?.into_iter().collect();
        for asked in &mut away {
            asked.who.last_seen = asked.who.last_seen.max(seen.get(&user(asked)).copied());
        }
        Ok(away)
    }

    /// Who of them has blocked any of the authors.
    async fn blocks(&self, app: AppId, talk: &Talk, asked: &[Asked]) -> Result<Blocks, StoreError> {
        let reads = &self.shared.engines.reads;
        let among: Vec<_> = asked.iter().map(|asked| asked.who.user).collect();
        let authors = talk.authors();
        let mut blocks = Blocks::new();
        if authors.len() <= AUTHORS {
            for author in authors {
                let blockers = reads.blockers_of(UserKey { app, user: author }, &among).await?;
                blocks.extend(blockers.into_iter().map(|(blocker, _)| (blocker, author)));
            }
            return Ok(blocks);
        }
        for some in among.chunks(BLOCKERS) {
            let some: Vec<_> = some.iter().map(|user| UserKey { app, user: *user }).collect();
            let blocked = reads.blocked_by(&some).await?.into_iter();
            let blocked = blocked.map(|(blocker, blocked)| (blocker.user, blocked));
            blocks.extend(blocked.filter(|(_, blocked)| authors.contains(blocked)));
        }
        Ok(blocks)
    }
}

/// Those of them who have something to be told of.
async fn concerned(talk: &Talk, asked: Vec<Asked>, blocks: &Blocks) -> Vec<Asked> {
    let mut concerned = Vec::new();
    for asked in asked {
        // 100 microseconds when it is about many messages: the thread is for others, too.
        consume_budget().await;
        if unseen_by(&asked, talk, blocks).is_some() {
            concerned.push(asked);
        }
    }
    concerned
}

fn unseen_by(asked: &Asked, talk: &Talk, blocks: &Blocks) -> Option<Unseen> {
    unseen(talk.lines_between(asked.from, asked.upto), &asked.who, blocks)
}
