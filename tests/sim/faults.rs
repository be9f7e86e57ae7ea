//! Each operation of the disk fails: once, or from then on, with EIO or without space, or as a sync
//! that loses what it should have kept.
//!
//! Whatever fails: no panic, no hang, a typed error that names a file, no acknowledgement that was
//! not kept, nothing that was refused appears, and with a working disk the database opens again.

use crate::history::{Driver, History, Step, is_fitting, judge, mark};
use crate::kit::chance::{Chance, Replay, cases_factor, replayed};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Change;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, ErrorKind, Options};
use sluicedb_storage::vfs::fault::{EIO, ENOSPC};
use sluicedb_storage::vfs::{CrashKind, Fault, FaultVfs, MemVfs, OperationKind};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Once(i32),
    ForEver(i32),
    LostSync,
    PartialWrite,
}

impl Wrong {
    const ALL: [Self; 6] = [
        Self::Once(EIO),
        Self::ForEver(EIO),
        Self::Once(ENOSPC),
        Self::ForEver(ENOSPC),
        Self::LostSync,
        Self::PartialWrite,
    ];

    fn fault(self, k: u64) -> Fault {
        match self {
            Self::Once(errno) => Fault::any().errno(errno).after(k),
            Self::ForEver(errno) => Fault::any().errno(errno).after(k).sticky(),
            Self::LostSync => Fault::of(OperationKind::Sync).after(k).lose_sync(),
            Self::PartialWrite => Fault::of(OperationKind::Write).after(k).partial_write(),
        }
    }

    /// How many operations this can hit, of what a run without faults does.
    fn reach(self, calm: &FaultVfs) -> u64 {
        match self {
            Self::Once(_) | Self::ForEver(_) => calm.control().count_all(),
            Self::LostSync => calm.control().count(OperationKind::Sync),
            Self::PartialWrite => calm.control().count(OperationKind::Write),
        }
    }
}

/// Writes at both levels, a flush, overwrites, a compaction, a log rotation, a reopen.
fn workload() -> Vec<Step> {
    let put = |n: usize, round: usize| {
        let value = format!("value {n} of round {round} {}", "x".repeat(40)).into_bytes();
        Change::Put(format!("key{n:02}").into_bytes(), value)
    };
    let level =
        |n: usize| if n.is_multiple_of(2) { Durability::Synced } else { Durability::Buffered };
    let mut steps = Vec::new();
    for round in 0..2 {
        for n in 0..5 {
            steps.push(Step::Write(vec![put(n, round), put(n + 3, round)], level(n)));
        }
        let gone = format!("key{round:02}").into_bytes();
        steps.push(Step::Submit(vec![Change::Delete(gone)], Durability::Buffered));
        steps.push(Step::Submit(vec![put(9, round)], Durability::Synced));
        steps.push(Step::Await);
        steps.push(Step::Flush);
    }
    for n in 0..6 {
        let large = Change::Put(format!("large{n}").into_bytes(), vec![n as u8; 14_000]);
        steps.push(Step::Write(vec![large], level(n)));
    }
    steps.push(Step::Compact);
    steps.push(Step::Sync);
    steps.push(Step::Write(vec![put(20, 2)], Durability::Synced));
    steps.push(Step::Reopen { close: true });
    steps.push(Step::Write(vec![put(21, 2)], Durability::Buffered));
    steps.push(Step::Write(vec![put(22, 2)], Durability::Synced));
    steps
}

fn driver(faulty: Arc<FaultVfs>, options: Options, seed: u64) -> Driver {
    let simulator = Simulator::new(seed);
    simulator.limit_steps(400_000);
    let (dir, history) = (fresh_dir(), History::default());
    Driver { vfs: faulty, dir, options, simulator, history, lossy: false }
}

fn one_run(options: &Options, wrong: Wrong, k: u64, seed: u64) -> Result<(), String> {
    let mem = MemVfs::new();
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    control.arm(wrong.fault(k));
    let mut driver = driver(faulty, options.clone(), seed);
    driver.lossy = wrong == Wrong::LostSync;
    let db = driver.run(&workload());

    for failure in driver.history.failures() {
        if !is_fitting(&failure) {
            return Err(format!("an unfitting failure: {failure:?}"));
        }
    }
    if control.fired().is_empty() {
        return Err("the fault never fired".to_owned());
    }
    let contents = driver.history.contents();
    let promises = driver.history.promises();
    if let Some(db) = db {
        // Reads go on. What is acknowledged is visible.
        match driver.content(&db) {
            Ok(found) => {
                judge(&contents, &found, promises.buffered, promises.submitted)
                    .map_err(|what| format!("while open: {what}"))?;
            }
            Err(error) if is_fitting(&error) => {}
            Err(error) => return Err(format!("reading failed unfittingly: {error:?}")),
        }
        // Closing may fail, but has to come to an end.
        if let Err(error) = driver.simulator.run(db.close())
            && !is_fitting(&error)
        {
            return Err(format!("closing failed unfittingly: {error:?}"));
        }
        drop(db);
    }
    driver.simulator.settle();
    driver.simulator.kill();

    let mut chance = Chance::new(seed);
    let kind = chance.pick(&CrashKind::each(chance.clone().next()));
    let images = [
        (
            "as it is",
            mem.kill_clone(),
            if driver.lossy { promises.synced } else { promises.buffered },
        ),
        ("after a power cut", mem.crash_clone(CrashKind::DropUnsynced), promises.synced),
        ("after another power cut", mem.crash_clone(kind), promises.synced),
    ];
    for (name, disk, least) in images {
        let simulator = Simulator::new(seed);
        let builder = Db::builder(&driver.dir).options(options.clone());
        let builder = builder.vfs(shared(&disk)).runtime(simulator.handle());
        let db = simulator
            .run(builder.open())
            .map_err(|error| format!("{name} ({kind:?}) does not open: {error:?}"))?;
        let found = simulator
            .run(content(&db))
            .map_err(|error| format!("{name} ({kind:?}) cannot be read: {error:?}"))?;
        judge(&contents, &found, least, promises.submitted)
            .map_err(|what| format!("{name} ({kind:?}, mark {}): {what}", mark(&found)))?;
        simulator.kill();
        drop(db);
    }
    Ok(())
}

