use bytes::Bytes;
use common::{
    ids::{AppId, ChatId, UserId},
    log::sqlite::SqliteLog,
    model::{ChatKind, Role},
    store::{PartitionBatch, Position, User, sqlite::Sqlite},
    term::TermState,
    wire::{
        owner::{Answer, OwnerRequest},
        record::{Change, What},
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::*;
use crate::{ask::AskOwner, attachments::CheckAttachments, reads::Reads};

/// An owner that does nothing but write down who is to leave.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<(ChatId, UserId)>>);

impl AskOwner for Asked {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        if let Ask::RemoveMember { user } = request.ask {
            self.0.lock().push((request.chat, user));
        }
        Box::pin(async { Answer::Done { seq: 2 } })
    }
}

#[tokio::test]
async fn who_was_erased_while_the_writers_were_away_leaves_the_groups_that_are_stored_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
    let log: SharedLog = Arc::new(SqliteLog::open(&folder.path().join("log.db"), 1).await.unwrap());
    let (shutdown, tasks, asked) = (CancellationToken::new(), TaskTracker::new(), Arc::new(Asked::default()));
    let tell = Arc::new(|_, _| {});
    let reads = Reads::start(Arc::clone(&store), Clock::default(), tell, &tasks, shutdown.clone());
    let check = CheckAttachments::new(Arc::clone(&store), Clock::default());
    let commands = Commands::new(asked.clone(), Arc::clone(&store), reads, check);
    let erasing = Erasing::new(commands, Arc::clone(&store), Applications::default(), Clock::default());

    // A group that the log has and the store has not; a member of it was erased longer ago than anybody may have looked before.
    let (app, chat, ana) = (AppId::DEFAULT, ChatId::random(), UserId::random());
    let long_ago = Millis::now().minus(LATE + LATE);
    let user = User::without_password(ana, "ana".into(), "Ana".into(), long_ago);
    assert!(store.add_user(app, &user).await.unwrap());
    let receipt = log.append(0, Bytes::new(), Bytes::from_static(b"the group")).await.unwrap();
    let offset = receipt.await.unwrap();
    assert!(store.erase_user(app, ana, long_ago).await.unwrap());
    let mut ends = None;
    for _ in 0..3 {
        erasing.round(&log, &mut ends).await.unwrap();
    }
    assert_eq!(*asked.0.lock(), [], "the store knows of no group of hers");

    let created = || What::Created {
        kind: ChatKind::Group,
        name: Some("Course".to_owned()),
        description: None,
        members: vec![(ana, Role::Owner)],
        request: None,
    };
    let mut position = None;
    let mut drain = async |chat: ChatId, seq: u64, what: What| {
        let n = position.map_or(1, |position: Position| position.state.n + 1);
        let change = Change { app, chat, term: 0, n, seq, at: long_ago, by: ana, what };
        let state = TermState { term: Some(0), n };
        let next = Position { log: Uuid::from_u128(1), offset: offset + n, state };
        let (expected, changes) = (position.replace(next), vec![change]);
        let batch = PartitionBatch { partition: 0, expected, next, changes, dead: Vec::new() };
        for applied in store.apply(&[batch]).await.unwrap() {
            applied.unwrap();
        }
    };
    drain(chat, 1, created()).await;
    erasing.round(&log, &mut ends).await.unwrap();
    assert_eq!(*asked.0.lock(), [(chat, ana)]);

    // Once she has left, nobody looks for groups of hers any more.
    drain(chat, 2, What::Left { user: ana, heir: None }).await;
    erasing.round(&log, &mut ends).await.unwrap();
    drain(ChatId::random(), 1, created()).await;
    assert_eq!(store.groups_of_erased(10).await.unwrap(), []);
    shutdown.cancel();
}
