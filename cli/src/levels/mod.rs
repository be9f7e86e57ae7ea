//! `levels`: what each level holds, as a table and a picture; and why it is merged or not, in
//! words.
//!
//! Limits and scores are those of the options with which the command opens the database.

mod picture;
mod why;

pub use why::decided;

use crate::args::LevelsArgs;
use crate::inspect::{range_name, to_json};
use crate::outcome::Result;
use crate::{output, units};
use comfy_table::Table;
use serde_json::json;
use sluicedb::{LevelInfo, Options, ShardInfo, Stats};
use std::collections::BTreeSet;

pub async fn run(args: LevelsArgs) -> Result {
    let db = args.store.read_only().await?;
    let (levels, stats) = (db.level_info(), db.stats());
    drop(db);
    let options = args.store.options()?;
    let shown = Level::all(&levels, &options);
    let reasons = why::reasons(&shown, &options);
    if args.json {
        let levels = to_json(&levels);
        if !args.why {
            return output::json(&levels);
        }
        return output::json(&json!({"levels": levels, "why": to_json(&reasons)}));
    }
    let (table, sums) = (table(&levels), sums(&stats));
    output::line(&format!("{table}\n\n{}\n\n{sums}", picture::draw(&shown)))?;
    if args.why {
        output::line(&format!("\n{}", why::text(&reasons)))?;
    }
    Ok(())
}

/// The costs: space, reads, and merges that are due.
fn sums(stats: &Stats) -> String {
    let bytes = units::bytes;
    format!(
        "space: {} for about {} that can be read, times {:.2}\n\
         reads: {} at most\n\
         merges that are due: about {} to write",
        bytes(stats.table_file_bytes),
        bytes(stats.live_bytes),
        stats.space_amplification(),
        plural(stats.read_runs_max, "run"),
        bytes(stats.compaction_debt_bytes),
    )
}

/// What each level holds, its landing included.
pub fn table(levels: &[LevelInfo]) -> Table {
    let mut table =
        output::table(&["level", "tables", "entries", "tombstones", "size", "limit", "score"]);
    let several = has_several_ranges(levels);
    for level in levels {
        let name = if several {
            format!("{} L{}", range_of(level), level.level)
        } else {
            format!("L{}", level.level)
        };
        let limit =
            if level.bytes_max == 0 { "by count".into() } else { units::bytes(level.bytes_max) };
        table.add_row([
            name,
            units::count(level.tables),
            units::count(level.entries),
            units::count(level.tombstones),
            units::bytes(level.bytes),
            limit,
            format!("{:.2}", level.score),
        ]);
    }
    table
}

fn has_several_ranges(levels: &[LevelInfo]) -> bool {
    levels.iter().map(|level| level.range).collect::<BTreeSet<_>>().len() > 1
}

fn range_of(level: &LevelInfo) -> String {
    let LevelInfo { keyspace, range, range_start, range_end, .. } = level;
    range_name(keyspace, *range, range_start, range_end.as_deref())
}

/// One level as it is shown. Its landing is shown separately.
struct Level {
    /// The range, if there are several.
    range: Option<u32>,
    range_name: String,
    number: u8,
    held: Held,
    score: f64,
    /// Its limit, in words. `None` without a limit.
    limit: Option<String>,
    /// The rest after which what waits is merged, if it is.
    rest_ms: Option<u64>,
    /// The shards of its landing that hold something.
    shards: Vec<Shard>,
}

#[derive(Clone, Copy, Default)]
struct Held {
    runs: u64,
    tables: u64,
    bytes: u64,
}

/// One shard of a landing.
struct Shard {
    number: u16,
    held: Held,
    age_ms: u64,
    superseded: f64,
    overlapped_bytes: u64,
    drain_score: f64,
    keep_score: f64,
}

impl Level {
    fn all(levels: &[LevelInfo], options: &Options) -> Vec<Self> {
        let several = has_several_ranges(levels);
        levels.iter().map(|level| Self::of(level, several, options)).collect()
    }

    fn of(level: &LevelInfo, several: bool, options: &Options) -> Self {
        // The list includes shards that were drained.
        let shards = level.shards.iter().filter(|shard| shard.tables > 0).map(Shard::of);
        let shards: Vec<_> = shards.collect();
        let landed = landed(&shards);
        let limit = match (level.level, level.bytes_max, level.entries_max) {
            (0, ..) => Some(plural(options.l0_trigger_tables as u64, "run")),
            (_, 0, 0) => None,
            (_, 0, entries) => Some(format!("{} entries", units::count(entries))),
            (_, bytes, _) => Some(units::bytes(bytes)),
        };
        Self {
            range: several.then_some(level.range),
            range_name: range_of(level),
            number: level.level,
            held: Held {
                runs: level.runs.saturating_sub(landed.runs),
                tables: level.tables.saturating_sub(landed.tables),
                bytes: level.bytes.saturating_sub(landed.bytes),
            },
            score: level.score,
            limit,
            rest_ms: level.rest_ms,
            shards,
        }
    }
}

impl Shard {
    fn of(shard: &ShardInfo) -> Self {
        Self {
            number: shard.shard,
            held: Held { runs: shard.runs, tables: shard.tables, bytes: shard.bytes },
            age_ms: shard.age_ms,
            superseded: shard.superseded,
            overlapped_bytes: shard.overlapped_bytes,
            drain_score: shard.drain_score,
            keep_score: shard.keep_score,
        }
    }
}

/// A whole landing. Its shards share no key, so a read meets as many runs as the deepest has.
fn landed(shards: &[Shard]) -> Held {
    shards.iter().fold(Held::default(), |all, Shard { held, .. }| Held {
        runs: all.runs.max(held.runs),
        tables: all.tables + held.tables,
        bytes: all.bytes + held.bytes,
    })
}

fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", units::count(n), if n == 1 { "" } else { "s" })
}

/// A score with two or three digits.
fn score(score: f64) -> String {
    match score {
        s if s < 10.0 => format!("{s:.2}"),
        s if s < 100.0 => format!("{s:.1}"),
        _ => ">99".to_owned(),
    }
}

/// The levels in the tests of the picture and of the words.
#[cfg(test)]
fn made_up() -> Vec<Level> {
    const MIB: u64 = 1 << 20;
    let level = |number, held, score, limit: Option<&str>, shards| Level {
        range: None,
        range_name: "range 1 [..)".to_owned(),
        number,
        held,
        score,
        limit: limit.map(str::to_owned),
        rest_ms: Some(12_000),
        shards,
    };
    let held = |runs, tables, mib| Held { runs, tables, bytes: mib * MIB };
    let shard = |number, held, age_s: u64, scores: (f64, f64)| Shard {
        number,
        held,
        age_ms: age_s * 1000,
        superseded: 0.0,
        overlapped_bytes: 24 * MIB,
        drain_score: scores.0,
        keep_score: scores.1,
    };
    let hidden = Shard { superseded: 0.55, ..shard(3, held(9, 1200, 7), 5000, (0.99, 1.125)) };
    let shards = vec![
        shard(0, held(1, 1, 3), 0, (0.5, 0.0)),
        shard(2, held(3, 3, 12), 95, (2.0, 0.3)),
        hidden,
    ];
    vec![
        level(0, held(3, 12, 24), 0.75, Some("4 runs"), Vec::new()),
        level(1, held(1, 40, 310), 0.97, Some("320.0 MiB"), shards),
        level(2, held(1, 60, 4000), 1.25, Some("3.1 GiB"), Vec::new()),
        level(7, held(1, 170_000, 11_000_000), 0.0, None, Vec::new()),
    ]
}
