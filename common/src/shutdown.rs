//! How a service stops: softly (finish what is begun), then hard (drop what is left).
//!
//! ```text
//! signal, stop(), or a critical task that died ─► soft ─► tasks finish ─► wait() returns
//!                        second signal, stop_now(), or the grace is over ─► hard ─► tasks are dropped
//! ```
//!
//! Every long-lived task of a service is started here, so that none outlives the service and none dies unnoticed:
//!
//! ```
//! # use std::{convert::Infallible, time::Duration};
//! # use common::shutdown::Shutdown;
//! # async fn run() -> Result<(), common::shutdown::Stopped> {
//! let shutdown = Shutdown::new();
//! let soft = shutdown.soft();
//! shutdown.spawn_critical("ticker", async move {
//!     soft.cancelled().await; // works until asked to stop, then cleans up
//!     Ok::<(), Infallible>(())
//! });
//! # shutdown.stop();
//! shutdown.wait(Duration::from_secs(10)).await
//! # }
//! ```

use std::{any::Any, fmt::Display, future::Future, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a hard stop waits for tasks to be dropped. They are at their next await; only one that blocks takes longer.
const DROPPING: Duration = Duration::from_secs(2);

/// Why a service did not stop because it was asked to, or not cleanly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// A critical task died; the first one to do so.
    #[error("{task}: {why}")]
    Died {
        /// Its name.
        task: Arc<str>,
        /// Its error, its panic's message, or that it ended too early.
        why: String,
    },
    /// It did not finish in the grace period; what was left was dropped.
    #[error("{tasks} tasks did not finish in time and were dropped")]
    Late {
        /// How many.
        tasks: usize,
    },
}

/// The stop of one service: two tokens and its tasks. Clones are the same stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    died: Arc<Mutex<Option<Stopped>>>,
}

