//! Invariant 10: no frame comes to a session whose token expired more than 5 s ago, or was revoked more than 2 s ago.
//!
//! The sign-in that a sign-out ends is the one the device had when it asked; a socket belongs to the sign-in the device had when it was
//! opened. Times are the device's own.

use std::collections::HashMap;

use super::{
    DeviceJournal, Violation,
    facts::{Facts, Place},
};
use crate::journal::{Answer, Ask, Entry};

/// In microseconds, as all times here.
const AFTER_EXPIRY: u64 = 5_000_000;
const AFTER_REVOCATION: u64 = 2_000_000;

/// A sign-in of the device.
#[derive(Clone, Copy, Debug, Default)]
struct SignIn {
    until: Option<u64>,
    revoked: Option<(u64, Place)>,
}

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let devices = facts.journals.devices.iter().enumerate();
    devices.flat_map(|(device, journal)| late(facts, device, journal)).collect()
}

fn late(facts: &Facts<'_>, device: usize, journal: &DeviceJournal) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut sign_ins = vec![SignIn::default()];
    let mut ending: HashMap<u64, usize> = HashMap::new();
    // Which sign-in the open socket belongs to; none once a late frame was found on it.
    let mut open: Option<usize> = None;
    for (line, written) in journal.lines.iter().enumerate() {
        let place = Place { device, line };
        match &written.entry {
            Entry::SignedIn { until } => sign_ins.push(SignIn { until: Some(*until), revoked: None }),
            Entry::Asked { request, ask: Ask::SignOut } => drop(ending.insert(*request, sign_ins.len() - 1)),
            Entry::Answered { request, answer: Answer::Done { .. } } => {
                if let Some(sign_in) = ending.remove(request).and_then(|at| sign_ins.get_mut(at)) {
                    sign_in.revoked = Some((written.at, place));
                }
            }
            Entry::Opened { .. } => open = Some(sign_ins.len() - 1),
            Entry::Closed { .. } => open = None,
            _ => {}
        }
        let Some(sign_in) = open.and_then(|at| sign_ins.get(at)).filter(|_| came(&written.entry)) else {
            continue;
        };
        if let Some((at, revoked)) = sign_in.revoked
            && written.at > at + AFTER_REVOCATION
        {
            let what = format!("a frame came {} ms after the session was ended", (written.at - at) / 1_000);
            found.push(Violation { invariant: 10, what, evidence: facts.evidences([revoked, place]) });
            open = None;
        } else if let Some(until) = sign_in.until
            && written.at > until + AFTER_EXPIRY
        {
            let what =
                format!("a frame came {} ms after the session's token expired", (written.at - until) / 1_000);
            found.push(Violation { invariant: 10, what, evidence: facts.evidences([place]) });
            open = None;
        }
    }
    found
}

/// Whether the line tells of a frame that came over the socket. Answers to what was asked may have come over REST.
fn came(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Opened { .. }
            | Entry::Acked { .. }
            | Entry::Refused { .. }
            | Entry::Event(_)
            | Entry::NewChat { .. }
            | Entry::ChatRemoved { .. }
            | Entry::ChatReload { .. }
            | Entry::ViewRestarted { .. }
            | Entry::Resumed { .. }
            | Entry::Cursor { .. }
            | Entry::ReadMark { .. }
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        check::testing::{Run, SECOND},
        journal::{Answer, Ask, Entry, What},
    };

    const DONE: Answer = Answer::Done { chat: None, seq: None };

    #[test]
    fn a_frame_long_after_the_token_expired_is_found() {
        for (seconds, broken) in [(14, false), (16, true)] {
            let mut run = Run::new();
            let until = run.now() + 10 * SECOND;
            run.write('b', Entry::SignedIn { until }).open('b');
            run.later(seconds * SECOND).event('b', 1, What::ChatUpdated);
            assert_eq!(run.broken(), if broken { vec![10] } else { vec![] }, "{seconds}");
        }
    }

    #[test]
    fn a_frame_long_after_the_sign_out_was_answered_is_found() {
        for (seconds, broken) in [(1, false), (3, true)] {
            let mut run = Run::new();
            run.asks('b', Ask::SignOut, DONE);
            run.later(seconds * SECOND).event('b', 1, What::ChatUpdated);
            assert_eq!(run.broken(), if broken { vec![10] } else { vec![] }, "{seconds}");
        }
    }

    #[test]
    fn a_session_of_a_new_sign_in_is_not_ended_by_the_answer_about_the_old_one() {
        let mut run = Run::new();
        run.write('b', Entry::Asked { request: 1, ask: Ask::SignOut });
        run.write('b', Entry::Closed { socket: 1, code: Some(4003) });
        let until = run.now() + 100 * SECOND;
        run.write('b', Entry::SignedIn { until });
        run.write('b', Entry::Answered { request: 1, answer: DONE }).open('b');
        run.later(10 * SECOND).event('b', 1, What::ChatUpdated);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }

    #[test]
    fn a_session_that_opens_with_an_ended_sign_in_is_found() {
        let mut run = Run::new();
        run.asks('b', Ask::SignOut, DONE).write('b', Entry::Closed { socket: 1, code: Some(4003) });
        run.later(3 * SECOND).open('b');
        assert_eq!(run.broken(), [10]);
    }
}
