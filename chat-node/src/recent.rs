//! What changed in a partition since the store was read: asked of its owner for all sessions that begin at the same time with one
//! question.

use std::{collections::HashMap, sync::Arc};

use common::{
    ids::{ChatKey, Partition, Seq},
    wire::marks::LogPlace,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::deliver::Deliver;

/// Chats that changed, with their newest change.
pub(crate) type Changed = Arc<HashMap<ChatKey, Seq>>;

/// The questions of one node. One per partition is under way at most, and each session waits for one per partition.
#[derive(Debug)]
pub(crate) struct Recent(Vec<Mutex<Row>>);

#[derive(Debug, Default)]
struct Row {
    asking: bool,
    waiting: Vec<(LogPlace, oneshot::Sender<Option<Changed>>)>,
}

impl Recent {
    pub(crate) fn new(partitions: Partition) -> Self {
        Self((0..partitions).map(|_| Mutex::default()).collect())
    }
}

impl Deliver {
    /// The chats of a partition that changed since `from`, a place that the writers have reached: everything that was confirmed before
    /// this was asked. None when the owner does not say.
    pub(crate) async fn changed_since(&self, partition: Partition, from: LogPlace) -> Option<Changed> {
        let row = self.0.recent.0.get(usize::from(partition))?;
        let (tell, told) = oneshot::channel();
        let begin = {
            let mut row = row.lock();
            row.waiting.push((from, tell));
            !std::mem::replace(&mut row.asking, true)
        };
        if begin {
            self.0.tasks.spawn(self.clone().ask_what_changed(partition));
        }
        told.await.ok().flatten()
    }

    async fn ask_what_changed(self, partition: Partition) {
        let Some(row) = self.0.recent.0.get(usize::from(partition)) else { return };
        loop {
            let waiting = {
                let mut row = row.lock();
                row.asking = !row.waiting.is_empty();
                std::mem::take(&mut row.waiting)
            };
            // Whoever read the store first is told what the others know as well.
            let Some(from) = waiting.iter().map(|(from, _)| *from).min_by_key(|from| from.offset) else {
                return;
            };
            let since = tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                since = self.since(partition, Some(from)) => since,
            };
            let changed = since.filter(|since| since.complete);
            let changed: Option<Changed> = changed.map(|since| Arc::new(since.chats.into_iter().collect()));
            for (_, tell) in waiting {
                // Whoever asked may be gone.
                let _ = tell.send(changed.clone());
            }
        }
    }
}
