//! Overwritten entries: which die, which stay, and whose bytes are still valid.
//!
//! Chunks that leave limbo are filled with 0xDD here. So a reader of memory that was reclaimed too
//! early sees it.

mod lists;

use super::*;
use crate::buffer::ChunkSource;
use crate::limits::VALUE_BYTES_CAP;
use crate::points::{Holder, ReadPoint};
use std::sync::atomic::AtomicU64;

fn options(step_bytes: usize) -> BufferOptions {
    BufferOptions { step_bytes, ..BufferOptions::default() }
}

/// A memtable that reclaims, and what every read point must see.
struct Rig {
    table: Arc<Memtable>,
    writer: MemtableWriter,
    points: Arc<ReadPoints>,
    model: Model,
    seqno: u64,
    held: Vec<ReadPoint>,
}

impl Rig {
    fn new(options: BufferOptions) -> Self {
        let points = ReadPoints::new();
        let reclaim = Some(Reclaim { points: Arc::clone(&points), options });
        let (table, writer) =
            memtable_with(0, MemtableOptions { reclaim, ..MemtableOptions::default() });
        Self { table, writer, points, model: Model::new(), seqno: 0, held: Vec::new() }
    }

    fn put(&mut self, key: &[u8], kind: Kind, value: &[u8]) {
        self.seqno += 1;
        self.writer.insert(key, Seqno(self.seqno), kind, value);
        self.model.insert((key.to_vec(), Reverse(self.seqno)), (kind, value.to_vec()));
    }

    fn reclaim(&mut self, copy_bytes: usize) -> ReclaimStep {
        self.writer.reclaim(Seqno(self.seqno), copy_bytes, true)
    }

    fn settle(&mut self) {
        for _ in 0..1_000_000 {
            // Held versions stay, whatever happens.
            let waits = self.held.is_empty() && self.writer.has_garbage();
            if !self.reclaim(4096).progress && !waits {
                return;
            }
        }
        panic!("it never gets clean: {:?}", self.table.reclaim_stats());
    }

    fn hold(&mut self) {
        let seqno = self.seqno;
        self.held.push(self.points.hold(Holder::Scan, 1, || Seqno(seqno)));
    }

    /// Checks that everything that a read point, or the newest instant, can see is there.
    fn check(&self, random: &mut Random) {
        for point in &self.held {
            check_cursor(&self.table, &self.model, point.seqno().0, random);
            for (key, ..) in shown(&self.model, self.seqno) {
                check_get(&self.table, &self.model, &key, point.seqno().0);
            }
        }
        check_cursor(&self.table, &self.model, self.seqno, random);
    }
}

/// Planted: `insert` does not check the length.
#[test]
fn t001_04_what_is_too_large_is_refused_and_the_old_value_stays() {
    let mut rig = Rig::new(BufferOptions::default());
    rig.put(b"k", Kind::Put, b"old");
    let longest = vec![7; KEY_BYTES_MAX];
    rig.put(&longest, Kind::Put, &vec![1; 70_000]);
    let attempt = |rig: &mut Rig, key: &[u8], value: &[u8]| {
        let next = Seqno(rig.seqno + 1);
        let writer = std::panic::AssertUnwindSafe(&mut rig.writer);
        std::panic::catch_unwind(move || {
            let writer = writer;
            writer.0.insert(key, next, Kind::Put, value);
        })
        .is_err()
    };
    assert!(attempt(&mut rig, b"", b"v"));
    assert!(attempt(&mut rig, &vec![7; KEY_BYTES_MAX + 1], b"v"));
    // Untouched pages: only the length of this value is read.
    let too_long = vec![0; VALUE_BYTES_CAP + 1];
    assert!(attempt(&mut rig, b"k", &too_long));
    rig.settle();
    rig.check(&mut Random(1));
    assert_eq!(lookup(&rig.table, b"k", u64::MAX >> 8), Some((1, Kind::Put, b"old".to_vec())));
}

