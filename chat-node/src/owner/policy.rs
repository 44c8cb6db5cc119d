//! Who may do what, and what becomes of it: pure. A request against a chat as it stands gives a change or a refusal.
//!
//! | | member | admin | owner |
//! | --- | --- | --- | --- |
//! | read, write, react, leave, edit and delete own messages | yes | yes | yes |
//! | edit and delete others' messages | – | yes | yes |
//! | name and describe the group, say how long messages are kept | – | yes | yes |
//! | let members in | – | yes | yes |
//! | remove members | – | yes | yes |
//! | remove admins | – | – | yes |
//! | let somebody in as an admin, name admins and un-name them | – | – | yes |
//! | be an admin no more | – | yes | – |
//! | hand the group over: the new owner is a member, the old one an admin from then on | – | – | yes |
//! | delete the group | – | – | yes |
//!
//! A group has one owner. When the owner leaves, the admin who has been in longest is the next; without admins, the member.
//! In a direct chat both are members, and neither comes or goes; what one says there the other may refuse to take. A stranger is told that
//! there is no such chat.

use std::{collections::HashSet, time::Duration};

use common::{
    applications::{Content, Retention, Screened},
    ids::{MessageId, Number, UserId},
    model::{ChatKind, Message, Reaction, Role, limits},
    store::{Fingerprint, Ties, fingerprint, group_fingerprint},
    time::Millis,
    wire::{
        codes::ErrorCode,
        owner::{Draft, Refusal},
        record::What,
    },
};

use super::chat::{Accepted, Chat};
use crate::relationships::not_accepting;

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// This is to be appended.
    Append(What),
    /// It is so already.
    Already,
    /// It is so already, by this very request, which was asked before.
    Made,
}

pub(super) fn no_such_chat() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such chat, or it is not yours")
}

fn no_such_message() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such message")
}

fn forbidden(detail: &str) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, detail)
}

/// The caller's role; strangers learn nothing. The application itself may do what an owner may.
fn role(chat: &Chat, by: UserId) -> Result<Role, Refusal> {
    if by == UserId::APPLICATION && !chat.deleted {
        return Ok(Role::Owner);
    }
    match chat.members.get(&by) {
        Some(member) if !chat.deleted => Ok(member.role),
        _ => Err(no_such_chat()),
    }
}

/// The caller's role in a group.
fn group_role(chat: &Chat, by: UserId) -> Result<Role, Refusal> {
    let role = role(chat, by)?;
    if chat.kind == ChatKind::Direct {
        return Err(forbidden("a direct chat has two members, no name, and stays"));
    }
    Ok(role)
}

fn manages(role: Role) -> bool {
    matches!(role, Role::Admin | Role::Owner)
}

/// A new message. Whether it is a repeat was asked before ([`repeat`]).
pub(super) fn send(chat: &Chat, by: UserId, draft: &Draft, id: MessageId) -> Result<What, Refusal> {
    role(chat, by)?;
    let number = chat.head.number + 1;
    if draft.reply_to.is_some_and(|answered| answered >= number || answered <= chat.expired) {
        return Err(Refusal::new(ErrorCode::Invalid, "reply_to: there is no such message"));
    }
    // Who left while the message was on its way is not worth losing it for.
    let mentions = draft.mentions.iter().filter(|user| chat.members.contains_key(user)).copied().collect();
    Ok(What::Sent {
        id,
        number,
        client_id: draft.client_id.clone(),
        body: draft.body.clone(),
        kind: draft.kind,
        reply_to: draft.reply_to,
        attachments: draft.attachments.clone(),
        mentions,
        mention_all: draft.mention_all,
        sent_as: None,
    })
}

/// What somebody says in a direct chat, to who may not want it (ID-8, ID-9): a message, another text for one, an answer to one. What was said
/// before stays, and may be taken back.
pub(super) fn taken(ties: Ties, by: UserId, contacts_only: bool) -> Result<(), Refusal> {
    if ties.takes_messages_of(by, contacts_only) { Ok(()) } else { Err(not_accepting()) }
}

