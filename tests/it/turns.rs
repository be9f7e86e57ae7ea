//! What an operation takes of its task's turn: others wait for a task that does much no longer than
//! for one that does little.

use crate::harness::{Home, turns_beside};
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

/// Planted: a batch takes as much as a put.
#[test]
fn a_large_batch_takes_a_turn_of_its_own() {
    let home = Home::with(roomy());
    let db = home.open();
    // Small ones take no more than a few together.
    let (others, _) = turns_beside(Box::pin(write_batches(db.clone(), 1)));
    assert!(others < BATCHES / 4, "{others} turns of others");
    let (others, _) = turns_beside(Box::pin(write_batches(db, 1_000)));
    assert!(others >= BATCHES - 1, "{others} turns of others");
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
    assert!(others >= 10, "{others} turns of others");

    let walk = db.clone();
    let (others, _) = turns_beside(Box::pin(async move {
        for _ in 0..500 {
            assert!(walk.scan(..).limit(1).next_chunk().await.unwrap().is_some());
        }
        500
    }));
    assert!(others >= 10, "{others} turns of others");

    let (others, _) = turns_beside(Box::pin(async move {
        let mut scan = db.scan(..);
        for _ in 0..200 {
            scan.seek("k00000");
            assert!(scan.next_chunk().await.unwrap().is_some());
        }
        200
    }));
    assert!(others >= 5, "{others} turns of others");
}
