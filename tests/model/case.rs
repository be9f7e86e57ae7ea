//! One history on one database: every answer is compared with the model's.
//!
//! The model is an ordered map, a copy of it per snapshot and iterator, and the batches since the
//! last reopen, which say what a power cut may leave. Keys in it begin with their keyspace. A key
//! with nothing after that prefix says that the keyspace exists.
//!
//! Long because every operation of a history has its arm, with its check beside it.

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
    chunked: bool,
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

    fn step(&mut self, operation: &Operation) -> Result<(), String> {
        use Operation as Op;
        let default = self.setup.options.durability;
        match operation {
            Op::Put(key, value) => {
                self.wait(self.db().put(key, value)).map_err(text)?;
                self.applied(vec![Change::Put(key.clone(), value.clone())], default);
            }
            Op::Delete(key) => {
                self.wait(self.db().delete(key)).map_err(text)?;
                self.applied(vec![Change::Delete(key.clone())], default);
            }
            Op::Batch(changes, durability) => {
                let options = WriteOptions::durability(*durability);
                let batch = oracle::batch(changes);
                self.wait(self.db().write_with(batch, options)).map_err(text)?;
                self.applied(changes.clone(), *durability);
            }
            Op::Pipeline(batches) => {
                let mut tickets = Vec::new();
                for changes in batches {
                    let batch = oracle::batch(changes);
                    tickets.push(self.wait(self.db().submit(batch)).map_err(text)?);
                }
                let mut last = 0;
                for (changes, ticket) in batches.iter().zip(tickets) {
                    let seqno = self.wait(ticket).map_err(text)?;
                    let next = last + changes.len() as u64;
                    // A change of the routes takes a sequence number.
                    let exact = self.setup.options.effective_ranges_max() == 1;
                    if last != 0 && (seqno < next || exact && seqno != next) {
                        return Err(format!("sequence number {seqno} after {last}"));
                    }
                    last = seqno;
                    self.applied(changes.clone(), default);
                }
            }
            Op::Forget(changes) => {
                let batch = oracle::batch(changes);
                let ticket = self.wait(self.db().submit(batch)).map_err(text)?;
                drop(ticket);
                // The next write follows it: when that one is visible, so is this.
                let fence = oracle::batch(&[Change::Delete(b"fence".to_vec())]);
                self.wait(self.db().write(fence)).map_err(text)?;
                self.applied(changes.clone(), Durability::Buffered);
                self.applied(vec![Change::Delete(b"fence".to_vec())], default);
            }
            Op::Get(key) => {
                let found = self.wait(self.db().get(key)).map_err(text)?;
                same_value(key, self.model.get(&tagged(self.at, key)), found.as_deref())?;
                self.answers.push(format!("{:?}", found.as_deref().map(Shown)));
            }
            Op::Contains(key) => {
                let found = self.wait(self.db().contains_key(key)).map_err(text)?;
                if found != self.model.contains_key(&tagged(self.at, key)) {
                    return Err(format!("contains_key says {found}"));
                }
            }
            Op::MultiGet(keys) => {
                let found = self.wait(self.db().multi_get(keys)).map_err(text)?;
                if found.len() != keys.len() {
                    return Err(format!("{} answers", found.len()));
                }
                for (key, value) in keys.iter().zip(&found) {
                    same_value(key, self.model.get(&tagged(self.at, key)), value.as_deref())?;
                }
            }
            Op::Scan(how) => {
                let scan = start(how, |range| self.db().scan(range), |p| self.db().scan_prefix(p));
                let wanted = wanted(&self.mine(), how);
                let found = self.take_all(scan, how.chunked)?;
                same_entries(&wanted, &found)?;
                self.answers.push(format!("{} entries", found.len()));
            }
            Op::Content => self.compare_content()?,
            Op::SnapshotOpen => {
                if self.snapshots.len() < 4 {
                    let snapshot = self.db().snapshot();
                    let compactions = self.db().stats().compactions;
                    let (model, at) = (self.model.clone(), self.at);
                    let (made, opened) = (self.made, self.opened);
                    self.snapshots.push(Taken { snapshot, model, at, made, opened, compactions });
                }
            }
            Op::SnapshotGet(which, key) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                let taken = &self.snapshots[which];
                let (snapshot, model) = self.look(taken)?;
                let found = self.wait(snapshot.get(key)).map_err(text)?;
                same_value(key, model.get(key), found.as_deref())?;
                if self.db().stats().compactions > taken.compactions {
                    self.tally.add(Event::SnapshotAcrossCompaction, 1);
                }
            }
            Op::SnapshotScan(which, how) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                let (snapshot, model) = self.look(&self.snapshots[which])?;
                let scan = start(how, |range| snapshot.scan(range), |p| snapshot.scan_prefix(p));
                same_entries(&wanted(&model, how), &self.take_all(scan, how.chunked)?)?;
            }
            Op::SnapshotDrop(which) => {
                if let Some(which) = which.checked_rem(self.snapshots.len()) {
                    self.snapshots.remove(which);
                }
            }
            Op::IteratorOpen(how) => {
                if self.iterators.len() < 4 {
                    let scan =
                        start(how, |range| self.db().scan(range), |p| self.db().scan_prefix(p));
                    let rest = wanted(&self.mine(), how).into_iter();
                    let flushes = self.db().stats().flushes;
                    let iterating = Iterating { scan, rest, chunked: how.chunked };
                    self.iterators.push((iterating, flushes));
                }
            }
            Op::IteratorStep(which, entries) => {
                let Some(which) = which.checked_rem(self.iterators.len()) else { return Ok(()) };
                let (mut iterating, flushes) = self.iterators.swap_remove(which);
                self.step_iterator(&mut iterating, *entries)?;
                if self.db().stats().flushes > flushes {
                    self.tally.add(Event::IteratorAcrossFlush, 1);
                }
                self.iterators.push((iterating, flushes));
            }
            Op::IteratorDrop(which) => {
                if let Some(which) = which.checked_rem(self.iterators.len()) {
                    self.iterators.remove(which);
                }
            }
            Op::Split(at) => {
                // Earlier writes are synced with it.
                if self.wait(self.db().split_at(at)).map_err(text)? {
                    self.tally.add(Event::Split, 1);
                    self.synced = self.since_open.len();
                }
            }
            Op::Merge(from) => {
                let at = self.db().ranges().into_iter().find(|range| range.start > *from);
                let Some(at) = at else { return Ok(()) };
                if self.wait(self.db().merge_at(at.start)).map_err(text)? {
                    self.tally.add(Event::Merge, 1);
                }
                self.synced = self.since_open.len();
            }
            Op::DeleteRange(lo, hi) => {
                self.wait(self.db().delete_range(&lo[..]..&hi[..])).map_err(text)?;
                self.tally.add(Event::DeleteRange, 1);
                // An empty span writes nothing, and so promises nothing about earlier writes.
                if self.mine().keys().any(|key| lo <= key && key < hi) {
                    self.replaced(lo, hi, Vec::new(), default);
                }
            }
            Op::Ingest(changes) => {
                let (path, inside) = self.outside(changes, None)?;
                self.wait(self.db().ingest([path])).map_err(text)?;
                self.tally.add(Event::Ingest, 1);
                self.replaced(b"", b"", inside, Durability::Synced);
            }
            Op::Replace(lo, hi, _)
            | Op::ReplaceFrom(_, lo, hi)
            | Op::BatchOfRange(_, lo, hi, _)
                if lo >= hi => {}
            Op::BatchOfRange(before, lo, hi, after) => {
                let mut batch = oracle::batch(before);
                batch.delete_range(&lo[..]..&hi[..]);
                oracle::add(&mut batch, after);
                self.wait(self.db().write(batch)).map_err(text)?;
                self.tally.add(Event::BatchOfRange, 1);
                let stays = |change: &&Change| !(&lo[..]..&hi[..]).contains(&change.key());
                let changes = before.iter().filter(stays).chain(after).cloned().collect();
                self.replaced(lo, hi, changes, Durability::Synced);
            }
            Op::Replace(lo, hi, changes) => {
                let (path, inside) = self.outside(changes, Some((lo, hi)))?;
                let tables = if inside.is_empty() { vec![] } else { vec![path] };
                let plan = IngestPlan::new().replace(&lo[..]..&hi[..], tables);
                self.wait(self.db().ingest_and_excise(plan)).map_err(text)?;
                self.tally.add(Event::Replace, 1);
                self.replaced(lo, hi, inside, Durability::Synced);
            }
            Op::ReplaceFrom(which, lo, hi) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                // What it shows of its own keyspace, whatever happened to that since.
                let Taken { snapshot, model, at, .. } = self.snapshots[which].clone();
                let then = part(&model, at);
                let spans = [&lo[..]..&hi[..]];
                let replaced = self.db().replace_from(&snapshot, spans, OnEmpty::Wipe);
                self.wait(replaced).map_err(text)?;
                self.tally.add(Event::ReplaceFrom, 1);
                self.tally.add(Event::ReplaceFromAnotherKeyspace, u64::from(at != self.at));
                let inside = then.iter().filter(|(key, _)| lo <= *key && *key < hi);
                let inside = inside.map(|(key, value)| Change::Put(key.clone(), value.clone()));
                let inside = inside.collect();
                self.replaced(lo, hi, inside, Durability::Synced);
            }
            Op::Flush => {
                self.wait(self.db().flush()).map_err(text)?;
                self.synced = self.since_open.len();
            }
            Op::Compact => {
                let tombstones =
                    |db: &Db| -> u64 { db.level_info().iter().map(|info| info.tombstones).sum() };
                let before = tombstones(self.db());
                for db in self.handles.iter().flatten() {
                    self.wait(db.compact()).map_err(text)?;
                }
                let after = tombstones(self.db());
                self.tally.add(Event::TombstonesDropped, before.saturating_sub(after));
                self.synced = self.since_open.len();
                if !self.setup.threads && after != 0 {
                    return Err(format!("{after} tombstones survived a full compaction"));
                }
            }
            Op::Sync => {
                self.wait(self.db().sync()).map_err(text)?;
                self.synced = self.since_open.len();
            }
            Op::Keyspace(at) => {
                let before = self.db().stats().changes;
                let handle = self.wait(self.db().keyspace(name(*at))).map_err(text)?;
                if self.handles[*at].is_none() {
                    self.tally.add(Event::KeyspaceMade, self.db().stats().changes - before);
                    self.made[*at] += 1;
                    self.handles[*at] = Some(handle);
                    let there = Change::Put(tagged(*at, b""), Vec::new());
                    self.applied_to_all(vec![there], Durability::Synced);
                }
                self.at = *at;
            }
            Op::DropKeyspace(at) => {
                let dropped = self.wait(self.db().drop_keyspace(name(*at))).map_err(text)?;
                if dropped != self.handles[*at].take().is_some() {
                    return Err(format!("it was dropped: {dropped}"));
                }
                if dropped {
                    self.tally.add(Event::KeyspaceDropped, 1);
                    let gone = self.model.keys().filter(|key| key[0] == *at as u8).cloned();
                    let gone = gone.map(Change::Delete).collect();
                    self.applied_to_all(gone, Durability::Synced);
                }
                if self.at == *at {
                    self.at = 0;
                }
            }
            Op::Across(changes) => {
                let (mut batch, mut tagged) = (WriteBatch::new(), Vec::new());
                let mut touched = std::collections::BTreeSet::new();
                for (at, change) in changes {
                    let Some(of) = &self.handles[*at] else { continue };
                    match change {
                        Change::Put(key, value) => batch.put_in(of, key, value),
                        Change::Delete(key) => batch.delete_in(of, key),
                    };
                    touched.insert(*at);
                    tagged.extend(all_tagged(*at, [change.clone()]));
                }
                self.wait(self.db().write(batch)).map_err(text)?;
                self.tally.add(Event::AcrossKeyspaces, u64::from(touched.len() > 1));
                if !touched.is_empty() {
                    self.applied_to_all(tagged, default);
                }
            }
            Op::Checkpoint => {
                let (to, incremental) = (self.dir.with_extension("copy"), self.has_copy);
                let checkpoint = self.db().checkpoint(&to);
                let checkpoint = if incremental { checkpoint.incremental() } else { checkpoint };
                self.wait(async { checkpoint.await }).map_err(text)?;
                self.has_copy = true;
                self.tally.add(Event::Checkpoint, 1);
                let mut builder = Db::builder(&to).options(self.setup.options.clone());
                builder = builder.vfs(shared(&self.disk));
                if !self.setup.threads {
                    builder = builder.runtime(self.simulator.handle());
                }
                let copy = self.wait(builder.open_read_only()).map_err(text)?;
                let mut found = Map::new();
                for at in 0..KEYSPACES {
                    let Some(theirs) = copy.keyspace(&name(at)) else { continue };
                    found.insert(tagged(at, b""), Vec::new());
                    let entries = self.wait(collect(theirs.scan(..))).map_err(text)?;
                    found.extend(entries.into_iter().map(|(key, value)| (tagged(at, &key), value)));
                }
                difference(&self.model, &found).map_or(Ok(()), Err)?;
            }
            Op::Rest => {
                if !self.setup.threads {
                    self.simulator.settle();
                }
            }
            Op::Pass(ms) => {
                for _ in 0..3 {
                    if !self.setup.threads {
                        self.simulator.advance(Duration::from_millis(*ms));
                        self.simulator.settle();
                    }
                }
            }
            Op::CloseOpen => {
                self.take_stock();
                self.wait(self.db().close()).map_err(text)?;
                self.handles = Default::default();
                self.reopen()?;
                if self.db().stats().recovered_entries > 0 {
                    return Err("log entries were left behind by a clean close".to_owned());
                }
                self.compare_content()?;
            }
            Op::DropOpen => {
                self.take_stock();
                self.handles = Default::default();
                self.reopen()?;
                self.compare_content()?;
            }
            Op::PowerCut(seed) => self.power_cut(*seed)?,
        }
        Ok(())
    }

    fn take_all(&self, mut scan: Scan, chunked: bool) -> Result<Entries, String> {
        if !chunked {
            return self.wait(collect(scan)).map_err(text);
        }
        self.wait(async {
            let mut entries = Entries::new();
            while let Some(batch) = scan.next_batch().await.map_err(text)? {
                for at in 0..batch.len() {
                    entries.push((batch.key(at).to_vec(), batch.value(at).to_vec()));
                }
            }
            Ok(entries)
        })
    }

    /// Takes single entries, or one batch, and compares them with the expected ones.
    fn step_iterator(&self, iterating: &mut Iterating, entries: usize) -> Result<(), String> {
        let Iterating { scan, rest, chunked } = iterating;
        let mut found = Entries::new();
        let mut ended = false;
        if *chunked && entries.is_multiple_of(3) {
            if let Some(batch) = self.wait(scan.next_batch()).map_err(text)? {
                for at in 0..batch.len() {
                    found.push((batch.key(at).to_vec(), batch.value(at).to_vec()));
                }
            } else {
                ended = true;
            }
        } else {
            for _ in 0..entries {
                let Some(entry) = self.wait(scan.next()) else {
                    ended = true;
                    break;
                };
                let (key, value) = entry.map_err(text)?;
                found.push((key.to_vec(), value.to_vec()));
            }
        }
        let wanted: Entries = rest.take(found.len()).collect();
        same_entries(&wanted, &found)?;
        match rest.as_slice().first() {
            Some((key, _)) if ended => Err(format!("ended before {}", Shown(key))),
            _ => Ok(()),
        }
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

fn start<'a>(
    how: &'a ScanOf,
    range: impl Fn((Bound<&'a [u8]>, Bound<&'a [u8]>)) -> Scan,
    prefix: impl Fn(&'a [u8]) -> Scan,
) -> Scan {
    let mut scan = match &how.prefix {
        Some(bytes) => prefix(bytes),
        None => range((borrowed(&how.lo), borrowed(&how.hi))),
    };
    if how.reverse {
        scan = scan.rev();
    }
    if how.keys_only {
        scan = scan.keys_only();
    }
    match how.limit {
        Some(limit) => scan.limit(limit),
        None => scan,
    }
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn wanted(model: &Map, how: &ScanOf) -> Entries {
    let Some(prefix) = &how.prefix else {
        let bounds = (borrowed(&how.lo), borrowed(&how.hi));
        return oracle::scan(model, bounds, how.reverse, how.limit, how.keys_only);
    };
    let inside = model.iter().filter(|(key, _)| key.starts_with(prefix));
    let inside: Map = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
    let all = (Bound::Unbounded, Bound::Unbounded);
    oracle::scan(&inside, all, how.reverse, how.limit, how.keys_only)
}

fn same_value(key: &[u8], want: Option<&Vec<u8>>, found: Option<&[u8]>) -> Result<(), String> {
    if want.map(Vec::as_slice) == found {
        return Ok(());
    }
    let want = want.map(|value| Shown(value));
    Err(format!("{} is {:?}, should be {want:?}", Shown(key), found.map(Shown)))
}

fn same_entries(want: &Entries, found: &Entries) -> Result<(), String> {
    if want == found {
        return Ok(());
    }
    let at = want.iter().zip(found).position(|(a, b)| a != b);
    let at = at.unwrap_or(want.len().min(found.len()));
    let show = |entries: &Entries| {
        entries.get(at).map_or("nothing".to_owned(), |(key, value)| {
            format!("{} = {}", Shown(key), Shown(value))
        })
    };
    let (want_at, found_at) = (show(want), show(found));
    let (want, found) = (want.len(), found.len());
    Err(format!(
        "entry {at} is {found_at}, should be {want_at} ({found} entries, should be {want})"
    ))
}
