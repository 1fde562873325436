//! The store's contract, held against every implementation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use store::{Durability, Expect, Journal, LogStore, MemoryLog, Op, Store, StoreError, Write};

/// Opens a store; the second argument says where, so that a store on disk can be opened again.
type Open = fn(&PathBuf) -> Arc<LogStore>;

const STORES: [(&str, Open); 2] = [
    ("memory", |_| LogStore::open(MemoryLog::default()).expect("open in memory")),
    ("journal", |dir| LogStore::open(Journal::open(dir).expect("open directory")).expect("load")),
];

async fn over_every_store<F: Future<Output = ()>>(test: impl Fn(Arc<LogStore>) -> F) {
    for (name, open) in STORES {
        let dir = tempfile::tempdir().expect("temporary directory");
        eprintln!("store: {name}");
        let store = open(&dir.path().to_path_buf());
        test(store.clone()).await;
        store.close().await;
    }
}

fn put(key: &str, expect: Expect, value: &str) -> Write {
    Write {
        key: key.to_owned(),
        expect,
        op: Op::Put(Bytes::copy_from_slice(value.as_bytes())),
        durability: Durability::Synced,
    }
}

fn delete(key: &str, revision: u64) -> Write {
    Write { key: key.to_owned(), expect: Expect::Revision(revision), op: Op::Delete, durability: Durability::Synced }
}

fn keys(range: &store::Range) -> Vec<(&str, &[u8])> {
    range.entries.iter().map(|e| (e.key.as_ref(), e.value.as_ref())).collect()
}

#[tokio::test]
async fn a_write_happens_only_in_the_expected_state() {
    over_every_store(|s| async move {
        let a = s.write(put("a", Expect::Absent, "1")).await.expect("create");
        assert!(matches!(s.write(put("a", Expect::Absent, "2")).await, Err(StoreError::Mismatch(Some(e))) if e == a));
        let b = s.write(put("a", Expect::Revision(a.mod_revision), "2")).await.expect("update");
        assert_eq!((b.create_revision, b.mod_revision), (a.mod_revision, a.mod_revision + 1));
        assert!(matches!(s.write(delete("a", a.mod_revision)).await, Err(StoreError::Mismatch(Some(_)))));
        let gone = s.write(delete("a", b.mod_revision)).await.expect("delete");
        assert_eq!((gone.mod_revision, gone.value.as_ref()), (b.mod_revision + 1, b"2".as_ref()));
        assert!(matches!(s.write(delete("a", b.mod_revision)).await, Err(StoreError::Mismatch(None))));
        assert_eq!(s.revision(), gone.mod_revision);
    })
    .await;
}

