//! Notifications of those who were away: what was chosen, who is to be told, and what is on its way to whom.
//!
//! One row for a chat says that it has messages nobody was notified of yet ([`Waiting`]); the writer's transaction puts it there, unless it
//! is there already, for chats of applications that have an endpoint. When the oldest of these messages has waited long enough, the chat's members are
//! looked through, a page at a time: what each page leads to is written in one transaction with the row, so that nobody is told twice
//! and nobody is left out, whoever dies in between. Who is not to be disturbed now has a row of their own ([`Held`]).
//!
//! What is to be sent is a queue per endpoint. One sender at a time has an endpoint, for as long as its lease.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Result;
use crate::{
    applications::NotificationSettings,
    ids::{AppId, ChatKey, EndpointId, Number, Partition, SessionId, UserId, UserKey},
    model::{Page, PageRequest},
    notifications::{ChatPreferences, Delivery, DeliveryState, Endpoint, Preferences, Target, WebhookChange},
    time::Millis,
};

/// Webhooks that one application may have.
pub const WEBHOOKS: u64 = 10;

/// Browsers of one user. One more takes the place of the oldest.
pub const SUBSCRIPTIONS: u64 = 20;

/// What waits for one webhook: some hours of a busy application, which its server takes in some minutes when it is back. What comes up
/// meanwhile is given up at once.
pub const PENDING_WEBHOOK: u64 = 10_000;

/// What waits for one browser: nobody reads more on coming back.
pub const PENDING_BROWSER: u64 = 100;

/// The newest deliveries of an endpoint, which are listed: counting all of a week would take seconds.
pub const DELIVERIES_LISTED: u64 = 100_000;

/// What becomes of an endpoint that is to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointAdded {
    /// It is there.
    Added,
    /// The application has [`WEBHOOKS`] already.
    Full,
    /// There is no such application, user or sign-in (any more).
    Nobody,
}

/// What users and applications choose.
#[async_trait]
pub trait Notifications: Send + Sync {
    /// What the user has chosen; the default when nothing.
    async fn preferences(&self, user: UserKey) -> Result<Preferences>;

    /// Chooses; `false` when there is no such user (any more). Who is held is to be told by now ([`Notify::look_again_at`]), after what was chosen
    /// is there: it may be quiet no more.
    async fn set_preferences(&self, user: UserKey, preferences: &Preferences) -> Result<bool>;

    /// What the user has chosen for a chat; none when the store does not show them in it.
    async fn chat_preferences(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatPreferences>>;

    /// Chooses; `false` when the store does not show the user in the chat. What was chosen ends when they leave, or the chat does.
    async fn set_chat_preferences(
        &self,
        chat: ChatKey,
        user: UserId,
        preferences: &ChatPreferences,
    ) -> Result<bool>;

    /// Adds an endpoint. The first one of an application is not told of what was before it. A browser's with a URL that its user has already
    /// takes its place, with its id and its queue, and is not sent to earlier if it has the same keys. Is it another user's, who has left that
    /// browser, theirs goes with all that was to be sent to it. When its sign-in is ended, so does the browser
    /// ([`super::Accounts::end_sign_in`]).
    async fn add_endpoint(&self, endpoint: &Endpoint) -> Result<EndpointAdded>;

    /// The endpoints of a user, or the webhooks of an application, oldest first.
    async fn endpoints(&self, app: AppId, user: Option<UserId>) -> Result<Vec<Endpoint>>;

    /// One of them.
    async fn endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<Option<Endpoint>>;

    /// Gives a webhook another address or secret, or switches it on or off; its queue stays. Whoever has it by a lease has it no more: what they
    /// learn was about the webhook as it was. Gives what it is from now on; none when there is no such one.
    async fn update_webhook(
        &self,
        app: AppId,
        id: EndpointId,
        change: &WebhookChange,
    ) -> Result<Option<Endpoint>>;

    /// Takes an endpoint away with all that was to be sent to it; `false` when there is no such one.
    async fn remove_endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<bool>;

    /// What was sent, and is to be sent, to an endpoint, newest first, of the newest [`DELIVERIES_LISTED`]. Empty when there is no such one.
    async fn deliveries(&self, app: AppId, id: EndpointId, page: PageRequest) -> Result<Page<Delivery>>;

    /// Puts a delivery at the end of its endpoint's queue once more, with the same id; `false` when there is no such one. One that is waiting
    /// stays where it is.
    async fn deliver_again(&self, app: AppId, id: EndpointId, delivery: Uuid, now: Millis) -> Result<bool>;
}

/// Messages of a chat of which nobody was notified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The chat.
    pub chat: ChatKey,
    /// The first of them.
    pub from: Number,
    /// When it was accepted, or the later moment from which it counts ([`Looked::next_at`]).
    pub from_at: Millis,
    /// The last of those that a round through the members is about; none: no round has begun.
    pub upto: Option<Number>,
    /// Members up to this one have been looked at in this round.
    pub after: Option<UserId>,
}

