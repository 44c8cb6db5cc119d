//! Who of the members of a chat has to be told of what, and who when it is quiet no more (NO-1, NO-2): asked in a round, when quiet hours are over,
//! and once more as it is sent.
//!
//! When the cache does not say who is connected, or may have forgotten it, nothing is decided.

use std::{collections::HashMap, time::Duration};

use common::{
    cache::CacheError,
    ids::{AppId, ChatKey, EndpointId, Number, UserId, UserKey},
    store::{Candidate, Held, StoreError},
    time::Millis,
};
use tokio::{task::coop::consume_budget, time::timeout};

use super::{
    Shared,
    absent::{Blocks, Unseen, unseen, wants_answers},
    quiet,
    talk::Talk,
};

/// Authors of whom each is asked for by whom they are blocked; of more it is asked whom the members have blocked, so many members at once.
const AUTHORS: usize = 8;
const BLOCKERS: usize = 100;

/// How long the cache has to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Others may be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who is absent is not known.
    #[error("{0}")]
    Cache(String),
}

/// A member, and which messages it is about.
pub(super) struct Asked {
    pub(super) who: Candidate,
    pub(super) from: Number,
    pub(super) upto: Number,
}

/// Who is to be told, and of what.
#[derive(Default)]
pub(super) struct Decided {
    /// Now.
    pub(super) tell: Vec<(Candidate, Unseen)>,
    /// Until then it is quiet.
    pub(super) hold: Vec<(Candidate, Unseen, Millis)>,
}

impl Decided {
    fn add(&mut self, who: Candidate, unseen: Unseen, now: Millis) {
        match quiet_until(&who, now) {
            Some(until) => self.hold.push((who, unseen, until)),
            None => self.tell.push((who, unseen)),
        }
    }

    /// Who is to be told later, by this endpoint alone or by all.
    pub(super) fn held(&self, chat: ChatKey, endpoint: Option<EndpointId>) -> Vec<Held> {
        let held = self.hold.iter().map(|(who, unseen, until)| {
            let Unseen { first: from, last: upto, .. } = *unseen;
            Held { chat, user: who.user, endpoint, from, upto, until: *until }
        });
        held.collect()
    }
}

fn quiet_until(who: &Candidate, now: Millis) -> Option<Millis> {
    who.preferences.quiet_hours.and_then(|hours| quiet::until(hours, who.timezone.as_deref(), now))
}

/// Which of these members, at most 1,000, have to be told of what.
pub(super) async fn decide(
    shared: &Shared,
    chat: ChatKey,
    talk: &mut Talk,
    asked: Vec<Asked>,
) -> Result<Decided, Broken> {
    if asked.iter().any(|asked| wants_answers(&asked.who)) {
        talk.know_answers(&shared.engines.reads).await?;
    }
    let nobody = Blocks::new();
    let away = away(shared, chat.app, concerned(talk, asked, &nobody).await).await?;
    let concerned = concerned(talk, away, &nobody).await;
    if concerned.is_empty() {
        return Ok(Decided::default());
    }
    let blocks = blocks(shared, chat.app, talk, &concerned).await?;
    let (mut decided, now) = (Decided::default(), shared.now());
    for asked in concerned {
        consume_budget().await;
        if let Some(unseen) = unseen_by(&asked, talk, &blocks) {
            decided.add(asked.who, unseen, now);
        }
    }
    Ok(decided)
}

/// Which of these users, at most 1,000, have still to be told of what, each from one number to another; and what was said there.
pub(super) async fn decide_again(
    shared: &Shared,
    chat: ChatKey,
    ranges: &HashMap<UserId, (Number, Number)>,
) -> Result<(Talk, Decided), Broken> {
    let from = ranges.values().map(|(from, _)| *from).min().unwrap_or_default();
    let upto = ranges.values().map(|(_, upto)| *upto).max().unwrap_or_default();
    let mut talk = Talk::between(&shared.engines.reads, chat, from, upto).await?;
    let users: Vec<UserId> = ranges.keys().copied().collect();
    let who = shared.engines.notify.candidates_among(chat, &users).await?.into_iter();
    let asked = who.filter_map(|who| {
        let (from, upto) = *ranges.get(&who.user)?;
        Some(Asked { who, from, upto })
    });
    let decided = decide(shared, chat, &mut talk, asked.collect()).await?;
    Ok((talk, decided))
}

/// Whoever of these (each once, of one chat) has chosen other quiet hours, or another time zone, while it was decided that they are held is looked
/// at again: who chooses later has those who are held looked at.
pub(super) async fn check_quiet(shared: &Shared, held: &[Held]) -> Result<(), StoreError> {
    let Some(chat) = held.first().map(|held| held.chat) else { return Ok(()) };
    let notify = &shared.engines.notify;
    let until: HashMap<UserId, Millis> = held.iter().map(|held| (held.user, held.until)).collect();
    let users: Vec<UserId> = until.keys().copied().collect();
    let mut changed = notify.candidates_among(chat, &users).await?;
    let now = shared.now();
    changed.retain(|who| quiet_until(who, now) != until.get(&who.user).copied());
    if changed.is_empty() {
        return Ok(());
    }
    let changed: Vec<UserId> = changed.into_iter().map(|who| who.user).collect();
    notify.look_again_at(chat.app, &changed).await
}

/// Those of them who are not connected.
async fn away(shared: &Shared, app: AppId, asked: Vec<Asked>) -> Result<Vec<Asked>, Broken> {
    if asked.is_empty() {
        return Ok(asked);
    }
    let engines = &shared.engines;
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

/// What the cache answers, in time.
async fn answered<T>(asking: impl Future<Output = Result<T, CacheError>>) -> Result<T, Broken> {
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(|error| Broken::Cache(error.to_string())),
        Err(_) => Err(Broken::Cache("the cache does not answer".to_owned())),
    }
}

/// Who of them has blocked any of the authors.
async fn blocks(shared: &Shared, app: AppId, talk: &Talk, asked: &[Asked]) -> Result<Blocks, StoreError> {
    let reads = &shared.engines.reads;
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
