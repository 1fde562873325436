//! `/metrics`: what the server has done, in the text format and under the names that dashboards of Kubernetes read.

pub(crate) mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::metrics::{Durations, Page};
use hashbrown::{Equivalent, HashMap};

use crate::ApiServer;
use crate::admission::measures::Measures;
use crate::metrics::others::Others;
use crate::request::ResourceRequest;
use crate::served::Served;

/// Bounds of the buckets of durations, in seconds (upstream's).
const SECONDS: [f64; 20] =
    [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0];

/// Bounds of the buckets of sizes, in bytes (upstream's).
const BYTES: [u64; 7] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// What requests are told apart by: as it is kept, or as a request has it, so that counting one copies nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Kind<Text> {
    verb: &'static str,
    group: Text,
    version: Text,
    resource: Text,
    subresource: Text,
    scope: &'static str,
}

impl Equivalent<Kind<String>> for Kind<&str> {
    fn equivalent(&self, other: &Kind<String>) -> bool {
        (self.verb, self.scope) == (other.verb, other.scope)
            && self.resource == other.resource
            && self.group == other.group
            && self.version == other.version
            && self.subresource == other.subresource
    }
}

impl From<&Kind<&str>> for Kind<String> {
    fn from(kind: &Kind<&str>) -> Self {
        Self {
            verb: kind.verb,
            group: kind.group.to_owned(),
            version: kind.version.to_owned(),
            resource: kind.resource.to_owned(),
            subresource: kind.subresource.to_owned(),
            scope: kind.scope,
        }
    }
}

/// Counts and times of the requests of one kind.
#[derive(Debug, Default)]
struct Requests {
    by_code: BTreeMap<u16, u64>,
    buckets: [u64; SECONDS.len()],
    count: u64,
    seconds: f64,
    /// Of the answers whose size was known at once.
    sizes: [u64; BYTES.len()],
    sized: u64,
    bytes: u64,
}

/// The watches of a resource.
#[derive(Debug, Default)]
struct Watches {
    open: AtomicI64,
    events: AtomicU64,
    bytes: AtomicU64,
    /// Events by size, those beyond the last bound at the end.
    sizes: [AtomicU64; EVENT_SIZES + 1],
    /// How long the state at the start took to be sent.
    states: Durations<STATES>,
}

/// How many bounds the sizes of events have: 1 KiB and its doubles (upstream's).
pub(crate) const EVENT_SIZES: usize = 8;

/// The bucket of an event of a size.
pub(crate) fn size_bucket(bytes: usize) -> usize {
    (0..EVENT_SIZES).find(|power| bytes <= 1024 << power).unwrap_or(EVENT_SIZES)
}

/// How many bounds there are for the state at the start of a watch, and which, in seconds (upstream's).
const STATES: usize = 17;
const STATE_SECONDS: [f64; STATES] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// A resource: its group, version and plural name.
type Name = (String, String, String);

/// The counters of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<HashMap<Kind<String>, Requests>>,
    reading: AtomicI64,
    mutating: AtomicI64,
    watches: Mutex<BTreeMap<Name, Arc<Watches>>>,
    /// What somebody asked for though it is deprecated.
    deprecated: Mutex<BTreeSet<(Name, String)>>,
    /// Credentials that were good, and that were not.
    authenticated: [AtomicU64; 2],
    /// Of those who have a say in requests.
    pub admission: Measures,
    /// Of what happens seldom, and of the store.
    pub others: Others,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are single numbers: a panic leaves none half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request under way.
pub(crate) struct InFlight<'m> {
    metrics: &'m Metrics,
    counter: &'m AtomicI64,
    verb: &'static str,
    answered: bool,
}

impl InFlight<'_> {
    /// The request has its answer.
    pub fn end(mut self) {
        self.answered = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.metrics.others.abort(self.verb);
        }
    }
}

/// A watch that goes on. Counted until it is dropped.
pub(crate) struct OpenWatch {
    server: Arc<ApiServer>,
    watches: Arc<Watches>,
}

