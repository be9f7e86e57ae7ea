//! Each operation of the disk fails: once, or from then on, with any of the errors of real disks,
//! or as a sync that loses written data.
//!
//! Whatever fails: no panic, no hang, a typed error that names a file, no broken acknowledgement,
//! no trace of a refused write. With a working disk the database opens again and has no file that
//! nobody needs.
//!
//! A run without a fault counts the operations. The run with a fault has the same schedule, so its
//! fault must fire; otherwise the test fails.

use crate::history::{Did, Driver, History, Step, is_fitting, judge, mark};
use crate::keyspaces::whole;
use crate::kit::chance::{Chance, Replay, cases_factor, replayed};
use crate::kit::disk::{fresh_dir, shared};
use crate::kit::oracle::Change;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, ErrorKind, Options};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::manifest;
use sluicedb_storage::version::SliceMeta;
use sluicedb_storage::vfs::fault::{EIO, EMFILE, ENOSPC, EROFS};
use sluicedb_storage::vfs::{
    CrashKind, FailedSync, Fault, FaultControl, FaultVfs, MemVfs, OperationKind, Vfs,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Once(i32),
    ForEver(i32),
    LostSync(FailedSync),
    PartialWrite,
}

impl Wrong {
    const ALL: [Self; 11] = [
        Self::Once(EIO),
        Self::ForEver(EIO),
        Self::Once(ENOSPC),
        Self::ForEver(ENOSPC),
        Self::Once(EMFILE),
        Self::ForEver(EMFILE),
        Self::Once(EROFS),
        Self::ForEver(EROFS),
        Self::LostSync(FailedSync::KeepsNew),
        Self::LostSync(FailedSync::RevertsToOld),
        Self::PartialWrite,
    ];

    fn fault(self, k: u64) -> Fault {
        match self {
            Self::Once(errno) => Fault::any().errno(errno).after(k),
            Self::ForEver(errno) => Fault::any().errno(errno).after(k).sticky(),
            Self::LostSync(_) => Fault::of(OperationKind::Sync).after(k).lose_sync(),
            Self::PartialWrite => Fault::of(OperationKind::Write).after(k).partial_write(),
        }
    }

    /// How many operations of a run without faults this can hit.
    fn reach(self, calm: &FaultControl) -> u64 {
        match self {
            Self::Once(_) | Self::ForEver(_) => calm.count_all(),
            Self::LostSync(_) => calm.count(OperationKind::Sync),
            Self::PartialWrite => calm.count(OperationKind::Write),
        }
    }

    fn disk(self, options: &Options) -> MemVfs {
        let mem = MemVfs::new();
        mem.set_can_map(options.log_mapped);
        if let Self::LostSync(failed) = self {
            mem.set_failed_sync(failed);
        }
        mem
    }
}

