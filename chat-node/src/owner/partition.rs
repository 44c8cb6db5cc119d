//! One partition's task: not named, taking over, owning, and round again.

mod memory;
mod needs;
mod reads;

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use common::{
    applications::Screened,
    cache::TailEntry,
    ids::{ChatKey, MessageId, Offset, Partition, Seq, UserId},
    log::Receipt,
    model::Message,
    store::{AsOf, ChatRow, Found, StoreError, Ties},
    wire::{
        codes::ErrorCode,
        marks::{LogPlace, Place},
        owner::{Answer, Ask, Draft, OwnerRequest, Refusal, Sent},
        peer::Live,
        record::{Change, Record, What},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    chat::{Chat, KEPT_DRAINED, Kept, Known},
    later,
    policy::{self, Decision},
    publish::{Confirmed, Lost, Tail, refused},
    queue::{CHAT_QUEUE, Job, Open, Slot},
    retry_later,
    since::{Lacking, Undrained, Whereabouts},
    takeover::{self, Failure, Taken},
};

/// How long what is under way may take to settle when the partition is handed over or the node stops.
const FLUSH: Duration = Duration::from_secs(2);
/// How often memory is looked through for what is no longer needed.
const TIDY: Duration = Duration::from_secs(5);
/// Before the second try to take a partition over; doubled up to [`CLAIM_PAUSE_MAX`].
const CLAIM_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries: half of what a request waits for its owner.
const CLAIM_PAUSE_MAX: Duration = Duration::from_millis(2_500);
/// Between two looks whether the dispatchers count on this node.
const LEASE_PAUSE: Duration = Duration::from_millis(20);
/// After a term was lost, at most this long passes before the next claim, by chance: two nodes that both believe themselves named must not
/// void each other's terms for ever. Doubled with each term lost in a row, up to 16 times.
const LOST_PAUSE: Duration = Duration::from_millis(50);
/// A term that lasted this long was no part of such a duel.
const SETTLED: Duration = Duration::from_secs(5);

/// What a partition's task stands on.
pub(super) struct Owning {
    pub(super) context: Arc<Context>,
    pub(super) partition: Partition,
    pub(super) place: Whereabouts,
}

/// Serves the partition whenever this node is named for it, until `shutdown`.
pub(super) async fn run(
    owning: Owning,
    mut jobs: mpsc::Receiver<Job>,
    mut named: watch::Receiver<bool>,
    serves: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let Owning { context, partition, place } = owning;
    let mut lost_in_a_row = 0;
    while !shutdown.is_cancelled() {
        if !*named.borrow_and_update() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = named.changed() => if changed.is_err() { break },
                job = jobs.recv() => match job {
                    Some(job) => job.answer(Answer::NotOwner),
                    None => break,
                },
            }
            continue;
        }
        serves.send_replace(true);
        let mut claim = None;
        let taken = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(false),
            // Named no more, or the node is gone.
            unnamed = unnamed(&mut named) => Err(unnamed),
            taken = take_over(&context, partition, &mut jobs, &mut claim) => Ok(taken),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(goes_on) => {
                // The next owner's claim must come behind this one: in front of it, it would be void.
                if let Some(claim) = claim {
                    let _ = tokio::time::timeout(FLUSH, claim).await;
                }
                serves.send_replace(false);
                if goes_on {
                    continue;
                }
                break;
            }
        };
        tracing::info!(partition, term = taken.term, undrained = taken.bytes, "owns the partition");
        let mut owned = Owned::new(&context, partition, &place, named.clone(), taken);
        let mut pause = Duration::ZERO;
        match owned.serve(&mut jobs, &mut named, &shutdown).await {
            Ok(()) => tracing::info!(partition, term = owned.tail.term(), "gave the partition up"),
            Err(lost) => {
                context.metrics.terms.with_label_values(&["lost"]).inc();
                tracing::warn!(partition, %lost, "lost the partition");
                lost_in_a_row = if owned.since.elapsed() > SETTLED { 0 } else { lost_in_a_row + 1 };
                pause = (LOST_PAUSE * (1 << lost_in_a_row.min(4))).mul_f64(rand::random());
            }
        }
        owned.abandon();
        serves.send_replace(false);
        shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
    // Whoever is still in the queue asks the next owner at once.
    jobs.close();
    while let Some(job) = jobs.recv().await {
        job.answer(Answer::NotOwner);
    }
}

