//! The number of a key's last write, wherever the entry is.

use crate::harness::{Home, Simulated, block_on};
use crate::kit::chance::Chance;
use crate::kit::settings;
use sluicedb::{Db, WriteBatch};
use std::collections::BTreeMap;

type Numbers = BTreeMap<Vec<u8>, u64>;

const KEYS: usize = 60;

fn key(n: usize) -> Vec<u8> {
    format!("key{n:03}").into_bytes()
}

/// What is read of every key, those without a value included.
async fn check(db: &Db, numbers: &Numbers) {
    let snapshot = db.snapshot();
    for n in 0..KEYS {
        let (key, wanted) = (key(n), numbers.get(&key(n)).copied());
        assert_eq!(db.last_seqno(&key).await.unwrap(), wanted, "key {n}");
        assert_eq!(snapshot.last_seqno(&key).await.unwrap(), wanted, "key {n}");
    }
}

/// Writes a little, and notes the numbers.
async fn write(db: &Db, chance: &mut Chance, numbers: &mut Numbers) {
    for _ in 0..chance.below(30) {
        let n = chance.below(KEYS);
        match chance.below(4) {
            0 => {
                db.delete(key(n)).await.unwrap();
                numbers.remove(&key(n));
            }
            1 => {
                let mut batch = WriteBatch::new();
                batch.put(key(n), "batch").delete(key((n + 1) % KEYS)).put(key((n + 2) % KEYS), "");
                let last = db.write(batch).await.unwrap();
                numbers.insert(key(n), last - 2);
                numbers.remove(&key((n + 1) % KEYS));
                numbers.insert(key((n + 2) % KEYS), last);
            }
            _ => {
                let seqno = db.put(key(n), vec![7; 1 + n]).await.unwrap();
                numbers.insert(key(n), seqno);
            }
        }
    }
}

/// Goal: the number stays that of the write, through flushes, merges, splits, excisions, ingests
/// and restarts.
///
/// Planted: a table's own numbers in place of the one that an ingest gave it.
#[test]
fn the_number_of_the_last_write_stays() {
    for seed in 0..12 {
        println!("seed {seed}");
        let (mut chance, mut numbers) = (Chance::new(seed), Numbers::new());
        let home = Simulated::with(seed, settings::tiny());
        let mut db = home.open();
        for round in 0..20 {
            home.run(async {
                write(&db, &mut chance, &mut numbers).await;
                match chance.below(8) {
                    0 => db.flush().await.unwrap(),
                    1 => db.compact().await.unwrap(),
                    2 => drop(db.split_at(key(chance.below(KEYS))).await.unwrap()),
                    3 => drop(db.merge_at(key(chance.below(KEYS))).await.unwrap()),
                    4 => {
                        let from = chance.below(KEYS);
                        let range = key(from)..key(from + 5);
                        db.excise(range.clone()).await.unwrap();
                        numbers.retain(|key, _| !range.contains(key));
                    }
                    5 => {
                        let from = chance.below(KEYS);
                        let keys: Vec<_> = (from..KEYS).step_by(3).map(key).collect();
                        let entries =
                            keys.iter().map(|key| (key, (key != &keys[0]).then_some(key)));
                        let table = home.outside(&format!("outside{round}.sst"), entries);
                        db.ingest([table]).await.unwrap();
                        let seqno = db.snapshot().seqno();
                        numbers.remove(&keys[0]);
                        numbers.extend(keys[1..].iter().map(|key| (key.clone(), seqno)));
                    }
                    _ => {}
                }
                check(&db, &numbers).await;
            });
            if chance.one_in(5) {
                drop(db);
                home.simulator.settle();
                db = home.open();
                home.run(check(&db, &numbers));
            }
        }
    }
}

/// Goal: a snapshot keeps the number that it saw. Writes that are laid over it have none.
#[test]
fn a_snapshot_keeps_the_number() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        let first = db.put("a", "1").await.unwrap();
        let before = db.snapshot();
        let second = db.put("a", "2").await.unwrap();
        db.flush().await.unwrap();
        assert!(second > first);
        assert_eq!(before.last_seqno("a").await.unwrap(), Some(first));
        let mut batch = WriteBatch::new();
        batch.put("a", "3");
        let with = before.with_batch(&batch).unwrap();
        assert_eq!(with.last_seqno("a").await.unwrap(), None);
        db.delete("a").await.unwrap();
        assert_eq!(db.last_seqno("a").await.unwrap(), None);
        let third = db.put("a", "3").await.unwrap();
        assert_eq!(db.last_seqno("a").await.unwrap(), Some(third));
    });
}
