//! The stock of the pool, and chunks that it has no room for.

use super::*;
use crate::buffer::chunk::freed_here;
use std::sync::atomic::{AtomicUsize, Ordering};

const LARGE: usize = ChunkClass::Large.bytes();

/// One that holds at most so much, however little is in use.
fn pool_of(bytes: usize) -> Arc<ChunkPool> {
    ChunkPool::new(PoolLimits { kept_bytes: bytes, all_bytes: bytes })
}

fn after_taking(pool: &Arc<ChunkPool>, class: ChunkClass) -> bool {
    drop(ChunkSource::new(Some(Arc::clone(pool))).take(class));
    pool.take_restock_due()
}

/// Goal: a buffer that begins to grow asks for a stock, once, and then finds it.
/// Planted: `take` never asks; `take_restock_due` leaves the flag set; `wants_stock` does not
/// count.
#[test]
fn who_grows_finds_large_chunks_stocked() {
    let pool = pool_of(64 << 20);
    assert!(!after_taking(&pool, ChunkClass::Small), "an engine with little in it needs none");
    assert!(after_taking(&pool, ChunkClass::Medium));
    assert!(!pool.take_restock_due(), "said once");
    pool.restock();
    assert_eq!(pool.held_bytes(), 2 * LARGE);
    pool.restock();
    assert_eq!(pool.held_bytes(), 2 * LARGE);
    assert!(after_taking(&pool, ChunkClass::Large), "one is missing");
    assert_eq!(pool.held_bytes(), LARGE);
    pool.restock();
    assert!(!after_taking(&pool, ChunkClass::Small));
    assert_eq!(pool.held_bytes(), 2 * LARGE);
}

/// Goal: a stock never makes a pool exceed its limit, and is not requested if it has no room.
/// Planted: `wants_stock` ignores the bytes.
#[test]
fn a_stock_keeps_to_the_size_of_its_pool() {
    let pool = pool_of(LARGE + LARGE / 2);
    assert!(after_taking(&pool, ChunkClass::Large));
    pool.restock();
    assert_eq!(pool.held_bytes(), LARGE);
    assert!(!after_taking(&pool, ChunkClass::Medium), "there is room for one only");
    let pool = pool_of(LARGE - 1);
    assert!(!after_taking(&pool, ChunkClass::Large));
    pool.restock();
    assert_eq!(pool.held_bytes(), 0);
}

/// Chunks with large pages that are in use.
fn lent(pool: &ChunkPool, count: usize) -> Vec<Chunk> {
    pool.lent_bytes.fetch_add(count * LARGE, Ordering::Relaxed);
    (0..count).map(|_| Chunk::of(ChunkClass::Large)).collect()
}

/// Goal: chunks without room are freed by the attendant if there is one, and otherwise by whoever
/// returns them.
/// Planted: `keep` frees the rest itself; an `Attendant` leaves the excess behind.
#[test]
fn b5_what_there_is_no_room_for_is_freed_by_the_attendant() {
    let pool = pool_of(LARGE);
    let before = freed_here::bytes();
    let freed = || freed_here::bytes() - before;
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let attendant = pool.attend(move || {
        called.fetch_add(1, Ordering::Relaxed);
    });
    // The chunks of a dropped memtable.
    pool.put(lent(&pool, 1));
    assert_eq!(calls.load(Ordering::Relaxed), 0, "there was room");
    pool.put(lent(&pool, 3));
    assert_eq!((calls.load(Ordering::Relaxed), freed()), (1, 0), "somebody else frees it");
    // A writer that has compacted: nothing is called under its combining lock.
    ChunkSource::new(Some(Arc::clone(&pool))).give(lent(&pool, 1));
    assert_eq!((calls.load(Ordering::Relaxed), freed()), (1, 0));
    assert!(pool.take_restock_due());
    let attending = &pool;
    let elsewhere = std::thread::scope(|scope| {
        let restocking = scope.spawn(|| {
            attending.restock();
            freed_here::bytes()
        });
        restocking.join().unwrap()
    });
    assert_eq!((elsewhere, freed()), (4 * LARGE, 0));
    assert_eq!(pool.held_bytes(), LARGE);
    // Chunks that are left when the attendant is dropped, and chunks that arrive later.
    pool.put(lent(&pool, 1));
    assert_eq!(freed(), 0);
    drop(attendant);
    assert_eq!(freed(), LARGE);
    pool.put(lent(&pool, 2));
    assert_eq!((calls.load(Ordering::Relaxed), freed()), (2, 3 * LARGE));
}

/// Goal: mapped chunks are aligned like others; their memory is usable and is freed.
/// Planted: `map` returns the aligned part with the memory before it.
#[test]
fn b16_mapped_chunks_are_as_aligned_as_they_are_large() {
    for class in ChunkClass::ALL {
        // Many at once, so that the system cannot place all of them at a convenient address.
        let all: Vec<_> = (0..20)
            .map(|_| {
                let mut chunk = Chunk::of(class);
                assert!(chunk.start().addr().get().is_multiple_of(class.bytes()));
                assert_eq!((chunk.bytes(), chunk.class()), (class.bytes(), Some(class)));
                chunk.touch();
                chunk
            })
            .collect();
        let mut starts: Vec<_> = all.iter().map(|chunk| chunk.start().addr().get()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= class.bytes()));
        for chunk in all.into_iter().step_by(2) {
            drop(chunk);
        }
    }
}

