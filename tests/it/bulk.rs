//! Whole spans at once: tables from outside, spans that are excised, and spans that are replaced
//! from another database.

use crate::harness::{Home, Simulated, block_on};
use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::TryStreamExt;
use sluicedb::{Db, ErrorKind, IngestPlan, OnEmpty, Options, Replacement, TableWriter, WriteBatch};
use std::path::PathBuf;

fn home() -> Home {
    Home::with(settings::tiny())
}

async fn open(home: &Home) -> Db {
    home.builder().open().await.unwrap()
}

fn key(prefix: &str, n: usize) -> String {
    format!("{prefix}{n:05}")
}

async fn fill(db: &Db, prefix: &str, numbers: std::ops::Range<usize>, value: &str) {
    for n in numbers {
        db.put(key(prefix, n), value).await.unwrap();
    }
}

async fn count(db: &Db, prefix: &str) -> usize {
    let all = content(db).await.unwrap();
    all.keys().filter(|key| key.starts_with(prefix.as_bytes())).count()
}

/// Writes a table outside the database, with these keys.
fn table(dir: &tempfile::TempDir, name: &str, keys: &[String], value: &str) -> PathBuf {
    let path = dir.path().join(name);
    let mut writer = TableWriter::create(&path).unwrap();
    for key in keys {
        writer.put(key, value).unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn t004_01_two_hundred_entries_go_from_one_database_to_another() {
    let (source, target) = (home(), home());
    block_on(async {
        let (source, target) = (open(&source).await, open(&target).await);
        fill(&source, "a", 0..200, "new").await;
        let done = target.replace_from(&source.snapshot(), ["a".."b"], OnEmpty::Wipe).await;
        assert_eq!(done.unwrap(), Replacement::Replaced { entries: 200 });
        assert_eq!(content(&target).await.unwrap(), content(&source).await.unwrap());
        let stats = target.stats();
        assert_eq!((stats.commits, stats.flushes), (0, 0), "nothing goes through log and memory");
        assert_eq!((stats.bulk_jobs, stats.bulk_entries), (1, 200));
        target.close().await.unwrap();
        source.close().await.unwrap();
    });
    block_on(async {
        let target = open(&target).await;
        assert_eq!(count(&target, "a").await, 200);
        target.close().await.unwrap();
    });
    assert!(sluicedb::verify(target.path(), |_, _| {}).unwrap().is_sound());
}

/// 500 entries and their index become 50. No index entry is stale afterwards, whatever state
/// (memory, L0, level) the old ones were in.
#[test]
fn t004_02_five_hundred_become_fifty_and_no_index_entry_is_stale() {
    for state in ["memory", "tables", "levels", "all"] {
        let (source, target) = (home(), home());
        block_on(async {
            let (source, target) = (open(&source).await, open(&target).await);
            for n in 0..500 {
                let mut batch = WriteBatch::new();
                batch.put(key("user/", n), "old").put(key("index/", 10_000 - n), key("user/", n));
                target.write(batch).await.unwrap();
                match state {
                    "tables" if n == 499 => target.flush().await.unwrap(),
                    "levels" if n == 499 => target.compact().await.unwrap(),
                    "all" if n == 150 => target.compact().await.unwrap(),
                    "all" if n == 300 => target.flush().await.unwrap(),
                    _ => {}
                }
            }
            fill(&target, "other/", 0..30, "kept").await;
            for n in 0..50 {
                let mut batch = WriteBatch::new();
                batch.put(key("user/", n), "new").put(key("index/", n), key("user/", n));
                source.write(batch).await.unwrap();
            }
            let before = target.snapshot();
            let spans = ["user/".."user0", "index/".."index0"];
            target.replace_from(&source.snapshot(), spans, OnEmpty::Wipe).await.unwrap();
            for round in 0..3 {
                assert_eq!(count(&target, "user/").await, 50, "{state}, {round}");
                assert_eq!(count(&target, "index/").await, 50, "{state}, {round}");
                assert_eq!(count(&target, "other/").await, 30, "{state}, {round}");
                for n in 0..50 {
                    let user = target.get(key("index/", n)).await.unwrap().unwrap();
                    let value = target.get(&user).await.unwrap();
                    assert_eq!(value.as_deref(), Some(&b"new"[..]), "{state}, {round}");
                }
                let old = before.get(key("user/", 499)).await.unwrap();
                assert_eq!(old.as_deref(), Some(&b"old"[..]), "t004_16: {state}, {round}");
                if round == 0 {
                    target.flush().await.unwrap();
                } else {
                    target.compact().await.unwrap();
                }
            }
            drop(before);
            target.close().await.unwrap();
            source.close().await.unwrap();
        });
    }
}

#[test]
fn t004_03_what_lies_beside_the_span_is_untouched() {
    let (source, target) = (home(), home());
    block_on(async {
        let (source, target) = (open(&source).await, open(&target).await);
        fill(&target, "a", 0..100, "old").await;
        fill(&target, "b", 0..100, "old").await;
        target.flush().await.unwrap();
        fill(&target, "c", 0..100, "old").await;
        fill(&source, "b", 0..25, "new").await;
        fill(&source, "c", 0..25, "not this one").await;
        target.replace_from(&source.snapshot(), ["b".."c"], OnEmpty::Wipe).await.unwrap();
        let counts =
            [count(&target, "a").await, count(&target, "b").await, count(&target, "c").await];
        assert_eq!(counts, [100, 25, 100]);
        // T004-09: the first key is in the span, the one after it is not.
        assert_eq!(target.get("c00000").await.unwrap().as_deref(), Some(&b"old"[..]));
        target.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn t004_04_an_empty_source_empties_or_is_refused() {
    let (source, target) = (home(), home());
    block_on(async {
        let (source, target) = (open(&source).await, open(&target).await);
        fill(&target, "a", 0..20, "old").await;
        let snapshot = source.snapshot();
        let refused = target.replace_from(&snapshot, ["a".."b"], OnEmpty::Refuse).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(count(&target, "a").await, 20);
        let done = target.replace_from(&snapshot, ["a".."b"], OnEmpty::Wipe).await;
        assert_eq!(done.unwrap(), Replacement::Emptied);
        assert_eq!(count(&target, "a").await, 0);
        target.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn t004_05_bad_input_is_refused_and_changes_nothing() {
    let (home, dir) = (home(), tempfile::tempdir().unwrap());
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..20, "old").await;
        let keys: Vec<_> = (0..10).map(|n| key("a", n)).collect();
        let good = table(&dir, "good", &keys, "new");
        let kind = |result: sluicedb::Result<u64>| result.unwrap_err().kind();
        let overlap = IngestPlan::new().replace("a".."c", [&good]).replace("b".."d", [&good; 0]);
        assert_eq!(kind(db.ingest_and_excise(overlap).await), ErrorKind::Invalid);
        let outside = IngestPlan::new().replace("a".."a00005", [&good]);
        assert_eq!(kind(db.ingest_and_excise(outside).await), ErrorKind::Invalid);
        assert_eq!(kind(db.ingest([&good, &good]).await), ErrorKind::Invalid);
        assert_eq!(kind(db.ingest([dir.path().join("missing")]).await), ErrorKind::Io);
        let bytes = std::fs::read(&good).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let path = dir.path().join(format!("damaged-{at}"));
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(kind(db.ingest([path]).await), ErrorKind::Corrupt);
        }
        std::fs::write(dir.path().join("short"), b"hello").unwrap();
        assert_eq!(kind(db.ingest([dir.path().join("short")]).await), ErrorKind::Corrupt);
        let before: Map = content(&db).await.unwrap();
        assert!(before.len() == 20 && before.values().all(|value| value == b"old"));
        assert_eq!(std::fs::read(&good).unwrap(), bytes, "the caller's file is only read");
        // T004-15: no table, and no key.
        assert_eq!(db.ingest(Vec::<PathBuf>::new()).await.unwrap(), 0);
        let nothing = IngestPlan::new().replace("x".."y", Vec::<PathBuf>::new());
        assert_eq!(db.ingest_and_excise(nothing).await.unwrap(), 0);
        db.close().await.unwrap();
    });
}

/// A write before the call is gone, a write after it remains. That holds also when no memtable was
/// flushed, and after a kill.
#[test]
fn t004_14_a_restart_agrees_with_what_was_cut_out_of_memory() {
    let (home, dir) = (home(), tempfile::tempdir().unwrap());
    let keys: Vec<_> = (5..8).map(|n| key("a", n)).collect();
    let came = table(&dir, "t", &keys, "came");
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..10, "old").await;
        fill(&db, "b", 0..10, "old").await;
        db.excise("b".."c").await.unwrap();
        db.ingest_and_excise(IngestPlan::new().replace("a".."b", [&came])).await.unwrap();
        db.put(key("a", 7), "after").await.unwrap();
        db.put(key("b", 1), "after").await.unwrap();
        db.sync().await.unwrap();
    });
    for _ in 0..2 {
        block_on(async {
            let db = open(&home).await;
            let all = content(&db).await.unwrap();
            let wanted =
                [("a00005", "came"), ("a00006", "came"), ("a00007", "after"), ("b00001", "after")];
            let wanted: Map = wanted
                .iter()
                .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
                .collect();
            assert_eq!(all, wanted);
            db.close().await.unwrap();
        });
    }
}

#[test]
fn an_ordinary_ingest_is_newer_than_what_memory_has_and_older_than_what_comes() {
    let (home, dir) = (home(), tempfile::tempdir().unwrap());
    let keys: Vec<_> = (0..10).map(|n| key("a", n)).collect();
    let came = table(&dir, "t", &keys, "came");
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..20, "old").await;
        assert_eq!(db.ingest([&came]).await.unwrap(), 10);
        fill(&db, "a", 0..5, "after").await;
        for _ in 0..3 {
            for n in 0..20 {
                let wanted = if n < 5 {
                    "after"
                } else if n < 10 {
                    "came"
                } else {
                    "old"
                };
                let value = db.get(key("a", n)).await.unwrap();
                assert_eq!(value.as_deref(), Some(wanted.as_bytes()), "{n}");
            }
            assert_eq!(count(&db, "a").await, 20);
            db.compact().await.unwrap();
        }
        db.close().await.unwrap();
    });
}

