//! What grows with chats and members: the list of many chats, a large group, and many people who come at once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use common::{
    ids::{ChatId, ClientId, UserId},
    model::{ChatsPage, MessageKind},
    wire::client::{ClientFrame, Send},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::{
    Bench,
    figures::{AT_ONCE, Cost, cost, hello, open_each},
    readers::{Messages, Reader, Readers},
    report::Row,
    server::Server,
};
use crate::{
    client::{
        connection::{Connection, Received},
        frames::Incoming,
        http::Http,
        rest::{Session, patiently, register},
    },
    figures::Latencies,
    progress::Progress,
    workload::sign_in,
};

/// Chats of one user, and how often they are listed.
const CHATS: usize = 2_000;
const LISTINGS: usize = 1_000;
/// Listings under way at once.
const LISTING: usize = 2;

/// Members of a large group and of a small one, of whom the same are connected; and how many messages come at once.
const LARGE: usize = 50_000;
const ONLINE: usize = 2_000;
const BURST: usize = 100;
/// Who write it: a session may have 64 sends under way.
const WRITERS: usize = 4;

/// Who comes within so long, each in so many chats of so many.
pub(super) const COMING: usize = 10_000;
const COMING_IN: Duration = Duration::from_secs(10);
const CHATS_EACH: usize = 20;
const MEMBERS: usize = 10;

/// From one message to the next while they come.
const PACE: Duration = Duration::from_millis(10);
/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Each signed in once, without a socket.
pub(super) async fn people(http: &Http, count: usize, progress: &Progress) -> anyhow::Result<Vec<Session>> {
    let people = sign_in(http, count, 1, progress).await?;
    Ok(people.into_iter().flat_map(|(_, sessions)| sessions).collect())
}

/// Makes groups, each by the first of its members.
pub(super) async fn groups(groups: &[Vec<&Session>], progress: &Progress) -> anyhow::Result<Vec<ChatId>> {
    let stage = progress.stage("making groups", groups.len() as u64);
    let making = groups.iter().enumerate().map(|(n, members)| {
        let stage = &stage;
        async move {
            let (first, others) = members.split_first().context("no members")?;
            let members: Vec<UserId> = others.iter().map(|other| other.user()).collect();
            let chat = first.create_group(&format!("group {n}"), &members).await?;
            stage.step();
            anyhow::Ok(chat)
        }
    });
    stream::iter(making).buffered(AT_ONCE).try_collect().await
}