/// The number of pages of a chunk that are resident.
#[cfg(target_os = "linux")]
#[allow(
    clippy::disallowed_methods,
    reason = "what the kernel says of this process is no file of a database"
)]
fn pages_present(chunk: &Chunk) -> usize {
    use std::io::{Read, Seek, SeekFrom};
    const PAGE: usize = 4 << 10;
    let mut map = std::fs::File::open("/proc/self/pagemap").unwrap();
    map.seek(SeekFrom::Start((chunk.start().addr().get() / PAGE * 8) as u64)).unwrap();
    let mut words = vec![0; chunk.bytes() / PAGE * 8];
    map.read_exact(&mut words).unwrap();
    // The highest bit of each word of eight bytes.
    words.chunks(8).filter(|word| word[7] & 0x80 != 0).count()
}

/// Goal: a caller that takes a chunk without stock, and writes to it, waits until one page is
/// cleared, and not for all of it; a chunk from the stock is fully resident. A chunk with small
/// pages is not kept if there is an attendant to free it.
/// Planted: `at_once` asks for huge pages (detected if the kernel has any); `keep` keeps all.
#[test]
#[cfg(target_os = "linux")]
#[cfg_attr(miri, ignore = "there are no pages")]
fn b16_a_chunk_that_is_not_stocked_is_cleared_a_page_at_a_time() {
    let pool = pool_of(64 << 20);
    let source = ChunkSource::new(Some(Arc::clone(&pool)));
    let write = |chunk: &Chunk, offset: usize| {
        assert!(offset < chunk.bytes());
        // SAFETY: inside the chunk.
        let at = unsafe { chunk.start().add(offset) };
        // SAFETY: as above, and the chunk is the test's alone.
        unsafe { at.write_volatile(1) };
    };
    let makeshift = source.take(ChunkClass::Large);
    assert_eq!(pages_present(&makeshift), 0);
    for writes in 1..10 {
        write(&makeshift, LARGE / 10 * writes);
        assert_eq!(pages_present(&makeshift), writes);
    }
    pool.restock();
    let stocked = source.take(ChunkClass::Large);
    assert_eq!(pages_present(&stocked), LARGE / (4 << 10));
    // There is no attendant to free it, so it is kept.
    pool.put(vec![makeshift]);
    assert_eq!(pool.held_bytes(), 2 * LARGE);
    let all: Vec<_> = (0..3).map(|_| source.take(ChunkClass::Large)).collect();
    assert_eq!(pool.held_bytes(), 0);
    let _attendant = pool.attend(|| {});
    pool.put(all);
    assert_eq!(pool.held_bytes(), LARGE, "two of three are makeshift");
}

/// Goal: what a burst of flushes frees is there for the writes that go on, within the memory that
/// they may take anyway. When they end, little is kept.
/// Planted: `keep` does not count what is lent; `keep` does not count what comes back; `trim` frees
/// all.
#[test]
fn what_writes_may_take_is_kept_until_they_end() {
    let pool = ChunkPool::new(PoolLimits { kept_bytes: 2 * LARGE, all_bytes: 6 * LARGE });
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let _attendant = pool.attend(move || {
        called.fetch_add(1, Ordering::Relaxed);
    });
    let (first, second) = (lent(&pool, 3), lent(&pool, 4));
    assert_eq!(pool.lent_bytes(), 7 * LARGE);
    pool.put(first);
    assert_eq!(pool.held_bytes(), 2 * LARGE, "as much as always");
    assert!(!pool.is_ample());
    pool.restock();
    let before = calls.load(Ordering::Relaxed);
    pool.put(second);
    assert_eq!(calls.load(Ordering::Relaxed), before + 1, "somebody has to look after it later");
    assert_eq!((pool.held_bytes(), pool.lent_bytes()), (6 * LARGE, 0));
    let source = ChunkSource::new(Some(Arc::clone(&pool)));
    let taken: Vec<_> = (0..5).map(|_| source.take(ChunkClass::Large)).collect();
    assert_eq!((pool.held_bytes(), pool.lent_bytes()), (LARGE, 5 * LARGE));
    pool.put(taken);
    assert!(pool.is_ample());
    pool.trim();
    assert_eq!(pool.held_bytes(), 2 * LARGE);
}

/// Goal: chunks of one class do not stay beside as many of another one.
/// Planted: `take` asks for nothing; `restock` takes nothing out.
#[test]
fn chunks_that_nobody_takes_make_room_for_others() {
    const MEDIUM: usize = ChunkClass::Medium.bytes();
    let pool = ChunkPool::new(PoolLimits { kept_bytes: 2 * LARGE, all_bytes: 6 * LARGE });
    let _attendant = pool.attend(|| {});
    let source = ChunkSource::new(Some(Arc::clone(&pool)));
    let medium: Vec<_> = (0..5 * LARGE / MEDIUM).map(|_| source.take(ChunkClass::Medium)).collect();
    pool.put(medium);
    assert_eq!(pool.held_bytes(), 5 * LARGE);
    pool.take_restock_due();
    let taken: Vec<_> = (0..3).map(|_| source.take(ChunkClass::Large)).collect();
    assert!(pool.take_restock_due());
    pool.restock();
    assert_eq!((pool.held_bytes(), pool.lent_bytes()), (3 * LARGE, 3 * LARGE));
    pool.put(taken);
}
