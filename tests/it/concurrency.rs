use crate::harness::Home;
use crate::kit::chance::Chance;
use crate::kit::disk::{collect, content};
use crate::kit::settings;
use sluicedb::{Db, Durability, WriteBatch, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// Each task reads its own write at once, while sixteen tasks make the engine flush and compact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_tasks_read_their_own_writes() {
    let home = Home::new();
    let db = home.builder().open().await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16_u64 {
        let db = db.clone();
        tasks.spawn(async move {
            let mut chance = Chance::new(task);
            let mut mine = crate::kit::oracle::Map::new();
            for round in 0..400 {
                let key = format!("{task}/{:02}", chance.below(30)).into_bytes();
                let how = WriteOptions::durability(if round % 40 == 0 {
                    Durability::Synced
                } else {
                    Durability::Buffered
                });
                if chance.one_in(4) {
                    db.delete_with(&key, how).await.unwrap();
                    mine.remove(&key);
                } else {
                    let len = chance.between(1, 200);
                    let value = chance.bytes(len);
                    db.put_with(&key, &value, how).await.unwrap();
                    mine.insert(key.clone(), value);
                }
                let found = db.get(&key).await.unwrap();
                assert_eq!(found.as_deref(), mine.get(&key).map(Vec::as_slice), "round {round}");
                if round % 100 == 50 {
                    let all = collect(db.scan_prefix(format!("{task}/"))).await.unwrap();
                    let all: crate::kit::oracle::Map = all.into_iter().collect();
                    assert_eq!(all, mine, "round {round}");
                }
            }
            mine
        });
    }
    let mut expected = crate::kit::oracle::Map::new();
    while let Some(mine) = tasks.join_next().await {
        expected.extend(mine.unwrap());
    }
    assert_eq!(content(&db).await.unwrap(), expected);
    assert!(db.stats().flushes > 0 && db.stats().compactions > 0);
    db.close().await.unwrap();
    drop(db);
    let db = home.builder().open().await.unwrap();
    assert_eq!(content(&db).await.unwrap(), expected);
}

const ACCOUNTS: usize = 20;
const START: i64 = 1_000;

fn account(n: usize) -> String {
    format!("account{n:02}")
}

async fn balance(db: &Db, n: usize) -> i64 {
    let bytes = db.get(account(n)).await.unwrap().unwrap();
    i64::from_le_bytes(bytes[..].try_into().unwrap())
}

/// One task at a time moves money, in batches. (The tasks agree outside the database whose turn it
/// is.) A reader of one instant always sees the same sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sum_of_all_accounts_never_changes() {
    let home = Home::new();
    let db = home.builder().open().await.unwrap();
    let mut opening = WriteBatch::new();
    for n in 0..ACCOUNTS {
        opening.put(account(n), START.to_le_bytes());
    }
    db.write(opening).await.unwrap();

    let teller = Arc::new(tokio::sync::Mutex::new(()));
    let mut writers = JoinSet::new();
    for seed in 0..4 {
        let (db, teller) = (db.clone(), teller.clone());
        writers.spawn(async move {
            let mut chance = Chance::new(seed);
            for _ in 0..300 {
                let (from, to) = (chance.below(ACCOUNTS), chance.below(ACCOUNTS));
                let amount = chance.between(1, 50) as i64;
                if from == to {
                    continue;
                }
                let _turn = teller.lock().await;
                let mut batch = WriteBatch::new();
                batch.put(account(from), (balance(&db, from).await - amount).to_le_bytes());
                batch.put(account(to), (balance(&db, to).await + amount).to_le_bytes());
                db.write(batch).await.unwrap();
            }
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut auditors = JoinSet::new();
    for auditor in 0..3 {
        let (db, stop) = (db.clone(), stop.clone());
        auditors.spawn(async move {
            let mut audits = 0;
            while !stop.load(Ordering::Relaxed) || audits == 0 {
                let sum: i64 = match auditor {
                    0 => {
                        let entries = collect(db.scan_prefix("account")).await.unwrap();
                        assert_eq!(entries.len(), ACCOUNTS);
                        let one =
                            |(_, v): &(_, Vec<u8>)| i64::from_le_bytes(v[..].try_into().unwrap());
                        entries.iter().map(one).sum()
                    }
                    1 => {
                        let keys: Vec<_> = (0..ACCOUNTS).map(account).collect();
                        let found = db.multi_get(&keys).await.unwrap();
                        let one = |v: &Option<bytes::Bytes>| {
                            i64::from_le_bytes(v.as_ref().unwrap()[..].try_into().unwrap())
                        };
                        found.iter().map(one).sum()
                    }
                    _ => {
                        let snapshot = db.snapshot();
                        let mut sum = 0;
                        for n in 0..ACCOUNTS {
                            tokio::task::yield_now().await;
                            let bytes = snapshot.get(account(n)).await.unwrap().unwrap();
                            sum += i64::from_le_bytes(bytes[..].try_into().unwrap());
                        }
                        sum
                    }
                };
                assert_eq!(sum, START * ACCOUNTS as i64);
                audits += 1;
            }
            audits
        });
    }
    let shaker = {
        let (db, stop) = (db.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                db.flush().await.unwrap();
                db.compact().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    shaker.await.unwrap();
    while let Some(audits) = auditors.join_next().await {
        assert!(audits.unwrap() > 0);
    }
}

/// A register with many writers and many readers: a reader that has seen a value never sees an
/// older one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_time_go_backwards() {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(4096);
    let home = Home::with(options);
    let db = home.builder().open().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let (db, stop) = (db.clone(), stop.clone());
        readers.spawn(async move {
            let mut newest = 0;
            while !stop.load(Ordering::Relaxed) {
                if let Some(value) = db.get("register").await.unwrap() {
                    let value = u64::from_be_bytes(value[..8].try_into().unwrap());
                    assert!(value >= newest, "{value} after {newest}");
                    newest = value;
                }
            }
        });
    }
    for n in 0..4_000_u64 {
        let mut value = n.to_be_bytes().to_vec();
        value.resize(100, 0);
        db.put("register", value).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    assert!(db.stats().flushes >= 2, "{:?}", db.stats());
}