/// A user who is to be told later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of which chat.
    pub chat: ChatKey,
    /// Who.
    pub user: UserId,
    /// By which endpoint alone: by the others they may have been told. None: by all that lead to them.
    pub endpoint: Option<EndpointId>,
    /// The first message that it is about.
    pub from: Number,
    /// The last one.
    pub upto: Number,
    /// When they may be told.
    pub until: Millis,
}

/// A member of a chat, as who may have to be notified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub user: UserId,
    /// The newest message that is read: the largest of the mark and the newest message when they came in.
    pub read: Number,
    /// When they were connected last, as far as it was noted.
    pub last_seen: Option<Millis>,
    /// IANA name.
    pub timezone: Option<String>,
    /// What they have chosen.
    pub preferences: Preferences,
    /// What they have chosen for this chat.
    pub chat: ChatPreferences,
    /// Whether they have a browser to be told by.
    pub subscribed: bool,
}

/// Something to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Its id.
    pub id: Uuid,
    /// To whose browsers; none: to all webhooks of the application.
    pub user: Option<UserId>,
    /// What: JSON.
    pub body: String,
}

/// What came of looking at members of one chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The chat's partition.
    pub partition: Partition,
    /// Where it began.
    pub waiting: Waiting,
    /// The last message that this round is about.
    pub upto: Number,
    /// The last member who was looked at; none: there are no more, and the round is over.
    pub after: Option<UserId>,
    /// When the round is over, what comes after it counts as accepted at this moment, if it was before: it gathers for the next round.
    pub next_at: Millis,
    /// What is to be sent now. For whom as much waits already as there may ([`PENDING_WEBHOOK`], [`PENDING_BROWSER`]), it is given up.
    pub send: Vec<Sending>,
    /// Who is to be told later. Whoever waits already for the same chat, by the same endpoint or by all, waits until the later time, for all of
    /// these messages.
    pub hold: Vec<Held>,
    /// When this is.
    pub now: Millis,
}

/// Whom endpoints lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// The servers of applications.
    Webhooks,
    /// The browsers of users.
    Browsers,
}

/// Which endpoints are not taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Except<'a> {
    /// None of these applications.
    pub apps: &'a [AppId],
    /// None that failed last.
    pub failing: bool,
    /// None but those.
    pub working: bool,
}

/// An endpoint that somebody sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Until when it is theirs alone; also the name of this lease.
    pub until: Millis,
    /// Attempts that failed in a row.
    pub failures: u32,
}

/// The head of an endpoint's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its id.
    pub id: Uuid,
    /// What is to be sent.
    pub body: String,
    /// When it came up.
    pub created_at: Millis,
    /// How often it was sent.
    pub attempts: u32,
}

