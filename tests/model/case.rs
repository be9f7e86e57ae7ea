//! One history on one database: every answer is compared with the model's.
//!
//! The model is an ordered map, a copy of it per snapshot and iterator, and the batches since the
//! last reopen, which say what a power cut may leave. Keys in it begin with their keyspace. A key
//! with nothing after that prefix says that the keyspace exists.

mod step;

use crate::kit::chance::Chance;
use crate::kit::disk::{collect, content, fresh_dir, shared};
use crate::kit::oracle::{self, Change, Entries, Map, Shown, difference};
use crate::kit::simulator::Simulator;
use crate::operation::{Operation, ScanOf};
use crate::tally::{Event, Tally};
use futures::StreamExt;
use sluicedb::{
    Db, Durability, Error, IngestPlan, OnEmpty, Options, Scan, Snapshot, WriteBatch, WriteOptions,
};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::vfs::{CrashKind, MemVfs, Vfs};
use std::future::Future;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a case runs.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub options: Options,
    /// The engine's own threads instead of the simulator's order.
    pub threads: bool,
    pub cold_reads: bool,
    pub can_map: bool,
}

impl Setup {
    pub fn drawn(seed: u64, chance: &mut Chance) -> Self {
        Self {
            seed,
            options: crate::kit::settings::drawn(chance),
            threads: chance.one_in(8),
            cold_reads: chance.one_in(3),
            can_map: !chance.one_in(4),
        }
    }
}

/// Answers in the order of the history, to compare runs.
pub type Answers = Vec<String>;

/// Runs the history. The text of an error names the operation and the difference.
pub fn run(setup: &Setup, history: &[Operation]) -> Result<(Tally, Answers), String> {
    let mut case = Case::open(setup)?;
    for (index, operation) in history.iter().enumerate() {
        let done = case.step(operation);
        done.map_err(|what| format!("operation {index}, {operation:?}: {what}"))?;
    }
    case.finish().map_err(|what| format!("at the end: {what}"))
}

struct Case<'a> {
    setup: &'a Setup,
    chance: Chance,
    disk: MemVfs,
    dir: PathBuf,
    simulator: Simulator,
    /// A handle of each keyspace that exists, and which of them is in use.
    handles: [Option<Db>; KEYSPACES],
    at: usize,
    /// How often each keyspace was created.
    made: [u64; KEYSPACES],
    opened: u64,
    has_copy: bool,
    model: Map,
    /// The changes of each batch since the last reopen.
    since_open: Vec<Vec<Change>>,
    at_open: Map,
    /// This many batches of `since_open` survive a power cut.
    synced: usize,
    snapshots: Vec<Taken>,
    iterators: Vec<(Iterating, u64)>,
    tally: Tally,
    answers: Answers,
    manifest: Option<String>,
}

const KEYSPACES: usize = 3;

/// A snapshot, and the content that it must show.
#[derive(Clone)]
struct Taken {
    snapshot: Snapshot,
    model: Map,
    at: usize,
    made: [u64; KEYSPACES],
    opened: u64,
    compactions: u64,
}

/// A key with the prefix that the model uses.
fn tagged(at: usize, key: &[u8]) -> Vec<u8> {
    [&[at as u8], key].concat()
}

/// The model's content of one keyspace.
fn part(model: &Map, at: usize) -> Map {
    let theirs = model.iter().filter(|(key, _)| key[0] == at as u8 && key.len() > 1);
    theirs.map(|(key, value)| (key[1..].to_vec(), value.clone())).collect()
}

fn name(at: usize) -> String {
    if at == 0 { "default".to_owned() } else { format!("keyspace {at}") }
}

/// The same changes with the model's keys.
fn all_tagged(at: usize, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
    let tag = |change| match change {
        Change::Put(key, value) => Change::Put(tagged(at, &key), value),
        Change::Delete(key) => Change::Delete(tagged(at, &key)),
    };
    changes.into_iter().map(tag).collect()
}

