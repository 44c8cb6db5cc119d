//! Many changes at random, in batches of any size, against a model of a few lines.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    Fixture, Scribe,
    scribe::{edited, group},
};
use crate::{
    ids::{ChatId, UserId},
    model::{Message, Reaction, Role},
    store::Range,
    time::Millis,
    wire::record::{Change, What},
};

/// What a chat's rows must be.
#[derive(Default)]
struct Model {
    messages: Vec<Message>,
    /// In order of joining: who, as what, the newest message then, the newest one written or read.
    members: Vec<(UserId, Role, u64, u64)>,
}

impl Model {
    fn take(&mut self, change: &Change) {
        let newest = self.messages.len() as u64;
        match &change.what {
            What::Created { members, .. } | What::Members { members } => {
                self.members.extend(members.iter().map(|(user, role)| (*user, *role, newest, 0)));
            }
            What::Joined { user, role } => self.members.push((*user, *role, newest, 0)),
            What::Left { user, heir } => {
                self.members.retain(|member| member.0 != *user);
                for member in self.members.iter_mut().filter(|member| Some(member.0) == *heir) {
                    member.1 = Role::Owner;
                }
            }
            What::Sent { number, .. } => {
                self.messages.push(change.message().unwrap());
                for member in self.members.iter_mut().filter(|member| member.0 == change.by) {
                    member.3 = *number;
                }
            }
            What::Edited { message } => self.messages[message.number as usize - 1] = (**message).clone(),
            What::Reacted { number, reactions, .. } => {
                self.messages[*number as usize - 1].reactions.clone_from(reactions);
            }
            What::Erased { number } => {
                let message = &mut self.messages[*number as usize - 1];
                message.reactions = Vec::new();
                (message.body, message.attachments, message.deleted) = (String::new(), Vec::new(), true);
            }
            What::Roles { roles } => {
                for (user, role) in roles {
                    for member in self.members.iter_mut().filter(|member| member.0 == *user) {
                        member.1 = *role;
                    }
                }
            }
            What::Updated { .. } | What::Deleted => {}
        }
    }
}

/// A change that its chat's owner could have accepted.
fn any(scribe: &mut Scribe, rng: &mut StdRng, chat: ChatId, model: &Model, users: &[UserId]) -> Change {
    let by = model.members.choose(rng).map_or(users[0], |member| member.0);
    let outside = users.iter().find(|user| model.members.iter().all(|member| member.0 != **user));
    let standing: Vec<&Message> = model.messages.iter().filter(|message| !message.deleted).collect();
    let what = match (rng.random_range(0..12), outside, standing.choose(rng)) {
        (0, Some(user), _) => What::Joined { user: *user, role: Role::Member },
        (1, Some(user), _) => What::Members { members: vec![(*user, Role::Admin)] },
        (2, ..) if model.members.len() > 1 => {
            let heir = model.members.iter().map(|member| member.0).find(|user| *user != by);
            What::Left { user: by, heir: heir.filter(|_| rng.random()) }
        }
        (3, _, Some(message)) => edited(message, "edited", scribe.now),
        (4, _, Some(message)) => What::Erased { number: message.number },
        (11, _, Some(message)) => {
            let reactions = vec![Reaction { emoji: "+".into(), count: scribe.now as u64, users: vec![by] }];
            What::Reacted { number: message.number, emoji: "+".into(), on: rng.random(), reactions }
        }
        (10, ..) => {
            let role = [Role::Member, Role::Admin, Role::Owner].choose(rng).copied().unwrap_or_default();
            What::Roles { roles: vec![(by, role)] }
        }
        (5, ..) => What::Updated { name: Some("name".into()), description: None, retention: None },
        _ => {
            let name = rng.random::<bool>().then(|| format!("{}", scribe.now));
            return scribe.named(chat, by, "body", name.as_deref());
        }
    };
    scribe.change(chat, by, what)
}

pub async fn rows_are_what_a_simple_model_says(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let users: Vec<UserId> = (0..6).map(|_| UserId::random()).collect();
        let mut models: BTreeMap<ChatId, Model> = BTreeMap::new();
        let chats: Vec<ChatId> = (0..5).map(|_| ChatId::random()).collect();
        let mut batch = Vec::new();
        for _ in 0..400 {
            let chat = chats[rng.random_range(0..chats.len())];
            let change = match models.get(&chat) {
                Some(model) => any(&mut scribe, &mut rng, chat, model, &users),
                None => scribe.change(chat, users[0], group(None, &users[..rng.random_range(1..4)])),
            };
            models.entry(chat).or_default().take(&change);
            batch.push(change);
            if rng.random_range(0..40) == 0 {
                scribe.write(std::mem::take(&mut batch)).await;
            }
        }
        scribe.write(batch).await;
        for (chat, model) in &models {
            agrees(&scribe, *chat, model, seed).await;
        }
    }
}

async fn agrees(scribe: &Scribe, chat: ChatId, model: &Model, seed: u64) {
    let key = scribe.key(chat);
    let slice = scribe.store.history(key, Range::After(0), 10_000).await.unwrap().unwrap();
    assert_eq!(slice.messages.len(), model.messages.len(), "seed {seed}");
    for (row, message) in slice.messages.iter().zip(&model.messages) {
        assert_eq!(row, message, "seed {seed}");
    }
    assert_eq!(slice.head, scribe.head(chat), "seed {seed}");
    let ids: Vec<_> = model.messages.iter().map(|message| (message.number, message.id)).collect();
    assert_eq!(scribe.store.message_ids(key, 0, 10_000).await.unwrap(), ids, "seed {seed}");
    let loaded = scribe.store.load(&[key]).await.unwrap().answer.remove(0);
    let members: Vec<_> = loaded.members.iter().map(|member| (member.user, member.role)).collect();
    let expected: Vec<_> = model.members.iter().map(|member| (member.0, member.1)).collect();
    assert_eq!(members, expected, "seed {seed}");
    let newest = model.messages.len() as u64;
    for (user, _, joined, read) in &model.members {
        let view = scribe.store.chat_view(key, *user).await.unwrap().unwrap();
        assert_eq!(view.unread_count, newest - joined.max(read), "seed {seed}");
        assert_eq!(view.members_count, model.members.len() as u64, "seed {seed}");
        assert_eq!(view.last_message.map(|message| message.number), (newest > 0).then_some(newest));
        assert!(view.created_at > Millis(0));
    }
}