/// Goal: keys are overwritten at every stage of a compaction, while older versions are held and
/// move too.
/// Planted: `relocate` stops at the first `Versions`.
#[test]
fn t001_09_overwrites_during_a_compaction_win() {
    let mut rig = Rig::new(options(64));
    let mut random = Random(0x5EED_0901);
    for round in 0..30_000_u64 {
        let key = format!("key{:03}", random.below(400));
        rig.put(key.as_bytes(), Kind::Put, &[round as u8; 300]);
        rig.reclaim(300);
        if round % 700 == 0 {
            rig.hold();
        }
        if rig.held.len() > 2 {
            rig.held.remove(0);
        }
        if round % 3_000 == 0 {
            rig.check(&mut random);
        }
    }
    rig.held.clear();
    rig.settle();
    rig.check(&mut random);
    let stats = rig.table.reclaim_stats();
    assert!(stats.compactions > 10, "{stats:?}");
    assert!(rig.table.allocated_bytes() < 2 << 20, "{stats:?}");
}

/// Planted: `reclaim` makes steps only when something was retired.
#[test]
fn t001_13_a_compaction_ends_without_further_writes() {
    let mut rig = Rig::new(options(1024));
    for round in 0..4_000_u64 {
        rig.put(&(round % 1_000).to_be_bytes(), Kind::Put, &[round as u8; 200]);
    }
    let before = rig.table.allocated_bytes();
    // Everything is retired before anything is copied. Only calls without writes follow.
    for _ in 0..100 {
        rig.reclaim(0);
    }
    assert!(rig.writer.is_compacting());
    let mut ticks = 0;
    while rig.reclaim(64 << 10).progress || rig.writer.has_garbage() {
        ticks += 1;
        assert!(ticks < 1_000, "{:?}", rig.table.reclaim_stats());
    }
    let stats = rig.table.reclaim_stats();
    // Less than half a chunk may remain: moving the rest would not pay for it.
    assert!(!stats.buffer.compacting && stats.buffer.dead_bytes < 256 << 10, "{stats:?}");
    assert!(rig.table.allocated_bytes() < before / 4 * 3);
    assert!(stats.reclaimed_bytes > 0);
    rig.check(&mut Random(2));
}

/// Goal: cursors and lookups run beside a writer that overwrites, retires and compacts all the
/// time. A cursor sees exactly its read point. A lookup at the newest instant sees the last value
/// written before it, or a later one.
/// Planted: `Limbo::turn` without `grace.turn()` (torn values). A `hold` that reads `visible`
/// before it announces itself is too rare to be caught here; the loom model catches it.
#[test]
fn t001_15_readers_keep_valid_bytes_while_memory_goes_round() {
    for seed in [0x5EED_1501_u64, 0x5EED_1502] {
        println!("seed {seed:#x}");
        let points = ReadPoints::new();
        let reclaim =
            Some(Reclaim { points: Arc::clone(&points), options: BufferOptions::default() });
        let pool = Some(ChunkPool::new(PoolLimits { kept_bytes: 64 << 20, all_bytes: 64 << 20 }));
        let (table, mut writer) =
            memtable_with(0, MemtableOptions { pool, reclaim, full_bytes: None });
        let visible = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        let key = |number: u64| format!("key{number:04}").into_bytes();
        // Every byte of a value tells its key and its sequence number.
        let value = |number: u64, seqno: u64| {
            let len =
                16 + (seqno as usize * 37) % if seqno.is_multiple_of(97) { 90_000 } else { 400 };
            let mut value = vec![(number ^ seqno) as u8; len];
            value[..8].copy_from_slice(&number.to_le_bytes());
            value[8..16].copy_from_slice(&seqno.to_le_bytes());
            value
        };
        let check = |key_bytes: &[u8], seqno: u64, found: &[u8]| {
            let number = u64::from_le_bytes(found[..8].try_into().unwrap());
            assert_eq!(key_bytes, key(number));
            assert!(found == value(number, seqno), "the value of {number} at {seqno} is torn");
        };
        thread::scope(|scope| {
            for reader in 0..2 {
                let (table, points, visible, done) = (&table, &points, &visible, &done);
                scope.spawn(move || {
                    let mut random = Random(seed ^ (reader + 0xF00D));
                    let now = || Seqno(visible.load(Ordering::Acquire));
                    while !done.load(Ordering::Acquire) {
                        if reader == 0 {
                            let point = points.hold(Holder::Scan, 1, now);
                            let mut cursor = table.cursor(point.seqno());
                            onward(&mut cursor, Cursor::seek_first);
                            let mut shown = 0;
                            while cursor.valid() {
                                assert!(cursor.seqno() <= point.seqno());
                                check(cursor.key(), cursor.seqno().0, cursor.value());
                                shown += 1;
                                onward(&mut cursor, Cursor::next);
                            }
                            // The first round writes every key once.
                            assert_eq!(shown, point.seqno().0.min(500));
                            continue;
                        }
                        let number = random.below(500) as u64;
                        let mut looks = 0;
                        loop {
                            let upto = now();
                            let pin = table.pin();
                            let found = pin.get(&key(number), upto);
                            looks += 1;
                            if found.passed_cut {
                                assert!(now() > upto, "a cut has a visible successor");
                                continue;
                            }
                            match found.version {
                                Some(version) => {
                                    assert!(version.seqno() <= upto);
                                    check(
                                        &key(number),
                                        version.seqno().0,
                                        &version.value(usize::MAX).unwrap().unwrap(),
                                    );
                                }
                                None => assert!(upto.0 <= number, "{number} is missing at {upto}"),
                            }
                            break;
                        }
                        assert!(looks < 1000);
                    }
                });
            }
            let mut random = Random(seed);
            // How soon memory is free depends on how the readers are scheduled.
            let enough = |seqno| seqno > 20_000 && table.reclaim_stats().compactions > 5;
            for seqno in (1..=2_000_000_u64).take_while(|seqno| !enough(*seqno)) {
                let number = if seqno <= 500 { seqno - 1 } else { random.below(500) as u64 };
                writer.insert(&key(number), Seqno(seqno), Kind::Put, &value(number, seqno));
                visible.store(seqno, Ordering::Release);
                writer.reclaim(Seqno(seqno), 2_000, true);
            }
            done.store(true, Ordering::Release);
        });
        let stats = table.reclaim_stats();
        println!("{stats:?}");
        assert!(stats.compactions > 5, "{stats:?}");
    }
}

