//! Entries that a scan lends one by one.

use crate::harness::{Home, block_on, turns_beside};
use crate::scan::many;
use sluicedb::Db;

/// Takes all entries one by one, so often; returns how many came.
async fn walks(db: Db, times: usize) -> usize {
    let mut seen = 0;
    for _ in 0..times {
        let mut scan = db.scan(..);
        while scan.next_entry().await.unwrap().is_some() {
            seen += 1;
        }
    }
    seen
}

/// Goal: a walk over very many entries, one by one, lets other tasks run in between.
///
/// Planted: entries that are lent without counting.
#[test]
fn entries_that_are_lent_leave_room_for_others() {
    let home = Home::new();
    let db = many(&home, 3_000);
    let (others, seen) = turns_beside(Box::pin(walks(db, 20)));
    assert_eq!(seen, 60_000);
    assert!(others > 3, "{others} turns of others");
}

/// Goal: entries that are lent pay for the tombstones between them.
///
/// Planted: paying for the entries only.
#[test]
fn lent_entries_pay_for_tombstones() {
    let home = Home::new();
    let db = many(&home, 6_000);
    block_on(async {
        for n in (0..6_000).filter(|n| n % 1_000 != 999) {
            db.delete(format!("k{n:05}")).await.unwrap();
        }
    });
    let (others, seen) = turns_beside(Box::pin(walks(db, 100)));
    assert_eq!(seen, 600);
    assert!(others > 3, "{others} turns of others");
}

/// Goal: a seek before each entry counts as the work that it is.
///
/// Planted: a seek that keeps what was paid for entries.
#[test]
fn lent_entries_pay_for_seeks() {
    let home = Home::new();
    let db = many(&home, 100);
    let (others, seen) = turns_beside(Box::pin(async move {
        let (mut scan, mut seen) = (db.scan(..), 0);
        for _ in 0..2_000 {
            scan.seek("k00050");
            seen += usize::from(scan.next_entry().await.unwrap().is_some());
        }
        seen
    }));
    assert_eq!(seen, 2_000);
    assert!(others > 10, "{others} turns of others");
}

#[test]
fn a_scan_that_turns_round_stays_in_its_range() {
    let home = Home::new();
    let db = many(&home, 30);
    block_on(async {
        let mut scan = db.scan("k00010".."k00020");
        scan.next_entry().await.unwrap().unwrap();
        scan.next_entry().await.unwrap().unwrap();
        let mut scan = scan.rev();
        let mut keys = Vec::new();
        while let Some((key, _)) = scan.next_entry().await.unwrap() {
            keys.push(key.to_vec());
        }
        assert_eq!(keys, [b"k00010"]);
    });
}
