//! What would be chosen now and why the rest waits, in words; and what was chosen, as a table.

use super::picture::age;
use super::{Level, Shard, plural, score};
use crate::{output, units};
use sluicedb::{Decision, Options};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// The meaning of each choice, in one line.
pub const CHOICES: [(&str, &str); 10] = [
    ("move", "tables go down a level as they are: nothing overlaps them there"),
    ("land", "tables go into the landing of the next level as they are, and wait there"),
    ("keep", "a shard of a landing is merged into itself, so that reads look into fewer runs"),
    ("drain", "a part of a landing is merged into its level: it is worth what it rewrites"),
    ("rest", "what waits is merged into its level, because nothing is written to the range"),
    ("merge", "tables are merged into the next level at once: little is rewritten for them"),
    ("tombstones", "a table full of tombstones, or with an old one, is merged with what they hide"),
    ("shrink", "a table of which little is in use is written anew, so that its file can go"),
    ("reshard", "the shards of a range get other bounds, because its keys did not spread"),
    ("manual", "somebody asked for it: `sluice compact`, or the program"),
];

/// A landing of which newer entries hide at least this share is worth a keep for that alone.
const HIDDEN_MUCH: f64 = 0.5;

/// Why one level, or one shard of a landing, is merged now or not.
#[derive(serde::Serialize)]
pub struct Reason {
    /// The range, if there are several.
    range: Option<u32>,
    level: u8,
    /// The shard of its landing. `None` for the level itself.
    shard: Option<u16>,
    /// `wait`, `down` (to the next level or its landing), `keep` or `drain`.
    choice: &'static str,
    /// The score of that choice. If it waits, the score that is closest to being due.
    score: f64,
    words: String,
}

impl Reason {
    fn is_due(&self) -> bool {
        self.choice != "wait"
    }

    fn at(&self) -> String {
        let range = self.range.map(|range| format!("range {range}, ")).unwrap_or_default();
        match self.shard {
            Some(shard) => format!("{range}L{} landing, shard {shard}", self.level),
            None => format!("{range}L{}", self.level),
        }
    }
}

/// What is due first, the most urgent first; then what waits, from top to bottom.
pub fn reasons(levels: &[Level], options: &Options) -> Vec<Reason> {
    let all = levels.iter().flat_map(|level| {
        let shards = level.shards.iter().map(|shard| of_shard(level, shard, options));
        shards.chain(std::iter::once(of_level(level))).collect::<Vec<_>>()
    });
    let (mut due, waiting): (Vec<_>, Vec<_>) = all.partition(Reason::is_due);
    due.sort_by(|a, b| b.score.total_cmp(&a.score));
    due.into_iter().chain(waiting).collect()
}

fn of_level(level: &Level) -> Reason {
    let size = match level.number {
        0 => units::count(level.held.runs),
        _ => units::bytes(level.held.bytes),
    };
    let (choice, words) = match &level.limit {
        None => ("wait", format!("stays; {size}, and nothing is below it")),
        Some(limit) => {
            let numbers = format!("{size} of {limit} (score {})", score(level.score));
            match level.score {
                s if s >= 1.0 && level.number == 0 => ("down", format!("goes down; {numbers}")),
                s if s >= 1.0 => ("down", format!("some of its tables go down; {numbers}")),
                _ => ("wait", format!("waits; {numbers}")),
            }
        }
    };
    let Level { range, number, score, .. } = *level;
    Reason { range, level: number, shard: None, choice, score, words }
}

fn of_shard(level: &Level, shard: &Shard, options: &Options) -> Reason {
    let (drains, keeps) = (shard.drain_score, shard.keep_score);
    let rewrites = format!(
        "rewrite {} for {}",
        units::bytes(shard.overlapped_bytes),
        units::bytes(shard.held.bytes)
    );
    let hidden = match shard.superseded {
        share if share >= 0.01 => format!(", {:.0} % of it hidden by newer entries", share * 100.0),
        _ => String::new(),
    };
    let runs = plural(shard.held.runs, "run");
    let (drain, keep) = (score(drains), score(keeps));
    let (choice, score, words) = if drains >= 1.0 && drains >= keeps {
        let words = format!("is drained; all of it would {rewrites}{hidden} (score {drain})");
        ("drain", drains, words)
    } else if keeps >= 1.0 {
        let why = if shard.superseded >= HIDDEN_MUCH { "" } else { ", which a read looks into" };
        let words = format!(
            "is kept; it has {runs}{why}{hidden} (score {keep}), \
             a drain would {rewrites} (score {drain})"
        );
        ("keep", keeps, words)
    } else {
        let words = format!(
            "waits; a drain would {rewrites}{hidden} (score {drain}), \
             a keep begins at {} runs (it has {}){}",
            keep_begins_at(shard, options),
            shard.held.runs,
            rests(level)
        );
        ("wait", drains.max(keeps), words)
    };
    Reason {
        range: level.range,
        level: level.number,
        shard: Some(shard.number),
        choice,
        score,
        words,
    }
}

