//! What every engine of the store must do. An engine's test file gives a [`Fixture`] and runs all of it with one line:
//! `common::store_conformance!(MyFixture::new().await)`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "the names of the tests say what they test")]

mod accounts;
mod answers;
mod attachments;
mod chats;
mod deliveries;
mod drain;
mod erasing;
mod leases;
mod listed;
mod model;
mod notifications;
mod notify;
mod people;
mod reads;
mod relations;
mod retention;
mod scribe;
mod search;
mod seen;
mod with_chats;

use async_trait::async_trait;

pub use self::{
    accounts::*, answers::*, attachments::*, chats::*, deliveries::*, drain::*, erasing::*, leases::*,
    listed::*, model::*, notifications::*, notify::*, people::*, reads::*, relations::*, retention::*,
    scribe::Scribe, search::*, seen::*, with_chats::*,
};
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

            id_8_a_contact_and_a_block_are_made_and_ended_once_and_are_the_users_own
            id_8_contacts_are_listed_by_the_newest_message_and_then_by_name
            id_8_a_user_has_so_many_contacts_and_blocks_and_no_more_however_many_come_at_once
            id_9_blocks_are_paged_newest_first_and_found_from_both_ends
            id_9_who_was_erased_is_nobody_s_contact_and_blocked_by_nobody
            id_9_changes_of_relations_are_numbered_seen_in_order_and_kept_for_a_while
            id_9_applications_do_not_see_each_others_relations
            messages_are_found_by_parts_of_words_with_a_typo_and_the_best_first
            what_is_found_is_the_same_whatever_the_index_has
            segments_with_changed_messages_are_made_anew
            segments_grow_and_are_made_once_whoever_makes_them
            a_word_that_all_messages_have_finds_the_newest
            a_search_in_all_chats_finds_what_one_is_in
            me_6_a_search_that_leaves_chats_out_says_so

            a_chat_is_seen_by_its_members_only
            chats_are_listed_by_their_latest_activity
            a_chat_without_a_name_is_called_after_its_others
            the_newest_message_shows_its_client_id_to_its_sender_only
            unread_is_what_came_after_joining_reading_and_writing
            a_read_mark_moves_forward_only_and_not_past_the_head
            read_marks_that_race_end_at_the_largest
            many_read_marks_are_written_at_once
            unread_is_counted_in_all_chats_whatever_the_page
            when_users_were_seen_last_moves_forward_only_and_is_told_of_many
            members_are_paged_in_order_of_joining
            an_owner_who_leaves_has_an_heir
            members_are_named_and_un_named_and_a_group_is_handed_over
            a_deleted_chat_is_listed_nowhere_and_still_known
            what_a_user_is_in_and_has_left_is_told_with_its_place_in_the_log
            the_newest_departures_of_a_user_are_kept
            history_reads_both_ways_to_the_ends
            an_edited_message_has_its_new_text_and_a_deleted_one_none
            chats_are_loaded_many_at_a_time
            sp_3_who_is_in_so_many_chats_is_found_among_many
            a_group_knows_the_request_that_made_it_and_how_much_of_its_making_is_there
            a_sent_message_is_found_by_its_senders_name_for_it
            a_name_that_is_used_again_means_the_first_message
            applications_do_not_see_each_other
            an_application_finds_its_chats_by_number_and_counts_them
            op_6_all_users_of_an_application_are_paged_in_order_of_their_ids
            op_6_all_messages_of_an_application_are_paged_and_one_is_found_by_its_id

            what_a_message_is_answered_with_is_as_the_newest_record_says
            what_mentions_a_member_is_counted_until_it_is_read

            me_7_an_attachment_is_read_by_its_uploader_and_where_it_was_sent
            me_7_applications_do_not_see_each_others_attachments
            me_7_an_upload_is_an_attachment_once_and_only_while_its_object_is_noted
            me_7_what_no_message_refers_to_is_dropped_after_its_time
            me_7_a_profile_picture_is_seen_by_its_application_and_stays

            a_user_who_was_erased_is_known_to_nobody_and_leaves_groups_in_time
            an_application_that_was_erased_loses_its_rows_and_no_other_does
            me_9_messages_are_kept_for_as_many_days_as_their_chat_says
            me_9_messages_are_kept_until_every_member_has_read_them
            me_9_what_a_chat_does_not_say_its_application_does
            me_9_what_has_ended_leaves_nothing_but_its_place
            me_9_files_of_what_has_ended_are_collected
            me_9_how_far_partitions_were_drained_when_is_kept_in_order

            no_2_preferences_are_a_users_own_and_of_one_chat
            no_1_an_application_has_so_many_webhooks_and_no_more
            no_1_a_browser_is_there_once_and_a_user_has_so_many
            no_1_the_first_endpoint_is_not_told_of_what_was_before_it
            no_1_a_browser_goes_with_its_sign_in
            no_2_who_was_erased_is_told_of_nothing
            no_1_an_application_that_was_erased_notifies_nobody
            no_1_a_chat_waits_once_and_only_where_there_is_an_endpoint
            no_1_candidates_are_paged_with_what_decides_about_them
            no_1_who_is_looked_at_again_is_seen_as_they_are_by_then
            no_1_a_round_goes_on_from_page_to_page_and_each_is_written_once
            no_1_no_message_is_left_out_when_a_round_ends_as_a_batch_comes
            no_2_who_is_held_is_told_once_and_of_everything
            no_2_who_is_held_is_looked_at_again_when_it_may_be_quiet_no_more
            no_2_who_is_held_as_it_is_sent_is_told_by_that_endpoint_alone_and_first
            no_3_an_endpoint_has_one_holder_until_it_is_given_back_or_its_lease_ends
            no_3_a_queue_is_in_order_and_what_failed_stays_its_head
            no_3_a_browser_that_subscribes_again_is_sent_to_no_earlier
            no_3_webhooks_and_browsers_are_leased_apart_and_without_some_applications
            no_3_endpoints_that_failed_and_the_others_are_leased_apart
            no_3_a_delivery_that_becomes_several_does_so_once_and_loses_none
            no_3_a_delivery_of_a_full_queue_becomes_several_as_well
            no_3_a_delivery_is_sent_again_at_the_end_of_the_queue
            no_3_what_waited_too_long_is_given_up_and_what_is_done_with_is_forgotten
            no_3_what_comes_to_a_full_queue_is_given_up
            no_3_an_endpoint_that_wants_no_more_is_switched_off_or_forgotten
            no_3_nothing_is_left_in_a_queue_that_is_just_given_back

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