/// Goal: a memtable that is sealed at any stage of a compaction, with versions held, shows
/// everything in order.
/// Planted: `take_chunks` forgets the source.
#[test]
fn t001_16_a_seal_is_right_in_any_state_of_a_compaction() {
    for stop_after in (0..400).step_by(7) {
        let mut rig = Rig::new(options(100));
        let mut random = Random(0x5EED_1601 ^ stop_after);
        for round in 0..1_500_u64 {
            let value = vec![round as u8; random.below(300)];
            rig.put(&(round % 500).to_be_bytes(), Kind::Put, &value);
            if round == 600 {
                rig.hold();
            }
        }
        for _ in 0..stop_after {
            rig.reclaim(1);
        }
        let Rig { table, writer, model, seqno, held, .. } = rig;
        let before: Vec<_> = shown(&model, seqno);
        writer.freeze();
        for upto in [held[0].seqno().0, seqno] {
            check_cursor(&table, &model, upto, &mut random);
        }
        assert_eq!(before.len(), 500);
    }
}

/// Goal: buffer and index agree with a sorted map under random puts, deletes, steps, read points
/// and seals.
/// Planted: `retire` frees a version between two points (`frees` with `>` for `>=`); `holder`
/// returns a stale place.
#[test]
fn t001_17_agrees_with_a_sorted_map_under_random_work() {
    let (mut compactions, mut merges_of_lists, mut seals) = (0, 0, 0);
    for seed in seeds() {
        let mut random = Random(seed);
        for case in 0..30 {
            let mut rig = Rig::new(options([1, 16, 300, 5_000, 64 << 10][random.below(5)]));
            for _ in 0..2_000 {
                match random.below(40) {
                    0 => rig.hold(),
                    1..=2 if !rig.held.is_empty() => {
                        let at = random.below(rig.held.len());
                        rig.held.remove(at);
                        merges_of_lists += 1;
                    }
                    3..=12 => {
                        let bytes = random.below(3_000);
                        rig.reclaim(bytes);
                    }
                    _ => {
                        let (key, kind, mut value) = operation(&mut random, rig.seqno + 1);
                        if kind == Kind::Put && random.below(30) == 0 {
                            value.resize(random.below(100_000), 3);
                        }
                        let hot = [b'h', random.below(40) as u8];
                        let key = if random.below(3) > 0 { hot.to_vec() } else { key };
                        rig.put(&key, kind, &value);
                    }
                }
            }
            rig.check(&mut random);
            if random.below(2) == 0 {
                rig.held.clear();
                rig.settle();
                rig.check(&mut random);
            }
            compactions += rig.table.reclaim_stats().compactions;
            println!("seed {seed:#x} case {case}: {:?}", rig.table.reclaim_stats());
            let Rig { table, writer, model, seqno, held, .. } = rig;
            writer.freeze();
            seals += 1;
            for upto in held.iter().map(|point| point.seqno().0).chain([seqno]) {
                check_cursor(&table, &model, upto, &mut random);
            }
        }
    }
    assert!(
        compactions > 200 && merges_of_lists > 1_000 && seals == 90,
        "{compactions} {merges_of_lists}"
    );
}

