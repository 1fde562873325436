//! Where the records live: on disk, in a [`Journal`](crate::Journal), or in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;

/// One change of one key, as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The revision that made the change.
    pub revision: u64,
    /// The revision that created the key.
    pub create_revision: u64,
    /// The key.
    pub key: Arc<str>,
    /// The value; `None` is a deletion.
    pub value: Option<Bytes>,
}

/// How many bytes a record takes in a log, with its key and its value of these lengths.
pub(crate) fn size(key: usize, value: usize) -> usize {
    24 + key + value
}

/// A record that is no longer wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage {
    /// Its revision.
    pub revision: u64,
    /// How many bytes it takes.
    pub size: usize,
}

/// What the log keeps beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogState {
    /// No revision at or above this one has been handed out.
    pub ceiling: u64,
    /// History up to and including this revision is forgotten.
    pub compacted: u64,
}

/// A durable list of records, used by one thread.
pub trait Log: Send + 'static {
    /// Everything that is there, in the order of the revisions.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn load(&mut self) -> Result<(LogState, Vec<Record>)>;

    /// Adds and removes records in one atomic and durable step. What is removed has been added before.
    ///
    /// # Errors
    /// When the step did not happen; then nothing of it did, or the log takes no more until it is opened again.
    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[Garbage]) -> Result<()>;
}

/// A log that lives and dies with the process.
#[derive(Debug, Default)]
pub struct MemoryLog {
    state: LogState,
    records: BTreeMap<u64, Record>,
}

impl Log for MemoryLog {
    fn load(&mut self) -> Result<(LogState, Vec<Record>)> {
        Ok((self.state, self.records.values().cloned().collect()))
    }

    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[Garbage]) -> Result<()> {
        self.state = state;
        for garbage in remove {
            self.records.remove(&garbage.revision);
        }
        self.records.extend(add.iter().map(|r| (r.revision, (*r).clone())));
        Ok(())
    }
}
