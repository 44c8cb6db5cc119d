//! When users were there last (PR-1).

use async_trait::async_trait;

use super::Result;
use crate::{ids::UserKey, time::Millis};

/// When users were connected last: written when somebody goes offline, and kept when the cache is not.
#[async_trait]
pub trait Seen: Send + Sync {
    /// Notes when users were connected last; an earlier time than the noted one changes nothing. Of who was erased, be it at the same moment,
    /// nothing is noted. At most 1,000, in one transaction.
    async fn note_seen(&self, seen: &[(UserKey, Millis)]) -> Result<()>;

    /// When these users (at most 1,000) were seen last, in no order; who was never noted is missing.
    async fn last_seen(&self, users: &[UserKey]) -> Result<Vec<(UserKey, Millis)>>;
}
