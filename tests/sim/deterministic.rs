//! The same seed gives the same run. Without that, no finding of this binary could be replayed.

use crate::history::{Driver, History, Work, steps};
use crate::kit::chance::Chance;
use crate::kit::disk::{fresh_dir, shared};
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::Options;
use sluicedb_storage::vfs::MemVfs;
use std::path::Path;
use std::sync::{Arc, Mutex};

fn trace(seed: u64) -> Vec<String> {
    trace_with(seed, settings::drawn).0
}

fn trace_with(seed: u64, drawn: fn(&mut Chance) -> Options) -> (Vec<String>, Work) {
    let vfs = MemVfs::new();
    let trace: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&trace);
    vfs.on_operation(move |_, operation| {
        let name = operation.path.file_name().unwrap_or_default().to_string_lossy();
        // The directory's name differs from run to run.
        let name = if name.starts_with("db") { "the directory".into() } else { name };
        let line = format!("{:?} {name} {} {}", operation.kind, operation.offset, operation.len);
        lines.lock().unwrap().push(line);
    });
    let mut chance = Chance::new(seed);
    let options = drawn(&mut chance);
    let steps = steps(&mut chance, 80, seed.is_multiple_of(2));
    let (simulator, history) = (Simulator::new(seed), History::default());
    // The same depth in every run, whatever number other tests get.
    let dir = Path::new("/x").join(fresh_dir().file_name().unwrap());
    let vfs = shared(&vfs);
    let driver = Driver { vfs, dir, options, simulator, history, lossy: false };
    let db = driver.run(&steps).unwrap();
    driver.history.worked(&db.stats());
    driver.simulator.run(db.close()).unwrap();
    (std::mem::take(&mut *trace.lock().unwrap()), driver.history.work())
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..4 {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 50, "{} operations", first.len());
        let differing = first.iter().zip(&second).position(|(a, b)| a != b);
        if let Some(at) = differing {
            panic!("seed {seed}, operation {at}: {} / {}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
    assert_ne!(trace(0), trace(1));
}

/// Goal: the schedules of several compactors over landings can be repeated, and include every
/// operation on landings.
#[test]
fn t000_the_same_seed_gives_the_same_trace_of_several_compactors_over_landings() {
    let mut work = Work::default();
    for seed in 0..12 {
        let (first, done) = trace_with(seed, settings::landings);
        assert_eq!(first, trace_with(seed, settings::landings).0, "seed {seed}");
        work.add(done);
    }
    eprintln!("{work:?}");
    work.demand(5);
}
