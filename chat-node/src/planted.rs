//! What is planted where sessions come back.

use common::{
    ids::Seq,
    planted::{Bug, Planted},
    wire::record::What,
};

use crate::missed::{Left, SharedEvent};

/// What a session missed, as a careless node would have it.
pub(crate) fn missed(
    planted: Planted,
    fetched: Option<(Seq, Vec<SharedEvent>)>,
    left: Left,
    upto: Seq,
) -> Option<(Seq, Vec<SharedEvent>)> {
    if planted.is(Bug::ClaimComplete) {
        // As if what could not be had were nothing, and what is much were all.
        let (from, mut events) = fetched.unwrap_or((left.seq.unwrap_or(upto), Vec::new()));
        events.truncate(2);
        return Some((from, events));
    }
    let (mut from, mut events) = fetched?;
    if planted.is(Bug::ForgetAnEdit) {
        events.retain(|event| !matches!(event.lock().what(), What::Edited { .. }));
    }
    if planted.is(Bug::LoseTheLast) && !events.is_empty() {
        events.remove(0);
        from += 1;
    }
    Some((from, events))
}
