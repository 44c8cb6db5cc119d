//! Settings of nodes, wherever they run.

use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::{
    identity::IdentityConfig,
    passwords::{PasswordCost, Passwords},
};

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
