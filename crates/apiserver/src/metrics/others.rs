//! Metrics of the store, and of what happens seldom.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::{Page, lock};
use crate::ApiServer;

/// Durations by bucket, of which each has a bound in seconds. Each is counted in the lowest bucket that it fits into.
#[derive(Debug)]
pub(crate) struct Durations<const N: usize> {
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    nanos: AtomicU64,
}

impl<const N: usize> Default for Durations<N> {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Durations<N> {
    /// Counts a duration among these bounds.
    pub fn observe_in(&self, bounds: &[f64; N], took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = bounds.iter().position(|bound| seconds <= *bound);
        bucket.map_or(&self.beyond, |bucket| &self.buckets[bucket]).fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().chain([&self.beyond]).all(|bucket| bucket.load(Ordering::Relaxed) == 0)
    }

    /// The rows of the histogram.
    pub fn rows(&self, page: &mut Page, name: &str, labels: &str, bounds: [f64; N]) {
        let mut count = 0;
        let cumulative: Vec<u64> = (self.buckets.iter())
            .map(|bucket| {
                count += bucket.load(Ordering::Relaxed);
                count
            })
            .collect();
        count += self.beyond.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is no exact number")]
        let seconds = self.nanos.load(Ordering::Relaxed) as f64 / 1e9;
        page.histogram(name, labels, cumulative.iter().zip(bounds), seconds, count);
    }
}

/// Bounds of the times of the store, in seconds (upstream's).
const STORE_SECONDS: [f64; 16] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];

/// What a write does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored {
    /// A new object.
    Create,
    /// A new state of an object.
    Update,
    /// Its end.
    Delete,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Others {
    writes: [Durations<16>; 3],
    /// Requests whose client went away before its answer, by verb.
    aborted: Mutex<BTreeMap<&'static str, u64>>,
    /// Aggregated APIs that were found not to answer, by name and reason.
    unavailable: Mutex<BTreeMap<(String, &'static str), u64>>,
    /// Where the store lies on the disk.
    store: OnceLock<std::path::PathBuf>,
}

impl Others {
    /// Counts a write that the store has carried out.
    pub fn wrote(&self, what: Stored, took: Duration) {
        self.writes[what as usize].observe_in(&STORE_SECONDS, took);
    }

    /// Counts a request whose client did not wait for its answer.
    pub fn abort(&self, verb: &'static str) {
        *lock(&self.aborted).entry(verb).or_default() += 1;
    }

    /// Counts that an aggregated API was found not to answer.
    pub fn unavailable(&self, name: &str, reason: &'static str) {
        *lock(&self.unavailable).entry((name.to_owned(), reason)).or_default() += 1;
    }

    /// The rows of the page of metrics.
    pub fn rows(&self, page: &mut Page) {
        let name = "etcd_request_duration_seconds";
        page.head(name, "histogram", "How long the store took for a write, in seconds.");
        for (durations, operation) in self.writes.iter().zip(["create", "update", "delete"]) {
            durations.rows(page, name, &format!("operation=\"{operation}\""), STORE_SECONDS);
        }
        let name = "apiserver_request_aborts_total";
        page.head(name, "counter", "Requests whose client went away before its answer, by verb.");
        for (verb, count) in lock(&self.aborted).iter() {
            page.row(name, &format!("verb=\"{verb}\""), count);
        }
        let name = "aggregator_unavailable_apiservice_total";
        page.head(name, "counter", "How often an aggregated API was found not to answer, by reason.");
        for ((service, reason), count) in lock(&self.unavailable).iter() {
            page.row(name, &format!("name=\"{service}\",reason=\"{reason}\""), count);
        }
    }
}

impl ApiServer {
    /// Says where the store lies on the disk, so that the metrics tell its size. Later calls change nothing.
    pub fn set_store_directory(&self, path: std::path::PathBuf) {
        // Said twice only by a caller that is wrong, and then the first word holds.
        let _ = self.metrics.others.store.set(path);
    }

    pub(super) fn storage_rows(&self, page: &mut Page) {
        let Some(files) = self.metrics.others.store.get().and_then(|path| std::fs::read_dir(path).ok()) else { return };
        let size: u64 = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum();
        let name = "apiserver_storage_size_bytes";
        page.head(name, "gauge", "The size of the store on the disk, in bytes.");
        page.row(name, "storage_cluster_id=\"etcd-0\"", size);
    }
}
