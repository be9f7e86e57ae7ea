use crate::harness::{Held, Home, Simulated, block_on};
use crate::kit::chance::Chance;
use crate::kit::disk::collect;
use crate::kit::oracle::{Entries, Map};
use crate::kit::settings;
use futures::stream::FusedStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use sluicedb::{Db, Durability, Options, Scan, ScanBatch, WriteBatch};
use std::ops::Bound;
use tokio_test::assert_ready_ok;
use tokio_test::task::spawn;

fn keys(scan: Scan) -> Vec<String> {
    let entries: Entries = block_on(collect(scan)).unwrap();
    entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

/// a, b, c, d, e spread over levels, L0 and memory; some of them deleted and written again.
fn spread(home: &Home) -> Db {
    let db = home.open();
    block_on(async {
        for key in ["a", "b", "c", "x", "e"] {
            db.put(key, "old").await.unwrap();
        }
        db.compact().await.unwrap();
        db.delete("x").await.unwrap();
        db.put("b", "newer").await.unwrap();
        db.flush().await.unwrap();
        db.delete("c").await.unwrap();
        db.put("d", "new").await.unwrap();
        db.put("c", "again").await.unwrap();
    });
    db
}

#[test]
fn every_notation_of_a_range() {
    let home = Home::new();
    let db = spread(&home);
    assert_eq!(keys(db.scan(..)), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys(db.scan("b".."d")), ["b", "c"]);
    assert_eq!(keys(db.scan("b"..="d")), ["b", "c", "d"]);
    assert_eq!(keys(db.scan("c"..)), ["c", "d", "e"]);
    assert_eq!(keys(db.scan(.."c")), ["a", "b"]);
    assert_eq!(keys(db.scan(..="c")), ["a", "b", "c"]);
    assert_eq!(keys(db.scan("bb".."dd")), ["c", "d"]);
    assert_eq!(keys(db.scan(String::from("d")..)), ["d", "e"]);
    assert_eq!(keys(db.scan(b"b".to_vec()..b"c".to_vec())), ["b"]);
    assert_eq!(keys(db.scan([b'b']..=[b'c'])), ["b", "c"]);
    let excluded = (Bound::Excluded("a"), Bound::Included("c"));
    assert_eq!(keys(db.scan(excluded)), ["b", "c"]);
    let open_end = (Bound::Excluded("c"), Bound::Unbounded);
    assert_eq!(keys(db.scan(open_end)), ["d", "e"]);
    assert_eq!(keys(db.scan("b".."d").rev()), ["c", "b"]);
    assert_eq!(keys(db.scan("b"..="d").rev()), ["d", "c", "b"]);
    assert_eq!(keys(db.scan(..).rev().rev()), ["a", "b", "c", "d", "e"]);
    let snapshot = db.snapshot();
    assert_eq!(keys(snapshot.scan("b".."d")), ["b", "c"]);
    assert_eq!(keys(snapshot.scan_prefix("c")), ["c"]);
}

#[test]
fn empty_and_inverted_ranges_hold_nothing() {
    let home = Home::new();
    let db = spread(&home);
    let none: [&str; 0] = [];
    #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
    {
        assert_eq!(keys(db.scan("c".."c")), none);
        assert_eq!(keys(db.scan("d".."b")), none);
        assert_eq!(keys(db.scan("d".."b").rev()), none);
        assert_eq!(keys(db.scan("d"..="b")), none);
    }
    assert_eq!(keys(db.scan("c"..="c")), ["c"]);
    assert_eq!(keys(db.scan((Bound::Excluded("c"), Bound::Excluded("c")))), none);
    assert_eq!(keys(db.scan("f"..)), none);
    assert_eq!(keys(db.scan(.."a")), none);
    assert_eq!(keys(db.scan_prefix("nothing")), none);
    assert_eq!(keys(db.scan(.."")), none);
    assert_eq!(keys(db.scan(""..)), ["a", "b", "c", "d", "e"]);
    let empty = Home::new();
    assert_eq!(keys(empty.open().scan(..)), none);
}

#[test]
fn prefixes_at_the_edges_of_the_key_space() {
    let home = Home::new();
    let db = home.open();
    let all: [&[u8]; 9] =
        [&[0], &[0, 0], b"a", b"a\xFE\xFF", b"a\xFF", b"a\xFF\xFF", b"b", b"\xFF", b"\xFF\xFF\x01"];
    for pass in ["memory", "tables"] {
        block_on(async {
            for key in all {
                db.put(key, pass).await.unwrap();
            }
            if pass == "tables" {
                db.compact().await.unwrap();
            }
        });
        for prefix in [&b""[..], &[0], b"a", b"a\xFF", b"a\xFF\xFF", b"\xFF", b"\xFF\xFF", b"b\0"] {
            let wanted: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).collect();
            let found = block_on(collect(db.scan_prefix(prefix))).unwrap();
            assert!(found.iter().map(|(key, _)| &key[..]).eq(wanted.iter().map(|key| &key[..])));
            let back = block_on(collect(db.scan_prefix(prefix).rev())).unwrap();
            assert!(back.iter().rev().eq(found.iter()), "{prefix:?} backwards");
        }
    }
}

