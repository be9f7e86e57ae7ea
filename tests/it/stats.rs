use crate::harness::{Home, Simulated, block_on, fill};
use crate::kit::disk::collect;
use crate::kit::settings;
use sluicedb::{HealthState, LevelInfo, WriteBatch};

#[test]
fn writes_are_counted() {
    let home = Simulated::new(1);
    let db = home.open();
    let before = db.stats();
    assert_eq!((before.commits, before.entries_written, before.visible_seqno), (0, 0, 0));
    home.run(async {
        db.put("a", "12345").await.unwrap();
        db.delete("a").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put("b", "1").put("c", "2").delete("d");
        db.write(batch).await.unwrap();
    });
    let stats = db.stats();
    assert_eq!(stats.commits, 3);
    assert_eq!(stats.entries_written, 5);
    assert_eq!(stats.visible_seqno, 5);
    // kind, lengths, key, value: 1+1+1+1+5, 1+1+1, 2 x (1+1+1+1+1) + 3.
    assert_eq!(stats.bytes_written, 9 + 3 + 13);
    assert!(stats.log_bytes >= stats.bytes_written);
    assert!(stats.commits_inline <= stats.commits);
    assert!(stats.active_bytes > 0 && stats.active_bytes < stats.write_buffer_bytes);
    assert_eq!(stats.write_buffer_bytes, home.options.effective_write_buffer_bytes());
    assert_eq!(stats.cache_capacity_bytes, home.options.effective_cache_bytes());
    assert!(stats.log_segments >= 1);
    home.run(db.sync()).unwrap();
    assert_eq!(db.stats().durable_seqno, 5);
    assert!(db.stats().log_syncs > 0);
}

/// Goal: each key that is looked up counts once, each entry of a scan once, whoever reads it and
/// wherever it is.
///
/// Planted: a lookup that goes to a read thread and does not count; entries that are lent and do
/// not count; a batch that counts when it is filled, and again when it is handed out.
#[test]
fn reads_are_counted() {
    let mut options = settings::tiny();
    options.cache_bytes = Some(0);
    let home = Simulated::with(5, options);
    home.disk.set_cold_reads(true);
    let db = home.open();
    home.run(fill(&db, 200, 50));
    home.run(db.close()).unwrap();
    drop(db);
    home.simulator.settle();
    let db = home.open();
    let reads = |stats: &sluicedb::Stats| {
        (stats.gets_found, stats.gets_absent, stats.scans, stats.scan_entries)
    };
    assert_eq!(reads(&db.stats()), (0, 0, 0, 0));
    let cold = db.stats().cold_reads;
    home.run(async {
        db.put("new", "1").await.unwrap();
        assert!(db.get("new").await.unwrap().is_some());
        assert!(db.get("key0007").await.unwrap().is_some());
        assert!(db.get("absent").await.unwrap().is_none());
        assert!(db.contains_key("key0008").await.unwrap());
        assert!(!db.contains_key("key0008x").await.unwrap());
        assert_eq!(db.value_len("key0100").await.unwrap(), Some(50));
        assert!(db.last_seqno("key0150").await.unwrap().is_some());
        let keys = ["new", "key0199", "nothing"];
        db.multi_get(&keys).await.unwrap();
        db.snapshot().multi_get(&keys).await.unwrap();
    });
    assert_eq!(reads(&db.stats()), (5 + 2 + 2, 2 + 1 + 1, 0, 0));
    assert!(db.stats().cold_reads > cold + 2, "some of them were cold");
    home.run(async {
        // By item, by batch, lent; a part, with a seek; the first one.
        assert_eq!(collect(db.scan(..)).await.unwrap().len(), 201);
        let mut scan = db.snapshot().scan("key0000".."key0100");
        scan.next_entry().await.unwrap();
        while scan.next_chunk().await.unwrap().is_some() {}
        let mut scan = db.scan(..).limit(10);
        scan.seek("key0050");
        while scan.next_entry().await.unwrap().is_some() {}
        assert!(db.first(..).await.unwrap().is_some());
    });
    assert_eq!(reads(&db.stats()), (9, 4, 4, 201 + 100 + 10 + 1));
}

/// Goal: a writer finds the memory into which its memtable grows, at no other writer's cost.
/// Planted: `RangeOwner::follow_up` that forgets `restock_due`.
#[test]
fn memory_is_stocked_where_a_memtable_grows() {
    let mut options = settings::tiny();
    options.write_buffer_bytes = Some(64 << 20);
    options.memtable_bytes = Some(8 << 20);
    options.buffer_compaction = true;
    let home = Simulated::with(2, options);
    let db = home.open();
    home.run(fill(&db, 50, 1000));
    home.simulator.settle();
    assert_eq!(db.stats().spare_chunk_bytes, 0, "there is little in it");
    home.run(fill(&db, 600, 1000));
    home.simulator.settle();
    let spare = db.stats().spare_chunk_bytes;
    assert!((4 << 20..=16 << 20).contains(&spare), "{spare}");
}

