use crate::harness::Simulated;
use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Db, Durability, Options, WriteBatch, WriteOptions};
use sluicedb_storage::vfs::CrashKind;

const SYNCED: WriteOptions = WriteOptions::durability(Durability::Synced);
const BUFFERED: WriteOptions = WriteOptions::durability(Durability::Buffered);

/// Returns the content that the next process finds after kill -9, and after a power cut that keeps
/// nothing unsynced.
fn left(home: &Simulated) -> (Map, Map) {
    let look = |disk| {
        let next = home.reborn(disk);
        // In a real crash the old engine would be gone already.
        let db = next.open();
        let found = next.run(content(&db)).unwrap();
        next.simulator.kill();
        drop(db);
        found
    };
    (look(home.disk.kill_clone()), look(home.disk.crash_clone(CrashKind::DropUnsynced)))
}

fn homes() -> Vec<Simulated> {
    let mut unmapped = settings::tiny();
    unmapped.log_mapped = false;
    vec![Simulated::with(1, settings::tiny()), Simulated::with(2, unmapped)]
}

#[test]
fn each_level_survives_what_it_says() {
    for home in homes() {
        let db = home.open();
        home.run(db.put_with("buffered", "1", BUFFERED)).unwrap();
        let (killed, _) = left(&home);
        assert!(killed.contains_key(&b"buffered"[..]));

        home.run(db.put_with("synced", "1", SYNCED)).unwrap();
        let (killed, cut) = left(&home);
        assert_eq!(killed.len(), 2);
        // It precedes the synced write in the order of writes, so it is durable as well.
        assert_eq!(cut.len(), 2);

        home.run(db.delete_with("synced", SYNCED)).unwrap();
        assert_eq!(left(&home).1.len(), 1);
        let mut batch = WriteBatch::new();
        batch.put("a", "1").put("b", "2");
        home.run(db.write_with(batch.clone(), BUFFERED)).unwrap();
        assert_eq!(left(&home).0.len(), 3);
        home.run(async { db.submit_with(batch, SYNCED).await.unwrap().await }).unwrap();
        assert_eq!(left(&home).1.len(), 3);
    }
}

#[test]
fn the_default_is_synced_and_a_database_may_choose_otherwise() {
    assert_eq!(Options::default().durability, Durability::Synced);
    let mut options = settings::tiny();
    options.durability = Durability::Synced;
    let home = Simulated::with(3, options);
    let db = home.open();
    home.run(db.put("a", "1")).unwrap();
    assert_eq!(left(&home).1.len(), 1);
    assert!(db.durable_seqno() >= db.stats().visible_seqno);
}

#[test]
fn sync_and_flush_are_barriers() {
    for home in homes() {
        let db = home.open();
        let fill = |db: &Db, round: usize| {
            for n in 0..20 {
                home.run(db.put_with(format!("{round}/{n}"), "v", BUFFERED)).unwrap();
            }
        };
        fill(&db, 0);
        home.run(db.sync()).unwrap();
        assert_eq!(db.durable_seqno(), db.stats().visible_seqno);
        assert_eq!(left(&home).1.len(), 20);
        fill(&db, 1);
        assert!(db.durable_seqno() <= db.stats().visible_seqno);
        home.run(db.flush()).unwrap();
        assert_eq!(left(&home).1.len(), 40);
        fill(&db, 2);
        home.run(db.close()).unwrap();
        assert_eq!(left(&home).1.len(), 60);
    }
}

#[test]
fn the_durable_point_never_overstates() {
    for home in homes() {
        let db = home.open();
        for n in 0..60_u32 {
            let how = if n % 9 == 8 { SYNCED } else { BUFFERED };
            home.run(db.put_with(format!("k{n:02}"), "v", how)).unwrap();
            let (durable, visible) = (db.durable_seqno(), db.stats().visible_seqno);
            assert!(durable <= visible);
            if n % 5 == 0 {
                let kept = left(&home).1.len() as u64;
                assert!(kept >= durable, "{kept} entries kept, {durable} said to be durable");
            }
        }
    }
}

#[test]
fn concurrent_synced_writers_share_syncs() {
    let home = Simulated::new(4);
    let db = home.open();
    let before = db.stats().log_syncs;
    home.run(async {
        let puts = (0..64).map(|n| {
            let db = db.clone();
            async move { db.put_with(format!("k{n}"), "v", SYNCED).await }
        });
        futures::future::try_join_all(puts).await.unwrap();
    });
    let syncs = db.stats().log_syncs - before;
    assert!((1..=32).contains(&syncs), "{syncs} syncs for 64 writers");
    assert_eq!(left(&home).1.len(), 64);
}

#[test]
fn visible_and_durable_go_on_across_a_reopen() {
    let home = Simulated::new(6);
    let db = home.open();
    home.run(db.put("a", "1")).unwrap();
    home.run(db.put("a", "2")).unwrap();
    let last = db.stats().visible_seqno;
    drop(db);
    let db = home.open();
    assert!(db.stats().visible_seqno >= last);
    assert_eq!(db.durable_seqno(), db.stats().visible_seqno, "what can be seen is durable");
    let mut batch = WriteBatch::new();
    batch.put("b", "1");
    let seqno = home.run(async { db.submit(batch).await.unwrap().await }).unwrap();
    assert!(seqno > last, "numbers are never given twice");
}
