//! Takes away what nobody refers to: uploads that were never sent, or whose messages were deleted, and what is left of uploads that broke
//! off. Any number of nodes may do it at once.

use std::time::Duration;

use common::store::StoreError;
use tokio_util::sync::CancellationToken;

use super::{Attachments, objects::Failed};

/// How many are looked at in one transaction.
const TOGETHER: u32 = 200;

/// Rounds that follow each other at once when there is more to do.
const ROUNDS: usize = 50;

/// Why a round broke off. The next one goes on where it was.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Objects(#[from] Failed),
}

impl Attachments {
    /// Sweeps from time to time, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.0.objects.is_none() {
            return shutdown.cancelled().await;
        }
        let mean = self.0.settings.sweep_every();
        loop {
            // Nodes that start together do not sweep together.
            let pause = mean.mul_f64(0.5 + rand::random::<f64>());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let swept = shutdown.run_until_cancelled(self.sweep()).await;
            if let Some(Err(error)) = swept {
                tracing::warn!(%error, "unused attachments could not be collected; it is tried again later");
            }
        }
    }

    async fn sweep(&self) -> Result<(), Broken> {
        let Some(objects) = &self.0.objects else { return Ok(()) };
        let (store, settings) = (&self.0.store, &self.0.settings);
        let now = self.0.clock.now();
        let ago = |seconds: u64| now.minus(Duration::from_secs(seconds));
        let unused = ago(settings.unused_after);
        for _ in 0..ROUNDS {
            if store.drop_unused(unused, now, TOGETHER).await? < TOGETHER {
                break;
            }
        }
        // An upload is given up long before.
        let broken_off = ago(settings.upload_time.saturating_mul(2));
        for _ in 0..ROUNDS {
            let loose = store.loose_objects(broken_off, TOGETHER).await?;
            for (app, object) in &loose {
                objects.delete(*app, *object).await?;
                store.forget_object(*app, *object).await?;
            }
            if loose.len() < TOGETHER as usize {
                break;
            }
            tracing::info!(count = loose.len(), "unused attachments were collected");
        }
        Ok(())
    }
}
