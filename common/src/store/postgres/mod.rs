//! The engine that is a server of its own: Postgres 15 or newer.
//!
//! [`init`](Postgres::init) makes or alters the tables, which needs an owner's rights and happens once; [`open`](Postgres::open) only
//! looks whether they are those of this program. [`accounts`], [`chats`], [`reads`], [`owned`] and [`drain`] are the parts of the contract,
//! and [`mod@write`] turns the writer's plan into rows. What a change does to rows is decided in [`super::plan`], not here.
//!
//! Many processes share the tables. Transactions are READ COMMITTED and lock rows in one order (see [`drain`]); what must be read at one
//! instant is one statement, or a transaction that is REPEATABLE READ and READ ONLY. A deadlock or a failed serialization is tried again.

mod accounts;
mod answers;
mod attachments;
mod chats;
mod drain;
mod erasing;
mod fault;
mod listed;
mod notifications;
mod numbered;
mod owned;
mod people;
mod reads;
mod relations;
mod retention;
mod schema;
mod search;
mod seen;
mod settings;
mod value;
mod write;

use std::{fmt, future::Future, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use self::fault::{at_the_door, fault, late, passes};
pub use self::settings::PostgresSettings;
use super::{Result, StoreError};

/// How often a transaction is begun in all, when the server breaks it off for the sake of another one. Rows are locked in one order, so
/// that it happens at most by accident; and whoever had to stop finds the other one gone.
const ATTEMPTS: u32 = 5;

/// A connection that lay idle for longer is asked whether it is still there before it is used; a busy one is not, which saves a round trip.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long the steps to the tables of this program may take: an index over many millions of rows takes minutes.
const PREPARED_IN: Duration = Duration::from_secs(30 * 60);

/// What connections have set, whatever the server's own configuration says.
///
/// Every query names the keys of one index, so there is one good plan for each, and these leave the planner no other: what it would
/// choose instead follows from statistics, which are missing when a table is new and which average over chats of ten messages and of a
/// million. `jit`: switched off, because what is merely made unlikely counts as expensive, and expensive plans would be compiled.
const FIXED: [(&str, &str); 11] = [
    // A commit is on the disk before it is reported: positions and what clients were told rest on it.
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    // The server notices within seconds that a client's machine is gone, and frees the locks of its transaction.
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("client_connection_check_interval", "2s"),
];

/// A store in a Postgres database.
pub struct Postgres {
    pool: PgPool,
    settings: PostgresSettings,
}

impl fmt::Debug for Postgres {
    /// Without the address, which has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Checks a URL without connecting: `postgres://user:password@host:port/database`.
///
/// # Errors
/// What is wrong with it, without the password.
pub fn check_url(url: &str) -> std::result::Result<(), String> {
    options(url).map(drop)
}

/// The URL as it may be shown: `postgres://user@host:port/database`. What cannot be read is not shown at all.
pub fn without_password(url: &str) -> String {
    match options(url) {
        Ok(options) => {
            let database = options.get_database().unwrap_or_default();
            let (host, port) = (options.get_host(), options.get_port());
            format!("postgres://{}@{host}:{port}/{database}", options.get_username())
        }
        Err(_) => "postgres:…".to_owned(),
    }
}

fn options(url: &str) -> std::result::Result<PgConnectOptions, String> {
    let form = "postgres://user:password@host:port/database";
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(format!("the URL of Postgres has the form {form}"));
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        format!("the URL of Postgres has the form {form}, and this one cannot be read: {error}")
    })?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(format!("the URL of Postgres names no database; it has the form {form}"));
    }
    Ok(options.application_name("chat").disable_statement_logging())
}

impl Postgres {
    /// Makes the tables of this program in an empty database, or alters those of an earlier version, and makes the default application with a
    /// secret of its own. Under a lock, so that several may be started at once; doing it again changes nothing. The user of the URL
    /// must own the database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no getting in, with what to do about it. [`StoreError::Corrupt`] for a database of another
    /// kind, or of a newer version of this program.
    pub async fn init(url: &str) -> Result<()> {
        let prepared = async {
            let mut connection = door(&options(url).map_err(StoreError::Corrupt)?).await?;
            schema::prepare(&mut connection).await?;
            connection.close().await.map_err(fault)
        };
        timeout(PREPARED_IN, prepared).await.map_err(|_| late())?
    }

    /// Opens the store in this database. Only looks: it makes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no getting in, with what to do about it. [`StoreError::Corrupt`] for a URL that cannot be
    /// read, and for tables that are not those of this program: older ones, which `storage-writer init` alters, or newer ones.
    pub async fn open(url: &str, settings: PostgresSettings) -> Result<Self> {
        let milliseconds = |span: Duration| format!("{}ms", span.as_millis().max(1));
        let options = options(url).map_err(StoreError::Corrupt)?.options(FIXED).options([
            ("statement_timeout", milliseconds(settings.statement_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(settings.statement_timeout)),
        ]);
        let looked = async {
            let mut connection = door(&options).await?;
            schema::check(&mut connection).await?;
            connection.close().await.map_err(fault)
        };
        timeout(settings.call_timeout(), looked).await.map_err(|_| late())??;
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections.max(1))
            .acquire_timeout(settings.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, of| {
                Box::pin(async move {
                    if of.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, settings })
    }

    /// Waits for what is under way, and closes the connections. Calls after it answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Does work that is one statement or one transaction: begun anew when the server broke it off for another one, and bounded as a whole.
    async fn call<T, F>(&self, work: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = sqlx::Result<T>> + Send,
        T: Send,
    {
        let attempts = async {
            let mut left = ATTEMPTS;
            loop {
                left -= 1;
                match work().await {
                    Err(error) if left > 0 && passes(&error) => {
                        tracing::debug!(%error, "the transaction is begun anew")
                    }
                    outcome => return outcome,
                }
            }
        };
        timeout(self.settings.call_timeout(), attempts).await.map_err(|_| late())?.map_err(fault)
    }

    /// Begins to read several things at one instant.
    async fn instant(&self) -> sqlx::Result<Transaction<'static, sqlx::Postgres>> {
        self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> sqlx::Result<Transaction<'static, sqlx::Postgres>> {
        self.pool.begin().await
    }
}

async fn door(options: &PgConnectOptions) -> Result<PgConnection> {
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let database = options.get_database().unwrap_or_default();
    PgConnection::connect_with(options)
        .await
        .map_err(|error| at_the_door(error, &place, database, options.get_username()))
}
