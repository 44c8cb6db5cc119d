//! From `GET /chat/location` to a session that is ready, and goodbye: again and again, so many at once. Users are registered and signed in
//! before the clock starts.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{WorkloadError, crowd::sign_in};
use crate::{
    client::{connection::Connection, http::Http, rest::Session},
    clock::Clock,
    figures::{Figures, open_error},
    progress::Progress,
    report::ConnectReport,
    server_process::ServerProcess,
};

/// How much and how long.
#[derive(Clone, Debug)]
pub struct ConnectLoad {
    /// `http://host:port`.
    pub url: String,
    /// How many users take turns.
    pub users: usize,
    /// Openings under way at once.
    pub concurrency: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long it runs before that.
    pub warmup: Duration,
    /// The server's process, when it is known.
    pub server: Option<ServerProcess>,
}

/// Opens sessions and reports.
///
/// # Errors
/// [`WorkloadError`] when it cannot be set up; what goes wrong later is in the report.
pub async fn run(load: &ConnectLoad, progress: &Progress) -> Result<ConnectReport, WorkloadError> {
    let http = Http::new(&load.url)?;
    let signed_in = sign_in(&http, load.users.max(1), 1, progress).await?;
    let sessions: Vec<Session> = signed_in.into_iter().flat_map(|(_, sessions)| sessions).collect();
    let (clock, figures) = (Clock::start(), Figures::default());
    let (next, opened) = (AtomicUsize::new(0), AtomicU64::new(0));
    let measured = CancellationToken::new();
    let stop = CancellationToken::new();
    let opening = (0..load.concurrency.max(1)).map(|_| async {
        while !stop.is_cancelled() {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(session) = sessions.get(turn % sessions.len().max(1)) else { return };
            let began = Instant::now();
            match Connection::open(session, None, None).await {
                Ok(connection) => {
                    if measured.is_cancelled() && !stop.is_cancelled() {
                        opened.fetch_add(1, Ordering::Relaxed);
                        figures.ack.record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                    }
                    connection.close().await;
                }
                Err(error) => {
                    figures.error(open_error(&error));
                    // A server that refuses at once is not to be drowned.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
    let watching = async {
        tokio::time::sleep(load.warmup).await;
        let cpu = || load.server.and_then(|server| server.cpu_micros());
        let before = cpu();
        measured.cancel();
        let (began, stage) = (clock.micros(), progress.stage("opening", load.duration.as_secs()));
        let mut per_second = Vec::new();
        let mut last = 0;
        for second in 1..=load.duration.as_secs().max(1) {
            tokio::time::sleep_until(clock.instant(began + second * 1_000_000).into()).await;
            let so_far = opened.load(Ordering::Relaxed);
            stage.at(second, &format!("{} sessions/s", so_far - last));
            per_second.push(so_far - last);
            last = so_far;
        }
        stop.cancel();
        (per_second, before.zip(cpu()).map(|(before, after)| after.saturating_sub(before)))
    };
    let (_, (per_second, cpu_micros)) = tokio::join!(futures_util::future::join_all(opening), watching);
    Ok(ConnectReport::new(load, &figures, per_second, cpu_micros))
}
