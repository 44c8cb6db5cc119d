//! What every engine of the log must do. An engine's test file gives a [`Fixture`] and runs all of it with one line:
//! `common::log_conformance!(MyFixture::new().await)`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "the names of the tests say what they test")]

pub mod groups;
pub mod records;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::{Entry, Log, OpenError, ReadLimit, SharedLog};
use crate::ids::{Offset, Partition};

/// Longer than any engine needs for one step: what is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One log for one test. It was never written to.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens the log with that many partitions: the first call makes it, a later one finds the same data. Whoever opens
    /// it again has closed it before.
    async fn open(&self, partitions: Partition) -> Result<SharedLog, OpenError>;
}

/// Makes a test of each function of this suite.
#[macro_export]
macro_rules! log_conformance {
    ($fixture:expr) => {
        $crate::log_conformance! { @tests $fixture, records:
            a_new_log_is_empty_and_has_an_id_of_its_own
            offsets_are_contiguous_under_many_appenders
            one_callers_appends_land_in_its_order
            receipts_can_be_awaited_in_any_order_or_not_at_all
            a_record_between_two_others_sits_at_its_own_offset
            partitions_do_not_share_offsets
            a_read_starts_anywhere_and_keeps_its_limits
            a_read_beyond_the_end_is_refused
            a_partition_that_does_not_exist_is_refused
            a_record_that_is_too_large_is_refused_and_the_largest_is_not
            keys_and_payloads_come_back_as_they_were
            everything_is_there_after_a_reopen
            another_partition_count_is_refused
            closing_settles_what_was_taken_and_refuses_the_rest
            what_is_forgotten_is_gone_and_what_follows_is_there
            a_partition_that_has_forgotten_everything_goes_on_with_the_next_offset
            what_is_past_the_end_is_not_forgotten
        }
        $crate::log_conformance! { @tests $fixture, groups:
            one_member_is_given_every_partition_and_sees_every_record
            a_subscription_starts_where_it_is_told
            a_stopped_partition_is_silent_until_it_is_started_again
            a_start_beyond_the_end_stops_that_partition_alone
            a_start_before_the_beginning_stops_that_partition_alone
            a_start_of_a_partition_of_another_is_refused
            two_members_split_the_partitions
            a_member_that_leaves_is_replaced
            while_members_come_and_go_no_record_is_missed
            groups_do_not_disturb_each_other
            waiting_for_a_delivery_can_be_given_up_without_loss
            a_closed_log_ends_its_subscriptions
        }
    };
    (@tests $fixture:expr, $part:ident: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $fixture;
                $crate::log::conformance::$part::$name(&fixture).await;
            }
        )*
    };
}

fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

/// Appends and waits for the offset.
async fn put(log: &dyn Log, partition: Partition, payload: impl Into<String>) -> Offset {
    let receipt = log.append(partition, bytes("key"), bytes(payload)).await.unwrap();
    timeout(PATIENCE, receipt).await.expect("a receipt").unwrap()
}

/// Appends that many records, pipelined: `from`, `from + 1`, … as text.
async fn fill(log: &dyn Log, partition: Partition, from: u64, count: u64) -> Vec<Offset> {
    let mut receipts = Vec::new();
    for number in from..from + count {
        receipts.push(log.append(partition, bytes("key"), bytes(number.to_string())).await.unwrap());
    }
    timeout(PATIENCE, try_join_all(receipts)).await.expect("receipts").unwrap()
}

/// Has everything before `before` forgotten, in as many pieces as it takes.
async fn forget(log: &dyn Log, partition: Partition, before: Offset) {
    let mut begin = log.begin(partition).await.unwrap();
    while begin < before {
        let begins = log.forget_before(partition, before).await.unwrap();
        assert!(begins > begin && begins <= before, "{begin} {begins} {before}");
        begin = begins;
    }
}

async fn read_all(log: &dyn Log, partition: Partition, mut from: Offset) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let entries = log.read(partition, from, ReadLimit::BATCH).await.unwrap();
        let Some(last) = entries.last() else { return all };
        from = last.offset + 1;
        all.extend(entries);
    }
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.payload.to_vec()).unwrap()).collect()
}
