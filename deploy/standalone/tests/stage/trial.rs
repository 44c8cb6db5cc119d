//! What the tests that go by chance take from the environment: how long, how often, and what chance begins from.

use serde::{Deserialize, Serialize};

/// The variables, as [`common::config`] reads them.
pub const NAMES: [&str; 3] = ["CHAT_TRIAL__SECONDS", "CHAT_TRIAL__KILLS", "CHAT_TRIAL__SEED"];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trial {
    /// How long the soak takes.
    pub seconds: u64,
    /// How often the process is killed.
    pub kills: u32,
    /// The same seed, the same faults in the same order, though not the same timing. A new one each time when it is not given.
    pub seed: u32,
}

impl Default for Trial {
    fn default() -> Self {
        Self { seconds: 75, kills: 50, seed: rand::random() }
    }
}

/// As chosen; said on standard output, so that it can be chosen again.
pub fn chosen() -> Trial {
    // Other variables of the prefix are none of ours.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Chosen {
        trial: Trial,
    }
    let Chosen { trial } = common::config::load(None).unwrap();
    println!("CHAT_TRIAL__SEED={}", trial.seed);
    trial
}
