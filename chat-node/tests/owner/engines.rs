//! The embedded engines, held up: a store whose answers about chats come late, and a log that takes in no more.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    applications::AppSettings,
    ids::{AppId, ChatKey, MessageId, Number, Offset, Partition, SessionId, UserId, UserKey},
    log::{
        AppendError, Entry, Log, LogError, ReadError, ReadLimit, Receipt, Subscription, sqlite::SqliteLog,
    },
    model::{ChatView, ChatsPage, MemberView, Message, Page, PageRequest, UserView},
    store::{
        Accounts, Application, AsOf, ChatRow, Chats, Drain, Found, Marked, Owned, PartitionBatch, People,
        Position, ProfileChange, Range, ReadMark, Reads, Refused, Result, Revocation, SendKey, SignIn, Slice,
        Standing, User, sqlite::Sqlite,
    },
    time::Millis,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// A store that reads a chat when it is asked, and answers when it may.
#[derive(Debug)]
pub(crate) struct Held {
    inner: Mutex<Arc<Sqlite>>,
    held: watch::Sender<bool>,
    /// Answers that were read and are held.
    read: watch::Sender<usize>,
}

impl Held {
    pub(crate) fn over(inner: Arc<Sqlite>) -> Self {
        Self { inner: Mutex::new(inner), held: watch::Sender::new(false), read: watch::Sender::new(0) }
    }

    fn inner(&self) -> Arc<Sqlite> {
        Arc::clone(&self.inner.lock())
    }

    /// From now on another store is read.
    pub(crate) fn replace(&self, inner: Arc<Sqlite>) {
        *self.inner.lock() = inner;
    }

    /// From now on what was read of chats is not answered.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// Waits until this many answers have been read and are held.
    pub(crate) async fn until_read(&self, answers: usize) {
        self.read.subscribe().wait_for(|read| *read >= answers).await.unwrap();
    }
}

#[async_trait]
impl Owned for Held {
    async fn load(&self, chats: &[ChatKey]) -> Result<AsOf<Vec<ChatRow>>> {
        let rows = self.inner().load(chats).await;
        if *self.held.borrow() {
            self.read.send_modify(|read| *read += 1);
        }
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        rows
    }

    async fn find_sent(&self, keys: &[SendKey]) -> Result<AsOf<Vec<Found>>> {
        self.inner().find_sent(keys).await
    }

    async fn message(&self, chat: ChatKey, number: Number) -> Result<AsOf<Option<Message>>> {
        self.inner().message(chat, number).await
    }

    async fn reaction(
        &self,
        chat: ChatKey,
        number: Number,
        user: UserId,
        emoji: &str,
    ) -> Result<AsOf<Option<(Message, bool)>>> {
        self.inner().reaction(chat, number, user, emoji).await
    }
}

#[async_trait]
impl Drain for Held {
    async fn positions(&self) -> Result<Vec<(Partition, Position)>> {
        self.inner().positions().await
    }

    async fn apply(&self, batches: &[PartitionBatch]) -> Result<Vec<std::result::Result<(), Refused>>> {
        self.inner().apply(batches).await
    }
}

#[async_trait]
impl Reads for Held {
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<Marked>>> {
        self.inner().mark_read(marks).await
    }
}

#[async_trait]
impl Chats for Held {
    async fn standing(&self, users: &[UserKey]) -> Result<Standing> {
        self.inner().standing(users).await
    }

    async fn chats_of(&self, app: AppId, user: UserId, page: PageRequest) -> Result<ChatsPage> {
        self.inner().chats_of(app, user, page).await
    }

