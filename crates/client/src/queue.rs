//! A work queue of keys: each key is worked on by one worker at a time, added many times it is done once more, and a key
//! that failed comes back later and later.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Measures;

/// The first pause after a failure; it doubles each time (the values of upstream's rate limiter).
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

/// The queue. Clones share it.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    measures: Arc<Measures>,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and keys to add again when their worker is done; each with the time when it was added.
    wanted: HashMap<K, Instant>,
    /// Keys that are being worked on, each with the time since when.
    working: HashMap<K, Instant>,
    delayed: BinaryHeap<Delayed<K>>,
    failures: HashMap<K, u32>,
    closed: bool,
}

struct Delayed<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Delayed<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl<K> Eq for Delayed<K> {}
impl<K> PartialOrd for Delayed<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Delayed<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest first; the earliest must come first.
        other.at.cmp(&self.at)
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::measured(Arc::default())
    }

    pub(crate) fn measured(measures: Arc<Measures>) -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashMap::new(),
            working: HashMap::new(),
            delayed: BinaryHeap::new(),
            failures: HashMap::new(),
            closed: false,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), changed: Notify::new(), measures }) }
    }

    fn with<R>(&self, f: impl FnOnce(&mut State<K>) -> R) -> R {
        f(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a key.
    pub fn add(&self, key: K) {
        self.with(|s| s.add(key, &self.inner.measures));
        self.inner.changed.notify_one();
    }

    /// Adds a key after a pause.
    pub fn add_after(&self, key: K, pause: Duration) {
        self.with(|s| s.delayed.push(Delayed { at: Instant::now() + pause, key }));
        self.inner.changed.notify_one();
    }

    /// Adds a key that failed, after a pause that grows with each failure in a row.
    pub fn add_failed(&self, key: K) {
        self.inner.measures.retries.fetch_add(1, Ordering::Relaxed);
        let pause = self.with(|s| {
            let failures = s.failures.entry(key.clone()).or_insert(0);
            let pause = BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
            *failures = failures.saturating_add(1).min(31);
            pause
        });
        self.add_after(key, pause);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.with(|s| s.failures.remove(key));
    }

    /// The next key, which no one else gets until [`WorkQueue::done`]; `None` when the queue is closed.
    pub async fn next(&self) -> Option<K> {
        loop {
            let changed = self.inner.changed.notified();
            let wait = {
                let mut s = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
                if s.closed {
                    drop(s);
                    self.inner.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                while s.delayed.peek().is_some_and(|d| d.at <= now) {
                    if let Some(due) = s.delayed.pop() {
                        s.add(due.key, &self.inner.measures);
                    }
                }
                if let Some(key) = s.ready.pop_front() {
                    if let Some(since) = s.wanted.remove(&key) {
                        self.inner.measures.waited(now.duration_since(since));
                    }
                    self.inner.measures.depth.fetch_sub(1, Ordering::Relaxed);
                    s.working.insert(key.clone(), now);
                    if !s.ready.is_empty() {
                        self.inner.changed.notify_one();
                    }
                    return Some(key);
                }
                s.delayed.peek().map(|d| d.at)
            };
            match wait {
                Some(at) => {
                    tokio::select! { () = changed => {}, () = tokio::time::sleep_until(at) => {} }
                }
                None => changed.await,
            }
        }
    }

    /// Says that the work on a key is over. A key that was added meanwhile comes again.
    pub fn done(&self, key: &K) {
        self.with(|s| {
            if let Some(since) = s.working.remove(key) {
                self.inner.measures.worked(since.elapsed());
            }
            if s.wanted.contains_key(key) {
                s.ready.push_back(key.clone());
            }
        });
        self.inner.changed.notify_one();
    }

    /// Ends the queue: every [`WorkQueue::next`] returns `None`.
    pub fn close(&self) {
        self.with(|s| s.closed = true);
        self.inner.changed.notify_one();
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, measures: &Measures) {
        if self.wanted.contains_key(&key) {
            return;
        }
        measures.adds.fetch_add(1, Ordering::Relaxed);
        measures.depth.fetch_add(1, Ordering::Relaxed);
        self.wanted.insert(key.clone(), Instant::now());
        if !self.working.contains_key(&key) {
            self.ready.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_while_it_is_worked_on_comes_once_more_afterwards() {
        let q = WorkQueue::new();
        q.add("a");
        q.add("a");
        assert_eq!(q.next().await, Some("a"));
        q.add("a");
        q.add("b");
        assert_eq!(q.next().await, Some("b"), "a is still being worked on");
        q.done(&"a");
        assert_eq!(q.next().await, Some("a"));
        q.done(&"a");
        q.close();
        assert_eq!(q.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_comes_back_later_each_time() {
        let q = WorkQueue::new();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            q.add_failed("a");
            q.next().await;
            q.done(&"a");
            pauses.push(before.elapsed().as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 40]);
    }
}
