//! Writers continue while memtables are sealed, flushed and dropped. At no moment is an entry
//! missing or doubled.

use crate::kit::chance::{Chance, seeds};
use crate::kit::disk::{collect, content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, Snapshot};
use sluicedb_storage::vfs::MemVfs;
use std::future::poll_fn;
use std::task::Poll;

/// Lets others run, or not, as the simulator draws it.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn entries(snapshot: &Snapshot) -> Map {
    let entries = collect(snapshot.scan(..)).await.unwrap();
    assert!(entries.is_sorted_by(|left, right| left.0 < right.0), "each key once, in order");
    entries.into_iter().collect()
}

/// Goal: the content is exactly the acknowledged writes, at any schedule of owner, version manager,
/// flush worker and compaction: in a lookup after each write, in whole scans again and again, and
/// in snapshots that stay while everything under them is replaced.
/// Method: hot and cold keys, memtables of a few KiB, the next actor to run drawn by seed.
/// Catches: a seal that publishes a superversion without the old memtable; sealed memtables in the
/// wrong order; a flush whose swap removes the memtable and leaves the old version.
#[test]
fn every_write_is_there_once_while_memtables_rotate() {
    let (mut rotations, mut flushes, mut compactions) = (0, 0, 0);
    for seed in seeds(0x0707, 40) {
        eprintln!("seed {seed}");
        let mut chance = Chance::new(seed);
        let mut options = settings::drawn(&mut chance);
        options.memtable_bytes = Some(chance.pick(&[4 << 10, 8 << 10]));
        options.durability =
            chance.pick(&[Durability::Buffered, Durability::Buffered, Durability::Synced]);
        let simulator = Simulator::new(seed);
        simulator.run(async {
            let builder = Db::builder(fresh_dir()).options(options);
            let builder = builder.vfs(shared(&MemVfs::new())).runtime(simulator.handle());
            let db = builder.open().await.unwrap();
            let mut model = Map::new();
            let mut held: Vec<(Snapshot, Map)> = Vec::new();
            for number in 0..400_u32 {
                let key = match chance.below(3) {
                    0 => format!("cold/{:04}", chance.below(2_000)),
                    _ => format!("hot/{}", chance.below(12)),
                };
                if chance.one_in(8) {
                    db.delete(&key).await.unwrap();
                    model.remove(key.as_bytes());
                } else {
                    let mut value = number.to_be_bytes().to_vec();
                    value.resize(chance.between(4, 300), 7);
                    db.put(&key, &value).await.unwrap();
                    model.insert(key.clone().into_bytes(), value);
                }
                for key in [key, format!("hot/{}", chance.below(12))] {
                    let found = db.get(&key).await.unwrap();
                    let expected = model.get(key.as_bytes()).map(Vec::as_slice);
                    assert!(found.as_deref() == expected, "write {number}: {key}");
                }
                // Seldom, so that several sealed memtables queue up now and then.
                if chance.one_in(12) {
                    pause().await;
                }
                if chance.one_in(25) {
                    assert!(content(&db).await.unwrap() == model, "write {number}");
                }
                if chance.one_in(40) {
                    held.push((db.snapshot(), model.clone()));
                }
                if chance.one_in(30) && !held.is_empty() {
                    let (snapshot, then) = held.swap_remove(chance.below(held.len()));
                    assert!(entries(&snapshot).await == then, "a snapshot, at write {number}");
                }
            }
            for (snapshot, then) in held {
                assert!(entries(&snapshot).await == then);
            }
            let stats = db.stats();
            rotations += stats.ranges.iter().map(|range| range.rotations).sum::<u64>();
            flushes += stats.flushes;
            compactions += stats.compactions;
            db.close().await.unwrap();
        });
    }
    println!("{rotations} rotations, {flushes} flushes, {compactions} compactions");
    assert!(rotations > 200 && flushes > 100 && compactions > 50);
}
