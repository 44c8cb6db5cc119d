//! Messages, either at a rate or as fast as a window allows, and what they cost.
//!
//! At a rate, the schedule is fixed before anything is sent and waits for nobody: a send that leaves late counts its latency from when it
//! was due, so a server that stalls cannot hide the messages that were not sent meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use common::ids::ChatId;
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{CrowdOptions, SignedIn, WorkloadError, body};
use crate::{
    client::{Client, Options, Post},
    clock::Clock,
    figures::Figures,
    progress::Progress,
    report::ChatReport,
    server_process::ServerProcess,
};

/// Between two looks at the schedule: the finest step of the timer.
const TICK: Duration = Duration::from_millis(1);

/// After the end, how long what is under way may take to arrive.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

/// Below so many connections, what they need is lost in what the server's allocator keeps of the sign-ins (19 MiB a hash).
const CONNECTIONS_TOLD_APART: u64 = 500;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Direct chats of two.
    Direct,
    /// Groups.
    Group,
}

/// How much, how long, how fast.
#[derive(Clone, Debug)]
pub struct ChatLoad {
    /// `http://host:port`.
    pub url: String,
    /// How many users.
    pub users: usize,
    /// Devices of each.
    pub devices: usize,
    /// How many chats.
    pub chats: usize,
    /// Direct chats or groups.
    pub kind: Kind,
    /// Members of a group.
    pub group_size: usize,
    /// Members of each chat that write.
    pub senders: usize,
    /// Sends a second in all; 0: as fast as the window allows.
    pub rate: f64,
    /// Sends under way for each sender and chat.
    pub window: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long it runs before that.
    pub warmup: Duration,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// The server's process, when it is known.
    pub server: Option<ServerProcess>,
}

/// A member who writes to a chat.
#[derive(Clone, Copy)]
struct Writer<'a> {
    device: &'a Client,
    chat: ChatId,
}

/// Runs the load and reports.
///
/// # Errors
/// [`WorkloadError`] when it cannot be set up; what goes wrong later is in the report.
pub async fn run(load: &ChatLoad, progress: &Progress) -> Result<ChatReport, WorkloadError> {
    let clock = Clock::start();
    let figures = Arc::new(Figures::default());
    let options = CrowdOptions {
        users: load.users,
        devices: load.devices,
        journal: None,
        client: Options {
            device: None,
            window: load.window,
            // In all of a sender's chats together; and a second's worth and more of any rate one device is given.
            outbox: 4_096.max(load.window.saturating_mul(load.chats.div_ceil(load.users.max(1)) + 1)),
            mend: false,
            resume: false,
        },
    };
    let memory = || load.server.and_then(|server| server.memory_bytes());
    let signed_in = SignedIn::register(&load.url, options, progress).await?;
    let memory_before = memory();
    let crowd = signed_in.connect(clock, Arc::clone(&figures) as _, progress).await?;
    let memory_after = memory();
    let members = members(load)?;
    let chats = crowd
        .make_chats(load.chats, progress, |n| {
            let (crowd, members) = (&crowd, members.get(n).cloned().unwrap_or_default());
            async move {
                match (load.kind, &members[..]) {
                    (Kind::Direct, [one, other, ..]) => crowd.direct(*one, *other).await,
                    (_, [owner, others @ ..]) => crowd.group(&format!("load {n}"), *owner, others).await,
                    (_, []) => Err(WorkloadError::Impossible("a chat without members".into())),
                }
            }
        })
        .await?;
    let mut writers = Vec::new();
    for (chat, members) in chats.iter().zip(&members) {
        for member in members.iter().take(load.senders.max(1)) {
            writers.push(Writer { device: crowd.device(*member)?, chat: *chat });
        }
    }
    writers.shuffle(&mut rand::rng());

    let from = clock.micros() + micros(load.warmup);
    let to = from + micros(load.duration);
    figures.measure(from, to);
    let stop = CancellationToken::new();
    let sending = async {
        if load.rate > 0.0 {
            at_rate(load, clock, &figures, &writers, &stop).await;
        } else {
            as_fast_as_it_goes(load, clock, &writers, &stop).await;
        }
    };
    let watching = async {
        let cpu = watch(load, clock, &figures, (from, to), progress).await;
        stop.cancel();
        cpu
    };
    let ((), cpu_micros) = tokio::join!(sending, watching);
    let undrained = crowd.drained(DRAIN_WITHIN).await;
    if undrained > 0 {
        figures.error(format!("unanswered after {} s, devices", DRAIN_WITHIN.as_secs()));
    }
    last_deliveries(&figures).await;

    let connections = crowd.devices().count() as u64;
    let memory_per_connection = memory_before
        .zip(memory_after)
        .filter(|_| connections >= CONNECTIONS_TOLD_APART)
        .map(|(before, after)| after.saturating_sub(before) / connections.max(1));
    let report = ChatReport::new(load, &figures, connections, cpu_micros, memory_per_connection);
    crowd.stop().await?;
    Ok(report)
}

