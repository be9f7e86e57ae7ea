//! A power cut, or the death of the process, at every operation of the disk.
//!
//! The workload runs once. Before each changing operation the disk is cloned, together with the
//! promises made by then. Afterwards each clone becomes the disks that the crash may leave. Each of
//! those has to open and to keep every promise.
//!
//! Long because the workload, the crash and the judgement form one test.

use crate::history::{Driver, History, Promises, Step, Work, judge, mark, steps};
use crate::keyspaces::whole;
use crate::kit::chance::{Chance, Replay, replayed, seeds};
use crate::kit::disk::{collect, fresh_dir, shared};
use crate::kit::oracle::{Map, difference};
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use crate::replacements::replacements;
use sluicedb::{Db, Durability, Options, ReadOnlyDb, WriteOptions};
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::{CrashKind, DiskOperation, MemVfs, OperationKind, Vfs};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug)]
enum Crash {
    Killed,
    PowerCut(CrashKind),
}

pub(crate) struct Image {
    pub(crate) operation: String,
    doing: Option<&'static str>,
    pub(crate) disk: MemVfs,
    pub(crate) promises: Promises,
    /// Edits that are in the manifest and not synced.
    unsynced_edits: u64,
}

/// Counts of what a sweep has met: a sweep without a torn log proves nothing about torn logs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    images: u64,
    states: u64,
    /// Crashes in a recovery, in the recovery from that, and in the recovery from that one.
    nested: [u64; 3],
    torn: u64,
    /// Opened for reading first.
    shown: u64,
    replayed: u64,
    partial: u64,
    /// Every batch that had begun was found.
    whole: u64,
    /// Ranges flushed because they pinned the log.
    log_seals: u64,
    /// Bytes of log segments that were never synced.
    given_up_bytes: u64,
    work: Work,
    /// Crashes before a write to the manifest.
    edits: u64,
    /// Power cuts with several edits in the manifest that no sync has made durable.
    shared_syncs: u64,
    /// Opens that found tables in landings.
    landed: u64,
    per_kind: BTreeMap<OperationKind, u64>,
    /// Crashes while something other than a write was under way.
    during: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Demands crashes in the middle of each of these.
    fn demand_during(&self, all: &[&'static str], least: u64) {
        let during = |what| self.during.get(what).copied().unwrap_or(0);
        assert!(all.iter().all(|what| during(what) >= least), "{:?}", self.during);
    }
}

/// A recording of a workload: images with promises, and the contents after every batch.
pub(crate) struct Recording {
    pub(crate) images: Vec<Image>,
    pub(crate) contents: Vec<Map>,
    pub(crate) dir: std::path::PathBuf,
    pub(crate) options: Options,
}

pub(crate) fn record(
    seed: u64,
    steps: &[Step],
    options: Options,
    every: u64,
    tally: &mut Tally,
) -> Recording {
    record_at(seed, steps, options, tally, move |operation, _| operation.number % every == 0)
}

