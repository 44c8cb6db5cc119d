//! The rule of `common::term`, explored exhaustively, beside four weaker ones that fail.
//!
//! One partition, its log, three owners, three messages. Every order in which claims, sends, landings, reports and
//! faults can happen is tried, breadth first, and four properties are checked in every state that can be reached. As
//! "every state" includes whatever comes later, what holds in all of them holds for ever.
//!
//! # What is modelled
//!
//! - **Owners** A, B and C, named in the order of their claims. A node that comes back after a crash or a drop
//!   remembers nothing, so it is a new owner, with the next name: three owners are three nodes, or one node that
//!   claims three times. All act at the same time, each at its own pace. A paused one is one that takes no step for
//!   a while; a zombie is one that takes a step after somebody else's claim, from what it knew before.
//! - **Claim**: to send it, have it landed and reported, and read the log up to it, is one step. Before it lands
//!   nobody can tell; and what its owner reads is settled by where it lands. So an owner that waits long for the
//!   report, reads slowly, or dies meanwhile, is one that pauses or crashes just after this step.
//! - **Send**: a client's message reaches an owner that is up: any, at any time, and as often as it likes. So it
//!   may be a retry at the next owner, because the last one said nothing, or a late copy of a first attempt. An
//!   owner acknowledges what it knows to be in the log, under its number there; what it does not know it appends,
//!   under the number that follows; what it has under way already it leaves alone.
//! - **Land**: entries are pipelined. One owner's land in its order, those of several in any.
//! - **Report**: as late as you like, or never. (Reports that come in another order than the entries are reports that
//!   the owner reads later.) Our owner acknowledges an entry that is in its place, after all before it; if it is
//!   somewhere else it drops the partition.
//! - **Lose**: a purged queue. Any entry under way vanishes, and those behind it still land.
//! - **Drop**: an owner crashes, loses its lease, or hears of an error. Its memory is gone. Its requests are not: they
//!   land later, in order, between others', or are lost.
//! - **Hand over**: an owner that has nothing under way stops, and the next one claims.
//!
//! # What is not
//!
//! The look-up of old client ids in the store, and for how long they are remembered: here, for ever. What an owner
//! answers without appending, other than acknowledgements of repeats. Delivery to members. Several partitions. A log
//! that loses or reorders what it has taken, or gives an offset twice: the rule rests on one that does not.
//!
//! # How it stays small
//!
//! A verdict depends only on the records before it (`term_properties.rs`), so of the log the model keeps its end,
//! where readers stand there, and what the valid records say. States are explored once per essence (`essence.rs`),
//! and of the messages that were never sent only one is tried. About 290,000 states remain: seconds, unoptimized.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "term_model/cluster.rs"]
mod cluster;
#[path = "term_model/essence.rs"]
mod essence;
#[path = "term_model/search.rs"]
mod search;

use std::collections::HashSet;

use cluster::{Cluster, Fate, Model, Rule, Step};
use essence::essence;
use search::explore;

/// Not (a): an acknowledged message is valid, under the number it was acknowledged with.
fn an_ack_is_not_in_the_log(cluster: &Cluster) -> bool {
    cluster.acks.iter().any(|ack| !cluster.valid.contains(ack))
}

/// Not (b): the numbers of valid messages are 1, 2, 3… in the order of the log.
fn numbers_do_not_count_up(cluster: &Cluster) -> bool {
    (1..).zip(&cluster.valid).any(|(place, (_, number))| place != *number)
}

/// Not (c): a client id is valid at most once.
fn a_message_is_there_twice(cluster: &Cluster) -> bool {
    let mut valid = cluster.valid.iter().enumerate();
    valid.any(|(i, (message, _))| cluster.valid[..i].iter().any(|(earlier, _)| earlier == message))
}

/// Not (d): all acknowledgements of a client id name one number.
fn acks_disagree(cluster: &Cluster) -> bool {
    cluster.acks.windows(2).any(|pair| pair[0].0 == pair[1].0)
}

fn anything_is_wrong(cluster: &Cluster) -> bool {
    an_ack_is_not_in_the_log(cluster)
        || numbers_do_not_count_up(cluster)
        || a_message_is_there_twice(cluster)
        || acks_disagree(cluster)
}

