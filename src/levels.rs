//! What lies in each level and in front of it, what was done with it, and why it is merged or not.

use crate::keyspaces::name_of;
#[cfg(feature = "serde")]
use crate::stats::{as_optional_text, as_text};
use sluicedb_actors::compaction_planner::CompactionCounts;
use sluicedb_actors::compaction_planner::counts::{LandingCounts, LandingWork, LevelCounts};
use sluicedb_actors::compaction_planner::decisions::Decision as Chosen;
use sluicedb_actors::engine::Engine;
use sluicedb_storage::compact::{
    Claims, CompactionOptions, ShardView, Situation, debt, landing_of, quiet_since_ms,
    rest_takes_ms, score,
};
use sluicedb_storage::version::{Place, RangeVersion, Run, SliceName, Version};
use std::collections::{BTreeMap, BTreeSet};

/// One level of one range, and the landing in front of it.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct LevelInfo {
    /// The range's number.
    pub range: u32,
    /// Whose keys it has: the name of a keyspace.
    pub keyspace: String,
    /// The first key that is routed to the range; empty for the first range of the keyspace.
    /// Serialized as text, other bytes than printable ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub range_start: Vec<u8>,
    /// The first key that is not any more; `None` for its last range. Serialized likewise.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub range_end: Option<Vec<u8>>,
    /// 0 for freshly flushed, overlapping tables; 1.. are one sorted run each.
    pub level: u8,
    /// Tables in it, those in its landing included; likewise below.
    pub tables: u64,
    /// Sorted runs that they form: places where a read has to look, at most.
    pub runs: u64,
    /// Entries in them.
    pub entries: u64,
    /// How many of those are tombstones.
    pub tombstones: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Size at which the level without its landing is merged into the next, in bytes; 0 if it is
    /// not merged because of it.
    pub bytes_max: u64,
    /// Entries at which it is; 0 if it is not merged because of them.
    pub entries_max: u64,
    /// How full it is, without its landing, by the limit that it is nearest to. At 1.0 a compaction
    /// is due. 0.0 for the deepest level that there may be.
    pub score: f64,
    /// How many of its bytes are in its landing.
    pub landing_bytes: u64,
    /// About how many bytes compactions have to write until nothing is due in its landing, and
    /// nothing is too much in it.
    pub debt_bytes: u64,
    /// When nothing has been written to the range for so long, in milliseconds, what waits in its
    /// L0 and its landings is merged: the longer, the more that rewrites. `None` where nothing
    /// waits, or with [`Options::rest_after_ms`](crate::Options::rest_after_ms) 0.
    pub rest_ms: Option<u64>,
    /// The shards of its landing that have something, or were merged since the database was opened.
    pub shards: Vec<ShardInfo>,
}

/// One shard of the landing in front of a level: tables that came there without being rewritten,
/// and wait until a merge of them into the level is worth what it rewrites.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct ShardInfo {
    /// Its number.
    pub shard: u16,
    /// The first key that belongs to it, serialized as text.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub start: Vec<u8>,
    /// Tables, or parts of tables.
    pub tables: u64,
    /// Sorted runs that they form.
    pub runs: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Entries in them; of parts of tables about.
    pub entries: u64,
    /// How long the oldest has been there, in milliseconds.
    pub age_ms: u64,
    /// About which share of its entries newer ones hide, or are tombstones: 0 to 1, and above where
    /// both are many.
    pub density: f64,
    /// About which share of its entries newer ones in the shard hide: 0 to 1.
    pub superseded: f64,
    /// Bytes of the level that it overlaps: what a merge of all of it rewrites.
    pub overlapped_bytes: u64,
    /// How urgent it is to merge it into its level (a drain). Due from 1.0 on.
    pub drain_score: f64,
    /// How urgent it is to merge it into itself (a keep). Due from 1.0 on.
    pub keep_score: f64,
    /// Merges of it into its level, since the database was opened. One that somebody asked for may
    /// take several shards, and counts in each. When the bounds between shards move, the counts
    /// stay with the numbers.
    pub drains: LandingStats,
    /// Merges of it into itself.
    pub keeps: LandingStats,
}