/// Records the state before the operations that `at` chooses.
fn record_at(
    seed: u64,
    steps: &[Step],
    options: Options,
    tally: &mut Tally,
    at: impl Fn(&DiskOperation, &History) -> bool + Send + Sync + 'static,
) -> Recording {
    let vfs = MemVfs::new();
    let history = History::default();
    let images: Arc<Mutex<Vec<Image>>> = Arc::default();
    let kinds: Arc<Mutex<BTreeMap<OperationKind, u64>>> = Arc::default();
    let (taken, seen, story) = (Arc::clone(&images), Arc::clone(&kinds), history.clone());
    let unsynced = AtomicU64::new(0);
    vfs.on_operation(move |disk, operation| {
        *seen.lock().unwrap().entry(operation.kind).or_default() += 1;
        if at(operation, &story) {
            let image = Image {
                operation: format!("{operation:?}"),
                disk: disk.kill_clone(),
                doing: story.doing(),
                promises: story.promises(),
                unsynced_edits: unsynced.load(Ordering::Relaxed),
            };
            taken.lock().unwrap().push(image);
        }
        if operation.path.to_string_lossy().contains("MANIFEST") {
            match operation.kind {
                OperationKind::Write => drop(unsynced.fetch_add(1, Ordering::Relaxed)),
                OperationKind::Sync => unsynced.store(0, Ordering::Relaxed),
                _ => {}
            }
        }
    });
    let simulator =
        if seed.is_multiple_of(2) { Simulator::new(seed) } else { Simulator::preempting(seed) };
    let dir = fresh_dir();
    let driver = Driver { vfs: shared(&vfs), dir, options, simulator, history, lossy: false };
    let db = driver.run(steps).expect("the disk is fine");
    let found = driver.content(&db).unwrap();
    assert!(driver.history.failures().is_empty(), "{:?}", driver.history.failures());
    let contents = driver.history.contents();
    assert_eq!(difference(contents.last().unwrap(), &found), None);
    tally.log_seals += db.stats().seals_log;
    tally.given_up_bytes += db.stats().log_given_up_bytes;
    driver.history.worked(&db.stats());
    tally.work.add(driver.history.work());
    driver.simulator.run(db.close()).unwrap();
    drop(db);
    driver.simulator.kill();
    vfs.clear_hook();
    // And once more when everything is over.
    let promises = Promises {
        submitted: driver.history.len(),
        buffered: driver.history.len(),
        synced: driver.history.len(),
    };
    let (operation, disk) = ("the end".to_owned(), vfs.kill_clone());
    let last = Image { operation, doing: None, disk, promises, unsynced_edits: 0 };
    let mut images = std::mem::take(&mut *images.lock().unwrap());
    images.push(last);
    for (kind, count) in kinds.lock().unwrap().iter() {
        *tally.per_kind.entry(*kind).or_default() += count;
    }
    tally.images += images.len() as u64;
    Recording { images, contents, dir: driver.dir, options: driver.options }
}

/// A database on `disk`, under a simulator of its own.
pub(crate) fn open(
    disk: &MemVfs,
    dir: &Path,
    options: &Options,
    seed: u64,
) -> Result<(Simulator, Db), String> {
    let simulator = Simulator::new(seed);
    let builder = Db::builder(dir).options(options.clone());
    let builder = builder.vfs(shared(disk)).runtime(simulator.handle());
    match simulator.run(builder.open()) {
        Ok(db) => Ok((simulator, db)),
        Err(error) => Err(format!("does not open: {error:?}")),
    }
}

/// What a read-only open shows, after `verify` has found the directory to be sound. `None` if there
/// is no database yet.
fn shown(disk: &MemVfs, dir: &Path, options: &Options, seed: u64) -> Result<Option<Map>, String> {
    if disk.len(&dir.join("CURRENT")).is_err() {
        return Ok(None);
    }
    let before = disk.operations();
    let summary = verify_directory(&shared(disk), dir, &mut |_, _| {}).unwrap();
    if !summary.is_sound() {
        return Err(format!("verify finds {:?}", summary.findings));
    }
    let simulator = Simulator::new(seed);
    let options = Options { read_only_log_bytes_max: Some(1 << 30), ..options.clone() };
    let builder = ReadOnlyDb::builder(dir).options(options);
    let builder = builder.vfs(shared(disk)).runtime(simulator.handle());
    let db = simulator.run(builder.open_read_only());
    let db = db.map_err(|error| format!("does not open for reading: {error:?}"))?;
    let found = simulator.run(async {
        let mut whole: Map = collect(db.scan(..)).await?.into_iter().collect();
        for name in db.keyspaces().iter().filter(|name| *name != "default") {
            let other = db.keyspace(name).expect("it is there");
            whole.extend(collect(other.scan(..)).await?);
        }
        Ok::<_, sluicedb::Error>(whole)
    });
    simulator.kill();
    assert_eq!(disk.operations(), before, "readers change nothing");
    found.map(Some).map_err(|error| format!("cannot be read: {error:?}"))
}

pub(crate) fn look(simulator: &Simulator, db: &Db) -> Result<Map, String> {
    simulator.run(whole(db)).map_err(|error| format!("cannot be read: {error:?}"))
}

/// The process dies: none of its threads runs any more.
fn die(simulator: &Simulator, db: Db) {
    simulator.kill();
    drop(db);
}