#[test]
fn bounds_longer_than_any_key_are_taken_and_survive_a_restart() {
    let home = home();
    let long = vec![b'b'; 70_000];
    block_on(async {
        let db = open(&home).await;
        for prefix in ["a", "b", "c"] {
            fill(&db, prefix, 0..20, "v").await;
        }
        db.excise(long.clone()..).await.unwrap();
        db.excise(b"a00010".to_vec()..long).await.unwrap();
        assert_eq!((count(&db, "a").await, count(&db, "").await), (10, 10));
    });
    block_on(async {
        let db = open(&home).await;
        assert_eq!(count(&db, "").await, 10);
        db.close().await.unwrap();
    });
    assert!(sluicedb::verify(home.path(), |_, _| {}).unwrap().is_sound());
}

#[test]
fn x_07_a_database_may_be_its_own_source() {
    let home = home();
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..50, "then").await;
        let then = db.snapshot();
        fill(&db, "a", 0..80, "now").await;
        db.replace_from(&then, ["a".."b"], OnEmpty::Wipe).await.unwrap();
        let all = content(&db).await.unwrap();
        assert!(all.len() == 50 && all.values().all(|value| value == b"then"));
        db.close().await.unwrap();
    });
}

/// A batch with range deletes is one change, applied in the order of its operations, and it
/// survives a kill.
///
/// Planted: a put before the range delete that stays; a put after it that goes.
#[test]
fn a_batch_may_delete_ranges_and_put_into_them() {
    let home = home();
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..40, "old").await;
        fill(&db, "b", 0..40, "old").await;
        db.flush().await.unwrap();
        fill(&db, "b", 40..60, "old").await;
        let before = db.snapshot();
        let mut batch = WriteBatch::new();
        batch.put("a00001", "gone").put("c", "new").delete("b00059").delete_range("a".."a00030");
        batch.put("a00002", "new").delete_prefix("b0003").delete("a00003");
        assert_eq!(
            db.write_with(batch.clone(), NO_WAIT).await.unwrap_err().kind(),
            ErrorKind::Invalid
        );
        db.write(batch).await.unwrap();
        let counts = [count(&db, "a").await, count(&db, "b").await, count(&db, "c").await];
        assert_eq!(counts, [11, 49, 1]);
        assert_eq!(db.get("a00002").await.unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(db.get("a00001").await.unwrap(), None);
        assert_eq!(before.get("a00001").await.unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(db.stats().changes, 1);
        let ticket = db.submit(WriteBatch::new().delete_prefix("c").clone()).await.unwrap();
        ticket.await.unwrap();
        assert_eq!(count(&db, "c").await, 0);
    });
    block_on(async {
        let db = open(&home).await;
        assert_eq!((count(&db, "a").await, count(&db, "b").await), (11, 49));
        db.close().await.unwrap();
    });
}