/// A delivery that becomes several, as it is about more than one may be, or about some who are not to be disturbed now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What is to be sent under its own id: JSON.
    pub rest: String,
    /// The others: their ids, and what is to be sent.
    pub others: Vec<(Uuid, String)>,
    /// Who is to be told later, by its endpoint.
    pub hold: Vec<Held>,
    /// The partition of the chat that they are in.
    pub partition: Partition,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was taken.
    Delivered {
        /// The answer's status.
        status: u16,
    },
    /// It was not, and will be sent again.
    Failed {
        /// The answer's status, if there was an answer.
        status: Option<u16>,
        /// Why, in a few words.
        error: String,
    },
    /// It was not, and never will be.
    GivenUp {
        /// The answer's status, if there was an answer.
        status: Option<u16>,
        /// Why, in a few words.
        error: String,
    },
    /// Nothing was sent yet.
    Split(Split),
}

/// What the storage writer does about those who were away.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Applications that have an endpoint, and how long their users are away before they are notified.
    async fn notifying(&self) -> Result<Vec<(AppId, Duration)>>;

    /// Chats of these partitions whose oldest message that nobody was notified of was accepted before `before`, oldest first, at most `limit`.
    async fn waiting(
        &self,
        app: AppId,
        partitions: &[Partition],
        before: Millis,
        limit: u32,
    ) -> Result<Vec<Waiting>>;

    /// Members of a chat in order of their ids, behind `after`, at most `limit`. Who was erased is left out; none of a chat that was deleted.
    async fn candidates(&self, chat: ChatKey, after: Option<UserId>, limit: u32) -> Result<Vec<Candidate>>;

    /// Those of these users (each once, at most 1,000) who are in it still, in order of their ids.
    async fn candidates_among(&self, chat: ChatKey, users: &[UserId]) -> Result<Vec<Candidate>>;

    /// Writes what came of looking at some members, in one transaction with the chat's row; nothing, and `false`, when that row is not as
    /// `waiting` says any more. When the round is over the row is about the messages after it, or gone when there are none. A batch of the
    /// writer's comes before it or after it as a whole ([`super::Drain::apply`]).
    async fn looked(&self, looked: &Looked) -> Result<bool>;

    /// Who is to be told by now, earliest first, at most `limit`, of chats of these partitions. Of those who are to be told at the same time, those
    /// first whose last message is the earliest.
    async fn held(&self, partitions: &[Partition], now: Millis, limit: u32) -> Result<Vec<Held>>;

    /// Ends or prolongs the holding of one user: `again` takes its place, or `send` is to be sent, by its endpoint alone if it has one, or nothing.
    /// Nothing, and `false`, when `held` is not there as it was any more.
    async fn told(&self, held: &Held, again: Option<Millis>, send: Vec<Sending>, now: Millis)
    -> Result<bool>;

    /// Whoever of these is held, in whatever chat, is to be told by now: they are looked at again.
    async fn look_again_at(&self, app: AppId, users: &[UserId]) -> Result<()>;

    /// Takes endpoints of these receivers that have something to be sent by now and that nobody has, at most `limit`, for `lease`, but for
    /// `except`. Those come first that may be sent to for longest.
    async fn lease_endpoints(
        &self,
        receivers: Receivers,
        except: Except<'_>,
        now: Millis,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>>;

    /// Since when the oldest of all that is to be sent waits.
    async fn oldest_pending(&self) -> Result<Option<Millis>>;

    /// The oldest that are to be sent there, at most `limit`.
    async fn queued(&self, app: AppId, endpoint: EndpointId, limit: u32) -> Result<Vec<Queued>>;

    /// Notes what came of an attempt: a delivery that was taken or given up leaves the queue, and a failure counts for its endpoint. What one is
    /// split into comes to the end of the queue, full or not, as old as it; an id that the endpoint has already stays what it is, and
    /// who is to be told later is held as by [`Self::looked`]. `false` when the lease is somebody else's by now: then nothing was noted.
    async fn attempted(
        &self,
        leased: &Leased,
        delivery: Uuid,
        attempt: &Attempt,
        now: Millis,
    ) -> Result<bool>;

    /// Gives an endpoint back: nothing is sent there before `next`. Nothing when the lease is somebody else's.
    async fn release_endpoint(&self, leased: &Leased, next: Millis) -> Result<()>;

    /// The receiver wants no more: a webhook is switched off, and a browser is forgotten. Nothing when the lease is somebody else's.
    async fn end_endpoint(&self, leased: &Leased) -> Result<()>;

    /// Gives up what has waited since before `waiting`, and forgets what was done with before `ended`, what was to be sent to endpoints that
    /// are gone, and who has waited to be told since before `waiting` by applications that have no endpoint any more; at most `most` of each. Gives how many.
    async fn prune_deliveries(&self, waiting: Millis, ended: Millis, most: u32) -> Result<u64>;
}

