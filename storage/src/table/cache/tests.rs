use super::*;
use crate::error::{Error, Lacks};
use crate::key::{Kind, Seqno};
use crate::table::block::BlockBuilder;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// A block whose only entry has a value of `bytes` bytes, all of them `fill`.
fn block_of(fill: u8, bytes: usize) -> Block {
    let mut builder = BlockBuilder::new(16);
    builder.add(b"key", 0, Seqno(1), Kind::Put, &vec![fill; bytes]);
    let mut raw = Vec::new();
    builder.finish(&mut raw);
    let length = raw.len();
    Block::parse(raw.into(), 0..length).unwrap()
}

fn block(bytes: usize) -> Block {
    block_of(0, bytes)
}

fn table(cache: &Arc<BlockCache>, blocks: usize) -> TableBlocks {
    TableBlocks::new(Arc::clone(cache), None, blocks, 0, 0)
}

fn is_here(table: &TableBlocks, i: usize) -> bool {
    table.look(i, |_| ()).is_some()
}

#[test]
fn one_of_many_readers_reads() {
    let table = table(&BlockCache::new(1 << 20), 50);
    for i in 0..50 {
        let reads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let read = || {
                        reads.fetch_add(1, Relaxed);
                        // Give the others time to ask.
                        for _ in 0..100 {
                            std::thread::yield_now();
                        }
                        Ok(block(100))
                    };
                    table.get_or_read(i, read).unwrap();
                });
            }
        });
        assert_eq!(reads.into_inner(), 1);
        assert!(is_here(&table, i));
    }
}

#[test]
fn a_failed_read_is_tried_again_by_the_next() {
    let table = table(&BlockCache::new(1 << 20), 2);
    let reads = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let read = || match reads.fetch_add(1, Relaxed) {
                    0..3 => Err(Error::WouldBlock(Lacks::Thread)),
                    _ => Ok(block(100)),
                };
                if table.get_or_read(1, read).is_err() {
                    failures.fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert_eq!((failures.into_inner(), reads.into_inner()), (3, 4));
}

/// Planted: a landing only where the read succeeds.
#[test]
fn a_read_that_panics_keeps_nobody_waiting() {
    let table = table(&BlockCache::new(1 << 20), 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = table.get_or_read(0, || panic!("planted"));
    }));
    assert!(panicked.is_err());
    assert!(table.get_or_read(0, || Ok(block(100))).is_ok());
}

#[test]
fn the_bound_holds_and_nothing_is_confused() {
    let cache = BlockCache::new(8 << 20);
    let tables: Vec<_> = (0..10).map(|_| table(&cache, 1000)).collect();
    for table in &tables {
        for i in 0..1000 {
            table.insert(i, block(4000));
            assert!(cache.used_bytes() <= 8 << 20);
        }
    }
    assert!(cache.used_bytes() > 7 << 20);
    let mut present = 0;
    for table in &tables {
        for i in 0..1000 {
            if is_here(table, i) {
                present += 1;
            } else {
                table.missed();
            }
        }
    }
    assert_eq!((cache.hits(), cache.misses()), (present, 10_000 - present));
    assert!(present > 1500);
    // Too large for any shard: not kept, not an error.
    let large = table(&cache, 1);
    large.insert(0, block(9 << 20));
    assert!(!is_here(&large, 0));
    assert!(cache.used_bytes() <= 8 << 20);
    let none = BlockCache::new(0);
    let table = table(&none, 1);
    table.insert(0, block(10));
    assert!(!is_here(&table, 0));
    assert_eq!((none.used_bytes(), none.index_bytes()), (0, 0));
}

