//! The store: a revisioned log of keys and bytes behind one trait, [`Store`].
//!
//! Every write gets the next revision of one counter for all keys; a watch replays and follows the log from a revision;
//! a range reads the newest state, or that of a revision which is not compacted yet. The store knows no objects.
//!
//! # Contract
//! - A [`Durability::Synced`] write that was acknowledged survives a power cut.
//! - A [`Durability::Relaxed`] write (a heartbeat) is visible at once but reaches the disk with the next synced write, or
//!   after [`RELAXED_FLUSH`], or at [`Store::close`]. A crash may lose it; the revision it had is never given out again.
//! - Revisions only rise, also over a crash: a ceiling above all revisions handed out is kept on disk.
//! - What a watch or a range shows has been committed; events come in order, each once.
//! - History (watches from the past, ranges of the past) reaches back to the last compaction.

mod engine;
mod journal;
mod legacy;
mod log;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use engine::LogStore;
pub use journal::Journal;
pub use legacy::take_over;
pub use log::{Garbage, Log, LogState, MemoryLog, Record};

/// How long a relaxed write may stay in memory only.
pub const RELAXED_FLUSH: Duration = Duration::from_secs(300);

/// One key with its value, as of the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key. The store, its history and every event share one copy of it.
    pub key: Arc<str>,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that wrote this value.
    pub mod_revision: u64,
}

/// A committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// The key that changed.
    pub key: Arc<str>,
    /// What the key held before.
    pub previous: Option<Arc<Entry>>,
    /// What it holds now; `None` is a deletion.
    pub current: Option<Arc<Entry>>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last written by this revision.
    Revision(u64),
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Synced,
    /// When it is in memory (see the contract of this crate).
    Relaxed,
}

/// A conditional write of one key.
#[derive(Debug, Clone)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The condition.
    pub expect: Expect,
    /// The change.
    pub op: Op,
    /// When it counts as done.
    pub durability: Durability,
}

/// What a range returns.
#[derive(Debug, Clone)]
pub struct Range {
    /// The revision the entries are of.
    pub revision: u64,
    /// The entries, in the order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// How many more keys follow after the limit.
    pub remaining: usize,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The condition of a write does not hold; the key holds this.
    #[error("the key is not in the expected state")]
    Mismatch(Option<Arc<Entry>>),
    /// The revision is older than the history.
    #[error("revision {asked} is compacted, the oldest kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: u64,
        /// The oldest one still answered.
        oldest: u64,
    },
    /// The revision has not happened yet.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: u64,
        /// The newest one.
        newest: u64,
    },
    /// The disk failed, or the store is closed.
    #[error("{0}")]
    Failed(String),
}

/// The receiving end of a watch. It ends when the store closes, or when the reader was too slow to follow: what waited for
/// it then is let go at once, and it may begin anew at the last event it has got.
#[derive(Debug)]
pub struct Watch {
    pub(crate) backlog: std::collections::VecDeque<Arc<Event>>,
    pub(crate) live: queue::Receiver,
}

impl Watch {
    /// The next event, or `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        match self.backlog.pop_front() {
            Some(event) => Some(event),
            None => self.live.next().await,
        }
    }

    /// Whether no more events will be added to those that wait: the store closed, or the reader was too slow.
    pub fn is_ended(&self) -> bool {
        self.live.is_ended()
    }

    /// The next event if one is there already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.backlog.pop_front().or_else(|| self.live.try_next())
    }
}

/// The store. See the crate's documentation for the contract.
#[async_trait]
pub trait Store: Send + Sync {
    /// The newest revision. Events up to it are in the queues of their watches already.
    fn revision(&self) -> u64;

    /// Whether the store takes writes: it has not been closed.
    fn is_open(&self) -> bool;

    /// The newest entry of a key.
    fn get(&self, key: &str) -> Option<Arc<Entry>>;

    /// Up to `limit` entries (0: all) whose keys start with `prefix` and come after `after`, of the newest revision or of
    /// the revision `at`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`] for an `at` that cannot be answered.
    fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<u64>) -> Result<Range, StoreError>;

    /// How many keys start with `prefix`.
    fn count(&self, prefix: &str) -> usize;

    /// The same, where more than so many are of no interest.
    fn count_up_to(&self, prefix: &str, most: usize) -> usize;

    /// Writes one key if the condition holds. Returns the new entry, or the one that was deleted with `mod_revision` set
    /// to the revision of the deletion.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] with what is there when the condition does not hold.
    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError>;

    /// Every change after the revision `after` to keys that start with `prefix`: first what has happened, then what does.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the history does not reach back that far, [`StoreError::Future`] for a revision
    /// that is not there yet.
    fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError>;

    /// Forgets the history up to and including `revision`; the newest state of every key stays.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// Writes what is relaxed and ends. Later writes fail; watches end.
    async fn close(&self);
}