impl OpenWatch {
    /// The server that is watched.
    pub fn server(&self) -> &Arc<ApiServer> {
        &self.server
    }

    /// Counts events that are sent: how many there are of each size, and how long they are together.
    pub fn count_events(&self, sizes: &[u32; EVENT_SIZES + 1], bytes: u64) {
        self.watches.events.fetch_add(sizes.iter().copied().map(u64::from).sum(), Ordering::Relaxed);
        self.watches.bytes.fetch_add(bytes, Ordering::Relaxed);
        for (counter, count) in self.watches.sizes.iter().zip(sizes).filter(|(_, count)| **count > 0) {
            counter.fetch_add(u64::from(*count), Ordering::Relaxed);
        }
    }

    /// Counts the state at the start of a watch that was sent.
    pub fn count_state(&self, took: Duration) {
        self.watches.states.observe_in(&STATE_SECONDS, took);
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.watches.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// Counts a watch of a resource; `None` when the server is on its way out.
    pub(crate) fn open_watch(&self, served: &Served) -> Option<OpenWatch> {
        let server = self.me.upgrade()?;
        let name = (served.group().to_owned(), served.version().to_owned(), served.plural().to_owned());
        let watches = lock(&self.metrics.watches).entry(name).or_default().clone();
        watches.open.fetch_add(1, Ordering::Relaxed);
        Some(OpenWatch { server, watches })
    }
}

impl Metrics {
    /// Counts a request as under way until the value is dropped.
    pub fn begin(&self, verb: &str) -> InFlight<'_> {
        let reads = matches!(verb, "get" | "list" | "watch");
        let counter = if reads { &self.reading } else { &self.mutating };
        counter.fetch_add(1, Ordering::Relaxed);
        InFlight { metrics: self, counter, verb: shown_verb(verb), answered: false }
    }

    /// Counts a request that has been answered.
    pub fn observe(&self, request: &ResourceRequest, code: u16, took: Duration, size: Option<u64>) {
        let scope = match (request.name.is_empty(), request.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let kind = Kind {
            verb: shown_verb(request.verb),
            group: request.group.as_str(),
            version: request.version.as_str(),
            resource: request.resource.as_str(),
            subresource: request.subresource.as_str(),
            scope,
        };
        let seconds = took.as_secs_f64();
        let mut requests = lock(&self.requests);
        let requests = match requests.get_mut(&kind) {
            Some(requests) => requests,
            None => requests.entry(Kind::from(&kind)).or_default(),
        };
        *requests.by_code.entry(code).or_default() += 1;
        requests.count += 1;
        requests.seconds += seconds;
        for (bucket, bound) in requests.buckets.iter_mut().zip(SECONDS) {
            *bucket += u64::from(seconds <= bound);
        }
        if let Some(size) = size {
            requests.sized += 1;
            requests.bytes += size;
            for (bucket, bound) in requests.sizes.iter_mut().zip(BYTES) {
                *bucket += u64::from(size <= bound);
            }
        }
    }

    /// Notes that something deprecated was asked for.
    pub fn note_deprecated(&self, served: &Served, subresource: &str) {
        let name = (served.group().to_owned(), served.version().to_owned(), served.plural().to_owned());
        lock(&self.deprecated).insert((name, subresource.to_owned()));
    }

    /// Counts credentials that were looked at.
    pub fn count_authentication(&self, good: bool) {
        self.authenticated[usize::from(!good)].fetch_add(1, Ordering::Relaxed);
    }
}

/// The verb as the metrics name it.
fn shown_verb(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    }
}

