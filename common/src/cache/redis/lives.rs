//! Lives of nodes: kept up by a key that expires, and found by a sorted set of all of them when they are over.
//!
//! A life's score in that set is when it was renewed last, by its own clock: the key cannot tell, as it is gone by then. It stays in the set until
//! whoever has taken it says that its users have been told of, and goes last of all that is noted of it: whatever fails before that is done again.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    Inner,
    presence::{TOGETHER, beginning, parse_member},
};
use crate::{
    cache::{CacheError, Lapsed, NodeLife},
    ids::{Incarnation, NodeId, SocketId, UserKey},
    time::Millis,
};

/// How long the sockets of a life are kept after it was last heard of, and all lives' names.
pub(super) const HELD_MS: u64 = 60 * 60 * 1000;

/// How long the set of a life that is over may take to be worked off.
const ENDED_MS: u64 = 60 * 60 * 1000;

impl Inner {
    /// Those of `lives` that are up.
    pub(super) async fn up(
        &self,
        lives: impl IntoIterator<Item = &NodeLife>,
    ) -> Result<HashSet<NodeLife>, CacheError> {
        let lives: Vec<&NodeLife> = lives.into_iter().collect();
        if lives.is_empty() {
            return Ok(HashSet::new());
        }
        let mut exist = redis::pipe();
        for life in &lives {
            exist.cmd("EXISTS").arg(self.keys.life(life));
        }
        let exist: Vec<bool> = self.link.call(async |mut to| exist.query_async(&mut to).await).await?;
        let up = lives.into_iter().zip(exist).filter(|(_, exists)| *exists);
        Ok(up.map(|(life, _)| life.clone()).collect())
    }

    pub(super) async fn keep_up(
        &self,
        life: &NodeLife,
        term: Duration,
        now: Millis,
    ) -> Result<(), CacheError> {
        self.presence.own.lock().kept.insert(life.clone());
        let millis = u64::try_from(term.as_millis()).unwrap_or(u64::MAX).max(1);
        let (key, all, name) = (self.keys.life(life), self.keys.lives(), life_name(life));
        let mut keep = redis::pipe();
        keep.cmd("SET").arg(&key).arg(1).arg("PX").arg(millis).ignore();
        keep.cmd("ZADD").arg(&all).arg(now.0).arg(&name).ignore();
        keep.cmd("PEXPIRE").arg(&all).arg(HELD_MS).ignore();
        self.link.call(async |mut to| keep.query_async::<()>(&mut to).await).await?;
        let since = self.keep_whole(term).await?;
        let mut own = self.presence.own.lock();
        // What it knows may be old: the mark may be there, and sockets missing.
        own.behind |= own.whole_since.replace(since).is_some_and(|before| before != since);
        Ok(())
    }