fn crashed(image: &Image, crash: Crash) -> (MemVfs, usize) {
    match crash {
        Crash::Killed => (image.disk.kill_clone(), image.promises.buffered),
        Crash::PowerCut(kind) => (image.disk.crash_clone(kind), image.promises.synced),
    }
}

/// Everything that has to hold after one crash.
fn check(
    recording: &Recording,
    image: &Image,
    crash: Crash,
    seed: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let Recording { contents, dir, options, .. } = recording;
    let mut chance = Chance::new(seed);
    let (disk, least) = crashed(image, crash);
    let most = image.promises.submitted;
    tally.states += 1;
    if let Some(what) = image.doing {
        *tally.during.entry(what).or_default() += 1;
    }

    let shown = if seed.is_multiple_of(4) { shown(&disk, dir, options, seed)? } else { None };
    tally.shown += u64::from(shown.is_some());
    let nested =
        chance.one_in(nested_every()).then(|| disk.record_images(chance.between(1, 3) as u64));
    let (simulator, db) = open(&disk, dir, options, chance.next())?;
    disk.clear_hook();
    let found = look(&simulator, &db)?;
    if let Some(shown) = shown {
        same("a read-only open before it", &shown, &found)?;
    }
    let count = judge(contents, &found, least, most)?;
    let stats = db.stats();
    tally.edits += u64::from(image.operation.contains("MANIFEST"));
    let power_cut = matches!(crash, Crash::PowerCut(_));
    tally.shared_syncs += u64::from(power_cut && image.unsynced_edits > 1);
    tally.landed += u64::from(stats.landing_tables > 0);
    tally.torn += u64::from(stats.recovered_torn_bytes > 0);
    tally.replayed += u64::from(stats.recovered_entries > 0);
    tally.partial += u64::from(least < count && count < most);
    tally.whole += u64::from(count == most);

    match chance.below(4) {
        0 => {
            // The recovered content survives a power cut at once.
            die(&simulator, db);
            let again = disk.crash_clone(CrashKind::DropUnsynced);
            let (simulator, db) = open(&again, dir, options, chance.next())?;
            same("a second crash", &found, &look(&simulator, &db)?)?;
            die(&simulator, db);
        }
        1 => {
            // Writes work again, and survive the next crash.
            let mut expected = found.clone();
            expected.insert(b"after".to_vec(), b"the crash".to_vec());
            let options_synced = WriteOptions::durability(Durability::Synced);
            simulator
                .run(db.put_with("after", "the crash", options_synced))
                .map_err(|error| format!("cannot be written: {error:?}"))?;
            die(&simulator, db);
            let again = disk.crash_clone(CrashKind::Mixed(chance.next()));
            let (simulator, db) = open(&again, dir, options, chance.next())?;
            same("writing and a second crash", &expected, &look(&simulator, &db)?)?;
            die(&simulator, db);
        }
        2 => {
            let closed = simulator.run(db.close());
            closed.map_err(|error| format!("cannot be closed: {error:?}"))?;
            die(&simulator, db);
            let (simulator, db) = open(&disk, dir, options, chance.next())?;
            same("close and open", &found, &look(&simulator, &db)?)?;
            if db.stats().recovered_entries > 0 {
                return Err("a clean close left log entries behind".to_owned());
            }
            die(&simulator, db);
        }
        _ => die(&simulator, db),
    }

    // A crash in the recovery itself, in the recovery from that, and in the one from that.
    let state = State { recording, image, most };
    for interrupted in nested.map(|images| images.take()).unwrap_or_default() {
        let killed = matches!(crash, Crash::Killed);
        again(&state, &interrupted, (killed, least), 1, &mut chance, tally)?;
    }
    Ok(())
}

/// The recovery is interrupted too in one of this many states; 1 means in all of them.
fn nested_every() -> usize {
    std::env::var("SLUICE_NESTED_EVERY").map_or(48, |every| every.parse().unwrap())
}

/// The constants of a chain of interrupted recoveries.
struct State<'a> {
    recording: &'a Recording,
    image: &'a Image,
    most: usize,
}

