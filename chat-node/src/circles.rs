//! Groups made from social circles (CH-9): a degree, a course, a class, as the system that knows them has them. Said again, the same list
//! changes nothing; said otherwise, the groups become what it says.
//!
//! A circle's group has an id made from the circle's name, so it exists once, whoever says it first. What differs is asked of its owner,
//! change by change, like anything else: a list that was broken off is said again, and goes on.

use std::collections::HashSet;

use common::{
    ids::{AppId, ChatId, ChatKey, ClientId, UserId},
    model::limits,
    problem::Problem,
    token::Caller,
    wire::{
        client::FieldError,
        codes::ErrorCode,
        owner::{Answer, Ask},
    },
};
use futures_util::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    check::Checks,
    commands::{Commands, undone},
};

/// Circles in one request: at some 50 ms each they are done well within a request's time.
pub const CIRCLES: usize = 100;

/// Members who come or go in one request, over all its circles, besides those of groups that are made: each is a record. A list that changes
/// more is said in parts.
pub const CHANGES: usize = 2_000;

/// Changes of one group under way at once: half of what may wait for one chat.
const TOGETHER: usize = 32;

/// A circle as it is to be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Circle {
    /// What it is called where it comes from; it names the group for ever.
    pub key: ClientId,
    /// The group's name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Everybody in it; the first one owns the group when it is made.
    pub members: Vec<UserId>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Settled {
    pub(crate) key: ClientId,
    pub(crate) chat: ChatId,
    pub(crate) made: bool,
    pub(crate) renamed: bool,
    pub(crate) added: usize,
    pub(crate) removed: usize,
}

/// What a group that is there needs.
struct Difference {
    at: usize,
    chat: ChatId,
    renamed: bool,
    described: bool,
    added: Vec<UserId>,
    removed: Vec<UserId>,
}

impl Commands {
    /// Makes the groups of an application be these circles. Groups of circles that are not named stay as they are.
    ///
    /// # Errors
    /// `invalid`, `too_large`, `conflict` for a circle whose group was deleted, `retry_later`, `unknown`: some of it may be done, and it may
    /// be said again.
    pub async fn settle(&self, caller: &Caller, circles: Vec<Circle>) -> Result<Vec<Settled>, Problem> {
        check(&circles)?;
        let ids: Vec<ChatId> = circles.iter().map(|circle| id(caller.app, &circle.key)).collect();
        let keys: Vec<ChatKey> = ids.iter().map(|chat| ChatKey { app: caller.app, chat: *chat }).collect();
        let rows = self.store().load(&keys).await?.answer;
        let (mut settled, mut differences) = (Vec::with_capacity(circles.len()), Vec::new());
        for (at, (circle, chat)) in circles.iter().zip(&ids).enumerate() {
            let row = rows.iter().find(|row| row.key.chat == *chat);
            let mut done = Settled {
                key: circle.key.clone(),
                chat: *chat,
                made: row.is_none(),
                renamed: false,
                added: 0,
                removed: 0,
            };
            if let Some(row) = row {
                if row.deleted {
                    let why = format!("circles[{at}]: its group was deleted: give the circle another key");
                    return Err(Problem::new(ErrorCode::Conflict, why));
                }
                let wanted: HashSet<UserId> = circle.members.iter().copied().collect();
                let present: HashSet<UserId> = row.members.iter().map(|member| member.user).collect();
                let difference = Difference {
                    at,
                    chat: *chat,
                    renamed: row.name.as_ref() != Some(&circle.name),
                    described: circle.description.is_some()
                        && row.description.as_deref().unwrap_or_default()
                            != circle.description.as_deref().unwrap_or_default(),
                    added: circle.members.iter().copied().filter(|user| !present.contains(user)).collect(),
                    removed: present.difference(&wanted).copied().collect(),
                };
                done.renamed = difference.renamed;
                (done.added, done.removed) = (difference.added.len(), difference.removed.len());
                differences.push(difference);
            }
            settled.push(done);
        }
        let changes: usize = settled.iter().map(|done| done.added + done.removed).sum();
        if changes > CHANGES {
            let why =
                format!("{changes} members come and go, and {CHANGES} may in one request: say it in parts");
            return Err(Problem::new(ErrorCode::TooLarge, why));
        }
        // First whatever can be found wrong before anything is done.
        for difference in &differences {
            self.users_exist(caller, "members", &difference.added).await?;
        }
        for (circle, _) in circles.iter().zip(&settled).filter(|(_, done)| done.made) {
            self.users_exist(caller, "members", &circle.members).await?;
        }
        for (circle, done) in circles.iter().zip(&mut settled).filter(|(_, done)| done.made) {
            let Circle { key: _, name, description, members } = circle.clone();
            let ask = Ask::CreateGroup { name: Some(name), description, members, first: None };
            done.made = match self.ask_for_group(caller, done.chat, true, ask).await {
                Answer::Created { made, .. } => made,
                other => return Err(undone(other)),
            };
        }
        for difference in differences {
            let Some(circle) = circles.get(difference.at) else { continue };
            self.become_equal(caller, circle, difference).await?;
        }
        Ok(settled)
    }

    async fn become_equal(&self, caller: &Caller, circle: &Circle, to: Difference) -> Result<(), Problem> {
        if to.renamed || to.described {
            let name = to.renamed.then(|| circle.name.clone());
            let description = circle.description.clone().filter(|_| to.described);
            self.change(caller, to.chat, Ask::Update { name, description, retention: None }).await?;
        }
        // Who comes in first may inherit from who goes.
        let joins = to.added.into_iter().map(|user| Ask::AddMember { user });
        let leaves = to.removed.into_iter().map(|user| Ask::RemoveMember { user });
        for asks in [joins.collect::<Vec<_>>(), leaves.collect()] {
            let asked = stream::iter(asks).map(|ask| async {
                match self.change(caller, to.chat, ask).await {
                    // Whoever has left meanwhile is not there, as it is to be.
                    Err(problem) if problem.code != ErrorCode::NotFound => Err(problem),
                    _ => Ok(()),
                }
            });
            asked.buffer_unordered(TOGETHER).try_collect::<()>().await?;
        }
        Ok(())
    }
}

/// The id of a circle's group.
fn id(app: AppId, key: &ClientId) -> ChatId {
    ChatId::keyed(app, UserId::APPLICATION, &format!("circle/{key}"))
}

fn check(circles: &[Circle]) -> Result<(), Problem> {
    if circles.len() > CIRCLES {
        return Err(Problem::invalid(FieldError::body("circles", format!("must be at most {CIRCLES}"))));
    }
    let (mut checks, mut keys) = (Checks::default(), HashSet::new());
    for (at, circle) in circles.iter().enumerate() {
        let field = |name: &str| format!("circles[{at}].{name}");
        if !keys.insert(&circle.key) {
            checks.wrong(field("key"), "is named twice");
        }
        checks.text(&field("name"), &circle.name, 1, limits::NAME_CHARS);
        if let Some(description) = &circle.description {
            checks.text(&field("description"), description, 0, limits::DESCRIPTION_CHARS);
        }
        if circle.members.len() > limits::MEMBERS {
            checks.wrong(field("members"), format!("must be at most {}", limits::MEMBERS));
        }
        if circle.members.iter().collect::<HashSet<_>>().len() != circle.members.len() {
            checks.wrong(field("members"), "somebody is named twice");
        }
    }
    checks.done()
}