#[test]
fn limits_and_keys_only() {
    let home = Home::new();
    let db = spread(&home);
    let none: [&str; 0] = [];
    assert_eq!(keys(db.scan(..).limit(2)), ["a", "b"]);
    assert_eq!(keys(db.scan(..).rev().limit(2)), ["e", "d"]);
    assert_eq!(keys(db.scan(..).limit(0)), none);
    assert_eq!(keys(db.scan(..).limit(100)), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys(db.scan(..).limit(4).limit(3)), ["a", "b", "c"]);
    assert_eq!(keys(db.scan(..).limit(3).limit(u64::MAX)), ["a", "b", "c"]);
    let bare = block_on(collect(db.scan(..).keys_only())).unwrap();
    assert_eq!(bare.len(), 5);
    assert!(bare.iter().all(|(_, value)| value.is_empty()));
    let full = block_on(collect(db.scan("b".."d"))).unwrap();
    assert_eq!(full[0], (b"b".to_vec(), b"newer".to_vec()));
    assert_eq!(full[1], (b"c".to_vec(), b"again".to_vec()));
}

pub fn many(home: &Home, count: usize) -> Db {
    let db = home.open();
    block_on(async {
        for n in 0..count {
            db.put(format!("k{n:05}"), vec![n as u8; 30]).await.unwrap();
        }
    });
    db
}

fn take_batch(batch: &ScanBatch, into: &mut Vec<String>) {
    for at in 0..batch.len() {
        into.push(String::from_utf8(batch.key(at).to_vec()).unwrap());
        let n: usize = into.last().unwrap()[1..].parse().unwrap();
        assert_eq!(batch.value(at)[..], [n as u8; 30]);
    }
}

#[test]
fn chunks_and_single_entries_mix() {
    let home = Home::new();
    let db = many(&home, 3_000);
    let wanted: Vec<String> = (0..3_000).map(|n| format!("k{n:05}")).collect();
    for reverse in [false, true] {
        let mut scan = if reverse { db.scan(..).rev() } else { db.scan(..) };
        let mut found = Vec::new();
        block_on(async {
            let mut turn = 0;
            loop {
                turn += 1;
                if turn % 5 == 0 {
                    for _ in 0..turn % 90 {
                        if let Some((key, value)) = scan.next_entry().await.unwrap() {
                            found.push(String::from_utf8(key.to_vec()).unwrap());
                            let n: usize = found.last().unwrap()[1..].parse().unwrap();
                            assert_eq!(value, [n as u8; 30]);
                        }
                    }
                } else if turn % 3 == 0 {
                    let Some(batch) = scan.next_chunk().await.unwrap() else { break };
                    assert!(!batch.is_empty());
                    take_batch(&batch, &mut found);
                } else {
                    for _ in 0..turn % 7 {
                        if let Some((key, _)) = scan.try_next().await.unwrap() {
                            found.push(String::from_utf8(key.to_vec()).unwrap());
                        }
                    }
                }
            }
            // The end stays the end.
            assert!(scan.next_chunk().await.unwrap().is_none());
            assert!(scan.next().await.is_none());
        });
        if reverse {
            found.reverse();
        }
        assert_eq!(found, wanted);
    }
    // A limit is kept across all ways.
    let mut scan = db.scan(..).limit(7);
    block_on(async {
        assert_eq!(scan.next_entry().await.unwrap().unwrap().0, b"k00000");
        assert!(scan.next().await.is_some());
        let batch = scan.next_chunk().await.unwrap();
        assert!(batch.is_none_or(|batch| batch.len() <= 5));
        while scan.next_entry().await.unwrap().is_some() {}
        assert!(scan.next_chunk().await.unwrap().is_none() && scan.is_terminated());
    });
    let mut lent = db.scan("k00010"..).limit(3).keys_only();
    block_on(async {
        let mut keys = Vec::new();
        while let Some((key, value)) = lent.next_entry().await.unwrap() {
            assert!(value.is_empty());
            keys.push(key.to_vec());
        }
        assert_eq!(keys, [b"k00010", b"k00011", b"k00012"]);
        assert!(lent.next_entry().await.unwrap().is_none());
    });
}

