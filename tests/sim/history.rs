//! The record of a run: every batch, what was promised about it, and the rule of what may be found
//! later. That is the batches up to some point, none torn, none invented, and no acknowledged one
//! missing.
//!
//! Each batch also sets `MARK` to its own number, so the content itself says how far it goes. The
//! drop of a keyspace sets no mark: it may have happened after the batch that the mark names.
//!
//! Long because the promises and the judgement are one rule.

use crate::keyspaces::{is_other, part, whole};
use crate::kit::chance::Chance;
use crate::kit::oracle::{self, Change, Map, difference};
use crate::kit::simulator::Simulator;
use crate::replacements::replacement;
use sluicedb::{Db, Durability, Error, ErrorKind, Options, Outcome, Stats, Ticket, WriteOptions};
use sluicedb_storage::vfs::Vfs;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const MARK: &[u8] = b"~mark";

/// The fate of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not answered yet.
    Submitted,
    Acked(Durability),
    /// Failed, and the engine reported that nothing happened.
    Refused,
    /// Failed, and the engine reported that the outcome is unknown.
    Unknown,
}

/// What may be found after a crash at one instant, as numbers of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Submitted so far: no more than this can be found.
    pub submitted: usize,
    /// At least this must be found after the death of the process.
    pub buffered: usize,
    /// At least this must be found after a power cut.
    pub synced: usize,
}

/// Counts of the work on tables. A run without a merged landing proves nothing about landings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Tables that landed.
    pub lands: u64,
    pub keeps: u64,
    pub drains: u64,
    /// Counted among the remembered jobs only.
    pub moves: u64,
    pub reshards: u64,
    /// Keyspaces that were dropped.
    pub drops: u64,
}

impl Work {
    pub fn of(stats: &Stats) -> Self {
        let chosen = |choice| stats.decisions.iter().filter(|one| one.choice == choice).count();
        Self {
            lands: stats.tables_landed,
            keeps: stats.keeps.runs,
            drains: stats.drains.runs,
            moves: chosen("move") as u64,
            reshards: chosen("reshard") as u64,
            drops: 0,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.lands += other.lands;
        self.keeps += other.keeps;
        self.drains += other.drains;
        self.moves += other.moves;
        self.reshards += other.reshards;
        self.drops += other.drops;
    }

    /// Demands each of them this often.
    pub fn demand(&self, least: u64) {
        let Self { lands, keeps, drains, moves, reshards, drops: _ } = *self;
        let rarest = [lands, keeps, drains, moves, reshards].into_iter().min();
        assert!(rarest >= Some(least), "met too rarely: {self:?}");
    }
}

#[derive(Debug, Default)]
struct Log {
    batches: Vec<(Vec<Change>, Fate)>,
    promises: Promises,
    failures: Vec<Error>,
    work: Work,
    doing: Option<&'static str>,
    did: BTreeMap<&'static str, Did>,
}

/// How often a step was requested, and its outcomes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Did {
    pub happened: u64,
    pub failed: u64,
}

impl Log {
    fn add(&mut self, mut changes: Vec<Change>) -> usize {
        let number = self.batches.len();
        changes.push(Change::Put(MARK.to_vec(), (number + 1).to_string().into_bytes()));
        self.add_unmarked(changes)
    }

    fn add_unmarked(&mut self, changes: Vec<Change>) -> usize {
        let number = self.batches.len();
        self.batches.push((changes, Fate::Submitted));
        self.promises.submitted = self.batches.len();
        number
    }
}

