//! What is in each level and in front of it, what was done with it, and why it is merged or not.

use crate::keyspaces::name_of;
#[cfg(feature = "serde")]
use crate::stats::{as_optional_text, as_text};
use sluicedb_actors::compaction_planner::CompactionCounts;
use sluicedb_actors::compaction_planner::counts::{LandingCounts, LandingWork, LevelCounts};
use sluicedb_actors::compaction_planner::decisions::Decision as Chosen;
use sluicedb_actors::engine::Engine;
use sluicedb_storage::compact::{
    Claims, CompactionOptions, ShardView, Situation, debt, landing_of, quiet_needed_ms,
    quiet_since_ms, score,
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
    /// The name of the range's keyspace.
    pub keyspace: String,
    /// The first key of the range; empty for the first range of the keyspace. Serialized as text:
    /// bytes other than printable ASCII as `\xNN`.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub range_start: Vec<u8>,
    /// The first key after the range; `None` for the last range of the keyspace. Serialized
    /// likewise.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_optional_text"))]
    pub range_end: Option<Vec<u8>>,
    /// 0 for freshly flushed, overlapping tables. Each of 1.. is one sorted run.
    pub level: u8,
    /// Tables in it. This and the following counts include its landing.
    pub tables: u64,
    /// Sorted runs that the tables form: the most places that a read must look into.
    pub runs: u64,
    /// Entries in them.
    pub entries: u64,
    /// The tombstones among them.
    pub tombstones: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Size at which the level, without its landing, is merged into the next, in bytes. 0 if its
    /// bytes never cause that.
    pub bytes_max: u64,
    /// Number of entries at which it is merged. 0 if its entries never cause that.
    pub entries_max: u64,
    /// How full it is, without its landing, by the limit that it is closest to. A compaction is due
    /// at 1.0. Always 0.0 for the deepest possible level.
    pub score: f64,
    /// How many of its bytes are in its landing.
    pub landing_bytes: u64,
    /// About how many bytes compactions must write until nothing is due in the level or in its
    /// landing.
    pub debt_bytes: u64,
    /// When nothing has been written to the range for this long, in milliseconds, what waits in its
    /// L0 and its landings is merged. It is longer if that merge rewrites more. `None` if nothing
    /// waits, or if [`Options::rest_after_ms`](crate::Options::rest_after_ms) is 0.
    pub rest_ms: Option<u64>,
    /// The shards of its landing that hold something, or that were merged since the database was
    /// opened.
    pub shards: Vec<ShardInfo>,
}

/// One shard of the landing in front of a level. Its tables got there without being rewritten, and
/// wait until a merge into the level is worth what it rewrites.
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
    /// Entries in them. An estimate for parts of tables.
    pub entries: u64,
    /// How long the oldest table has been there, in milliseconds.
    pub age_ms: u64,
    /// About which share of its entries is hidden by newer ones or is a tombstone: 0 to 1, and
    /// above 1 if both are many.
    pub density: f64,
    /// About which share of its entries is hidden by newer ones in the shard: 0 to 1.
    pub superseded: f64,
    /// Bytes of the level that it overlaps: what a merge of the whole shard rewrites.
    pub overlapped_bytes: u64,
    /// How urgent it is to merge it into its level (a drain). Due from 1.0 on.
    pub drain_score: f64,
    /// How urgent it is to merge it into itself (a keep). Due from 1.0 on.
    pub keep_score: f64,
    /// Merges of the shard into its level, since the database was opened. A requested merge may
    /// take several shards, and counts in each. When the bounds between shards move, the counts
    /// stay with the shard numbers.
    pub drains: LandingStats,
    /// Merges of the shard into itself.
    pub keeps: LandingStats,
}

/// Merges of landings of one kind, since the database was opened.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LandingStats {
    /// Merges that finished.
    pub runs: u64,
    /// Tables of landings that they merged.
    pub tables: u64,
    /// Bytes of those tables.
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

/// What happened to one level of all ranges, with its landing, since the database was opened.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// 0 for L0.
    pub level: u8,
    /// Bytes of tables that were written into the level or its landing: by flushes into L0,
    /// otherwise by merges.
    pub bytes_written: u64,
    /// Bytes of its tables that merges read.
    pub bytes_read: u64,
    /// Bytes of tables that reached it unchanged: they landed, or nothing overlapped them.
    pub bytes_taken_over: u64,
}

impl LevelStats {
    /// All levels that have something, and at least `depth` of them.
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

/// A decision of the compaction planner, and the numbers that it compared.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The range's number.
    pub range: u32,
    /// What was chosen: `move`, `land`, `keep`, `drain`, `rest`, `merge`, `tombstones`, `shrink`,
    /// `reshard` or `manual`.
    pub choice: &'static str,
    /// The place of the tables, in words.
    pub from: String,
    /// Where they go, in words.
    pub to: String,
    /// How urgent it was. Due from 1.0 on. This and the following numbers are 0 if the choice does
    /// not depend on them.
    pub score: f64,
    /// Bytes that are merged or moved down, or merged in their landing.
    pub bytes: u64,
    /// Bytes that they overlap in the level that they go to: what a merge rewrites for them.
    pub overlapped_bytes: u64,
    /// Sorted runs that they form.
    pub runs: u64,
    /// About which share of their entries is hidden by newer ones: 0 to 1.
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

/// What compaction would decide now if no job ran.
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
        bursts: None,
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

    /// The levels of the version in `situation`.
    pub(crate) fn of_version(situation: &Situation<'_>, counts: &CompactionCounts) -> Vec<Self> {
        let version = situation.version;
        let levels = version.ranges().iter().flat_map(|range| {
            let debts = debt(range, situation);
            let (work, rest_ms) = (
                counts.shards(range.id),
                quiet_needed_ms(range, &range.own.compaction(situation.options)),
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
