//! The rule of `common::term` on any log, for any reader, with any numbers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use common::term::{self, Header, TermState, Verdict};
use proptest::prelude::*;

/// Where a record comes from: mostly from owners that mind the rule, so that much of a log is valid.
#[derive(Clone, Debug)]
enum Writer {
    /// Takes the partition.
    New,
    /// The owner of the latest claim, with the next `n`.
    Latest,
    /// The owner of any claim so far.
    Late {
        claim: prop::sample::Index,
        n: u64,
    },
    Forger(Header),
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![
        1 => Just(Writer::New),
        6 => Just(Writer::Latest),
        2 => (any::<prop::sample::Index>(), 0..6_u64).prop_map(|(claim, n)| Writer::Late { claim, n }),
        1 => header().prop_map(Writer::Forger),
    ]
}

/// Numbers that look right, and those at the ends of their range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..8_u64, (u64::MAX - 8)..=u64::MAX, any::<u64>()]
}

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![Just(Header::Claim), (number(), number()).prop_map(|(term, n)| Header::Entry { term, n })]
}

fn state() -> impl Strategy<Value = TermState> {
    (prop::option::of(number()), number()).prop_map(|(term, n)| TermState { term, n })
}

fn log() -> impl Strategy<Value = Vec<Header>> {
    prop::collection::vec(writer(), 0..80).prop_map(|writers| {
        let (mut log, mut claims, mut latest_n) = (Vec::new(), vec![0], 0);
        for (offset, writer) in (0..).zip(writers) {
            let header = match writer {
                Writer::New => Header::Claim,
                Writer::Latest => {
                    latest_n += 1;
                    Header::Entry { term: claims[claims.len() - 1], n: latest_n }
                }
                Writer::Late { claim, n } => Header::Entry { term: *claim.get(&claims), n },
                Writer::Forger(header) => header,
            };
            if header == Header::Claim {
                claims.push(offset);
                latest_n = 0;
            }
            log.push(header);
        }
        log
    })
}

/// What a reader in `state`, with `records` before it, the first of them at `offset`, makes of each.
fn read(state: &mut TermState, offset: usize, records: &[Header]) -> Vec<Verdict> {
    (offset as u64..).zip(records).map(|(offset, header)| state.advance(*header, offset)).collect()
}

fn read_all(log: &[Header]) -> Vec<Verdict> {
    read(&mut TermState::default(), 0, log)
}

/// The rule as design.md says it: a record is valid if its term is the latest claimed before it, and its `n` follows
/// the last valid one of that term. Looks back through the whole log each time, and keeps no state.
fn read_by_the_book(log: &[Header]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (offset, header) in log.iter().enumerate() {
        let latest_claim = log[..offset].iter().rposition(|earlier| *earlier == Header::Claim);
        let valid = match (header, latest_claim) {
            (Header::Claim, _) => true,
            (Header::Entry { .. }, None) => false,
            (Header::Entry { term, n }, Some(claim)) => {
                let before =
                    verdicts[claim + 1..].iter().filter(|verdict| **verdict == Verdict::Valid).count();
                *term == claim as u64 && *n == before as u64 + 1
            }
        };
        verdicts.push(if valid { Verdict::Valid } else { Verdict::Void });
    }
    verdicts
}

/// The offsets of what the owner with the claim at `term` confirms: each entry in its place, after all before it.
fn confirmed(log: &[Header], term: usize) -> Vec<usize> {
    let place = |n: u64| usize::try_from(term::confirmed_at(term as u64, n)).unwrap();
    let is_there = |n: &u64| log.get(place(*n)) == Some(&Header::Entry { term: term as u64, n: *n });
    (1..).take_while(is_there).map(place).collect()
}

fn claims(log: &[Header]) -> impl Iterator<Item = usize> {
    log.iter().enumerate().filter(|(_, header)| **header == Header::Claim).map(|(offset, _)| offset)
}