/// The record so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History {
    log: Arc<Mutex<Log>>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn promises(&self) -> Promises {
        self.lock().promises
    }

    pub fn len(&self) -> usize {
        self.lock().batches.len()
    }

    pub fn failures(&self) -> Vec<Error> {
        self.lock().failures.clone()
    }

    /// Adds a batch that is about to be submitted.
    pub fn begin(&self, changes: Vec<Change>) -> (usize, Vec<Change>) {
        let mut log = self.lock();
        let number = log.add(changes);
        (number, log.batches[number].0.clone())
    }

    /// Records that all keys for which `goes` is true are about to be dropped, without a mark.
    pub fn begin_drop(&self, goes: impl Fn(&[u8]) -> bool) -> usize {
        let mut log = self.lock();
        let before = log.batches.iter().flat_map(|(changes, _)| changes);
        let keys: BTreeSet<_> = before.map(Change::key).filter(|key| goes(key)).collect();
        let gone = keys.into_iter().map(|key| Change::Delete(key.to_vec())).collect();
        log.add_unmarked(gone)
    }

    /// Records whether the keyspace was dropped, or did not exist.
    pub fn dropped(&self, dropped: bool) {
        self.lock().work.drops += u64::from(dropped);
    }

    /// Records a replacement that is about to be requested; it counts as a batch. It removes all
    /// keys that were ever put into `spans`, and puts `changes`. Returns these with its mark, the
    /// last of each key.
    pub fn begin_replacement(&self, spans: &[Span], changes: &[Change]) -> (usize, Vec<Change>) {
        let mut log = self.lock();
        let inside = |(lo, hi): &Span, key: &[u8]| &lo[..] <= key && key < &hi[..];
        let is_inside = |key: &[u8]| !is_other(key) && spans.iter().any(|span| inside(span, key));
        let before = log.batches.iter().flat_map(|(changes, _)| changes);
        let keys: BTreeSet<_> = before.map(Change::key).filter(|key| is_inside(key)).collect();
        let gone = keys.into_iter().map(|key| Change::Delete(key.to_vec()));
        let all: Vec<_> = gone.chain(changes.iter().cloned()).collect();
        let kept = changes.len() + 1;
        let number = log.add(all);
        let (all, _) = &log.batches[number];
        (number, oracle::last_of_each(&all[all.len() - kept..]))
    }

    /// Records a failed replacement. It has happened all the same if it was past the point of no
    /// return.
    pub fn end_badly(&self, number: usize, error: Error, happened: bool) {
        let mut log = self.lock();
        log.batches[number].1 = if happened { Fate::Submitted } else { Fate::Refused };
        log.failures.push(error);
    }

    /// The step under way beside writes.
    pub fn doing(&self) -> Option<&'static str> {
        self.lock().doing
    }

    /// The steps beside writes, and their outcomes.
    pub fn did(&self) -> BTreeMap<&'static str, Did> {
        self.lock().did.clone()
    }

    pub fn end<T>(&self, number: usize, durability: Durability, result: Result<T, Error>) {
        let mut log = self.lock();
        match result {
            Ok(_) => {
                let lost =
                    log.batches[..number].iter().position(|(_, fate)| *fate == Fate::Unknown);
                assert_eq!(
                    lost, None,
                    "batch {number} acknowledged although an earlier one failed"
                );
                log.batches[number].1 = Fate::Acked(durability);
                let upto = number + 1;
                log.promises.buffered = log.promises.buffered.max(upto);
                if durability == Durability::Synced {
                    log.promises.synced = log.promises.synced.max(upto);
                }
            }
            Err(error) => {
                log.batches[number].1 = match error.outcome() {
                    Outcome::NotApplied => Fate::Refused,
                    // Visible, and as durable as the next acknowledged batch.
                    Outcome::Applied => Fate::Submitted,
                    Outcome::Unknown => Fate::Unknown,
                };
                log.failures.push(error);
            }
        }
    }

    /// The work of all past lives of the database.
    pub fn work(&self) -> Work {
        self.lock().work
    }

    /// Adds the work of a life that is over.
    pub fn worked(&self, stats: &Stats) {
        self.lock().work.add(Work::of(stats));
    }

    pub fn fail(&self, error: Error) {
        self.lock().failures.push(error);
    }

    /// Everything that was visible survives a power cut from now on.
    fn all_synced(&self, visible: usize) {
        let mut log = self.lock();
        log.promises.synced = log.promises.synced.max(visible);
        log.promises.buffered = log.promises.buffered.max(visible);
    }

    /// A reopened database holds `count` batches: the unknown ones are known now, and the found
    /// ones are durable.
    fn settle(&self, count: usize) {
        let mut log = self.lock();
        for (number, (_, fate)) in log.batches.iter_mut().enumerate() {
            if number >= count {
                *fate = Fate::Refused;
            } else if *fate == Fate::Unknown {
                *fate = Fate::Acked(Durability::Synced);
            }
        }
        log.promises.synced = count;
        log.promises.buffered = count;
    }

    /// The number of acknowledged batches, counted from the first.
    fn visible(&self) -> usize {
        let log = self.lock();
        let acked = |(_, fate): &(_, Fate)| matches!(fate, Fate::Acked(_));
        log.batches.iter().rposition(acked).map_or(0, |last| last + 1)
    }

    /// The contents after 0, 1, 2.. batches, for a sweep that looks at many images.
    pub fn contents(&self) -> Vec<Map> {
        let log = self.lock();
        let mut map = Map::new();
        let mut contents = vec![map.clone()];
        for (changes, fate) in &log.batches {
            if *fate != Fate::Refused {
                oracle::apply(&mut map, changes);
            }
            contents.push(map.clone());
        }
        contents
    }
}

