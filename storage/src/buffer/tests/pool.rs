//! The stock of the pool.

use super::*;

const LARGE: usize = ChunkClass::Large.bytes();

fn after_taking(pool: &Arc<ChunkPool>, class: ChunkClass) -> bool {
    drop(ChunkSource::new(Some(Arc::clone(pool))).take(class));
    pool.take_stock_due()
}

/// Goal: who begins to grow asks for a stock, once, and then finds it there.
/// Planted: `take` that never asks; `take_stock_due` that leaves the flag; `wants_stock` that does
/// not count.
#[test]
fn who_grows_finds_large_chunks_stocked() {
    let pool = ChunkPool::new(64 << 20);
    assert!(!after_taking(&pool, ChunkClass::Small), "an engine with little in it needs none");
    assert!(after_taking(&pool, ChunkClass::Medium));
    assert!(!pool.take_stock_due(), "said once");
    pool.stock();
    assert_eq!(pool.held_bytes(), 2 * LARGE);
    pool.stock();
    assert_eq!(pool.held_bytes(), 2 * LARGE);
    assert!(after_taking(&pool, ChunkClass::Large), "one is missing");
    assert_eq!(pool.held_bytes(), LARGE);
    pool.stock();
    assert!(!after_taking(&pool, ChunkClass::Small));
    assert_eq!(pool.held_bytes(), 2 * LARGE);
}

/// Goal: a stock never makes a pool larger than it may be, and is not asked for where it has no room.
/// Planted: `wants_stock` that does not look at the bytes.
#[test]
fn a_stock_keeps_to_the_size_of_its_pool() {
    let pool = ChunkPool::new(LARGE + LARGE / 2);
    assert!(after_taking(&pool, ChunkClass::Large));
    pool.stock();
    assert_eq!(pool.held_bytes(), LARGE);
    assert!(!after_taking(&pool, ChunkClass::Medium), "there is room for one only");
    let pool = ChunkPool::new(LARGE - 1);
    assert!(!after_taking(&pool, ChunkClass::Large));
    pool.stock();
    assert_eq!(pool.held_bytes(), 0);
}