impl ApiServer {
    /// The page of metrics, in the text format of Prometheus.
    pub(crate) fn metrics_page(&self) -> String {
        let mut page = Page::default();
        self.request_rows(&mut page);
        page.head("apiserver_current_inflight_requests", "gauge", "Requests being answered, by kind of request.");
        for (kind, counter) in [("mutating", &self.metrics.mutating), ("readOnly", &self.metrics.reading)] {
            let labels = format!("request_kind=\"{kind}\"");
            page.row("apiserver_current_inflight_requests", &labels, counter.load(Ordering::Relaxed));
        }
        let name = "apiserver_longrunning_requests";
        page.head(name, "gauge", "Watches that go on, by resource.");
        let watches = lock(&self.metrics.watches).clone();
        for ((group, version, resource), watches) in &watches {
            let labels = format!("group=\"{group}\",resource=\"{resource}\",verb=\"WATCH\",version=\"{version}\"");
            page.row(name, &labels, watches.open.load(Ordering::Relaxed));
        }
        let name = "apiserver_watch_events_total";
        page.head(name, "counter", "Events that were sent to watchers, by resource.");
        for ((group, version, resource), watches) in &watches {
            let labels = format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
            page.row(name, &labels, watches.events.load(Ordering::Relaxed));
        }
        let name = "apiserver_watch_events_sizes";
        page.head(name, "histogram", "Sizes of the events that were sent to watchers, in bytes.");
        for ((group, version, resource), watches) in &watches {
            let labels = format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
            let mut sum = 0;
            let sizes: Vec<u64> = (watches.sizes.iter())
                .map(|one| {
                    sum += one.load(Ordering::Relaxed);
                    sum
                })
                .collect();
            let bounds = (0..EVENT_SIZES).map(|power| 1024_u64 << power);
            page.histogram(name, &labels, sizes.iter().zip(bounds), watches.bytes.load(Ordering::Relaxed), sum);
        }
        let name = "apiserver_watch_list_duration_seconds";
        page.head(name, "histogram", "How long the state at the start of watches took to be sent, in seconds.");
        for ((group, version, resource), watches) in watches.iter().filter(|(_, watches)| !watches.states.is_empty()) {
            let labels = format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
            watches.states.rows(&mut page, name, &labels, STATE_SECONDS);
        }
        let name = "apiserver_requested_deprecated_apis";
        page.head(name, "gauge", "Deprecated resources that somebody has asked for.");
        for ((group, version, resource), subresource) in lock(&self.metrics.deprecated).iter() {
            let sub = format!("subresource=\"{subresource}\",version=\"{version}\"");
            page.row(name, &format!("group=\"{group}\",removed_release=\"\",resource=\"{resource}\",{sub}"), 1);
        }
        let name = "authentication_attempts";
        page.head(name, "counter", "Credentials that were looked at, by what came of it.");
        for (count, result) in self.metrics.authenticated.iter().zip(["success", "failure"]) {
            page.row(name, &format!("result=\"{result}\""), count.load(Ordering::Relaxed));
        }
        let name = "aggregator_unavailable_apiservice";
        page.head(name, "gauge", "Whether an aggregated API does not answer.");
        for remote in self.catalogue().remotes() {
            let labels = format!("name=\"{}.{}\"", remote.version, remote.group);
            page.row(name, &labels, u8::from(!remote.available));
        }
        let stored: Vec<(Served, usize)> = self
            .catalogue()
            .all()
            .filter(|served| served.is_stored() && (served.is_custom() || !served.converts()))
            .map(|served| (served.clone(), self.store.count(&served.prefix())))
            .collect();
        page.head("apiserver_storage_objects", "gauge", "Objects that are stored, by resource.");
        for (served, count) in &stored {
            let resource = object_model::group_resource(served.group(), served.plural());
            page.row("apiserver_storage_objects", &format!("resource=\"{resource}\""), count);
        }
        page.head("apiserver_resource_objects", "gauge", "Objects that are stored, by group and resource.");
        for (served, count) in &stored {
            let labels = format!("group=\"{}\",resource=\"{}\"", served.group(), served.plural());
            page.row("apiserver_resource_objects", &labels, count);
        }
        self.fairness.rows(&mut page);
        self.metrics.admission.rows(&mut page);
        self.metrics.others.rows(&mut page, &self.address);
        self.queues.rows(&mut page);
        self.storage_rows(&mut page);
        process_rows(&mut page);
        page.to_string()
    }

