//! A service of the cluster as the process holds it: it can be asked to stop, and, where it has a runtime of its own, be killed.

use std::{fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use common::shutdown::Shutdown;
use futures_util::FutureExt;
use tokio::{runtime::Runtime, sync::oneshot};

/// How long a service may take to stop before it is dropped: what the slowest, a node, gives its parts, and a second.
const GRACE: Duration = chat_node::STOPPING.saturating_add(Duration::from_secs(1));

/// Where services run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtimes {
    /// All in the process's own: the fewest threads.
    #[default]
    Shared,
    /// Each in one of its own, so that one can die without a word while the others go on: for tests.
    Own,
}

/// A running service.
pub struct Service {
    name: String,
    shutdown: Shutdown,
    ended: oneshot::Receiver<anyhow::Result<()>>,
    runtime: Option<Runtime>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}", self.name)
    }
}

impl Service {
    /// Starts `service`, which gets its stop and runs until then. When it ends by itself, the whole process is asked to stop.
    pub(crate) fn start<F, S>(
        name: impl Into<String>,
        runtimes: Runtimes,
        process: &Shutdown,
        service: S,
    ) -> anyhow::Result<Self>
    where
        S: FnOnce(Shutdown) -> F,
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name = name.into();
        let shutdown = Shutdown::new();
        let running = service(shutdown.clone());
        let (end, ended) = oneshot::channel();
        let (process, stop, what) = (process.clone(), shutdown.clone(), name.clone());
        let guarded = async move {
            let outcome = match AssertUnwindSafe(running).catch_unwind().await {
                Ok(outcome) => outcome,
                // The panic itself was written by its hook.
                Err(_) => Err(anyhow::anyhow!("{what} panicked")),
            };
            if !stop.is_stopping() {
                tracing::error!(service = what, ?outcome, "a service ended that nobody stopped");
                process.stop();
            }
            let _ = end.send(outcome);
        };
        let runtime = match runtimes {
            Runtimes::Shared => {
                tokio::spawn(guarded);
                None
            }
            Runtimes::Own => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.spawn(guarded);
                Some(runtime)
            }
        };
        Ok(Self { name, shutdown, ended, runtime })
    }

    /// Asks it to finish what it has begun, and waits for it.
    ///
    /// # Errors
    /// What the service says of its end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.stop();
        match tokio::time::timeout(GRACE, &mut self.ended).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => anyhow::bail!("{} ended without a word", self.name),
            Err(_) => {
                self.shutdown.stop_now();
                anyhow::bail!("{} did not stop within {GRACE:?}", self.name)
            }
        }
    }

    /// Ends it between two instructions, as `kill -9` would: nothing is flushed, nobody is told. A service in a shared runtime is only told to
    /// go at once.
    pub fn kill(mut self) {
        match self.runtime.take() {
            Some(runtime) => runtime.shutdown_background(),
            None => self.shutdown.stop_now(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.stop_now();
        // A runtime may not be dropped by a task; in the background it may.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