#[test]
fn a_scan_shows_one_instant_while_everything_moves_underneath() {
    let home = Home::new();
    let db = many(&home, 400);
    let mut forward = db.scan(..);
    let mut backward = db.scan(..).rev();
    let mut found = (Vec::new(), Vec::new());
    block_on(async {
        for round in 0..400 {
            for (scan, into) in [(&mut forward, &mut found.0), (&mut backward, &mut found.1)] {
                let (key, value) = scan.next().await.unwrap().unwrap();
                let n: usize = std::str::from_utf8(&key[1..]).unwrap().parse().unwrap();
                assert_eq!(value[..], [n as u8; 30]);
                into.push(n);
            }
            // Behind, at and before the place of the scans.
            db.put(format!("k{round:05}"), "changed").await.unwrap();
            db.delete(format!("k{:05}", (round * 7) % 400)).await.unwrap();
            db.put(format!("k{:05}x", (round * 3) % 400), "new").await.unwrap();
            if round % 50 == 20 {
                db.flush().await.unwrap();
            }
            if round % 130 == 70 {
                db.compact().await.unwrap();
            }
        }
        assert!(forward.next().await.is_none());
        assert!(backward.next().await.is_none());
    });
    assert!(found.0.iter().copied().eq(0..400));
    assert!(found.1.iter().copied().eq((0..400).rev()));
}

#[test]
fn a_scan_goes_on_while_tables_are_written_and_after_close() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    block_on(async {
        for n in 0..300 {
            db.put(format!("k{n:05}"), vec![n as u8; 30]).await.unwrap();
        }
        db.flush().await.unwrap();
        db.put("k00000", vec![0; 30]).await.unwrap();
    });
    let mut scan = db.scan(..);
    let mut found = Vec::new();
    block_on(async {
        let batch = scan.next_chunk().await.unwrap().unwrap();
        take_batch(&batch, &mut found);
        db.compact().await.unwrap();
        db.close().await.unwrap();
    });
    drop(db);
    // The files that it reads are no longer part of any database; it has them still.
    let again = held.open();
    block_on(async {
        again.put("k00001", "other").await.unwrap();
        again.compact().await.unwrap();
        while let Some(batch) = scan.next_chunk().await.unwrap() {
            take_batch(&batch, &mut found);
        }
    });
    let wanted: Vec<String> = (0..300).map(|n| format!("k{n:05}")).collect();
    assert_eq!(found, wanted);
}

#[test]
fn cold_blocks_are_scanned_by_another_thread() {
    let mut options = settings::tiny();
    options.cache_bytes = Some(0);
    // One table: what opening a small one reads would warm all of it.
    (options.memtable_bytes, options.table_bytes_max) = (Some(128 << 10), 1 << 20);
    let held = Held::new(options);
    held.disk.set_cold_reads(true);
    let db = held.open();
    block_on(async {
        for n in 0..500 {
            db.put(format!("k{n:05}"), vec![n as u8; 30]).await.unwrap();
        }
        db.compact().await.unwrap();
        db.close().await.unwrap();
    });
    drop(db);
    let db = held.open();
    block_on(async {
        let mut scan = db.scan("k00400"..);
        for n in 400..500 {
            let (key, value) = scan.next_entry().await.unwrap().unwrap();
            assert_eq!((key, value), (format!("k{n:05}").as_bytes(), &[n as u8; 30][..]));
        }
        assert!(scan.next_entry().await.unwrap().is_none());
    });
    let lent = db.stats().cold_reads;
    assert!(lent > 0);
    assert_eq!(keys(db.scan(..)).len(), 500);
    assert!(db.stats().cold_reads > lent);
    assert_eq!(keys(db.scan("k00100".."k00110").rev()).len(), 10);
}

