//! Who is connected where: a hash per user, and for each life of a node a key that expires and the set of its sockets.
//!
//! A session is shown while its life's key is there. Who opened a session remembers it, and keeps its life up unless somebody else does: when
//! the server has forgotten the life's sockets, all its sessions are noted again. A mark of this process in the set tells that nothing was
//! forgotten. The set outlasts the key, so that it can be told whose sockets ended with a node that vanished ([`super::lives`]). User and life lie in different slots: what is noted of the one may be missing with the other, and each way is harmless.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use redis::Script;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Inner,
    ended::Said,
    lives::{HELD_MS, life_name, parse_life},
    whole,
};
use crate::{
    cache::{CacheError, LiveSession, NodeLife},
    ids::{AppId, SessionId, SocketId, UserId, UserKey},
    time::Millis,
};

/// Sockets that one process has noted, and those it could not take back. More than one can hold.
pub(super) const SESSIONS: usize = 262_144;

/// Sockets of one user.
const SESSIONS_OF_USER: usize = 256;

/// How long a user's sockets are kept after the last was opened or noted again, and how often they are noted again.
const USER_MS: u64 = 24 * 60 * 60 * 1000;
const NOTE_AGAIN: Duration = Duration::from_secs(8 * 60 * 60);

/// Calls that one piece of work in the background, or the end of a life, has in flight.
pub(super) const TOGETHER: usize = 32;

#[derive(Debug)]
pub(super) struct Presence {
    life_ms: u64,
    /// What stands in the set of a life as long as the server has not forgotten it.
    mark: Vec<u8>,
    put: Script,
    remove: Script,
    add_to_life: Script,
    pub(super) take_life: Script,
    pub(super) end_life: Script,
    pub(super) life_done: Script,
    pub(super) keep_whole: Script,
    pub(super) own: Mutex<Own>,
}

/// What this process noted.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) sessions: HashMap<(UserKey, SocketId), LiveSession>,
    /// Closed, and perhaps still noted.
    unclosed: HashSet<(UserKey, SocketId)>,
    /// Sockets of which this process has said lately that they have ended, and up to where it has read what others have said.
    pub(super) said: HashMap<(UserKey, SocketId), Said>,
    pub(super) ended_upto: Option<String>,
    /// Lives that carry the mark, as far as is known.
    pub(super) marked: HashSet<NodeLife>,
    /// Lives that [`Inner::keep_up`] is called for: they are kept up by nobody else.
    pub(super) kept: HashSet<NodeLife>,
    /// Something was not noted.
    pub(super) behind: bool,
    /// Since when the server has forgotten nothing, as it said last.
    pub(super) whole_since: Option<i64>,
}

impl Presence {
    pub(super) fn new(life_ms: u64) -> Self {
        Self {
            life_ms,
            mark: [b"mark".as_slice(), SocketId::random().as_bytes()].concat(),
            put: Script::new(include_str!("session_put.lua")),
            remove: Script::new(include_str!("session_remove.lua")),
            add_to_life: Script::new(include_str!("life_add.lua")),
            take_life: Script::new(include_str!("life_take.lua")),
            end_life: Script::new(include_str!("life_end.lua")),
            life_done: Script::new(include_str!("life_done.lua")),
            keep_whole: whole::keep_script(),
            own: Mutex::default(),
        }
    }

    pub(super) fn life_ms(&self) -> u64 {
        self.life_ms
    }
}

impl Inner {
    pub(super) async fn opened(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        let place = (user, session.socket);
        let marked = {
            let mut own = self.presence.own.lock();
            if own.sessions.len() >= SESSIONS && !own.sessions.contains_key(&place) {
                return Err(CacheError::Full);
            }
            own.sessions.insert(place, session.clone());
            own.unclosed.remove(&place);
            own.marked.contains(&session.life)
        };
        if !marked {
            self.mark(&session.life).await.inspect_err(|_| self.fell_behind())?;
            self.presence.own.lock().marked.insert(session.life.clone());
        }
        let noted = self.note(user, &session).await;
        match &noted {
            Err(CacheError::Full) => drop(self.presence.own.lock().sessions.remove(&place)),
            Err(CacheError::Unavailable(_)) => self.fell_behind(),
            Ok(()) => {}
        }
        noted
    }

    pub(super) async fn closed(&self, user: UserKey, socket: SocketId) -> Result<(), CacheError> {
        {
            let mut own = self.presence.own.lock();
            own.sessions.remove(&(user, socket));
            if own.unclosed.len() < SESSIONS {
                own.unclosed.insert((user, socket));
            }
        }
        let taken = self.take_back(user, socket, "").await;
        let mut own = self.presence.own.lock();
        match &taken {
            Ok(()) => drop(own.unclosed.remove(&(user, socket))),
            Err(_) => own.behind = true,
        }
        taken
    }