/// A message answered with an emoji, or that taken back. `message` as in [`edit`]; `stands`: whether the caller answers it so already.
pub(super) fn react(
    chat: &Chat,
    by: UserId,
    message: Option<Message>,
    emoji: &str,
    on: bool,
    stands: bool,
) -> Result<Decision, Refusal> {
    role(chat, by)?;
    let message = message.filter(|message| !message.deleted).ok_or_else(no_such_message)?;
    if on == stands {
        return Ok(Decision::Already);
    }
    let mut reactions = message.reactions;
    let different = reactions.len();
    match reactions.iter_mut().find(|reaction| reaction.emoji == emoji) {
        Some(reaction) if on => {
            reaction.count = reaction.count.saturating_add(1);
            if reaction.users.len() < limits::REACTION_USERS {
                reaction.users.push(by);
            }
        }
        Some(reaction) => {
            reaction.count = reaction.count.saturating_sub(1);
            reaction.users.retain(|user| *user != by);
        }
        None if on && different >= limits::REACTIONS => {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("a message is answered with at most {} different emoji", limits::REACTIONS),
            ));
        }
        None if on => reactions.push(Reaction { emoji: emoji.to_owned(), count: 1, users: vec![by] }),
        None => {}
    }
    reactions.retain(|reaction| reaction.count > 0);
    let number = message.number;
    Ok(Decision::Append(What::Reacted { number, emoji: emoji.to_owned(), on, reactions }))
}

/// What an application's policies about words and links make of a change that was decided (SP-2): nothing, another text (which is answered),
/// or a refusal.
pub(super) fn screen(content: &Content, what: &mut What) -> Result<Option<String>, Refusal> {
    let (text, sent_as) = match what {
        What::Sent { body, kind, reply_to, attachments, sent_as, .. } => {
            let print = fingerprint(body, *kind, *reply_to, attachments);
            (body, Some((sent_as, print)))
        }
        What::Edited { message } => (&mut message.body, None),
        _ => return Ok(None),
    };
    match content.screen(text) {
        Screened::Fine => Ok(None),
        Screened::Masked(masked) => {
            text.clone_from(&masked);
            if let Some((sent_as, print)) = sent_as {
                *sent_as = Some(print);
            }
            Ok(Some(masked))
        }
        Screened::RefusedWords => {
            Err(Refusal::new(ErrorCode::RefusedWords, "the message has a word that is not allowed here"))
        }
        Screened::RefusedLinks => Err(Refusal::new(
            ErrorCode::RefusedLinks,
            "the message has a link, and links are not allowed here",
        )),
    }
}

/// Somebody writes faster than the application allows (SP-1).
pub(super) fn too_fast(wait: Duration) -> Refusal {
    Refusal {
        // Up, so that whoever waits exactly that long is let through.
        retry_after_ms: Some(u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)),
        ..Refusal::new(ErrorCode::RateLimited, "too many messages in this chat: wait a moment")
    }
}

/// The message that was accepted under the draft's name, if it is the same; the first one stands.
pub(super) fn repeat(draft: &Draft, accepted: &Accepted) -> Result<(), Refusal> {
    if fingerprint(&draft.body, draft.kind, draft.reply_to, &draft.attachments) == accepted.fingerprint {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::IdConflict, "another message was sent under this client_id; it stands"))
    }
}

/// A message's new text. `message` is the message as it stands; none: there is no such one, or it was deleted.
pub(super) fn edit(
    chat: &Chat,
    by: UserId,
    message: Option<Message>,
    body: &str,
    at: Millis,
) -> Result<Decision, Refusal> {
    let role = role(chat, by)?;
    let mut message = message.filter(|message| !message.deleted).ok_or_else(no_such_message)?;
    if message.from != by && !manages(role) {
        return Err(forbidden("only its sender or an admin may edit a message"));
    }
    if body.is_empty() && message.attachments.is_empty() {
        return Err(Refusal::new(ErrorCode::Invalid, "body: must not be empty"));
    }
    if message.body == body {
        return Ok(Decision::Already);
    }
    message.body = body.to_owned();
    message.edited_at = Some(at);
    Ok(Decision::Append(What::Edited { message: Box::new(message) }))
}

/// What is asked of a message that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) from: UserId,
    /// Whether it is deleted already. Who may not delete it is not told.
    pub(super) deleted: bool,
}

/// The end of a message.
pub(super) fn erase(
    chat: &Chat,
    by: UserId,
    number: Number,
    message: Option<Written>,
) -> Result<Decision, Refusal> {
    let role = role(chat, by)?;
    let message = message.ok_or_else(no_such_message)?;
    if message.from != by && !manages(role) {
        return Err(forbidden("only its sender or an admin may delete a message"));
    }
    Ok(if message.deleted { Decision::Already } else { Decision::Append(What::Erased { number }) })
}

/// Somebody new.
pub(super) fn add_member(chat: &Chat, by: UserId, user: UserId) -> Result<Decision, Refusal> {
    if !manages(group_role(chat, by)?) {
        return Err(forbidden("only the group's owner and its admins may add members"));
    }
    if chat.members.contains_key(&user) {
        return Ok(Decision::Already);
    }
    joins(chat, user, Role::Member)
}