/// Goal: a snapshot keeps exactly what it needs, and releases it when it is dropped.
/// Planted: held entries of the retire list are dropped instead of set aside.
#[test]
fn a_point_holds_one_version_of_each_key() {
    let mut rig = Rig::new(BufferOptions::default());
    for round in 0..50_u64 {
        for key in 0..100_u64 {
            rig.put(&key.to_be_bytes(), Kind::Put, &[round as u8; 1_000]);
            rig.reclaim(10_000);
        }
        if round == 20 {
            rig.hold();
        }
    }
    rig.settle();
    let entries = rig.table.reclaim_stats().buffer.entries;
    let live = rig.table.reclaim_stats().buffer.live_bytes;
    assert!(
        (190_000..230_000).contains(&live),
        "two versions of each key: {live}, {entries} entries"
    );
    rig.check(&mut Random(3));
    rig.held.clear();
    assert!(rig.writer.has_garbage(), "without a write that would look");
    rig.settle();
    let live = rig.table.reclaim_stats().buffer.live_bytes;
    assert!(live < 120_000, "{live}");
}

/// Goal: a writer hardly notices the release of a read point that held very much.
/// Planted: `retire_overwritten` without `HELD_PER_CALL`; `wants_reclaim` is true for every insert.
#[test]
fn what_a_point_held_is_retired_a_little_at_a_time() {
    let mut rig = Rig::new(BufferOptions::default());
    for round in 0..2_u8 {
        for key in 0..1_000_u64 {
            rig.put(&key.to_be_bytes(), Kind::Put, &[round; 10]);
        }
        rig.hold();
    }
    for _ in 0..20 {
        rig.reclaim(0);
    }
    let dead = |rig: &Rig| rig.table.reclaim_stats().buffer.dead_bytes;
    let mut before = dead(&rig);
    assert_eq!(before, 0, "all are held");
    rig.held.clear();
    let (mut early_calls, mut most) = (0, 0);
    for key in 10_000..20_000_u64 {
        rig.put(&key.to_be_bytes(), Kind::Put, b"");
        if rig.writer.wants_reclaim() {
            early_calls += u64::from(key < 10_128);
            rig.reclaim(0);
            most = most.max(dead(&rig) - before);
            before = dead(&rig);
        }
    }
    assert!((2..10).contains(&early_calls), "{early_calls} calls in 128 inserts");
    assert!(most > 0 && most <= 16 * 64, "{most} bytes retired at once");
    rig.settle();
    assert!(!rig.writer.has_garbage());
    rig.check(&mut Random(4));
}

/// Goal: what a released point held is found without further writes, though what is held by
/// another point comes first.
/// Planted: `progress` that tells only of versions that were retired.
#[test]
fn what_a_point_held_is_found_behind_what_another_one_holds() {
    let mut rig = Rig::new(BufferOptions::default());
    let reclaim = |rig: &mut Rig| rig.writer.reclaim(Seqno(rig.seqno), 64 << 10, false).progress;
    for key in 0..10_000_u64 {
        rig.put(&key.to_be_bytes(), Kind::Put, &[0; 10]);
    }
    for round in 1..3_u8 {
        rig.hold();
        for key in 0..5_000_u64 {
            rig.put(&key.to_be_bytes(), Kind::Put, &[round; 10]);
        }
        while reclaim(&mut rig) {}
    }
    assert_eq!(rig.table.reclaim_stats().buffer.dead_bytes, 0, "all are held");
    drop(rig.held.pop());
    let mut calls = 0;
    while reclaim(&mut rig) {
        calls += 1;
    }
    let dead = rig.table.reclaim_stats().buffer.dead_bytes;
    // Key, value and header of one version of each of 5,000 keys. The other point needs the rest.
    assert!((5_000 * 18..10_000 * 18).contains(&dead), "{dead} bytes are dead");
    assert!((500..=700).contains(&calls), "{calls} calls, a little each");
    assert!(rig.writer.has_garbage() && !rig.writer.wants_reclaim(), "all have been looked at");
    rig.check(&mut Random(5));
}