/// Who is in each chat, by number: neighbours, so that every user is in as many chats as any other.
fn members(load: &ChatLoad) -> Result<Vec<Vec<usize>>, WorkloadError> {
    let users = load.users;
    let size = match load.kind {
        Kind::Direct => 2,
        Kind::Group => load.group_size,
    };
    if size < 1 || size > users || load.chats == 0 {
        return Err(WorkloadError::Impossible(format!("{} chats of {size} among {users} users", load.chats)));
    }
    if load.kind == Kind::Direct && load.chats > users * (users - 1) / 2 {
        return Err(WorkloadError::Impossible(format!("{users} users have no {} direct chats", load.chats)));
    }
    let chat = |n: usize| match load.kind {
        Kind::Group => (0..size).map(|m| (n * size + m) % users).collect(),
        Kind::Direct => pair(n, users),
    };
    Ok((0..load.chats).map(chat).collect())
}

/// The `n`-th pair of `users`, no pair twice: first neighbours that share nobody, then the others, by distance.
fn pair(n: usize, users: usize) -> Vec<usize> {
    let apart = n / users + 1;
    let at = n % users;
    // At distance one, even places come first: 0–1, 2–3, … and only then 1–2, 3–4, …
    let one = if apart == 1 {
        let pairs = users / 2;
        if at < pairs { at * 2 } else { ((at - pairs) * 2 + 1).min(users - 1) }
    } else {
        at
    };
    vec![one % users, (one + apart) % users]
}

async fn at_rate(
    load: &ChatLoad,
    clock: Clock,
    figures: &Figures,
    writers: &[Writer<'_>],
    stop: &CancellationToken,
) {
    let start = clock.micros();
    let step = 1_000_000.0 / load.rate;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sent: u64 = 0;
    for writer in writers.iter().cycle() {
        let due = start + (sent as f64 * step) as u64;
        while clock.micros() < due {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
        }
        if stop.is_cancelled() {
            return;
        }
        let body = body::compose(due, sent, load.body_bytes);
        let post = Post { scheduled: Some(due), ..Post::new(writer.chat, body) };
        if writer.device.try_post(post).is_err() {
            figures.error("not sent: the outbox is full");
        }
        sent += 1;
        // Far behind, the schedule must still let the devices run.
        if sent.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
}

async fn as_fast_as_it_goes(load: &ChatLoad, clock: Clock, writers: &[Writer<'_>], stop: &CancellationToken) {
    let all = writers.iter().enumerate().map(|(n, writer)| async move {
        let window = Arc::new(Semaphore::new(load.window.max(1)));
        for sent in 0.. {
            let permit = tokio::select! {
                permit = Arc::clone(&window).acquire_owned() => permit.ok(),
                () = stop.cancelled() => return,
            };
            let now = clock.micros();
            let body = body::compose(now, (n as u64) << 40 | sent, load.body_bytes);
            writer.device.post(Post { scheduled: Some(now), permit, ..Post::new(writer.chat, body) }).await;
        }
    });
    futures_util::future::join_all(all).await;
}

/// Shows how it goes, and takes the server's CPU time at both ends of what is measured.
async fn watch(
    load: &ChatLoad,
    clock: Clock,
    figures: &Figures,
    (from, to): (u64, u64),
    progress: &Progress,
) -> Option<u64> {
    let stage = progress.stage("sending", load.duration.as_secs());
    tokio::time::sleep_until(clock.instant(from).into()).await;
    let cpu = || load.server.and_then(|server| server.cpu_micros());
    let before = cpu();
    let mut last = 0;
    let mut second = 1;
    while clock.micros() < to {
        let next = (from + second * 1_000_000).min(to);
        tokio::time::sleep_until(clock.instant(next).into()).await;
        let acks = figures.acks.load(Ordering::Relaxed);
        stage.at(second, &format!("{} acks/s", acks - last));
        last = acks;
        second += 1;
    }
    before.zip(cpu()).map(|(before, after)| after.saturating_sub(before))
}

/// Waits until no delivery has come for half a second, a few seconds at most.
async fn last_deliveries(figures: &Figures) {
    let until = Instant::now() + Duration::from_secs(5);
    let mut last = u64::MAX;
    while Instant::now() < until {
        let now = figures.delivery.count();
        if now == last {
            return;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_pair_has_two_direct_chats_and_first_nobody_is_in_two() {
        for users in [2, 3, 4, 7, 10] {
            let all = users * (users - 1) / 2;
            let pairs: HashSet<_> = (0..all)
                .map(|n| {
                    let mut pair = pair(n, users);
                    pair.sort_unstable();
                    pair
                })
                .collect();
            assert_eq!(pairs.len(), all, "{users} users");
            assert!(pairs.iter().all(|pair| pair[0] != pair[1]));
        }
        let first: HashSet<_> = (0..50).flat_map(|n| pair(n, 100)).collect();
        assert_eq!(first.len(), 100);
    }
}