/// Whether whoever comes in by a change may be in another chat; `full` are those who may not, as they are in `most`.
pub(super) fn have_room(what: &What, by: UserId, full: &HashSet<UserId>, most: u32) -> Result<(), Refusal> {
    let comes = match what {
        What::Created { members, .. } | What::Members { members } => {
            members.iter().map(|(user, _)| *user).find(|user| full.contains(user))
        }
        What::Joined { user, .. } => Some(*user).filter(|user| full.contains(user)),
        _ => None,
    };
    match comes {
        None => Ok(()),
        Some(user) if user == by => Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("you are in {most} chats, and may not be in more: leave a group first"),
        )),
        Some(user) => Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("user {user} is in {most} chats, and may not be in more"),
        )),
    }
}

fn joins(chat: &Chat, user: UserId, role: Role) -> Result<Decision, Refusal> {
    if chat.members.len() >= limits::MEMBERS {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("a chat has at most {} members", limits::MEMBERS),
        ));
    }
    Ok(Decision::Append(What::Joined { user, role }))
}

/// Somebody new with a role, or another role for a member.
pub(super) fn set_role(chat: &Chat, by: UserId, user: UserId, role: Role) -> Result<Decision, Refusal> {
    let own = group_role(chat, by)?;
    let Some(member) = chat.members.get(&user) else {
        return match (own, role) {
            (Role::Owner, Role::Admin) | (Role::Owner | Role::Admin, Role::Member) => joins(chat, user, role),
            (Role::Owner, Role::Owner) => {
                Err(forbidden("a group is handed over to one of its members: add the new owner first"))
            }
            (Role::Admin, _) => Err(forbidden("only the group's owner may name admins")),
            (Role::Member, _) => Err(forbidden("only the group's owner and its admins may add members")),
        };
    };
    if member.role == role && (manages(own) || by == user) {
        return Ok(Decision::Already);
    }
    let steps_down = by == user && own == Role::Admin && role == Role::Member;
    match (own, role) {
        (Role::Owner, _) if by == user => {
            Err(forbidden("a group has an owner: hand it over, and somebody else is"))
        }
        (Role::Owner, Role::Owner) => {
            Ok(Decision::Append(What::Roles { roles: vec![(user, Role::Owner), (by, Role::Admin)] }))
        }
        (Role::Owner, _) => Ok(Decision::Append(What::Roles { roles: vec![(user, role)] })),
        _ if steps_down => Ok(Decision::Append(What::Roles { roles: vec![(user, role)] })),
        _ => Err(forbidden("only the group's owner may say who is its admin or its owner")),
    }
}

/// Somebody leaves, or is removed. `retry`: a caller who is gone may be asking again.
pub(super) fn remove_member(chat: &Chat, by: UserId, user: UserId, retry: bool) -> Result<Decision, Refusal> {
    if by == user && retry && !chat.deleted && !chat.members.contains_key(&by) {
        return Ok(Decision::Already);
    }
    let role = group_role(chat, by)?;
    let Some(member) = chat.members.get(&user) else {
        return if retry {
            Ok(Decision::Already)
        } else {
            Err(Refusal::new(ErrorCode::NotFound, "there is no such member"))
        };
    };
    let may = match member.role {
        Role::Member => manages(role),
        Role::Admin => role == Role::Owner,
        Role::Owner => by == UserId::APPLICATION,
    };
    if by != user && !may {
        return Err(forbidden(
            "only the group's owner and its admins may remove members, and only its owner admins",
        ));
    }
    let heir = if member.role == Role::Owner { chat.heir(user) } else { None };
    Ok(Decision::Append(What::Left { user, heir }))
}

/// A new name or description, or another time for which messages are kept.
pub(super) fn update(
    chat: &Chat,
    by: UserId,
    name: Option<&String>,
    description: Option<&String>,
    retention: Option<Retention>,
) -> Result<Decision, Refusal> {
    if !manages(group_role(chat, by)?) {
        return Err(forbidden("only the group's owner and its admins may change it"));
    }
    let name = name.filter(|name| chat.name.as_ref() != Some(name)).cloned();
    let description = description.filter(|text| chat.description.as_ref() != Some(text)).cloned();
    let retention = retention.filter(|retention| chat.retention != Some(*retention));
    Ok(if name.is_none() && description.is_none() && retention.is_none() {
        Decision::Already
    } else {
        Decision::Append(What::Updated { name, description, retention })
    })
}

/// The end of a group. `retry`: it may be gone because the caller asked before.
pub(super) fn delete_chat(chat: &Chat, by: UserId, retry: bool) -> Result<Decision, Refusal> {
    if retry && chat.deleted && chat.members.get(&by).is_some_and(|member| member.role == Role::Owner) {
        return Ok(Decision::Already);
    }
    match group_role(chat, by)? {
        Role::Owner => Ok(Decision::Append(What::Deleted)),
        _ => Err(forbidden("only the group's owner may delete it")),
    }
}

