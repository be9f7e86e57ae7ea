//! Readers beside all work on landings, preempted wherever no seat is held.

use crate::history::Work;
use crate::kit::chance::{Chance, Replay, replayed, seeds};
use crate::kit::disk::{collect, fresh_dir, shared};
use crate::kit::settings;
use crate::kit::simulator::{Simulator, pause};
use sluicedb::Db;
use sluicedb_storage::vfs::MemVfs;
use std::cell::{Cell, RefCell};

const KEYS: usize = 24;
const ROUNDS: u32 = 40;

/// The keys have a common prefix, so that the shards have to move.
fn key(n: usize) -> Vec<u8> {
    format!("key{n:02}").into_bytes()
}

fn round_of(value: &[u8]) -> u32 {
    u32::from_le_bytes(value[..4].try_into().expect("each has its round"))
}

#[test]
fn t000_10_no_read_misses_while_tables_land_and_are_merged() {
    let (mut work, mut preemptions, mut reads) = (Work::default(), 0, 0_u64);
    for seed in seeds(10_000, 12) {
        let test = "t000_10_no_read_misses_while_tables_land_and_are_merged";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::landings(&mut chance);
        options.cache_bytes = Some(0);
        let (vfs, simulator) = (MemVfs::new(), Simulator::preempting(seed));
        let builder = Db::builder(fresh_dir()).options(options);
        let builder = builder.vfs(shared(&vfs)).runtime(simulator.handle());
        let db = simulator.run(builder.open()).unwrap();
        let acknowledged = RefCell::new([0_u32; KEYS]);
        let (done, met) = (Cell::new(false), Cell::new(0_u64));
        let write = async {
            for round in 1..=ROUNDS {
                for n in 0..KEYS {
                    // Some keys are left out, so that old and new values of a key lie at all
                    // depths.
                    if round > 1 && (n + round as usize).is_multiple_of(3) {
                        continue;
                    }
                    let value = [&round.to_le_bytes()[..], &[n as u8; 150]].concat();
                    db.put(key(n), value).await.unwrap();
                    acknowledged.borrow_mut()[n] = round;
                }
                db.flush().await.unwrap();
                pause().await;
            }
            done.set(true);
        };
        let read = async {
            let mut n = 0_usize;
            while !done.get() {
                let least = *acknowledged.borrow();
                if n.is_multiple_of(16) {
                    let found = collect(db.scan(..)).await.unwrap();
                    let there = least.iter().filter(|round| **round > 0).count();
                    assert!(found.len() >= there, "{} of {there}", found.len());
                    for (at, value) in &found {
                        let at = (0..KEYS).find(|n| key(*n) == *at).expect("one of the keys");
                        assert!(round_of(value) >= least[at], "{at}");
                    }
                }
                let at = n * 7 % KEYS;
                let found = db.get(key(at)).await.unwrap();
                let round = found.as_deref().map_or(0, round_of);
                assert!(round >= least[at], "{at}: {round}, not {}", least[at]);
                met.set(met.get() + 1);
                n += 1;
                pause().await;
            }
        };
        simulator.run(futures::future::join(write, read));
        work.add(Work::of(&db.stats()));
        (preemptions, reads) = (preemptions + simulator.preemptions(), reads + met.get());
        simulator.run(db.close()).unwrap();
    }
    eprintln!("{work:?}, {preemptions} preemptions, {reads} reads");
    if replayed().is_none() {
        // Only the last moves and reshards are remembered.
        assert!(work.lands.min(work.drains) >= 100 && work.keeps >= 50, "{work:?}");
        assert!(preemptions > 1000 && reads > 1000);
    }
}