proptest! {
    #[test]
    fn the_rule_is_what_the_design_says(log in log()) {
        prop_assert_eq!(read_all(&log), read_by_the_book(&log));
    }

    #[test]
    fn a_reader_that_starts_anywhere_with_the_state_stored_there_agrees(log in log(), start in any::<prop::sample::Index>()) {
        let start = start.index(log.len() + 1);
        let mut state = TermState::default();
        let before = read(&mut state, 0, &log[..start]);
        let stored = serde_json::to_string(&state).unwrap();
        let mut restored = serde_json::from_str(&stored).unwrap();
        let after = read(&mut restored, start, &log[start..]);
        prop_assert_eq!([before, after].concat(), read_all(&log));
    }

    #[test]
    fn nothing_that_comes_later_changes_a_verdict(log in log(), end in any::<prop::sample::Index>()) {
        let end = end.index(log.len() + 1);
        prop_assert_eq!(read_all(&log[..end]), &read_all(&log)[..end]);
    }

    #[test]
    fn between_two_claims_only_one_owner_has_valid_records_and_they_count_up(log in log()) {
        let verdicts = read_all(&log);
        let (mut term, mut last_n) = (None, 0);
        for (offset, header) in log.iter().enumerate().filter(|(offset, _)| verdicts[*offset] == Verdict::Valid) {
            match *header {
                Header::Claim => (term, last_n) = (Some(offset as u64), 0),
                Header::Entry { term: of, n } => {
                    prop_assert_eq!((Some(of), n), (term, last_n + 1));
                    last_n = n;
                }
            }
        }
    }

    #[test]
    fn what_an_owner_confirms_is_valid_whatever_is_appended_later(log in log(), later in log()) {
        let all = [log.clone(), later].concat();
        let verdicts = read_all(&all);
        for claim in claims(&log) {
            for offset in confirmed(&log, claim) {
                prop_assert_eq!(verdicts[offset], Verdict::Valid);
            }
        }
    }

    #[test]
    fn no_numbers_make_it_panic(mut state in state(), header in header(), offset in number()) {
        let before = state;
        let checked = term::check(&state, header, offset);
        let advanced = state.advance(header, offset);
        prop_assert_eq!(checked, advanced);
        match (header, advanced) {
            (Header::Claim, _) => prop_assert_eq!((advanced, state), (Verdict::Valid, TermState { term: Some(offset), n: 0 })),
            (Header::Entry { term, n }, Verdict::Valid) => {
                prop_assert!(term < offset && before.term == Some(term) && n > 0 && n - 1 == before.n);
                prop_assert_eq!(state, TermState { term: Some(term), n });
            }
            (Header::Entry { .. }, Verdict::Void) => prop_assert_eq!(state, before),
        }
    }

    #[test]
    fn the_place_of_an_entry_is_after_its_claim_and_never_wraps(term in number(), n in number()) {
        let place = term::confirmed_at(term, n);
        prop_assert!(place >= term && place >= n);
    }
}

#[test]
fn an_entry_of_a_term_that_is_yet_to_come_is_void() {
    let state = TermState { term: Some(7), n: 0 };
    for offset in [0, 6, 7] {
        assert_eq!(term::check(&state, Header::Entry { term: 7, n: 1 }, offset), Verdict::Void);
    }
    assert_eq!(term::check(&state, Header::Entry { term: 7, n: 1 }, 8), Verdict::Valid);
}

#[test]
fn after_the_largest_n_nothing_follows() {
    let state = TermState { term: Some(0), n: u64::MAX };
    for n in [0, 1, u64::MAX] {
        assert_eq!(term::check(&state, Header::Entry { term: 0, n }, 9), Verdict::Void);
    }
}

#[test]
fn an_entry_in_its_place_is_void_if_one_before_it_was_lost_and_a_strangers_took_its_place() {
    let (a, b) = (0, 1);
    let log = [
        Header::Claim,
        Header::Claim,
        Header::Entry { term: a, n: 1 }, // B's first should be here; the log never took it.
        Header::Entry { term: b, n: 2 },
    ];
    assert_eq!(term::confirmed_at(b, 2), 3);
    assert_eq!(read_all(&log), [Verdict::Valid, Verdict::Valid, Verdict::Void, Verdict::Void]);
    assert_eq!(confirmed(&log, 1), Vec::<usize>::new());
}
