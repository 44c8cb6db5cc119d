//! Chats as they are by now: what the store shows of them, and what their owners confirmed that it may not have yet.
//!
//! The store is read first, for it knows which chats they are; then the owner of each is asked. What both together lack, because it was
//! stored in between, the store has by then: it is read once more. So counts and newest messages include everything that was acknowledged before
//! the request. When an owner is silent, its chat is shown as the store has it.

use std::cmp::Reverse;

use common::{
    ids::UserId,
    model::{ChatKind, ChatView, ChatsPage},
    problem::Problem,
    time::Millis,
    token::Caller,
    wire::{
        owner::{Answer, Ask},
        record::What,
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    commands::{Commands, hide_client_id, is_application},
    history::{Recent, amend, amended},
};

/// Owners that are asked at once for one page.
const TOGETHER: usize = 10;

/// A view with everything in it.
pub(crate) struct Fresh {
    pub(crate) view: ChatView,
    /// When the newest message was sent that the store did not have.
    newer: Option<Millis>,
}

impl Commands {
    /// Brings a page of the store up to date. Chats with messages that the store lacks are the most active ones of it.
    pub(crate) async fn freshen(&self, caller: &Caller, page: &mut ChatsPage) -> Result<(), Problem> {
        let before = unread(&page.results);
        let views = stream::iter(std::mem::take(&mut page.results));
        let mut fresh: Vec<Fresh> =
            views.map(|view| self.fresh(caller, view)).buffered(TOGETHER).try_collect().await?;
        fresh.sort_by_key(|fresh| Reverse(fresh.newer));
        page.results = fresh.into_iter().map(|fresh| fresh.view).collect();
        page.unread_count = (page.unread_count + unread(&page.results)).saturating_sub(before);
        Ok(())
    }

    /// Brings one view of the store up to date.
    pub(crate) async fn fresh(&self, caller: &Caller, mut view: ChatView) -> Result<Fresh, Problem> {
        let viewer = (!is_application(caller)).then_some(caller.user);
        let mut newer = None;
        if let Some(recent) = self.newest(caller, &view).await {
            if recent.behind(view.seq).is_none()
                && let Some(stored) = self.stored_view(caller, view.id).await?
            {
                view = stored;
            }
            let filled = self.filled(caller, view.id, &recent, view.seq).await;
            newer = add(&mut view, viewer, filled.as_ref().unwrap_or(&recent));
        }
        hide_client_id(caller, view.last_message.as_mut());
        Ok(Fresh { view, newer })
    }

    /// What the owner has that the store may lack; none when it is silent, or the caller is in the chat no more.
    async fn newest(&self, caller: &Caller, view: &ChatView) -> Option<Recent> {
        match self.ask(caller, view.id, false, Ask::Recent).await {
            Answer::Recent { head, changes } => Recent::read(view.id, head, &changes),
            _ => None,
        }
    }
}

fn unread(views: &[ChatView]) -> u64 {
    views.iter().map(|view| view.unread_count).sum()
}

/// Adds what the view lacks, and gives when the newest message was sent that it lacked. Who is in the chat it shows as stored: whoever changes
/// that is answered when it is.
fn add(view: &mut ChatView, viewer: Option<UserId>, recent: &Recent) -> Option<Millis> {
    let mut newer = None;
    for change in recent.behind(view.seq)? {
        view.seq = change.seq;
        match &change.what {
            What::Sent { number, mentions, mention_all, .. } => {
                view.messages_count = *number;
                view.last_message = change.message();
                newer = Some(change.at);
                if viewer == Some(change.by) {
                    // One's own messages are read, and all before them.
                    (view.mark, view.mentions_count) = (view.mark.max(*number), 0);
                } else if *number > view.mark
                    && viewer.is_some_and(|viewer| *mention_all || mentions.contains(&viewer))
                {
                    view.mentions_count += 1;
                }
            }
            What::Updated { name, description, retention } => {
                if let Some(name) = name.as_ref().filter(|_| view.kind == ChatKind::Group) {
                    view.name.clone_from(name);
                }
                if description.is_some() {
                    view.description.clone_from(description);
                }
                view.retention = retention.or(view.retention);
            }
            what => {
                if let Some(last) =
                    view.last_message.as_mut().filter(|last| amended(what) == Some(last.number))
                {
                    amend(last, what);
                }
            }
        }
    }
    if viewer.is_some() {
        view.unread_count = view.messages_count.saturating_sub(view.mark);
    }
    newer
}
