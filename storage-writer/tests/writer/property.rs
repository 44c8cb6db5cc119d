//! Any log, with owners that come, go, and go on though others have come: rows are what a model of a few lines says.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::ids::{ChatId, MessageId};
use proptest::prelude::*;
use storage_writer::WriterConfig;

use crate::kit::{Bench, Owner, Writer, chat_in, small};

/// What happens in the partition.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody claims, knowing all that counts.
    Claim,
    /// One of those who ever claimed sends to a chat; all but the latest are void.
    Send { owner: usize, chat: usize },
    /// One of them loses a record on the way: all of its term after it is void.
    Lose { owner: usize },
    /// Bytes that are no record.
    Rubbish,
    /// The writer is killed and started anew.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Claim),
        // The latest owner most of the time.
        20 => (0_usize..5, 0_usize..3).prop_map(|(owner, chat)| Step::Send { owner: owner.saturating_sub(2), chat }),
        1 => (0_usize..2).prop_map(|owner| Step::Lose { owner }),
        1 => Just(Step::Rubbish),
        1 => Just(Step::Kill),
    ]
}

async fn play(steps: Vec<Step>, batch_records: usize) {
    let bench = Bench::new(1).await;
    let config = WriterConfig { batch_records, ..small() };
    let start = || Writer::start(bench.engines(bench.store.clone()), config.clone());
    let mut writer = start();
    let mut first = Owner::claim(&bench.log, 0, None).await;
    let chats: Vec<ChatId> = (0..3).map(|_| chat_in(0, 1)).collect();
    for chat in &chats {
        first.create(*chat).await;
    }
    first.settled().await;
    // Newest first, and whether all that each sent has arrived. What each would hand over is kept apart from what it believes.
    let mut owners = vec![(first, true)];
    let mut rows: BTreeMap<ChatId, Vec<MessageId>> = BTreeMap::new();
    let mut dead = 0;
    for step in steps {
        match step {
            Step::Claim => {
                // It reads the log before it decides anything: it goes on from what counts.
                let heads = rows.iter().map(|(chat, messages)| (*chat, messages.len() as u64)).collect();
                let mut next = Owner::claim(&bench.log, 0, Some(&owners[0].0)).await;
                next.know(heads);
                owners.insert(0, (next, true));
            }
            Step::Send { owner, chat } => {
                let place = owner.min(owners.len() - 1);
                let (owner, whole) = &mut owners[place];
                let id = owner.send(chats[chat]).await;
                if place == 0 && *whole {
                    rows.entry(chats[chat]).or_default().push(id);
                }
            }
            Step::Lose { owner } => {
                let place = owner.min(owners.len() - 1);
                let (owner, whole) = &mut owners[place];
                owner.lose(chats[0]);
                *whole = false;
            }
            Step::Rubbish => {
                dead += 1;
                owners[0].0.append_bytes(Bytes::new(), Bytes::from_static(b"rubbish")).await;
            }
            Step::Kill => {
                writer.kill().await;
                writer = start();
            }
        }
    }
    for (owner, _) in &mut owners {
        owner.settled().await;
    }
    bench.drained().await;
    for chat in &chats {
        assert_eq!(bench.messages(*chat).await, rows.remove(chat).unwrap_or_default());
    }
    assert_eq!(bench.dead_letters().await.len(), dead);
    writer.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_the_valid_records_of_any_log(
        steps in proptest::collection::vec(step(), 1..120),
        batch_records in 1_usize..30,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(steps, batch_records));
    }
}
