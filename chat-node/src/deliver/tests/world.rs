//! What is true, and how much of it who knows: one chat's log, an owner that remembers some of it, and a store that lags.

use std::collections::BTreeMap;

use super::*;

pub(super) const APP: AppId = AppId::DEFAULT;
pub(super) const CHAT: ChatKey = ChatKey { app: APP, chat: ChatId(Uuid::from_u128(0xc4a7)) };
pub(super) const USERS: [UserId; 3] =
    [UserId(Uuid::from_u128(0xa)), UserId(Uuid::from_u128(0xb)), UserId(Uuid::from_u128(0xc))];
pub(super) const ANA: UserId = USERS[0];
pub(super) const BEN: UserId = USERS[1];

/// What is true, and how much of it who knows.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) changes: Vec<Change>,
    /// Changes that the log has confirmed.
    pub(super) confirmed: usize,
    /// Changes that the store has.
    pub(super) drained: usize,
    /// How many it had after each batch of a writer.
    pub(super) batches: Vec<usize>,
    /// Changes that the owner does not remember.
    pub(super) forgotten: usize,
    /// Answers that fail before one succeeds.
    pub(super) failing: usize,
    /// Says how long answers take.
    pub(super) dice: u64,
    /// Questions to the store for where users stand, to the owner for what changed, and reads of the log.
    pub(super) asked: [usize; 3],
    /// An announcement was lost: who came in and went before the loss was noticed hears of neither.
    pub(super) unannounced: bool,
    /// Chats that everybody is in from their first change on, of partitions of their own, with their changes: the store has them all.
    pub(super) elsewhere: BTreeMap<ChatKey, Vec<Change>>,
}

#[derive(Debug, Default)]
pub(super) struct World(pub(super) Mutex<Truth>);

impl Truth {
    pub(super) fn members(&self, after: usize) -> HashSet<UserId> {
        let mut members = HashSet::new();
        for change in &self.changes[..after] {
            match &change.what {
                What::Created { members: first, .. } => members.extend(first.iter().map(|(user, _)| *user)),
                What::Joined { user, .. } => drop(members.insert(*user)),
                What::Left { user, .. } => drop(members.remove(user)),
                What::Deleted => members.clear(),
                _ => {}
            }
        }
        members
    }

    pub(super) fn record(&self, at: usize) -> Bytes {
        Record::Change(self.changes[at].clone()).encode()
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    /// The first change stands behind the claim, at 1.
    pub(super) fn place(&self) -> Place {
        let told = LogPlace { offset: self.drained as u64 + 1, state: self.state(self.drained) };
        Place { term: 0, to: self.confirmed as u64 + 1, told }
    }

    pub(super) fn state(&self, after: usize) -> TermState {
        TermState { term: Some(0), n: after as u64 }
    }

    /// The position of the writer after the batch that wrote this change.
    pub(super) fn upto(&self, seq: Seq) -> Offset {
        let batch = self.batches.iter().find(|end| **end as Seq >= seq);
        batch.map_or(self.drained, |end| *end) as Offset + 1
    }

    /// What the log of a partition has after its claim, and the store as well.
    fn elsewhere_in(&self, partition: Partition) -> Option<&Vec<Change>> {
        let found = self.elsewhere.iter().find(|(key, _)| partition_of(**key, 16) == partition);
        found.map(|(_, changes)| changes)
    }

    /// The place of a writer that has so many changes.
    fn told(&self, changes: usize) -> LogPlace {
        LogPlace { offset: changes as Offset + 1, state: self.state(changes) }
    }

    /// Where `user` stands, as stored.
    pub(super) fn standing(&self, user: UserId) -> UserChats {
        let chat = CHAT.chat;
        let (mut joined, mut left) = (None, None);
        for change in &self.changes[..self.drained] {
            match &change.what {
                What::Created { members, .. } if members.iter().any(|(member, _)| *member == user) => {
                    joined = Some(change.seq);
                }
                What::Joined { user: who, .. } if *who == user => joined = Some(change.seq),
                What::Left { user: who, .. } if *who == user => {
                    (joined, left) = (None, Some(change.seq));
                }
                What::Deleted if joined.is_some() => (joined, left) = (None, Some(change.seq)),
                _ => {}
            }
        }
        let head = Head { number: 0, seq: self.drained as Seq };
        let membership = joined.map(|joined_seq| Membership {
            chat,
            head,
            members: 2,
            head_upto: self.upto(head.seq),
            expired: 0,
            joined_seq,
            joined_upto: self.upto(joined_seq),
        });
        let departure = left.map(|seq| Departure { chat, left_upto: self.upto(seq) });
        let elsewhere = self.elsewhere.iter().map(|(key, changes)| Membership {
            chat: key.chat,
            head: Head { number: 0, seq: changes.len() as Seq },
            members: 2,
            head_upto: changes.len() as Offset + 1,
            expired: 0,
            joined_seq: 1,
            joined_upto: 2,
        });
        UserChats {
            memberships: membership.into_iter().chain(elsewhere).collect(),
            departures: departure.into_iter().collect(),
        }
    }

    /// What is told to users when the store has the changes from `from` on.
    pub(super) fn announcements(&self, from: usize) -> Vec<Live> {
        let (app, chat) = (APP, CHAT.chat);
        self.changes[from..self.drained]
            .iter()
            .filter_map(|change| match &change.what {
                What::Created { members, .. } => {
                    let users = members.iter().map(|(user, _)| *user).collect();
                    Some(Live::Added { app, chat, seq: change.seq, users })
                }
                What::Joined { user, .. } => {
                    Some(Live::Added { app, chat, seq: change.seq, users: vec![*user] })
                }
                What::Left { user, .. } => {
                    Some(Live::Removed { app, chat, seq: change.seq, users: vec![*user] })
                }
                _ => None,
            })
            .collect()
    }
}

impl World {
    async fn pause(&self) {
        let wait = self.0.lock().roll() % 6;
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
}

impl AskOwner for World {
    fn ask(&self, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            if request.chat != CHAT.chat {
                // Of another owner, which is away.
                std::future::pending::<()>().await;
            }
            self.pause().await;
            let answer = {
                let mut truth = self.0.lock();
                let Ask::Changes { after } = request.ask else {
                    panic!("{:?} was not expected", request.ask)
                };
                let (after, end) = (after as usize, truth.confirmed);
                if truth.failing > 0 {
                    truth.failing -= 1;
                    Answer::Refused(Refusal::new(ErrorCode::RetryLater, "away"))
                } else if after < truth.forgotten {
                    let head = Head { number: 0, seq: end as Seq };
                    Answer::Changes { changes: Vec::new(), head, complete: after == end }
                } else {
                    // As if long answers were cut.
                    let some = end.min(after + 4);
                    let changes = (after..some).map(|at| truth.record(at)).collect();
                    Answer::Changes {
                        changes,
                        head: Head { number: 0, seq: end as Seq },
                        complete: some == end,
                    }
                }
            };
            self.pause().await;
            answer
        })
    }

