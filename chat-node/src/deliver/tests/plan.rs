//! Who may be told what was missed, and who begins anew.

use common::{seal::Sealer, store::DEPARTURES};

use super::*;
use crate::{
    cursor::{Cursor, Cursors},
    resume::{LeftOff, Plan},
};

const PARTITIONS: Partition = 2;

fn cursor(places: [Offset; 2]) -> Cursor {
    let place = |offset| LogPlace { offset, state: TermState::default() };
    Cursor::new(Uuid::nil(), places.map(place).to_vec())
}

fn left_off(places: [Offset; 2]) -> LeftOff {
    let cursors = Cursors::new(Uuid::nil(), PARTITIONS, Sealer::new(&[1; 32]).unwrap());
    let cursor = Some(cursors.text(APP, &cursor(places)));
    LeftOff::read(Resume { cursor, chats: HashMap::new() }, APP, &cursors).unwrap()
}

fn departures(places: impl IntoIterator<Item = Offset>) -> Vec<Departure> {
    places.into_iter().map(|left_upto| Departure { chat: ChatId::random(), left_upto }).collect()
}

fn joined(joined_upto: Offset) -> Membership {
    let head = Head { number: 0, seq: 1 };
    Membership {
        chat: ChatId::random(),
        head,
        members: 2,
        head_upto: joined_upto,
        expired: 0,
        joined_seq: 1,
        joined_upto,
    }
}

#[test]
fn who_would_be_told_too_many_chats_that_are_new_or_gone_begins_anew() {
    for (new, gone, too_much) in
        [(100, 100, false), (256, 0, false), (0, 256, false), (257, 0, true), (100, 157, true)]
    {
        let chats = UserChats {
            memberships: (0..new).map(|_| joined(20)).collect(),
            departures: departures((0..gone).map(|_| 20)),
        };
        let plan = Plan::of(&left_off([10, 10]), &chats, |_| 0);
        assert_eq!(plan.is_too_much(), too_much, "{new} new and {gone} gone");
    }
}

#[test]
fn who_was_away_for_longer_than_departures_are_kept_begins_anew() {
    let full = departures((0..DEPARTURES as Offset).map(|at| 100 + at));
    let unseen = |places, departures: &[Departure], drained| {
        left_off(places).may_be_gone_unseen(departures, &cursor(drained), PARTITIONS)
    };
    assert!(unseen([99, 500], &full, [500, 500]), "more may have been before the oldest");
    assert!(!unseen([99, 500], &full[1..], [500, 500]), "all of them are there");
    assert!(!unseen([100, 100], &full, [500, 500]), "what is not there was told");
    assert!(!unseen([500, 40], &full, [500, 40]), "of a quiet partition everything was told");
    assert!(unseen([500, 40], &full, [500, 41]));
}