/// INVARIANT(grace-before-reuse): blocks leave while they are read, and what is read is whole.
///
/// Planted: `leave` without asking the grace (found by Miri and the sanitizers, too).
#[test]
fn blocks_that_are_read_are_not_freed() {
    const BLOCKS: usize = 64;
    let rounds = if cfg!(miri) { 3 } else { 400 };
    // Half of them fit.
    let cache = BlockCache::new((BLOCKS * 512) as u64);
    let table = table(&cache, BLOCKS);
    let ended = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for start in 0..3 {
            let (table, ended, seen) = (&table, &ended, &seen);
            scope.spawn(move || {
                for i in (0..BLOCKS).cycle().skip(start * 20) {
                    if ended.load(Relaxed) {
                        break;
                    }
                    let whole = |block: &Block| {
                        let slot = block.slot(0).unwrap();
                        block.part(slot.value..slot.end).iter().all(|&byte| byte == i as u8)
                    };
                    if let Some(whole) = table.look(i, whole) {
                        assert!(whole, "block {i} was freed while it was read");
                        seen.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        for _ in 0..rounds {
            for i in 0..BLOCKS {
                table.insert(i, block_of(i as u8, 800));
                assert!(cache.used_bytes() <= cache.capacity_bytes());
            }
        }
        ended.store(true, Relaxed);
    });
    println!("{} hits", seen.into_inner());
    let here = (0..BLOCKS).filter(|&i| is_here(&table, i)).count();
    assert!((1..BLOCKS).contains(&here), "{here} of {BLOCKS} blocks are here");
}

/// While a reader is inside one block, its shard frees nothing, keeps its bound all the same, and
/// goes on as soon as the reader has left.
///
/// Planted: bytes of leaving blocks that are not counted.
#[test]
fn a_slow_reader_costs_no_memory() {
    let cache = BlockCache::new(64 << 10);
    let table = table(&cache, 100);
    for i in 0..20 {
        table.insert(i, block(4000));
    }
    let inside = (0..20).find(|&i| is_here(&table, i)).unwrap();
    table.look(inside, |_| {
        for i in 20..80 {
            table.insert(i, block(4000));
            assert!(cache.used_bytes() <= 64 << 10);
        }
    });
    table.insert(80, block(4000));
    assert!(is_here(&table, 80));
}

/// Blocks that are used stay, while very many others pass once.
///
/// Planted: uses that are not looked at; a small queue without a bound.
#[test]
fn a_scan_takes_no_place_from_what_is_used() {
    let cache = BlockCache::new(1 << 20);
    let (hot, cold) = (table(&cache, 100), table(&cache, 10_000));
    let mut missed = 0;
    for i in 0..10_000 {
        cold.insert(i, block(4000));
        // Between two reads of a block as many others are read as fit, and more.
        if i % 2 == 0 && !is_here(&hot, i / 2 % 100) {
            missed += 1;
            hot.insert(i / 2 % 100, block(4000));
        }
    }
    assert!(missed < 500, "{missed} of 5000 reads missed");
}

/// A block that comes again soon after it went is kept longer than those that come once.
///
/// Planted: nothing is remembered.
#[test]
fn what_comes_again_stays() {
    let cache = BlockCache::new(1 << 20);
    let (again, once) = (table(&cache, 50), table(&cache, 10_000));
    let pass = |from: usize| (from..from + 300).for_each(|i| once.insert(i, block(4000)));
    (0..50).for_each(|i| again.insert(i, block(4000)));
    pass(0);
    assert!((0..50).all(|i| !is_here(&again, i)));
    (0..50).for_each(|i| again.insert(i, block(4000)));
    pass(300);
    let here = (0..50).filter(|&i| is_here(&again, i)).count();
    assert!(here >= 25, "{here} of 50 blocks are left");
}

/// The blocks of a closed table are found when it is opened again, and are the first to go if it is
/// not, wherever they are in the queues.
///
/// Planted: no sweep; a sweep that only looks at one queue.
#[test]
fn closed_tables_keep_their_blocks_for_a_while() {
    let cache = BlockCache::new(1 << 20);
    let places = BlockPlaces::default();
    let open = || TableBlocks::new(Arc::clone(&cache), Some(&places), 200, 0, 0);
    let others = table(&cache, 1000);
    let closing = open();
    for i in 0..200 {
        closing.insert(i, block(4000));
        assert!((0..3).all(|_| is_here(&closing, i)));
    }
    // They move to the main queue.
    (0..80).for_each(|i| others.insert(i, block(4000)));
    let here = |table: &TableBlocks| (0..200).filter(|&i| is_here(table, i)).count();
    let before = here(&closing);
    assert!(before > 150, "{before} of 200");
    drop(closing);
    let again = open();
    assert_eq!(here(&again), before);
    drop(again);
    (80..180).for_each(|i| others.insert(i, block(4000)));
    let left = here(&open());
    assert_eq!(left, 0, "of {before}");
}

/// The places of closed tables are bounded, however large and many the tables are, and each has one
/// block in the cache.
///
/// Planted: places that are not counted.
#[test]
fn places_of_closed_tables_are_bounded() {
    const CAPACITY: u64 = 4 << 20;
    let cache = BlockCache::new(CAPACITY);
    let all: Vec<_> = (0..400).map(|_| BlockPlaces::default()).collect();
    for (n, places) in all.iter().enumerate() {
        let table = TableBlocks::new(Arc::clone(&cache), Some(places), 10_000, 0, 0);
        table.insert(n, block(1000));
    }
    let alive = all.iter().filter(|places| lock(&places.0).upgrade().is_some()).count() as u64;
    assert!(alive * 80_000 <= CAPACITY / 8, "places of {alive} tables");
    assert_eq!(cache.idle.places_bytes.load(Relaxed), alive * 80_000);
    drop(all);
    assert_eq!(cache.index_bytes(), 0);
}

/// What the places of closed tables took is room for blocks again, wherever their last blocks were
/// in the queues, and whether a sweep took these out or they went by themselves.
///
/// Planted: a look at the places only where the last step of a sweep finds something.
#[test]
fn room_that_the_places_of_closed_tables_took_comes_back() {
    const CAPACITY: u64 = 2 << 20;
    // Those of one go by themselves; more are swept.
    for closed in [1, 3] {
        let cache = BlockCache::new(CAPACITY);
        let others = table(&cache, 5_000);
        let all: Vec<_> = (0..closed).map(|_| BlockPlaces::default()).collect();
        let open = |places| TableBlocks::new(Arc::clone(&cache), Some(places), 10_000, 0, 0);
        let closing: Vec<_> = all.iter().map(open).collect();
        for table in &closing {
            table.insert(0, block(1000));
        }
        (0..1_000).for_each(|i| others.insert(i, block(1000)));
        drop(closing);
        assert_eq!(cache.idle.places_bytes.load(Relaxed), closed * 80_000);
        (1_000..5_000).for_each(|i| others.insert(i, block(1000)));
        assert_eq!(cache.idle.places_bytes.load(Relaxed), 0);
        let used = cache.used_bytes() + cache.index_bytes();
        assert!((CAPACITY - (48 << 10)..=CAPACITY).contains(&used), "{closed}: {used}");
    }
}

/// What a reader kept from leaving goes when it has left, without another block that comes.
#[test]
fn room_that_a_reader_holds_is_made_later() {
    let cache = BlockCache::new(64 << 10);
    let blocks = table(&cache, 100);
    (0..20).for_each(|i| blocks.insert(i, block(4000)));
    let inside = (0..20).find(|&i| is_here(&blocks, i)).unwrap();
    let opened = blocks.look(inside, |_| {
        blocks.insert(20, block(4000));
        TableBlocks::new(Arc::clone(&cache), None, 0, 40 << 10, 0)
    });
    assert!(opened.is_some());
    assert!(cache.used_bytes() + cache.index_bytes() <= 64 << 10);
}

/// A large block comes where only small ones were about to leave.
#[test]
fn a_large_block_finds_room_after_a_small_one() {
    let cache = BlockCache::new(64 << 10);
    let table = table(&cache, 100);
    (0..20).for_each(|i| table.insert(i, block(4000)));
    let inside = (0..20).find(|&i| is_here(&table, i)).unwrap();
    table.look(inside, |_| table.insert(30, block(4000)));
    table.insert(31, block(16 << 10));
    assert!(is_here(&table, 31));
}

/// Everything stays that fits.
#[test]
fn a_working_set_that_nearly_fills_the_cache_stays() {
    let cache = BlockCache::new(2 << 20);
    let table = table(&cache, 1000);
    let charged = block(4000).memory_bytes() as u64 + 128;
    let fits = (cache.capacity_bytes() - cache.index_bytes()) / charged;
    for _ in 0..3 {
        for i in 0..fits as usize {
            if !is_here(&table, i) {
                table.insert(i, block(4000));
                table.missed();
            }
        }
    }
    assert_eq!(cache.misses(), fits);
}

#[test]
fn places_are_used_again_only_by_the_same_table_in_the_same_cache() {
    let (cache, other) = (BlockCache::new(1 << 20), BlockCache::new(1 << 20));
    let places = BlockPlaces::default();
    let open = |cache: &Arc<BlockCache>, blocks| {
        TableBlocks::new(Arc::clone(cache), Some(&places), blocks, 0, 0)
    };
    let first = open(&cache, 10);
    first.insert(1, block(100));
    assert!(!is_here(&open(&other, 10), 1));
    let larger = open(&cache, 20);
    larger.insert(15, block(100));
    assert!(is_here(&larger, 15) && !is_here(&larger, 1));
}

/// Goal: reads beyond the cache allocate nothing for their blocks.
///
/// Planted: memory is used again although somebody has it; it is never used again.
#[test]
fn the_memory_of_blocks_that_left_is_used_again_unless_somebody_has_it() {
    const BLOCKS: usize = 2000;
    let cache = BlockCache::new(1 << 20);
    let table = table(&cache, BLOCKS);
    let (mut held, mut again) = (Vec::new(), 0);
    for i in 0..BLOCKS {
        let whole = block_of(7, 4000 - i % 50);
        let mut buffer = table.buffer(i, whole.bytes().len());
        assert!(
            held.iter().all(|block: &Block| !Arc::ptr_eq(&block.clone().into_buffer(), &buffer))
        );
        let bytes = Arc::get_mut(&mut buffer).expect("nobody else has it");
        // Memory that is new has zeros.
        again += usize::from(bytes[2000] == 7);
        bytes[..whole.bytes().len()].copy_from_slice(whole.bytes());
        let block = Block::parse(buffer, 0..whole.bytes().len()).unwrap();
        if i % 2 == 0 {
            held.push(block.clone());
        }
        table.insert(i, block);
        assert!(cache.used_bytes() <= 1 << 20);
    }
    assert!(again > BLOCKS / 4, "{again} of {BLOCKS}");
    assert!(held.iter().all(|block| block.bytes().ends_with(&[7; 3900])));
    // Those that fit nothing make room for what comes.
    for i in 0..BLOCKS {
        table.insert(i, block(900));
    }
    assert!(cache.used_bytes() <= 1 << 20);
    assert!((0..BLOCKS).filter(|i| is_here(&table, *i)).count() > (1 << 20) / 1200);
}

/// Planted: blocks of closed tables become spares, as many as there were.
#[test]
fn the_memory_of_closed_tables_is_given_back() {
    let cache = BlockCache::new(2 << 20);
    let closing = table(&cache, 400);
    for i in 0..400 {
        closing.insert(i, block(4000));
    }
    drop(closing);
    let table = table(&cache, 10);
    for i in 0..10 {
        table.insert(i, block(900));
    }
    assert!(cache.used_bytes() < 64 << 10, "{}", cache.used_bytes());
}
