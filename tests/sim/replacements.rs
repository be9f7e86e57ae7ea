//! Spans of keys that are replaced, as steps of a history: each counts as a batch, with a mark of
//! its own.

use crate::history::{Driver, MARK, Span, Step};
use crate::kit::chance::Chance;
use crate::kit::oracle::{self, Change};
use futures::TryFutureExt;
use sluicedb::{Db, Durability, Error, IngestPlan, WriteBatch};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::table::TableOptions;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// One replacement: up to three spans that are replaced or excised, a range delete, or an ingested
/// table.
pub fn replacement(chance: &mut Chance) -> Step {
    let changes = oracle::changes(chance, 12);
    if chance.one_in(3) {
        return Step::Ingest(changes);
    }
    if chance.one_in(3) {
        let mut ends = [oracle::key(chance), oracle::key(chance)];
        ends.sort();
        return Step::Delete { span: ends.into(), changes };
    }
    let keys: BTreeSet<_> = (0..2 * chance.between(1, 3)).map(|_| oracle::key(chance)).collect();
    let keys: Vec<_> = keys.into_iter().collect();
    let pairs = keys.chunks_exact(2);
    let spans: Vec<Span> = pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    let inside = |change: &Change| {
        spans.iter().any(|(lo, hi)| &lo[..] <= change.key() && change.key() < &hi[..])
    };
    let changes = changes.into_iter().filter(inside).collect();
    let beside = chance.one_in(2).then(|| oracle::key(chance));
    Step::Replace { spans, changes, beside }
}

/// Steps that replace three spans by one generation after the other. Each value names its
/// generation. A write between replacements has the present generation.
pub fn replacements(chance: &mut Chance, generations: usize) -> Vec<Step> {
    let spans: Vec<Span> =
        [("a", "b"), ("k", "n"), ("x", "y")].map(|(lo, hi)| (lo.into(), hi.into())).into();
    let put = |lo: &[u8], n: usize, generation: usize| {
        let value = format!("generation {generation} {}", "v".repeat(n * 7 % 90));
        Change::Put([lo, format!("{n:03}").as_bytes()].concat(), value.into_bytes())
    };
    let mut steps = Vec::new();
    for generation in 1..=generations {
        let mut changes = Vec::new();
        for n in (0..20).filter(|n| (n + generation) % 3 > 0) {
            changes.extend(spans.iter().map(|(lo, _)| put(lo, n, generation)));
        }
        let beside = chance.pick(&["a007", "l", "x011", "c"]).as_bytes().to_vec();
        let beside = (!chance.one_in(3)).then_some(beside);
        steps.push(Step::Replace { spans: spans.clone(), changes, beside });
        for n in 0..6 {
            let level = chance.pick(&[Durability::Buffered, Durability::Synced]);
            let mut changes: Vec<_> =
                spans.iter().map(|(lo, _)| put(lo, n * 3, generation)).collect();
            changes.push(put(b"b", n, generation));
            steps.push(Step::Write(changes, level));
            if chance.one_in(5) {
                steps.push(Step::Flush);
            }
        }
        if chance.one_in(3) {
            steps.push(Step::Merge(b"a".to_vec()));
        }
        if chance.one_in(2) {
            let (lo, hi) = (b"a005".to_vec(), b"a015".to_vec());
            steps.push(Step::Delete { span: (lo, hi), changes: vec![put(b"a", 6, generation)] });
        }
        if chance.one_in(4) {
            steps.push(Step::Reopen { close: chance.one_in(2) });
        }
    }
    steps
}

/// The number of changes other than splits, up to a constant, while no ranges are merged.
fn changes_of_content(db: &Db) -> i64 {
    db.stats().changes as i64 - db.ranges().len() as i64
}

