//! The figures.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use common::ids::ChatId;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Bench, Part,
    bare::Bare,
    crowds::{self, groups, people},
    cut::cut,
    readers::{Messages, Open, Reader, Readers},
    report::Row,
    server::Server,
};
use crate::{
    client::{http::Http, rest::Session},
    progress::Progress,
    server_process::ServerProcess,
};

/// Senders at once, in the figure with many.
const SENDERS: usize = 100;
/// Sends that each keeps under way.
const WINDOW: usize = 16;
/// Sockets and requests that are opened at once.
pub(super) const AT_ONCE: usize = 64;
/// Of a hundred readers, one stalls.
const STALLED: usize = 100;
/// Messages a second while some stall, each of so many bytes: after some seconds the system's buffers are full.
const STALL_RATE: u64 = 50;
const STALL_BODY: usize = 4 * 1024;
/// Seconds of that, at least.
const STALL_SECONDS: u64 = 10;
/// Tickets are good for 30 s: so many are used at a time.
const TICKETS: usize = 500;
/// Until what opening needed is given back.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a server may take to be quiet.
const QUIET_WITHIN: Duration = Duration::from_secs(10);

/// Everything that was asked for.
pub(super) async fn all(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.wants(Part::Delivery) || bench.wants(Part::Nodes) || bench.wants(Part::Stalled) {
        let mut room = Room::prepare(bench, &folder.join("room"), progress).await?;
        if bench.wants(Part::Delivery) || bench.wants(Part::Nodes) {
            rows.extend(room.delivery(bench, progress).await?);
        }
        if bench.wants(Part::Stalled) {
            rows.push(room.stalled(bench, progress).await?);
        }
    }
    if bench.wants(Part::Idle) {
        rows.extend(idle(bench, &folder.join("idle"), progress).await?);
    }
    if bench.wants(Part::Cut) {
        rows.push(cut(bench, &folder.join("cut"), progress).await?);
    }
    if bench.wants(Part::Chats) {
        rows.push(crowds::listing(bench, &folder.join("chats"), progress).await?);
    }
    if bench.wants(Part::Large) {
        rows.extend(crowds::large(bench, &folder.join("large"), progress).await?);
    }
    if bench.wants(Part::Presence) {
        rows.push(crowds::coming(bench, &folder.join("presence"), progress).await?);
    }
    Ok(rows)
}

/// What something cost.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cost {
    cpu_micros: u64,
    deliveries: u64,
}

impl Cost {
    pub(super) fn each(self) -> f64 {
        self.cpu_micros as f64 / self.deliveries.max(1) as f64
    }

    pub(super) fn add(&mut self, other: Self) {
        self.cpu_micros += other.cpu_micros;
        self.deliveries += other.deliveries;
    }
}

/// The CPU time that a process takes for `work`, until it is quiet again: what is put off counts as well.
pub(super) async fn cost<F>(process: ServerProcess, readers: &Readers, work: F) -> anyhow::Result<Cost>
where
    F: Future<Output = anyhow::Result<()>>,
{
    quiet(process).await?;
    let (cpu, events) = (cpu(process)?, readers.tally.events.load(Relaxed));
    work.await?;
    quiet(process).await?;
    Ok(Cost {
        cpu_micros: self::cpu(process)?.saturating_sub(cpu),
        deliveries: readers.tally.events.load(Relaxed) - events,
    })
}

fn cpu(process: ServerProcess) -> anyhow::Result<u64> {
    process.cpu_micros().context("the measured process has ended")
}