struct Iterating {
    scan: Scan,
    rest: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    in_batches: bool,
}

fn text(error: Error) -> String {
    format!("failed: {error:?}")
}

impl<'a> Case<'a> {
    fn open(setup: &'a Setup) -> Result<Self, String> {
        let disk = MemVfs::new();
        disk.set_cold_reads(setup.cold_reads);
        disk.set_can_map(setup.can_map);
        let mut case = Self {
            setup,
            chance: Chance::new(setup.seed),
            disk,
            dir: fresh_dir(),
            simulator: Simulator::new(setup.seed),
            handles: Default::default(),
            at: 0,
            made: [0; KEYSPACES],
            opened: 0,
            has_copy: false,
            model: Map::from([(tagged(0, b""), Vec::new())]),
            since_open: Vec::new(),
            at_open: Map::new(),
            synced: 0,
            snapshots: Vec::new(),
            iterators: Vec::new(),
            tally: Tally::default(),
            answers: Vec::new(),
            manifest: None,
        };
        case.reopen()?;
        Ok(case)
    }

    /// Runs a future: the engine's threads, or the simulator's tasks, go on meanwhile.
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        if self.setup.threads {
            futures::executor::block_on(future)
        } else {
            self.simulator.run(future)
        }
    }

    fn db(&self) -> &Db {
        self.handles[self.at].as_ref().expect("open between steps")
    }

    /// The database's content of all keyspaces, with the model's keys.
    fn whole(&self) -> Result<Map, String> {
        let mut whole = Map::new();
        for (at, handle) in self.handles.iter().enumerate() {
            let Some(db) = handle else { continue };
            whole.insert(tagged(at, b""), Vec::new());
            let theirs = self.wait(content(db)).map_err(text)?;
            whole.extend(theirs.into_iter().map(|(key, value)| (tagged(at, &key), value)));
        }
        Ok(whole)
    }

    /// A snapshot seen from the keyspace in use, and the content that it must show. A snapshot from
    /// before the last open is seen from the keyspace where it was taken.
    fn look(&self, taken: &Taken) -> Result<(Snapshot, Map), String> {
        let Taken { snapshot, model, at, made, opened, .. } = taken;
        if *opened != self.opened {
            return Ok((snapshot.clone(), part(model, *at)));
        }
        let seen = snapshot.of(self.db()).map_err(text)?;
        // A keyspace that was created later shows nothing of an earlier one with its name.
        let is_it = made[self.at] == self.made[self.at];
        Ok((seen, if is_it { part(model, self.at) } else { Map::new() }))
    }

    /// The content that the keyspace in use must have.
    fn mine(&self) -> Map {
        part(&self.model, self.at)
    }

    fn reopen(&mut self) -> Result<(), String> {
        let mut builder = Db::builder(&self.dir).options(self.setup.options.clone());
        builder = builder.vfs(shared(&self.disk));
        if !self.setup.threads {
            builder = builder.runtime(self.simulator.handle());
        }
        let db = self.wait(builder.open()).map_err(text)?;
        let stats = db.stats();
        if stats.recovered_entries > 0 {
            self.tally.add(Event::ReplayingReopen, 1);
        } else if self.manifest.is_some() {
            self.tally.add(Event::CleanReopen, 1);
        }
        if stats.recovered_torn_bytes > 0 {
            self.tally.add(Event::TornReopen, 1);
        }
        (self.handles, self.at) = (Default::default(), 0);
        let names = db.keyspaces();
        for at in (1..KEYSPACES).filter(|at| names.contains(&name(*at))) {
            self.made[at] += 1;
            self.handles[at] = Some(self.wait(db.keyspace(name(at))).map_err(text)?);
        }
        self.handles[0] = Some(db);
        self.opened += 1;
        let landed = self.db().stats().landing_tables > 0;
        self.tally.add(Event::LandedReopen, u64::from(landed));
        let manifest = self.manifest_name();
        self.tally.add(Event::NewManifest, u64::from(manifest != self.manifest));
        self.manifest = manifest;
        self.since_open.clear();
        self.at_open = self.model.clone();
        self.synced = 0;
        Ok(())
    }

    fn files(&self) -> Vec<String> {
        self.disk.list(&self.dir).unwrap_or_default()
    }

    fn manifest_name(&self) -> Option<String> {
        self.files().into_iter().filter(|name| name.starts_with("MANIFEST")).max()
    }

    /// Counts what this incarnation has exercised.
    fn take_stock(&mut self) {
        let stats = self.db().stats();
        let levels = self.db().level_info();
        let deepest = levels.iter().filter(|info| info.tables > 0).map(|info| info.level).max();
        let mut add = |event, times| self.tally.add(event, times);
        add(Event::Flush, stats.flushes);
        add(Event::Compaction, stats.compactions);
        add(Event::TrivialMove, stats.trivial_moves);
        add(Event::TableDeleted, stats.tables_deleted);
        let full = levels.iter().filter(|info| info.tables > 0).map(|info| info.range);
        let full = full.collect::<std::collections::BTreeSet<_>>().len();
        add(Event::ManyRanges, u64::from(full > 1));
        add(Event::LevelOne, u64::from(deepest >= Some(1)));
        add(Event::LevelTwo, u64::from(deepest >= Some(2)));
        let rotations = stats.log_bytes / self.setup.options.log_segment_bytes;
        add(Event::LogRotation, rotations);
        add(Event::LogRecycledOrRemoved, u64::from(rotations >= stats.log_segments));
        add(Event::ColdRead, stats.cold_reads);
        add(Event::CacheHit, stats.cache_hits);
        add(Event::ChangeReplayed, stats.recovered_changes);
        add(Event::WaitForRoom, stats.waits_local + stats.waits_global);
        let splits = [stats.splits_bytes, stats.splits_entries, stats.splits_heat];
        add(Event::SplitByItself, splits.iter().sum());
        add(Event::SplitForHeat, stats.splits_heat);
        add(Event::MergeByItself, stats.merges_cold);
        add(Event::Land, stats.tables_landed);
        add(Event::Keep, stats.keeps.runs);
        add(Event::Drain, stats.drains.runs);
        let reshards = stats.decisions.iter().filter(|decision| decision.choice == "reshard");
        add(Event::Reshard, reshards.count() as u64);
    }

    /// At the end: the files on disk verify, and one more reopen shows the same.
    fn finish(mut self) -> Result<(Tally, Answers), String> {
        self.iterators.clear();
        self.snapshots.clear();
        self.compare_content()?;
        self.take_stock();
        self.check_levels()?;
        self.wait(self.db().close()).map_err(text)?;
        self.handles = Default::default();
        let vfs = shared(&self.disk);
        let report = sluicedb_storage::verify::verify_directory(&vfs, &self.dir, &mut |_, _| {})
            .map_err(|error| format!("verify failed: {error}"))?;
        if !report.is_sound() {
            return Err(format!("verify: {report:?}"));
        }
        self.reopen()?;
        self.compare_content()?;
        self.wait(self.db().close()).map_err(text)?;
        Ok((self.tally, self.answers))
    }

    fn check_levels(&self) -> Result<(), String> {
        let (stats, levels) = (self.db().stats(), self.db().level_info());
        let tables: u64 = levels.iter().map(|info| info.tables).sum();
        // With threads the two are not read at the same instant.
        if !self.setup.threads && tables != stats.tables {
            return Err(format!("{tables} tables in levels, {} in stats", stats.tables));
        }
        Ok(())
    }

    fn compare_content(&mut self) -> Result<(), String> {
        difference(&self.model, &self.whole()?).map_or(Ok(()), Err)
    }

    fn applied(&mut self, changes: Vec<Change>, durability: Durability) {
        self.applied_to_all(all_tagged(self.at, changes), durability);
    }

    /// Applies changes whose keys are the model's.
    fn applied_to_all(&mut self, changes: Vec<Change>, durability: Durability) {
        oracle::apply(&mut self.model, &changes);
        self.since_open.push(changes);
        if durability == Durability::Synced {
            self.synced = self.since_open.len();
        }
    }

    /// Writes a table outside the database with the outcome of `changes` between two keys, and
    /// returns that outcome.
    fn outside(
        &mut self,
        changes: &[Change],
        within: Option<(&[u8], &[u8])>,
    ) -> Result<(PathBuf, Vec<Change>), String> {
        let inside = |key: &[u8]| within.is_none_or(|(lo, hi)| lo <= key && key < hi);
        let mut last: Vec<_> = oracle::last_of_each(changes);
        last.retain(|change| inside(change.key()));
        let dir = PathBuf::from("/outside");
        let number = self.answers.len() + self.chance.below(1 << 30);
        let (path, id) = (dir.join(format!("{number}.table")), (number as u64).to_le_bytes());
        let vfs: Arc<dyn Vfs> = shared(&self.disk);
        let write = || {
            vfs.create_dir_all(&dir).map_err(|error| error.to_string())?;
            let writer = ExternalWriter::create(&vfs, &path, id, TableOptions::default());
            let mut writer = writer.map_err(|error| error.to_string())?;
            for change in &last {
                let (kind, value) = match change {
                    Change::Put(_, value) => (Kind::Put, &value[..]),
                    Change::Delete(_) => (Kind::Delete, &[][..]),
                };
                writer.add(change.key(), kind, value).map_err(|error| error.to_string())?;
            }
            writer.finish().map(drop).map_err(|error| error.to_string())
        };
        if !last.is_empty() {
            write()?;
        }
        Ok((path, last))
    }

    /// Replaces the model's content between two keys by the outcome of `changes`.
    fn replaced(&mut self, lo: &[u8], hi: &[u8], changes: Vec<Change>, durability: Durability) {
        let inside = |key: &&Vec<u8>| lo <= &key[..] && &key[..] < hi;
        let mine = self.mine();
        let gone = mine.keys().filter(inside).cloned().map(Change::Delete);
        let all = gone.chain(changes).collect();
        self.applied(all, durability);
    }

    /// Cuts the power. The disk that is left must open, and hold the batches up to some point.
    fn power_cut(&mut self, seed: u64) -> Result<(), String> {
        self.take_stock();
        self.tally.add(Event::PowerCut, 1);
        self.snapshots.clear();
        self.iterators.clear();
        let kind = Chance::new(seed).pick(&CrashKind::each(seed));
        // With real threads the engine is still at work when the image is taken, as in life.
        let disk = self.disk.crash_clone(kind);
        self.simulator.kill();
        self.handles = Default::default();
        self.simulator = Simulator::new(self.chance.next());
        self.disk = disk;
        self.disk.set_cold_reads(self.setup.cold_reads);
        self.disk.set_can_map(self.setup.can_map);

        let (mut left, batches) = (self.at_open.clone(), std::mem::take(&mut self.since_open));
        let synced = self.synced;
        self.reopen()?;
        let found = self.whole()?;
        let mut why = String::new();
        for count in 0..=batches.len() {
            if count > 0 {
                oracle::apply(&mut left, &batches[count - 1]);
            }
            if count < synced {
                continue;
            }
            match difference(&left, &found) {
                None => {
                    self.model = left;
                    self.at_open = self.model.clone();
                    return Ok(());
                }
                Some(what) => why = what,
            }
        }
        Err(format!(
            "after {kind:?}: not the first {synced}..={} batches since the last open; {why}",
            batches.len()
        ))
    }
}