    fn ask_partition(&self, partition: Partition, request: OwnerRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            self.pause().await;
            let mut truth = self.0.lock();
            truth.asked[1] += 1;
            if let Some(changes) = truth.elsewhere_in(partition) {
                let told = truth.told(changes.len());
                let place = Place { term: 0, to: told.offset, told };
                return Answer::Since(Since { place, chats: Vec::new(), users: Vec::new(), complete: true });
            }
            let Ask::Since { from } = request.ask else { panic!("{:?} was not expected", request.ask) };
            let first = from.map_or(truth.drained, |told| told.offset as usize - 1);
            let came_or_went = |live: Live| match live {
                Live::Added { users, .. } | Live::Removed { users, .. } => users,
                _ => Vec::new(),
            };
            let users = truth.announcements(first).into_iter().flat_map(came_or_went);
            let chats =
                if first < truth.confirmed { vec![(CHAT, truth.confirmed as Seq)] } else { Vec::new() };
            Answer::Since(Since {
                place: truth.place(),
                chats,
                users: users.map(|user| UserKey { app: APP, user }).collect(),
                complete: true,
            })
        })
    }
}

pub(super) fn not_here<T>() -> store::Result<T> {
    Err(StoreError::Corrupt("not in this world".into()))
}

#[async_trait]
impl Chats for World {
    async fn standing(&self, users: &[UserKey]) -> store::Result<Standing> {
        self.pause().await;
        let standing = {
            let mut truth = self.0.lock();
            truth.asked[0] += 1;
            let position = |key, LogPlace { offset, state }| {
                (partition_of(key, 16), Position { log: Uuid::nil(), offset, state })
            };
            let elsewhere = truth.elsewhere.iter();
            let elsewhere = elsewhere.map(|(key, changes)| position(*key, truth.told(changes.len())));
            Standing {
                positions: elsewhere.chain([position(CHAT, truth.place().told)]).collect(),
                users: users.iter().map(|key| (*key, truth.standing(key.user))).collect(),
            }
        };
        self.pause().await;
        Ok(standing)
    }

    async fn chat_view(&self, _: ChatKey, user: UserId) -> store::Result<Option<ChatView>> {
        self.pause().await;
        let found = {
            let truth = self.0.lock();
            truth.members(truth.drained).contains(&user).then_some(truth.drained as Seq)
        };
        self.pause().await;
        Ok(found.map(|seq| ChatView {
            id: CHAT.chat,
            number: 1,
            kind: ChatKind::Group,
            name: "a group".into(),
            description: None,
            retention: None,
            members: Vec::new(),
            members_count: 0,
            messages_count: 0,
            created_at: Millis(0),
            created_by: ANA,
            last_message: None,
            unread_count: 0,
            mentions_count: 0,
            seq,
            mark: 0,
        }))
    }

