//! What an operation takes of its task's turn: others wait for a task that does much no longer than
//! for one that does little.

use crate::harness::{Home, block_on, turns_beside};
use crate::polls::roomy;
use crate::scan::many;
use sluicedb::{Db, WriteBatch};

const BATCHES: usize = 40;

async fn write_batches(db: Db, entries: u32) -> usize {
    for at in 0..BATCHES as u32 {
        let mut batch = WriteBatch::new();
        for n in 0..entries {
            batch.put((at * entries + n).to_be_bytes(), [7; 100]);
        }
        db.write(batch).await.unwrap();
    }
    BATCHES
}

/// Planted: a batch takes as much as a put. (Where a write has to wait, others have many turns.)
#[test]
fn a_large_batch_takes_a_turn_of_its_own() {
    let home = Home::with(roomy());
    let db = home.open();
    let (others, _) = turns_beside(Box::pin(write_batches(db, 1_000)));
    // 105 units each, of 128 that a turn has.
    assert!(others >= BATCHES * 3 / 4, "{others} turns of others");
}

/// Planted: only the bytes of its operations count.
#[test]
fn a_batch_of_many_small_operations_takes_a_turn_of_its_own() {
    let home = Home::with(roomy());
    let db = home.open();
    let (others, _) = turns_beside(Box::pin(async move {
        for at in 0..BATCHES as u32 {
            let mut batch = WriteBatch::new();
            for n in 0..2_000 {
                batch.delete((at * 2_000 + n).to_be_bytes());
            }
            db.write(batch).await.unwrap();
        }
        BATCHES
    }));
    // 12 KiB each, and 140 KiB in memory beside them.
    assert!(others >= BATCHES * 3 / 4, "{others} turns of others");
}

/// Planted: a large value takes as much as a small one.
#[test]
fn a_large_value_takes_half_a_turn() {
    let home = Home::with(roomy());
    let db = home.open();
    let (others, puts) = turns_beside(Box::pin(async move {
        for n in 0..20_u32 {
            db.put(n.to_be_bytes(), vec![7; 64 << 10]).await.unwrap();
        }
        20
    }));
    assert!(others >= puts / 2, "{others} turns of others");
}

/// Planted: a chunk takes as much as a get; opening the layers takes nothing; a seek wipes out what
/// is owed.
#[test]
fn scans_take_what_they_read() {
    let home = Home::with(roomy());
    let db = many(&home, 3_000);
    let walk = db.clone();
    let (others, seen) = turns_beside(Box::pin(async move {
        let mut seen = 0;
        for _ in 0..20 {
            let mut scan = walk.scan(..);
            while let Some(chunk) = scan.next_chunk().await.unwrap() {
                seen += chunk.len();
            }
        }
        seen
    }));
    // 36 bytes each, and what an entry counts beside them.
    assert_eq!(seen, 60_000);
    assert!(others >= 6, "{others} turns of others");

    let walk = db.clone();
    let (others, _) = turns_beside(Box::pin(async move {
        for _ in 0..500 {
            assert!(walk.scan(..).limit(1).next_chunk().await.unwrap().is_some());
        }
        500
    }));
    assert!(others >= 6, "{others} turns of others");

    let (others, _) = turns_beside(Box::pin(async move {
        let mut scan = db.scan(..);
        for _ in 0..200 {
            scan.seek("k00000");
            assert!(scan.next_chunk().await.unwrap().is_some());
        }
        200
    }));
    assert!(others >= 4, "{others} turns of others");
}

/// Planted: a batch of entries pays for what it has, and not for the tombstones in between; an
/// entry that is lent pays for no more than was paid for before.
#[test]
fn scans_take_what_they_pass() {
    const STRETCHES: u32 = 20;
    const TOMBSTONES: u32 = 4_000;
    let home = Home::with(roomy());
    let db = home.open();
    block_on(async {
        for stretch in 0..STRETCHES {
            let mut batch = WriteBatch::new();
            for n in 0..TOMBSTONES {
                batch.delete((stretch * (TOMBSTONES + 1) + n).to_be_bytes());
            }
            batch.put((stretch * (TOMBSTONES + 1) + TOMBSTONES).to_be_bytes(), "value");
            db.write(batch).await.unwrap();
        }
    });
    let walk = db.clone();
    let (others, seen) = turns_beside(Box::pin(async move {
        let mut seen = 0;
        for _ in 0..3 {
            let mut scan = walk.scan(..).limit(u64::from(STRETCHES));
            while let Some(batch) = scan.next_chunk().await.unwrap() {
                seen += batch.len();
            }
        }
        seen
    }));
    assert_eq!(seen, 3 * STRETCHES as usize);
    assert!(others >= STRETCHES as usize / 2, "{others} turns of others");
    let (others, seen) = turns_beside(Box::pin(async move {
        let (mut scan, mut seen) = (db.scan(..), 0);
        while scan.next_entry().await.unwrap().is_some() {
            seen += 1;
        }
        seen
    }));
    assert_eq!(seen, STRETCHES as usize);
    assert!(others >= 3, "{others} turns of others");
}
