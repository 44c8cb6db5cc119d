//! What every engine of the store must do. An engine's test file gives a [`Fixture`] and runs all of it with one line:
//! `common::store_conformance!(MyFixture::new().await)`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "the names of the tests say what they test")]

mod accounts;
mod answers;
mod chats;
mod drain;
mod model;
mod people;
mod reads;
mod scribe;

use async_trait::async_trait;

pub use self::{accounts::*, answers::*, chats::*, drain::*, model::*, people::*, reads::*, scribe::Scribe};
use super::SharedStore;

/// One store for one test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A handle of it, as a process would have one after a restart: what was put in is there. Empty at first.
    async fn open(&self) -> SharedStore;
}

/// Makes a test of each function of this suite.
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::store_conformance! { @tests $fixture;
            there_is_one_application_with_a_secret_of_its_own
            applications_are_added_and_changed_and_each_time_is_counted
            a_secret_of_the_cluster_is_what_was_given_first
            a_username_is_taken_without_regard_to_case
            one_of_many_who_register_under_one_name_gets_it
            a_user_is_found_by_name_and_by_id_in_one_application
            names_are_answered_for_those_who_exist
            sign_ins_are_listed_newest_first_until_they_expire
            a_sign_in_is_ended_once_and_by_its_user_only
            revocations_are_numbered_and_seen_in_order
            a_revocation_matters_until_its_token_has_expired

            a_profile_is_changed_where_it_is_asked_for
            people_are_found_by_the_beginnings_of_the_words_of_their_names
            people_are_found_by_nothing_but_their_names
            who_has_a_new_name_is_found_by_it_and_by_the_old_one_no_more
            who_is_found_is_paged_in_one_order

            a_chat_is_seen_by_its_members_only
            chats_are_listed_by_their_latest_activity
            a_chat_without_a_name_is_called_after_its_others
            the_newest_message_shows_its_client_id_to_its_sender_only
            unread_is_what_came_after_joining_reading_and_writing
            a_read_mark_moves_forward_only_and_not_past_the_head
            read_marks_that_race_end_at_the_largest
            many_read_marks_are_written_at_once
            unread_is_counted_in_all_chats_whatever_the_page
            members_are_paged_in_order_of_joining
            an_owner_who_leaves_has_an_heir
            members_are_named_and_un_named_and_a_group_is_handed_over
            a_deleted_chat_is_listed_nowhere_and_still_known
            what_a_user_is_in_and_has_left_is_told_with_its_place_in_the_log
            the_newest_departures_of_a_user_are_kept
            history_reads_both_ways_to_the_ends
            an_edited_message_has_its_new_text_and_a_deleted_one_none
            chats_are_loaded_many_at_a_time
            a_group_knows_the_request_that_made_it_and_how_much_of_its_making_is_there
            a_sent_message_is_found_by_its_senders_name_for_it
            a_name_that_is_used_again_means_the_first_message
            applications_do_not_see_each_other

            what_a_message_is_answered_with_is_as_the_newest_record_says
            what_mentions_a_member_is_counted_until_it_is_read

            a_position_moves_only_from_where_it_is
            of_two_writers_at_once_one_is_refused
            a_batch_without_changes_moves_the_position
            what_does_not_follow_is_refused_whole
            a_broken_partition_stops_alone
            chats_are_numbered_without_holes_whatever_is_refused
            a_long_list_of_members_comes_in_several_records
            bytes_that_are_no_record_are_kept
            everything_is_there_after_a_restart
            rows_are_what_a_simple_model_says
        }
    };
    (@tests $fixture:expr; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let fixture = $fixture;
            $crate::store::conformance::$name(&fixture).await;
        }
    )*};
}
