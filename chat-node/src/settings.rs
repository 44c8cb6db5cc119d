//! Settings of nodes, wherever they run.

use std::{net::SocketAddr, time::Duration};

use anyhow::ensure;
use common::{address::Networks, admin_key::AdminKey, applications::MessageRate, model::limits};
use serde::{Deserialize, Serialize};

use crate::{
    identity::IdentityConfig,
    owner::OwnerLimits,
    passwords::{PasswordCost, Passwords},
    presence::PresenceConfig,
};

/// What one user may do, in applications that have chosen nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Messages a second in one chat in the long run; 0: as many as one likes.
    pub messages_per_second: f64,
    /// Messages at once after a pause.
    pub message_burst: u32,
    /// Chats a second that one user makes in the long run; 0, or no limit on messages: as many as one likes.
    pub chats_per_second: f64,
    /// Chats at once after a pause.
    pub chat_burst: u32,
    /// Chats that one user may be in; 0: as many as come.
    pub chats_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let MessageRate { per_second, burst } = MessageRate::default();
        Self {
            messages_per_second: per_second,
            message_burst: burst,
            // As many groups with a first message as messages in one chat; and whoever brings their contacts along opens a chat with each at once.
            chats_per_second: per_second,
            chat_burst: 100,
            chats_per_user: limits::CHATS,
        }
    }
}

impl Limits {
    /// What is wrong with them.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        let rates = [
            ("messages_per_second", self.messages_per_second, "message_burst", self.message_burst),
            ("chats_per_second", self.chats_per_second, "chat_burst", self.chat_burst),
        ];
        for (name, rate, at_once, burst) in rates {
            ensure!(rate.is_finite() && rate >= 0.0, "limits.{name}: 0 for no limit, or a positive number");
            ensure!(rate == 0.0 || burst >= 1, "limits.{at_once}: at least 1");
        }
        Ok(())
    }

    /// How fast one user may make chats. It is there for the sake of the limit on messages, which a group's first message is not held to, and goes
    /// with it.
    pub fn chat_rate(&self) -> MessageRate {
        if self.messages_per_second == 0.0 {
            return MessageRate::UNLIMITED;
        }
        MessageRate { per_second: self.chats_per_second, burst: self.chat_burst }
    }

    /// As owners take them, with what their memory may hold.
    pub fn owner(&self, memory: OwnerLimits) -> OwnerLimits {
        let message_rate = MessageRate { per_second: self.messages_per_second, burst: self.message_burst };
        OwnerLimits { message_rate, chats_per_user: self.chats_per_user, ..memory }
    }
}

/// Sign-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Seconds for which a token is good.
    pub token_life: u64,
    /// Argon2id: KiB of memory for one password.
    pub argon2_memory_kib: u32,
    /// Argon2id: passes over that memory.
    pub argon2_iterations: u32,
}

impl Default for Auth {
    fn default() -> Self {
        let (identity, cost) = (IdentityConfig::default(), PasswordCost::default());
        Self {
            token_life: identity.token_life.as_secs(),
            argon2_memory_kib: cost.memory_kib,
            argon2_iterations: cost.iterations,
        }
    }
}

impl Auth {
    /// What is wrong with it.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.token_life >= 60, "auth.token_life: at least 60 seconds");
        Passwords::new(self.identity().password_cost)?;
        Ok(())
    }

    /// As identity takes it.
    pub fn identity(&self) -> IdentityConfig {
        IdentityConfig {
            token_life: Duration::from_secs(self.token_life),
            password_cost: PasswordCost {
                memory_kib: self.argon2_memory_kib,
                iterations: self.argon2_iterations,
                ..PasswordCost::default()
            },
            ..IdentityConfig::default()
        }
    }
}

/// The storage API (OP-6): see [`crate::storage_api`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageApi {
    /// Where it listens; absent: nowhere.
    pub listen: Option<SocketAddr>,
    /// What opens it.
    pub key: AdminKey,
}

impl StorageApi {
    /// What is wrong with it.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.listen.is_none() || self.key.is_set(),
            "storage_api.key: there must be one, or everybody who reaches storage_api.listen would read and write everything"
        );
        ensure!(!self.key.is_short(), "storage_api.key: at least 16 characters");
        Ok(())
    }
}

/// Who is shown as connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    /// Milliseconds after the end of their last session for which users are shown as connected; at most `writer.notify.settle`.
    pub grace_ms: u64,
    /// Milliseconds after a node's death for which its users are shown as connected.
    pub timeout_ms: u64,
    /// Members of a group above which only their number is told.
    pub group: u64,
}

impl Default for Presence {
    fn default() -> Self {
        let PresenceConfig { grace, timeout, group } = PresenceConfig::default();
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { grace_ms: millis(grace), timeout_ms: millis(timeout), group }
    }
}

impl Presence {
    /// What is wrong with it.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.grace_ms <= 600_000, "presence.grace_ms: at most 600000, ten minutes");
        ensure!(
            (1_000..=600_000).contains(&self.timeout_ms),
            "presence.timeout_ms: 1000 to 600000, a second to ten minutes"
        );
        ensure!(self.group >= 2, "presence.group: at least 2, the members of a direct chat");
        Ok(())
    }

    /// As nodes take it.
    pub fn config(&self) -> PresenceConfig {
        PresenceConfig {
            grace: Duration::from_millis(self.grace_ms),
            timeout: Duration::from_millis(self.timeout_ms),
            group: self.group,
        }
    }
}

/// Where notifications may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Internal networks that webhooks and push services may be in.
    pub allow: Networks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sp_1_whoever_limits_no_messages_limits_no_making_of_chats() {
        let limits = Limits::default();
        assert_eq!(limits.chat_rate(), MessageRate { per_second: 1.0, burst: 100 });
        assert_eq!(Limits { messages_per_second: 0.0, ..limits.clone() }.chat_rate().per_second, 0.0);
        assert_eq!(Limits { chats_per_second: 0.0, ..limits.clone() }.chat_rate().per_second, 0.0);
        for wrong in [
            Limits { chats_per_second: -1.0, ..limits.clone() },
            Limits { chats_per_second: f64::NAN, ..limits.clone() },
            Limits { chat_burst: 0, ..limits.clone() },
        ] {
            assert!(wrong.check().unwrap_err().to_string().starts_with("limits.chat"), "{wrong:?}");
        }
        limits.check().unwrap();
    }

    #[test]
    fn op_6_a_storage_api_without_a_key_is_refused() {
        let api = |listen: Option<&str>, key: &str| StorageApi {
            listen: listen.map(|address| address.parse().unwrap()),
            key: key.to_owned().into(),
        };
        let said = |api: StorageApi| api.check().map_err(|error| error.to_string());
        assert_eq!(said(StorageApi::default()), Ok(()));
        assert_eq!(said(api(Some("127.0.0.1:9000"), "sixteen characters")), Ok(()));
        for wrong in
            [api(Some("127.0.0.1:9000"), ""), api(Some("127.0.0.1:9000"), "short"), api(None, "short")]
        {
            let error = said(wrong).unwrap_err();
            assert!(error.starts_with("storage_api.key: "), "{error}");
        }
    }
}