#[test]
fn delete_range_takes_a_handful_key_by_key_and_more_at_once() {
    let home = home();
    block_on(async {
        let db = open(&home).await;
        fill(&db, "a", 0..10, "v").await;
        fill(&db, "b", 0..100, "v").await;
        let changes = || db.stats().changes;
        db.delete_range("a00002".."a00007").await.unwrap();
        assert_eq!((count(&db, "a").await, changes()), (5, 0));
        db.delete_prefix("b").await.unwrap();
        assert_eq!((count(&db, "b").await, changes()), (0, 1));
        db.delete_range("z".."a").await.unwrap();
        db.delete_range("c".."d").await.unwrap();
        assert_eq!((count(&db, "a").await, changes()), (5, 1));
        db.close().await.unwrap();
    });
}

/// Planted: a handful of keys goes into one batch, however long they are.
#[test]
fn delete_range_takes_long_keys_that_are_too_much_for_a_batch() {
    let options = Options { batch_bytes_max: Some(100_000), ..settings::tiny() };
    let home = Simulated::with(12, options);
    let db = home.open();
    home.run(async {
        for first in [1, 2] {
            db.put(vec![first; 60_000], "").await.unwrap();
        }
        db.put([3], "stays").await.unwrap();
        db.delete_range(..[3]).await.unwrap();
        let left: Vec<_> = db.scan(..).try_collect().await.unwrap();
        assert_eq!(left.len(), 1);
    });
}