/// Resolves when the node is named for the partition no more; false: nobody names anybody any more.
async fn unnamed(named: &mut watch::Receiver<bool>) -> bool {
    named.wait_for(|named| !named).await.is_ok()
}

/// Claims the partition, and reads what is undrained. The claim is made once: while the store or the log cannot be read, the term waits, and
/// whoever asks is told to try later. `claim` is the newest that the log has not answered.
async fn take_over(
    context: &Context,
    partition: Partition,
    jobs: &mut mpsc::Receiver<Job>,
    claim: &mut Option<Receipt>,
) -> Taken {
    let mut pause = CLAIM_PAUSE;
    let term = loop {
        match takeover::claim(context, partition, claim).await {
            Ok(term) => break term,
            // A placement comes before the first heartbeat is echoed.
            Err(Failure::NoLease) => tokio::time::sleep(LEASE_PAUSE).await,
            Err(failure) => {
                tracing::warn!(partition, %failure, "cannot claim the partition; trying again");
                put_off(jobs, &mut pause).await;
            }
        }
    };
    loop {
        match takeover::prepare(context, partition, term).await {
            Ok(taken) => return taken,
            Err(failure) => {
                tracing::warn!(partition, term, %failure, "cannot read what is undrained; trying again");
                put_off(jobs, &mut pause).await;
            }
        }
    }
}

/// Waits a while before the next try, longer each time, and refuses what comes meanwhile.
async fn put_off(jobs: &mut mpsc::Receiver<Job>, pause: &mut Duration) {
    let refuse = async {
        while let Some(job) = jobs.recv().await {
            job.answer(retry_later("the chat's owner cannot read what it must know at the moment"));
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0), refuse).await;
    *pause = (*pause * 2).min(CLAIM_PAUSE_MAX);
}

/// What the store answered about a chat.
enum Fetched {
    Chat(Result<AsOf<Option<ChatRow>>, StoreError>),
    Sends(Result<AsOf<Vec<Found>>, StoreError>),
    Message(Result<AsOf<Option<Message>>, StoreError>),
    Reaction(Result<AsOf<Option<(Message, bool)>>, StoreError>),
    Ties(Result<Ties, StoreError>),
}

/// A question to the store.
struct Fetch {
    key: ChatKey,
    /// How far the partition was drained when it was asked.
    drained: Offset,
    fetched: Fetched,
}

/// A partition in this node's hands: one term of it.
struct Owned {
    context: Arc<Context>,
    partition: Partition,
    /// Whether this node is named for it still.
    named: watch::Receiver<bool>,
    since: Instant,
    tail: Tail,
    slots: HashMap<ChatKey, Slot>,
    /// Everything before is in the store, and where the rule of terms stands there.
    drained: LogPlace,
    undrained: Undrained,
    place: Whereabouts,
    /// Bytes of all changes in memory, drained ones included, roughly: counted up by appends, counted anew when memory is tidied.
    held_bytes: usize,
    /// Confirmed requests that wait for the store.
    unstored: BTreeMap<Offset, Vec<Open>>,
    /// What is said once it is stored.
    announcements: BTreeMap<Offset, Arc<Change>>,
    fetches: JoinSet<Fetch>,
    /// Answers that are being read from the log.
    reads: JoinSet<()>,
}

