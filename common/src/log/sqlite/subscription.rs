//! A member of a group: what it was given, and how far it is.

use std::{collections::BTreeMap, ops::Bound};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

use super::reader::Reader;
use crate::{
    ids::{Offset, Partition},
    log::{Delivery, LogError, ReadError, ReadLimit, Subscription, group::Membership},
};

#[derive(Debug)]
pub(super) struct SqliteSubscription {
    membership: Membership,
    reader: Reader,
    ends: watch::Receiver<Vec<Offset>>,
    /// What is assigned; where it stands once it is started.
    positions: BTreeMap<Partition, Option<Offset>>,
    /// Who was served last: the search for the next begins behind it, so that a busy partition does not starve the others.
    served: Partition,
}

impl SqliteSubscription {
    pub(super) fn new(membership: Membership, reader: Reader) -> Self {
        let ends = reader.ends();
        Self { membership, reader, ends, positions: BTreeMap::new(), served: 0 }
    }

    /// A started partition that does not stand at its end.
    fn ready(&mut self) -> Option<(Partition, Offset)> {
        let ends = self.ends.borrow_and_update();
        let behind = (Bound::Excluded(self.served), Bound::Unbounded);
        self.positions.range(behind).chain(self.positions.range(..=self.served)).find_map(
            |(partition, position)| {
                let position = (*position)?;
                let end = ends.get(usize::from(*partition))?;
                (position != *end).then_some((*partition, position))
            },
        )
    }
}

#[async_trait]
impl Subscription for SqliteSubscription {
    async fn next(&mut self) -> Result<Delivery, LogError> {
        loop {
            if self.ends.has_changed().is_err() {
                return Err(LogError::Closed);
            }
            if let Some(delivery) = self.membership.step(Instant::now()) {
                match &delivery {
                    Delivery::Assigned(partitions) => {
                        self.positions.extend(partitions.iter().map(|partition| (*partition, None)));
                    }
                    Delivery::Revoked(partitions) => {
                        self.positions.retain(|partition, _| !partitions.contains(partition));
                    }
                    Delivery::Records { .. } => {}
                }
                return Ok(delivery);
            }
            if let Some((partition, from)) = self.ready() {
                match self.reader.read(partition, from, ReadLimit::BATCH).await {
                    Ok(entries) => {
                        let Some(last) = entries.last() else { continue };
                        self.positions.insert(partition, Some(last.offset + 1));
                        self.served = partition;
                        return Ok(Delivery::Records { partition, entries });
                    }
                    Err(ReadError::Closed) => return Err(LogError::Closed),
                    Err(error) => {
                        self.stop(partition);
                        return Err(error.into());
                    }
                }
            }
            tokio::select! {
                changed = self.ends.changed() => changed.map_err(|_| LogError::Closed)?,
                () = self.membership.changed() => {}
            }
        }
    }

    fn start(&mut self, partition: Partition, from: Offset) -> Result<(), LogError> {
        let position = self.positions.get_mut(&partition).ok_or(LogError::NotAssigned(partition))?;
        *position = Some(from);
        Ok(())
    }

    fn stop(&mut self, partition: Partition) {
        if let Some(position) = self.positions.get_mut(&partition) {
            *position = None;
        }
    }
}
