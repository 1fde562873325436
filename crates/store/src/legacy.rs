//! The file of older versions of knarr, which kept their records in redb: read once, and put over into a [`Journal`].

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::journal::Journal;
use crate::log::{Log, LogState, Record};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");
const FORMAT: u64 = 1;
const TOMBSTONE: u8 = 1;
/// How many records are put over in one step.
const STEP: usize = 512;

/// Revisions with their records, not decoded.
type RawRecords = Vec<(u64, Vec<u8>)>;

/// Puts what an older version left in `file` over into a journal in `dir`, where there is none yet. The file goes when all
/// of it is in the journal.
///
/// # Errors
/// When the file cannot be read or the journal cannot be written. Then the file is as it was.
pub fn take_over(file: &Path, dir: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let what = || format!("put {} over into {}", file.display(), dir.display());
    if !dir.exists() {
        let (state, records) = read(file).with_context(what)?;
        tracing::info!("the store of an older version is put over: {} records", records.len());
        let half = dir.with_extension("new");
        if half.exists() {
            fs::remove_dir_all(&half).with_context(what)?;
        }
        let mut journal = Journal::open(&half).with_context(what)?;
        journal.load().with_context(what)?;
        for step in records.chunks(STEP) {
            journal.commit(state, &step.iter().collect::<Vec<_>>(), &[]).with_context(what)?;
        }
        drop(journal);
        fs::rename(&half, dir).with_context(what)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).with_context(what)?;
    }
    fs::remove_file(file).with_context(what)
}

fn read(file: &Path) -> Result<(LogState, Vec<Record>)> {
    let (format, state, raw) = try_read(file)?;
    if format != FORMAT {
        bail!("its format is {format}, this version of knarr reads {FORMAT}");
    }
    let decode = |(revision, bytes)| decode(revision, bytes).with_context(|| format!("read record {revision}"));
    Ok((state, raw.into_iter().map(decode).collect::<Result<_>>()?))
}

fn try_read(file: &Path) -> Result<(u64, LogState, RawRecords), redb::Error> {
    let database = redb::Builder::new().set_cache_size(4 << 20).open(file)?;
    let txn = database.begin_read()?;
    let table = txn.open_table(STATE)?;
    let number = |key: &str| Ok::<_, redb::Error>(table.get(key)?.map_or(0, |v| v.value()));
    let state = LogState { ceiling: number("ceiling")?, compacted: number("compacted")? };
    let mut raw = Vec::new();
    for row in txn.open_table(RECORDS)?.iter()? {
        let (revision, bytes) = row?;
        raw.push((revision.value(), bytes.value().to_vec()));
    }
    Ok((number("format")?, state, raw))
}

/// Layout: flags (1 byte), create revision (8, little endian), length of the key (4, little endian), key, value.
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
    use redb::Database;

    use super::*;

    fn old_row(create_revision: u64, key: &str, value: Option<&str>) -> Vec<u8> {
        let mut row = vec![if value.is_none() { TOMBSTONE } else { 0 }];
        row.extend_from_slice(&create_revision.to_le_bytes());
        row.extend_from_slice(&(key.len() as u32).to_le_bytes());
        row.extend_from_slice(key.as_bytes());
        row.extend_from_slice(value.unwrap_or_default().as_bytes());
        row
    }

    fn old_file(path: &Path, format: u64) {
        let write = || {
            let database = Database::create(path)?;
            let txn = database.begin_write()?;
            {
                let mut state = txn.open_table(STATE)?;
                for (key, value) in [("format", format), ("ceiling", 10_007), ("compacted", 2)] {
                    state.insert(key, value)?;
                }
                let mut records = txn.open_table(RECORDS)?;
                records.insert(3, old_row(3, "a", Some("1")).as_slice())?;
                records.insert(7, old_row(3, "a", None).as_slice())?;
            }
            txn.commit()?;
            Ok::<_, redb::Error>(())
        };
        write().expect("write a file of old");
    }

    #[test]
    fn the_file_of_an_older_version_is_put_over_as_a_whole() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (file, dir) = (root.path().join("store.redb"), root.path().join("store"));
        old_file(&file, FORMAT);
        // What an attempt that was cut short left behind does not count.
        fs::create_dir(dir.with_extension("new")).expect("make a directory");
        fs::write(dir.with_extension("new").join("0000000000000001.log"), "half").expect("write a file");
        take_over(&file, &dir).expect("taken over");
        assert!(!file.exists() && !dir.with_extension("new").exists());
        let (state, records) = Journal::open(&dir).expect("opens").load().expect("loads");
        assert_eq!(state, LogState { ceiling: 10_007, compacted: 2 });
        let record = |revision, value: Option<&'static str>| Record {
            revision,
            create_revision: 3,
            key: "a".into(),
            value: value.map(Bytes::from),
        };
        assert_eq!(records, [record(3, Some("1")), record(7, None)]);
        take_over(&file, &dir).expect("nothing is left to be done");
    }

    #[test]
    fn a_file_that_cannot_be_read_stays_as_it_is() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (file, dir) = (root.path().join("store.redb"), root.path().join("store"));
        old_file(&file, 2);
        let error = format!("{:#}", take_over(&file, &dir).expect_err("a newer format"));
        assert!(error.contains("its format is 2") && file.exists() && !dir.exists(), "{error}");
        fs::write(&file, "no database").expect("write a file");
        assert!(take_over(&file, &dir).is_err() && file.exists() && !dir.exists());
    }
}
