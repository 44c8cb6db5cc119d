//! The read marks that a room has told of, so that none is told after a newer one.

use std::collections::HashMap;

use common::ids::{Number, UserId};

/// Users whose marks are remembered, at least, and at most twice as many: 64 KiB. Marks of one user that overtake each other on their way do
/// so within milliseconds, in which no room hears of as many others.
const REMEMBERED: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MarksTold {
    newer: HashMap<UserId, Number>,
    older: HashMap<UserId, Number>,
}

impl MarksTold {
    /// Whether this mark is the newest of its user so far.
    pub(super) fn is_news(&mut self, user: UserId, number: Number) -> bool {
        let before = self.newer.get(&user).or_else(|| self.older.get(&user));
        if before.is_some_and(|before| *before >= number) {
            return false;
        }
        self.newer.insert(user, number);
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_once_and_never_after_a_newer_one() {
        let mut told = MarksTold::default();
        let ana = UserId::random();
        let news = [1, 3, 2, 3, 4].map(|number| told.is_news(ana, number));
        assert_eq!(news, [true, true, false, false, true]);
        for _ in 0..REMEMBERED {
            assert!(told.is_news(UserId::random(), 1));
        }
        assert!(!told.is_news(ana, 4));
        assert!(told.newer.len() + told.older.len() <= 2 * REMEMBERED);
    }
}