/// Merges of landings of one kind, since the database was opened.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LandingStats {
    /// Finished.
    pub runs: u64,
    /// Tables of landings that they took.
    pub tables: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// How long they took, in microseconds.
    pub micros: u64,
}

impl LandingStats {
    pub(crate) fn of(counts: &LandingCounts) -> Self {
        Self {
            runs: counts.runs.get(),
            tables: counts.tables.get(),
            bytes: counts.bytes.get(),
            micros: counts.micros.get(),
        }
    }
}

impl From<LandingWork> for LandingStats {
    fn from(LandingWork { runs, tables, bytes, micros }: LandingWork) -> Self {
        Self { runs, tables, bytes, micros }
    }
}

/// What became of one level of all ranges, its landing included, since the database was opened.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// 0 for L0.
    pub level: u8,
    /// Bytes of tables that were written into it: into L0 by flushes, else by merges, those of its
    /// landing included.
    pub bytes_written: u64,
    /// Bytes of its tables that merges read.
    pub bytes_read: u64,
    /// Bytes of tables that came as they were: they landed, or nothing overlapped them.
    pub bytes_taken_over: u64,
}

impl LevelStats {
    /// As many as have something, `depth` at least.
    pub(crate) fn all(counts: &[LevelCounts], flush_bytes: u64, depth: usize) -> Vec<Self> {
        let all = (0_u8..).zip(counts).map(|(level, counts)| Self {
            level,
            bytes_written: counts.bytes_written.get() + if level == 0 { flush_bytes } else { 0 },
            bytes_read: counts.bytes_read.get(),
            bytes_taken_over: counts.bytes_taken_over.get(),
        });
        let mut all: Vec<_> = all.collect();
        let nothing = |last: &Self| *last == Self { level: last.level, ..Self::default() };
        while all.len() > depth && all.last().is_some_and(nothing) {
            all.pop();
        }
        all
    }
}

/// Something that the compaction planner has chosen to do, and the numbers that it compared.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// In which range.
    pub range: u32,
    /// What: `move`, `land`, `keep`, `drain`, `rest`, `merge`, `tombstones`, `shrink`, `reshard` or
    /// `order`.
    pub choice: &'static str,
    /// Where the tables were, in words.
    pub from: String,
    /// Where they go, in words.
    pub to: String,
    /// How urgent it was; due from 1.0 on. 0.0 where the choice does not depend on it; likewise
    /// below.
    pub score: f64,
    /// Bytes that go down, or are merged in their landing.
    pub bytes: u64,
    /// Bytes of the level that they go to which they overlap: what a merge rewrites for them.
    pub overlapped_bytes: u64,
    /// Runs that they are in.
    pub runs: u64,
    /// About which share of their entries newer ones hide: 0 to 1.
    pub superseded: f64,
}

impl From<Chosen> for Decision {
    fn from(Chosen { at_ms, range, from, to, why }: Chosen) -> Self {
        Self {
            at_ms,
            range: range.0,
            choice: why.choice.name(),
            from: from.to_string(),
            to: to.to_string(),
            score: why.score,
            bytes: why.bytes,
            overlapped_bytes: why.target_bytes,
            runs: why.runs as u64,
            superseded: why.superseded,
        }
    }
}

impl ShardInfo {
    fn of(range: &RangeVersion, view: ShardView, drains: LandingWork, keeps: LandingWork) -> Self {
        let bounds = range.shards.bounds();
        let before = usize::from(view.shard).checked_sub(1);
        let start = before.and_then(|at| bounds.get(at)).unwrap_or(&range.span.lo);
        Self {
            shard: view.shard,
            start: start.to_vec(),
            tables: view.tables as u64,
            runs: view.runs as u64,
            bytes: view.bytes,
            entries: view.entries,
            age_ms: view.age_ms,
            density: view.density,
            superseded: view.superseded,
            overlapped_bytes: view.main_bytes,
            drain_score: view.drain_score,
            keep_score: view.keep_score,
            drains: drains.into(),
            keeps: keeps.into(),
        }
    }
}