/// The number of the last batch in `found`.
pub fn mark(found: &Map) -> usize {
    found.get(MARK).map_or(0, |text| {
        let text = std::str::from_utf8(text).expect("a mark is a number");
        text.parse().expect("a mark is a number")
    })
}

/// Judges whether `found` may be left by a crash. Returns how many batches it holds.
pub fn judge(contents: &[Map], found: &Map, least: usize, most: usize) -> Result<usize, String> {
    let marked = mark(found);
    if marked > most {
        return Err(format!("{marked} batches found, but only {most} were submitted"));
    }
    // Steps that set no mark may have happened as well.
    let unmarked = contents[marked + 1..=most].iter().take_while(|map| mark(map) == marked);
    let last = marked + unmarked.count();
    let is_it = |count: &usize| difference(&contents[*count], found).is_none();
    match (marked..=last).rev().find(is_it) {
        Some(count) if count < least => {
            Err(format!("{count} batches found, but {least} were acknowledged"))
        }
        Some(count) => Ok(count),
        None => {
            let what = difference(&contents[marked], found);
            Err(format!("not the content after {marked} batches: {what:?}"))
        }
    }
}

/// The keys from the first to the second, without the second.
pub type Span = (Vec<u8>, Vec<u8>);

/// One step of a run.
#[derive(Clone, Debug)]
pub enum Step {
    /// Replaces the content of `spans` by the outcome of `changes`, which are inside them.
    /// Meanwhile, if a key is given, a range is split there, memory is flushed and tables are
    /// compacted.
    Replace {
        spans: Vec<Span>,
        changes: Vec<Change>,
        beside: Option<Vec<u8>>,
    },
    /// Ingests a table with these.
    Ingest(Vec<Change>),
    /// A batch deletes a span and puts these into it.
    Delete {
        span: Span,
        changes: Vec<Change>,
    },
    /// Makes a checkpoint in the directory beside, based on the last one there.
    Checkpoint,
    /// Writes and waits for the acknowledgement.
    Write(Vec<Change>, Durability),
    /// Submits; a later step waits for the acknowledgement.
    Submit(Vec<Change>, Durability),
    Await,
    Flush,
    Compact,
    Sync,
    Split(Vec<u8>),
    Merge(Vec<u8>),
    DropKeyspace,
    /// Lets the engine finish its background work.
    Rest,
    Reopen {
        close: bool,
    },
}

/// `count` steps, mostly small writes of random durability. With `heavy` the log leaves a segment
/// every few steps.
pub fn steps(chance: &mut Chance, count: usize, heavy: bool) -> Vec<Step> {
    let level = |chance: &mut Chance| {
        if chance.one_in(3) { Durability::Synced } else { Durability::Buffered }
    };
    let step = |chance: &mut Chance| match chance.below(24) {
        0 => Step::Flush,
        1 if chance.one_in(2) => Step::Compact,
        1 => Step::Split(oracle::key(chance)),
        2 if chance.one_in(3) => Step::Merge(oracle::key(chance)),
        2 => Step::Sync,
        3 if chance.one_in(2) => replacement(chance),
        4 if chance.one_in(4) => Step::DropKeyspace,
        3 if chance.one_in(2) => Step::Checkpoint,
        3 | 4 => Step::Rest,
        5 => Step::Reopen { close: chance.one_in(2) },
        6 | 7 => Step::Await,
        8..=12 => Step::Submit(oracle::changes(chance, 4), level(chance)),
        13 => Step::Write(oracle::changes(chance, 30), level(chance)),
        _ => Step::Write(oracle::changes(chance, 5), level(chance)),
    };
    let mut steps: Vec<Step> = (0..count).map(|_| step(chance)).collect();
    part(&mut steps);
    for step in &mut steps {
        if let Step::Write(changes, _) | Step::Submit(changes, _) = step
            && heavy
        {
            changes.truncate(8);
            oracle::lengthen(chance, changes);
        }
    }
    steps
}

/// Drives a database through a run.
pub struct Driver {
    pub vfs: Arc<dyn Vfs>,
    pub dir: PathBuf,
    pub options: Options,
    pub simulator: Simulator,
    pub history: History,
    /// The disk loses written bytes in a failed sync: unsynced writes are then not safe even from
    /// the death of the process.
    pub lossy: bool,
}

impl Driver {
    pub async fn open(&self) -> Result<Db, Error> {
        let builder = Db::builder(&self.dir).options(self.options.clone());
        builder.vfs(Arc::clone(&self.vfs)).runtime(self.simulator.handle()).open().await
    }

