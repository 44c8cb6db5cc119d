//! How a process uses the server.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a process uses the server. In configuration, times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// Most connections of the process. A read is some 0.2 to 1 ms of one, so that 16 serve some 20,000 a second; more callers wait.
    /// All processes together must stay below the server's own `max_connections` (100 if nobody changed it).
    pub max_connections: u32,
    /// How long a call waits for a connection: for one of its own to be free, or for the server.
    #[serde(with = "millis")]
    pub acquire_timeout: Duration,
    /// How long the server works on one statement, waiting for locks included, before it gives up (`statement_timeout`). Also how long
    /// it lets a transaction lie idle before it takes its locks away (`idle_in_transaction_session_timeout`): a process that was
    /// stopped in the middle of one must not hold up the one that has taken its partitions.
    #[serde(with = "millis")]
    pub statement_timeout: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

impl PostgresSettings {
    /// How long any call may take: a connection, and two statements at their slowest. What takes longer stands behind a server that does
    /// not answer at all.
    pub(super) fn call_timeout(&self) -> Duration {
        self.acquire_timeout.saturating_add(self.statement_timeout.saturating_mul(2))
    }
}

/// A duration in configuration: whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_nobody_knows_is_refused_and_one_that_is_not_given_has_its_default() {
        let settings: PostgresSettings = serde_json::from_str(r#"{"statement_timeout": 250}"#).unwrap();
        let expected =
            PostgresSettings { statement_timeout: Duration::from_millis(250), ..PostgresSettings::default() };
        assert_eq!(settings, expected);
        let error = serde_json::from_str::<PostgresSettings>(r#"{"max_conections": 4}"#).unwrap_err();
        assert!(error.to_string().contains("max_conections"), "{error}");
    }
}
