//! Lives of nodes: kept up by a key that expires, and found by a sorted set of all of them when they are over.
//!
//! A life's score in that set is when it was renewed last, by its own clock: the key cannot tell, as it is gone by then.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    Inner,
    presence::{TOGETHER, beginning, parse_member},
};
use crate::{
    cache::{CacheError, Lapsed, NodeLife},
    ids::{Incarnation, NodeId, UserKey},
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

    pub(super) async fn lapsed(&self) -> Result<Vec<Lapsed>, CacheError> {
        let all = self.keys.lives();
        let mut lapsed = Vec::new();
        for (life, renewed) in self.over().await? {
            let name = life_name(&life);
            let mine: bool = self
                .link
                .call(async |mut to| redis::cmd("ZREM").arg(&all).arg(&name).query_async(&mut to).await)
                .await?;
            if mine {
                let users = self.gone(&life).await?.into_iter().collect();
                lapsed.push(Lapsed { life, renewed, users });
            }
        }
        Ok(lapsed)
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

    /// Ends a life, and gives those who had sockets there.
    pub(super) async fn gone(&self, life: &NodeLife) -> Result<HashSet<UserKey>, CacheError> {
        {
            let mut own = self.presence.own.lock();
            own.sessions.retain(|_, session| session.life != *life);
            own.marked.remove(life);
            own.kept.remove(life);
        }
        let mut users = HashSet::new();
        let ended = self.keys.ended(life);
        let call = {
            let mut call = self.presence.end_life.key(self.keys.held(life));
            call.key(&ended).key(self.keys.life(life)).arg(ENDED_MS);
            call
        };
        if !self.invoke::<bool>(&call).await? {
            return Ok(users);
        }
        // From here on none of them is shown: what follows makes room.
        let beginning = beginning(life);
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(&ended).arg(cursor).arg("COUNT").arg(500);
            let (next, members): (u64, Vec<Vec<u8>>) =
                self.link.call(async |mut to| scan.query_async(&mut to).await).await?;
            let removals: Vec<_> = members.iter().filter_map(|member| parse_member(member)).collect();
            users.extend(removals.iter().map(|(user, _)| *user));
            let results: Vec<Result<_, _>> = stream::iter(removals)
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
        Ok(users)
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
