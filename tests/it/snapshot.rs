use crate::harness::{Home, block_on, fill};
use crate::kit::disk::collect;
use crate::kit::oracle::{Entries, Map};
use sluicedb::{Db, Snapshot, WriteBatch};

fn entries(map: &Map) -> Entries {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

async fn shows(snapshot: &Snapshot, expected: &Map) {
    assert_eq!(collect(snapshot.scan(..)).await.unwrap(), entries(expected));
    let mut back = collect(snapshot.scan(..).rev()).await.unwrap();
    back.reverse();
    assert_eq!(back, entries(expected));
    for n in 0..60 {
        let key = format!("key{n:04}");
        let want = expected.get(key.as_bytes()).map(Vec::as_slice);
        assert_eq!(snapshot.get(&key).await.unwrap().as_deref(), want, "{key}");
        assert_eq!(snapshot.contains_key(&key).await.unwrap(), want.is_some());
    }
    let keys = ["key0000", "none", "key0001"];
    let many = snapshot.multi_get(&keys).await.unwrap();
    assert_eq!(many[0].as_deref(), expected.get(&b"key0000"[..]).map(Vec::as_slice));
    assert_eq!(many[1], None);
}

#[test]
fn nothing_moves_a_snapshot() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        let first = fill(&db, 50, 40).await;
        let early = db.snapshot();
        shows(&early, &first).await;

        for n in 0..50 {
            match n % 3 {
                0 => db.put(format!("key{n:04}"), "overwritten").await.unwrap(),
                1 => db.delete(format!("key{n:04}")).await.unwrap(),
                _ => db.put(format!("key{n:04}/new"), "new").await.unwrap(),
            };
        }
        shows(&early, &first).await;
        let second: Map = collect(db.scan(..)).await.unwrap().into_iter().collect();
        let late = db.snapshot();
        assert!(late.seqno() > early.seqno());

        db.flush().await.unwrap();
        shows(&early, &first).await;
        shows(&late, &second).await;
        for round in 0..3 {
            fill(&db, 60, 30 + round).await;
            db.compact().await.unwrap();
            shows(&early, &first).await;
            shows(&late, &second).await;
        }
        let copy = early.clone();
        drop(early);
        db.compact().await.unwrap();
        shows(&copy, &first).await;
        // The snapshot outlives the database and its handle.
        db.close().await.unwrap();
        shows(&copy, &first).await;
        drop(db);
        shows(&copy, &first).await;
        shows(&late, &second).await;

        let again = home.builder().open().await.unwrap();
        fill(&again, 60, 5).await;
        again.compact().await.unwrap();
        shows(&copy, &first).await;
        shows(&late, &second).await;
    });
}

#[test]
fn a_snapshot_outlives_a_database_that_was_dropped_without_close() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 60, 50));
    let snapshot = db.snapshot();
    drop(db);
    block_on(shows(&snapshot, &expected));
    let again = home.open();
    block_on(again.put("key0000", "x")).unwrap();
    block_on(shows(&snapshot, &expected));
}

#[test]
fn pinned_tables_are_deleted_when_nobody_reads_them_any_more() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        fill(&db, 200, 60).await;
        db.compact().await.unwrap();
        // The compaction's inputs are deleted with their last handle. Each flush makes the version
        // manager look.
        while home.files(".sst").len() as u64 > db.stats().tables {
            db.flush().await.unwrap();
        }
        let snapshot = db.snapshot();
        let pinned = home.files(".sst");
        fill(&db, 200, 61).await;
        db.compact().await.unwrap();
        assert!(pinned.iter().all(|path| path.exists()), "a snapshot reads them");
        drop(snapshot);
        // The next message makes the version manager look at the graves.
        db.put("one", "more").await.unwrap();
        db.compact().await.unwrap();
        db.close().await.unwrap();
        assert!(pinned.iter().all(|path| !path.exists()), "nobody reads them");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_taken_while_others_write_are_consistent() {
    let home = Home::new();
    let db = home.builder().open().await.unwrap();
    let writer = |db: Db, name: &'static str| async move {
        for n in 0..800_u32 {
            let mut batch = WriteBatch::new();
            batch
                .put(format!("{name}/a"), n.to_be_bytes())
                .put(format!("{name}/b"), n.to_be_bytes());
            db.write(batch).await.unwrap();
        }
    };
    let one = tokio::spawn(writer(db.clone(), "one"));
    let two = tokio::spawn(writer(db.clone(), "two"));
    let mut last = 0;
    while !(one.is_finished() && two.is_finished()) {
        let snapshot = db.snapshot();
        assert!(snapshot.seqno() >= last, "time goes forwards");
        last = snapshot.seqno();
        for name in ["one", "two"] {
            let a = snapshot.get(format!("{name}/a")).await.unwrap();
            tokio::task::yield_now().await;
            let b = snapshot.get(format!("{name}/b")).await.unwrap();
            assert_eq!(a, b);
        }
    }
    one.await.unwrap();
    two.await.unwrap();
}
