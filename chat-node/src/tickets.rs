//! A ticket opens one socket: those that did are remembered for as long as they could be shown again.

use std::collections::{HashSet, VecDeque};

use common::{
    ids::{Incarnation, NodeId},
    problem::Problem,
    time::Millis,
    token::{LEEWAY, Ticket, Tickets},
    wire::codes::ErrorCode,
};
use parking_lot::Mutex;

/// Tickets that are remembered: 1,500 sockets a second for the 35 s that a ticket can be used are 52,500; this is five times that,
/// about 16 MiB at the worst. When it is full, sockets are refused until the oldest may be forgotten.
pub const REMEMBERED: usize = 262_144;

/// Checks the tickets that are for this life of this node, and remembers the used ones.
#[derive(Debug)]
pub struct Gate {
    tickets: Tickets,
    node: NodeId,
    incarnation: Incarnation,
    used: Mutex<Used>,
    room: usize,
}

#[derive(Debug, Default)]
struct Used {
    ids: HashSet<u128>,
    /// In the order of their use, which is nearly that of their expiry.
    order: VecDeque<(Millis, u128)>,
}

impl Gate {
    /// For this life of this node.
    pub fn new(tickets: Tickets, node: NodeId, incarnation: Incarnation) -> Self {
        Self { tickets, node, incarnation, used: Mutex::default(), room: REMEMBERED }
    }

    /// Uses the ticket up.
    ///
    /// # Errors
    /// `bad_ticket`: forged, expired, used, or another node's; which of them is not told. `retry_later` when too many are remembered.
    pub fn admit(&self, ticket: &str, now: Millis) -> Result<Ticket, Problem> {
        let bad =
            || Problem::new(ErrorCode::BadTicket, "ask for a new location, whose ticket opens one socket");
        let ticket = self.tickets.check(ticket, &self.node, self.incarnation, now).map_err(|_| bad())?;
        let mut used = self.used.lock();
        used.forget(now);
        if used.ids.contains(&ticket.id) {
            return Err(bad());
        }
        if used.ids.len() >= self.room {
            return Err(Problem::retry_later("too many sockets were opened in the last seconds"));
        }
        used.ids.insert(ticket.id);
        used.order.push_back((ticket.expires_at.plus(LEEWAY), ticket.id));
        Ok(ticket)
    }
}

impl Used {
    /// Forgets what is past its time. One that stands behind a longer-lived one is kept with it: a moment longer, never shorter.
    fn forget(&mut self, now: Millis) {
        while let Some((until, id)) = self.order.front()
            && *until < now
        {
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::{
        ids::{AppId, SessionId, UserId},
        token::Caller,
    };

    use super::*;

    const NOW: Millis = Millis(1_795_252_554_000);

    fn gate() -> (Gate, Tickets) {
        let tickets = Tickets::new(&[7; 32]);
        (Gate::new(tickets.clone(), NodeId::new("node-1").unwrap(), Incarnation(1)), tickets)
    }

    fn ticket(id: u128) -> Ticket {
        let caller = Caller {
            app: AppId::DEFAULT,
            user: UserId::random(),
            session: SessionId::random(),
            expires_at: NOW.plus(Duration::from_secs(3_600)),
            signed_by: None,
        };
        let node = NodeId::new("node-1").unwrap();
        Ticket { caller, node, incarnation: Incarnation(1), id, expires_at: NOW.plus(Tickets::LIFETIME) }
    }

    fn code(outcome: Result<Ticket, Problem>) -> Option<ErrorCode> {
        outcome.err().map(|problem| problem.code)
    }

    #[test]
    fn a_ticket_opens_one_socket_for_as_long_as_it_could_be_used() {
        let (gate, tickets) = gate();
        let one = ticket(1);
        let text = tickets.issue(&one, NOW).unwrap();
        assert_eq!(gate.admit(&text, NOW).unwrap(), one);
        for seconds in [0, 10, 29, 34, 60] {
            let later = NOW.plus(Duration::from_secs(seconds));
            assert_eq!(code(gate.admit(&text, later)), Some(ErrorCode::BadTicket), "after {seconds} s");
        }
    }

    #[test]
    fn a_ticket_of_another_node_another_life_or_another_secret_opens_nothing() {
        let (gate, tickets) = gate();
        let elsewhere = Ticket { node: NodeId::new("node-2").unwrap(), ..ticket(1) };
        let earlier = Ticket { incarnation: Incarnation(2), ..ticket(2) };
        for text in [
            tickets.issue(&elsewhere, NOW).unwrap(),
            tickets.issue(&earlier, NOW).unwrap(),
            Tickets::new(&[8; 32]).issue(&ticket(3), NOW).unwrap(),
            String::new(),
            "x".repeat(100_000),
        ] {
            assert_eq!(code(gate.admit(&text, NOW)), Some(ErrorCode::BadTicket));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_in_time() {
        let (mut gate, tickets) = gate();
        gate.room = 3;
        for id in 0..3 {
            assert!(gate.admit(&tickets.issue(&ticket(id), NOW).unwrap(), NOW).is_ok());
        }
        let next = tickets.issue(&ticket(9), NOW).unwrap();
        assert_eq!(code(gate.admit(&next, NOW)), Some(ErrorCode::RetryLater), "and it is not used up");
        let later = NOW.plus(Tickets::LIFETIME).plus(LEEWAY).plus(Duration::from_millis(1));
        let fresh = Ticket { expires_at: later.plus(Tickets::LIFETIME), ..ticket(10) };
        assert!(gate.admit(&tickets.issue(&fresh, later).unwrap(), later).is_ok());
        assert_eq!(gate.used.lock().ids.len(), 1);
    }
}
