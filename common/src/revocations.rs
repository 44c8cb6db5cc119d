//! Sign-ins that were ended before their token expired. Every service that checks tokens polls the store's numbered rows
//! each second; a hint makes it look at once.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{AppId, SessionId},
    store::{Revocation, SharedStore},
};

/// What is known of ended sign-ins. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<()>);

impl Revocations {
    /// Reads all that still matter, so that nothing revoked is let in at start. Retries until the store answers or `shutdown`.
    pub async fn load(_store: SharedStore, _shutdown: &CancellationToken) -> Option<Self> {
        todo!()
    }

    /// Polls each second, and when hinted, until `shutdown`. What is past its token's expiry is forgotten.
    pub async fn run(self, _shutdown: CancellationToken) {
        todo!()
    }

    /// Whether this sign-in was ended.
    pub fn contains(&self, _app: AppId, _session: SessionId) -> bool {
        todo!()
    }

    /// Look now.
    pub fn hint(&self) {
        todo!()
    }

    /// Each newly seen one. A receiver that lags must compare what it holds with [`Self::contains`].
    pub fn subscribe(&self) -> broadcast::Receiver<Revocation> {
        todo!()
    }
}
