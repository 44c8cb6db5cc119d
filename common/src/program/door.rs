//! The one HTTP listener of a program, from its first moment on: while engines are waited for it answers that the program is alive and not
//! ready, and why. Then the service itself serves there.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{Router, response::IntoResponse, routing::get};
use http::{StatusCode, header};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::say;
use crate::{
    engines::waiting::Waits,
    listen::{self, ListenLimits},
    problem::Problem,
    shutdown::Shutdown,
    telemetry::metrics_page,
};

/// How long requests may take when the door changes hands.
const GRACE: Duration = Duration::from_secs(1);

/// A program that has been started: its stop, and its listener.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    /// Asked to stop by signals.
    pub shutdown: Shutdown,
    /// What the start waits for.
    pub waits: Waits,
}

impl Process {
    pub(super) fn new(name: &'static str, listener: TcpListener, shutdown: Shutdown) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let process = Self { name, listener, address, shutdown, waits: Waits::new() };
        process.tell("http", &format!("http://{address}"));
        Ok(process)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Prints where something is to be found, for whoever started it.
    pub fn tell(&self, what: &str, at: &str) {
        say(format_args!("{} {what} {at}", self.name));
        tracing::info!(at, "listens for {what}");
    }

    /// Answers operators while `opening` is under way: alive, and not ready. Everybody else is asked to come again.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn meanwhile<T>(&self, opening: impl Future<Output = T>) -> io::Result<T> {
        // The socket is the same: whoever comes between its two users waits in its queue.
        let listener = tokio::net::TcpListener::from_std(self.listener.try_clone()?)?;
        let waits = self.waits.clone();
        let ready: Ready = Arc::new(move || Err(waits.to_string()));
        let router = operators(ready, Registry::new())
            .fallback(async || Problem::retry_later("this service is starting").into_response());
        let opened = CancellationToken::new();
        let limits = ListenLimits { grace: GRACE, ..ListenLimits::default() };
        let serving = listen::serve(listener, router, limits, opened.clone());
        let opening = async {
            let outcome = opening.await;
            opened.cancel();
            outcome
        };
        Ok(tokio::join!(serving, opening).1)
    }

    /// Its listener, for the service itself.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn listener(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener.try_clone()?)
    }

    /// Serves `router` until the process is asked to stop; for a service that has no door of its own.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve(&self, router: Router) -> io::Result<()> {
        let limits = ListenLimits { grace: GRACE, ..ListenLimits::default() };
        let serving = listen::serve(self.listener()?, router, limits, self.shutdown.soft());
        self.shutdown.spawn_critical("HTTP", async move {
            serving.await;
            Ok::<(), Infallible>(())
        });
        Ok(())
    }
}

/// Why a program is not ready, if it is not.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What operators ask of any program: `/healthz` (alive), `/readyz` (serves), `/metrics`.
pub fn operators(ready: Ready, registry: Registry) -> Router {
    let ready = async move || match ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => Problem::retry_later(why).into_response(),
    };
    let metrics = async move || {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (StatusCode::OK, kind, metrics_page(&registry))
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
