//! The levels of each range from top to bottom, each with the landing in front of it, in 80
//! columns.
//!
//! Plain ASCII, so that a log or a bug report shows it as the terminal does. A full bar means due.

use super::{Held, Level, Shard, landed, score};
use crate::units;
use std::fmt::Write;

const COLUMNS: usize = 80;
const LEVEL_CELLS: usize = 10;
const SHARD_CELLS: usize = 5;

pub fn draw(levels: &[Level]) -> String {
    let mut out = String::new();
    for range in levels.chunk_by(|a, b| a.range == b.range) {
        if !out.is_empty() {
            out.push('\n');
        }
        line(&mut out, &shortened(&range[0].range_name));
        line(&mut out, &row("", ["runs", "tables", "size", "age"].map(str::to_owned), ""));
        for level in range {
            landing(&mut out, level);
            let name = format!("L{}", level.number);
            let full = match &level.limit {
                Some(limit) => {
                    let (bar, score) = (bar(level.score, LEVEL_CELLS), score(level.score));
                    format!("{bar} {score} of {limit}")
                }
                None => "no limit".to_owned(),
            };
            line(&mut out, &row(&name, cells(level.held, None), &full));
        }
    }
    out.pop();
    out
}

fn landing(out: &mut String, level: &Level) {
    if level.number == 0 {
        return;
    }
    let name = format!("landing of L{}", level.number);
    if level.shards.is_empty() {
        line(out, &row(&name, cells(Held::default(), None), ""));
        return;
    }
    let oldest = level.shards.iter().map(|shard| shard.age_ms).max();
    line(out, &row(&name, cells(landed(&level.shards), oldest), ""));
    for Shard { number, held, age_ms, drain_score, keep_score, .. } in &level.shards {
        let near = |what, near| format!("{what} {} {:<4}", bar(near, SHARD_CELLS), score(near));
        let both = format!("{}  {}", near("drain", *drain_score), near("keep", *keep_score));
        line(out, &row(&format!("  shard {number}"), cells(*held, Some(*age_ms)), &both));
    }
}

fn cells(held: Held, age_ms: Option<u64>) -> [String; 4] {
    if held.tables == 0 {
        return ["-", "-", "-", ""].map(str::to_owned);
    }
    let age = age_ms.map(age).unwrap_or_default();
    [units::count(held.runs), units::count(held.tables), units::bytes(held.bytes), age]
}

fn row(name: &str, [runs, tables, size, age]: [String; 4], rest: &str) -> String {
    format!("{name:<14}{runs:>5}{tables:>8}{size:>11}{age:>7}  {rest}")
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{}", text.trim_end()).expect("writing to a String cannot fail");
}

/// The name of a range, cut if its keys are very long.
fn shortened(name: &str) -> String {
    if name.chars().count() <= COLUMNS {
        return name.to_owned();
    }
    name.chars().take(COLUMNS - 3).chain("...".chars()).collect()
}

/// The bar is full from 1.0 on, and not before.
fn bar(score: f64, cells: usize) -> String {
    let full = (score * cells as f64).clamp(0.0, cells as f64) as usize;
    format!("{}{}", "#".repeat(full), ".".repeat(cells - full))
}

/// How long ago, in the largest unit that is not zero.
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up;
    use super::*;

    #[test]
    fn the_levels_are_drawn_from_top_to_bottom() {
        let want = "\
range 1 [..)
               runs  tables       size    age
L0                3      12   24.0 MiB         #######... 0.75 of 4 runs
landing of L1     9   1,204   22.0 MiB 83 min
  shard 0         1       1    3.0 MiB    0 s  drain ##... 0.50  keep ..... 0.00
  shard 2         3       3   12.0 MiB   95 s  drain ##### 2.00  keep #.... 0.30
  shard 3         9   1,200    7.0 MiB 83 min  drain ####. 0.99  keep ##### 1.12
L1                1      40  310.0 MiB         #########. 0.97 of 320.0 MiB
landing of L2     -       -          -
L2                1      60    3.9 GiB         ########## 1.25 of 3.1 GiB
landing of L7     -       -          -
L7                1 170,000   10.5 TiB         no limit";
        assert_eq!(draw(&made_up()), want);
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        let mut levels = made_up();
        levels[0].range_name = "k".repeat(1000);
        let full = Held { runs: 64, tables: 160_000, bytes: (1 << 30) - 1 };
        for level in &mut levels {
            (level.held, level.score) = (full, f64::MAX);
            level.limit = Some("1023.9 MiB".to_owned());
            for shard in &mut level.shards {
                (shard.held, shard.age_ms) = (full, 7_100_000);
                (shard.number, shard.drain_score, shard.keep_score) = (1023, f64::MAX, 99.94);
            }
        }
        let text = draw(&levels);
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= COLUMNS), "{text}");
    }
}
