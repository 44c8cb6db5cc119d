//! Completes what is kept of a notification, as it is sent: with the texts and names that the store has then, and for those who have to be
//! told then.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{
    ids::{ChatKey, EndpointId, Number, UserId},
    model::Message,
    notifications::{Endpoint, Recipient},
    partition::partition_of,
    store::{Queued, Split},
};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::{
    Shared,
    body::{self, About, Kept},
    decide::{Broken, decide_again},
    talk::message,
};

/// Why nothing is sent that was to be.
const NOBODY: &str = "nobody has to be told of it any more";
const LATER: &str = "it is quiet for whom it was: they are told by another when it is quiet no more";

/// How often it is decided for one attempt: a message may be deleted between a decision and its being read.
const DECISIONS: u32 = 3;

/// What a delivery comes to.
pub(super) enum Completed {
    /// This is to be sent.
    Body(String),
    /// Nothing ever is, and why.
    Never(&'static str),
    /// First it is to become several, or some whom it is for are to be held.
    Split(Split),
    /// What it is about goes while it is asked for: it is to be looked at again.
    Later,
}

/// What is to be done about it.
pub(super) async fn complete(
    shared: &Shared,
    show_body: bool,
    endpoint: &Endpoint,
    queued: &Queued,
) -> Result<Completed, Broken> {
    let store = &shared.engines.reads;
    let Some(kept) = Kept::from_json(&queued.body) else {
        return Ok(Completed::Never("what was kept cannot be read"));
    };
    if kept.recipients.is_empty() {
        return Ok(Completed::Never(LATER));
    }
    let chat = ChatKey { app: endpoint.app, chat: kept.chat };
    let Some(view) = store.app_chat(chat).await? else { return Ok(Completed::Never("the chat is no more")) };
    let (message, recipients) = match decided(shared, chat, endpoint.id, queued.id, kept).await? {
        Ok(decided) => decided,
        Err(otherwise) => return Ok(otherwise),
    };
    let Some(newest) = recipients.first() else { return Ok(Completed::Never(NOBODY)) };
    let names = store.users(chat.app, &[message.from]).await?;
    let about = About {
        chat: chat.chat,
        kind: view.kind,
        name: &view.name,
        message: &message,
        from_name: names.first().map(|user| user.name.as_str()),
        show_body,
    };
    Ok(Completed::Body(match endpoint.target.user() {
        Some(_) => body::browser(&about, newest),
        None => body::webhook(&about, &recipients, queued.created_at),
    }))
}

/// The message that is shown, and who is told: those who have to be yet, in the chat, away since, and not of what they have read, muted or blocked
/// meanwhile; or what is to be done otherwise. Whoever is in their quiet hours by now is held.
async fn decided(
    shared: &Shared,
    chat: ChatKey,
    endpoint: EndpointId,
    id: Uuid,
    kept: Kept,
) -> Result<Result<(Message, Vec<Recipient>), Completed>, Broken> {
    let ranges: HashMap<_, _> = kept.recipients.iter().map(|one| (one.user, (one.first, one.last))).collect();
    for _ in 0..DECISIONS {
        let (_, decided) = decide_again(shared, chat, &ranges).await?;
        let hold = decided.held(chat, Some(endpoint));
        let mut by_newest: BTreeMap<Number, Vec<Recipient>> = BTreeMap::new();
        for (who, unseen) in decided.tell {
            by_newest.entry(unseen.last).or_default().push(body::recipient(who.user, unseen));
        }
        let newest = by_newest.pop_last();
        if !by_newest.is_empty() || !hold.is_empty() {
            let partition = partition_of(chat, shared.engines.log.partitions());
            let (rest, others) = split(id, kept, by_newest, hold.iter().map(|held| held.user));
            return Ok(Err(Completed::Split(Split { rest, others, hold, partition })));
        }
        let Some((number, recipients)) = newest else { return Ok(Err(Completed::Never(NOBODY))) };
        let message = message(&shared.engines.reads, chat, number).await?;
        if let Some(message) = message.filter(|message| !message.deleted) {
            return Ok(Ok((message, recipients)));
        }
    }
    Ok(Err(Completed::Later))
}

/// What is left of a delivery, and what others come of it. It shows one message: for whom another one is the newest by now (it was deleted, or they
/// have blocked whoever wrote it), they are told by a delivery of their own; and those who are held by none yet.
fn split(
    id: Uuid,
    mut kept: Kept,
    others: BTreeMap<Number, Vec<Recipient>>,
    held: impl Iterator<Item = UserId>,
) -> (String, Vec<(Uuid, String)>) {
    let apart = others.values().flatten().map(|one| one.user).chain(held).collect::<HashSet<_>>();
    kept.recipients.retain(|one| !apart.contains(&one.user));
    let of_others = others.into_iter().map(|(number, recipients)| {
        let body = Kept::new(kept.chat, number, recipients).to_json();
        (derived(id, &body), body)
    });
    let others = of_others.collect();
    (kept.to_json(), others)
}

/// The id of what a delivery is split into: the same when it is done once more, and another one for whoever is split off later.
fn derived(id: Uuid, body: &str) -> Uuid {
    let hash: [u8; 32] = Sha256::new().chain_update(id).chain_update(body).finalize().into();
    let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    Builder::from_custom_bytes(*first).into_uuid()
}