/// The first page of somebody with many chats (CH-1).
pub(super) async fn listing(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Row> {
    let mut server = Server::new(&bench.server, folder)?;
    server.start(3).await?;
    let http = Http::new(&server.url())?;
    let people = people(&http, MEMBERS, progress).await?;
    let (one, others) = people.split_first().context("nobody")?;
    let members: Vec<Vec<&Session>> =
        others.iter().cycle().take(CHATS).map(|other| vec![one, other]).collect();
    for chat in groups(&members, progress).await? {
        let path = format!("/api/v1/chats/{chat}/messages");
        let body = json!({ "body": "hello", "client_id": "hello" });
        let _: Value = patiently(|| one.ask(Method::POST, &path, Some(&body))).await?;
    }
    let latencies = Latencies::default();
    let stage = progress.stage("listing", LISTINGS as u64);
    let asking = (0..LISTINGS).map(|_| {
        let (latencies, stage) = (&latencies, &stage);
        async move {
            let begun = Instant::now();
            let page: ChatsPage = one.ask(Method::GET, "/api/v1/chats", None).await?;
            latencies.record(begun.elapsed().as_micros() as u64);
            ensure!(page.results.len() == 10, "{} chats on a page", page.results.len());
            stage.step();
            anyhow::Ok(())
        }
    });
    stream::iter(asking).buffer_unordered(LISTING).try_collect::<Vec<()>>().await?;
    let figure = format!("p99 of the first page of {CHATS} chats");
    Ok(Row::absolute(figure, latencies.percentiles().p99_ms, "ms", 20.0))
}

/// A burst in a group of which most are away (CH-3), beside one of which all are there.
pub(super) async fn large(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut server = Server::new(&bench.server, folder)?;
    server.start(3).await?;
    let http = Http::new(&server.url())?;
    let online = people(&http, ONLINE, progress).await?;
    let stage = progress.stage("registering those who are away", (LARGE - ONLINE) as u64);
    let registering = (0..LARGE - ONLINE).map(|n| {
        let (http, stage) = (&http, &stage);
        async move {
            let account = register(http, &format!("away-{n}"), "a password of theirs", "Away").await?;
            stage.step();
            anyhow::Ok(account.user)
        }
    });
    let away: Vec<UserId> = stream::iter(registering).buffered(AT_ONCE).try_collect().await?;
    drop(stage);

    let (first, others) = online.split_first().context("nobody")?;
    let others: Vec<UserId> = others.iter().map(Session::user).collect();
    let small = first.create_group("small", &others).await?;
    let begun = Instant::now();
    let large = first.create_group("large", &[others, away].concat()).await?;
    let made = begun.elapsed().as_secs_f64();

    let readers = Readers::start()?;
    let sockets = open_each(&readers, &online, |_| hello()).await?;
    let process = server.process()?;
    let (mut costs, mut slowest) = ([Cost::default(); 2], Duration::ZERO);
    // The first of each is for what is done once.
    for round in 0..=bench.rounds {
        for (cost_of, chat) in costs.iter_mut().zip([small, large]) {
            let frames: Vec<Vec<u8>> = (0..WRITERS)
                .map(|_| {
                    let mut messages = Messages::new(chat, bench.body_bytes);
                    (0..BURST / WRITERS).flat_map(|_| messages.frame()).collect()
                })
                .collect();
            let mut took = Duration::ZERO;
            let burst = async {
                let begun = Instant::now();
                readers.tally.expect((BURST * ONLINE) as u64);
                for (sender, frames) in sockets.iter().zip(&frames) {
                    sender.say(frames).await?;
                }
                readers.tally.reached().await?;
                took = begun.elapsed();
                Ok(())
            };
            let cost = cost(process, &readers, burst).await?;
            if round > 0 {
                cost_of.add(cost);
                slowest = slowest.max(if chat == large { took } else { Duration::ZERO });
            }
        }
    }
    let [small, large] = costs.map(Cost::each);
    Ok(vec![
        Row::absolute(format!("a group of {LARGE} is made in one request"), made, "s", 10.0),
        Row::absolute(
            format!("{BURST} messages at once to {ONLINE} of {LARGE}"),
            slowest.as_secs_f64(),
            "s",
            5.0,
        ),
        Row::ratio(
            format!("CPU per delivery, {ONLINE} of {LARGE} are there"),
            large,
            "µs",
            ("all are there", small),
            1.2,
        ),
    ])
}

/// What a message of others costs while many come who are told of one another (PR-1).
pub(super) async fn coming(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Row> {
    let mut server = Server::new(&bench.server, folder)?;
    server.start(3).await?;
    let http = Http::new(&server.url())?;
    let all = people(&http, COMING + 2, progress).await?;
    let ([ana, ben], many) = all.split_first_chunk().context("nobody")?;
    let mut places: Vec<&Session> = many.iter().collect();
    let mut members = Vec::new();
    for _ in 0..CHATS_EACH {
        places.shuffle(&mut rand::rng());
        members.extend(places.chunks(MEMBERS).map(<[_]>::to_vec));
    }
    groups(&members, progress).await?;
    let chat = ana.open_direct(ben.user()).await?;
    // Started anew: what the making has left in memory, and is still being written, is not what is measured.
    server.start(3).await?;
    super::figures::settle(std::slice::from_ref(ana)).await?;
    let mut sender = Connection::open(ana, None, None).await?;

    // What is done once.
    sends(&mut sender, chat, 100).await?;
    let count = COMING_IN.as_millis() / PACE.as_millis();
    let quiet = sends(&mut sender, chat, count).await?;

    let readers = Readers::start()?;
    let stage = progress.stage("coming", many.len() as u64);
    let each = COMING_IN / u32::try_from(many.len())?;
    let begun = tokio::time::Instant::now();
    let opening = many.iter().enumerate().map(|(n, session)| {
        let (readers, stage) = (&readers, &stage);
        async move {
            tokio::time::sleep_until(begun + each * u32::try_from(n)?).await;
            let socket = readers.open(&session.location().await?.url, hello()).await?;
            stage.step();
            anyhow::Ok(socket)
        }
    });
    let coming = async {
        let sockets: Vec<Reader> = stream::iter(opening).buffered(AT_ONCE).try_collect().await?;
        anyhow::Ok((sockets, begun.elapsed()))
    };
    // On a task of its own: what it waits for is the server, and not the opening of others' sockets here.
    let sending = tokio::spawn(async move { sends(&mut sender, chat, count).await });
    let (_sockets, took) = coming.await?;
    let storm = sending.await??;
    let figure = format!("p99 of a send while {COMING} come within {:.1} s", took.as_secs_f64());
    Ok(Row::ratio(figure, storm, "ms", ("when nobody comes", quiet), 2.0))
}

/// Sends so many messages, each when it is due or as soon as the one before is answered; how long it took from when they were due, in
/// milliseconds, for 99 of 100 at most.
async fn sends(connection: &mut Connection, chat: ChatId, count: u128) -> anyhow::Result<f64> {
    let latencies = Latencies::default();
    let begun = tokio::time::Instant::now();
    for n in 0..u32::try_from(count)? {
        let due = begun + PACE * n;
        while let Ok(received) = tokio::time::timeout_at(due, connection.next()).await {
            ensure!(!matches!(received, Received::Over(_)), "the sender's socket was closed");
        }
        let send = Send {
            ref_: u64::from(n) + 1,
            chat,
            client_id: ClientId::new(&format!("{:016x}", rand::random::<u64>()))?,
            body: "hello".to_owned(),
            kind: MessageKind::Text,
            reply_to: None,
            attachments: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            retry: false,
        };
        let sent =
            connection.feed(&ClientFrame::Send(send)).await.is_ok() && connection.flush().await.is_ok();
        ensure!(sent, "the sender's socket was closed");
        let answered = tokio::time::timeout(ANSWERED_WITHIN, async {
            loop {
                match connection.next().await {
                    Received::Frame(Incoming::Ack(_)) => return anyhow::Ok(()),
                    Received::Frame(Incoming::Error(error)) => anyhow::bail!("refused: {error:?}"),
                    Received::Over(code) => anyhow::bail!("closed: {code:?}"),
                    Received::Frame(_) | Received::Alive => {}
                }
            }
        });
        answered.await.context("a send was not answered")??;
        latencies.record(due.elapsed().as_micros() as u64);
    }
    Ok(latencies.percentiles().p99_ms)
}