/// Checks the disk of an interrupted recovery, `level` crashes after the first: it opens, and so
/// does the disk of a further interruption. `killed` as long as no crash was a power cut.
fn again(
    state: &State<'_>,
    (operation, during): &(DiskOperation, MemVfs),
    (killed, least): (bool, usize),
    level: u32,
    chance: &mut Chance,
    tally: &mut Tally,
) -> Result<(), String> {
    let Recording { contents, dir, options, .. } = state.recording;
    tally.nested[level as usize - 1] += 1;
    let kind = chance.pick(&CrashKind::each(chance.clone().next()));
    // Killed twice: everything written is still there.
    let (killed, least, disk) = if killed && chance.one_in(2) {
        (true, least, during.kill_clone())
    } else {
        let least = if killed { state.image.promises.synced } else { least };
        (false, least, during.crash_clone(kind))
    };
    let context = |what: String| {
        format!("{what}; crash {level} in recovery ({kind:?}, {killed}) before {operation:?}")
    };
    let deeper = (level < 3).then(|| disk.record_images(chance.between(1, 3) as u64));
    let (simulator, db) = open(&disk, dir, options, chance.next()).map_err(context)?;
    disk.clear_hook();
    let found = look(&simulator, &db).map_err(context)?;
    judge(contents, &found, least, state.most).map_err(context)?;
    die(&simulator, db);
    let images = deeper.map(|images| images.take()).unwrap_or_default();
    if images.is_empty() {
        return Ok(());
    }
    let next = &images[chance.below(images.len())];
    again(state, next, (killed, least), level + 1, chance, tally).map_err(context)
}

fn same(after: &str, want: &Map, got: &Map) -> Result<(), String> {
    match difference(want, got) {
        None => Ok(()),
        Some(what) => Err(format!("{after} changed what is there (mark {}): {what}", mark(got))),
    }
}

fn sweep(recording: &Recording, seed: u64, crashes: usize, tally: &mut Tally) {
    let mut chance = Chance::new(seed);
    for (index, image) in recording.images.iter().enumerate() {
        let mut all = vec![Crash::Killed];
        all.extend(CrashKind::each(chance.next()).map(Crash::PowerCut));
        // A different choice at each image, so that a sweep meets all of them everywhere.
        let first = chance.below(all.len());
        for step in 0..crashes.min(all.len()) {
            let crash = all[(first + step) % all.len()];
            let result = check(recording, image, crash, chance.next(), tally);
            if let Err(what) = result {
                panic!(
                    "image {index} of {}, {crash:?} before {}, promises {:?}: {what}",
                    recording.images.len(),
                    image.operation,
                    image.promises
                );
            }
        }
    }
}

#[test]
fn every_power_cut_leaves_a_prefix_with_all_that_was_promised() {
    let mut tally = Tally::default();
    for seed in seeds(1000, 24) {
        let _replay = Replay {
            binary: "sim",
            test: "every_power_cut_leaves_a_prefix_with_all_that_was_promised",
            seed,
        };
        let mut chance = Chance::new(seed);
        let mut options = settings::drawn(&mut chance);
        let heavy = seed % 3 == 0;
        if heavy {
            // So that several log segments are needed at once.
            options.memtable_bytes = Some(chance.pick(&[16 << 10, 128 << 10, 256 << 10]));
        }
        let steps = steps(&mut chance, 60, heavy);
        let every = chance.between(3, 7) as u64;
        let recording = record(seed, &steps, options, every, &mut tally);
        sweep(&recording, seed, 2, &mut tally);
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        assert!(tally.states >= 3_000 && tally.shown >= 500, "{tally:?}");
        assert!(tally.nested.iter().all(|count| *count >= 300), "{tally:?}");
        assert!(tally.torn >= 50 && tally.replayed >= 500 && tally.partial >= 100, "{tally:?}");
        assert!(tally.work.drops >= 3, "{tally:?}");
        assert!(tally.shared_syncs >= 40, "{tally:?}");
        // Landings have their own sweep.
        tally.work.demand(2);
        let all = ["split", "merge", "delete", "ingest", "replace", "checkpoint"];
        tally.demand_during(&all, 10);
        let kinds = [
            OperationKind::Create,
            OperationKind::Rename,
            OperationKind::Remove,
            OperationKind::SyncDir,
            OperationKind::Write,
            OperationKind::Sync,
            OperationKind::Allocate,
            OperationKind::Store,
        ];
        for kind in kinds {
            assert!(
                tally.per_kind.get(&kind).is_some_and(|count| *count >= 20),
                "{kind:?}: {tally:?}"
            );
        }
    }
}

