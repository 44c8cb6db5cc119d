//! Bugs on purpose: what the judge must be able to see.
//!
//! Compiled only with the feature `planted`, which no release build has. A bug is planted where it would really be made, a few lines at the
//! spot, and breaks one promise of the cluster. A circumstance breaks none: it is a misfortune that honest code survives, made to happen
//! often, so that a bug which needs it shows within seconds. Which of them a process has is part of its configuration
//! ([`Planted`]); by default it has none.

pub(crate) mod slow_log;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bug {
    /// The owner answers a send as soon as it has handed the record to the log.
    AckBeforeAppend,
    /// The owner takes any report of the log for a confirmation, wherever the record landed.
    AckOnAnyReport,
    /// The writer takes void records for valid ones.
    IgnoreTheTerm,
    /// A room shows some events twice.
    DeliverARepeat,
    /// A room passes over some events.
    SkipASeq,
    /// The owner takes the sends of a batch in the wrong order.
    ReorderTwoSends,
    /// A node does not look at the marks that would tell it of a lost frame.
    DropAMark,
    /// A session that resumes is not told of edits.
    ForgetAnEdit,
    /// A session that resumes is told that it is complete when it is not.
    ClaimComplete,
    /// The store writes some messages twice.
    DoubleARow,
    /// The store commits the position before the rows.
    PositionBeforeRows,
    /// The store moves the position without looking where it was.
    NoCompareAndSet,
    /// A removed member keeps the seat.
    DeliverToRemoved,
    /// What was written to a socket as it broke is taken for delivered.
    LoseTheLast,
    /// A read mark is set to whatever is asked for.
    ReadGoesBack,
}

/// A misfortune that breaks no promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circumstance {
    /// Nodes claim partitions that they are not named for, as one does that was paused and wakes.
    SecondOwner,
    /// A writer applies a batch that it read long ago, as one does that was paused and wakes.
    StaleWriter,
    /// Frames between nodes are lost for good, and the sender knows it.
    LostFrames,
    /// The log takes its time.
    SlowLog,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 15] = [
        Self::AckBeforeAppend,
        Self::AckOnAnyReport,
        Self::IgnoreTheTerm,
        Self::DeliverARepeat,
        Self::SkipASeq,
        Self::ReorderTwoSends,
        Self::DropAMark,
        Self::ForgetAnEdit,
        Self::ClaimComplete,
        Self::DoubleARow,
        Self::PositionBeforeRows,
        Self::NoCompareAndSet,
        Self::DeliverToRemoved,
        Self::LoseTheLast,
        Self::ReadGoesBack,
    ];
}

/// What is planted in a process: a bug, a circumstance, both or nothing. As text `bug`, `+circumstance` or `bug+circumstance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Planted {
    bug: Option<Bug>,
    circumstance: Option<Circumstance>,
}

impl Planted {
    /// Whether this bug is planted.
    pub fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether this circumstance is.
    pub fn with(self, circumstance: Circumstance) -> bool {
        self.circumstance == Some(circumstance)
    }
}

/// A text that names nothing which could be planted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("planted: {0:?} is no bug or circumstance")]
pub struct Unknown(String);

fn word<T: for<'de> Deserialize<'de>>(word: &str) -> Result<Option<T>, Unknown> {
    if word.is_empty() {
        return Ok(None);
    }
    serde_json::from_value(word.into()).map(Some).map_err(|_| Unknown(word.to_owned()))
}

fn spelled(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl FromStr for Planted {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let (bug, circumstance) = text.split_once('+').unwrap_or((text, ""));
        Ok(Self { bug: word(bug)?, circumstance: word(circumstance)? })
    }
}

impl TryFrom<String> for Planted {
    type Error = Unknown;

    fn try_from(text: String) -> Result<Self, Unknown> {
        text.parse()
    }
}

impl From<Planted> for String {
    fn from(planted: Planted) -> Self {
        planted.to_string()
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spelled(self))
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bug) = self.bug {
            write!(f, "{bug}")?;
        }
        match self.circumstance {
            Some(circumstance) => write!(f, "+{}", spelled(&circumstance)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_is_told_by_a_text() {
        for bug in Bug::ALL {
            let planted: Planted = bug.to_string().parse().unwrap();
            assert!(planted.is(bug) && !planted.with(Circumstance::SecondOwner));
        }
        let both: Planted = "ignore_the_term+second_owner".parse().unwrap();
        assert!(both.is(Bug::IgnoreTheTerm) && both.with(Circumstance::SecondOwner));
        assert_eq!(both.to_string(), "ignore_the_term+second_owner");
        assert_eq!("".parse(), Ok(Planted::default()));
        assert!("+stale_writer".parse::<Planted>().unwrap().with(Circumstance::StaleWriter));
        assert!("weeds".parse::<Planted>().is_err() && "+weeds".parse::<Planted>().is_err());
    }
}