/// When it goes down although it is not due.
fn rests(level: &Level) -> String {
    level.rest_ms.map_or_else(String::new, |ms| format!(", {} of rest drain it", age(ms)))
}

/// The number of runs from which on a waiting shard is kept. It is smaller while much waits, and
/// for old tables. It follows from the score, unless there is a single run, which is never kept.
fn keep_begins_at(shard: &Shard, options: &Options) -> u64 {
    let runs = if shard.keep_score > 0.0 {
        shard.held.runs as f64 / shard.keep_score
    } else {
        options.landing_batch as f64 * options.keep_trigger
    };
    // Subtracts what rounding may have added.
    (runs - 1e-6).ceil() as u64
}

/// The whole text, for people.
pub fn text(reasons: &[Reason]) -> String {
    let mut out = String::new();
    let due = reasons.iter().take_while(|reason| reason.is_due()).count();
    let (due, waiting) = reasons.split_at(due);
    list(&mut out, "Due now, the most urgent first:", due);
    list(&mut out, "Not due:", waiting);
    out.pop();
    out.pop();
    out
}

/// What was chosen, oldest first, and what the words mean.
pub fn decided(decisions: &[Decision]) -> String {
    let mut out = format!("{}\n\n", table(decisions, unix_ms()));
    for (name, what) in CHOICES {
        put(&mut out, &format!("  {name:<11} {what}"));
    }
    out.pop();
    out
}

fn put(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("writing to a String cannot fail");
}

fn list(out: &mut String, title: &str, reasons: &[Reason]) {
    put(out, title);
    for reason in reasons {
        put(out, &format!("  {}: {}", reason.at(), reason.words));
    }
    if reasons.is_empty() {
        put(out, "  nothing");
    }
    out.push('\n');
}

fn table(decisions: &[Decision], now_ms: u64) -> comfy_table::Table {
    let mut table = output::table(&[
        "ago", "range", "choice", "from", "to", "score", "bytes", "over", "runs", "hidden",
    ]);
    for decision in decisions {
        table.add_row([
            age(now_ms.saturating_sub(decision.at_ms)),
            decision.range.to_string(),
            decision.choice.to_owned(),
            decision.from.clone(),
            decision.to.clone(),
            score(decision.score),
            units::bytes(decision.bytes),
            units::bytes(decision.overlapped_bytes),
            units::count(decision.runs),
            format!("{:.0} %", decision.superseded * 100.0),
        ]);
    }
    table
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;

    #[test]
    fn what_is_due_comes_first_and_the_rest_is_told_why_it_waits() {
        let reasons = reasons(&made_up(), &Options::default());
        let want = "\
Due now, the most urgent first:
  L1 landing, shard 2: is drained; all of it would rewrite 24.0 MiB for 12.0 MiB (score 2.00)
  L2: some of its tables go down; 3.9 GiB of 3.1 GiB (score 1.25)
  L1 landing, shard 3: is kept; it has 9 runs, 55 % of it hidden by newer entries (score 1.12), \
a drain would rewrite 24.0 MiB for 7.0 MiB (score 0.99)

Not due:
  L0: waits; 3 of 4 runs (score 0.75)
  L1 landing, shard 0: waits; a drain would rewrite 24.0 MiB for 3.0 MiB (score 0.50), \
a keep begins at 8 runs (it has 1), 12 s of rest drain it
  L1: waits; 310.0 MiB of 320.0 MiB (score 0.97)
  L7: stays; 10.5 TiB, and nothing is below it
";
        assert_eq!(text(&reasons), want.trim_end());
    }

    #[test]
    fn where_a_keep_begins_follows_from_its_score() {
        let options = Options::default();
        let mut shards = made_up().remove(1).shards;
        for (runs, score, want) in
            [(1, 0.0, 8), (3, 3.0 / 8.0, 8), (5, 5.0 / 7.2, 8), (6, 6.0 / 6.4, 7)]
        {
            (shards[0].held.runs, shards[0].keep_score) = (runs, score);
            assert_eq!(keep_begins_at(&shards[0], &options), want, "{runs} runs, score {score}");
        }
    }
}