impl Owned {
    fn new(
        context: &Arc<Context>,
        partition: Partition,
        place: &Whereabouts,
        named: watch::Receiver<bool>,
        taken: Taken,
    ) -> Self {
        let Taken { term, drained, slots, bytes } = taken;
        let tail = Tail::new(term);
        #[cfg(feature = "planted")]
        let tail = tail.with_planted(context.planted);
        let mut announcements = BTreeMap::new();
        let mut undrained = Vec::new();
        for slot in slots.values() {
            // The owner before may have died between the log's confirmation and telling anybody; receivers drop what they have.
            let kept =
                slot.chat().into_iter().flat_map(|chat| chat.undrained(drained.offset)).chain(&slot.replay);
            for kept in kept {
                context.outlet.publish(vec![kept.change.key().into()], Live::Change(kept.payload.clone()));
                context.tails.push(kept.change.key(), kept.tail_entry());
                undrained.push(Lacking {
                    offset: kept.offset,
                    chat: kept.change.key(),
                    seq: kept.change.seq,
                    bytes: kept.payload.len(),
                });
            }
            announcements.extend(
                slot.chat().map(|chat| chat.undrained_memberships(drained.offset)).unwrap_or_default(),
            );
            let replayed = slot.replay.iter().filter(|kept| kept.change.of_membership());
            announcements.extend(replayed.map(|kept| (kept.offset, Arc::clone(&kept.change))));
        }
        let to = tail.offset_of(1);
        // A writer that is past the claim has what another has written: this term is over, and is told of when the store is looked at.
        *place.lock() = (drained.offset <= to).then_some(Place { term, to, told: drained });
        context.outlet.flush();
        Self {
            context: Arc::clone(context),
            partition,
            named,
            since: Instant::now(),
            tail,
            slots,
            drained,
            undrained: Undrained::from_log(undrained),
            place: Arc::clone(place),
            held_bytes: bytes,
            unstored: BTreeMap::new(),
            announcements,
            fetches: JoinSet::new(),
            reads: JoinSet::new(),
        }
    }

