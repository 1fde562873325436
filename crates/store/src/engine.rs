//! [`LogStore`]: the store over a [`Log`]. Keys and values in memory, one writer thread that commits in groups.
//!
//! The writer is the only one to change anything. It takes all writes that wait, checks each against the state that those
//! before it leave, commits them in one step, and only then shows them to readers and watchers.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::log::{self, Garbage, Log, LogState, Record};
use crate::queue;
use crate::{Durability, Entry, Event, Expect, Op, RELAXED_FLUSH, Range, Store, StoreError, Watch, Write};

/// How far ahead of the newest revision the ceiling on disk is kept.
const CEILING_STEP: u64 = 10_000;
/// The most writes one commit takes together.
const GROUP_MAX: usize = 512;
/// The most events kept for watches and ranges of the past, and the most bytes of values in them.
const HISTORY_MAX: usize = 65_536;
const HISTORY_BYTES_MAX: usize = 8 << 20;

/// The store over a log.
pub struct LogStore {
    shared: Arc<Mutex<Shared>>,
    commands: mpsc::UnboundedSender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    revision: u64,
    /// Everything at or below this revision is forgotten.
    oldest: u64,
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    watchers: Vec<Watcher>,
    closed: bool,
}

struct Watcher {
    prefix: String,
    queue: queue::Sender,
}

enum Command {
    Write(Write, Answer),
    Compact(u64, oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<()>),
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A panic while the lock is held cannot leave a half-made change: changes are single assignments after all checks.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn remember(&mut self, event: Arc<Event>) {
        self.history_bytes += weight(&event);
        self.history.push_back(event);
        while self.history.len() > HISTORY_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(event) = self.history.pop_front() {
            self.history_bytes -= weight(&event);
            self.oldest = self.oldest.max(event.revision);
        }
    }

    fn apply(&mut self, event: &Arc<Event>) {
        match &event.current {
            Some(entry) => {
                self.entries.insert(event.key.clone(), entry.clone());
            }
            None => {
                self.entries.remove(event.key.as_ref());
            }
        }
        self.revision = event.revision;
    }

    fn publish(&mut self, event: &Arc<Event>) {
        self.watchers.retain(|w| !event.key.starts_with(&w.prefix) || w.queue.send(event));
    }

    fn events_after(&self, revision: u64) -> impl Iterator<Item = &Arc<Event>> {
        let from = self.history.partition_point(|e| e.revision <= revision);
        self.history.range(from..)
    }
}

fn weight(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, |e| e.value.len()) + 128
}

/// The first text after all that start with `prefix`; `None` if there is none. A range that ends there need not look at
/// each of its keys.
fn after_all(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    loop {
        let last = text.pop()?;
        // The next character, which is the range's own successor: not every number is a character.
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return Some(text);
        }
    }
}

