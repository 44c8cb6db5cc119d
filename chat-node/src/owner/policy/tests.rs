//! The table of who may what, row by row (CH-4).

use std::sync::Arc;

use bytes::Bytes;
use common::{
    ids::{AppId, ChatId},
    model::MessageKind,
    wire::record::Change,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{super::chat::Kept, *};

const OWNER: UserId = UserId(Uuid::from_u128(1));
const ADMIN: UserId = UserId(Uuid::from_u128(2));
const MEMBER: UserId = UserId(Uuid::from_u128(3));
const OTHER_ADMIN: UserId = UserId(Uuid::from_u128(4));
const OTHER_MEMBER: UserId = UserId(Uuid::from_u128(5));
const STRANGER: UserId = UserId(Uuid::from_u128(9));

/// Whoever may ask, in the order of a row.
const CALLERS: [(&str, UserId); 4] =
    [("a stranger", STRANGER), ("a member", MEMBER), ("an admin", ADMIN), ("the owner", OWNER)];

fn made(kind: ChatKind, members: &[(UserId, Role)]) -> Chat {
    let what = What::Created {
        kind,
        name: Some("Course".into()),
        description: None,
        members: members.to_vec(),
        request: None,
    };
    let change = Change {
        app: AppId::DEFAULT,
        chat: ChatId::random(),
        term: 1,
        n: 1,
        seq: 1,
        at: Millis(1),
        by: OWNER,
        what,
    };
    let mut chat = Chat::begin(&change, Instant::now()).unwrap();
    apply(&mut chat, change);
    chat
}

fn apply(chat: &mut Chat, change: Change) {
    let offset = change.seq;
    chat.apply(Kept { offset, change: Arc::new(change), payload: Bytes::new() }, Instant::now());
    chat.confirm_all();
}

fn then(chat: &mut Chat, by: UserId, what: What) {
    let (seq, at) = (chat.head.seq + 1, Millis(2));
    apply(chat, Change { app: AppId::DEFAULT, chat: ChatId::random(), term: 1, n: seq, seq, at, by, what });
}

fn group() -> Chat {
    let members = [
        (OWNER, Role::Owner),
        (MEMBER, Role::Member),
        (ADMIN, Role::Admin),
        (OTHER_MEMBER, Role::Member),
        (OTHER_ADMIN, Role::Admin),
    ];
    made(ChatKind::Group, &members)
}

fn draft() -> Draft {
    Draft {
        client_id: None,
        body: "hello".into(),
        kind: MessageKind::Text,
        reply_to: None,
        attachments: Vec::new(),
        mentions: Vec::new(),
        mention_all: false,
        retry: false,
    }
}

fn message(from: UserId) -> Message {
    let chat = ChatId::random();
    Message {
        id: MessageId::random(),
        chat,
        room_id: chat,
        number: 1,
        from,
        body: "hello".into(),
        kind: MessageKind::Text,
        created_at: Millis(1),
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

fn written(from: UserId, deleted: bool) -> Written {
    Written { from, deleted }
}

/// What becomes of an act: `Y` it is appended, `=` it is so already, `-` forbidden, `0` there is no such chat (or member).
fn outcome(decision: Result<Decision, Refusal>) -> char {
    match decision {
        Ok(Decision::Append(_)) => 'Y',
        Ok(Decision::Already | Decision::Made) => '=',
        Err(Refusal { code: ErrorCode::Forbidden, .. }) => '-',
        Err(Refusal { code: ErrorCode::NotFound, .. }) => '0',
        Err(refusal) => panic!("{refusal:?}"),
    }
}

type Act = fn(&Chat, UserId) -> Result<Decision, Refusal>;

/// An act, and what becomes of it when a stranger, a member, an admin and the owner ask for it.
const TABLE: &[(&str, &str, Act)] = &[
    ("write", "0YYY", |chat, by| send(chat, by, &draft(), MessageId::random()).map(Decision::Append)),
    ("edit one's own", "0YYY", |chat, by| edit(chat, by, Some(message(by)), "new", Millis(2))),
    ("edit another's", "0-YY", |chat, by| edit(chat, by, Some(message(OTHER_MEMBER)), "new", Millis(2))),
    ("answer one's own", "0YYY", |chat, by| react(chat, by, Some(message(by)), "+", true, false)),
    ("answer another's", "0YYY", |chat, by| react(chat, by, Some(message(OTHER_MEMBER)), "+", true, false)),
    ("answer it once more", "0===", |chat, by| react(chat, by, Some(message(OTHER_MEMBER)), "+", true, true)),
    ("take back what is not there", "0===", |chat, by| react(chat, by, Some(message(by)), "+", false, false)),
    ("answer no message", "0000", |chat, by| react(chat, by, None, "+", true, false)),
    ("delete one's own", "0YYY", |chat, by| erase(chat, by, 1, Some(written(by, false)))),
    ("delete another's", "0-YY", |chat, by| erase(chat, by, 1, Some(written(OTHER_MEMBER, false)))),
    ("delete one's own once more", "0===", |chat, by| erase(chat, by, 1, Some(written(by, true)))),
    ("delete another's once more", "0-==", |chat, by| erase(chat, by, 1, Some(written(OTHER_MEMBER, true)))),
    ("name the group", "0-YY", |chat, by| update(chat, by, Some(&"New".to_owned()), None, None)),
    ("describe the group", "0-YY", |chat, by| update(chat, by, None, Some(&"New".to_owned()), None)),
    ("say how long messages are kept (me_9)", "0-YY", |chat, by| {
        update(chat, by, None, None, Some(Retention::UntilRead))
    }),
    ("let somebody in", "0-YY", |chat, by| add_member(chat, by, UserId::random())),
    ("let a member in once more", "0-==", |chat, by| add_member(chat, by, OTHER_MEMBER)),
    ("let somebody in as a member", "0-YY", |chat, by| set_role(chat, by, UserId::random(), Role::Member)),
    ("let somebody in as an admin", "0--Y", |chat, by| set_role(chat, by, UserId::random(), Role::Admin)),
    ("let somebody in as the owner", "0---", |chat, by| set_role(chat, by, UserId::random(), Role::Owner)),
    ("name a member an admin", "0--Y", |chat, by| set_role(chat, by, OTHER_MEMBER, Role::Admin)),
    ("name an admin an admin", "0-==", |chat, by| set_role(chat, by, OTHER_ADMIN, Role::Admin)),
    ("un-name an admin", "0--Y", |chat, by| set_role(chat, by, OTHER_ADMIN, Role::Member)),
    ("make a member a member", "0-==", |chat, by| set_role(chat, by, OTHER_MEMBER, Role::Member)),
    ("hand over to a member", "0--Y", |chat, by| set_role(chat, by, OTHER_MEMBER, Role::Owner)),
    ("hand over to an admin", "0--Y", |chat, by| set_role(chat, by, OTHER_ADMIN, Role::Owner)),
    ("make the owner a member", "0---", |chat, by| set_role(chat, by, OWNER, Role::Member)),
    ("make oneself a member", "0=Y-", |chat, by| set_role(chat, by, by, Role::Member)),
    ("make oneself an admin", "0-=-", |chat, by| set_role(chat, by, by, Role::Admin)),
    ("make oneself the owner", "0--=", |chat, by| set_role(chat, by, by, Role::Owner)),
    ("remove a member", "0-YY", |chat, by| remove_member(chat, by, OTHER_MEMBER, false)),
    ("remove an admin", "0--Y", |chat, by| remove_member(chat, by, OTHER_ADMIN, false)),
    ("remove the owner", "0--Y", |chat, by| remove_member(chat, by, OWNER, false)),
    ("remove who is no member", "0000", |chat, by| remove_member(chat, by, UserId::random(), false)),
    ("leave", "0YYY", |chat, by| remove_member(chat, by, by, false)),
    ("delete the group", "0--Y", |chat, by| delete_chat(chat, by, false)),
];

#[test]
fn who_may_what_in_a_group_is_the_table_ch_4() {
    let chat = group();
    for (act, expected, ask) in TABLE {
        for ((who, by), expected) in CALLERS.iter().zip(expected.chars()) {
            assert_eq!(outcome(ask(&chat, *by)), expected, "{who} asks to {act}");
        }
    }
}

#[test]
fn nothing_of_it_is_allowed_in_a_group_that_was_deleted_ch_4() {
    let mut chat = group();
    then(&mut chat, OWNER, What::Deleted);
    for (act, _, ask) in TABLE {
        for (who, by) in CALLERS.iter().filter(|(_, by)| *by != STRANGER) {
            assert_eq!(outcome(ask(&chat, *by)), '0', "{who} asks to {act}");
        }
    }
}

#[test]
fn in_a_direct_chat_nobody_is_named_let_in_or_removed_ch_4() {
    let chat = made(ChatKind::Direct, &[(OWNER, Role::Member), (MEMBER, Role::Member)]);
    let acts: &[Act] = &[
        |chat, by| set_role(chat, by, OWNER, Role::Admin),
        |chat, by| set_role(chat, by, STRANGER, Role::Member),
        |chat, by| add_member(chat, by, STRANGER),
        |chat, by| remove_member(chat, by, by, false),
        |chat, by| update(chat, by, Some(&"New".to_owned()), None, None),
        |chat, by| delete_chat(chat, by, false),
    ];
    for act in acts {
        assert_eq!(outcome(act(&chat, MEMBER)), '-');
        assert_eq!(outcome(act(&chat, STRANGER)), '0');
    }
}

#[test]
fn a_group_that_is_handed_over_has_one_owner_and_the_old_one_is_an_admin_ch_4() {
    let mut chat = group();
    let Ok(Decision::Append(what)) = set_role(&chat, OWNER, MEMBER, Role::Owner) else {
        panic!("not decided")
    };
    assert_eq!(what, What::Roles { roles: vec![(MEMBER, Role::Owner), (OWNER, Role::Admin)] });
    then(&mut chat, OWNER, what);
    let owners = chat.members.values().filter(|member| member.role == Role::Owner).count();
    assert_eq!(
        (owners, chat.members[&MEMBER].role, chat.members[&OWNER].role),
        (1, Role::Owner, Role::Admin)
    );
    assert_eq!(outcome(delete_chat(&chat, OWNER, false)), '-');
    assert_eq!(outcome(delete_chat(&chat, MEMBER, false)), 'Y');
    // An admin may stop being one.
    let Ok(Decision::Append(what)) = set_role(&chat, OWNER, OWNER, Role::Member) else {
        panic!("not decided")
    };
    then(&mut chat, OWNER, what);
    assert_eq!(outcome(add_member(&chat, OWNER, STRANGER)), '-');
}

#[test]
fn the_heir_of_an_owner_is_the_oldest_admin_and_else_the_oldest_member_ch_4() {
    let mut chat = group();
    for heir in [Some(ADMIN), Some(OTHER_ADMIN), Some(MEMBER), Some(OTHER_MEMBER), None] {
        let owner = chat.members.iter().find(|(_, member)| member.role == Role::Owner).map(|(user, _)| *user);
        let owner = owner.unwrap();
        let Ok(Decision::Append(what)) = remove_member(&chat, owner, owner, false) else { panic!("stays") };
        assert_eq!(what, What::Left { user: owner, heir });
        then(&mut chat, owner, what);
    }
}

/// What a message is answered with after this.
fn reacted(mut before: Message, by: UserId, emoji: &str, on: bool) -> Message {
    let chat = group();
    match react(&chat, by, Some(before.clone()), emoji, on, !on) {
        Ok(Decision::Append(What::Reacted { reactions, .. })) => before.reactions = reactions,
        other => panic!("{other:?}"),
    }
    before
}

#[test]
fn reactions_are_counted_by_emoji_and_show_some_of_their_users_me_8() {
    let mut answered = message(OWNER);
    for (by, emoji) in [(OWNER, "+"), (ADMIN, "-"), (MEMBER, "+")] {
        answered = reacted(answered, by, emoji, true);
    }
    let of = |message: &Message| {
        let each = |reaction: &Reaction| (reaction.emoji.clone(), reaction.count, reaction.users.clone());
        message.reactions.iter().map(each).collect::<Vec<_>>()
    };
    let expected = [("+".to_owned(), 2, vec![OWNER, MEMBER]), ("-".to_owned(), 1, vec![ADMIN])];
    assert_eq!(of(&answered), expected);
    answered = reacted(answered, OWNER, "+", false);
    answered = reacted(answered, ADMIN, "-", false);
    assert_eq!(of(&answered), [("+".to_owned(), 1, vec![MEMBER])]);
    // However many they are, a record holds no more than so many of them.
    answered.reactions[0].count = 40_000;
    answered.reactions[0].users = (0..limits::REACTION_USERS).map(|_| UserId::random()).collect();
    answered = reacted(answered, OWNER, "+", true);
    assert_eq!(
        (answered.reactions[0].count, answered.reactions[0].users.len()),
        (40_001, limits::REACTION_USERS)
    );
}

#[test]
fn a_message_has_so_many_different_emoji_me_8() {
    let mut answered = message(OWNER);
    for n in 0..limits::REACTIONS {
        answered = reacted(answered, OWNER, &format!("e{n}"), true);
    }
    let chat = group();
    let one_more = react(&chat, ADMIN, Some(answered.clone()), "another", true, false);
    assert_eq!(one_more.unwrap_err().code, ErrorCode::TooLarge);
    let known = react(&chat, ADMIN, Some(answered), "e3", true, false);
    assert!(matches!(known, Ok(Decision::Append(_))));
}

#[test]
fn who_is_no_member_is_not_mentioned_me_8() {
    let chat = group();
    let named = Draft { mentions: vec![MEMBER, STRANGER, ADMIN], mention_all: true, ..draft() };
    match send(&chat, OWNER, &named, MessageId::random()) {
        Ok(What::Sent { mentions, mention_all, .. }) => {
            assert_eq!((mentions, mention_all), (vec![MEMBER, ADMIN], true))
        }
        other => panic!("{other:?}"),
    }
}
