//! What notifications say: the JSON that webhooks and browsers are sent, and what is kept until then, which says nothing of anybody but by id.
//! Pure.

use common::{
    ids::{ChatId, Number, UserId},
    model::{ChatKind, Message},
    notifications::{self, EventKind, MessagesUnseen, Recipient, UnseenChat, UnseenMessage},
    time::Millis,
};
use serde::{Deserialize, Serialize};

use super::{absent::Unseen, push::PAYLOAD_BYTES};

/// Of what is kept.
const VERSION: u8 = 1;

/// Characters of a title.
const TITLE_CHARS: usize = 100;

/// Characters of a message that a browser is shown at first: what is longer than it has room for is cut further.
const BODY_CHARS: usize = 1_000;

/// What is told of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About<'a> {
    pub(super) chat: ChatId,
    pub(super) kind: ChatKind,
    /// The group's name, or the names of those in it.
    pub(super) name: &'a str,
    /// The newest message: it was not deleted.
    pub(super) message: &'a Message,
    /// Who wrote it; none when they are not known.
    pub(super) from_name: Option<&'a str>,
    /// Whether what was said is shown, if there is anything.
    pub(super) show_body: bool,
}

/// What is kept of a notification until it is sent. Texts and names are read then: by then they may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u8,
    pub(super) chat: ChatId,
    /// The newest message as it came up. What is sent is decided then; it stays as writers of this version take what has none as unreadable.
    number: Number,
    /// Whom it is news to; for a browser, whose it is.
    pub(super) recipients: Vec<Recipient>,
}

impl Kept {
    pub(super) fn new(chat: ChatId, number: Number, recipients: Vec<Recipient>) -> Self {
        Self { version: VERSION, chat, number, recipients }
    }

    pub(super) fn to_json(&self) -> String {
        json(self)
    }

    /// None when it is of another version.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|kept: &Self| kept.version == VERSION)
    }
}

/// Somebody who is told of this.
pub(super) fn recipient(user: UserId, unseen: Unseen) -> Recipient {
    let Unseen { first, last, count, mentioned } = unseen;
    Recipient { user, first, last, count, mentioned }
}

#[derive(Serialize)]
struct Shown<'a> {
    chat: ChatId,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// By name: whoever shows it has nobody to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    number: Number,
    count: u32,
    mentioned: bool,
}

/// What a webhook is sent about several members of a chat, to whom it was news at that time.
pub(super) fn webhook(about: &About<'_>, recipients: &[Recipient], at: Millis) -> String {
    let message = about.message;
    let chat = UnseenChat {
        id: about.chat,
        kind: about.kind,
        name: (about.kind == ChatKind::Group).then_some(about.name),
    };
    let message = UnseenMessage {
        id: message.id,
        number: message.number,
        from: message.from,
        from_name: about.from_name,
        kind: message.kind,
        body: about.show_body.then_some(message.body.as_str()),
        created_at: message.created_at,
    };
    let data = notifications::UnseenData { chat, message, recipients };
    json(&MessagesUnseen { kind: EventKind::MessagesUnseen, timestamp: at, data })
}

/// What the browsers of one of them are sent: at most [`PAYLOAD_BYTES`].
pub(super) fn browser(about: &About<'_>, whose: &Recipient) -> String {
    let title = match (about.kind, about.from_name) {
        (ChatKind::Direct, Some(name)) => name,
        _ => about.name,
    };
    let mut room = BODY_CHARS;
    loop {
        let body = if about.show_body { cut(&about.message.body, room) } else { "" };
        let shown = json(&Shown {
            chat: about.chat,
            title: cut(title, TITLE_CHARS),
            body: Some(body).filter(|body| !body.is_empty()),
            from: about.from_name.map(|name| cut(name, TITLE_CHARS)),
            number: whose.last,
            count: whose.count,
            mentioned: whose.mentioned,
        });
        if shown.len() <= PAYLOAD_BYTES || room == 0 {
            return shown;
        }
        room /= 2;
    }
}

/// The first so many characters.
fn cut(text: &str, chars: usize) -> &str {
    let end = text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}

