//! Completes what is kept of a notification, as it is sent: with the texts and names that the store has then, and for those who have to be
//! told then.

use std::collections::HashMap;

use common::{
    ids::ChatKey,
    notifications::{Endpoint, Recipient},
    store::Queued,
};

use super::{
    Shared,
    body::{self, About, Kept},
    decide::{Broken, decide_again},
    talk::message,
};

/// Why nothing is sent that was to be.
const NOBODY: &str = "nobody has to be told of it any more";

/// What is sent there, or why it never will be.
pub(super) async fn complete(
    shared: &Shared,
    show_body: bool,
    endpoint: &Endpoint,
    queued: &Queued,
) -> Result<Result<String, &'static str>, Broken> {
    let store = &shared.engines.reads;
    let Some(kept) = Kept::from_json(&queued.body) else { return Ok(Err("what was kept cannot be read")) };
    let chat = ChatKey { app: endpoint.app, chat: kept.chat };
    let Some(view) = store.app_chat(chat).await? else { return Ok(Err("the chat is no more")) };
    let recipients = still(shared, chat, &kept.recipients).await?;
    let Some(newest) = recipients.first() else { return Ok(Err(NOBODY)) };
    let message = message(store, chat, newest.last).await?.filter(|message| !message.deleted);
    let Some(message) = message else { return Ok(Err("the message is no more")) };
    let names = store.users(chat.app, &[message.from]).await?;
    let about = About {
        chat: chat.chat,
        kind: view.kind,
        name: &view.name,
        message: &message,
        from_name: names.first().map(|user| user.name.as_str()),
        show_body,
    };
    Ok(Ok(match endpoint.target.user() {
        Some(_) => body::browser(&about, newest),
        None => body::webhook(&about, &recipients, queued.created_at),
    }))
}

/// Those who have to be told yet: in the chat, away since, and not of what they have read, muted or blocked meanwhile. Quiet hours that have
/// begun hold back nothing that is on its way.
///
/// One delivery shows one message, the newest: for whom it is another one by now (they have blocked whoever wrote it), they are left out.
async fn still(shared: &Shared, chat: ChatKey, kept: &[Recipient]) -> Result<Vec<Recipient>, Broken> {
    let ranges: HashMap<_, _> = kept.iter().map(|one| (one.user, (one.first, one.last))).collect();
    let (_, told) = decide_again(shared, chat, &ranges).await?;
    let newest = told.iter().map(|(_, unseen)| unseen.last).max();
    let shown = told.into_iter().filter(|(_, unseen)| Some(unseen.last) == newest);
    Ok(shown.map(|(who, unseen)| body::recipient(who.user, unseen)).collect())
}
