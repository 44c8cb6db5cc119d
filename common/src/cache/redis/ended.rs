//! Sockets that ended without the process that has opened them: it would note them again whenever it does so.
//!
//! They are said in a stream that every process follows, and looks at before it notes anything again. Whoever has said one repeats it for a
//! while, as the server may forget the stream before all have read it. It goes by times: what was opened later stays.

use std::collections::hash_map::Entry;

use super::{
    Inner,
    presence::{SESSIONS, beginning, member, parse_member},
};
use crate::{
    cache::CacheError,
    ids::{SocketId, UserKey},
    time::Millis,
};

/// Entries of the stream: a hundred bytes each, and more than are said while somebody is between two looks at it.
const ENTRIES: usize = 100_000;
/// Entries that are read at once.
const READ: usize = 1_000;
/// How long the stream is kept after the last.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// In how many looks of one's own one repeats what one has said: the server may forget it once, and all others look as often.
const REPEATS: u8 = 3;

/// What this process has said lately.
#[derive(Debug)]
pub(super) struct Said {
    at: Millis,
    left: u8,
}

impl Inner {
    pub(super) async fn ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        self.say_ended(user, socket, at).await?;
        {
            let mut own = self.presence.own.lock();
            if own.sessions.get(&(user, socket)).is_some_and(|session| session.since <= at) {
                own.sessions.remove(&(user, socket));
            }
            if own.said.len() < SESSIONS {
                own.said.insert((user, socket), Said { at, left: REPEATS });
            }
        }
        self.take_back_until(user, socket, at).await
    }

    async fn say_ended(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        let (ended, socket) = (self.keys.ended_sockets(), member(user, socket));
        let mut say = redis::pipe();
        say.cmd("XADD").arg(&ended).arg("MAXLEN").arg("~").arg(ENTRIES).arg("*");
        say.arg("s").arg(&socket).arg("t").arg(at.0).ignore();
        say.cmd("PEXPIRE").arg(&ended).arg(KEPT_MS).ignore();
        self.link.call(async |mut to| say.query_async::<()>(&mut to).await).await
    }

    /// Takes what is noted of a socket away, unless that was opened later.
    async fn take_back_until(&self, user: UserKey, socket: SocketId, at: Millis) -> Result<(), CacheError> {
        let noted = self.sessions(user).await?.into_iter().find(|session| session.socket == socket);
        let Some(session) = noted.filter(|session| session.since <= at) else { return Ok(()) };
        self.take_back(user, socket, &beginning(&session.life)).await
    }

    /// Repeats what was said, and forgets those of this process's sockets that somebody has ended.
    pub(super) async fn look_at_ended(&self) -> Result<(), CacheError> {
        let again: Vec<_> = {
            let own = self.presence.own.lock();
            own.said.iter().map(|((user, socket), said)| (*user, *socket, said.at)).collect()
        };
        for (user, socket, at) in again {
            self.say_ended(user, socket, at).await?;
            let mut own = self.presence.own.lock();
            if let Entry::Occupied(mut said) = own.said.entry((user, socket))
                && said.get().at == at
            {
                said.get_mut().left = said.get().left.saturating_sub(1);
                if said.get().left == 0 {
                    said.remove();
                }
            }
        }
        loop {
            let (ended, upto) = (self.keys.ended_sockets(), self.presence.own.lock().ended_upto.clone());
            let after = upto.map_or_else(|| "-".to_owned(), |upto| format!("({upto}"));
            let mut range = redis::cmd("XRANGE");
            range.arg(&ended).arg(after).arg("+").arg("COUNT").arg(READ);
            let entries: Vec<(String, Vec<Vec<u8>>)> =
                self.link.call(async |mut to| range.query_async(&mut to).await).await?;
            let (more, last) = (entries.len() >= READ, entries.last().map(|(id, _)| id.clone()));
            for ((user, socket), at) in entries.iter().filter_map(|(_, fields)| parse(fields)) {
                let mine = {
                    let mut own = self.presence.own.lock();
                    let ended = own.sessions.get(&(user, socket)).is_some_and(|session| session.since <= at);
                    if ended { own.sessions.remove(&(user, socket)) } else { None }
                };
                if let Some(session) = mine {
                    // It may have been noted again in between.
                    self.take_back(user, socket, &beginning(&session.life)).await?;
                }
            }
            if let Some(last) = last {
                self.presence.own.lock().ended_upto = Some(last);
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// What one entry says; `None` for what somebody else put there.
fn parse(fields: &[Vec<u8>]) -> Option<((UserKey, SocketId), Millis)> {
    let [_, socket, _, at] = fields else { return None };
    Some((parse_member(socket)?, Millis(str::from_utf8(at).ok()?.parse().ok()?)))
}