    /// Does `steps` and records failures. Returns the database if it is open at the end.
    pub fn run(&self, steps: &[Step]) -> Option<Db> {
        let mut db = self.reopen(None, true);
        let mut tickets = Vec::new();
        for step in steps {
            let Some(open) = &db else { return None };
            match step {
                Step::Write(changes, durability) => {
                    let (number, changes) = self.history.begin(changes.clone());
                    let options = WriteOptions::durability(*durability);
                    let batch = self.batch(open, &changes);
                    let write = |batch| self.simulator.run(open.write_with(batch, options));
                    self.history.end(number, *durability, batch.and_then(write));
                }
                Step::Submit(changes, durability) => {
                    let (number, changes) = self.history.begin(changes.clone());
                    let options = WriteOptions::durability(*durability);
                    let batch = self.batch(open, &changes);
                    let submit = |batch| self.simulator.run(open.submit_with(batch, options));
                    match batch.and_then(submit) {
                        Ok(ticket) => tickets.push((number, *durability, ticket)),
                        Err(error) => self.history.end::<()>(number, *durability, Err(error)),
                    }
                }
                Step::Await => self.await_all(&mut tickets),
                Step::Flush => self.note(self.simulator.run(open.flush())),
                Step::Compact => self.note(self.compact(open)),
                Step::Sync => {
                    let visible = self.history.visible();
                    match self.simulator.run(open.sync()) {
                        Ok(()) => self.history.all_synced(visible),
                        Err(error) => self.history.fail(error),
                    }
                }
                Step::Split(at) => {
                    let split = |db: Db| self.doing("split", db.split_at(at)).map(drop);
                    self.note(self.home_of(open, at).and_then(split));
                }
                Step::Merge(from) => {
                    let at = open.ranges().into_iter().find(|range| range.start > *from);
                    if let Some(at) = at {
                        self.note(self.doing("merge", open.merge_at(at.start)).map(drop));
                    }
                }
                Step::Delete { span, changes } => self.delete(open, span, changes),
                Step::Checkpoint => {
                    let copy = self.dir.with_extension("copy");
                    let checkpoint = open.checkpoint(copy).incremental();
                    self.note(self.doing("checkpoint", checkpoint.into_future()).map(drop));
                }
                Step::Replace { spans, changes, beside } => {
                    self.replace(open, spans, changes, beside.as_deref());
                }
                Step::Ingest(changes) => self.replace(open, &[], changes, None),
                Step::DropKeyspace => {
                    self.await_all(&mut tickets);
                    self.drop_other(open);
                }
                Step::Rest => self.simulator.settle(),
                Step::Reopen { close } => {
                    self.await_all(&mut tickets);
                    db = self.reopen(db, *close);
                }
            }
        }
        self.await_all(&mut tickets);
        db
    }

    fn await_all(&self, tickets: &mut Vec<(usize, Durability, Ticket)>) {
        for (number, durability, ticket) in tickets.drain(..) {
            let result = self.simulator.run(ticket);
            self.history.end(number, durability, result);
        }
    }

    /// Runs `what` to its end.
    pub fn doing<T>(
        &self,
        what: &'static str,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.history.lock().doing = Some(what);
        let result = self.simulator.run(future);
        let mut log = self.history.lock();
        log.doing = None;
        let did = log.did.entry(what).or_default();
        did.happened += u64::from(result.is_ok());
        did.failed += u64::from(result.is_err());
        result
    }

    pub fn note(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.history.fail(error);
        }
    }

    fn reopen(&self, db: Option<Db>, close: bool) -> Option<Db> {
        if let Some(db) = db {
            self.history.worked(&db.stats());
            if close {
                let visible = self.history.visible();
                match self.simulator.run(db.close()) {
                    Ok(()) => self.history.all_synced(visible),
                    Err(error) => self.history.fail(error),
                }
            }
            drop(db);
        }
        let db = self.simulator.run(self.open()).map_err(|error| self.history.fail(error)).ok()?;
        match self.content(&db) {
            Ok(found) => {
                let promises = self.history.promises();
                let least = if self.lossy { promises.synced } else { promises.buffered };
                let most = promises.submitted;
                let count = judge(&self.history.contents(), &found, least, most)
                    .unwrap_or_else(|what| panic!("after an open: {what}"));
                self.history.settle(count);
                Some(db)
            }
            Err(error) => {
                self.history.fail(error);
                None
            }
        }
    }

    /// The content of the open database.
    pub fn content(&self, db: &Db) -> Result<Map, Error> {
        self.simulator.run(whole(db))
    }
}

/// Whether a failing disk may cause this error: it is typed, and names a file.
pub fn is_fitting(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::TooManyOpenFiles => error.path().is_some(),
        ErrorKind::Closed => true,
        _ => false,
    }
}
