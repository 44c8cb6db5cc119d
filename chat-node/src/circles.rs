//! Groups made from social circles (CH-9): a degree, a course, a class, as the system that knows them has them. Said again, the same list
//! changes nothing; said otherwise, the groups become what it says.
//!
//! A circle's group has an id made from the circle's name, so it exists once, whoever says it first. What differs is asked of its owner,
//! change by change, like anything else: a list that was broken off, be it in the midst of making a group, is said again, and goes on.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::{
    ids::{AppId, ChatId, ChatKey, ClientId, UserId},
    model::limits,
    problem::Problem,
    store::{ChatRow, group_fingerprint},
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
use tokio::time::Instant;

use crate::{
    check::Checks,
    commands::{Commands, USERS_PER_QUERY, after_writing, undone},
};

/// Circles in one request: at some 50 ms each they are done well within a request's time.
pub const CIRCLES: usize = 100;

/// How long members are asked to come and go, each by a record of their own. With an ask that has just begun, which takes 5 s at most, it is within
/// the 15 s of a request.
const WITHIN: Duration = Duration::from_secs(8);

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
    /// Everybody in it; the first one owns the group when it is made. Who was erased is left out, and may stand in it for ever.
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
    /// Who is in the list, was a user, and was erased: they stay out.
    pub(crate) left_out: usize,
}

/// What a group that is there needs.
struct Difference {
    renamed: bool,
    described: bool,
    added: Vec<UserId>,
    removed: Vec<UserId>,
}

impl Difference {
    fn between(row: &ChatRow, circle: &Circle) -> Self {
        let wanted: HashSet<UserId> = circle.members.iter().copied().collect();
        let present: HashSet<UserId> = row.members.iter().map(|member| member.user).collect();
        Self {
            renamed: row.name.as_ref() != Some(&circle.name),
            described: circle.description.is_some()
                && row.description.as_deref().unwrap_or_default()
                    != circle.description.as_deref().unwrap_or_default(),
            added: circle.members.iter().copied().filter(|user| !present.contains(user)).collect(),
            removed: present.difference(&wanted).copied().collect(),
        }
    }
}

impl Commands {
    /// Makes the groups of an application be these circles. Groups of circles that are not named stay as they are.
    ///
    /// # Errors
    /// `invalid`, `conflict` for a circle whose group was deleted, `retry_later`, `unknown`: some of it may be done, and what is left is when it is
    /// said again.
    pub async fn settle(&self, caller: &Caller, mut circles: Vec<Circle>) -> Result<Vec<Settled>, Problem> {
        let until = Instant::now() + WITHIN;
        check(&circles)?;
        let keys: Vec<ChatKey> = circles
            .iter()
            .map(|circle| ChatKey { app: caller.app, chat: id(caller.app, &circle.key) })
            .collect();
        let rows = self.store().load(&keys).await?.answer.into_iter();
        let mut rows: HashMap<ChatKey, ChatRow> = rows.map(|row| (row.key, row)).collect();
        // First whatever can be found wrong before anything is done.
        for (at, key) in keys.iter().enumerate() {
            if rows.get(key).is_some_and(|row| row.deleted) {
                let why = format!("circles[{at}]: its group was deleted: give the circle another key");
                return Err(Problem::new(ErrorCode::Conflict, why));
            }
        }
        let mut checks = Checks::default();
        let mut left_out = Vec::with_capacity(circles.len());
        for ((at, circle), key) in circles.iter_mut().enumerate().zip(&keys) {
            let newcomers = match rows.get(key) {
                Some(row) => Difference::between(row, circle).added,
                None => circle.members.clone(),
            };
            let erased = self.who_was_erased(caller, at, circle, &newcomers, &mut checks).await?;
            circle.members.retain(|user| !erased.contains(user));
            left_out.push(erased.len());
        }
        checks.done()?;
        let (mut settled, mut continued) = (Vec::with_capacity(circles.len()), Vec::new());
        for ((circle, key), left_out) in circles.iter().zip(&keys).zip(left_out) {
            let row = rows.get(key);
            let mut made = false;
            if row.is_none_or(|row| is_being_made(row, circle)) {
                let Circle { key: _, name, description, members } = circle.clone();
                let ask = Ask::CreateGroup { name: Some(name), description, members, first: None };
                made = match self.ask_for_group(caller, key.chat, true, ask).await {
                    Answer::Created { made, .. } => made,
                    other => return Err(undone(other)),
                };
                continued.extend(row.map(|row| row.key));
            }
            let (key, chat) = (circle.key.clone(), key.chat);
            settled.push(Settled { key, chat, made, renamed: false, added: 0, removed: 0, left_out });
        }
        if !continued.is_empty() {
            // All of it is stored by now, and whatever else became of it meanwhile.
            let rows_now =
                self.store().load(&continued).await.map_err(|error| after_writing(error.into()))?;
            rows.extend(rows_now.answer.into_iter().map(|row| (row.key, row)));
        }
        for ((circle, key), done) in circles.iter().zip(&keys).zip(&mut settled) {
            let Some(row) = rows.remove(key) else { continue };
            let difference = Difference::between(&row, circle);
            done.renamed = difference.renamed;
            (done.added, done.removed) = (difference.added.len(), difference.removed.len());
            self.become_equal(caller, key.chat, circle, difference, until).await?;
        }
        Ok(settled)
    }

