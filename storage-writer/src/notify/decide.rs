//! Who of the members of a chat has to be told of what (NO-1): asked in a round, when quiet hours are over, and once more as it is sent.
//!
//! When the cache does not say who is connected, or may have forgotten it, nothing is decided.

use std::{collections::HashMap, time::Duration};

use common::{
    cache::CacheError,
    ids::{AppId, ChatKey, Number, UserId, UserKey},
    store::{Candidate, StoreError},
    time::Millis,
};
use tokio::{task::coop::consume_budget, time::timeout};

use super::{
    Shared,
    absent::{Blocks, Unseen, unseen, wants_answers},
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
pub(super) type Told = Vec<(Candidate, Unseen)>;

/// Which of these members, at most 1,000, have to be told of what.
pub(super) async fn decide(
    shared: &Shared,
    chat: ChatKey,
    talk: &mut Talk,
    asked: Vec<Asked>,
) -> Result<Told, Broken> {
    if asked.iter().any(|asked| wants_answers(&asked.who)) {
        talk.know_answers(&shared.engines.reads).await?;
    }
    let nobody = Blocks::new();
    let away = away(shared, chat.app, concerned(talk, asked, &nobody).await).await?;
    let concerned = concerned(talk, away, &nobody).await;
    if concerned.is_empty() {
        return Ok(Told::new());
    }
    let blocks = blocks(shared, chat.app, talk, &concerned).await?;
    let mut told = Told::new();
    for asked in concerned {
        consume_budget().await;
        let unseen = unseen_by(&asked, talk, &blocks);
        told.extend(unseen.map(|unseen| (asked.who, unseen)));
    }
    Ok(told)
}

/// Which of these users, at most 1,000, have still to be told of what, each from one number to another; and what was said there.
pub(super) async fn decide_again(
    shared: &Shared,
    chat: ChatKey,
    ranges: &HashMap<UserId, (Number, Number)>,
) -> Result<(Talk, Told), Broken> {
    let from = ranges.values().map(|(from, _)| *from).min().unwrap_or_default();
    let upto = ranges.values().map(|(_, upto)| *upto).max().unwrap_or_default();
    let mut talk = Talk::between(&shared.engines.reads, chat, from, upto).await?;
    let users: Vec<UserId> = ranges.keys().copied().collect();
    let who = shared.engines.notify.candidates_among(chat, &users).await?.into_iter();
    let asked = who.filter_map(|who| {
        let (from, upto) = *ranges.get(&who.user)?;
        Some(Asked { who, from, upto })
    });
    let told = decide(shared, chat, &mut talk, asked.collect()).await?;
    Ok((talk, told))
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
