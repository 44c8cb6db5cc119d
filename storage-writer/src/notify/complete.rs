//! Completes what is kept of a notification, as it is sent: with the texts and names that the store has then, and for those who have to be
//! told then.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{
    ids::{ChatKey, Number},
    model::Message,
    notifications::{Endpoint, Recipient},
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

/// How often it is decided for one attempt: a message may be deleted between a decision and its being read.
const DECISIONS: u32 = 3;

/// What a delivery comes to.
pub(super) enum Completed {
    /// This is to be sent.
    Body(String),
    /// Nothing ever is, and why.
    Never(&'static str),
    /// First it is to become several.
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
    let chat = ChatKey { app: endpoint.app, chat: kept.chat };
    let Some(view) = store.app_chat(chat).await? else { return Ok(Completed::Never("the chat is no more")) };
    let (message, recipients) = match decided(shared, chat, queued.id, kept).await? {
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

/// The message that is shown, and who is told; or what is to be done otherwise.
async fn decided(
    shared: &Shared,
    chat: ChatKey,
    id: Uuid,
    kept: Kept,
) -> Result<Result<(Message, Vec<Recipient>), Completed>, Broken> {
    for _ in 0..DECISIONS {
        let mut by_newest = still(shared, chat, &kept.recipients).await?;
        let Some((number, recipients)) = by_newest.pop_last() else {
            return Ok(Err(Completed::Never(NOBODY)));
        };
        if !by_newest.is_empty() {
            return Ok(Err(Completed::Split(split(id, kept, by_newest))));
        }
        let message = message(&shared.engines.reads, chat, number).await?;
        if let Some(message) = message.filter(|message| !message.deleted) {
            return Ok(Ok((message, recipients)));
        }
    }
    Ok(Err(Completed::Later))
}

/// Those who have to be told yet, by the newest message that is news to them: in the chat, away since, and not of what they have read, muted
/// or blocked meanwhile. Quiet hours that have begun hold back nothing that is on its way.
async fn still(
    shared: &Shared,
    chat: ChatKey,
    kept: &[Recipient],
) -> Result<BTreeMap<Number, Vec<Recipient>>, Broken> {
    let ranges: HashMap<_, _> = kept.iter().map(|one| (one.user, (one.first, one.last))).collect();
    let (_, told) = decide_again(shared, chat, &ranges).await?;
    let mut by_newest: BTreeMap<Number, Vec<Recipient>> = BTreeMap::new();
    for (who, unseen) in told {
        by_newest.entry(unseen.last).or_default().push(body::recipient(who.user, unseen));
    }
    Ok(by_newest)
}

/// One delivery shows one message: for whom another one is the newest by now (it was deleted, or they have blocked whoever wrote it), they are
/// told by a delivery of their own.
fn split(id: Uuid, mut kept: Kept, others: BTreeMap<Number, Vec<Recipient>>) -> Split {
    let apart = others.values().flatten().map(|one| one.user).collect::<HashSet<_>>();
    kept.recipients.retain(|one| !apart.contains(&one.user));
    let of_others = others.into_iter().map(|(number, recipients)| {
        let body = Kept::new(kept.chat, number, recipients).to_json();
        (derived(id, &body), body)
    });
    let others = of_others.collect();
    Split { rest: kept.to_json(), others }
}

/// The id of what a delivery is split into: the same when it is done once more, and another one for whoever is split off later.
fn derived(id: Uuid, body: &str) -> Uuid {
    let hash: [u8; 32] = Sha256::new().chain_update(id).chain_update(body).finalize().into();
    let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    Builder::from_custom_bytes(*first).into_uuid()
}