    fn request_rows(&self, page: &mut Page) {
        let requests = lock(&self.metrics.requests);
        let mut requests: Vec<_> = requests.iter().collect();
        requests.sort_by_key(|(kind, _)| *kind);
        let name = "apiserver_request_total";
        page.head(name, "counter", "Requests that were answered, by verb, resource, scope and code.");
        for (kind, counts) in &requests {
            for (code, count) in &counts.by_code {
                let labels = format!(
                    "code=\"{code}\",dry_run=\"\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                    kind.group, kind.resource, kind.scope, kind.subresource, kind.verb, kind.version
                );
                page.row(name, &labels, count);
            }
        }
        let name = "apiserver_request_terminations_total";
        page.head(name, "counter", "Requests that the server ended by itself: it had too many, or they took too long.");
        for (kind, counts) in &requests {
            for (code, count) in counts.by_code.iter().filter(|(code, _)| matches!(code, 429 | 504)) {
                let labels = format!(
                    "code=\"{code}\",component=\"apiserver\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                    kind.group, kind.resource, kind.scope, kind.subresource, kind.verb, kind.version
                );
                page.row(name, &labels, count);
            }
        }
        let name = "apiserver_response_sizes";
        page.head(name, "histogram", "Sizes of answers, in bytes, by verb, resource and scope.");
        for (kind, counts) in requests.iter().filter(|(_, counts)| counts.sized > 0) {
            let labels = format!(
                "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                kind.group, kind.resource, kind.scope, kind.subresource, kind.verb, kind.version
            );
            let sizes = counts.sizes.iter().zip(BYTES);
            page.histogram(name, &labels, sizes, counts.bytes, counts.sized);
        }
        for name in ["apiserver_request_duration_seconds", "apiserver_request_sli_duration_seconds"] {
            page.head(name, "histogram", "How long answers took, in seconds, by verb, resource and scope.");
            for (kind, counts) in requests.iter().filter(|(kind, _)| kind.verb != "WATCH") {
                let labels = format!(
                    "dry_run=\"\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                    kind.group, kind.resource, kind.scope, kind.subresource, kind.verb, kind.version
                );
                let times = counts.buckets.iter().zip(SECONDS);
                page.histogram(name, &labels, times, counts.seconds, counts.count);
            }
        }
    }
}

/// What the kernel tells of this process (proc(5)).
fn process_rows(page: &mut Page) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // Ticks are hundredths of a second and pages 4 KiB on every platform that knarr runs on.
    let rows = [
        ("process_cpu_seconds_total", "counter", "Processor time used, in seconds.", (field(14) + field(15)) / 100.0),
        ("process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", field(24) * 4096.0),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes.", field(23)),
        ("process_open_fds", "gauge", "Open file descriptors.", open_files()),
    ];
    for (name, kind, help, value) in rows {
        page.head(name, kind, help);
        page.row(name, "", value);
    }
}

fn open_files() -> f64 {
    std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_code() {
        let metrics = Metrics::default();
        let request = ResourceRequest {
            verb: "list",
            group: String::new(),
            version: "v1".into(),
            namespace: "a".into(),
            resource: "pods".into(),
            name: String::new(),
            subresource: String::new(),
        };
        let one = metrics.begin("list");
        assert_eq!(metrics.reading.load(Ordering::Relaxed), 1);
        one.end();
        assert_eq!(metrics.reading.load(Ordering::Relaxed), 0);
        metrics.observe(&request, 200, Duration::from_millis(30), Some(2_000));
        metrics.observe(&request, 404, Duration::from_secs(2), None);
        let requests = lock(&metrics.requests);
        let (kind, counts) = requests.iter().next().expect("a kind");
        assert_eq!((kind.verb, kind.scope, counts.count), ("LIST", "namespace", 2));
        assert_eq!((counts.buckets[1], counts.buckets[2], counts.buckets[11]), (0, 1, 2));
        assert_eq!(counts.by_code[&404], 1);
        assert_eq!((counts.sized, counts.bytes, counts.sizes[0], counts.sizes[1]), (1, 2_000, 0, 1));
    }
}