/// What compaction would decide on now, if nothing ran.
pub(crate) fn situation<'a>(
    (options, now_ms): (&'a CompactionOptions, u64),
    version: &'a Version,
    claims: &'a Claims,
    set_aside: &'a BTreeSet<SliceName>,
) -> Situation<'a> {
    let quiet_since_ms = quiet_since_ms(version);
    Situation {
        version,
        ranges: version.ranges(),
        options,
        claims,
        set_aside,
        now_ms,
        quiet_since_ms,
        resting: None,
        merges: true,
    }
}

impl LevelInfo {
    pub(crate) fn of(engine: &Engine) -> Vec<Self> {
        let version = engine.superversion().version(engine.tables().obsolete_files());
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let told = (&engine.config().compaction, engine.unix_ms());
        let situation = situation(told, &version, &claims, &set_aside);
        Self::of_version(&situation, &engine.counters().compactions)
    }

    /// Of the version that `situation` is about.
    pub(crate) fn of_version(situation: &Situation<'_>, counts: &CompactionCounts) -> Vec<Self> {
        let version = situation.version;
        let levels = version.ranges().iter().flat_map(|range| {
            let debts = debt(range, situation);
            let (work, rest_ms) = (
                counts.shards(range.id),
                rest_takes_ms(range, &range.own.compaction(situation.options)),
            );
            (0..)
                .zip(debts)
                .map(move |(level, debt_bytes)| Self {
                    debt_bytes,
                    rest_ms,
                    ..Self::of_level(range, level, &work, situation)
                })
                .collect::<Vec<_>>()
        });
        levels.collect()
    }

    fn of_level(
        range: &RangeVersion,
        level: u8,
        work: &[(Place, LandingWork, LandingWork)],
        situation: &Situation<'_>,
    ) -> Self {
        let (options, l0) = (&*range.own.compaction(situation.options), level == 0);
        let place = if l0 { Place::L0 } else { Place::Main(level) };
        let landing = if l0 { &[][..] } else { range.layers.landing(level) };
        let mut views = if l0 { Vec::new() } else { landing_of(range, level, situation) };
        let done = work.iter().filter_map(|(place, keeps, drains)| match *place {
            Place::Landing(at, shard) if at == level => Some((shard, (*drains, *keeps))),
            _ => None,
        });
        let done: BTreeMap<u16, _> = done.collect();
        for shard in done.keys() {
            if !views.iter().any(|view| view.shard == *shard) {
                views.push(ShardView { shard: *shard, ..ShardView::default() });
            }
        }
        views.sort_by_key(|view| view.shard);
        let shards = views.into_iter().map(|view| {
            let (drains, keeps) = done.get(&view.shard).copied().unwrap_or_default();
            ShardInfo::of(range, view, drains, keeps)
        });
        let shards: Vec<_> = shards.collect();
        let layers = || range.layers.at(place).iter().chain(landing);
        let sum = |of: fn(&Run) -> u64| layers().map(|layer| of(&layer.run)).sum::<u64>();
        let most = |most: u64| if most == u64::MAX { 0 } else { most };
        let score = score(range, place, options);
        let (bytes_max, entries_max) = match (score, l0) {
            (None, _) => (0, 0),
            (_, true) => (most(options.l0_bytes_max), most(options.l0_entries_max)),
            _ => (most(options.level_bytes(level)), most(options.level_entries(level))),
        };
        let landed = shards.iter().map(|shard| shard.runs).max().unwrap_or(0);
        Self {
            range: range.id.0,
            keyspace: name_of(range, situation.version.keyspaces()),
            range_start: range.span.lo.to_vec(),
            range_end: range.span.hi.as_ref().map(|end| end.to_vec()),
            level,
            tables: sum(|run| run.slices().len() as u64),
            runs: range.layers.at(place).len() as u64 + landed,
            entries: sum(Run::entries),
            tombstones: sum(Run::tombstones),
            bytes: sum(Run::bytes),
            bytes_max,
            entries_max,
            score: score.unwrap_or(0.0),
            debt_bytes: 0,
            rest_ms: None,
            landing_bytes: landing.iter().map(|layer| layer.run.bytes()).sum(),
            shards,
        }
    }
}
