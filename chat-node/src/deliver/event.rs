//! A change of a chat as its members see it.

use bytes::Bytes;
use common::{
    ids::{Number, Seq, UserId},
    wire::{
        client::{RoleOf, ServerFrame},
        codec::Format,
        record::{Change, What},
    },
};

use crate::{
    history::erase,
    socket::frame::{Frames, framed},
};

/// The event that a change is to a session. `to_author` keeps the message's `client_id`, which only the sessions of who wrote the
/// message see.
///
/// Every change has one: a session counts a chat's `seq` without holes. The making of a chat, and first members that follow it in
/// records of their own, are told by `new_chat`; whoever hears of them as events hears that something about the chat is new.
pub fn event(change: &Change, to_author: bool) -> ServerFrame {
    let (chat, seq, at, by) = (change.chat, change.seq, change.at, change.by);
    let message = || {
        let mut message = change.message()?;
        if !to_author {
            message.client_id = None;
        }
        Some(message)
    };
    let updated = |name, description, retention, roles| ServerFrame::ChatUpdated {
        chat,
        seq,
        at,
        by,
        name,
        description,
        retention,
        roles,
    };
    match &change.what {
        What::Sent { .. } => match message() {
            Some(message) => ServerFrame::NewMessage { chat, seq, at, by, message },
            None => updated(None, None, None, Vec::new()),
        },
        What::Edited { .. } => match message() {
            Some(message) => ServerFrame::MessageUpdated { chat, seq, at, by, message },
            None => updated(None, None, None, Vec::new()),
        },
        What::Erased { number } => ServerFrame::MessageDeleted { chat, seq, at, by, number: *number },
        What::Reacted { number, emoji, on, reactions } => {
            let count = reactions.iter().find(|reaction| reaction.emoji == *emoji);
            let count = count.map_or(0, |reaction| reaction.count);
            let (number, emoji, on) = (*number, emoji.clone(), *on);
            ServerFrame::Reaction { chat, seq, at, by, number, emoji, on, count }
        }
        What::Joined { user, role } => {
            ServerFrame::MemberJoined { chat, seq, at, by, user: *user, role: *role }
        }
        What::Left { user, heir } => ServerFrame::MemberLeft { chat, seq, at, by, user: *user, owner: *heir },
        What::Roles { roles } => {
            let roles = roles.iter().map(|(user, role)| RoleOf { user: *user, role: *role });
            updated(None, None, None, roles.collect())
        }
        What::Updated { name, description, retention } => {
            updated(name.clone(), description.clone(), *retention, Vec::new())
        }
        What::Created { .. } | What::Members { .. } => updated(None, None, None, Vec::new()),
        What::Deleted => ServerFrame::ChatDeleted { chat, seq, at, by },
    }
}

/// A change with its frames, each made when somebody first needs it and shared by all who do.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    change: Change,
    author: Option<UserId>,
    for_author: Frames,
    for_others: Frames,
    bytes: usize,
    /// Its message is shown as a deleted one.
    withheld: Option<Withheld>,
}

/// Why what a message says is not told any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Withheld {
    /// It was deleted.
    Deleted,
    /// Its time was over (ME-9).
    Expired,
}

impl Event {
    /// `bytes` is the length of its record: about what its frames will have.
    pub(crate) fn new(change: Change, bytes: usize) -> Self {
        let author = match &change.what {
            What::Sent { client_id: Some(_), .. } => Some(change.by),
            What::Edited { message } => message.client_id.as_ref().map(|_| message.from),
            _ => None,
        };
        let (for_author, for_others) = (Frames::default(), Frames::default());
        Self { change, author, for_author, for_others, bytes, withheld: None }
    }

    /// The same, of a message that has been deleted since, or has ended: its place, without what it said.
    pub(crate) fn without_text(self, why: Withheld) -> Self {
        Self { withheld: Some(why), for_author: Frames::default(), for_others: Frames::default(), ..self }
    }