impl LogStore {
    /// Reads the log and starts the writer.
    ///
    /// # Errors
    /// When the log cannot be read or the thread cannot be started.
    pub fn open(mut log: impl Log) -> Result<Arc<Self>> {
        let (state, records) = log.load()?;
        let mut shared = Shared { oldest: state.compacted, ..Shared::default() };
        let mut garbage = VecDeque::new();
        for record in records {
            let previous = shared.entries.get(record.key.as_ref()).cloned();
            garbage.extend(garbage_of(&record, previous.as_deref()));
            let event = Arc::new(event_of(&record, previous));
            shared.apply(&event);
            if record.revision > state.compacted {
                shared.remember(event);
            }
        }
        // Revisions between the last record and the ceiling may have been seen by clients before a crash.
        shared.revision = shared.revision.max(state.ceiling);
        let shared = Arc::new(Mutex::new(shared));
        let (commands, queue) = mpsc::unbounded_channel();
        let writer =
            Writer { log, state, shared: shared.clone(), queue, garbage, relaxed: Vec::new(), relaxed_since: None };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .context("start the store's writer thread")?;
        Ok(Arc::new(Self { shared, commands, writer: Mutex::new(Some(thread)) }))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

fn closed() -> StoreError {
    StoreError::Failed("the store is closed".to_owned())
}

fn event_of(record: &Record, previous: Option<Arc<Entry>>) -> Event {
    Event {
        revision: record.revision,
        key: record.key.clone(),
        previous,
        current: record.value.as_ref().map(|value| {
            Arc::new(Entry {
                key: record.key.clone(),
                value: value.clone(),
                create_revision: record.create_revision,
                mod_revision: record.revision,
            })
        }),
    }
}

/// What a record makes superfluous, and the revision that must be compacted first: the record it replaces, and itself if
/// it is a deletion.
fn garbage_of(record: &Record, previous: Option<&Entry>) -> impl Iterator<Item = (u64, Garbage)> {
    let garbage = |revision, value| (record.revision, Garbage { revision, size: log::size(record.key.len(), value) });
    let replaced = previous.map(|p| garbage(p.mod_revision, p.value.len()));
    let tombstone = record.value.is_none().then(|| garbage(record.revision, 0));
    replaced.into_iter().chain(tombstone)
}

struct Writer<L> {
    log: L,
    state: LogState,
    shared: Arc<Mutex<Shared>>,
    queue: mpsc::UnboundedReceiver<Command>,
    /// Records to remove, each with the revision that must be compacted first; rising.
    garbage: VecDeque<(u64, Garbage)>,
    /// Relaxed records that are shown but not on disk.
    relaxed: Vec<Record>,
    relaxed_since: Option<Instant>,
}

type Answer = oneshot::Sender<Result<Arc<Entry>, StoreError>>;
type Reply = (Answer, Arc<Entry>);

impl<L: Log> Writer<L> {
    fn run(mut self) {
        let mut waiting = Vec::with_capacity(GROUP_MAX);
        loop {
            let Some(first) = self.queue.blocking_recv() else { break };
            waiting.push(first);
            while waiting.len() < GROUP_MAX {
                match self.queue.try_recv() {
                    Ok(command) => waiting.push(command),
                    Err(_) => break,
                }
            }
            let mut writes = Vec::new();
            let mut close = None;
            for command in waiting.drain(..) {
                match command {
                    Command::Write(write, reply) => writes.push((write, reply)),
                    Command::Compact(revision, reply) => {
                        self.write_group(std::mem::take(&mut writes));
                        // A caller that went away does not need the answer.
                        drop(reply.send(self.compact(revision)));
                    }
                    Command::Close(reply) => close = Some(reply),
                }
            }
            self.write_group(writes);
            if let Some(reply) = close {
                self.finish();
                reply.send(()).ok();
                return;
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        if !self.relaxed.is_empty()
            && let Err(error) = self.commit(Vec::new(), &[])
        {
            tracing::error!("flush the store at its close: {error:#}");
        }
        let mut shared = lock(&self.shared);
        shared.closed = true;
        shared.watchers.clear();
    }

    /// Checks, commits and shows a group of writes, then answers each.
    fn write_group(&mut self, writes: Vec<(Write, Answer)>) {
        if writes.is_empty() {
            return;
        }
        let mut revision = lock(&self.shared).revision;
        let mut overlay: HashMap<Arc<str>, Option<Arc<Entry>>> = HashMap::new();
        let (mut records, mut events) = (Vec::new(), Vec::<Arc<Event>>::new());
        let mut replies: Vec<Reply> = Vec::new();
        let mut synced = false;
        for (write, reply) in writes {
            let current = match overlay.get(write.key.as_str()) {
                Some(entry) => entry.clone(),
                None => lock(&self.shared).entries.get(write.key.as_str()).cloned(),
            };
            let holds = match write.expect {
                Expect::Absent => current.is_none(),
                Expect::Revision(r) => current.as_ref().is_some_and(|e| e.mod_revision == r),
            };
            if !holds || (write.op == Op::Delete && current.is_none()) {
                drop(reply.send(Err(StoreError::Mismatch(current))));
                continue;
            }
            revision += 1;
            synced |= write.durability == Durability::Synced;
            let record = Record {
                revision,
                create_revision: current.as_ref().map_or(revision, |e| e.create_revision),
                key: current.as_ref().map_or_else(|| write.key.into(), |e| e.key.clone()),
                value: match write.op {
                    Op::Put(value) => Some(value),
                    Op::Delete => None,
                },
            };
            let event = Arc::new(event_of(&record, current.clone()));
            let shown = match (&event.current, current) {
                (Some(entry), _) => entry.clone(),
                (None, Some(old)) => Arc::new(Entry { mod_revision: revision, ..(*old).clone() }),
                (None, None) => continue,
            };
            overlay.insert(record.key.clone(), event.current.clone());
            self.garbage.extend(garbage_of(&record, event.previous.as_deref()));
            records.push(record);
            events.push(event);
            replies.push((reply, shown));
        }
        if events.is_empty() {
            return;
        }
        let due = self.relaxed_since.is_some_and(|since| since.elapsed() > RELAXED_FLUSH);
        if synced || due || revision >= self.state.ceiling {
            self.state.ceiling = self.state.ceiling.max(revision + CEILING_STEP);
            if let Err(error) = self.commit(records, &[]) {
                tracing::error!("{error:#}");
                let from = events[0].revision;
                self.garbage.retain(|(at, _)| *at < from);
                for (reply, _) in replies {
                    drop(reply.send(Err(StoreError::Failed(format!("{error:#}")))));
                }
                return;
            }
        } else {
            self.relaxed_since.get_or_insert_with(Instant::now);
            self.relaxed.extend(records);
        }
        {
            let mut shared = lock(&self.shared);
            for event in &events {
                shared.apply(event);
                shared.publish(event);
                shared.remember(event.clone());
            }
        }
        for (reply, entry) in replies {
            drop(reply.send(Ok(entry)));
        }
    }

    /// Writes the relaxed records and these in one durable step, and removes what is no longer wanted.
    fn commit(&mut self, records: Vec<Record>, remove: &[Garbage]) -> Result<()> {
        let relaxed = self.relaxed.len();
        self.relaxed.extend(records);
        // Of several relaxed writes of one key only the last needs to be kept. The others are not written at all, so that
        // nothing is to be removed of them.
        let before = &self.relaxed[..relaxed];
        let newest: HashMap<&str, u64> = before.iter().map(|r| (r.key.as_ref(), r.revision)).collect();
        let is_kept = |r: &Record| r.value.is_none() || newest.get(r.key.as_ref()) == Some(&r.revision);
        let skipped: HashSet<u64> = before.iter().filter(|r| !is_kept(r)).map(|r| r.revision).collect();
        let kept: Vec<&Record> = self.relaxed.iter().filter(|r| !skipped.contains(&r.revision)).collect();
        let remove: Vec<Garbage> = remove.iter().filter(|g| !skipped.contains(&g.revision)).copied().collect();
        match self.log.commit(self.state, &kept, &remove) {
            Ok(()) => {
                if !skipped.is_empty() {
                    self.garbage.retain(|(_, garbage)| !skipped.contains(&garbage.revision));
                }
                self.relaxed.clear();
                self.relaxed_since = None;
                Ok(())
            }
            Err(error) => {
                self.relaxed.truncate(relaxed);
                Err(error)
            }
        }
    }

    fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        let newest = lock(&self.shared).revision;
        if revision > newest {
            return Err(StoreError::Future { asked: revision, newest });
        }
        if revision <= self.state.compacted {
            return Ok(());
        }
        let due = self.garbage.partition_point(|(at, _)| *at <= revision);
        let remove: Vec<Garbage> = self.garbage.iter().take(due).map(|(_, garbage)| *garbage).collect();
        // Nothing on disk to remove: forget the history in memory and spare the disk a write.
        if !remove.is_empty() {
            let relaxed: HashSet<u64> = self.relaxed.iter().map(|r| r.revision).collect();
            if remove.iter().all(|garbage| relaxed.contains(&garbage.revision)) {
                let gone: HashSet<u64> = remove.iter().map(|garbage| garbage.revision).collect();
                self.relaxed.retain(|r| !gone.contains(&r.revision));
            } else {
                self.state.compacted = revision;
                self.commit(Vec::new(), &remove).map_err(|e| StoreError::Failed(format!("{e:#}")))?;
            }
            let left = self.garbage.partition_point(|(at, _)| *at <= revision);
            self.garbage.drain(..left);
        }
        let mut shared = lock(&self.shared);
        while shared.history.front().is_some_and(|e| e.revision <= revision) {
            shared.forget_first();
        }
        shared.oldest = shared.oldest.max(revision);
        Ok(())
    }
}

#[async_trait]
impl Store for LogStore {
    fn revision(&self) -> u64 {
        lock(&self.shared).revision
    }

    fn is_open(&self) -> bool {
        !lock(&self.shared).closed
    }

    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        lock(&self.shared).entries.get(key).cloned()
    }

    fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<u64>) -> Result<Range, StoreError> {
        let shared = lock(&self.shared);
        let revision = at.unwrap_or(shared.revision);
        if revision > shared.revision {
            return Err(StoreError::Future { asked: revision, newest: shared.revision });
        }
        if revision < shared.oldest {
            return Err(StoreError::Compacted { asked: revision, oldest: shared.oldest });
        }
        let start = after.filter(|key| *key >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let end = after_all(prefix);
        if let (Some(after), Some(end)) = (after, &end)
            && after >= end.as_str()
        {
            return Ok(Range { revision, entries: Vec::new(), remaining: 0 });
        }
        let now = shared.entries.range::<str, _>((start, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded)));
        let limit = if limit == 0 { usize::MAX } else { limit };
        if revision == shared.revision {
            let mut now = now;
            let entries: Vec<_> = now.by_ref().take(limit).map(|(_, e)| e.clone()).collect();
            return Ok(Range { revision, entries, remaining: now.count() });
        }
        // The past is the present with every later change undone, newest first.
        let mut past: BTreeMap<&str, &Arc<Entry>> = now.map(|(key, entry)| (key.as_ref(), entry)).collect();
        let later: Vec<_> = shared.events_after(revision).collect();
        for event in later.into_iter().rev() {
            if !event.key.starts_with(prefix) || after.is_some_and(|a| event.key.as_ref() <= a) {
                continue;
            }
            match &event.previous {
                Some(entry) => past.insert(&event.key, entry),
                None => past.remove(event.key.as_ref()),
            };
        }
        let total = past.len();
        let entries: Vec<_> = past.into_values().take(limit).cloned().collect();
        let remaining = total - entries.len();
        Ok(Range { revision, entries, remaining })
    }

    fn count(&self, prefix: &str) -> usize {
        self.count_up_to(prefix, usize::MAX)
    }

    fn count_up_to(&self, prefix: &str, most: usize) -> usize {
        let end = after_all(prefix);
        let range = (Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        lock(&self.shared).entries.range::<str, _>(range).take(most).count()
    }

    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError> {
        self.ask(|reply| Command::Write(write, reply)).await?
    }

    fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError> {
        let mut shared = lock(&self.shared);
        if shared.closed {
            return Err(closed());
        }
        if after > shared.revision {
            return Err(StoreError::Future { asked: after, newest: shared.revision });
        }
        if after < shared.oldest {
            return Err(StoreError::Compacted { asked: after, oldest: shared.oldest });
        }
        let backlog = shared.events_after(after).filter(|e| e.key.starts_with(prefix)).cloned().collect();
        let (queue, live) = queue::queue();
        shared.watchers.retain(|w| w.queue.is_read());
        shared.watchers.push(Watcher { prefix: prefix.to_owned(), queue });
        Ok(Watch { backlog, live })
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.ask(|reply| Command::Compact(revision, reply)).await?
    }

    async fn close(&self) {
        if self.ask(Command::Close).await.is_err() {
            return;
        }
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_is_after_all_that_start_alike() {
        assert_eq!(after_all("pods/a/").as_deref(), Some("pods/a0"));
        assert_eq!(after_all("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_all("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_all(""), None);
    }
}
