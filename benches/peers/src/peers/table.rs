//! The rows in the order of the tables, what each has to reach, and the medians of what was
//! measured.

use crate::engines::{Kind, Known, OURS, known};
use crate::figures::name;
use crate::run::Runs;
use sluicedb_bench_peers::median;
use std::collections::BTreeMap;

/// A row that has a rate.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    /// The rate that counts: operations, or entries where one operation is about many.
    pub rate: &'static str,
    /// How many times the best LSM peer SluiceDB has to reach.
    pub bar: Option<f64>,
}

const fn row(name: &'static str, bar: f64) -> Row {
    Row { name, rate: name::OPERATIONS, bar: Some(bar) }
}

const fn entries(name: &'static str, bar: f64) -> Row {
    Row { name, rate: name::ENTRIES, bar: Some(bar) }
}

const fn without_bar(row: Row) -> Row {
    Row { bar: None, ..row }
}

pub const ROWS: &[Row] = &[
    row("put c1", 3.0),
    row("put c16", 2.5),
    without_bar(row("put c64", 0.0)),
    row("put sequential c1", 2.5),
    entries("batch of 100 c1", 2.0),
    entries("load sorted c1", 1.2),
    row("overwrite zipf c16", 2.5),
    row("synced put c1", 0.95),
    row("synced put c16", 1.2),
    row("synced put c64", 1.3),
    row("get c1", 2.0),
    row("get c16", 1.7),
    without_bar(row("get c64", 0.0)),
    without_bar(row("get after open c16", 0.0)),
    row("get absent c16", 1.2),
    row("get, 4 x the cache, c16", 1.7),
    without_bar(row("get cold c1", 0.0)),
    without_bar(row("get cold c16", 0.0)),
    without_bar(row("get after puts c16", 0.0)),
    without_bar(entries("scan 100 c1", 0.0)),
    entries("scan 100 c16", 1.0),
    entries("scan all c1", 1.0),
    without_bar(entries("scan 100 after puts c16", 0.0)),
    row("ycsb A", 2.0),
    row("ycsb B", 1.5),
    row("ycsb C", 1.7),
    row("ycsb D", 1.5),
    entries("ycsb E", 1.5),
    row("ycsb F", 2.0),
    row("put 64 KiB c4", 1.0),
    row("get 64 KiB c4", 1.5),
];

/// What one engine has to stay below, or at, in a row.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub row: &'static str,
    pub value: &'static str,
    pub at_most: f64,
}

const fn limit(row: &'static str, value: &'static str, at_most: f64) -> Limit {
    Limit { row, value, at_most }
}

pub const LIMITS: &[Limit] = &[
    limit("put c16", name::WRITTEN, 2.8),
    limit("overwrite zipf c16", name::WRITTEN, 1.6),
    limit("put c16", name::SPACE, 1.12),
    // The budget of the full profile, and 64 MiB.
    limit("put c16", name::PEAK, 576.0),
    limit("open, closed with 116 MB", name::OPEN, 100.0),
    // A log that is read at 300 MB a second.
    limit("open, crashed with 58 MB", name::OPEN, 193.0),
];

/// By how much a heartbeat may be later than it is without an engine: p99.9 and the maximum, in
/// milliseconds.
pub const BEAT_P999_OVER: f64 = 2.0;
pub const BEAT_MAX_OVER: f64 = 15.0;
/// Of fewer beats p99.9 says nothing.
pub const BEATS_MIN: f64 = 2000.0;
/// The rows that say how late it is without an engine.
pub const WITHOUT_ENGINE: [&str; 4] = ["idle", "busy c1", "busy c16", "busy c64"];

/// Medians by row, engine and value.
pub struct Medians(BTreeMap<(String, String, String), f64>);

impl Medians {
    pub fn of(runs: &Runs) -> Self {
        let mut all: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for figures in &runs.figures {
            for (value, number) in &figures.values {
                let key = (figures.row.clone(), figures.engine.clone(), value.clone());
                all.entry(key).or_default().push(*number);
            }
        }
        Self(all.into_iter().filter_map(|(key, numbers)| Some((key, median(numbers)?))).collect())
    }

    pub fn get(&self, row: &str, engine: &str, value: &str) -> Option<f64> {
        self.0.get(&(row.to_owned(), engine.to_owned(), value.to_owned())).copied()
    }

    pub fn ours(&self, row: &str, value: &str) -> Option<f64> {
        self.get(row, OURS, value)
    }

    /// The engine of these kinds with the highest rate.
    pub fn best(&self, row: &Row, kinds: &[Kind]) -> Option<(&'static str, f64)> {
        known()
            .filter(|known| kinds.contains(&known.kind))
            .filter_map(|known| Some((known.name, self.get(row.name, known.name, row.rate)?)))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// The latest heartbeat without an engine.
    pub fn without_engine(&self, value: &str) -> Option<f64> {
        let values = WITHOUT_ENGINE.iter();
        let values = values.filter_map(|row| self.get(row, crate::engines::BASELINE, value));
        values.max_by(f64::total_cmp)
    }

    /// The engines of which anything is known, in the order of the tables.
    pub fn engines(&self) -> Vec<Known> {
        let has = |known: &Known| self.0.keys().any(|(_, engine, _)| engine == known.name);
        known().filter(has).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&(String, String, String), f64)> {
        self.0.iter().map(|(key, value)| (key, *value))
    }
}