#[tokio::test]
async fn pages_of_one_range_come_from_one_revision() {
    over_every_store(|s| async move {
        for key in ["p/a", "p/b", "p/c", "q/x"] {
            s.write(put(key, Expect::Absent, "1")).await.expect("create");
        }
        let first = s.range("p/", None, 2, None).expect("first page");
        assert_eq!((first.entries.len(), first.remaining), (2, 1));
        let c = s.get("p/c").expect("there").mod_revision;
        s.write(put("p/c", Expect::Revision(c), "2")).await.expect("update");
        s.write(put("p/d", Expect::Absent, "1")).await.expect("create");
        let a = s.get("p/a").expect("there").mod_revision;
        s.write(delete("p/a", a)).await.expect("delete");
        let rest = s.range("p/", Some("p/b"), 0, Some(first.revision)).expect("second page");
        assert_eq!(keys(&rest), [("p/c", b"1".as_ref())]);
        let whole = s.range("p/", None, 0, Some(first.revision)).expect("the past");
        assert_eq!(keys(&whole), [("p/a", b"1".as_ref()), ("p/b", b"1"), ("p/c", b"1")]);
        let now = s.range("p/", None, 0, None).expect("now");
        assert_eq!(keys(&now), [("p/b", b"1".as_ref()), ("p/c", b"2"), ("p/d", b"1")]);
        assert!(matches!(s.range("p/", None, 0, Some(now.revision + 1)), Err(StoreError::Future { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_watch_replays_and_follows_every_change_once_and_in_order() {
    over_every_store(|s| async move {
        let start = s.revision();
        let a = s.write(put("p/a", Expect::Absent, "1")).await.expect("create");
        s.write(put("q/a", Expect::Absent, "1")).await.expect("create");
        let mut watch = s.watch("p/", start).expect("watch");
        let b = s.write(put("p/a", Expect::Revision(a.mod_revision), "2")).await.expect("update");
        s.write(delete("p/a", b.mod_revision)).await.expect("delete");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let e = watch.next().await.expect("an event");
            seen.push((
                e.revision - start,
                e.previous.as_ref().map(|p| p.value.clone()),
                e.current.as_ref().map(|c| c.value.clone()),
            ));
        }
        let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
        assert_eq!(seen, [(1, None, Some(one.clone())), (3, Some(one), Some(two.clone())), (4, Some(two), None)]);
        assert!(watch.try_next().is_none());
        assert!(matches!(s.watch("p/", s.revision() + 1), Err(StoreError::Future { .. })));
        s.close().await;
        assert!(watch.next().await.is_none(), "a watch ends with the store");
        assert!(s.write(put("p/z", Expect::Absent, "1")).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn compaction_forgets_the_past_and_keeps_the_present() {
    over_every_store(|s| async move {
        let a = s.write(put("a", Expect::Absent, "1")).await.expect("create");
        let b = s.write(put("a", Expect::Revision(a.mod_revision), "2")).await.expect("update");
        s.compact(b.mod_revision).await.expect("compact");
        assert!(matches!(s.watch("", a.mod_revision), Err(StoreError::Compacted { .. })));
        assert!(matches!(s.range("", None, 0, Some(a.mod_revision)), Err(StoreError::Compacted { .. })));
        assert!(s.watch("", b.mod_revision).is_ok());
        assert_eq!(keys(&s.range("", None, 0, None).expect("now")), [("a", b"2".as_ref())]);
        assert!(matches!(s.compact(b.mod_revision + 1).await, Err(StoreError::Future { .. })));
    })
    .await;
}

#[tokio::test]
async fn concurrent_writers_of_one_key_never_both_win() {
    over_every_store(|s| async move {
        s.write(put("n", Expect::Absent, "0")).await.expect("create");
        let add = || {
            let s = s.clone();
            async move {
                let mut wins = 0;
                while wins < 50 {
                    let e = s.get("n").expect("there");
                    let n: u32 = std::str::from_utf8(&e.value).expect("text").parse().expect("number");
                    match s.write(put("n", Expect::Revision(e.mod_revision), &(n + 1).to_string())).await {
                        Ok(_) => wins += 1,
                        Err(StoreError::Mismatch(_)) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        tokio::join!(add(), add(), add());
        assert_eq!(s.get("n").expect("there").value.as_ref(), b"150");
    })
    .await;
}

fn reopen(dir: &tempfile::TempDir) -> Arc<LogStore> {
    STORES[1].1(&dir.path().to_path_buf())
}

#[tokio::test]
async fn a_store_on_disk_comes_back_as_it_was() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let s = reopen(&dir);
    let mut model = BTreeMap::new();
    for i in 0..200_u32 {
        let key = format!("k/{}", i % 17);
        let expect = s.get(&key).map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision));
        if i % 5 == 4 && expect != Expect::Absent {
            let Expect::Revision(revision) = expect else { unreachable!() };
            s.write(delete(&key, revision)).await.expect("delete");
            model.remove(&key);
        } else {
            s.write(put(&key, expect, &i.to_string())).await.expect("put");
            model.insert(key, i.to_string());
        }
        if i == 100 {
            s.compact(s.revision()).await.expect("compact");
        }
    }
    let revision = s.revision();
    s.close().await;
    drop(s);
    let s = reopen(&dir);
    let now: BTreeMap<String, String> = s
        .range("", None, 0, None)
        .expect("range")
        .entries
        .iter()
        .map(|e| (e.key.to_string(), String::from_utf8(e.value.to_vec()).expect("text")))
        .collect();
    assert_eq!(now, model);
    assert!(s.revision() >= revision, "revisions never go back");
    let mut watch = s.watch("", revision - 1).expect("history is still there");
    assert_eq!(watch.next().await.expect("the last event").revision, revision);
    s.close().await;
}

#[tokio::test]
async fn a_relaxed_write_may_be_lost_by_a_crash_but_its_revision_never_returns() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let s = reopen(&dir);
    s.write(put("lease", Expect::Absent, "0")).await.expect("create");
    let file = |dir: &tempfile::TempDir| dir.path().join("0000000000000001.log");
    let before = std::fs::read(file(&dir)).expect("file");
    for i in 1..20 {
        let at = s.get("lease").expect("there").mod_revision;
        let write = Write { durability: Durability::Relaxed, ..put("lease", Expect::Revision(at), &i.to_string()) };
        s.write(write).await.expect("renew");
    }
    let seen = s.revision();
    assert!(before == std::fs::read(file(&dir)).expect("file"), "heartbeats do not reach the disk");
    // A crash: another directory gets the file as it is, the running store is never closed.
    let crashed = tempfile::tempdir().expect("temporary directory");
    std::fs::write(file(&crashed), before).expect("copy");
    let again = reopen(&crashed);
    assert_eq!(again.get("lease").expect("there").value.as_ref(), b"0");
    assert!(again.revision() >= seen);
    again.close().await;
    s.close().await;
    drop(s);
    let s = reopen(&dir);
    assert_eq!(s.get("lease").expect("there").value.as_ref(), b"19", "a clean close keeps relaxed writes");
    s.close().await;
}