    /// The message whose text a change says.
    pub(crate) fn number(change: &Change) -> Option<Number> {
        match &change.what {
            What::Sent { number, .. } => Some(*number),
            What::Edited { message } => Some(message.number),
            _ => None,
        }
    }

    pub(crate) fn seq(&self) -> Seq {
        self.change.seq
    }

    pub(crate) fn what(&self) -> &What {
        &self.change.what
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose sessions see it otherwise than everybody else's.
    pub(crate) fn author(&self) -> Option<UserId> {
        self.author
    }

    /// The frame for a session of `user`.
    pub(crate) fn frame(&mut self, user: UserId, format: Format) -> Bytes {
        self.frame_of(self.author == Some(user), format)
    }

    /// The frame for everybody but its author.
    pub(crate) fn frame_for_others(&mut self, format: Format) -> Bytes {
        self.frame_of(false, format)
    }

    fn frame_of(&mut self, to_author: bool, format: Format) -> Bytes {
        let frames = if to_author { &mut self.for_author } else { &mut self.for_others };
        frames.get(format, || {
            let mut event = event(&self.change, to_author);
            if let ServerFrame::NewMessage { message, .. } | ServerFrame::MessageUpdated { message, .. } =
                &mut event
                && let Some(why) = self.withheld
            {
                erase(message);
                message.expired = why == Withheld::Expired;
            }
            framed(&event, format)
        })
    }
}

#[cfg(test)]
mod tests {
    use common::{
        ids::{AppId, ChatId, ClientId, MessageId},
        model::{Message, MessageKind},
        time::Millis,
    };

    use super::*;

    fn change(by: UserId, what: What) -> Change {
        Change {
            app: AppId::DEFAULT,
            chat: ChatId::random(),
            term: 1,
            n: 1,
            seq: 812,
            at: Millis(0),
            by,
            what,
        }
    }

    fn sent() -> What {
        What::Sent {
            id: MessageId::random(),
            number: 790,
            client_id: Some(ClientId::new("c-1").unwrap()),
            body: "hello".into(),
            kind: MessageKind::Text,
            reply_to: None,
            attachments: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            sent_as: None,
        }
    }

    fn client_id(frame: Bytes) -> Option<String> {
        let payload = crate::socket::frame::payloads(frame).pop().unwrap();
        let frame: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        frame["message"]["client_id"].as_str().map(str::to_owned)
    }

    #[test]
    fn the_name_a_client_gave_its_message_is_shown_to_its_author_only() {
        let (ana, ben) = (UserId::random(), UserId::random());
        let mut event = Event::new(change(ana, sent()), 100);
        assert_eq!(client_id(event.frame(ana, Format::Json)).as_deref(), Some("c-1"));
        assert_eq!(client_id(event.frame(ben, Format::Json)), None);
    }

    #[test]
    fn the_author_of_an_edited_message_is_who_wrote_it_and_not_who_changed_it() {
        let (ana, admin) = (UserId::random(), UserId::random());
        let message: Message = change(ana, sent()).message().unwrap();
        let mut event = Event::new(change(admin, What::Edited { message: Box::new(message) }), 100);
        assert_eq!(client_id(event.frame(ana, Format::Json)).as_deref(), Some("c-1"));
        assert_eq!(client_id(event.frame(admin, Format::Json)), None);
    }

    #[test]
    fn a_frame_is_made_once_for_each_format_and_shared() {
        let mut event = Event::new(change(UserId::random(), sent()), 100);
        let mut frames = Vec::new();
        for format in Format::ALL {
            let (one, other) = (event.frame(UserId::random(), format), event.frame_for_others(format));
            assert_eq!(one.as_ptr(), other.as_ptr());
            frames.push(one);
        }
        assert_eq!([frames[0][0], frames[1][0]], [0x81, 0x82], "a text frame, and a binary frame");
    }
}
