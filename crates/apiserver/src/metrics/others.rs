//! Metrics of the store, and of what happens seldom.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use client::metrics::{Durations, Page};
use http::{Method, StatusCode};

use super::lock;
use crate::ApiServer;

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
    /// Requests from inside the process, by method and code.
    inside: Mutex<BTreeMap<(&'static str, u16), u64>>,
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

    /// Counts a request that came from inside the process.
    pub fn inside(&self, method: &Method, code: StatusCode) {
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().find(|known| *known == method.as_str());
        *lock(&self.inside).entry((known.unwrap_or("OTHER"), code.as_u16())).or_default() += 1;
    }

    /// The rows of the page of metrics.
    pub fn rows(&self, page: &mut Page, host: &str) {
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
        let name = "rest_client_requests_total";
        page.head(name, "counter", "Requests of the components in the same process, by method and code.");
        for ((method, code), count) in lock(&self.inside).iter() {
            page.row(name, &format!("code=\"{code}\",host=\"{host}\",method=\"{method}\""), count);
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