    pub(super) async fn sessions(&self, user: UserKey) -> Result<Vec<LiveSession>, CacheError> {
        let key = self.keys.user(user);
        let noted: HashMap<Vec<u8>, Vec<u8>> =
            self.link.call(async |mut to| redis::cmd("HGETALL").arg(&key).query_async(&mut to).await).await?;
        let sessions: Vec<LiveSession> =
            noted.iter().filter_map(|(socket, noted)| read(socket, noted)).collect();
        let lives: Vec<&NodeLife> =
            sessions.iter().map(|session| &session.life).collect::<HashSet<_>>().into_iter().collect();
        if lives.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.up(lives).await?;
        let (mut shown, over): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| kept.contains(&session.life));
        for session in over {
            // They are not shown either way.
            if self.remove(user, session.socket, &beginning(&session.life)).await.is_err() {
                break;
            }
        }
        shown.sort_by_key(|session| (session.since, session.socket));
        Ok(shown)
    }

    pub(super) async fn lives(&self, users: &[UserKey]) -> Result<Vec<Vec<NodeLife>>, CacheError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut noted = redis::pipe();
        for user in users {
            noted.cmd("HVALS").arg(self.keys.user(*user));
        }
        let noted: Vec<Vec<Vec<u8>>> =
            self.link.call(async |mut to| noted.query_async(&mut to).await).await?;
        let lives: Vec<HashSet<NodeLife>> =
            noted.iter().map(|noted| noted.iter().filter_map(|noted| read_life(noted)).collect()).collect();
        let up = self.up(lives.iter().flatten().collect::<HashSet<_>>()).await?;
        Ok(lives
            .into_iter()
            .map(|lives| lives.into_iter().filter(|life| up.contains(life)).collect())
            .collect())
    }

    /// Keeps a life up. `true` when the server did not know that this process does.
    async fn mark(&self, life: &NodeLife) -> Result<bool, CacheError> {
        self.add_to_life(life, &self.presence.mark).await
    }

    async fn add_to_life(&self, life: &NodeLife, what: &[u8]) -> Result<bool, CacheError> {
        let kept = self.presence.own.lock().kept.contains(life);
        let term = if kept { 0 } else { self.presence.life_ms };
        let mut call = self.presence.add_to_life.key(self.keys.held(life));
        call.key(self.keys.life(life)).arg(what).arg(HELD_MS).arg(term);
        self.invoke(&call).await
    }

    async fn note(&self, user: UserKey, session: &LiveSession) -> Result<(), CacheError> {
        self.add_to_life(&session.life, &member(user, session.socket)).await?;
        let mut call = self.presence.put.key(self.keys.user(user));
        call.arg(session.socket.to_string()).arg(write(session)?).arg(SESSIONS_OF_USER).arg(USER_MS);
        if self.invoke(&call).await? {
            return Ok(());
        }
        // Sessions of lives that are over take room until somebody looks.
        self.sessions(user).await?;
        if self.invoke(&call).await? { Ok(()) } else { Err(CacheError::Full) }
    }

    /// Takes what is noted of a socket away, if it begins like this.
    pub(super) async fn take_back(
        &self,
        user: UserKey,
        socket: SocketId,
        beginning: &str,
    ) -> Result<(), CacheError> {
        let Some(noted) = self.remove(user, socket, beginning).await? else { return Ok(()) };
        let Some(session) = read(socket.to_string().as_bytes(), &noted) else { return Ok(()) };
        let key = self.keys.held(&session.life);
        let member = member(user, socket);
        self.link
            .call(async |mut to| redis::cmd("SREM").arg(&key).arg(&member).query_async::<()>(&mut to).await)
            .await
    }

    pub(super) async fn remove(
        &self,
        user: UserKey,
        socket: SocketId,
        beginning: &str,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let mut call = self.presence.remove.key(self.keys.user(user));
        call.arg(socket.to_string()).arg(beginning);
        self.invoke(&call).await
    }

    fn fell_behind(&self) {
        self.presence.own.lock().behind = true;
    }

    /// Keeps the lives of this process up, and notes its sessions again where they were forgotten.
    async fn renew(&self, all: bool) -> Result<(), CacheError> {
        if let Err(error) = self.look_at_ended().await {
            tracing::debug!(%error, "who was ended elsewhere is not known yet");
        }
        let (lives, behind) = {
            let mut own = self.presence.own.lock();
            let lives: HashSet<NodeLife> =
                own.sessions.values().map(|session| session.life.clone()).collect();
            own.marked.retain(|life| lives.contains(life));
            (lives, std::mem::take(&mut own.behind))
        };
        let mut again = HashSet::new();
        let mut unmarked = Ok(());
        for life in lives {
            match self.mark(&life).await {
                Ok(true) => drop(again.insert(life)),
                Ok(false) if all || behind => drop(again.insert(life)),
                Ok(false) => {}
                Err(error) => unmarked = Err(error),
            }
        }
        let sessions = {
            let own = self.presence.own.lock();
            let sessions = own.sessions.iter().filter(|(_, session)| again.contains(&session.life));
            sessions.map(|((user, _), session)| (*user, session.clone())).collect::<Vec<_>>()
        };
        let unclosed: Vec<_> = self.presence.own.lock().unclosed.iter().copied().collect();
        if !sessions.is_empty() {
            tracing::info!(sessions = sessions.len(), "the cache is told again who is connected");
        }
        let noted = stream::iter(sessions)
            .map(|(user, session)| self.note_if_open(user, session))
            .buffer_unordered(TOGETHER)
            .fold(Ok(()), |so_far, noted| async { so_far.and(noted) });
        let closed = stream::iter(unclosed)
            .map(|(user, socket)| self.closed(user, socket))
            .buffer_unordered(TOGETHER)
            .fold(Ok(()), |so_far, closed| async { so_far.and(closed) });
        let (noted, closed) = (noted.await, closed.await);
        unmarked.and(noted).and(closed).inspect_err(|_| self.fell_behind())
    }

    async fn note_if_open(&self, user: UserKey, session: LiveSession) -> Result<(), CacheError> {
        let place = (user, session.socket);
        let open = || self.presence.own.lock().sessions.get(&place) == Some(&session);
        if !open() {
            return Ok(());
        }
        match self.note(user, &session).await {
            // Nothing is wrong, and nothing to be done.
            Ok(()) | Err(CacheError::Full) => {}
            Err(error) => return Err(error),
        }
        // Closed meanwhile: perhaps before it was noted.
        if open() { Ok(()) } else { self.take_back(user, session.socket, "").await }
    }
}

