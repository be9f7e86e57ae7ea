//! Compactions with a rate limit, in simulated time: all of them together keep it, and only they
//! wait for it.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::Db;
use sluicedb_storage::vfs::{MemVfs, Vfs};
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

const BYTES_PER_SECOND: u64 = 64 << 10;

struct Scene {
    simulator: Simulator,
    disk: MemVfs,
    dir: PathBuf,
    db: Db,
    written: Map,
}

impl Scene {
    fn new(seed: u64, threads: usize, l0_trigger_tables: usize) -> Self {
        let (simulator, disk, dir) = (Simulator::new(seed), MemVfs::new(), fresh_dir());
        let mut options = settings::tiny();
        options.compaction_threads = Some(threads);
        options.compaction_bytes_per_second = Some(BYTES_PER_SECOND);
        options.initial_split_keys = vec![b"1".to_vec(), b"2".to_vec()];
        // Flushes wait for compactions where those are due early.
        options.l0_tables_max = l0_trigger_tables + 2;
        options.l0_trigger_tables = l0_trigger_tables;
        options.compression = sluicedb::Compression::None;
        let builder = Db::builder(&dir).options(options).vfs(shared(&disk));
        let db = simulator.run(builder.runtime(simulator.handle()).open()).unwrap();
        Self { simulator, disk, dir, db, written: Map::new() }
    }

    /// Three ranges' worth of L0, over and over again.
    fn fill(&mut self) {
        for n in 0..600_u32 {
            let key = format!("{}/{:03}", n % 3, n * 7 % 400).into_bytes();
            let value = vec![n as u8; 200];
            self.simulator.run(self.db.put(&key, &value)).unwrap();
            self.written.insert(key, value);
        }
    }

    fn elapsed<T>(&self, future: impl Future<Output = T>) -> (Duration, T) {
        let began = self.simulator.handle().now();
        let output = self.simulator.run(future);
        (self.simulator.handle().now() - began, output)
    }

    fn temporary_files(&self) -> usize {
        let files = self.disk.list(&self.dir).unwrap();
        files.iter().filter(|name| name.ends_with(".tmp")).count()
    }
}

/// Planted: a bucket for each worker; bytes that are not counted; a close that waits for the rate
/// limit.
#[test]
fn compactions_keep_the_rate_together_and_an_end_does_not_wait_for_it() {
    for (seed, threads) in (0..9).zip([1, 2, 3].into_iter().cycle()) {
        let what = format!("seed {seed}, {threads} threads");
        let mut scene = Scene::new(seed, threads, 2);
        let began = scene.simulator.handle().now();
        scene.fill();
        scene.simulator.run(scene.db.compact()).unwrap();
        let took = scene.simulator.handle().now() - began;
        let stats = scene.db.stats();
        // The last slices are exempt: each has one table, or less.
        let due = stats.compaction_bytes_written.saturating_sub(threads as u64 * (20 << 10));
        assert!(due > 2 * BYTES_PER_SECOND, "{what}: {due} bytes");
        let least = Duration::from_secs_f64(due as f64 / BYTES_PER_SECOND as f64);
        assert!(took >= least, "{what}: {due} bytes in {took:?}");
        let waited = Duration::from_micros(stats.compaction_pace_micros);
        assert!(waited * 2 >= least, "{what}: {waited:?}");
        assert_eq!(scene.simulator.run(content(&scene.db)).unwrap(), scene.written, "{what}");

        scene.fill();
        scene.simulator.settle();
        let (took, closed) = scene.elapsed(scene.db.close());
        closed.unwrap();
        assert!(took < Duration::from_millis(100), "{what}: closed in {took:?}");
    }
}

/// Planted: a wait that the engine's end does not interrupt.
#[test]
fn an_engine_that_is_dropped_ends_at_once_whatever_its_pace() {
    for seed in 0..6 {
        let mut scene = Scene::new(seed, 2, 2);
        scene.fill();
        scene.simulator.settle();
        assert!(scene.temporary_files() > 0, "seed {seed}: nothing is being merged");
        let Scene { simulator, disk, dir, db, .. } = scene;
        drop(db);
        simulator.settle();
        assert!(simulator.names().is_empty(), "seed {seed}: {:?}", simulator.names());
        let left = disk.list(&dir).unwrap();
        assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
    }
}

/// Planted: an order that is checked again only after its wait.
#[test]
fn an_order_that_nobody_wants_stops_while_it_waits() {
    for seed in 0..6 {
        let mut scene = Scene::new(seed, 1, 500);
        scene.fill();
        scene.simulator.run(scene.db.flush()).unwrap();
        {
            let mut order = pin!(scene.db.compact());
            // The call flushes, and then asks the planner.
            for _ in 0..4 {
                let polled = order.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
                scene.simulator.settle();
            }
            assert!(scene.temporary_files() > 0, "seed {seed}: nothing is being merged");
        }
        scene.simulator.advance(Duration::from_millis(100));
        scene.simulator.settle();
        assert_eq!(scene.temporary_files(), 0, "seed {seed}");
        assert_eq!(scene.simulator.run(content(&scene.db)).unwrap(), scene.written);
    }
}
