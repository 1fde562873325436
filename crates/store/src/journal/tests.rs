//! What the journal holds to when the disk, or the power, fails.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Short segments, so that there are many.
const SHORT: u64 = 2_000;

fn dir() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn open(dir: &Path) -> (Journal, LogState, BTreeMap<u64, Record>) {
    let mut journal = Journal::open_with(dir, SHORT).expect("opens");
    let (state, records) = journal.load().expect("loads");
    assert!(records.is_sorted_by_key(|record| record.revision));
    (journal, state, by_revision(records))
}

fn by_revision(records: Vec<Record>) -> BTreeMap<u64, Record> {
    records.into_iter().map(|record| (record.revision, record)).collect()
}

fn error(dir: &Path) -> String {
    let mut journal = Journal::open_with(dir, SHORT).expect("opens");
    journal.load().map_or_else(|error| format!("{error:#}"), |_| "no error".to_owned())
}

fn record(revision: u64, length: usize) -> Record {
    let value = (length > 0).then(|| Bytes::from(vec![b'v'; length]));
    Record { revision, create_revision: revision, key: format!("k{}", revision % 7).into(), value }
}

fn garbage(record: &Record) -> Garbage {
    Garbage { revision: record.revision, size: size(record) }
}

fn state(number: u64) -> LogState {
    LogState { ceiling: 1_000 + number, compacted: number }
}

/// A directory as a crash leaves it.
fn copy(from: &Path) -> TempDir {
    let to = dir();
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    to
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a map: whatever is added, removed, cleaned and opened again, and whenever a crash tears the last write.
    #[test]
    fn what_was_acknowledged_is_there_whatever_happens(
        steps in proptest::collection::vec((1..6_u64, 0..500_usize, 0..6_usize, any::<bool>(), 0..64_usize), 1..60),
    ) {
        let place = dir();
        let (mut journal, _, mut model) = open(place.path());
        let mut revision = 0;
        for (number, (adds, length, removes, again, torn)) in steps.into_iter().enumerate() {
            let state = state(number as u64);
            let added: Vec<Record> = (0..adds).map(|at| record(revision + 1 + at, length)).collect();
            revision += adds;
            let removed: Vec<Garbage> = model.values().step_by(2).take(removes).map(garbage).collect();
            let (first, before) = (journal.segments[0].number, *journal.segments.back().expect("one"));
            journal.commit(state, &added.iter().collect::<Vec<_>>(), &removed).expect("written");
            // What has been cleaned is gone, so that only the last frame of all can be torn.
            let last = *journal.segments.back().expect("one");
            let one_frame = (journal.segments[0].number, last.number) == (first, before.number);
            let old = model.clone();
            model.extend(added.into_iter().map(|record| (record.revision, record)));
            for garbage in &removed {
                model.remove(&garbage.revision);
            }
            let crashed = copy(place.path());
            let (_, found, records) = open(crashed.path());
            prop_assert_eq!((found, &records), (state, &model));
            // The last frame, with its end missing.
            if one_frame {
                let torn = torn.min((last.end - before.end) as usize - 1) + 1;
                let path = files(crashed.path()).pop().expect("a segment");
                let mut text = fs::read(&path).expect("read");
                text[last.end as usize - torn..last.end as usize].fill(0);
                fs::write(&path, text).expect("written");
                let (mut journal, _, records) = open(crashed.path());
                // Zeros at the end of a frame may be what was there.
                prop_assert!(records == old || records == model, "torn by {}", torn);
                // And on it goes from there.
                let next = record(revision + 1, 10);
                journal.commit(state, &[&next], &[]).expect("written");
                drop(journal);
                let (_, _, after) = open(crashed.path());
                prop_assert_eq!(after.len(), records.len() + 1);
            }
            if again {
                drop(journal);
                (journal, _, _) = open(place.path());
            }
        }
    }
}

#[test]
fn what_is_on_disk_is_a_small_multiple_of_what_is_wanted() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    let mut kept: Vec<Record> = (1..=20).map(|revision| record(revision, 100)).collect();
    journal.commit(state(0), &kept.iter().collect::<Vec<_>>(), &[]).expect("written");
    let mut written = 0;
    for revision in 21..5_000 {
        let next = record(revision, 100);
        let gone = std::mem::replace(&mut kept[revision as usize % 20], next.clone());
        journal.commit(state(0), &[&next], &[garbage(&gone)]).expect("written");
        written += size(&next) as u64;
        let on_disk: u64 = journal.segments.iter().map(|segment| segment.end).sum();
        let wanted: u64 = kept.iter().map(|record| size(record) as u64).sum();
        assert_eq!(journal.live, wanted);
        assert!(on_disk <= 2 * wanted + 3 * SHORT, "{on_disk} bytes for {wanted}");
        assert!(journal.dead.len() < 100, "what is gone from the disk is forgotten");
    }
    let first = journal.segments.front().expect("one").number;
    assert!(first * SHORT < 3 * written, "{first} segments were cleaned for {written} bytes");
    drop(journal);
    let (_, _, records) = open(place.path());
    assert_eq!(records, by_revision(kept));
}

