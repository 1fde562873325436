//! What the server does without being asked: forgets old history, and events that have had their time.

use std::sync::Arc;
use std::time::Duration;

use client::clock;
use object_model::{meta, time};
use store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::served::Served;
use crate::{ApiServer, stored};

/// How far back history reaches at least (upstream's compaction interval).
const COMPACT_EVERY: Duration = Duration::from_secs(300);

impl ApiServer {
    /// Runs until cancelled.
    pub(crate) async fn keep_up(self: Arc<Self>, cancel: CancellationToken) {
        let mut known = self.store.revision();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(COMPACT_EVERY) => {}
            }
            let before = known;
            known = self.store.revision();
            if let Err(error) = self.store.compact(before).await {
                tracing::warn!("compact the store: {error}");
            }
            for served in Served::built_in().filter(|s| s.is_stored() && !s.converts()) {
                if let Some(seconds) = served.hooks().time_to_live() {
                    self.expire(&served, i64::from(seconds)).await;
                }
            }
        }
    }

    /// Removes objects that were last written longer ago than their kind lives.
    async fn expire(&self, served: &Served, seconds: i64) {
        let now = clock::now().as_second();
        let Ok(range) = self.store.range(&served.prefix(), None, 0, None) else { return };
        for entry in range.entries {
            let object = match stored::decode(served, &entry) {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!("expire {}: {error}", entry.key);
                    continue;
                }
            };
            let touched = [&object["lastTimestamp"], &object["metadata"]["creationTimestamp"]];
            let newest = touched.iter().filter_map(|t| t.as_str().and_then(time::parse)).map(|t| t.as_second()).max();
            if newest.is_some_and(|at| now - at <= seconds) {
                continue;
            }
            match self.remove(served, meta::namespace(&object), meta::name(&object), entry.mod_revision).await {
                // Someone wrote it or removed it meanwhile: then it is not old, or gone.
                Ok(_) | Err(StoreError::Mismatch(_)) => {}
                Err(error) => tracing::warn!("expire {}: {error}", entry.key),
            }
        }
    }
}
