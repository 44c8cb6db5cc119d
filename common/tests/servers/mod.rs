//! The servers that tests run on.

/// The Postgres server, without a database: `postgres://user@host:port`.
#[allow(clippy::disallowed_methods, reason = "tests have no configuration")]
pub(crate) fn postgres() -> String {
    std::env::var("CHAT_TEST_POSTGRES").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:35432".to_owned())
}