#[test]
fn a_cleaning_that_was_cut_short_is_finished_or_has_not_happened() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    let all: Vec<Record> = (1..=40).map(|revision| record(revision, 100)).collect();
    for record in &all {
        journal.commit(state(1), &[record], &[]).expect("written");
    }
    let (oldest, gone) = (files(place.path()).remove(0), garbage(&all[0]));
    journal.commit(state(2), &[], &[gone]).expect("written");
    let before = copy(place.path());
    journal.clean_oldest().expect("cleaned");
    assert!(!oldest.exists());
    // The file is still there: it would bring back what is gone.
    fs::copy(before.path().join(oldest.file_name().expect("a name")), &oldest).expect("copied");
    drop(journal);
    let wanted = by_revision(all[1..].to_vec());
    for place in [place.path(), before.path()] {
        let (journal, found, records) = open(place);
        assert_eq!((found, &records), (state(2), &wanted));
        assert_eq!(journal.live, wanted.values().map(|record| size(record) as u64).sum::<u64>());
    }
    assert!(!oldest.exists());
}

#[test]
fn damage_is_an_error_and_never_a_loss() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    for revision in 1..=40 {
        journal.commit(state(revision), &[&record(revision, 100)], &[]).expect("written");
    }
    let ends: Vec<usize> = journal.segments.iter().map(|segment| segment.end as usize).collect();
    drop(journal);
    let last_frame = FRAME_HEAD + PAYLOAD_HEAD + size(&record(40, 100));
    for (at, path) in files(place.path()).iter().enumerate() {
        let is_last = at + 1 == ends.len();
        let until = if is_last { ends[at] - last_frame } else { ends[at] };
        for flipped in (0..until).step_by(3) {
            let hurt = copy(place.path());
            let hurt_path = hurt.path().join(path.file_name().expect("a name"));
            let mut text = fs::read(&hurt_path).expect("read");
            text[flipped] ^= 0x10;
            fs::write(&hurt_path, &text).expect("written");
            assert!(error(hurt.path()).contains("segment"), "{path:?} at {flipped}");
            if is_last {
                break;
            }
        }
        let hurt = copy(place.path());
        fs::remove_file(hurt.path().join(path.file_name().expect("a name"))).expect("removed");
        // Without a list of all segments nothing tells that there was a last one.
        if !is_last {
            assert!(error(hurt.path()).contains("is missing"), "{path:?}");
        }
    }
    // Zeros in front of a whole frame.
    let last = files(place.path()).pop().expect("a segment");
    let mut text = fs::read(&last).expect("read");
    for length in [FRAME_HEAD, 100] {
        text[SEGMENT_HEAD..SEGMENT_HEAD + length].fill(0);
        fs::write(&last, &text).expect("written");
        assert!(error(place.path()).contains("is damaged at"), "{length}");
    }
}

#[test]
fn a_segment_that_was_being_made_does_not_count() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    journal.commit(state(1), &[&record(1, 10)], &[]).expect("written");
    drop(journal);
    for half in [vec![], vec![0; SHORT as usize]] {
        fs::write(place.path().join("0000000000000002.log"), half).expect("written");
        let (mut journal, _, records) = open(place.path());
        assert_eq!(records.len(), 1);
        journal.commit(state(1), &[], &[]).expect("written");
    }
    fs::write(place.path().join("0000000000000002.log"), "something else").expect("written");
    assert!(error(place.path()).contains("is none of knarr's"));
}

#[test]
fn a_journal_has_one_owner_and_one_format_and_is_read_before_it_is_written() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    journal.commit(state(1), &[&record(1, 10)], &[]).expect("written");
    let error_of = |outcome: Result<Journal>| format!("{:#}", outcome.expect_err("refused"));
    assert!(error_of(Journal::open(place.path())).contains("another process has it open"));
    drop(journal);
    let mut journal = Journal::open(place.path()).expect("opens");
    assert!(journal.commit(state(1), &[&record(2, 10)], &[]).is_err());
    drop(journal);
    let path = files(place.path()).remove(0);
    let mut text = fs::read(&path).expect("read");
    text[MAGIC.len()] = 2;
    fs::write(&path, text).expect("written");
    assert!(error(place.path()).contains("has format Some(2), this version of knarr reads 1"));
}

#[test]
fn a_disk_that_fails_is_told_of_and_nothing_is_lost() {
    let place = dir();
    let (mut journal, ..) = open(place.path());
    journal.commit(state(1), &[&record(1, 10)], &[]).expect("written");
    // A file that takes no writes stands for the disk: what was to be written is not there, and the rest is.
    let path = files(place.path()).remove(0);
    let writable = journal.current.replace(File::open(&path).expect("opened to be read"));
    let failed = format!("{:#}", journal.commit(state(2), &[&record(2, 10)], &[]).expect_err("refused"));
    assert!(failed.starts_with("write store"), "{failed}");
    journal.current = writable;
    let again = format!("{:#}", journal.commit(state(2), &[&record(2, 10)], &[]).expect_err("refused"));
    assert!(again.contains("the disk failed before"), "{again}");
    drop(journal);
    let (_, found, records) = open(place.path());
    assert_eq!((found, records.len()), (state(1), 1));
}