/// Goal: whatever is changing a landing, a crash before any write to the manifest leaves it as it
/// was before or after. That holds also for edits that share a sync.
///
/// Planted: an edit claims that those before it are durable; edits that are never synced.
#[test]
fn t000_12_a_crash_at_any_edit_of_a_landing_finds_it_before_or_after() {
    let mut tally = Tally::default();
    for seed in seeds(12_000, 8) {
        let test = "t000_12_a_crash_at_any_edit_of_a_landing_finds_it_before_or_after";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let options = settings::landings(&mut chance);
        let steps = steps(&mut chance, 120, false);
        let is_edit = |operation: &DiskOperation, _: &History| {
            operation.path.to_string_lossy().contains("MANIFEST")
        };
        let recording = record_at(seed, &steps, options, &mut tally, is_edit);
        sweep(&recording, seed, 2, &mut tally);
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        tally.work.demand(20);
        assert!(tally.edits >= 1_000 && tally.landed >= 500, "{tally:?}");
        assert!(tally.shared_syncs >= 200, "{tally:?}");
    }
}

/// Goal: a crash at any disk operation while three spans are replaced leaves all of the old or all
/// of the new in all of them. Meanwhile a range is split in one of them, memory is flushed and
/// tables are compacted.
///
/// Planted: spans that are prepared one after the other; masks that the manifest does not keep.
#[test]
fn t004_13_x_04_a_crash_at_any_operation_of_a_replacement_leaves_one_generation() {
    let mut tally = Tally::default();
    for seed in seeds(40_700, 6) {
        let test = "t004_13_x_04_a_crash_at_any_operation_of_a_replacement_leaves_one_generation";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::drawn(&mut chance);
        options.initial_split_keys = vec![b"m".to_vec()];
        let steps = replacements(&mut chance, 4);
        let replacing = |_: &DiskOperation, history: &History| {
            matches!(history.doing(), Some("replace" | "delete"))
        };
        let recording = record_at(seed, &steps, options, &mut tally, replacing);
        sweep(&recording, seed, 2, &mut tally);
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        assert!(tally.states >= 1000, "{tally:?}");
        tally.demand_during(&["replace", "delete"], 100);
        assert!(tally.whole >= 100 && tally.states - tally.whole >= 100, "{tally:?}");
    }
}

/// Several ranges are written at once, and flushed at different times, also because they pin the
/// log, which is freed a segment at a time. Whenever the crash happens, nothing is missing that a
/// range had not flushed.
#[test]
fn t002_08_the_log_goes_only_when_every_range_is_newer() {
    let mut tally = Tally::default();
    for seed in seeds(8_000, 10) {
        let test = "t002_08_the_log_goes_only_when_every_range_is_newer";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::drawn(&mut chance);
        options.initial_split_keys =
            [&b"cold/0700"[..], b"cold/1400", b"hot/", b"p"].map(<[u8]>::to_vec).into();
        options.log_retained_bytes_max = Some(128 << 10);
        options.write_buffer_bytes = Some(2 << 20);
        options.memtable_bytes = Some(chance.pick(&[64 << 10, 512 << 10]));
        let steps = steps(&mut chance, 120, true);
        // A step that flushes everything would hide what one range pins.
        let hides = |step: &Step| matches!(step, Step::Flush | Step::Compact | Step::Reopen { .. });
        let steps: Vec<_> = steps.into_iter().filter(|step| !hides(step)).collect();
        let recording = record(seed, &steps, options, 17, &mut tally);
        sweep(&recording, seed, 2, &mut tally);
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        assert!(tally.log_seals >= 10, "{tally:?}");
        assert!(tally.states >= 500 && tally.replayed >= 300, "{tally:?}");
    }
}