/// Notifications that one statement writes: it is done within some milliseconds, and its parameters take some MiB at most.
pub(super) const ROWS: usize = 250;

/// Why something is given up that came to a queue with as much in it as there may be.
pub(super) const FULL: &str = "the queue is full";

/// How many deliveries a page has at most: none behind those that are listed.
pub(super) fn deliveries_of(page: PageRequest) -> u64 {
    DELIVERIES_LISTED.saturating_sub(page.skip()).min(page.per_page.into())
}

/// What an application has chosen, as far as it is asked for each second.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Chosen {
    notifications: NotificationSettings,
}

/// How long users of an application with these settings are away before they are notified; as if nothing was chosen when they cannot be read.
pub(super) fn notified_after(app: AppId, settings: &str) -> Duration {
    let Chosen { notifications } = serde_json::from_str(settings).unwrap_or_else(|error| {
        tracing::warn!(%error, %app, "what an application has chosen cannot be read");
        Chosen::default()
    });
    Duration::from_secs(notifications.after_seconds.into())
}

/// A browser's URL as it is looked up: secret, and longer than the key of an index may be.
pub(super) fn url_hash(url: &str) -> Vec<u8> {
    Sha256::digest(url).to_vec()
}

/// What an endpoint is, as it stands in columns; what only a browser has is missing for a webhook.
pub(super) struct TargetColumns<'a> {
    pub(super) secret: &'a [u8],
    pub(super) public_key: Option<&'a [u8]>,
    pub(super) url_hash: Option<Vec<u8>>,
    pub(super) session: Option<SessionId>,
}

impl<'a> From<&'a Target> for TargetColumns<'a> {
    fn from(target: &'a Target) -> Self {
        match target {
            Target::Webhook { secret, .. } => {
                Self { secret, public_key: None, url_hash: None, session: None }
            }
            Target::Push { url, p256dh, auth, session, .. } => Self {
                secret: auth,
                public_key: Some(p256dh),
                url_hash: Some(url_hash(url)),
                session: Some(*session),
            },
        }
    }
}

/// A delivery's id, as it stands in columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryId(pub(super) Uuid);

impl DeliveryId {
    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(super) fn from_slice(bytes: &[u8]) -> std::result::Result<Self, uuid::Error> {
        Uuid::from_slice(bytes).map(Self)
    }
}

/// What an attempt does to its delivery and its endpoint.
pub(super) struct Outcome<'a> {
    /// The delivery's state from now on; none: as it is.
    pub(super) state: Option<DeliveryState>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'a str>,
    /// Whether the endpoint's failures are over.
    pub(super) recovered: bool,
    /// How many more failures it has. What can never be taken says nothing about the endpoint.
    pub(super) failures: i64,
}

impl<'a> Outcome<'a> {
    /// Otherwise nothing was sent, and this is to be done instead.
    pub(super) fn of(attempt: &'a Attempt) -> std::result::Result<Self, &'a Split> {
        Ok(match attempt {
            Attempt::Delivered { status } => Self {
                state: Some(DeliveryState::Delivered),
                status: Some(*status),
                error: None,
                recovered: true,
                failures: 0,
            },
            Attempt::Failed { status, error } => {
                Self { state: None, status: *status, error: Some(error), recovered: false, failures: 1 }
            }
            Attempt::GivenUp { status, error } => Self {
                state: Some(DeliveryState::GivenUp),
                status: *status,
                error: Some(error),
                recovered: false,
                failures: 0,
            },
            Attempt::Split(split) => return Err(split),
        })
    }
}