fn consistent(levels: &[LevelInfo], stats: &sluicedb::Stats) {
    let sum = |of: fn(&LevelInfo) -> u64| levels.iter().map(of).sum::<u64>();
    assert_eq!(sum(|info| info.tables), stats.tables);
    assert_eq!(sum(|info| info.bytes), stats.table_bytes);
    assert_eq!(sum(|info| info.entries), stats.table_entries);
    for info in levels {
        assert!(info.tombstones <= info.entries);
        assert_eq!(info.tables == 0, info.bytes == 0, "{info:?}");
        assert_eq!(info.bytes_max == 0, info.level == 0, "{info:?}");
        assert!(info.score >= 0.0 && info.score.is_finite());
    }
    assert!(
        levels
            .windows(2)
            .all(|pair| (pair[0].range, pair[0].level) < (pair[1].range, pair[1].level))
    );
    for range in &stats.ranges {
        let of_range = levels.iter().filter(|info| info.range == range.range);
        assert_eq!(of_range.map(|info| info.bytes).collect::<Vec<_>>(), range.level_bytes);
    }
    // Each level may be larger than the one above.
    let below: Vec<_> = levels.iter().filter(|info| info.level > 0).collect();
    assert!(below.windows(2).all(|pair| pair[1].bytes_max > pair[0].bytes_max));
}

#[test]
fn levels_and_stats_agree() {
    let home = Simulated::new(2);
    let db = home.open();
    for round in 0..8 {
        home.run(async {
            fill(&db, 150, 50 + round).await;
            db.delete("key0003").await.unwrap();
            match round % 3 {
                0 => db.flush().await.unwrap(),
                1 => db.compact().await.unwrap(),
                _ => {}
            }
        });
        home.simulator.settle();
        consistent(&db.level_info(), &db.stats());
    }
    home.run(db.compact()).unwrap();
    let stats = db.stats();
    consistent(&db.level_info(), &stats);
    assert_eq!(stats.table_entries, 149);
    assert!(stats.flush_bytes > 0 && stats.compaction_bytes_read > 0);
    assert!(stats.compaction_bytes_written > 0 && stats.edits > 0 && stats.index_bytes > 0);
    assert!(stats.seals >= stats.flushes);
    let [range] = &stats.ranges[..] else { panic!("{:?}", stats.ranges) };
    assert_eq!((&range.range_start[..], &range.range_end), (&b""[..], &None));
    assert_eq!((range.batches, range.rotations), (stats.commits, stats.seals));
    assert!(range.flushes > 0 && range.flushes <= stats.flushes, "{range:?}");
    assert_eq!((range.active_bytes, range.sealed_bytes), (stats.active_bytes, stats.sealed_bytes));
    assert_eq!((range.sealed_bytes, range.sealed_memtables), (0, 0));
    home.run(collect(db.scan(..))).unwrap();
    home.run(collect(db.scan(..))).unwrap();
    let stats = db.stats();
    assert!(stats.cache_bytes <= stats.cache_capacity_bytes * 2, "{stats:?}");
    assert!(stats.cache_hits + stats.cache_misses > 0);
}

#[test]
fn every_actor_has_a_mailbox_to_look_into() {
    let home = Home::new();
    let db = home.open();
    block_on(fill(&db, 50, 20));
    block_on(db.flush()).unwrap();
    let actors = db.stats().actors;
    let names: Vec<_> = actors.iter().map(|actor| actor.name.as_str()).collect();
    for wanted in [
        "wal writer",
        "range owner",
        "flush worker",
        "compaction planner",
        "compaction worker",
        "version manager",
    ] {
        assert!(names.iter().any(|name| name.contains(wanted)), "{wanted} in {names:?}");
    }
    for actor in &actors {
        assert!(actor.mailbox_capacity > 0, "{actor:?}");
        assert!(actor.mailbox_len <= actor.mailbox_capacity, "{actor:?}");
    }
    let handled = |name: &str| {
        let actor = actors.iter().find(|actor| actor.name.contains(name));
        actor.map_or(0, |actor| actor.handled)
    };
    assert!(handled("version manager") > 0);
}

#[test]
fn health_is_a_value() {
    let home = Home::new();
    let db = home.open();
    let mut health = db.health();
    assert!(health.state().is_running() && health.state().error().is_none());
    let mut changed = tokio_test::task::spawn(Box::pin(async move { health.changed().await }));
    assert!(changed.poll().is_pending());
    block_on(db.close()).unwrap();
    assert!(changed.is_woken());
    assert!(matches!(block_on(changed.into_inner()), HealthState::Closed(None)));
    // A watch keeps no database open.
    let health = db.health();
    drop(db);
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    drop(health);
}

#[test]
fn recovery_is_reported() {
    let home = Home::new();
    let db = home.open();
    block_on(fill(&db, 20, 20));
    drop(db);
    let db = home.open();
    assert_eq!(db.stats().recovered_entries, 20);
    assert_eq!(db.stats().recovered_torn_bytes, 0);
    // Recovery flushed them, so the next crash has nothing to replay.
    drop(db);
    assert_eq!(home.open().stats().recovered_entries, 0);
}