impl Shutdown {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a service inside another process: it stops when this one does, and can stop alone. Its tasks and their deaths are its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { soft: self.soft.child_token(), hard: self.hard.child_token(), ..Self::default() }
    }

    /// Cancelled when it is time to finish: take nothing new in, end what is begun.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when it is time to go, finished or not. Tasks started here are dropped then.
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Whether a stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Begins the soft stop.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Begins the hard stop.
    pub fn stop_now(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Starts a task that may end whenever it likes; the soft stop waits for it. A panic in it stops the service.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let (this, name) = (self.clone(), Arc::<str>::from(name));
        self.tasks.spawn(async move {
            let task = AssertUnwindSafe(task).catch_unwind();
            if let Some(Err(panic)) = this.hard.run_until_cancelled(task).await {
                this.die(name, message(panic.as_ref()));
            }
        });
    }

    /// Starts a task that the service cannot be without: its error, its panic, or its end before a stop has begun stops the service.
    pub fn spawn_critical<E: Display>(
        &self,
        name: &str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (this, name) = (self.clone(), Arc::<str>::from(name));
        self.tasks.spawn(async move {
            let task =
                AssertUnwindSafe(task.map(|end| end.map_err(|error| error.to_string()))).catch_unwind();
            match this.hard.run_until_cancelled(task).await {
                None => {}
                Some(Ok(Ok(()))) if this.is_stopping() => tracing::debug!(task = %name, "ended"),
                Some(Ok(Ok(()))) => this.die(name, "ended unasked".to_owned()),
                Some(Ok(Err(error))) => this.die(name, error),
                Some(Err(panic)) => this.die(name, message(panic.as_ref())),
            }
        });
    }

    fn die(&self, task: Arc<str>, why: String) {
        tracing::error!(%task, %why, "task died, stopping");
        self.died.lock().get_or_insert(Stopped::Died { task, why });
        self.stop();
    }

    /// The first task that died, if one did.
    pub fn died(&self) -> Option<Stopped> {
        self.died.lock().clone()
    }

    /// Turns SIGINT and SIGTERM into a soft stop, and a second one into a hard stop. Ends after the second one. For mains: handlers are the
    /// process's.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    #[cfg(unix)]
    pub async fn signals(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};

        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        // Not inside the macros: a level that is off would not wait.
        let signal = next().await;
        tracing::info!(signal, "stopping");
        self.stop();
        let signal = next().await;
        tracing::warn!(signal, "stopping at once");
        self.stop_now();
        Ok(())
    }

    /// Turns Ctrl-C into a soft stop, and a second one into a hard stop. Ends after the second one.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    #[cfg(not(unix))]
    pub async fn signals(&self) -> io::Result<()> {
        tokio::signal::ctrl_c().await?;
        self.stop();
        tokio::signal::ctrl_c().await?;
        self.stop_now();
        Ok(())
    }

    /// Waits for a stop to begin, then for the tasks to finish: `grace` at most, then they are dropped.
    ///
    /// # Errors
    /// [`Stopped`]: a task died, or some were dropped.
    pub async fn wait(&self, grace: Duration) -> Result<(), Stopped> {
        self.soft.cancelled().await;
        self.tasks.close();
        let finished = timeout(grace, self.hard.run_until_cancelled(self.tasks.wait())).await;
        let mut late = 0;
        if !matches!(finished, Ok(Some(()))) {
            late = self.tasks.len();
            self.hard.cancel();
            if timeout(DROPPING, self.tasks.wait()).await.is_err() {
                tracing::error!(tasks = self.tasks.len(), "tasks block and are left behind");
            }
        }
        match self.died() {
            Some(died) => Err(died),
            None if late > 0 => Err(Stopped::Late { tasks: late }),
            None => Ok(()),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::pin};

    use futures_util::poll;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    type Fine = Result<(), Infallible>;

    #[tokio::test]
    async fn a_soft_stop_waits_for_what_is_begun() {
        let shutdown = Shutdown::new();
        let soft = shutdown.soft();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn_critical("works", async move {
            soft.cancelled().await;
            finished.await
        });
        let mut wait = pin!(shutdown.wait(LONG));
        assert!(poll!(wait.as_mut()).is_pending());
        shutdown.stop();
        assert!(poll!(wait.as_mut()).is_pending());
        finish.send(()).unwrap();
        assert_eq!(wait.await, Ok(()));
    }

    #[tokio::test]
    async fn a_critical_task_that_dies_stops_the_service_and_is_named() {
        async fn panics() -> Fine {
            panic!("oh {}", "no")
        }
        async fn fails() -> Result<(), &'static str> {
            Err("broken")
        }
        async fn ends() -> Fine {
            Ok(())
        }
        let died = |why: &str| Err(Stopped::Died { task: "it".into(), why: why.to_owned() });

        let shutdown = Shutdown::new();
        shutdown.spawn_critical("it", panics());
        assert_eq!(shutdown.wait(LONG).await, died("panicked: oh no"));
        let shutdown = Shutdown::new();
        shutdown.spawn_critical("it", fails());
        assert_eq!(shutdown.wait(LONG).await, died("broken"));
        let shutdown = Shutdown::new();
        shutdown.spawn_critical("it", ends());
        assert_eq!(shutdown.wait(LONG).await, died("ended unasked"));
    }

    #[tokio::test]
    async fn a_plain_task_may_end_but_not_panic() {
        let shutdown = Shutdown::new();
        let (done, ended) = tokio::sync::oneshot::channel();
        shutdown.spawn("short", async move { done.send(()).unwrap() });
        ended.await.unwrap();
        assert!(!shutdown.is_stopping());
        shutdown.spawn("bad", async { panic!("no") });
        assert!(matches!(shutdown.wait(LONG).await, Err(Stopped::Died { .. })));
    }

    #[tokio::test]
    async fn what_does_not_finish_is_dropped_after_the_grace() {
        let shutdown = Shutdown::new();
        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        shutdown.spawn_critical("stuck", async move {
            std::future::pending::<()>().await;
            drop(guard);
            Fine::Ok(())
        });
        shutdown.stop();
        assert_eq!(shutdown.wait(Duration::from_millis(20)).await, Err(Stopped::Late { tasks: 1 }));
        assert!(dropped.is_cancelled());
    }

    #[tokio::test]
    async fn a_hard_stop_does_not_wait_for_the_grace() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stuck", std::future::pending());
        shutdown.stop_now();
        let stopped = timeout(LONG, shutdown.wait(LONG * 10)).await.unwrap();
        assert!(matches!(stopped, Ok(()) | Err(Stopped::Late { tasks: 1 })));
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_can_stop_alone() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.stop();
        assert!(!parent.is_stopping() && !two.is_stopping());
        parent.stop_now();
        assert!(two.is_stopping() && two.hard().is_cancelled());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_first_signal_is_soft_and_the_second_hard() {
        let kill = || {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        };
        let shutdown = Shutdown::new();
        let mut signals = pin!(shutdown.signals());
        assert!(poll!(signals.as_mut()).is_pending());
        kill();
        tokio::select! {
            _ = signals.as_mut() => panic!("one was enough"),
            () = shutdown.soft.cancelled() => {}
        }
        assert!(!shutdown.hard.is_cancelled());
        kill();
        timeout(LONG, signals).await.unwrap().unwrap();
        assert!(shutdown.hard.is_cancelled());
    }
}
