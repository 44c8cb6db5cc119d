//! What went wrong, in the store's own words.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use crate::store::StoreError;

/// How long any call may take, waiting for a connection included. A page, a take-over's query or a batch of the writer takes
/// milliseconds; what takes longer stands behind a disk that does not answer.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// `SQLITE_CORRUPT` and `SQLITE_NOTADB` (<https://www.sqlite.org/rescode.html>), the low byte of the extended code.
const DAMAGED: [i32; 2] = [11, 26];

pub(super) fn fault(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::Corrupt(error.to_string())
        }
        sqlx::Error::Database(inner) => {
            let code = inner.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
            if code.is_some_and(|code| DAMAGED.contains(&code)) {
                StoreError::Corrupt(error.to_string())
            } else {
                StoreError::Unavailable(error.to_string())
            }
        }
        _ => StoreError::Unavailable(error.to_string()),
    }
}

/// Whether a row contradicts another one: then the statement did nothing, and the transaction goes on.
pub(super) fn contradicts(error: &sqlx::Error) -> bool {
    use sqlx::error::ErrorKind;
    error.as_database_error().is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::UniqueViolation | ErrorKind::NotNullViolation | ErrorKind::CheckViolation
        )
    })
}

/// Waits for work of the store, at most [`WAIT`].
pub(super) async fn bounded<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match timeout(WAIT, work).await {
        Ok(outcome) => outcome.map_err(fault),
        Err(_) => Err(late()),
    }
}

pub(super) fn late() -> StoreError {
    StoreError::Unavailable("it did not answer in time".to_owned())
}