/// The work in the background.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut ticks = interval(Duration::from_millis(inner.presence.life_ms / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut noted_all = Instant::now();
    loop {
        ticks.tick().await;
        let all = noted_all.elapsed() >= NOTE_AGAIN;
        match inner.renew(all).await {
            Ok(()) if all => noted_all = Instant::now(),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "the cache is not told who is connected"),
        }
    }
}

/// What is noted of a socket begins with a version and the life, so that a script can tell whose it is. No name has a line break.
pub(super) fn beginning(life: &NodeLife) -> String {
    format!("1 {}\n", life_name(life))
}

/// The life in what is noted of a socket.
fn read_life(noted: &[u8]) -> Option<NodeLife> {
    let end = noted.iter().position(|byte| *byte == b'\n')?;
    parse_life(str::from_utf8(noted.get(..end)?).ok()?.strip_prefix("1 ")?)
}

#[derive(Serialize, Deserialize)]
struct Noted {
    session: SessionId,
    device: Option<Arc<str>>,
    since: i64,
}

fn write(session: &LiveSession) -> Result<String, CacheError> {
    let noted = Noted { session: session.session, device: session.device.clone(), since: session.since.0 };
    let noted = serde_json::to_string(&noted).map_err(|error| CacheError::Unavailable(error.to_string()))?;
    Ok(beginning(&session.life) + &noted)
}

/// `None` for what another version, or somebody else, put there.
fn read(socket: &[u8], noted: &[u8]) -> Option<LiveSession> {
    let (life, noted) = str::from_utf8(noted).ok()?.strip_prefix("1 ")?.split_once('\n')?;
    let noted: Noted = serde_json::from_str(noted).ok()?;
    Some(LiveSession {
        socket: str::from_utf8(socket).ok()?.parse().ok()?,
        session: noted.session,
        device: noted.device,
        life: parse_life(life)?,
        since: Millis(noted.since),
    })
}

/// A socket in the set of a life: application, user, socket.
pub(super) fn member(user: UserKey, socket: SocketId) -> Vec<u8> {
    [user.app.as_bytes().as_slice(), user.user.as_bytes(), socket.as_bytes()].concat()
}

/// `None` for a mark.
pub(super) fn parse_member(member: &[u8]) -> Option<(UserKey, SocketId)> {
    let (app, rest) = member.split_at_checked(16)?;
    let (user, socket) = rest.split_at_checked(16)?;
    let user = UserKey { app: AppId::from_slice(app).ok()?, user: UserId::from_slice(user).ok()? };
    Some((user, SocketId::from_slice(socket).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, NodeId};

    #[test]
    fn what_is_noted_reads_back_and_anything_else_is_nobody() {
        let session = LiveSession {
            socket: SocketId::random(),
            session: SessionId::random(),
            device: Some("Ana's \"phone\"\n".into()),
            life: NodeLife { node: NodeId::new("a/{b} c").unwrap(), incarnation: Incarnation(u64::MAX) },
            since: Millis(-5),
        };
        let (socket, noted) = (session.socket.to_string(), write(&session).unwrap());
        assert_eq!(read(socket.as_bytes(), noted.as_bytes()), Some(session.clone()));
        assert!(noted.starts_with(&beginning(&session.life)));
        for cut in 0..noted.len() {
            assert_eq!(read(socket.as_bytes(), &noted.as_bytes()[..cut]), None);
        }
        assert_eq!(read(b"x", noted.as_bytes()), None);
        assert_eq!(read(socket.as_bytes(), noted.replacen('1', "2", 1).as_bytes()), None);
    }

    #[test]
    fn a_member_reads_back_and_a_mark_is_none() {
        let user = UserKey { app: AppId::random(), user: UserId::random() };
        let socket = SocketId::random();
        assert_eq!(parse_member(&member(user, socket)), Some((user, socket)));
        assert_eq!(parse_member(&Presence::new(1).mark), None);
        assert_eq!(parse_member(&[]), None);
    }
}