/// What is asked for while a read thread fills a batch holds for that batch, too. The simulator
/// decides when the read thread runs: not before the scan was polled.
#[test]
fn what_is_asked_for_while_a_batch_is_filled_holds_for_it() {
    let mut options = settings::tiny();
    options.cache_bytes = Some(0);
    let home = Simulated::with(7, options);
    let db = home.open();
    home.run(async {
        for n in 0..500 {
            db.put(format!("k{n:05}"), vec![n as u8; 30]).await.unwrap();
        }
        db.compact().await.unwrap();
    });
    home.disk.set_reads_without_waiting(false);
    let begun = || {
        let mut scan = db.scan("k00100".."k00300");
        assert!(scan.next().now_or_never().is_none(), "it is cold");
        scan
    };
    let keys = |scan: Scan| -> Vec<String> {
        let entries: Entries = home.run(collect(scan)).unwrap();
        entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
    };
    assert_eq!(keys(begun().rev().limit(1)), ["k00299"]);
    // It is in the first of two ranges by then, and behind tombstones that were in memory.
    assert!(home.run(db.split_at("k00200")).unwrap());
    for n in 100..150 {
        home.run(db.delete(format!("k{n:05}"))).unwrap();
    }
    assert_eq!(keys(begun().rev()).len(), 150);
    for n in 100..150 {
        home.run(db.put(format!("k{n:05}"), [n as u8])).unwrap();
    }
    home.run(db.flush()).unwrap();
    assert_eq!(keys(begun().limit(3)), ["k00100", "k00101", "k00102"]);
    let (_, value) = home.run(begun().keys_only().next()).unwrap().unwrap();
    assert!(value.is_empty());
    assert_eq!(home.run(db.get("k00400")).unwrap().unwrap()[..], [144; 30]);
}

#[test]
fn a_scan_is_owned() {
    fn owned<T: Send + Unpin + 'static>() {}
    fn stream<T: Stream<Item = Result<(bytes::Bytes, bytes::Bytes), sluicedb::Error>>>() {}
    owned::<Scan>();
    stream::<Scan>();
    owned::<ScanBatch>();
    let home = Home::new();
    let scan = {
        let db = spread(&home);
        db.scan(..)
    };
    // Another thread, no database handle left.
    let found = std::thread::spawn(move || keys(scan)).join().unwrap();
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
}

/// `count` keys that were written, compacted to the bottom, and deleted again but for the first and
/// the last, in one L0 table on a disk that cannot read without waiting. Nothing is cached.
fn deleted(seed: u64, count: usize) -> (Simulated, Db) {
    let mut options = settings::tiny();
    options.cache_bytes = Some(0);
    options.memory_budget_bytes = 64 << 20;
    options.write_buffer_bytes = Some(48 << 20);
    options.memtable_bytes = Some(24 << 20);
    options.log_segment_bytes = 16 << 20;
    (options.table_bytes_max, options.block_bytes) = (1 << 20, 4096);
    (options.l0_trigger_tables, options.l0_tables_max) = (8, 16);
    let home = Simulated::with(seed, options);
    let db = home.open();
    let key = |n: usize| format!("k{n:06}");
    let write = |range: std::ops::Range<usize>, delete: bool| {
        for from in range.clone().step_by(1000) {
            let mut batch = WriteBatch::new();
            for n in from..(from + 1000).min(range.end) {
                if delete {
                    batch.delete(key(n))
                } else {
                    batch.put(key(n), "live")
                };
            }
            home.run(db.write(batch)).unwrap();
        }
    };
    write(0..count, false);
    home.run(db.compact()).unwrap();
    write(1..count - 1, true);
    home.run(db.flush()).unwrap();
    home.run(db.close()).unwrap();
    drop(db);
    home.disk.set_reads_without_waiting(false);
    let db = home.open();
    (home, db)
}

