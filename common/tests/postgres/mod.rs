//! Databases of their own, for tests, on a real Postgres.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::time::Duration;

use common::{
    servers::Servers,
    store::postgres::{Postgres, PostgresSettings},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// The Postgres server, without a database: `postgres://user@host:port`.
pub(crate) fn server() -> &'static str {
    let (server, _) = Servers::shared().store().rsplit_once('/').unwrap();
    server
}

/// Connections of one handle: some forty tests run beside each other on a server that has a hundred.
pub(crate) const FEW: PostgresSettings = PostgresSettings {
    max_connections: 4,
    acquire_timeout: Duration::from_secs(20),
    statement_timeout: Duration::from_secs(20),
};

/// A database of its own.
pub(crate) struct OneDatabase {
    name: String,
}

impl OneDatabase {
    pub(crate) async fn empty() -> Self {
        let name = format!("store_{}", Uuid::new_v4().as_simple());
        let mut server = PgConnection::connect(&format!("{}/postgres", server())).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut server).await.unwrap();
        Self { name }
    }

    pub(crate) async fn new() -> Self {
        let database = Self::empty().await;
        Postgres::init(&database.url()).await.unwrap();
        database
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", server(), self.name)
    }

    pub(crate) async fn postgres(&self) -> Postgres {
        Postgres::open(&self.url(), FEW).await.unwrap()
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection().await).await.unwrap();
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap()
    }

    /// Waits until the server shows one backend of this database that waits for a lock, and answers its id.
    pub(crate) async fn waiting(&self) -> i32 {
        let mut watch = self.connection().await;
        for _ in 0..1_000 {
            let pid: Option<i32> = sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_optional(&mut watch)
            .await
            .unwrap();
            match pid {
                Some(pid) => return pid,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("nobody waits for a lock");
    }
}

impl Drop for OneDatabase {
    fn drop(&mut self) {
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        // Of its own, for the test's runtime is about to end. What stays behind after a panic here harms nobody.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut server = PgConnection::connect(&format!("{}/postgres", server())).await.unwrap();
                sqlx::raw_sql(drop).execute(&mut server).await.unwrap();
            });
        });
        dropped.join().ok();
    }
}