/// So much room that writers need not wait for flushes, which may fail for ever.
fn roomy() -> Options {
    let mut options = settings::tiny();
    options.sealed_memtables_max = 1000;
    options
}

fn all_runs(test: &'static str, options: &Options, every: u64) {
    let calm = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
    let quiet = driver(Arc::clone(&calm), options.clone(), 1);
    let db = quiet.run(&workload()).expect("nothing is wrong with this disk");
    assert!(quiet.history.failures().is_empty(), "{:?}", quiet.history.failures());
    drop(db);
    quiet.simulator.settle();

    let mut runs = 0;
    let mut failed = Vec::new();
    for wrong in Wrong::ALL {
        // The schedule of a run depends on its seed, so the last few operations may not come.
        let reach = wrong.reach(&calm).saturating_sub(12);
        for k in (0..reach).step_by((every as usize / cases_factor()).max(1)) {
            let seed = k * 8 + Wrong::ALL.iter().position(|one| *one == wrong).unwrap_or(0) as u64;
            if replayed().is_some_and(|only| only != seed) {
                continue;
            }
            let _replay = Replay { binary: "sim", test, seed };
            runs += 1;
            let run = std::panic::AssertUnwindSafe(|| one_run(options, wrong, k, seed));
            let what = match std::panic::catch_unwind(run) {
                Ok(Ok(())) => continue,
                Ok(Err(what)) if what == "the fault never fired" => continue,
                Ok(Err(what)) => what,
                Err(panic) => panic
                    .downcast_ref::<String>()
                    .cloned()
                    .unwrap_or_else(|| "a panic without a text".to_owned()),
            };
            failed.push(format!("SLUICE_SEED={seed} {wrong:?} at operation {k}: {what}"));
        }
    }
    eprintln!("{test}: {runs} runs");
    let shown: Vec<_> = failed.iter().take(12).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} of {runs} failed:\n{}", failed.len(), shown.join("\n"));
}

#[test]
fn each_operation_may_fail_with_a_mapped_log() {
    all_runs("each_operation_may_fail_with_a_mapped_log", &roomy(), 3);
}

#[test]
fn each_operation_may_fail_without_a_mapped_log() {
    let mut options = roomy();
    options.log_mapped = false;
    options.cache_bytes = Some(0);
    all_runs("each_operation_may_fail_without_a_mapped_log", &options, 5);
}

#[test]
fn t002_17_after_a_failed_log_sync_nothing_is_acknowledged_and_reads_go_on() {
    let mem = MemVfs::new();
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    let driver = driver(faulty, settings::tiny(), 3);
    let db = driver.run(&[]).unwrap();
    let write = |n: usize, level| {
        let (number, batch) =
            driver.history.begin(vec![Change::Put(format!("k{n}").into_bytes(), vec![1; 50])]);
        let options = sluicedb::WriteOptions::durability(level);
        let result = driver.simulator.run(db.write_with(batch, options));
        let outcome = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err((error.kind(), error.outcome(), error.to_string())),
        };
        driver.history.end(number, level, result);
        outcome
    };
    write(0, Durability::Synced).unwrap();
    write(1, Durability::Buffered).unwrap();
    let durable = db.durable_seqno();
    control.arm(Fault::of(OperationKind::Sync).lose_sync());
    let failed = write(2, Durability::Synced).unwrap_err();
    let (kind, outcome, first) = failed;
    assert_eq!((kind, outcome), (ErrorKind::Io, sluicedb::Outcome::Unknown));
    assert_eq!(control.fired().len(), 1);
    // A second sync would succeed, and lie. Nobody may ask for it.
    for (n, level) in [(3, Durability::Synced), (4, Durability::Buffered)] {
        let (kind, outcome, message) = write(n, level).unwrap_err();
        assert_eq!((kind, outcome), (ErrorKind::Io, sluicedb::Outcome::NotApplied));
        assert!(first.starts_with(&message), "everybody is told the first failure: {message}");
    }
    assert!(driver.simulator.run(db.sync()).is_err());
    assert!(driver.simulator.run(db.flush()).is_err());
    assert_eq!(db.durable_seqno(), durable, "nothing became durable since");
    assert!(matches!(db.health().state(), sluicedb::HealthState::Failed(_)));
    let found = driver.content(&db).unwrap();
    assert!(found.contains_key(&b"k0"[..]) && found.contains_key(&b"k1"[..]));
    assert!(driver.simulator.run(db.close()).is_err());
    drop(db);
    driver.simulator.kill();

    for kind in CrashKind::each(5) {
        let disk = mem.crash_clone(kind);
        let simulator = Simulator::new(1);
        let builder = Db::builder(&driver.dir).vfs(shared(&disk)).runtime(simulator.handle());
        let db = simulator.run(builder.open()).unwrap();
        let found = simulator.run(content(&db)).unwrap();
        let promises = driver.history.promises();
        judge(&driver.history.contents(), &found, promises.synced, 3).unwrap();
        simulator.kill();
    }
}
