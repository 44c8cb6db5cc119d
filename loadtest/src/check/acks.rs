//! Invariant 8: however often a message was sent, and on however many devices, all acks for its `client_id` name one message.

use super::{Violation, facts::Facts};

pub(super) fn find(facts: &Facts<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for ((chat, _, client_id), sent) in &facts.sent {
        let Some(first) = sent.acks.first() else { continue };
        let other =
            sent.acks.iter().find(|ack| (ack.id, ack.number, ack.seq) != (first.id, first.number, first.seq));
        if let Some(other) = other {
            let what = format!(
                "{client_id} in chat {chat} was acknowledged as number {} (seq {}, {}) and as number {} (seq {}, {})",
                first.number, first.seq, first.id, other.number, other.seq, other.id
            );
            found.push(Violation {
                invariant: 8,
                what,
                evidence: facts.evidences([first.place, other.place]),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::check::testing::{Run, kept};

    #[test]
    fn two_acks_that_name_two_messages_are_found() {
        let mut run = Run::new();
        run.sending('b', "one", false).acked('b', "one", 1, 1);
        run.sending('b', "one", true).acked('b', "one", 1, 1);
        run.history(1, vec![kept(1, 'b', "one")]);
        assert_eq!(run.broken(), [] as [u8; 0]);
        run.sending('b', "one", true).acked('b', "one", 2, 2);
        assert!(run.broken().contains(&8));
    }

    #[test]
    fn two_devices_of_one_user_send_one_message_under_one_name() {
        let mut run = Run::new();
        run.sending('b', "one", false).device('b');
        run.sending('b', "one", true).acked('b', "one", 1, 1);
        run.history(1, vec![kept(1, 'b', "one")]);
        assert_eq!(run.broken(), [] as [u8; 0]);
    }
}
