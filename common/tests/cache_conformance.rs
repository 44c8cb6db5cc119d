//! The cache's suite on the embedded engine. What is true of that one alone stands beside its parts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

use std::sync::Arc;

use async_trait::async_trait;
use common::cache::{SharedCache, conformance::Fixture, memory::MemoryCache};

struct Memory(Arc<MemoryCache>);

impl Memory {
    fn new() -> Self {
        Self(Arc::default())
    }
}

#[async_trait]
impl Fixture for Memory {
    async fn open(&self) -> SharedCache {
        Arc::<MemoryCache>::clone(&self.0)
    }
}

common::cache_conformance!(Memory::new());