    async fn chat_view(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatView>> {
        self.inner().chat_view(chat, user).await
    }

    async fn members(
        &self,
        chat: ChatKey,
        user: UserId,
        page: PageRequest,
    ) -> Result<Option<Page<MemberView>>> {
        self.inner().members(chat, user, page).await
    }

    async fn history(&self, chat: ChatKey, range: Range, limit: u32) -> Result<Option<Slice>> {
        self.inner().history(chat, range, limit).await
    }

    async fn is_member(&self, chat: ChatKey, user: UserId) -> Result<bool> {
        self.inner().is_member(chat, user).await
    }

    async fn message_ids(
        &self,
        chat: ChatKey,
        after: Number,
        limit: u32,
    ) -> Result<Vec<(Number, MessageId)>> {
        self.inner().message_ids(chat, after, limit).await
    }
}

#[async_trait]
impl Accounts for Held {
    async fn applications(&self) -> Result<Vec<Application>> {
        self.inner().applications().await
    }

    async fn application_changes(&self) -> Result<u64> {
        self.inner().application_changes().await
    }

    async fn add_application(&self, application: &Application) -> Result<bool> {
        self.inner().add_application(application).await
    }

    async fn update_application(&self, app: AppId, name: &str, settings: &AppSettings) -> Result<bool> {
        self.inner().update_application(app, name, settings).await
    }

    async fn cluster_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>> {
        self.inner().cluster_secret(name, fresh).await
    }

    async fn add_user(&self, app: AppId, user: &User) -> Result<bool> {
        self.inner().add_user(app, user).await
    }

    async fn user_by_username(&self, app: AppId, username: &str) -> Result<Option<User>> {
        self.inner().user_by_username(app, username).await
    }

    async fn user(&self, app: AppId, id: UserId) -> Result<Option<User>> {
        self.inner().user(app, id).await
    }

    async fn users(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserView>> {
        self.inner().users(app, ids).await
    }

    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<()> {
        self.inner().add_sign_in(app, sign_in).await
    }

    async fn sign_ins(&self, app: AppId, user: UserId, now: Millis) -> Result<Vec<SignIn>> {
        self.inner().sign_ins(app, user, now).await
    }

    async fn end_sign_in(&self, app: AppId, user: UserId, session: SessionId) -> Result<bool> {
        self.inner().end_sign_in(app, user, session).await
    }

    async fn revocations(&self, after: u64, now: Millis) -> Result<Vec<Revocation>> {
        self.inner().revocations(after, now).await
    }
}

#[async_trait]
impl People for Held {
    async fn update_profile(&self, app: AppId, user: UserId, change: &ProfileChange) -> Result<Option<User>> {
        self.inner().update_profile(app, user, change).await
    }

    async fn find_people(&self, app: AppId, query: &str, page: PageRequest) -> Result<Page<UserView>> {
        self.inner().find_people(app, query, page).await
    }
}

/// A log that takes in so many records and no more.
pub(crate) struct Narrow {
    inner: Arc<SqliteLog>,
    room: AtomicUsize,
}

impl Narrow {
    pub(crate) fn over(inner: Arc<SqliteLog>) -> Self {
        Self { inner, room: AtomicUsize::new(usize::MAX) }
    }

    /// Takes in this many more.
    pub(crate) fn leave(&self, room: usize) {
        self.room.store(room, Ordering::SeqCst);
    }
}

#[async_trait]
impl Log for Narrow {
    fn id(&self) -> Uuid {
        self.inner.id()
    }

    fn partitions(&self) -> Partition {
        self.inner.partitions()
    }

    async fn append(
        &self,
        partition: Partition,
        key: Bytes,
        payload: Bytes,
    ) -> std::result::Result<Receipt, AppendError> {
        let less = |room: usize| room.checked_sub(1);
        if self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
            return Err(AppendError::Full);
        }
        self.inner.append(partition, key, payload).await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> std::result::Result<Vec<Entry>, ReadError> {
        self.inner.read(partition, from, limit).await
    }

    async fn end(&self, partition: Partition) -> std::result::Result<Offset, ReadError> {
        self.inner.end(partition).await
    }

    async fn join(&self, group: &str) -> std::result::Result<Box<dyn Subscription>, LogError> {
        self.inner.join(group).await
    }

    async fn close(&self) -> std::result::Result<(), LogError> {
        self.inner.close().await
    }
}