    pub(super) async fn take_lapsed(
        &self,
        by: &NodeLife,
        hold: Duration,
    ) -> Result<Option<Lapsed>, CacheError> {
        let mut failed = None;
        // A node that hears nothing of its own lease for a while is not gone.
        for (life, renewed) in self.over().await?.into_iter().filter(|(life, _)| life != by) {
            match self.take_life(&life, renewed, by, hold).await {
                Ok(true) => {}
                Ok(false) => continue,
                // The others are taken all the same.
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            }
            match self.users_of(&life).await {
                Ok(users) => return Ok(Some(Lapsed { life, renewed, users })),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn take_life(
        &self,
        life: &NodeLife,
        renewed: Millis,
        by: &NodeLife,
        hold: Duration,
    ) -> Result<bool, CacheError> {
        let millis = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut call = self.presence.take_life.key(self.keys.life(life));
        call.key(self.keys.taken(life)).arg(life_name(by)).arg(millis);
        if !self.invoke::<bool>(&call).await? {
            return Ok(false);
        }
        // Somebody may have been done with it in between.
        let (all, name) = (self.keys.lives(), life_name(life));
        let score: Option<f64> = self
            .link
            .call(async |mut to| redis::cmd("ZSCORE").arg(&all).arg(&name).query_async(&mut to).await)
            .await?;
        Ok(score.is_some_and(|score| score as i64 == renewed.0))
    }

    /// Who has sockets in a life.
    async fn users_of(&self, life: &NodeLife) -> Result<Vec<UserKey>, CacheError> {
        let held = self.keys.held(life);
        let mut users = HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, sockets) = self.scan(&held, cursor).await?;
            users.extend(sockets.into_iter().map(|(user, _)| user));
            if next == 0 {
                return Ok(users.into_iter().collect());
            }
            cursor = next;
        }
    }

    /// Some of a set of sockets, and where to go on; 0 when that was all.
    async fn scan(&self, set: &str, cursor: u64) -> Result<(u64, Vec<(UserKey, SocketId)>), CacheError> {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(set).arg(cursor).arg("COUNT").arg(500);
        let (next, members): (u64, Vec<Vec<u8>>) =
            self.link.call(async |mut to| scan.query_async(&mut to).await).await?;
        Ok((next, members.iter().filter_map(|member| parse_member(member)).collect()))
    }

    pub(super) async fn buried(&self, lapsed: &Lapsed) -> Result<(), CacheError> {
        let Lapsed { life, renewed, .. } = lapsed;
        if !self.end(life, false).await? {
            return Ok(());
        }
        let mut call = self.presence.life_done.key(self.keys.lives());
        call.arg(life_name(life)).arg(renewed.0);
        self.invoke(&call).await
    }

    /// Lives that are not up and that nobody has seen to, and when each was renewed last.
    pub(super) async fn over(&self) -> Result<Vec<(NodeLife, Millis)>, CacheError> {
        let all = self.keys.lives();
        let mut list = redis::cmd("ZRANGE");
        list.arg(&all).arg(0).arg(-1).arg("WITHSCORES");
        let renewed: Vec<(String, f64)> =
            self.link.call(async |mut to| list.query_async(&mut to).await).await?;
        let mut lives: Vec<(NodeLife, Millis)> = renewed
            .into_iter()
            // Whole numbers, as they were given: milliseconds need 41 of the 53 bits.
            .filter_map(|(name, at)| Some((parse_life(&name)?, Millis(at as i64))))
            .collect();
        let up = self.up(lives.iter().map(|(life, _)| life)).await?;
        lives.retain(|(life, _)| !up.contains(life));
        Ok(lives)
    }

    pub(super) async fn gone(&self, life: &NodeLife) -> Result<(), CacheError> {
        self.end(life, true).await?;
        let (all, name) = (self.keys.lives(), life_name(life));
        self.link
            .call(async |mut to| redis::cmd("ZREM").arg(&all).arg(&name).query_async::<()>(&mut to).await)
            .await
    }

    /// Ends a life and makes room: none of its sockets is shown any more. `false` when it is up, unless it is to end `all_the_same`. May be broken
    /// off and done again.
    async fn end(&self, life: &NodeLife, all_the_same: bool) -> Result<bool, CacheError> {
        let ended = self.keys.ended(life);
        let call = {
            let mut call = self.presence.end_life.key(self.keys.held(life));
            call.key(&ended).key(self.keys.life(life)).arg(ENDED_MS).arg(i32::from(all_the_same));
            call
        };
        if !self.invoke::<bool>(&call).await? {
            return Ok(false);
        }
        {
            let mut own = self.presence.own.lock();
            own.sessions.retain(|_, session| session.life != *life);
            own.marked.remove(life);
            own.kept.remove(life);
        }
        let beginning = beginning(life);
        let mut cursor = 0;
        loop {
            let (next, sockets) = self.scan(&ended, cursor).await?;
            let results: Vec<Result<_, _>> = stream::iter(sockets)
                .map(|(user, socket)| self.remove(user, socket, &beginning))
                .buffer_unordered(TOGETHER)
                .collect()
                .await;
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            if next == 0 {
                break;
            }
            cursor = next;
        }
        self.link
            .call(async |mut to| redis::cmd("UNLINK").arg(&ended).query_async::<()>(&mut to).await)
            .await?;
        Ok(true)
    }
}

pub(super) fn life_name(life: &NodeLife) -> String {
    format!("{}/{}", life.incarnation, life.node)
}

pub(super) fn parse_life(name: &str) -> Option<NodeLife> {
    let (incarnation, node) = name.split_once('/')?;
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
    Some(NodeLife { node: NodeId::new(node).ok()?, incarnation })
}