/// A scan over very many deleted keys ends, also where each block is cold whenever it is looked at,
/// and each poll does a bounded part of it. Planted: `drain` without `passed`.
#[test]
fn a4_a_scan_over_very_many_deleted_keys_ends() {
    for (seed, count) in [(0xA401_u64, 20_000), (0xA402, 100_000)] {
        println!("seed {seed:#x}");
        let (home, db) = deleted(seed, count);
        let before = db.stats().cold_reads;
        for reverse in [false, true] {
            let mut scan = if reverse { db.scan(..).rev() } else { db.scan(..) };
            let (mut found, mut polls) = (Vec::new(), 0);
            loop {
                let mut batch = spawn(scan.next_chunk());
                polls += 1;
                let mut polled = batch.poll();
                while polled.is_pending() {
                    home.simulator.settle();
                    assert!(batch.is_woken(), "nobody will poll it again");
                    polls += 1;
                    assert!(polls < 200, "no end after {polls} polls");
                    polled = batch.poll();
                }
                match assert_ready_ok!(polled) {
                    Some(batch) => found.extend(batch.iter().map(|(key, _)| key.to_vec())),
                    None => break,
                }
            }
            println!("{count} keys, reverse {reverse}: {polls} polls");
            if reverse {
                found.reverse();
            }
            assert_eq!(found, [&b"k000000"[..], format!("k{:06}", count - 1).as_bytes()]);
        }
        let trips = db.stats().cold_reads - before;
        println!("{trips} trips to a read thread");
        assert!(trips > 2 && trips <= 2 * (count as u64 / 4096 + 8), "{trips} trips");
        home.run(db.close()).unwrap();
    }
}

/// Tables of a realistic size, in several ranges and levels, on a real disk or on one that cannot
/// read without waiting; the caller of a scan never waits for either (it has no runtime and is
/// polled by hand).
#[test]
fn d7_a_large_database_is_scanned_from_disk() {
    let mut options = Options::default();
    options.memory_budget_bytes = 16 << 20;
    options.cache_bytes = Some(0);
    options.memtable_bytes = Some(1 << 20);
    options.log_segment_bytes = 4 << 20;
    (options.table_bytes_max, options.level_base_bytes) = (512 << 10, 1 << 20);
    options.durability = Durability::Buffered;
    options.initial_split_keys = vec![b"k020000".to_vec(), b"k050000".to_vec()];
    let (home, held) = (Home::with(options.clone()), Held::new(options));
    held.disk.set_reads_without_waiting(false);
    for db in [home.open(), held.open()] {
        let mut expected = Map::new();
        let mut chance = Chance::new(0xD7);
        block_on(async {
            for round in 0..60_u8 {
                let mut batch = WriteBatch::new();
                for _ in 0..1_000 {
                    let key = format!("k{:06}", chance.below(60_000)).into_bytes();
                    if chance.one_in(3) {
                        batch.delete(&key);
                        expected.remove(&key);
                    } else {
                        let value = vec![round; chance.below(200)];
                        batch.put(&key, &value);
                        expected.insert(key, value);
                    }
                }
                db.write(batch).await.unwrap();
                if round == 40 {
                    db.compact().await.unwrap();
                }
            }
            db.flush().await.unwrap();
        });
        for reverse in [false, true] {
            let scan = if reverse { db.scan(..).rev() } else { db.scan(..) };
            let mut found = block_on(collect(scan)).unwrap();
            if reverse {
                found.reverse();
            }
            assert!(found.iter().map(|(key, value)| (key, value)).eq(&expected), "{reverse}");
            let scan = db.scan("k019000".."k021000");
            let part = block_on(collect(if reverse { scan.rev() } else { scan })).unwrap();
            let wanted = expected.range(b"k019000".to_vec()..b"k021000".to_vec()).count();
            assert_eq!(part.len(), wanted);
        }
        block_on(db.close()).unwrap();
    }
}