    /// Serves until the partition is to be given up; an error says that it was lost.
    async fn serve(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        named: &mut watch::Receiver<bool>,
        shutdown: &CancellationToken,
    ) -> Result<(), Lost> {
        let mut positions = self.context.stored.watch();
        positions.mark_changed();
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.flush().await,
                changed = named.changed() => {
                    if changed.is_err() || !*named.borrow() {
                        return self.flush().await;
                    }
                }
                settled = self.tail.settled() => {
                    let outcome = self.all_confirmed(settled);
                    self.context.outlet.flush();
                    outcome?;
                }
                Some(fetched) = self.fetches.join_next() => match fetched {
                    Ok(fetch) => self.fetched(fetch).await?,
                    // The chat would wait for ever.
                    Err(error) => return Err(Lost::Fetch(error.to_string())),
                },
                Some(_) = self.reads.join_next() => {}
                Ok(()) = positions.changed() => {
                    let read = positions.borrow_and_update().clone();
                    self.stored(&read)?;
                }
                _ = tidy.tick() => self.tidy(KEPT_DRAINED),
                job = jobs.recv(), if !self.tail.is_full() => match job {
                    Some(job) => self.take(job).await,
                    None => return self.flush().await,
                },
            }
        }
    }

    /// Lets what is under way settle.
    async fn flush(&mut self) -> Result<(), Lost> {
        let all = async {
            while !self.tail.is_empty() {
                let settled = self.tail.settled().await?;
                self.confirmed(settled);
                self.context.outlet.flush();
            }
            Ok(())
        };
        // What does not settle in time is dropped with the term: its askers hear that it is not known.
        tokio::time::timeout(FLUSH, all).await.unwrap_or(Ok(()))
    }

    /// The term is over: what was never appended is surely not stored, and the rest is not known.
    fn abandon(&mut self) {
        *self.place.lock() = None;
        self.reads.abort_all();
        for job in self.slots.values_mut().flat_map(|slot| slot.jobs.drain(..)) {
            job.answer(Answer::NotOwner);
        }
    }

    async fn take(&mut self, job: Job) {
        if let Ask::Since { from } = job.request.ask {
            return self.since(job, from);
        }
        let key = job.request.key();
        let crowded = self.slots.len() >= self.context.limits.chats && !self.slots.contains_key(&key);
        if crowded {
            return job.answer(retry_later("the chat's owner has as many chats in memory as it may have"));
        }
        let slot = self.slots.entry(key).or_default();
        if slot.jobs.len() >= CHAT_QUEUE {
            return job.answer(retry_later("the chat has too many requests waiting"));
        }
        slot.jobs.push_back(job);
        self.advance(key).await;
    }

    /// Serves a chat's queue until it is empty or must wait for the store, or another node is to serve it.
    async fn advance(&mut self, key: ChatKey) {
        while *self.named.borrow()
            && let ControlFlow::Continue(job) = self.next_job(key)
        {
            self.execute(key, job).await;
        }
    }

    async fn execute(&mut self, key: ChatKey, job: Job) {
        if self.context.clock.now() > job.deadline {
            return job.answer(retry_later("the request came too late"));
        }
        if self.undrained_bytes() > self.context.limits.undrained_bytes && !job.request.ask.reads() {
            return job.answer(retry_later("the storage writer is too far behind"));
        }
        let OwnerRequest { by, retry, ask, .. } = job.request.clone();
        match ask {
            Ask::Send(drafts) => self.send(key, job, by, &drafts).await,
            Ask::CreateGroup { name, description, members, first } => {
                let (name, description, first) = (name.as_ref(), description.as_ref(), first.as_ref());
                let group = policy::NewGroup { name, description, members: &members, first };
                self.create_group(key, job, by, group).await;
            }
            Ask::Recent => match self.recent(key, by) {
                Ok(answer) => job.answer(answer),
                Err(refusal) => self.refuse(key, job, refusal),
            },
            Ask::Changes { after } => {
                let changes = self.chat(key).and_then(|chat| chat.changes_after(after));
                let answer = self.changes(key, changes);
                job.answer(answer);
            }
            // It is about no chat, and does not get into a chat's queue.
            Ask::Since { .. } => job.answer(Answer::NotOwner),
            Ask::OpenDirect { peer, request } => {
                let decision = policy::open_direct(self.chat(key), by, peer, request);
                self.decided(key, job, by, decision).await;
            }
            Ask::Edit { .. }
            | Ask::Erase { .. }
            | Ask::React { .. }
            | Ask::AddMember { .. }
            | Ask::SetRole { .. }
            | Ask::RemoveMember { .. }
            | Ask::Update { .. }
            | Ask::DeleteChat => {
                let decision = match self.chat(key) {
                    Some(chat) => self.decide(chat, &job, by, retry, &ask).and_then(|decision| {
                        if let Decision::Append(What::Edited { .. } | What::Reacted { on: true, .. }) =
                            decision
                        {
                            self.taken(key, chat, job.ties, by)?;
                        }
                        Ok(decision)
                    }),
                    None => Err(policy::no_such_chat()),
                };
                self.decided(key, job, by, decision).await;
            }
        }
    }

    fn chat(&self, key: ChatKey) -> Option<&Chat> {
        self.slots.get(&key).and_then(Slot::chat)
    }

    fn decide(
        &self,
        chat: &Chat,
        job: &Job,
        by: UserId,
        retry: bool,
        ask: &Ask,
    ) -> Result<Decision, Refusal> {
        match ask {
            Ask::Edit { number, body } => {
                let message = known_message(chat, job, *number);
                policy::edit(chat, by, message, body, self.context.clock.now().max(chat.last_at))
            }
            Ask::Erase { number } => {
                if let Known::Erased(_) = chat.message(*number) {
                    return Ok(Decision::Already);
                }
                policy::erase(chat, by, *number, known_message(chat, job, *number))
            }
            Ask::React { number, emoji, on } => {
                let message = known_message(chat, job, *number);
                let stands = chat.reacts(*number, by, emoji).unwrap_or(job.reacts);
                policy::react(chat, by, message, emoji, *on, stands)
            }
            Ask::AddMember { user } => policy::add_member(chat, by, *user),
            Ask::SetRole { user, role } => policy::set_role(chat, by, *user, *role),
            Ask::RemoveMember { user } => policy::remove_member(chat, by, *user, retry),
            Ask::Update { name, description, retention } => {
                policy::update(chat, by, name.as_ref(), description.as_ref(), *retention)
            }
            Ask::DeleteChat => policy::delete_chat(chat, by, retry),
            _ => Err(Refusal::new(ErrorCode::Internal, "not a decision")),
        }
    }

    /// Appends what was decided, and lets the request wait for it; or for what was so already.
    async fn decided(&mut self, key: ChatKey, job: Job, by: UserId, decision: Result<Decision, Refusal>) {
        let (appended, made) = match decision {
            Err(refusal) => return self.refuse(key, job, refusal),
            Ok(Decision::Already) => (false, false),
            Ok(Decision::Made) => (false, true),
            Ok(Decision::Append(what)) => match self.screen_and_append(key, by, what).await {
                Ok(_) => (true, true),
                Err(refusal) => return job.answer(Answer::Refused(refusal)),
            },
        };
        self.wait_for_head(key, job, appended, made);
    }

    /// Decided on what is appended: told once the log has that.
    fn refuse(&mut self, key: ChatKey, job: Job, refusal: Refusal) {
        let n = self.chat(key).map_or(0, |chat| self.n_of(chat, chat.head.seq));
        let answer = self.read(Answer::Refused(refusal));
        self.open(n, job.open(answer, None));
    }

    /// The chat as decided is the answer, once the log has it, and once the store has its members.
    fn wait_for_head(&mut self, key: ChatKey, job: Job, appended: bool, made: bool) {
        let Some(chat) = self.chat(key) else { return job.answer(Answer::Refused(policy::no_such_chat())) };
        let seq = chat.head.seq;
        let of_membership = matches!(
            job.request.ask,
            Ask::OpenDirect { .. }
                | Ask::CreateGroup { .. }
                | Ask::AddMember { .. }
                | Ask::SetRole { .. }
                | Ask::RemoveMember { .. }
                | Ask::DeleteChat
        );
        let stored = chat.membership_offset.filter(|_| of_membership);
        let n = self.n_of(chat, seq);
        let answer = match job.request.ask {
            Ask::OpenDirect { .. } | Ask::CreateGroup { .. } => Answer::Created { made, seq },
            _ => Answer::Done { seq },
        };
        // What is appended the log decides on; what was so already, whoever holds the lease.
        let answer = if appended { answer } else { self.read(answer) };
        self.open(n, job.open(answer, stored));
    }

    /// The place in this term of the chat's change `seq`; 0 when it is confirmed.
    fn n_of(&self, chat: &Chat, seq: Seq) -> u64 {
        if seq <= chat.confirmed.seq {
            0
        } else {
            chat.offset_of(seq).map_or(0, |offset| self.tail.n_at(offset))
        }
    }

    fn open(&mut self, n: u64, open: Open) {
        if let Some(open) = self.tail.wait(n, open) {
            self.await_store(open);
        }
    }

    fn await_store(&mut self, open: Open) {
        match open.stored {
            Some(offset) if offset >= self.drained.offset => {
                let open = open.hurry(self.context.stored.urgent());
                self.unstored.entry(offset).or_default().push(open);
            }
            _ => open.finish(),
        }
    }

    async fn send(&mut self, key: ChatKey, job: Job, by: UserId, drafts: &[Draft]) {
        let mut outcomes = Vec::with_capacity(drafts.len());
        let mut n = 0;
        #[cfg(feature = "planted")]
        let drafts = &self.context.misordered(drafts);
        for draft in drafts {
            // What follows a draft that may be sent again must not overtake it.
            let stuck = matches!(outcomes.last(), Some(Err(Refusal { code, .. })) if code.temporary());
            let outcome = if stuck {
                Err(later("an earlier message of the same chat was not accepted"))
            } else {
                self.send_one(key, by, job.ties, draft).await
            };
            // As with reads: a refusal of a node that was replaced says nothing.
            let outcome = outcome.map_err(|refusal| {
                if self.is_owner() { refusal } else { later("the chat's owner has no lease at the moment") }
            });
            if outcome.is_err() {
                // Decided on what is appended: told once the log has that.
                n = n.max(self.chat(key).map_or(0, |chat| self.n_of(chat, chat.head.seq)));
            }
            outcomes.push(outcome.map(|(sent, at)| {
                n = n.max(at);
                sent
            }));
        }
        #[cfg(feature = "planted")]
        let outcomes = self.context.reordered(outcomes);
        #[cfg(feature = "planted")]
        let n = if self.context.planted.is(common::planted::Bug::AckBeforeAppend) { 0 } else { n };
        self.open(n, job.open(Answer::Sent(outcomes), None));
    }

    /// The message, and the place in the term that must be confirmed before it is told.
    async fn send_one(
        &mut self,
        key: ChatKey,
        by: UserId,
        ties: Option<Ties>,
        draft: &Draft,
    ) -> Result<(Sent, u64), Refusal> {
        let chat = self.chat(key).ok_or_else(policy::no_such_chat)?;
        if let Some(accepted) = draft.client_id.as_ref().and_then(|client_id| chat.accepted(by, client_id)) {
            policy::repeat(draft, &accepted)?;
            self.context.metrics.repeats.inc();
            let sent = Sent {
                id: accepted.id,
                number: accepted.number,
                seq: accepted.seq,
                at: accepted.at,
                repeat: true,
                masked: self.masked(key, draft),
                mentions: None,
            };
            return Ok((sent, self.n_of(chat, accepted.seq)));
        }
        let id = MessageId::random();
        let what = policy::send(chat, by, draft, id)?;
        self.taken(key, chat, ties, by)?;
        let mentions = match &what {
            What::Sent { mentions, .. } if *mentions != draft.mentions => Some(mentions.clone()),
            _ => None,
        };
        let masked = self.screen_and_append(key, by, what).await?;
        let chat = self.chat(key).ok_or_else(policy::no_such_chat)?;
        let sent = Sent {
            id,
            number: chat.head.number,
            seq: chat.head.seq,
            at: chat.last_at,
            repeat: false,
            masked,
            mentions,
        };
        let n = self.n_of(chat, sent.seq);
        Ok((sent, n))
    }

    /// Whether what somebody says in a direct chat is taken by the other. What was read for the request counts only when nothing newer is known.
    fn taken(&self, key: ChatKey, chat: &Chat, read: Option<Ties>, by: UserId) -> Result<(), Refusal> {
        let Some(pair) = chat.pair(key.app, by) else { return Ok(()) };
        match self.context.relationships.known(pair).or(read) {
            Some(ties) => policy::taken(ties, by, self.context.applications.settings(key.app).contacts_only),
            // Whether it is taken changed just now.
            None => Err(later("the chat's owner reads what its members are to each other")),
        }
    }

    /// Makes a group, or goes on where an earlier try broke off.
    async fn create_group(&mut self, key: ChatKey, job: Job, by: UserId, group: policy::NewGroup<'_>) {
        let mut changes = match policy::create_group(self.chat(key), by, group, MessageId::random()) {
            Ok(changes) => changes,
            Err(refusal) => return self.refuse(key, job, refusal),
        };
        let content = self.context.applications.content(key.app);
        // All of it, before anything of it is there.
        if let Err(refusal) = changes.iter_mut().try_for_each(|what| policy::screen(&content, what).map(drop))
        {
            return job.answer(self.read(Answer::Refused(refusal)));
        }
        let mut made = false;
        for what in changes {
            match self.append(key, by, what).await {
                Ok(()) => made = true,
                // Some of it is there, and the next try goes on behind it.
                Err(_) if made => return job.answer(Answer::Unknown),
                Err(refusal) => return job.answer(Answer::Refused(refusal)),
            }
        }
        self.wait_for_head(key, job, made, made);
    }

    /// What the application's policies make of a draft's text.
    fn masked(&self, key: ChatKey, draft: &Draft) -> Option<String> {
        match self.context.applications.content(key.app).screen(&draft.body) {
            Screened::Masked(masked) => Some(masked),
            _ => None,
        }
    }

    /// Has a change pass the application's policies, and appends it; answers the text, when they changed it.
    async fn screen_and_append(
        &mut self,
        key: ChatKey,
        by: UserId,
        mut what: What,
    ) -> Result<Option<String>, Refusal> {
        let masked = policy::screen(&self.context.applications.content(key.app), &mut what)?;
        if by != UserId::APPLICATION
            && let What::Sent { .. } = what
        {
            let (rate, now) = (self.context.message_rate(key.app), Instant::now());
            let chat = self.slots.get_mut(&key).and_then(Slot::chat_mut).ok_or_else(policy::no_such_chat)?;
            chat.rates.take(by, rate, now).map_err(policy::too_fast)?;
        }
        self.append(key, by, what).await?;
        Ok(masked)
    }

    /// Puts a change at the end of the log, and into memory. A refusal means that it is surely not there.
    async fn append(&mut self, key: ChatKey, by: UserId, what: What) -> Result<(), Refusal> {
        let slot = self.slots.get(&key);
        let chat = slot.and_then(Slot::chat);
        let now = self.context.clock.now();
        let change = Arc::new(Change {
            app: key.app,
            chat: key.chat,
            term: self.tail.term(),
            n: self.tail.next_n(),
            seq: chat.map_or(0, |chat| chat.head.seq) + 1,
            at: chat.map_or(now, |chat| now.max(chat.last_at)),
            by,
            what,
        });
        let offset = self.tail.offset_of(change.n);
        // The record is encoded once: these bytes go to the log, to this node's sessions, and to other nodes.
        let payload = Record::encode_change(&change);
        let name = bytes::Bytes::copy_from_slice(&key.to_bytes());
        let receipt = self.context.log.append(self.partition, name, payload.clone()).await;
        let receipt = receipt.map_err(|error| refused(&error))?;
        self.context.metrics.appended.inc();
        self.held_bytes += payload.len();
        self.tail.push(Arc::clone(&change), payload.clone(), receipt);
        if change.of_membership() {
            self.announcements.insert(offset, Arc::clone(&change));
        }
        let now = Instant::now();
        let slot = self.slots.entry(key).or_default();
        let begins = slot.chat().is_none();
        if begins {
            slot.chat = Some(Chat::begin(&change, now).map(Box::new));
        }
        if let Some(chat) = slot.chat_mut() {
            chat.apply(Kept { offset, change, payload }, now);
            if let Some(pair) = chat.pair(key.app, by).filter(|_| begins) {
                // Somebody is about to write there, and should not wait for the store, which may be away by then.
                let relationships = self.context.relationships.clone();
                self.reads.spawn(async move { drop(relationships.read(pair).await) });
            }
        }
        Ok(())
    }

    /// The log has a record, and whatever else it has by now.
    fn all_confirmed(&mut self, first: Result<Confirmed, Lost>) -> Result<(), Lost> {
        self.confirmed(first?);
        while let Some(settled) = self.tail.settled_now() {
            self.confirmed(settled?);
        }
        Ok(())
    }

    /// The log has a record: it is shown, and who waited for it is answered.
    fn confirmed(&mut self, confirmed: Confirmed) {
        let Confirmed { change, payload, finished } = confirmed;
        self.context.metrics.confirmed.inc();
        let key = change.key();
        if let Some(chat) = self.slots.get_mut(&key).and_then(Slot::chat_mut) {
            chat.confirm(&change);
        }
        let (offset, seq) = (self.tail.offset_of(change.n), change.seq);
        let bytes = payload.len();
        self.context.tails.push(key, TailEntry { seq, offset, bytes: payload.clone() });
        self.context.outlet.publish(vec![key.into()], Live::Change(payload));
        // Behind the publishing: a mark speaks of what is on its way already.
        self.undrained.push(Lacking { offset, chat: key, seq, bytes });
        if let Some(place) = self.place.lock().as_mut() {
            place.to = offset + 1;
        }
        self.tell_position();
        for open in finished {
            self.await_store(open);
        }
    }
}

/// The message as it stands, from memory or as the store has it; none when its time is over.
fn known_message(chat: &Chat, job: &Job, number: u64) -> Option<Message> {
    let stored = job.message.clone().flatten();
    if stored.as_ref().is_some_and(|message| message.expired) {
        return None;
    }
    let message = match chat.message(number) {
        Known::Message(message) => *message,
        Known::Erased(_) | Known::Never => return None,
        Known::InStore => stored?,
    };
    Some(chat.with_reactions(message))
}