/// Goal: a buffer that outgrows small chunks gets large ones that the kernel has already handed
/// over, if they are there in time, and waits for them once.
/// Planted: `is_due_for_other_class` does not ask (the chunk is not from the stock); it always
/// returns false.
#[test]
fn b16_who_outgrows_small_chunks_waits_once_for_a_stock() {
    const LARGE: usize = ChunkClass::Large.bytes();
    let value = vec![7; 1 << 20];
    // There is time to make the chunk; there is none; there is no room for it.
    for (bytes_max, in_time) in [(8 * LARGE, true), (8 * LARGE, false), (LARGE / 2, false)] {
        let pool = ChunkPool::new(PoolLimits { kept_bytes: bytes_max, all_bytes: bytes_max });
        let reclaim = Some(Reclaim { points: ReadPoints::new(), options: options(64 << 10) });
        let options = MemtableOptions { pool: Some(Arc::clone(&pool)), reclaim, full_bytes: None };
        let (table, mut writer) = memtable_with(0, options);
        let mut reclaim = || {
            writer.reclaim(Seqno(1), 1, false);
            (writer.is_compacting(), pool.take_restock_due())
        };
        assert_eq!(reclaim(), (false, false), "it is empty");
        writer.insert(b"key", Seqno(1), Kind::Put, &value);
        let mut reclaim = || {
            writer.reclaim(Seqno(1), 1, false);
            (writer.is_compacting(), pool.take_restock_due())
        };
        if bytes_max > LARGE {
            assert_eq!(reclaim(), (false, true), "a stock is asked for");
            if in_time {
                pool.restock();
            }
        }
        let (compacting, missing) = reclaim();
        assert!(compacting, "it waits once");
        assert_eq!(missing, bytes_max > LARGE, "a large chunk was taken");
        assert_eq!(pool.held_bytes(), if in_time { LARGE } else { 0 });
        assert_eq!(table.reclaim_stats().compactions, 1);
    }
}

/// Goal: a memtable that will be small takes no chunks that it would hardly fill, for entries or
/// for its index, and asks for no stock of them.
/// Planted: `wanted_class` and `grow` do not look at the largest class; whoever takes a medium
/// chunk asks for a stock.
#[test]
fn a_memtable_that_will_be_small_takes_no_large_chunks() {
    for (full_bytes, class) in [(1 << 19, ChunkClass::Small), (1 << 20, ChunkClass::Medium)] {
        let pool = ChunkPool::new(PoolLimits { kept_bytes: 64 << 20, all_bytes: 64 << 20 });
        let reclaim = Some(Reclaim { points: ReadPoints::new(), options: options(64 << 10) });
        let (pool_of_it, full_bytes) = (Some(Arc::clone(&pool)), Some(full_bytes));
        let (table, mut writer) =
            memtable_with(0, MemtableOptions { pool: pool_of_it, reclaim, full_bytes });
        for n in 0..300_000_u64 {
            let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
            writer.insert(&key, Seqno(n + 1), Kind::Put, b"");
            writer.reclaim(Seqno(n + 1), 64 << 10, false);
        }
        assert!(!pool.take_restock_due(), "no stock is asked for");
        assert_eq!(table.reclaim_stats().buffer.class, class);
        drop((table, writer));
        assert!(pool.held_bytes() > 8 << 20, "the index alone is larger");
        let held_bytes = pool.held_bytes();
        pool.restock();
        assert_eq!(pool.held_bytes(), held_bytes, "none is made, whatever else there is to do");
        drop(ChunkSource::new(Some(Arc::clone(&pool))).take(ChunkClass::Large));
        assert_eq!(pool.held_bytes(), held_bytes, "none of them is large");
    }
}
