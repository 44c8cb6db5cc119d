//! The embedded engines, held up: a store whose answers about chats come late, and a log that takes in no more.

mod notifications;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use common::{
    applications::{AppSettings, Retention},
    ids::{
        AppId, AttachmentId, ChatId, ChatKey, MessageId, Number, ObjectId, Offset, Partition, SessionId,
        UserId, UserKey,
    },
    log::{
        AppendError, Entry, Log, LogError, ReadError, ReadLimit, Receipt, Subscription, sqlite::SqliteLog,
    },
    model::{ChatView, ChatsPage, MemberView, Message, Page, PageRequest, UserView},
    search::Query,
    store::{
        Accounts, Added, AppCounts, Application, AsOf, Attachment, Attachments, ChatRow, Chats, Contact,
        Drain, DrainedMark, Due, Erasing, Expire, Findings, Found, Listed, Marked, Numbered, Owned, Pair,
        PartitionBatch, People, Position, ProfileChange, Range, ReadMark, Reads, Refused, Related, Relation,
        RelationChange, Relations, Result, Revocation, Scope, Search, SearchScope, Seen, SendKey, SignIn,
        Slice, Standing, Ties, User, sqlite::Sqlite,
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
    ties_read: AtomicUsize,
}

impl Held {
    pub(crate) fn over(inner: Arc<Sqlite>) -> Self {
        Self {
            inner: Mutex::new(inner),
            held: watch::Sender::new(false),
            read: watch::Sender::new(0),
            ties_read: AtomicUsize::new(0),
        }
    }

    fn inner(&self) -> Arc<Sqlite> {
        Arc::clone(&self.inner.lock())
    }

