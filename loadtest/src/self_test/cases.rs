//! What is planted, and what is done to the cluster so that it shows.

use std::time::Duration;

/// One run of a cluster: what is planted in it, and what happens to it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called in the table.
    pub name: String,
    /// What the server is told to plant, as text: see `common::planted`. Nothing of that is known here but the words.
    pub planted: String,
    /// The invariants by which a bug may be caught; none: nothing may be found.
    pub caught_by: &'static [u8],
    /// How many storage writers.
    pub writers: u16,
    /// How long everybody is let loose, kills included.
    pub work: Duration,
    /// How often the process is killed meanwhile.
    pub kills: u32,
    /// Of 1,000 things that a user does, how many are the loss of a connection.
    pub breaks: u32,
    /// Likewise, how many are saying that messages were read.
    pub reads: u32,
}

impl Case {
    fn new(name: &str, planted: &str, caught_by: &'static [u8]) -> Self {
        Self {
            name: name.to_owned(),
            planted: planted.to_owned(),
            caught_by,
            writers: 1,
            work: Duration::from_secs(3),
            kills: 0,
            breaks: 5,
            reads: 30,
        }
    }

    fn work(self, seconds: u64) -> Self {
        Self { work: Duration::from_secs(seconds), ..self }
    }

    fn kills(self, kills: u32) -> Self {
        Self { kills, ..self }
    }

    /// Whether its cluster keeps its word.
    pub fn is_clean(&self) -> bool {
        self.caught_by.is_empty()
    }
}

/// Every bug that exists, with the misfortune it needs.
pub fn bugs() -> Vec<Case> {
    vec![
        Case::new("ack_before_append", "ack_before_append+slow_log", &[1, 3]).work(6).kills(4),
        Case::new("ack_on_any_report", "ack_on_any_report+second_owner", &[1, 3]).work(6),
        Case::new("ignore_the_term", "ignore_the_term+second_owner", &[1, 3, 12]).work(8),
        Case::new("deliver_a_repeat", "deliver_a_repeat", &[4]),
        Case::new("skip_a_seq", "skip_a_seq", &[4]),
        Case::new("reorder_two_sends", "reorder_two_sends", &[5]),
        Case::new("drop_a_mark", "drop_a_mark+lost_frames", &[6]).work(4),
        Case { breaks: 60, ..Case::new("forget_an_edit", "forget_an_edit", &[4, 7]).work(6) },
        Case { breaks: 60, ..Case::new("claim_complete", "claim_complete", &[7]).work(6) },
        Case { breaks: 100, ..Case::new("lose_the_last", "lose_the_last", &[4, 6, 7]).work(8) },
        Case::new("double_a_row", "double_a_row", &[1, 12]),
        Case::new("position_before_rows", "position_before_rows", &[1, 12]).work(6).kills(4),
        Case::new("no_compare_and_set", "no_compare_and_set+stale_writer", &[12]).work(4),
        Case::new("deliver_to_removed", "deliver_to_removed", &[9]).work(4),
        Case { reads: 300, ..Case::new("read_goes_back", "read_goes_back", &[11]).work(8) },
    ]
}

/// The `n`-th of the clean runs: nothing is planted, or only a misfortune.
pub fn clean(n: usize) -> Case {
    let name = format!("clean {}", n + 1);
    match n % 6 {
        0 => Case::new(&name, "+second_owner", &[]).work(6),
        1 => Case { breaks: 30, ..Case::new(&name, "", &[]).work(6).kills(3) },
        2 => Case { writers: 2, ..Case::new(&name, "+stale_writer", &[]).kills(1) },
        3 => Case::new(&name, "+lost_frames", &[]).work(5),
        4 => Case::new(&name, "+slow_log", &[]).kills(2),
        _ => Case { breaks: 50, ..Case::new(&name, "", &[]) },
    }
}