/// Something that must happen somewhere in the search, or the model does not show what it claims to.
type Scene = (&'static str, fn(&Cluster, Step, &Cluster) -> bool);

const SCENES: &[Scene] = &[
    ("one owner hands over to the next", |_, step, _| matches!(step, Step::HandOver { .. })),
    ("three owners are up at once", |_, _, after| after.owners.iter().filter(|owner| owner.up).count() == 3),
    (
        "a crashed owner's late request lands and is valid",
        |before, step, after| matches!(step, Step::Land { owner } if !before.owners[owner].up && after.valid.len() > before.valid.len()),
    ),
    ("a crashed owner's late request lands after the next claim and is void", |before, step, after| {
        matches!(step, Step::Land { owner } if !before.owners[owner].up && before.is_stale(&before.owners[owner]))
            && after.valid == before.valid
    }),
    ("a zombie takes on a message and appends it", |before, step, after| {
        matches!(step, Step::Send { owner, .. } if before.is_stale(&before.owners[owner])
            && after.owners[owner].sent.len() > before.owners[owner].sent.len())
    }),
    (
        "a zombie hears that its entry is misplaced and drops",
        |before, step, after| matches!(step, Step::Report { owner, .. } if before.is_stale(&before.owners[owner]) && !after.owners[owner].up),
    ),
    ("a zombie acknowledges what landed before the next claim", |before, step, after| {
        matches!(step, Step::Report { owner, .. } if before.is_stale(&before.owners[owner]))
            && after.acks.len() > before.acks.len()
    }),
    ("an entry behind a lost one is void, though nobody else claimed", |before, step, after| {
        matches!(step, Step::Land { owner } if !before.is_stale(&before.owners[owner])
            && before.owners[owner].sent.iter().any(|entry| entry.fate == Fate::Lost))
            && after.valid == before.valid
    }),
    ("a void record in between costs the rightful owner its term", |before, step, after| {
        matches!(step, Step::Report { owner, n } if !before.is_stale(&before.owners[owner])
            && !after.owners[owner].up
            && before.owners[owner].sent[..n].iter().all(|entry| entry.fate != Fate::Lost))
    }),
    ("the next owner acknowledges what the last one wrote and never answered", |before, step, after| {
        matches!(step, Step::Send { message, .. } if before.acks.iter().all(|ack| ack.0 != message)
            && after.acks.iter().any(|ack| ack.0 == message))
    }),
    ("one message is appended by all three owners", |_, _, after| {
        after.owners.len() == 3
            && after.owners.iter().all(|owner| owner.sent.iter().any(|entry| entry.message == 0))
    }),
    ("everything is acknowledged in the end", |_, _, after| after.owners.len() == 3 && after.acks.len() == 3),
];

#[test]
fn our_rule_keeps_its_promises_in_every_state_that_can_be_reached() {
    let model = Model { rule: Rule::Ours, owners: 3, messages: 3 };
    let mut unseen: Vec<_> = SCENES.to_vec();
    let explored = explore(
        &model,
        |cluster| essence(&model, cluster),
        anything_is_wrong,
        |before, step, after| unseen.retain(|(_, happens)| !happens(before, step, after)),
    );
    assert_eq!(explored.trace(), "", "a way to break the rule");
    let unseen: Vec<_> = unseen.iter().map(|(name, _)| name).collect();
    assert!(unseen.is_empty(), "never happened: {unseen:?}");
    // If it falls, the model has lost something that could happen.
    assert!(explored.states >= 290_000, "explored only {} states", explored.states);
}

#[test]
fn leaving_out_what_cannot_matter_changes_nothing() {
    let model = Model { rule: Rule::Ours, owners: 3, messages: 2 };
    let essence = |cluster: &Cluster| essence(&model, cluster);
    let mut of_all = HashSet::from([essence(&Cluster::default())]);
    let all = explore(&model, Cluster::clone, anything_is_wrong, |_, _, after| {
        of_all.insert(essence(after));
    });
    let mut reduced = HashSet::from([essence(&Cluster::default())]);
    let fewer = explore(&model, essence, anything_is_wrong, |_, _, after| {
        reduced.insert(essence(after));
    });
    assert_eq!((all.trace(), fewer.trace()), (String::new(), String::new()));
    assert!(of_all == reduced, "{} essences in {} states, but {}", of_all.len(), all.states, reduced.len());
    assert!(all.states > 10 * fewer.states, "{} states, {} essences", all.states, fewer.states);
}

/// The shortest way in which `rule` fails. Nothing is left out of these searches: what cannot matter under our rule
/// may matter under another.
fn shortest(rule: Rule, owners: usize, wrong: fn(&Cluster) -> bool) -> String {
    let model = Model { rule, owners, messages: 3 };
    explore(&model, Cluster::clone, wrong, |_, _, _| ()).trace()
}

#[test]
fn epochs_checked_by_readers_alone_fail() {
    let rule = Rule::EpochsCheckedByReaders;
    // B wrote before A's record landed: A's is void, and A says that it is there.
    assert_eq!(
        shortest(rule, 2, an_ack_is_not_in_the_log),
        "A claims, B claims, m1 to A, m2 to B, B's next lands, A's next lands, A1 is reported"
    );
    // A's landed after B had read the log, but before B wrote: both count.
    assert_eq!(
        shortest(rule, 2, a_message_is_there_twice),
        "A claims, B claims, m1 to A, A's next lands, m1 to B, B's next lands"
    );
    // No second owner is needed for a hole in the numbers.
    assert_eq!(
        shortest(rule, 1, numbers_do_not_count_up),
        "A claims, m1 to A, A1 is lost, m2 to A, A's next lands"
    );
}

#[test]
fn claims_with_acks_on_any_delivery_report_fail() {
    let rule = Rule::ClaimWithAnyReport;
    // The zombie: its report is good, its record is void.
    assert_eq!(
        shortest(rule, 2, an_ack_is_not_in_the_log),
        "A claims, B claims, m1 to A, A's next lands, A1 is reported"
    );
    // The purged queue, with one owner.
    assert_eq!(
        shortest(rule, 1, an_ack_is_not_in_the_log),
        "A claims, m1 to A, A1 is lost, m2 to A, A's next lands, A2 is reported"
    );
    // And the client that asks again is given another number.
    assert_eq!(
        shortest(rule, 2, acks_disagree),
        "A claims, B claims, m1 to A, A1 is lost, m2 to A, A's next lands, A2 is reported, m2 to B, \
         B's next lands, B1 is reported"
    );
}

#[test]
fn order_without_offsets_fails() {
    let rule = Rule::OrderWithoutOffsets;
    assert_eq!(
        shortest(rule, 2, an_ack_is_not_in_the_log),
        "A claims, B claims, m1 to A, A's next lands, A1 is reported"
    );
    // Order alone survives the purged queue: what it lacks is only whether somebody else was there.
    assert_eq!(shortest(rule, 1, anything_is_wrong), "");
}

#[test]
fn offsets_without_order_fail() {
    let rule = Rule::OffsetsWithoutOrder;
    // A stranger's record fills the place of the lost one, so the one behind it is in its place, and void.
    assert_eq!(
        shortest(rule, 2, an_ack_is_not_in_the_log),
        "A claims, B claims, m1 to A, A1 is lost, m2 to A, A's next lands, A2 is reported"
    );
    // With one owner, offsets alone are enough.
    assert_eq!(shortest(rule, 1, anything_is_wrong), "");
}

#[test]
#[ignore = "15 million states take minutes and gigabytes; run it in release when the rule or the model changes"]
fn our_rule_keeps_its_promises_in_larger_worlds() {
    for (owners, messages) in [(4, 3), (3, 4)] {
        let model = Model { rule: Rule::Ours, owners, messages };
        let explored = explore(&model, |cluster| essence(&model, cluster), anything_is_wrong, |_, _, _| ());
        assert_eq!(
            explored.trace(),
            "",
            "a way to break the rule, with {owners} owners and {messages} messages"
        );
    }
}