/// Writes at both levels, a flush, overwrites, a compaction, a log rotation, a reopen.
pub fn workload() -> Vec<Step> {
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

pub fn driver(vfs: Arc<dyn Vfs>, options: Options, seed: u64) -> Driver {
    let simulator = Simulator::new(seed);
    simulator.limit_steps(400_000);
    // The same depth in each run, so that its creation takes the same number of operations.
    let dir = Path::new("/").join(fresh_dir().file_name().expect("it has a name"));
    let history = History::default();
    Driver { vfs, dir, options, simulator, history, lossy: false }
}

/// Reads everything, then closes. Each run does this after the workload, while its fault is armed.
pub fn read_and_close(driver: &Driver, db: &Db) -> Result<(), String> {
    let contents = driver.history.contents();
    let promises = driver.history.promises();
    // Reads continue. Acknowledged writes are visible.
    match driver.content(db) {
        Ok(found) => {
            judge(&contents, &found, promises.buffered, promises.submitted)
                .map_err(|what| format!("while open: {what}"))?;
        }
        Err(error) if is_fitting(&error) => {}
        Err(error) => return Err(format!("reading failed unfittingly: {error:?}")),
    }
    // A close may fail, but must end.
    match driver.simulator.run(db.close()) {
        Err(error) if !is_fitting(&error) => Err(format!("closing failed unfittingly: {error:?}")),
        _ => Ok(()),
    }
}

/// Counts what a run does while nothing is wrong.
fn calm_run(options: &Options, steps: &[Step], wrong: Wrong, schedule: u64) -> FaultControl {
    let calm = Arc::new(FaultVfs::over_mem(&wrong.disk(options)));
    let driver = driver(calm.clone(), options.clone(), schedule);
    let db = driver.run(steps).expect("nothing is wrong with this disk");
    read_and_close(&driver, &db).expect("nothing is wrong with this disk");
    assert!(driver.history.failures().is_empty(), "{:?}", driver.history.failures());
    calm.control()
}

/// What a run has met: how often each kind of operation failed, and the outcomes of its steps.
type Met = (BTreeMap<OperationKind, u64>, BTreeMap<&'static str, Did>);

/// One run with a fault.
fn one_run(
    options: &Options,
    steps: &[Step],
    wrong: Wrong,
    k: u64,
    schedule: u64,
    seed: u64,
) -> Result<Met, String> {
    let mem = wrong.disk(options);
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    control.arm(wrong.fault(k));
    let mut driver = driver(faulty, options.clone(), schedule);
    driver.lossy = matches!(wrong, Wrong::LostSync(_));
    let db = driver.run(steps);
    for failure in driver.history.failures() {
        if !is_fitting(&failure) {
            return Err(format!("an unfitting failure: {failure:?}"));
        }
    }
    if let Some(db) = db {
        read_and_close(&driver, &db)?;
    }
    let mut fired = BTreeMap::new();
    for operation in control.fired() {
        *fired.entry(operation.kind).or_default() += 1;
    }
    if fired.is_empty() {
        return Err("the fault never fired".to_owned());
    }
    survives(&driver, &mem, seed)?;
    Ok((fired, driver.history.did()))
}

/// The process ends. Every disk that may be left opens when it works again, keeps every promise,
/// and holds no file that nobody needs.
pub fn survives(driver: &Driver, mem: &MemVfs, seed: u64) -> Result<(), String> {
    let contents = driver.history.contents();
    let promises = driver.history.promises();
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
        disk.set_capacity(None);
        let simulator = Simulator::new(seed);
        let builder = Db::builder(&driver.dir).options(driver.options.clone());
        let builder = builder.vfs(shared(&disk)).runtime(simulator.handle());
        let db = simulator
            .run(builder.open())
            .map_err(|error| format!("{name} ({kind:?}) does not open: {error:?}"))?;
        let found = simulator
            .run(whole(&db))
            .map_err(|error| format!("{name} ({kind:?}) cannot be read: {error:?}"))?;
        judge(&contents, &found, least, promises.submitted)
            .map_err(|what| format!("{name} ({kind:?}, mark {}): {what}", mark(&found)))?;
        simulator.settle();
        only_what_is_needed(&disk, &driver.dir).map_err(|what| format!("{name}: {what}"))?;
        simulator.kill();
        drop(db);
    }
    Ok(())
}

/// The directory of an open database at rest holds the files that its manifest names, the log from
/// its floor on, at most two spares, and at most two segments below the floor that wait to be
/// recycled.
fn only_what_is_needed(disk: &MemVfs, dir: &Path) -> Result<(), String> {
    let vfs = shared(disk);
    let current = manifest::read_current(&vfs, dir).map_err(|error| error.to_string())?;
    let current = current.ok_or("an open database has no CURRENT")?;
    let loaded = manifest::load(&vfs, dir, &current).map_err(|error| error.to_string())?;
    let tables: Vec<_> = loaded.image.slices.values().map(SliceMeta::number).collect();
    let names = vfs.list(dir).map_err(|error| error.to_string())?;
    let (mut spares, mut recyclable) = (0, 0);
    for name in &names {
        let needed = match FileKind::parse(name) {
            Some(FileKind::Lock | FileKind::Current | FileKind::Reserve) => true,
            Some(FileKind::Manifest(number)) => number == loaded.number,
            Some(FileKind::Table(number)) => tables.contains(&number),
            Some(FileKind::Wal(number)) => {
                recyclable += usize::from(number < loaded.image.log_floor);
                recyclable <= 2
            }
            Some(FileKind::Spare(_)) => {
                spares += 1;
                spares <= 2
            }
            Some(FileKind::Temp(_)) | None => false,
        };
        if !needed {
            return Err(format!("{name} is left over; there are {names:?}"));
        }
    }
    match tables.iter().find(|number| !names.contains(&FileKind::Table(**number).name())) {
        Some(missing) => Err(format!("table {missing} is missing; there are {names:?}")),
        None => Ok(()),
    }
}

/// So much memory that writers never wait for flushes, which may fail for ever.
pub fn roomy() -> Options {
    let mut options = settings::tiny();
    options.sealed_memtables_max = 1000;
    options
}

/// Lets every `every`th operation fail in each way. The ways begin at different operations, so that
/// each operation fails in some of them. `SLUICE_CASES` divides `every`, down to every operation in
/// every way. Returns the outcomes of the steps beside writes.
fn all_runs(
    test: &'static str,
    options: &Options,
    steps: &[Step],
    every: u64,
) -> BTreeMap<&'static str, Did> {
    let mut all_did = BTreeMap::<_, Did>::new();
    let every = (every / cases_factor() as u64).max(1);
    let (mut calm, mut fired) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    let (mut runs, mut reached, mut failed) = (0_u64, 0_u64, Vec::new());
    for (index, wrong) in Wrong::ALL.into_iter().enumerate() {
        // Only file systems that keep the new bytes let a log be mapped.
        if options.log_mapped && wrong == Wrong::LostSync(FailedSync::RevertsToOld) {
            continue;
        }
        let schedule = index as u64;
        let counts = calm_run(options, steps, wrong, schedule);
        let reach = wrong.reach(&counts);
        for kind in OperationKind::ALL.into_iter().filter(|kind| kind.can_fail()) {
            *calm.entry(kind).or_default() += counts.count(kind);
        }
        assert!(reach > 10, "{wrong:?} can hit {reach} operations");
        reached += reach;
        for k in (schedule % every..reach).step_by(every as usize) {
            let seed = k * 16 + index as u64;
            if replayed().is_some_and(|only| only != seed) {
                continue;
            }
            let _replay = Replay { binary: "sim", test, seed };
            runs += 1;
            let run = || one_run(options, steps, wrong, k, schedule, seed);
            let run = std::panic::AssertUnwindSafe(run);
            let what = match std::panic::catch_unwind(run) {
                Ok(Ok((these, did))) => {
                    for (kind, count) in these {
                        *fired.entry(kind).or_default() += count;
                    }
                    for (what, Did { happened, failed }) in did {
                        let all = all_did.entry(what).or_default();
                        (all.happened, all.failed) = (all.happened + happened, all.failed + failed);
                    }
                    continue;
                }
                Ok(Err(what)) => what,
                Err(panic) => panic
                    .downcast_ref::<String>()
                    .cloned()
                    .unwrap_or_else(|| "a panic without a text".to_owned()),
            };
            failed.push(format!("SLUICE_SEED={seed} {wrong:?} at operation {k}: {what}"));
        }
    }
    eprintln!("{test}: {runs} runs of {reached} possible ones; fired: {fired:?}");
    let shown: Vec<_> = failed.iter().take(12).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} of {runs} failed:\n{}", failed.len(), shown.join("\n"));
    for (kind, count) in calm {
        let seen = count < 16 || fired.contains_key(&kind);
        assert!(seen || replayed().is_some(), "none of {count} {kind:?} ever failed: {fired:?}");
    }
    eprintln!("{all_did:?}");
    all_did
}

