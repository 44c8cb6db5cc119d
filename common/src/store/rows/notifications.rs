//! Rows of notifications.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Columns, key, unsigned, unsigned_or_null, word};
use crate::{
    ids::{EndpointId, SessionId, UserId},
    notifications::{Delivery, Endpoint, Target},
    store::{Candidate, Held, Leased, Queued, Waiting, notifications::DeliveryId, words},
};

/// What was chosen; the default where nothing was. Of what another version of the program has written, or an operator, what cannot be read
/// counts as not chosen: one row must not stop those beside it.
pub(in crate::store) fn chosen<T: DeserializeOwned + Default>(
    row: &impl Columns,
    column: &str,
) -> sqlx::Result<T> {
    let Some(json) = row.get::<Option<String>>(column)? else { return Ok(T::default()) };
    Ok(serde_json::from_str(&json).unwrap_or_else(|error| {
        tracing::warn!(%error, column, "what a user has chosen cannot be read whole");
        readable(&json)
    }))
}

/// What can be read of it, field by field.
fn readable<T: DeserializeOwned + Default>(json: &str) -> T {
    let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let read = |fields| serde_json::from_value::<T>(Value::Object(fields));
    let alone = |name: &String, value: &Value| read(Map::from_iter([(name.clone(), value.clone())])).is_ok();
    let good = fields.into_iter().filter(|(name, value)| alone(name, value)).collect();
    read(good).unwrap_or_default()
}

/// What was chosen, as its column has it.
pub(in crate::store) fn chosen_column<T: serde::Serialize>(chosen: &T) -> String {
    // Kinds and times always have a JSON form.
    serde_json::to_string(chosen).unwrap_or_default()
}

pub(in crate::store) fn endpoint(row: &impl Columns) -> sqlx::Result<Endpoint> {
    let app = row.get("app")?;
    let (user, url, secret) = (row.get("user")?, row.get("url")?, row.get("secret")?);
    let target = if user == UserId::APPLICATION {
        Target::Webhook { url, secret }
    } else {
        let p256dh: Option<Vec<u8>> = row.get("public_key")?;
        let session: Option<SessionId> = row.get("session")?;
        let session = session.unwrap_or_else(|| SessionId::every(app, user));
        Target::Push { user, session, url, p256dh: p256dh.unwrap_or_default(), auth: secret }
    };
    Ok(Endpoint {
        id: row.get("id")?,
        app,
        target,
        created_at: row.get("created_at")?,
        enabled: row.get("enabled")?,
    })
}

pub(in crate::store) fn leased(row: &impl Columns) -> sqlx::Result<Leased> {
    Ok(Leased {
        endpoint: endpoint(row)?,
        until: row.get("leased_until")?,
        failures: count(row, "failures")?,
    })
}

pub(in crate::store) fn delivery(row: &impl Columns) -> sqlx::Result<Delivery> {
    let status = unsigned_or_null(row, "status")?;
    Ok(Delivery {
        id: row.get::<DeliveryId>("id")?.0,
        body: row.get("body")?,
        created_at: row.get("created_at")?,
        state: word(row, "state", words::state)?,
        attempts: count(row, "attempts")?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.get("error")?,
        attempted_at: row.get("attempted_at")?,
    })
}

pub(in crate::store) fn queued(row: &impl Columns) -> sqlx::Result<Queued> {
    Ok(Queued {
        id: row.get::<DeliveryId>("id")?.0,
        body: row.get("body")?,
        created_at: row.get("created_at")?,
        attempts: count(row, "attempts")?,
    })
}

fn count(row: &impl Columns, column: &str) -> sqlx::Result<u32> {
    Ok(u32::try_from(unsigned(row, column)?).unwrap_or(u32::MAX))
}

pub(in crate::store) fn waiting(row: &impl Columns) -> sqlx::Result<Waiting> {
    Ok(Waiting {
        chat: key(row)?,
        from: unsigned(row, "from_number")?,
        from_at: row.get("from_at")?,
        upto: unsigned_or_null(row, "upto")?,
        after: row.get("last_member")?,
    })
}

pub(in crate::store) fn held(row: &impl Columns) -> sqlx::Result<Held> {
    let endpoint = row.get::<EndpointId>("endpoint")?;
    Ok(Held {
        chat: key(row)?,
        user: row.get("user")?,
        endpoint: Some(endpoint).filter(|endpoint| *endpoint != EndpointId::EVERY),
        from: unsigned(row, "from_number")?,
        upto: unsigned(row, "upto")?,
        until: row.get("until")?,
    })
}

pub(in crate::store) fn candidate(row: &impl Columns) -> sqlx::Result<Candidate> {
    Ok(Candidate {
        user: row.get("user")?,
        read: unsigned(row, "read")?,
        last_seen: row.get("last_seen")?,
        timezone: row.get("timezone")?,
        preferences: chosen(row, "preferences")?,
        chat: chosen(row, "chat_preferences")?,
        subscribed: row.get("subscribed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        notifications::{ChatPreferences, Preferences},
        time::Millis,
    };

    #[test]
    fn no_2_what_cannot_be_read_counts_as_not_chosen() {
        let read = readable::<Preferences>;
        let silent = Preferences { kinds: [].into(), ..Preferences::default() };
        assert_eq!(read(r#"{"kinds": [], "sound": "bell"}"#), silent);
        assert_eq!(read(r#"{"kinds": [], "quiet_hours": {"from": "22:00", "to": "later"}}"#), silent);
        assert_eq!(read(r#"{"kinds": ["message", "whisper"]}"#), Preferences::default());
        for nothing in ["", "7", "[]", "null", "{"] {
            assert_eq!(read(nothing), Preferences::default());
        }
        let muted = r#"{"muted_until": "1970-01-01T00:00:00.007Z", "kinds": 3}"#;
        let until = ChatPreferences { muted_until: Some(Millis(7)), kinds: None };
        assert_eq!(readable::<ChatPreferences>(muted), until);
    }
}
