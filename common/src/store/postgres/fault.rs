//! What went wrong, in the store's own words.

use sqlx::{Error, error::ErrorKind, postgres::PgDatabaseError};

use crate::store::StoreError;

/// Codes of Postgres (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
mod code {
    pub(super) const SERIALIZATION_FAILURE: &str = "40001";
    pub(super) const DEADLOCK_DETECTED: &str = "40P01";
    pub(super) const INVALID_CATALOG_NAME: &str = "3D000";
    pub(super) const INVALID_PASSWORD: &str = "28P01";
    pub(super) const INVALID_AUTHORIZATION: &str = "28000";
    pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
    /// A table, a column or a function that is not there, or is another: not the schema of this program.
    pub(super) const NOT_THE_SCHEMA: [&str; 5] = ["42P01", "42703", "42883", "42804", "3F000"];
    /// The classes of data that cannot be as the statement has it, and of what the server finds damaged.
    pub(super) const DATA_EXCEPTION: &str = "22";
    pub(super) const DAMAGED: &str = "XX";
}

fn server(error: &Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

pub(super) fn fault(error: Error) -> StoreError {
    let unreadable = matches!(
        error,
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_) | Error::Encode(_)
    );
    let Some(told) = server(&error) else {
        return if unreadable { StoreError::Corrupt(error.to_string()) } else { unavailable(&error) };
    };
    let known = told.code();
    if code::NOT_THE_SCHEMA.contains(&known) {
        StoreError::Corrupt(format!("{error}; if this program is new here, run `storage-writer init`"))
    } else if known.starts_with(code::DATA_EXCEPTION) || known.starts_with(code::DAMAGED) {
        StoreError::Corrupt(text(&error))
    } else {
        StoreError::Unavailable(text(&error))
    }
}

fn unavailable(error: &Error) -> StoreError {
    StoreError::Unavailable(match error {
        Error::PoolTimedOut => {
            "no connection was free or could be made in time; the server may be down or too \
                                busy, or `max_connections` too small"
                .to_owned()
        }
        other => other.to_string(),
    })
}

/// With what the server adds: which key, which limit.
pub(super) fn text(error: &Error) -> String {
    match server(error).and_then(PgDatabaseError::detail) {
        Some(detail) => format!("{error} ({detail})"),
        None => error.to_string(),
    }
}

/// Why the first connection to `place` (`host:port`) did not come about, and what to do.
pub(super) fn at_the_door(error: Error, place: &str, database: &str, user: &str) -> StoreError {
    let advice = match server(&error).map(PgDatabaseError::code) {
        Some(code::INVALID_CATALOG_NAME) => format!(
            "the server at {place} has no database {database:?}: create it (`createdb -h HOST -p PORT {database}`), \
             then run `storage-writer init`"
        ),
        Some(code::INVALID_PASSWORD | code::INVALID_AUTHORIZATION) => format!(
            "the server at {place} does not let {user:?} in ({error}): check the user and the password in the URL, and \
             the server's pg_hba.conf"
        ),
        Some(code::INSUFFICIENT_PRIVILEGE) => format!(
            "{user:?} may not do this in the database {database:?} at {place} ({error}): make the user its owner"
        ),
        Some(code::TOO_MANY_CONNECTIONS) => format!(
            "the server at {place} has no connection left ({error}): raise its max_connections, or lower that of the \
             services"
        ),
        Some(_) => return fault(error),
        None => match &error {
            Error::Io(_) | Error::PoolTimedOut => format!(
                "no Postgres answers at {place} ({error}): check that it runs, and the host and the port in the URL"
            ),
            Error::Tls(_) => {
                format!("no TLS with {place} ({error}): check `sslmode` and the certificates in the URL")
            }
            _ => return fault(error),
        },
    };
    StoreError::Unavailable(advice)
}

/// Whether the same transaction may succeed when it is begun anew, at once.
pub(super) fn passes(error: &Error) -> bool {
    server(error)
        .is_some_and(|error| [code::SERIALIZATION_FAILURE, code::DEADLOCK_DETECTED].contains(&error.code()))
}

/// Whether a row contradicts another one, or cannot be stored at all: doing it again does not help.
pub(super) fn contradicts(error: &Error) -> bool {
    server(error).is_some_and(|error| {
        use sqlx::error::DatabaseError;
        matches!(
            error.kind(),
            ErrorKind::UniqueViolation | ErrorKind::NotNullViolation | ErrorKind::CheckViolation
        ) || error.code().starts_with(code::DATA_EXCEPTION)
    })
}

pub(super) fn late() -> StoreError {
    StoreError::Unavailable("it did not answer in time".to_owned())
}
