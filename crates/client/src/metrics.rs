//! Metrics in the text format of Prometheus: a page of them, durations, and what work queues tell.

use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::WorkQueue;

/// Text under way, with the heads of each metric.
#[derive(Debug, Default)]
pub struct Page(String);

impl std::fmt::Display for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Page {
    /// What a metric is.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of a metric.
    pub fn row(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// The rows of a histogram: its buckets, each with its bound, and the sum and the count of all.
    pub fn histogram<'b, B: std::fmt::Display>(
        &mut self,
        name: &str,
        labels: &str,
        buckets: impl Iterator<Item = (&'b u64, B)>,
        sum: impl std::fmt::Display,
        count: u64,
    ) {
        for (bucket, bound) in buckets {
            self.row(&format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), bucket);
        }
        self.row(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
        self.row(&format!("{name}_sum"), labels, sum);
        self.row(&format!("{name}_count"), labels, count);
    }
}

/// Durations by bucket, of which each has a bound in seconds. Each is counted in the lowest bucket that it fits into.
#[derive(Debug)]
pub struct Durations<const N: usize> {
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

/// Bounds of the times of work queues, in seconds (upstream's).
const QUEUE_SECONDS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

/// What one work queue has done.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    name: &'static str,
    /// Keys that wait.
    pub depth: AtomicI64,
    /// Keys that came to wait.
    pub adds: AtomicU64,
    /// Keys that failed and come again.
    pub retries: AtomicU64,
    waits: Durations<10>,
    works: Durations<10>,
}

impl Measures {
    /// A key has waited for this long.
    pub fn waited(&self, took: Duration) {
        self.waits.observe_in(&QUEUE_SECONDS, took);
    }

    /// A key has been worked on for this long.
    pub fn worked(&self, took: Duration) {
        self.works.observe_in(&QUEUE_SECONDS, took);
    }
}

/// The work queues of a process that are shown.
#[derive(Debug, Default)]
pub struct Queues(Mutex<Vec<Arc<Measures>>>);

impl Queues {
    /// A queue that is shown under this name.
    pub fn named<K: Clone + Eq + Hash>(&self, name: &'static str) -> WorkQueue<K> {
        let measures = Arc::new(Measures { name, ..Measures::default() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(measures.clone());
        WorkQueue::measured(measures)
    }

    /// The rows of the page of metrics.
    pub fn rows(&self, page: &mut Page) {
        let queues = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let labels = |queue: &Measures| format!("name=\"{}\"", queue.name);
        page.head("workqueue_depth", "gauge", "Keys that wait to be worked on, by queue.");
        for queue in &queues {
            page.row("workqueue_depth", &labels(queue), queue.depth.load(Ordering::Relaxed));
        }
        type Counter = fn(&Measures) -> &AtomicU64;
        let counters: [(&str, &str, Counter); 2] = [
            ("workqueue_adds_total", "Keys that came to wait, by queue.", |queue| &queue.adds),
            ("workqueue_retries_total", "Keys that failed and come again, by queue.", |queue| &queue.retries),
        ];
        for (name, help, counter) in counters {
            page.head(name, "counter", help);
            for queue in &queues {
                page.row(name, &labels(queue), counter(queue).load(Ordering::Relaxed));
            }
        }
        type Times = fn(&Measures) -> &Durations<10>;
        let times: [(&str, &str, Times); 2] = [
            ("workqueue_queue_duration_seconds", "How long keys waited, in seconds, by queue.", |queue| &queue.waits),
            ("workqueue_work_duration_seconds", "How long keys were worked on, in seconds, by queue.", |queue| {
                &queue.works
            }),
        ];
        for (name, help, times) in times {
            page.head(name, "histogram", help);
            for queue in &queues {
                times(queue).rows(page, name, &labels(queue), QUEUE_SECONDS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_tells_what_it_has_done() {
        let queues = Queues::default();
        let queue = queues.named("pods");
        queue.add("a");
        queue.add("a");
        queue.add("b");
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(queue.next().await, Some("a"));
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.done(&"a");
        queue.add_failed("a");
        let mut page = Page::default();
        queues.rows(&mut page);
        let page = page.to_string();
        for row in [
            "workqueue_depth{name=\"pods\"} 1",
            "workqueue_adds_total{name=\"pods\"} 2",
            "workqueue_retries_total{name=\"pods\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"pods\",le=\"0.01\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"pods\",le=\"0.1\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"pods\"} 2",
            "workqueue_work_duration_seconds_bucket{name=\"pods\",le=\"1\"} 0",
            "workqueue_work_duration_seconds_count{name=\"pods\"} 1",
        ] {
            assert!(page.lines().any(|line| line == row), "{row} in {page}");
        }
    }
}