    /// How often it was asked what users are to each other.
    pub(crate) fn ties_read(&self) -> usize {
        self.ties_read.load(Ordering::SeqCst)
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

    async fn with_chats(&self, app: AppId, users: &[UserId], most: u64) -> Result<Vec<UserId>> {
        self.inner().with_chats(app, users, most).await
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
impl Search for Held {
    async fn search(&self, within: SearchScope, query: &Query) -> Result<Findings> {
        self.inner().search(within, query).await
    }

    async fn index_next(&self, now: Millis) -> Result<bool> {
        self.inner().index_next(now).await
    }

    async fn index_changed(&self, before: Millis) -> Result<u64> {
        self.inner().index_changed(before).await
    }
}

#[async_trait]
impl Reads for Held {
    async fn mark_read(&self, marks: &[ReadMark]) -> Result<Vec<Option<Marked>>> {
        self.inner().mark_read(marks).await
    }
}

#[async_trait]
impl Seen for Held {
    async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> Result<()> {
        self.inner().note_seen(seen).await
    }

    async fn last_seen(&self, users: &[UserKey]) -> Result<Vec<(UserKey, Millis)>> {
        self.inner().last_seen(users).await
    }
}

#[async_trait]
impl Erasing for Held {
    async fn erase_user(&self, app: AppId, user: UserId, now: Millis) -> Result<bool> {
        self.inner().erase_user(app, user, now).await
    }

    async fn erased(&self, app: AppId, ids: &[UserId]) -> Result<Vec<UserId>> {
        self.inner().erased(app, ids).await
    }

    async fn groups_of_erased(&self, most: u32) -> Result<Vec<(UserKey, ChatKey)>> {
        self.inner().groups_of_erased(most).await
    }

    async fn settle_erased(&self, before: Millis) -> Result<()> {
        self.inner().settle_erased(before).await
    }

    async fn erase_application(&self, app: AppId, now: Millis) -> Result<bool> {
        self.inner().erase_application(app, now).await
    }

    async fn drop_rows(&self, before: Millis, most: u32) -> Result<u64> {
        self.inner().drop_rows(before, most).await
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
impl Numbered for Held {
    async fn application_counts(&self, app: AppId) -> Result<AppCounts> {
        self.inner().application_counts(app).await
    }

    async fn app_chats(&self, app: AppId, page: PageRequest) -> Result<Page<ChatView>> {
        self.inner().app_chats(app, page).await
    }

    async fn app_chat(&self, chat: ChatKey) -> Result<Option<ChatView>> {
        self.inner().app_chat(chat).await
    }

    async fn chat_numbered(&self, app: AppId, number: u64) -> Result<Option<ChatId>> {
        self.inner().chat_numbered(app, number).await
    }
}

#[async_trait]
impl Listed for Held {
    async fn all_users(&self, app: AppId, page: PageRequest) -> Result<Page<User>> {
        self.inner().all_users(app, page).await
    }

    async fn all_messages(&self, app: AppId, page: PageRequest) -> Result<Page<Message>> {
        self.inner().all_messages(app, page).await
    }

    async fn message_place(&self, app: AppId, id: MessageId) -> Result<Option<(ChatId, Number)>> {
        self.inner().message_place(app, id).await
    }
}

#[async_trait]
impl Expire for Held {
    async fn application_retentions(&self) -> Result<Vec<(AppId, Retention)>> {
        self.inner().application_retentions().await
    }

    async fn due(&self, scope: Scope, after: Option<ChatKey>, now: Millis, limit: u32) -> Result<Due> {
        self.inner().due(scope, after, now, limit).await
    }

    async fn expire(
        &self,
        partition: Partition,
        chat: ChatKey,
        default: Retention,
        now: Millis,
        limit: u32,
    ) -> Result<u32> {
        self.inner().expire(partition, chat, default, now, limit).await
    }

    async fn drained_marks(&self) -> Result<Vec<(Partition, DrainedMark)>> {
        self.inner().drained_marks().await
    }

    async fn mark_drained(&self, partition: Partition, marks: &[DrainedMark]) -> Result<()> {
        self.inner().mark_drained(partition, marks).await
    }
}

#[async_trait]
impl Attachments for Held {
    async fn note_object(&self, app: AppId, object: ObjectId, at: Millis) -> Result<()> {
        self.inner().note_object(app, object, at).await
    }

    async fn add_attachment(&self, app: AppId, attachment: &Attachment) -> Result<Added> {
        self.inner().add_attachment(app, attachment).await
    }

    async fn attachment(&self, app: AppId, id: AttachmentId, reader: UserId) -> Result<Option<Attachment>> {
        self.inner().attachment(app, id, reader).await
    }

    async fn touch_attachments(
        &self,
        app: AppId,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>> {
        self.inner().touch_attachments(app, from, ids, at).await
    }

    async fn offer_attachments(
        &self,
        chat: ChatKey,
        from: UserId,
        ids: &[AttachmentId],
        at: Millis,
    ) -> Result<Vec<Attachment>> {
        self.inner().offer_attachments(chat, from, ids, at).await
    }

    async fn drop_unused(&self, before: Millis, now: Millis, limit: u32) -> Result<u32> {
        self.inner().drop_unused(before, now, limit).await
    }

    async fn loose_objects(&self, before: Millis, limit: u32) -> Result<Vec<(AppId, ObjectId)>> {
        self.inner().loose_objects(before, limit).await
    }

    async fn forget_object(&self, app: AppId, object: ObjectId) -> Result<()> {
        self.inner().forget_object(app, object).await
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

    async fn update_application(
        &self,
        app: AppId,
        name: &str,
        settings: &AppSettings,
        seen: u64,
    ) -> Result<bool> {
        self.inner().update_application(app, name, settings, seen).await
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

    async fn add_sign_in(&self, app: AppId, sign_in: &SignIn) -> Result<bool> {
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

#[async_trait]
impl Relations for Held {
    async fn relate(
        &self,
        user: UserKey,
        relation: Relation,
        peer: UserId,
        on: bool,
        at: Millis,
        most: u64,
    ) -> Result<Related> {
        self.inner().relate(user, relation, peer, on, at, most).await
    }

    async fn contacts(&self, user: UserKey, page: PageRequest) -> Result<Page<Contact>> {
        self.inner().contacts(user, page).await
    }

    async fn blocks(&self, user: UserKey, page: PageRequest) -> Result<Page<UserView>> {
        self.inner().blocks(user, page).await
    }

    async fn ties(&self, pairs: &[Pair]) -> Result<Vec<Ties>> {
        self.ties_read.fetch_add(1, Ordering::SeqCst);
        self.inner().ties(pairs).await
    }

    async fn blocked_by(&self, users: &[UserKey]) -> Result<Vec<(UserKey, UserId)>> {
        self.inner().blocked_by(users).await
    }

    async fn blockers_of(&self, user: UserKey, among: &[UserId]) -> Result<Vec<(UserId, Millis)>> {
        self.inner().blockers_of(user, among).await
    }

    async fn relation_changes(&self, after: u64) -> Result<Vec<RelationChange>> {
        self.inner().relation_changes(after).await
    }
}

/// A log that takes in so many records and no more, takes none in for a while, or is late to say that it has them.
pub(crate) struct Narrow {
    inner: Arc<SqliteLog>,
    room: AtomicUsize,
    shut: watch::Sender<bool>,
    silent: watch::Sender<bool>,
}

impl Narrow {
    pub(crate) fn over(inner: Arc<SqliteLog>) -> Self {
        Self {
            inner,
            room: AtomicUsize::new(usize::MAX),
            shut: watch::Sender::new(false),
            silent: watch::Sender::new(false),
        }
    }

    /// Whether appending waits.
    pub(crate) fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    /// Whether nothing is said to be in the log, which is.
    pub(crate) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
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
        self.shut.subscribe().wait_for(|shut| !shut).await.unwrap();
        let confirmed = self.inner.append(partition, key, payload).await?;
        let (settle, receipt) = Receipt::new();
        let mut silent = self.silent.subscribe();
        tokio::spawn(async move {
            let outcome = confirmed.await;
            if silent.wait_for(|silent| !silent).await.is_ok() {
                settle.settle(outcome);
            }
        });
        Ok(receipt)
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

    async fn begin(&self, partition: Partition) -> std::result::Result<Offset, ReadError> {
        self.inner.begin(partition).await
    }

    async fn forget_before(
        &self,
        partition: Partition,
        before: Offset,
    ) -> std::result::Result<Offset, ReadError> {
        self.inner.forget_before(partition, before).await
    }

    async fn join(&self, group: &str) -> std::result::Result<Box<dyn Subscription>, LogError> {
        self.inner.join(group).await
    }

    async fn close(&self) -> std::result::Result<(), LogError> {
        self.inner.close().await
    }
}
