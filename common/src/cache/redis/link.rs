//! One connection to a server that may be away: calls fail at once while it is, and a task brings it back.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::cache::CacheError;

/// Between two attempts to connect: it doubles from the first to the last, less up to a half of it, so that many clients do not come at once.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often an idle connection is tried, so that its end is noticed before somebody needs it.
const PROBE: Duration = Duration::from_secs(1);

/// What establishing a connection may take. It waits for nobody's call, so it may be longer than one.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection, or the attempts to have one. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    address: String,
    patience: Duration,
    in_flight: usize,
    permits: Semaphore,
    current: Mutex<Current>,
    lost: Notify,
    /// How many calls were answered: a time-out while nobody got an answer means that the connection is dead.
    answers: AtomicU64,
}

#[derive(Default)]
struct Current {
    generation: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generation {}, connected: {}", self.generation, self.connection.is_some())
    }
}

impl Link {
    /// Tries to connect once, and goes on trying in the background.
    pub(super) async fn open(client: Client, patience: Duration, in_flight: usize) -> Self {
        let shared = Arc::new(Shared {
            address: client.get_connection_info().addr().to_string(),
            client,
            patience,
            in_flight,
            permits: Semaphore::new(in_flight),
            current: Mutex::default(),
            lost: Notify::new(),
            answers: AtomicU64::new(0),
        });
        if let Err(error) = shared.connect().await {
            tracing::warn!(address = shared.address, %error, "no cache yet: going on without");
        }
        let keeper = tokio::spawn(keep(Arc::clone(&shared)));
        Self { shared, keeper }
    }

    /// One call, of one or a few commands. A time-out of the caller's own may end it sooner: the commands may be carried out all the same.
    pub(super) async fn call<T, F, Answer>(&self, commands: F) -> Result<T, CacheError>
    where
        F: FnOnce(MultiplexedConnection) -> Answer,
        Answer: Future<Output = RedisResult<T>>,
    {
        self.shared.call(commands).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Shared {
    async fn call<T, F, Answer>(&self, commands: F) -> Result<T, CacheError>
    where
        F: FnOnce(MultiplexedConnection) -> Answer,
        Answer: Future<Output = RedisResult<T>>,
    {
        let unavailable = |why: String| CacheError::Unavailable(format!("{}: {why}", self.address));
        let (generation, connection) = {
            let current = self.current.lock();
            (current.generation, current.connection.clone())
        };
        let connection = connection.ok_or_else(|| unavailable("not connected".into()))?;
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| unavailable(format!("{} calls are in flight", self.in_flight)))?;
        let answers = self.answers.load(Ordering::Relaxed);
        match timeout(self.patience, commands(connection)).await {
            Ok(Ok(answer)) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if ends_connection(&error) {
                    self.lose(generation, &error.to_string());
                } else {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                }
                Err(unavailable(error.to_string()))
            }
            Err(_) => {
                let why = format!("no answer within {} ms", self.patience.as_millis());
                if self.answers.load(Ordering::Relaxed) == answers {
                    self.lose(generation, &why);
                }
                Err(unavailable(why))
            }
        }
    }

    /// Gives a connection up, unless another has taken its place.
    fn lose(&self, generation: u64, why: &str) {
        let mut current = self.current.lock();
        if current.generation == generation && current.connection.take().is_some() {
            tracing::warn!(address = self.address, why, "the cache is lost: going on without");
            self.lost.notify_one();
        }
    }

    async fn connect(&self) -> RedisResult<()> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // A call has a time-out as a whole.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(self.in_flight);
        let connected = timeout(CONNECT, async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // A server that still loads, or stands still, takes connections all the same.
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            Ok::<_, RedisError>(connection)
        });
        let connection =
            connected.await.unwrap_or_else(|_| Err((ErrorKind::Io, "it does not answer").into()))?;
        let mut current = self.current.lock();
        current.generation += 1;
        current.connection = Some(connection);
        Ok(())
    }
}

fn ends_connection(error: &RedisError) -> bool {
    // Who became a replica answers so until it is connected to anew, by name.
    error.is_unrecoverable_error() || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

async fn keep(shared: Arc<Shared>) {
    let mut wait = BACK_OFF.0;
    loop {
        let connected = shared.current.lock().connection.is_some();
        if connected {
            wait = BACK_OFF.0;
            if timeout(PROBE, shared.lost.notified()).await.is_err() {
                // What is wrong is seen and said there.
                let _ = shared.call(async |mut to| redis::cmd("PING").query_async::<()>(&mut to).await).await;
            }
            continue;
        }
        sleep(wait.mul_f64(1.0 - rand::random::<f64>() / 2.0)).await;
        wait = (wait * 2).min(BACK_OFF.1);
        match shared.connect().await {
            Ok(()) => tracing::info!(address = shared.address, "the cache is there"),
            Err(error) => tracing::debug!(address = shared.address, %error, "no cache yet"),
        }
    }
}
