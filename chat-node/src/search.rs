//! Finding messages by their words (ME-6): in one chat, as history has it, and in all of one's chats, as the store has them.
//!
//! In one chat, the store's answer is joined with what the owner confirmed and the store may not have: a message is found as soon as it was
//! acknowledged, under its newest text, and no more once its deletion was. Owner silent: what the store has, with `complete: false`.

use std::collections::HashMap;

use common::{
    ids::{ChatId, ChatKey, Number},
    model::{Message, Page, PageRequest, limits},
    problem::Problem,
    search::Query,
    store::{Findings, Hit, MESSAGES_FOUND, SearchScope},
    token::Caller,
    wire::record::{Change, What},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    check::Checks,
    commands::{Commands, hide_client_id},
    history::{amend, amended},
};

/// A message that was found, and where it matches.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FoundMessage {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Begin and length of each place in its body that matches, in characters (Unicode code points), in order, without overlaps.
    pub highlight: Vec<[u32; 2]>,
}

/// A page of messages that were found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FoundPage {
    /// The page.
    #[serde(flatten)]
    pub page: Page<FoundMessage>,
    /// Whether everything was looked through.
    pub complete: bool,
}

impl Commands {
    /// A page of the messages of a chat that match, the best first, of equal ones the newer; at most [`MESSAGES_FOUND`] on all pages.
    ///
    /// # Errors
    /// `invalid` for a query that is too long or empty, `not_found` to who is not in the chat, `retry_later`.
    pub async fn search(
        &self,
        caller: &Caller,
        chat: ChatId,
        query: &str,
        page: PageRequest,
    ) -> Result<FoundPage, Problem> {
        let query = read(query)?;
        let recent = self.recent(caller, chat).await?;
        let key = ChatKey { app: caller.app, chat };
        let mut findings = self.store.search(SearchScope::Chat(key), &query).await?;
        let drained = findings.head.seq;
        let filled = match &recent {
            Some(recent) => self.filled(caller, chat, recent, drained).await,
            None => None,
        };
        match filled.as_ref().or(recent.as_ref()).and_then(|recent| recent.behind(drained)) {
            Some(undrained) => join(&mut findings, &undrained, &query),
            None => findings.whole = false,
        }
        Ok(on_page(caller, findings, &query, page))
    }

    /// A page of the messages that match in all of the caller's chats, of those with the most recent activity when there are many. A message is found
    /// there once it is stored, about a second after it was sent; while the writers are away, the answer says that it is not complete.
    ///
    /// # Errors
    /// `invalid`, `retry_later`.
    pub async fn search_all(
        &self,
        caller: &Caller,
        query: &str,
        page: PageRequest,
    ) -> Result<FoundPage, Problem> {
        let query = read(query)?;
        let positions = self.store.positions().await?;
        let mut findings = self.store.search(SearchScope::ChatsOf(caller.app, caller.user), &query).await?;
        findings.whole &= self.live.as_ref().is_none_or(|live| !live.is_ahead_of(&positions));
        Ok(on_page(caller, findings, &query, page))
    }
}

fn read(query: &str) -> Result<Query, Problem> {
    let query = query.trim();
    let mut checks = Checks::default();
    checks.text("query", query, 1, limits::SEARCH_CHARS);
    checks.done()?;
    Ok(Query::read(query))
}

/// Makes what the store has found what it would have found with these changes as well.
fn join(findings: &mut Findings, undrained: &[&Change], query: &Query) {
    if undrained.is_empty() {
        return;
    }
    let mut messages: HashMap<Number, Message> =
        findings.hits.drain(..).map(|hit| (hit.message.number, hit.message)).collect();
    for change in undrained {
        match &change.what {
            What::Sent { number, .. } => messages.extend(change.message().map(|message| (*number, message))),
            // With its new text it may match, and did not before.
            What::Edited { message } => drop(messages.insert(message.number, message.as_ref().clone())),
            what => {
                if let Some(present) = amended(what).and_then(|number| messages.get_mut(&number)) {
                    amend(present, what);
                }
            }
        }
    }
    let hit = |message: Message| {
        let rank = query.rank(&message.body)?;
        Some(Hit { message, rank })
    };
    findings.hits = messages.into_values().filter_map(hit).collect();
    Hit::sort(&mut findings.hits);
    findings.hits.truncate(MESSAGES_FOUND);
}

fn on_page(caller: &Caller, findings: Findings, query: &Query, page: PageRequest) -> FoundPage {
    let Findings { hits, whole, .. } = findings;
    let count = hits.len() as u64;
    let found = |hit: Hit| {
        let mut message = hit.message;
        hide_client_id(caller, Some(&mut message));
        FoundMessage { highlight: query.highlight(&message.body), message }
    };
    let results = page.part_of(hits).map(found).collect();
    FoundPage { page: page.answer(count, results), complete: whole }
}