    /// Those of `newcomers`, who are to come into the circle at `at`, who were users once: whoever keeps the list need not hear of each who goes. Who
    /// never was a user is a mistake in the list.
    async fn who_was_erased(
        &self,
        caller: &Caller,
        at: usize,
        circle: &Circle,
        newcomers: &[UserId],
        checks: &mut Checks,
    ) -> Result<HashSet<UserId>, Problem> {
        let (mut erased, mut strangers) = (HashSet::new(), HashSet::new());
        for chunk in newcomers.chunks(USERS_PER_QUERY) {
            let known = self.store().users(caller.app, chunk).await?;
            if known.len() == chunk.len() {
                continue;
            }
            let known: HashSet<UserId> = known.into_iter().map(|user| user.id).collect();
            let others: Vec<UserId> = chunk.iter().copied().filter(|user| !known.contains(user)).collect();
            erased.extend(self.store().erased(caller.app, &others).await?);
            strangers.extend(others.into_iter().filter(|user| !erased.contains(user)));
        }
        if !strangers.is_empty() {
            for (nth, _) in circle.members.iter().enumerate().filter(|(_, user)| strangers.contains(user)) {
                checks.wrong(format!("circles[{at}].members[{nth}]"), "there is no such user");
            }
        }
        Ok(erased)
    }

    async fn become_equal(
        &self,
        caller: &Caller,
        chat: ChatId,
        circle: &Circle,
        to: Difference,
        until: Instant,
    ) -> Result<(), Problem> {
        if to.renamed || to.described {
            let name = to.renamed.then(|| circle.name.clone());
            let description = circle.description.clone().filter(|_| to.described);
            self.change(caller, chat, Ask::Update { name, description, retention: None }).await?;
        }
        // Who comes in first may inherit from who goes.
        let joins = to.added.into_iter().map(|user| Ask::AddMember { user });
        let leaves = to.removed.into_iter().map(|user| Ask::RemoveMember { user });
        for asks in [joins.collect::<Vec<_>>(), leaves.collect()] {
            let asked = stream::iter(asks).map(|ask| async {
                if Instant::now() >= until {
                    return Err(unfinished());
                }
                match self.change(caller, chat, ask).await {
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

/// Whether the store has a part of the group only: a try to make it broke off, or another one is about to. Its members come a thousand a record, by
/// the same request ([`Ask::CreateGroup`]), and one by one they would come for minutes.
fn is_being_made(row: &ChatRow, circle: &Circle) -> bool {
    let records = circle.members.len().div_ceil(limits::MEMBERS_PER_RECORD).max(1) as u64;
    let request =
        || group_fingerprint(Some(&circle.name), circle.description.as_deref(), &circle.members, None);
    row.makings < records && row.request == Some(request())
}

/// So many come and go that they do not in the time of a request: those who did are not asked for again.
fn unfinished() -> Problem {
    Problem {
        retry_after_ms: Some(1_000),
        ..Problem::new(ErrorCode::Unknown, "some of it is done: say it again, and the rest will be")
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
