//! Follows ConfigMaps and Secrets that running pods have as files: one watch for each, however many pods have it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use client::{Client, ListParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::resource_of;
use crate::env::Source;

/// The pause before a watch that ended badly is opened again, and the longest it grows to.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

type Key = (String, Source);

/// All that is followed.
pub(crate) struct Follower {
    client: Client,
    tasks: TaskTracker,
    cancel: CancellationToken,
    followed: Mutex<BTreeMap<Key, Weak<Followed>>>,
}

/// One followed object. When the last one to hold this lets go, its watch ends.
pub(crate) struct Followed {
    changed: watch::Sender<()>,
    stop: CancellationToken,
}

impl Followed {
    /// Hears of every change from now on; once at the beginning, too.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Follower {
    /// Follows nothing yet. The watches run among `tasks` and end with `cancel`.
    pub(crate) fn new(client: Client, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self { client, tasks, cancel, followed: Mutex::default() }
    }

    /// Follows a source of a namespace.
    pub(crate) fn follow(&self, namespace: &str, source: &Source) -> Arc<Followed> {
        let key = (namespace.to_owned(), source.clone());
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followed.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        followed.retain(|_, known| known.strong_count() > 0);
        let stop = self.cancel.child_token();
        let fresh = Arc::new(Followed { changed: watch::Sender::new(()), stop: stop.clone() });
        followed.insert(key.clone(), Arc::downgrade(&fresh));
        self.tasks.spawn(run(self.client.clone(), key, Arc::downgrade(&fresh), stop));
        fresh
    }
}

async fn run(client: Client, (namespace, source): Key, followed: Weak<Followed>, stop: CancellationToken) {
    let (resource, name) = resource_of(&source);
    let params = ListParams { fields: format!("metadata.name={name}"), ..ListParams::default() };
    let mut pause = FIRST_PAUSE;
    loop {
        let watched = async {
            let mut watch = client.api(resource).watch(Some(&namespace), &params, "0").await?;
            while watch.next().await?.is_some() {
                let Some(followed) = followed.upgrade() else { return Ok(()) };
                followed.changed.send_replace(());
            }
            Ok::<_, object_model::ApiError>(())
        };
        let outcome = tokio::select! { () = stop.cancelled() => return, outcome = watched => outcome };
        match outcome {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                tracing::warn!("watch {source} in {namespace}: {error}");
                tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
