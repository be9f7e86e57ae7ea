//! Spans are excised beside all of the engine's own work.

use crate::kit::chance::{Chance, Replay, replayed, seeds};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::{self, Map, difference};
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Stats};
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::MemVfs;

/// The work that ended while a span was excised.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    flushes: u64,
    lands: u64,
    keeps: u64,
    drains: u64,
    merges: u64,
    splits: u64,
    /// Excisions.
    cuts: u64,
}

impl Beside {
    fn so_far(stats: &Stats) -> Self {
        let (keeps, drains) = (stats.keeps.runs, stats.drains.runs);
        Self {
            flushes: stats.flushes,
            lands: stats.tables_landed,
            keeps,
            drains,
            merges: stats.compactions.saturating_sub(keeps + drains),
            ..Self::default()
        }
    }

    fn add(&mut self, before: Self, after: Self, splits: u64) {
        self.flushes += after.flushes - before.flushes;
        self.lands += after.lands - before.lands;
        self.keeps += after.keeps - before.keeps;
        self.drains += after.drains - before.drains;
        self.merges += after.merges.saturating_sub(before.merges);
        self.splits += splits;
        self.cuts += 1;
    }
}

/// Goal: a flush, a landing, a keep, a drain, a merge or a split that is under way during an
/// excision brings nothing of the span back and loses nothing outside it. Its result is cut as
/// well, or is discarded.
///
/// Planted: a flush whose tables are installed whole; a merge that is installed although one of its
/// inputs has been cut; a split that hands memtables on without their excisions.
#[test]
fn t004_12_what_is_under_way_brings_back_nothing_that_is_cut_out() {
    let mut beside = Beside::default();
    for seed in seeds(41_200, 32) {
        let test = "t004_12_what_is_under_way_brings_back_nothing_that_is_cut_out";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::landings(&mut chance);
        options.initial_split_keys =
            if chance.one_in(2) { Vec::new() } else { vec!["hot/".into()] };
        let simulator =
            if seed.is_multiple_of(2) { Simulator::new(seed) } else { Simulator::preempting(seed) };
        let (disk, dir, mut map) = (MemVfs::new(), fresh_dir(), Map::new());
        let open = |simulator: &Simulator| {
            let builder = Db::builder(&dir).options(options.clone()).vfs(shared(&disk));
            simulator.run(builder.runtime(simulator.handle()).open()).unwrap()
        };
        let agrees = |simulator: &Simulator, db: &Db, map: &Map| {
            let found = simulator.run(content(db)).unwrap();
            assert_eq!(difference(map, &found), None);
        };
        let db = open(&simulator);
        for step in 0..200 {
            if !chance.one_in(4) {
                let changes = oracle::changes(&mut chance, 12);
                oracle::apply(&mut map, &changes);
                simulator.run(db.write(oracle::batch(&changes))).unwrap();
                continue;
            }
            let mut ends = [oracle::key(&mut chance), oracle::key(&mut chance)];
            ends.sort();
            let [lo, hi] = ends;
            let before = Beside::so_far(&db.stats());
            let (split, flush) = (chance.one_in(3), chance.one_in(2));
            let at = oracle::key(&mut chance);
            let (cut, was_split, flushed) = simulator.run(async {
                futures::join!(
                    db.excise(&lo[..]..&hi[..]),
                    async { if split { db.split_at(&at).await } else { Ok(false) } },
                    async { if flush { db.flush().await } else { Ok(()) } },
                )
            });
            cut.unwrap();
            flushed.unwrap();
            let splits = u64::from(was_split.unwrap());
            beside.add(before, Beside::so_far(&db.stats()), splits);
            map.retain(|key, _| !(lo <= *key && *key < hi));
            if db.ranges().len() > 4 {
                let range = chance.pick(&db.ranges()[1..]);
                simulator.run(db.merge_at(&range.start)).unwrap();
            }
            if step % 3 == 0 {
                agrees(&simulator, &db, &map);
            }
        }
        agrees(&simulator, &db, &map);
        simulator.settle();
        agrees(&simulator, &db, &map);
        simulator.run(db.close()).unwrap();
        drop(db);
        let verified = verify_directory(&shared(&disk), &dir, &mut |_, _| {}).unwrap();
        assert!(verified.is_sound(), "{:?}", verified.findings);
        let simulator = Simulator::new(seed);
        let db = open(&simulator);
        agrees(&simulator, &db, &map);
        simulator.run(db.close()).unwrap();
    }
    eprintln!("{beside:?}");
    if replayed().is_none() {
        let Beside { flushes, lands, keeps, drains, merges, splits, cuts } = beside;
        let rarest = [flushes, lands, keeps, drains, merges, splits].into_iter().min();
        assert!(rarest >= Some(20) && cuts > 1000, "met too rarely: {beside:?}");
    }
}