/// Goal: a failure while spans are replaced or deleted, tables are ingested, ranges are split and
/// merged, or a checkpoint is made leaves all of the old or all of the new, reports which, and
/// leaves no file.
///
/// Planted: tables of a failed replacement that are not removed; a change that is abandoned
/// although its record may be in the log.
#[test]
fn t004_13_each_operation_of_a_replacement_may_fail() {
    let test = "t004_13_each_operation_of_a_replacement_may_fail";
    let mut options = roomy();
    options.initial_split_keys = vec![b"m".to_vec()];
    options.log_mapped = false;
    let put = |key: &[u8], value: &[u8]| Change::Put(key.to_vec(), value.to_vec());
    let span = |lo: &[u8], hi: &[u8]| (lo.to_vec(), hi.to_vec());
    let first: Vec<_> = (0..12)
        .flat_map(|n| ["a", "k", "x"].map(|at| put(format!("{at}{n:02}").as_bytes(), &[n; 60])))
        .collect();
    let second = first.iter().step_by(2).map(|change| put(change.key(), b"second")).collect();
    let steps = [
        Step::Write(first, Durability::Buffered),
        Step::Flush,
        Step::Write(vec![put(b"a03", b"in memory"), put(b"c", b"beside")], Durability::Synced),
        Step::Replace {
            spans: vec![span(b"a", b"b"), span(b"k", b"n"), span(b"x", b"y")],
            changes: second,
            beside: Some(b"a05".to_vec()),
        },
        Step::Write(vec![put(b"a04", b"after it"), put(b"l", b"after it")], Durability::Buffered),
        Step::Split(b"x03".to_vec()),
        Step::Ingest(vec![put(b"a01", b"ingested"), put(b"x", b"ingested")]),
        Step::Checkpoint,
        Step::Delete { span: span(b"k", b"n"), changes: vec![put(b"l", b"new")] },
        Step::Merge(b"a".to_vec()),
        Step::Write(vec![put(b"a02", &[7; 50])], Durability::Synced),
        Step::Checkpoint,
    ];
    let did = all_runs(test, &options, &steps, 7);
    if replayed().is_none() {
        for what in ["split", "merge", "delete", "ingest", "replace", "checkpoint"] {
            let did = did.get(what).copied().unwrap_or_default();
            assert!(did.happened >= 20 && did.failed >= 5, "{what}: {did:?}");
        }
    }
}

