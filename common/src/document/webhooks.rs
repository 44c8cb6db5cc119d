//! What webhooks are sent, as OpenAPI's `webhooks`: requests that the cluster makes, and what it makes of their answers (NO-1, NO-3). The body is
//! [`MessagesUnseen`], which the storage writer serializes.

use schemars::SchemaGenerator;
use serde_json::{Value, json};
use uuid::Uuid;

use super::content;
use crate::{
    ids::{ChatId, MessageId, UserId},
    model::{ChatKind, MessageKind},
    notifications::{
        EventKind, MessagesUnseen, Recipient, UnseenChat, UnseenData, UnseenMessage, WEBHOOK_ID,
        WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
    },
    time::Millis,
};

/// Each request by its name.
pub(super) fn sent(schemas: &mut SchemaGenerator) -> Value {
    let schema = schemas.subschema_for::<MessagesUnseen<'_>>().to_value();
    json!({EventKind::MessagesUnseen.word(): {"post": {
        "operationId": "webhook_messages_unseen",
        "tags": ["Webhooks"],
        "summary": "A chat has messages that members who are away have not seen",
        "description": "Sent to every webhook of the application that is enabled, as Standard Webhooks have it \
            (standardwebhooks.com), to each in order: while one is not taken, nothing behind it is sent. It may come twice, with the \
            same `webhook-id`.",
        "parameters": headers(),
        "requestBody": {"required": true, "content": content("application/json", schema, &examples())},
        "responses": {
            "2XX": {"description": "It is taken, and the next one is sent. What the body says is not looked at."},
            "410": {"description": "The webhook is switched off, and nothing is sent until the operator enables it. What comes up \
                meanwhile is kept for as long as it would be sent again."},
            "default": {"description": "Anything else, or no answer within 15 s: it is sent again, later and later (by default \
                after 5 s at first and an hour at most; not before `Retry-After`, within that), and given up after three days by default. Up to 3 redirects that keep the method \
                (307, 308) are followed."},
        },
    }}})
}

fn headers() -> Value {
    let header = |name: &str, says: &str, schema: Value, example: &str| json!({"in": "header", "name": name, "required": true, "description": says, "schema": schema, "example": example});
    json!([
        header(
            WEBHOOK_ID,
            "The delivery's id, the same however often it is sent. Pass over one that you have had.",
            json!({"type": "string", "format": "uuid"}),
            "01932f6a-1d1c-7c41-9d5e-c0de00de117e",
        ),
        header(
            WEBHOOK_TIMESTAMP,
            "When this attempt was made, in whole seconds since 1970. Refuse one that is minutes away.",
            json!({"type": "string", "pattern": "^[0-9]+$"}),
            "1795252900",
        ),
        header(
            WEBHOOK_SIGNATURE,
            "`v1,` and the base64 of the HMAC-SHA256 of `{webhook-id}.{webhook-timestamp}.{body}`. The key is what stands behind `whsec_` \
             in the webhook's secret, decoded from base64. There may be several, with spaces between them: one must be right.",
            json!({"type": "string", "pattern": "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$"}),
            "v1,4hdzCAORqAMlvaJllHnRb5qcyCAtvT7GkfcoAdyXPfU=",
        ),
    ])
}

/// Of a group, with what was said; and of a direct chat where it is not shown.
fn examples() -> [Value; 2] {
    let ana = UserId(Uuid::from_u128(0x5b1f_90c3_77aa_4d02_8e51_c0de_0000_000a));
    let chat = ChatId(Uuid::from_u128(0x9d07_31f2_c5a8_4b66_b1e4_c0de_0000_c4a7));
    let recipients = [Recipient {
        user: UserId(Uuid::from_u128(0x2c44_e8d0_16b9_4f73_9a3e_c0de_0000_000b)),
        first: 788,
        last: 790,
        count: 3,
        mentioned: false,
    }];
    let message = UnseenMessage {
        id: MessageId(Uuid::from_u128(0x40aa_1d9e_f302_4c8b_8f17_c0de_0000_3e55)),
        number: 790,
        from: ana,
        from_name: Some("Ana"),
        kind: MessageKind::Text,
        body: Some("See you at eight"),
        created_at: Millis(1_795_252_554_120),
    };
    let event = |chat, message| MessagesUnseen {
        kind: EventKind::MessagesUnseen,
        timestamp: Millis(1_795_252_900_000),
        data: UnseenData { chat, message, recipients: &recipients },
    };
    let group = UnseenChat { id: chat, kind: ChatKind::Group, name: Some("Choir") };
    let direct = UnseenChat { kind: ChatKind::Direct, name: None, ..group.clone() };
    let hidden = UnseenMessage { body: None, ..message.clone() };
    // What cannot be written is shown as nothing, which no schema allows: a test holds every example against its own.
    [event(group, message), event(direct, hidden)]
        .map(|event| serde_json::to_value(event).unwrap_or_default())
}