/// Texts and numbers always have a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use common::{document::Document, ids::MessageId, model::MessageKind};
    use jsonschema::Validator;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn message(body: &str) -> Message {
        let chat = ChatId(Uuid::from_u128(1));
        Message {
            id: MessageId(Uuid::from_u128(2)),
            chat,
            room_id: chat,
            number: 9,
            from: UserId(Uuid::from_u128(3)),
            body: body.to_owned(),
            kind: MessageKind::Text,
            created_at: Millis(1_795_252_554_120),
            edited_at: None,
            deleted: false,
            expired: false,
            reply_to: None,
            attachments: Vec::new(),
            reactions: Vec::new(),
            mentions: Vec::new(),
            mention_all: false,
            client_id: None,
        }
    }

    fn about(message: &Message, kind: ChatKind) -> About<'_> {
        About { chat: message.chat, kind, name: "Course", message, from_name: Some("Ana"), show_body: true }
    }

    const UNSEEN: Unseen = Unseen { first: 7, last: 9, count: 2, mentioned: true };

    fn whose() -> Recipient {
        recipient(UserId(Uuid::from_u128(4)), UNSEEN)
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn no_1_a_webhook_is_told_of_the_chat_its_newest_message_and_who_has_not_seen_it() {
        let message = message("hi");
        let mut about = about(&message, ChatKind::Group);
        let now = Millis(1_795_252_900_000);
        let user = UserId(Uuid::from_u128(4));
        let recipients = [recipient(user, UNSEEN)];
        let expected = json!({
            "type": "messages.unseen",
            "timestamp": "2026-11-21T09:21:40.000Z",
            "data": {
                "chat": {"id": message.chat, "kind": "group", "name": "Course"},
                "message": {
                    "id": message.id, "number": 9, "from": message.from, "from_name": "Ana", "type": "text",
                    "body": "hi", "created_at": "2026-11-21T09:15:54.120Z",
                },
                "recipients": [{"user": user, "first": 7, "last": 9, "count": 2, "mentioned": true}],
            },
        });
        assert_eq!(read(&webhook(&about, &recipients, now)), expected);

        about = About { kind: ChatKind::Direct, from_name: None, show_body: false, ..about };
        let data = &read(&webhook(&about, &recipients, now))["data"];
        assert_eq!(data["chat"], json!({"id": message.chat, "kind": "direct"}));
        assert_eq!(data["message"].get("body").or(data["message"].get("from_name")), None);
    }

    /// What the document says of the body, as a schema in which nothing else may stand.
    fn documented() -> Validator {
        let mut document = Document::default();
        document.tell_webhooks();
        let mut document = document.openapi();
        let at = "/webhooks/messages.unseen/post/requestBody/content/application~1json/schema";
        let schema = document.pointer(at).unwrap().clone();
        for one in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
            if one["type"] == "object" {
                one["additionalProperties"] = json!(false);
            }
        }
        let schema = json!({"allOf": [schema], "components": document["components"]});
        jsonschema::draft202012::new(&schema).unwrap()
    }

    #[test]
    fn op_7_whatever_a_webhook_is_sent_is_as_the_document_says() {
        let documented = documented();
        let message = message("hi");
        for kind in [ChatKind::Group, ChatKind::Direct] {
            for (from_name, show_body) in [(Some("Ana"), true), (Some(""), false), (None, true)] {
                let about = About { from_name, show_body, ..about(&message, kind) };
                let sent = read(&webhook(&about, &[whose(), whose()], Millis(0)));
                let wrong: Vec<_> = documented.iter_errors(&sent).map(|error| error.to_string()).collect();
                assert!(wrong.is_empty(), "{wrong:?}: {sent}");
            }
        }
        for (pointer, value) in
            [("/type", json!("message.unseen")), ("/data/message", json!({})), ("/data", json!(7))]
        {
            let mut other = read(&webhook(&about(&message, ChatKind::Group), &[whose()], Millis(0)));
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(!documented.is_valid(&other), "{other}");
        }
    }

    #[test]
    fn no_1_what_is_kept_names_everything_by_id() {
        let kept = Kept::new(ChatId(Uuid::from_u128(1)), 9, vec![whose()]);
        let expected = json!({
            "version": 1, "chat": kept.chat, "number": 9,
            "recipients": [{"user": UserId(Uuid::from_u128(4)), "first": 7, "last": 9, "count": 2, "mentioned": true}],
        });
        assert_eq!(read(&kept.to_json()), expected);
        assert_eq!(Kept::from_json(&kept.to_json()), Some(kept.clone()));
        assert_eq!(Kept::from_json(&Kept { version: 2, ..kept }.to_json()), None);
        assert_eq!(Kept::from_json("{}"), None);
    }

    #[test]
    fn no_1_a_browser_is_told_in_few_words() {
        let message = message("hi");
        let group = about(&message, ChatKind::Group);
        let expected = json!({
            "chat": message.chat, "title": "Course", "body": "hi", "from": "Ana", "number": 9, "count": 2, "mentioned": true,
        });
        assert_eq!(read(&browser(&group, &whose())), expected);
        let direct = About { kind: ChatKind::Direct, show_body: false, ..group };
        let shown = read(&browser(&direct, &whose()));
        assert_eq!((&shown["title"], shown.get("body")), (&json!("Ana"), None));
    }

    #[test]
    fn no_1_whatever_was_said_it_fits() {
        for text in ["x", "é", "😀", "\u{1}", "\"\\", "\n"] {
            let message = message(&text.repeat(16_000 / text.len()));
            let name = text.repeat(200);
            let about = About { name: &name, from_name: Some(&name), ..about(&message, ChatKind::Group) };
            let shown = browser(&about, &whose());
            assert!(shown.len() <= PAYLOAD_BYTES, "{text:?}: {}", shown.len());
            assert!(read(&shown)["body"].as_str().unwrap().chars().count() > 100, "{text:?}");
        }
    }
}
