//! Where the records live: on disk in redb, keyed by revision, or in memory.
//!
//! The record format is ours and does not depend on the engine below it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

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

    /// Adds and removes records in one atomic and durable step.
    ///
    /// # Errors
    /// When the step did not happen; then nothing of it did.
    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[u64]) -> Result<()>;
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

    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[u64]) -> Result<()> {
        self.state = state;
        for revision in remove {
            self.records.remove(revision);
        }
        self.records.extend(add.iter().map(|r| (r.revision, (*r).clone())));
        Ok(())
    }
}

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");
/// Raised when the layout of a record changes; a newer file is refused, never guessed at.
const FORMAT: u64 = 1;
const TOMBSTONE: u8 = 1;

/// A log in one redb file.
#[derive(Debug)]
pub struct RedbLog {
    database: Database,
}

/// Revisions with their records, not decoded.
type RawRecords = Vec<(u64, Vec<u8>)>;

impl RedbLog {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, it cannot be written, or it was written by a newer format.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            let database = redb::Builder::new()
                // Reads come from memory, so a small page cache is enough.
                .set_cache_size(4 << 20)
                .create(path)?;
            let txn = database.begin_write()?;
            let format = {
                txn.open_table(RECORDS)?;
                let mut state = txn.open_table(STATE)?;
                let format = state.get("format")?.map(|v| v.value());
                if format.is_none() {
                    state.insert("format", FORMAT)?;
                }
                format
            };
            // An existing file needs no write, so that a start costs no fsync.
            if format.is_none() {
                txn.commit()?
            } else {
                txn.abort()?
            }
            Ok::<_, redb::Error>((database, format.unwrap_or(FORMAT)))
        };
        let (database, format) = open().with_context(|| format!("open store {}", path.display()))?;
        if format != FORMAT {
            bail!("open store {}: its format is {format}, this version of knarr reads {FORMAT}", path.display());
        }
        Ok(Self { database })
    }

    fn try_load(&self) -> Result<(LogState, RawRecords), redb::Error> {
        let txn = self.database.begin_read()?;
        let table = txn.open_table(STATE)?;
        let number = |key: &str| Ok::<_, redb::Error>(table.get(key)?.map_or(0, |v| v.value()));
        let state = LogState { ceiling: number("ceiling")?, compacted: number("compacted")? };
        let mut raw = Vec::new();
        for row in txn.open_table(RECORDS)?.iter()? {
            let (revision, bytes) = row?;
            raw.push((revision.value(), bytes.value().to_vec()));
        }
        Ok((state, raw))
    }

    fn try_commit(&self, state: LogState, add: &[&Record], remove: &[u64]) -> Result<(), redb::Error> {
        let txn = self.database.begin_write()?;
        {
            let mut numbers = txn.open_table(STATE)?;
            for (key, value) in [("ceiling", state.ceiling), ("compacted", state.compacted)] {
                if numbers.get(key)?.is_none_or(|v| v.value() != value) {
                    numbers.insert(key, value)?;
                }
            }
            let mut records = txn.open_table(RECORDS)?;
            for revision in remove {
                records.remove(revision)?;
            }
            for record in add {
                write_record(records.insert_reserve(record.revision, length(record))?.as_mut(), record);
            }
        }
        txn.commit()?;
        Ok(())
    }
}

impl Log for RedbLog {
    fn load(&mut self) -> Result<(LogState, Vec<Record>)> {
        let (state, raw) = self.try_load().context("read store")?;
        let records = raw
            .into_iter()
            .map(|(revision, bytes)| {
                decode(revision, bytes).with_context(|| format!("read record {revision} of the store"))
            })
            .collect::<Result<_>>()?;
        Ok((state, records))
    }

    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[u64]) -> Result<()> {
        self.try_commit(state, add, remove).context("write store")
    }
}

/// How many bytes a record takes.
fn length(record: &Record) -> usize {
    13 + record.key.len() + record.value.as_ref().map_or(0, Bytes::len)
}

/// Layout: flags (1 byte), create revision (8, little endian), length of the key (4, little endian), key, value.
fn write_record(out: &mut [u8], record: &Record) {
    let (head, rest) = out.split_at_mut(13);
    let (key, value) = rest.split_at_mut(record.key.len());
    head[0] = if record.value.is_none() { TOMBSTONE } else { 0 };
    head[1..9].copy_from_slice(&record.create_revision.to_le_bytes());
    head[9..].copy_from_slice(&u32::try_from(record.key.len()).unwrap_or(u32::MAX).to_le_bytes());
    key.copy_from_slice(record.key.as_bytes());
    value.copy_from_slice(record.value.as_deref().unwrap_or_default());
}

fn decode(revision: u64, bytes: Vec<u8>) -> Result<Record> {
    let bytes = Bytes::from(bytes);
    let (Some(head), Some(flags)) = (bytes.get(1..13), bytes.first()) else {
        bail!("the record is cut short at {} bytes", bytes.len());
    };
    let create_revision = u64::from_le_bytes(head[..8].try_into()?);
    let key_len = u32::from_le_bytes(head[8..].try_into()?) as usize;
    let key = bytes.get(13..13 + key_len).context("the key of the record is cut short")?;
    Ok(Record {
        revision,
        create_revision,
        key: std::str::from_utf8(key)?.into(),
        value: (flags & TOMBSTONE == 0).then(|| bytes.slice(13 + key_len..)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(record: &Record) -> Vec<u8> {
        let mut bytes = vec![0; length(record)];
        write_record(&mut bytes, record);
        bytes
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"{}"))] {
            let record = Record { revision: 7, create_revision: 3, key: "pods/a/b".into(), value };
            assert_eq!(decode(7, encode(&record)).expect("decodes"), record);
        }
    }

    #[test]
    fn a_torn_record_is_an_error_and_not_a_guess() {
        let record = Record { revision: 7, create_revision: 3, key: "pods/a/b".into(), value: Some("x".into()) };
        let bytes = encode(&record);
        for cut in [0, 5, 14] {
            assert!(decode(7, bytes[..cut].to_vec()).is_err(), "{cut}");
        }
    }
}
