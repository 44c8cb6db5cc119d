//! Completes what is kept of a notification, as it is sent: with the texts and names that the store has then.

use common::{
    ids::ChatKey,
    notifications::Endpoint,
    store::{Queued, Result, SharedStore},
};

use super::{
    body::{self, About, Kept},
    talk::message,
};

/// What is sent there, or why it never can be.
pub(super) async fn complete(
    store: &SharedStore,
    show_body: bool,
    endpoint: &Endpoint,
    queued: &Queued,
) -> Result<std::result::Result<String, &'static str>> {
    let Some(kept) = Kept::from_json(&queued.body) else { return Ok(Err("what was kept cannot be read")) };
    let chat = ChatKey { app: endpoint.app, chat: kept.chat };
    let Some(view) = store.app_chat(chat).await? else { return Ok(Err("the chat is no more")) };
    let Some(message) = message(store, chat, kept.number).await? else {
        return Ok(Err("the message is no more"));
    };
    let names = store.users(chat.app, &[message.from]).await?;
    let about = About {
        chat: chat.chat,
        kind: view.kind,
        name: &view.name,
        message: &message,
        from_name: names.first().map(|user| user.name.as_str()),
        show_body,
    };
    let Some(user) = endpoint.target.user() else {
        return Ok(Ok(body::webhook(&about, &kept.recipients, queued.created_at)));
    };
    // What was written since then is not theirs to read.
    if !store.is_member(chat, user).await? {
        return Ok(Err("the user is no more in the chat"));
    }
    Ok(match kept.recipients.first() {
        // There is nothing to show.
        Some(_) if message.deleted => Err("the message is no more"),
        Some(whose) => Ok(body::browser(&about, whose)),
        None => Err("what was kept cannot be read"),
    })
}