    async fn chats_of(&self, _: AppId, _: UserId, _: PageRequest) -> store::Result<ChatsPage> {
        not_here()
    }

    async fn members(
        &self,
        _: ChatKey,
        _: UserId,
        _: PageRequest,
    ) -> store::Result<Option<Page<MemberView>>> {
        not_here()
    }

    async fn history(&self, _: ChatKey, _: Range, _: u32) -> store::Result<Option<Slice>> {
        not_here()
    }

    async fn is_member(&self, _: ChatKey, _: UserId) -> store::Result<bool> {
        not_here()
    }

    async fn message_ids(&self, _: ChatKey, _: Number, _: u32) -> store::Result<Vec<(Number, MessageId)>> {
        not_here()
    }
}

#[async_trait]
impl Log for World {
    fn id(&self) -> Uuid {
        Uuid::nil()
    }

    fn partitions(&self) -> Partition {
        16
    }

    async fn append(&self, _: Partition, _: Bytes, _: Bytes) -> Result<Receipt, AppendError> {
        Err(AppendError::Closed)
    }

    async fn read(&self, partition: Partition, from: Offset, _: ReadLimit) -> Result<Vec<Entry>, ReadError> {
        self.pause().await;
        let mut truth = self.0.lock();
        truth.asked[2] += 1;
        if truth.failing > 0 {
            truth.failing -= 1;
            return Err(ReadError::Unavailable("away".into()));
        }
        let elsewhere = truth.elsewhere_in(partition);
        let end = match elsewhere {
            Some(changes) => changes.len() + 1,
            None if partition == partition_of(CHAT, 16) => truth.confirmed + 1,
            None => 0,
        };
        // As if batches were small.
        let entries = (from as usize..end).take(5).map(|offset| {
            let claim =
                Claim { node: NodeId::new("owner").unwrap(), incarnation: Incarnation(0), at: Millis(0) };
            let payload = match offset.checked_sub(1) {
                Some(at) => elsewhere
                    .map_or_else(|| truth.record(at), |changes| Record::Change(changes[at].clone()).encode()),
                None => Record::Claim(claim).encode(),
            };
            Entry { offset: offset as Offset, key: Bytes::new(), payload }
        });
        Ok(entries.collect())
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.pause().await;
        let here = partition == partition_of(CHAT, 16);
        let truth = self.0.lock();
        let elsewhere = truth.elsewhere_in(partition).map(|changes| changes.len() as Offset + 1);
        Ok(elsewhere.unwrap_or(if here { truth.confirmed as Offset + 1 } else { 0 }))
    }

    async fn begin(&self, _: Partition) -> Result<Offset, ReadError> {
        Ok(0)
    }

    async fn forget_before(&self, _: Partition, _: Offset) -> Result<Offset, ReadError> {
        Ok(0)
    }

    async fn join(&self, _: &str) -> Result<Box<dyn Subscription>, LogError> {
        Err(LogError::Closed)
    }

    async fn close(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Nobody is seen.
pub(super) struct Unseen;

#[async_trait]
impl Seen for Unseen {
    async fn note_seen(&self, _: &[(UserKey, Millis)]) -> store::Result<()> {
        Ok(())
    }

    async fn last_seen(&self, _: &[UserKey]) -> store::Result<Vec<(UserKey, Millis)>> {
        Ok(Vec::new())
    }
}

/// Nobody is anything to anybody.
pub(super) struct Unrelated;

#[async_trait]
impl Relations for Unrelated {
    async fn relate(
        &self,
        _: UserKey,
        _: Relation,
        _: UserId,
        _: bool,
        _: Millis,
        _: u64,
    ) -> store::Result<Related> {
        Ok(Related::Already)
    }

    async fn contacts(&self, _: UserKey, page: PageRequest) -> store::Result<Page<Contact>> {
        Ok(page.answer(0, Vec::new()))
    }

    async fn blocks(&self, _: UserKey, page: PageRequest) -> store::Result<Page<UserView>> {
        Ok(page.answer(0, Vec::new()))
    }

    async fn ties(&self, _: &[Pair]) -> store::Result<Vec<Ties>> {
        Ok(Vec::new())
    }

    async fn blocked_by(&self, _: &[UserKey]) -> store::Result<Vec<(UserKey, UserId)>> {
        Ok(Vec::new())
    }

    async fn blockers_of(&self, _: UserKey, _: &[UserId]) -> store::Result<Vec<(UserId, Millis)>> {
        Ok(Vec::new())
    }

    async fn relation_changes(&self, _: u64) -> store::Result<Vec<RelationChange>> {
        Ok(Vec::new())
    }
}
