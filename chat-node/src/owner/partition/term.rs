//! One term of a partition: what is in this node's hands, and serving it until it is given up or lost.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use common::{
    ids::{ChatKey, Offset, Partition},
    wire::{
        marks::{LogPlace, Place},
        owner::{Answer, Ask},
        peer::Live,
        record::Change,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Context,
        chat::{Chat, KEPT_DRAINED},
        publish::{Lost, Tail},
        queue::{CHAT_QUEUE, Job, Open, Slot},
        retry_later,
        since::{Lacking, Undrained, Whereabouts},
        takeover::Taken,
    },
    FLUSH,
    needs::Fetch,
};

/// How often memory is looked through for what is no longer needed.
const TIDY: Duration = Duration::from_secs(5);

/// A partition in this node's hands: one term of it.
pub(super) struct Owned {
    pub(super) context: Arc<Context>,
    pub(super) partition: Partition,
    /// Whether this node is named for it still.
    pub(super) named: watch::Receiver<bool>,
    pub(super) since: Instant,
    pub(super) tail: Tail,
    pub(super) slots: HashMap<ChatKey, Slot>,
    /// Everything before is in the store, and where the rule of terms stands there.
    pub(super) drained: LogPlace,
    pub(super) undrained: Undrained,
    pub(super) place: Whereabouts,
    /// Bytes of all changes in memory, drained ones included, roughly: counted up by appends, counted anew when memory is tidied.
    pub(super) held_bytes: usize,
    /// Confirmed requests that wait for the store.
    pub(super) unstored: BTreeMap<Offset, Vec<Open>>,
    /// What is said once it is stored.
    pub(super) announcements: BTreeMap<Offset, Arc<Change>>,
    pub(super) fetches: JoinSet<Fetch>,
    /// Answers that are being read from the log.
    pub(super) reads: JoinSet<()>,
}

impl Owned {
    pub(super) fn new(
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
    pub(super) async fn serve(
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
    pub(super) fn abandon(&mut self) {
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
    pub(super) async fn advance(&mut self, key: ChatKey) {
        while *self.named.borrow()
            && let ControlFlow::Continue(job) = self.next_job(key)
        {
            self.execute(key, job).await;
        }
    }

    pub(super) fn chat(&self, key: ChatKey) -> Option<&Chat> {
        self.slots.get(&key).and_then(Slot::chat)
    }
}