/// A direct chat of two: there is one, or this makes it.
pub(super) fn open_direct(
    chat: Option<&Chat>,
    by: UserId,
    peer: UserId,
    request: Option<Fingerprint>,
) -> Result<Decision, Refusal> {
    match chat {
        Some(chat) if role(chat, by).is_ok() && request.is_some() && chat.request == request => {
            Ok(Decision::Made)
        }
        Some(chat) if role(chat, by).is_ok() => Ok(Decision::Already),
        Some(_) => Err(no_such_chat()),
        None => Ok(Decision::Append(What::Created {
            kind: ChatKind::Direct,
            name: None,
            description: None,
            members: vec![(by, Role::Member), (peer, Role::Member)],
            request,
        })),
    }
}

/// A group that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewGroup<'a> {
    pub(super) name: Option<&'a String>,
    pub(super) description: Option<&'a String>,
    /// Who is in it besides its maker.
    pub(super) members: &'a [UserId],
    pub(super) first: Option<&'a Draft>,
}

impl NewGroup<'_> {
    fn fingerprint(&self) -> Fingerprint {
        let (name, description) = (self.name.map(String::as_str), self.description.map(String::as_str));
        group_fingerprint(name, description, self.members, self.first.map(|draft| draft.body.as_str()))
    }
}

/// The changes that make a group, in order: all of them, what an earlier try that broke off left to do, or none when there is nothing left.
///
/// What is left is known by what is there: so many records of the making are in ([`Chat::makings`]), and the first message is known by its
/// name. So whatever else happened in the chat meanwhile (a message, a member who left) is neither undone nor taken for a part of it.
pub(super) fn create_group(
    chat: Option<&Chat>,
    by: UserId,
    group: NewGroup<'_>,
    id: MessageId,
) -> Result<Vec<What>, Refusal> {
    let request = group.fingerprint();
    if let Some(chat) = chat
        && (chat.created_by != by
            || chat.deleted
            || !(by == UserId::APPLICATION || chat.members.contains_key(&by))
            // A chat from before requests were kept is taken for the same one.
            || chat.request.is_some_and(|made_by| made_by != request))
    {
        return Err(Refusal::new(ErrorCode::IdConflict, "another chat was made under this key; it stands"));
    }
    let mut others: Vec<_> = group.members.iter().copied().filter(|user| *user != by).collect();
    if others.len() >= limits::MEMBERS_PER_RECORD {
        // In an order of their own, so that a repeat that names them in another one goes on behind the same records.
        others.sort_unstable();
    }
    // What the application makes, the first whom it names owns; it may name nobody.
    let owner = (by != UserId::APPLICATION).then_some(by);
    let mut everybody: Vec<_> = owner.into_iter().chain(others).map(|user| (user, Role::Member)).collect();
    if let Some((_, role)) = everybody.first_mut() {
        *role = Role::Owner;
    }
    let mut parts = everybody.chunks(limits::MEMBERS_PER_RECORD);
    let mut changes = Vec::new();
    match chat {
        None => changes.push(What::Created {
            kind: ChatKind::Group,
            name: group.name.cloned(),
            description: group.description.cloned(),
            members: parts.next().unwrap_or_default().to_vec(),
            request: Some(request),
        }),
        Some(chat) => drop(parts.by_ref().take(chat.makings).count()),
    }
    // Somebody who was let in by hand meanwhile does not come in twice; a record counts even when it brings nobody.
    let missing = |(user, _): &&(UserId, Role)| chat.is_none_or(|chat| !chat.members.contains_key(user));
    changes
        .extend(parts.map(|part| What::Members { members: part.iter().filter(missing).copied().collect() }));
    if let Some(draft) = group.first
        && !chat.is_some_and(|chat| first_is_there(chat, by, draft))
    {
        changes.push(What::Sent {
            id,
            number: chat.map_or(0, |chat| chat.head.number) + 1,
            client_id: draft.client_id.clone(),
            body: draft.body.clone(),
            kind: draft.kind,
            reply_to: None,
            attachments: draft.attachments.clone(),
            mentions: Vec::new(),
            mention_all: false,
            sent_as: None,
        });
    }
    Ok(changes)
}

/// Whether a group has its first message. Without a name for it, any message is taken for it.
fn first_is_there(chat: &Chat, by: UserId, draft: &Draft) -> bool {
    match &draft.client_id {
        Some(client_id) => chat.accepted(by, client_id).is_some(),
        None => chat.head.number > 0,
    }
}

#[cfg(test)]
mod tests;
