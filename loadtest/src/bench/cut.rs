//! A storm: all sockets are cut at one instant, things are said meanwhile, and everybody comes back at once for what they missed (WS-3).

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use common::{ids::ChatId, wire::client::Resume};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use super::{
    Bench,
    crowds::{groups, people},
    report::Row,
    server::Server,
};
use crate::{
    client::{
        connection::{Connection, Received},
        frames::{Event, Happened, Incoming},
        http::Http,
        rest::{Session, patiently},
    },
    progress::Progress,
};

/// Members of each chat.
const MEMBERS: usize = 10;
/// Messages in each chat that everybody in it misses.
const MISSED: u64 = 2;
/// Who comes back at once. Clients that were cut together wait a random while; here they do not.
const AT_ONCE: usize = 512;
/// Requests under way at once while the storm is prepared.
const PREPARING: usize = 64;
/// How long one client may take, with whatever it has to try again.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// Marks, and with them cursors, are told every second.
const MARKS_WITHIN: Duration = Duration::from_secs(5);
/// What was to be reached.
const SECONDS: f64 = 15.0;

/// How long it takes until the last one is whole again.
pub(super) async fn cut(bench: &Bench, folder: &Path, progress: &Progress) -> anyhow::Result<Row> {
    let mut server = Server::new(&bench.server, folder)?;
    server.start(3).await?;
    let http = Http::new(&server.url())?;
    let sessions = people(&http, bench.idle, progress).await?;

    let members: Vec<Vec<&Session>> =
        sessions.chunks(MEMBERS).map(|members| members.iter().collect()).collect();
    let chats = groups(&members, progress).await?;
    let chats: Vec<(&Session, ChatId)> = sessions.iter().step_by(MEMBERS).zip(chats).collect();

    let stage = progress.stage("connecting", sessions.len() as u64);
    let opening = sessions.iter().map(|session| {
        let stage = &stage;
        async move {
            let connection = Connection::open(session, None, None).await?;
            stage.step();
            anyhow::Ok(connection)
        }
    });
    let mut connections: Vec<Connection> = stream::iter(opening).buffered(PREPARING).try_collect().await?;
    drop(stage);
    tokio::time::sleep(MARKS_WITHIN).await;
    let cursors: Vec<String> = connections.iter_mut().map(newest_cursor).collect::<anyhow::Result<_>>()?;

    // Dropped together: their sockets are closed without a goodbye.
    drop(connections);
    let saying = chats.iter().flat_map(|(sender, chat)| (0..MISSED).map(move |n| say(sender, *chat, n)));
    stream::iter(saying).buffer_unordered(PREPARING).try_collect::<Vec<()>>().await?;

    let stage = progress.stage("coming back", sessions.len() as u64);
    let begun = Instant::now();
    let coming = sessions.iter().zip(cursors).map(|(session, cursor)| {
        let stage = &stage;
        async move {
            let back = tokio::time::timeout(BACK_WITHIN, back(session, cursor)).await;
            let connection = back.context("somebody did not come back in time")??;
            stage.step();
            anyhow::Ok(connection)
        }
    });
    let whole: Vec<Connection> = stream::iter(coming).buffer_unordered(AT_ONCE).try_collect().await?;
    let took = begun.elapsed().as_secs_f64();
    let figure = format!("{} sockets cut at once, all resumed and whole", whole.len());
    Ok(Row::absolute(figure, took, "s", SECONDS))
}

/// The newest cursor that a session was told.
fn newest_cursor(connection: &mut Connection) -> anyhow::Result<String> {
    let mut cursor = connection.ready.cursor.clone();
    while let Some(received) = connection.at_hand() {
        match received {
            Received::Frame(Incoming::Cursor(newer)) => cursor = newer,
            Received::Frame(_) | Received::Alive => {}
            Received::Over(code) => bail!("a socket was closed before the storm: {code:?}"),
        }
    }
    Ok(cursor)
}

async fn say(sender: &Session, chat: ChatId, n: u64) -> anyhow::Result<()> {
    let path = format!("/api/v1/chats/{chat}/messages");
    let body = json!({ "body": format!("missed {n}"), "client_id": format!("missed-{n}") });
    let _: Value = patiently(|| sender.ask(Method::POST, &path, Some(&body))).await?;
    Ok(())
}

/// Opens a socket again and reads until everything that was missed is there.
async fn back(session: &Session, cursor: String) -> anyhow::Result<Connection> {
    let mut connection = loop {
        let resume = Resume { cursor: Some(cursor.clone()), chats: HashMap::new() };
        match Connection::open(session, None, Some(resume)).await {
            Ok(connection) => break connection,
            // A node that is full, or a location that was not given: as a client would.
            Err(error) => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(Duration::from_millis(rand::random_range(100..500))).await;
            }
        }
    };
    let mut messages = 0;
    loop {
        match connection.next().await {
            Received::Frame(Incoming::Event(Event { what: Happened::Message(_), .. })) => messages += 1,
            Received::Frame(Incoming::Resumed { chats, .. }) => {
                ensure!(chats.values().all(|chat| chat.complete), "a view is not whole: {chats:?}");
                ensure!(messages == MISSED, "{messages} of {MISSED} messages came");
                return Ok(connection);
            }
            Received::Frame(_) | Received::Alive => {}
            Received::Over(code) => bail!("closed while resuming: {code:?}"),
        }
    }
}