impl Driver {
    /// Replaces `spans`. Without any it ingests a table.
    pub fn replace(&self, db: &Db, spans: &[Span], changes: &[Change], beside: Option<&[u8]>) {
        let mut spans = spans.to_vec();
        if !spans.is_empty() && !spans.iter().any(|(lo, hi)| &lo[..] <= MARK && MARK < &hi[..]) {
            spans.push((MARK.to_vec(), [MARK, &[0]].concat()));
        }
        let (number, changes) = self.history.begin_replacement(&spans, changes);
        let before = changes_of_content(db);
        let written = self.outside(number, &spans, &changes);
        let result = written.map_err(Error::from).and_then(|tables| {
            let plan = |plan: IngestPlan, (span, table): (&Span, &Option<PathBuf>)| {
                plan.replace(span.0.clone()..span.1.clone(), table)
            };
            let result = if spans.is_empty() {
                self.doing("ingest", db.ingest(tables.iter().flatten()))
            } else {
                let plan = spans.iter().zip(&tables).fold(IngestPlan::new(), plan);
                self.doing("replace", self.beside(db, beside, db.ingest_and_excise(plan)))
            };
            for table in tables.into_iter().flatten() {
                let _ = self.vfs.remove(&table);
            }
            result
        });
        self.end_change(db, number, before, result);
    }

    /// Writes a batch that deletes a span and puts something into it.
    pub fn delete(&self, db: &Db, span: &Span, changes: &[Change]) {
        let spans = std::slice::from_ref(span);
        let (number, changes) = self.history.begin_replacement(spans, changes);
        let mut batch = WriteBatch::new();
        batch.delete_range(&span.0[..]..&span.1[..]);
        oracle::add(&mut batch, &changes);
        let before = changes_of_content(db);
        let result = self.doing("delete", db.write(batch));
        self.end_change(db, number, before, result);
    }

    fn end_change<T>(&self, db: &Db, number: usize, before: i64, result: Result<T, Error>) {
        match result {
            Ok(_) => self.history.end(number, Durability::Synced, Ok(())),
            Err(error) => {
                let happened = changes_of_content(db) > before;
                self.history.end_badly(number, error, happened);
            }
        }
    }

    async fn beside<T>(
        &self,
        db: &Db,
        split: Option<&[u8]>,
        replaced: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(at) = split else { return replaced.await };
        let split = db.split_at(at).map_ok(drop);
        let all = futures::future::join4(replaced, db.flush(), db.compact(), split);
        let (result, flushed, compacted, split) = all.await;
        for result in [flushed, compacted, split] {
            self.note(result);
        }
        result
    }

    /// Writes a table outside the database for each span that gets content; without spans, one for
    /// all.
    fn outside(
        &self,
        number: usize,
        spans: &[Span],
        changes: &[Change],
    ) -> sluicedb_storage::Result<Vec<Option<PathBuf>>> {
        let dir = PathBuf::from("/outside");
        let made = self.vfs.create_dir_all(&dir);
        made.map_err(|error| sluicedb_storage::Error::io("create", &dir, error))?;
        let all = [(Vec::new(), vec![0xFF; 20])];
        let spans = if spans.is_empty() { &all[..] } else { spans };
        let table = |(at, (lo, hi)): (usize, &Span)| {
            let inside = changes.iter().filter(|one| lo[..] <= *one.key() && *one.key() < hi[..]);
            let inside: Vec<_> = inside.collect();
            if inside.is_empty() {
                return Ok(None);
            }
            let path = dir.join(format!("{number}-{at}.table"));
            let id = (number as u64 * 1000 + at as u64).to_le_bytes();
            let options = TableOptions::default();
            let mut writer = ExternalWriter::create(&self.vfs, &path, id, options)?;
            for change in inside {
                match change {
                    Change::Put(key, value) => writer.add(key, Kind::Put, value)?,
                    Change::Delete(key) => writer.add(key, Kind::Delete, &[])?,
                }
            }
            writer.finish()?;
            Ok(Some(path))
        };
        spans.iter().enumerate().map(table).collect()
    }
}