/// While nobody asks for a sync the log leaves segment after segment without one, and gives them up
/// when their entries are in tables. Then somebody does ask, and later nobody does again. Whatever
/// part of the unsynced pages a power cut leaves, also in files that were recycled with them, the
/// database opens with a prefix, and with all that was promised.
///
/// Planted: the floor demands its beginning.
#[test]
fn a1_a_crash_while_syncs_are_put_off_leaves_a_prefix() {
    use crate::kit::oracle::Change::Put;
    let mut tally = Tally::default();
    for seed in seeds(15_000, 12) {
        let test = "a1_a_crash_while_syncs_are_put_off_leaves_a_prefix";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::tiny();
        options.memtable_bytes = Some(chance.pick(&[32 << 10, 64 << 10, 128 << 10]));
        options.log_segment_bytes = chance.pick(&[64 << 10, 64 << 10, 128 << 10]);
        options.log_mapped = !chance.one_in(4);
        options.table_bytes_max = 128 << 10;
        let mut steps = Vec::new();
        for number in 0..160_u32 {
            let key = format!("key{:02}", chance.below(40)).into_bytes();
            let mut value = number.to_be_bytes().to_vec();
            value.resize(chance.between(500, 9_000), number as u8);
            let is_synced = chance.one_in(50);
            let durability = if is_synced { Durability::Synced } else { Durability::Buffered };
            steps.push(Step::Write(vec![Put(key, value)], durability));
            match chance.below(60) {
                0 => steps.push(Step::Flush),
                1 => steps.push(Step::Sync),
                2 => steps.push(Step::Rest),
                3 => steps.push(Step::Reopen { close: chance.one_in(2) }),
                _ => {}
            }
        }
        let recording = record(seed, &steps, options, 17, &mut tally);
        sweep(&recording, seed, 4, &mut tally);
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        assert!(tally.given_up_bytes >= 1 << 20, "{tally:?}");
        assert!(tally.states >= 500 && tally.replayed >= 200 && tally.torn >= 50, "{tally:?}");
    }
}

/// The creation of a database, and each of its protocols alone: every operation, every crash.
#[test]
fn t003_07_every_operation_of_each_protocol_may_be_the_last_one() {
    use crate::kit::oracle::Change::{Delete, Put};
    let put = |n: usize, level| {
        let value = vec![b'v'; 40 + n];
        Step::Write(vec![Put(format!("key{n:03}").into_bytes(), value)], level)
    };
    let (buffered, synced) = (Durability::Buffered, Durability::Synced);
    let fill = |count| (0..count).map(move |n| put(n, if n % 3 == 0 { synced } else { buffered }));
    let mut protocols: Vec<(&str, Vec<Step>)> = vec![
        ("create", vec![]),
        ("commit", fill(4).collect()),
        ("flush", fill(6).chain([Step::Flush, put(7, buffered)]).collect()),
        ("close", fill(5).chain([Step::Reopen { close: true }, put(8, synced)]).collect()),
        ("drop", fill(5).chain([Step::Reopen { close: false }, put(8, synced)]).collect()),
    ];
    let mut compact: Vec<Step> = Vec::new();
    for round in 0..3 {
        compact.extend(fill(4 + round));
        compact.push(Step::Write(vec![Delete(b"key001".to_vec())], buffered));
        compact.push(Step::Flush);
    }
    compact.extend([Step::Compact, put(9, synced), Step::Rest]);
    protocols.push(("compact", compact));
    // Enough to leave the first log segment, and the second.
    let large = |n: usize| {
        let level = if n.is_multiple_of(4) { synced } else { buffered };
        Step::Write(vec![Put(format!("large{n}").into_bytes(), vec![n as u8; 9_000])], level)
    };
    protocols.push(("rotate", (0..16).map(large).collect()));

    let mut tally = Tally::default();
    for (name, steps) in &protocols {
        for mapped in [true, false] {
            let mut options = settings::tiny();
            options.log_mapped = mapped;
            let dense = *name != "rotate" && *name != "compact";
            let recording = record(7, steps, options, if dense { 1 } else { 3 }, &mut tally);
            eprintln!("{name}, mapped {mapped}: {} images", recording.images.len());
            sweep(&recording, 7, if dense { 9 } else { 4 }, &mut tally);
        }
    }
    eprintln!("{tally:?}");
}