/// Waits until a process does next to nothing.
async fn quiet(process: ServerProcess) -> anyhow::Result<()> {
    let end = Instant::now() + QUIET_WITHIN;
    let mut before = cpu(process)?;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = cpu(process)?;
        // Two of the clock's ticks, a tenth of a core.
        if now - before <= 20_000 {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// One chat with many sessions.
struct Room {
    server: Server,
    sessions: Vec<Session>,
    chat: ChatId,
}

impl Room {
    async fn prepare(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Self> {
        let mut server = Server::new(&bench.server, folder)?;
        server.start(1).await?;
        let http = Http::new(&server.url())?;
        let sessions = people(&http, bench.sessions, progress).await?;
        let (owner, others) = sessions.split_first().context("no sessions")?;
        let others: Vec<_> = others.iter().map(Session::user).collect();
        let chat = owner.create_group("bench", &others).await?;
        Ok(Self { server, sessions, chat })
    }

    /// Opens everybody's socket; the first sends.
    async fn open(&self, readers: &Readers, how: impl Fn(usize) -> Open) -> anyhow::Result<Vec<Reader>> {
        open_each(readers, &self.sessions, how).await
    }

    async fn delivery(&mut self, bench: &Bench, progress: &Progress) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let process = self.server.process()?;
        let readers = Readers::start()?;
        let sockets = self.open(&readers, |_| hello()).await?;
        let mut bare = Bare::start(bench.sessions, bench.body_bytes)?;
        let bare_process = bare.process()?;
        let bare_readers = Readers::start()?;
        let mut bare_sockets = Vec::new();
        for _ in 0..bench.sessions {
            bare_sockets.push(bare_readers.open(&bare.url, Open::default()).await?);
        }
        let slice = Duration::from_secs(bench.seconds);
        let sender = sockets.first().context("no sessions")?;
        let mut messages = Messages::new(self.chat, bench.body_bytes);
        // What is done once is not measured.
        one_at_a_time(&readers, sender, &mut messages, sockets.len(), Duration::from_secs(1)).await?;

        let stage = progress.stage("one message at a time", u64::from(bench.rounds));
        let (mut ours, mut loops) = (Cost::default(), Cost::default());
        for _ in 0..bench.rounds {
            let work = one_at_a_time(&readers, sender, &mut messages, sockets.len(), slice);
            ours.add(cost(process, &readers, work).await?);
            let work = rounds(&bare_readers, &mut bare, sockets.len(), 1, slice);
            loops.add(cost(bare_process, &bare_readers, work).await?);
            stage.step();
        }
        drop(stage);
        let alone = ours.each();
        if bench.wants(Part::Delivery) {
            let against = ("bare loop", loops.each());
            rows.push(Row::ratio("CPU per delivery, one at a time", alone, "µs", against, 1.25));

            let stage = progress.stage("16 in flight from one sender", u64::from(bench.rounds));
            let (mut ours, mut loops) = (Cost::default(), Cost::default());
            for _ in 0..bench.rounds {
                let work = in_flight(
                    &readers,
                    sockets.get(..1).unwrap_or_default(),
                    self.chat,
                    bench.body_bytes,
                    slice,
                );
                ours.add(cost(process, &readers, work).await?);
                let work = rounds(&bare_readers, &mut bare, sockets.len(), 16, slice);
                loops.add(cost(bare_process, &bare_readers, work).await?);
                stage.step();
            }
            drop(stage);
            let row = Row::absolute("CPU per delivery, 16 in flight", ours.each(), "µs", 0.5);
            rows.push(row.beside("bare, 16 at once", loops.each()));

            let stage = progress.stage("100 senders", u64::from(bench.rounds));
            let mut many = Cost::default();
            for _ in 0..bench.rounds {
                let work = in_flight(
                    &readers,
                    sockets.get(..SENDERS).unwrap_or_default(),
                    self.chat,
                    bench.body_bytes,
                    slice,
                );
                many.add(cost(process, &readers, work).await?);
                stage.step();
            }
            drop(stage);
            let row =
                Row::absolute("CPU per delivery, 100 senders with 16 in flight", many.each(), "µs", 1.5);
            rows.push(row.beside("bare, 16 at once", loops.each()));
        }
        let refused = readers.tally.errors.load(Relaxed);
        ensure!(refused == 0, "{refused} sends were refused");
        let closed = readers.tally.closed.load(Relaxed);
        ensure!(closed == 0, "{closed} sockets were closed");
        drop((sockets, readers, bare, bare_sockets));
        if bench.wants(Part::Nodes) {
            rows.push(self.nodes(bench, alone, progress).await?);
        }
        Ok(rows)
    }

    /// The same on three nodes.
    async fn nodes(&mut self, bench: &Bench, alone: f64, progress: &Progress) -> anyhow::Result<Row> {
        self.server.start(3).await?;
        settle(&self.sessions).await?;
        let readers = Readers::start()?;
        let sockets = self.open(&readers, |_| hello()).await?;
        let sender = sockets.first().context("no sessions")?;
        let mut messages = Messages::new(self.chat, bench.body_bytes);
        one_at_a_time(&readers, sender, &mut messages, sockets.len(), Duration::from_secs(1)).await?;
        let stage = progress.stage("three nodes", u64::from(bench.rounds));
        let mut spread = Cost::default();
        for _ in 0..bench.rounds {
            let slice = Duration::from_secs(bench.seconds);
            let work = one_at_a_time(&readers, sender, &mut messages, sockets.len(), slice);
            spread.add(cost(self.server.process()?, &readers, work).await?);
            stage.step();
        }
        drop(stage);
        drop(sockets);
        self.server.start(1).await?;
        settle(&self.sessions).await?;
        let figure = "CPU per delivery, one at a time, three nodes";
        Ok(Row::ratio(figure, spread.each(), "µs", ("on one node", alone), 1.15))
    }

    /// What 99 of 100 readers notice when the other one stops reading.
    async fn stalled(&mut self, bench: &Bench, progress: &Progress) -> anyhow::Result<Row> {
        let readers = Readers::start()?;
        // The ones that are to stall have small buffers, so that the server soon feels it.
        let stalls = |at: usize| at % STALLED == STALLED - 1;
        let sockets = self
            .open(&readers, |at| Open { receive_buffer: stalls(at).then_some(4 * 1024), ..hello() })
            .await?;
        let seconds = STALL_SECONDS.max(bench.seconds);
        let stage = progress.stage("stalled readers", 2);
        let mut p99 = Vec::new();
        for stalled in [false, true] {
            for (_, socket) in sockets.iter().enumerate().filter(|(at, _)| stalls(*at)) {
                socket.stall(stalled);
            }
            at_a_rate(&readers, &sockets, self.chat, seconds).await?;
            p99.push(readers.tally.stop_clock().value_at_quantile(0.99) as f64 / 1e3);
            stage.step();
        }
        drop(stage);
        let &[before, after] = p99.as_slice() else { anyhow::bail!("two runs were made") };
        let figure = "p99 of the others while 1 % of the readers stall";
        Ok(Row::ratio(figure, after, "ms", ("when all read", before), 1.3))
    }
}

/// Opens a socket for each of them.
pub(super) async fn open_each(
    readers: &Readers,
    sessions: &[Session],
    how: impl Fn(usize) -> Open,
) -> anyhow::Result<Vec<Reader>> {
    let opening = sessions.iter().enumerate().map(|(at, session)| {
        let how = how(at);
        async move { readers.open(&session.location().await?.url, how).await }
    });
    stream::iter(opening).buffered(AT_ONCE).try_collect().await
}

pub(super) fn hello() -> Open {
    Open { hello: Some(r#"{"type":"hello","ref":0}"#.to_owned()), ..Open::default() }
}

/// Waits until a cluster that was started says where to open a socket.
pub(super) async fn settle(sessions: &[Session]) -> anyhow::Result<()> {
    let session = sessions.first().context("no sessions")?;
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(error) = session.location().await {
        ensure!(Instant::now() < end, "the cluster gives no locations: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // All nodes register within a heartbeat or two.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// Sends one message after the other, each when everybody has the one before.
async fn one_at_a_time(
    readers: &Readers,
    sender: &Reader,
    messages: &mut Messages,
    sockets: usize,
    slice: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + slice;
    while Instant::now() < end {
        readers.tally.expect(sockets as u64);
        sender.say(&messages.frame()).await?;
        readers.tally.reached().await?;
    }
    Ok(())
}

/// The same of the bare loop, so many frames at once.
async fn rounds(
    readers: &Readers,
    bare: &mut Bare,
    sockets: usize,
    frames: u32,
    slice: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + slice;
    while Instant::now() < end {
        readers.tally.expect(sockets as u64 * u64::from(frames));
        bare.round(frames)?;
        readers.tally.reached().await?;
    }
    Ok(())
}

/// Lets some keep sends under way, and waits until everything has arrived.
async fn in_flight(
    readers: &Readers,
    senders: &[Reader],
    chat: ChatId,
    body_bytes: usize,
    slice: Duration,
) -> anyhow::Result<()> {
    for sender in senders {
        sender.keep_sending(Messages::new(chat, body_bytes), WINDOW).await?;
    }
    tokio::time::sleep(slice).await;
    senders.iter().for_each(Reader::stop_sending);
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = readers.tally.events.load(Relaxed);
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

/// Sends at a fixed rate, timed.
async fn at_a_rate(readers: &Readers, sockets: &[Reader], chat: ChatId, seconds: u64) -> anyhow::Result<()> {
    let sender = sockets.first().context("no sessions")?;
    let mut messages = Messages::new(chat, STALL_BODY);
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / STALL_RATE));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    sockets.iter().for_each(Reader::count_anew);
    readers.tally.start_clock();
    for _ in 0..seconds * STALL_RATE {
        ticks.tick().await;
        readers.tally.sends();
        sender.say(&messages.frame()).await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// CPU per connect, and memory per idle session.
async fn idle(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut server = Server::new(&bench.server, folder)?;
    server.start(1).await?;
    let http = Http::new(&server.url())?;
    let sessions = people(&http, bench.idle, progress).await?;
    groups(&sessions.iter().map(|session| vec![session]).collect::<Vec<_>>(), progress).await?;

    // Started anew: what registering and making chats needed is not a session's.
    server.start(1).await?;
    settle(&sessions).await?;
    let process = server.process()?;
    let memory = || process.memory_bytes().context("the server has ended");
    let readers = Readers::start()?;
    let mut sockets = Vec::with_capacity(sessions.len());
    // What the first sockets bring (code, pages of the store, buffers for so many at once) is not a session's: it is measured what each
    // costs that comes to them.
    let (first, others) = sessions.split_at(TICKETS.min(sessions.len() / 2));
    connect(&readers, first, &mut sockets).await?;
    tokio::time::sleep(SETTLED).await;
    let (before, mut spent) = (memory()?, 0);
    let stage = progress.stage("connecting", sessions.len() as u64);
    for sessions in others.chunks(TICKETS) {
        let urls = locations(sessions).await?;
        quiet(process).await?;
        let cpu = cpu(process)?;
        open(&readers, &urls, &mut sockets).await?;
        spent += self::cpu(process)?.saturating_sub(cpu);
        stage.at(sockets.len() as u64, "");
    }
    drop(stage);
    tokio::time::sleep(SETTLED).await;
    let each = memory()?.saturating_sub(before) as f64 / others.len() as f64 / 1_024.0;
    let connect = spent as f64 / others.len() as f64;
    Ok(vec![
        Row::absolute("memory per idle session, one chat each", each, "KiB", 8.0),
        Row::absolute("CPU per connect, ticket to ready", connect, "µs", 100.0),
    ])
}

async fn connect(readers: &Readers, sessions: &[Session], sockets: &mut Vec<Reader>) -> anyhow::Result<()> {
    let urls = locations(sessions).await?;
    open(readers, &urls, sockets).await
}

async fn open(readers: &Readers, urls: &[String], sockets: &mut Vec<Reader>) -> anyhow::Result<()> {
    let opening = urls.iter().map(|url| readers.open(url, hello()));
    sockets.extend(stream::iter(opening).buffered(AT_ONCE).try_collect::<Vec<_>>().await?);
    Ok(())
}

/// Where these open their sockets.
async fn locations(sessions: &[Session]) -> anyhow::Result<Vec<String>> {
    let asking = sessions.iter().map(|session| async move { anyhow::Ok(session.location().await?.url) });
    stream::iter(asking).buffered(AT_ONCE).try_collect().await
}