#[test]
fn d5_each_operation_may_fail_with_a_mapped_log() {
    all_runs("d5_each_operation_may_fail_with_a_mapped_log", &roomy(), &workload(), 3);
}

#[test]
fn d5_each_operation_may_fail_without_a_mapped_log() {
    let mut options = roomy();
    options.log_mapped = false;
    options.cache_bytes = Some(0);
    all_runs("d5_each_operation_may_fail_without_a_mapped_log", &options, &workload(), 3);
}

#[test]
fn t002_17_after_a_failed_log_sync_nothing_is_acknowledged_and_reads_go_on() {
    let mem = MemVfs::new();
    let faulty = Arc::new(FaultVfs::over_mem(&mem));
    let control = faulty.control();
    let driver = driver(faulty, settings::tiny(), 3);
    let db = driver.run(&[]).unwrap();
    let write = |n: usize, level| {
        let change = Change::Put(format!("k{n}").into_bytes(), vec![1; 50]);
        let (number, changes) = driver.history.begin(vec![change]);
        let batch = driver.batch(&db, &changes).unwrap();
        let options = sluicedb::WriteOptions::durability(level);
        let result = driver.simulator.run(db.write_with(batch, options));
        let outcome = match &result {
            Ok(_) => Ok(()),
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
    // A second sync would succeed, and lie. The engine must not try it.
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
        let found = simulator.run(whole(&db)).unwrap();
        let promises = driver.history.promises();
        judge(&driver.history.contents(), &found, promises.synced, 3).unwrap();
        simulator.kill();
    }
}
