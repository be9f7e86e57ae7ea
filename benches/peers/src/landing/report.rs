//! The results, for people and for machines.

use crate::engines::{Account, Level};
use crate::keys::Plan;
use crate::measure::{Row, State};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use sluicedb_bench_peers::median;
use std::time::Duration;

/// One line of the table. `None`: this engine does not say.
struct Metric {
    /// In the table; the JSON has its letters and digits, and `_` between them.
    name: &'static str,
    value: Option<f64>,
    decimals: usize,
}

fn micros(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1000.0
}

fn get_micros(state: &State, quantile: f64) -> Option<f64> {
    median(state.gets.iter().map(|gets| micros(&gets.latencies, quantile)).collect())
}

fn gets_per_second(state: &State) -> Option<f64> {
    median(state.gets.iter().map(|gets| per_second(gets.latencies.len(), gets.took)).collect())
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn metrics(plan: &Plan, row: &Row) -> Vec<Metric> {
    let Row { settled, rested, .. } = row;
    let account = &settled.account;
    let per_user_byte = |bytes: u64| bytes as f64 / plan.user_bytes() as f64;
    let per_live_byte = |bytes: u64| bytes as f64 / plan.live_bytes() as f64;
    let counted = |state: &State| {
        let Account { log_bytes, flush_bytes, compaction_bytes, .. } = state.account;
        per_user_byte(log_bytes + flush_bytes + compaction_bytes)
    };
    let sum =
        |state: &State, of: fn(&Level) -> u64| -> u64 { state.account.levels.iter().map(of).sum() };
    let in_tables = |state| per_live_byte(sum(state, |level| level.bytes));
    let mut metrics = Vec::new();
    let mut add = |name, value, decimals| metrics.push(Metric { name, value, decimals });
    add("puts/s", Some(per_second(plan.puts, row.fill)), 0);
    add("puts/s, settled", Some(per_second(plan.puts, row.fill + row.settle)), 0);
    add("settle, s", Some(row.settle.as_secs_f64()), 2);
    add("put p50, us", Some(micros(&row.puts, 0.5)), 2);
    add("put p99, us", Some(micros(&row.puts, 0.99)), 2);
    add("put p99.9, us", Some(micros(&row.puts, 0.999)), 2);
    add("put max, ms", Some(row.puts.max() as f64 / 1e6), 1);
    add("stalls", account.stalls.map(|stalls| stalls as f64), 0);
    add("stalled, writer s", Some(account.stall_micros as f64 / 1e6), 2);
    add("written per user byte", Some(counted(settled)), 2);
    add("  log", Some(per_user_byte(account.log_bytes)), 2);
    add("  flush", Some(per_user_byte(account.flush_bytes)), 2);
    add("  compaction", Some(per_user_byte(account.compaction_bytes)), 2);
    add("written, /proc/self/io", row.written.map(per_user_byte), 2);
    add("get beside puts p50, us", Some(micros(&row.gets_beside, 0.5)), 1);
    add("get beside puts p99, us", Some(micros(&row.gets_beside, 0.99)), 1);
    add("get p50, us", get_micros(settled, 0.5), 1);
    add("get p99, us", get_micros(settled, 0.99), 1);
    add("gets/s", gets_per_second(settled), 0);
    add("scan, M entries/s", Some(per_second(plan.live, settled.scan) / 1e6), 2);
    add("largest size per live byte", Some(per_live_byte(row.largest)), 2);
    add("settled size per live byte", Some(per_live_byte(settled.size)), 2);
    add("  in tables", Some(in_tables(settled)), 2);
    add("runs at the end", Some(sum(settled, |level| level.runs) as f64), 0);
    add("tables at the end", Some(sum(settled, |level| level.tables) as f64), 0);
    add("comes to rest in, s", Some(row.rest.as_secs_f64()), 2);
    add("at rest: written per user byte", Some(counted(rested)), 2);
    add("at rest: get p50, us", get_micros(rested, 0.5), 1);
    add("at rest: get p99, us", get_micros(rested, 0.99), 1);
    add("at rest: gets/s", gets_per_second(rested), 0);
    add("at rest: scan, M entries/s", Some(per_second(plan.live, rested.scan) / 1e6), 2);
    add("at rest: size per live byte", Some(per_live_byte(rested.size)), 2);
    add("at rest: in tables", Some(in_tables(rested)), 2);
    add("at rest: runs", Some(sum(rested, |level| level.runs) as f64), 0);
    metrics
}

/// Each configuration a column, and after those that have a peer in this run their ratio to it.
pub fn print(plan: &Plan, rows: &[Row]) {
    println!(
        "\n{}: {} puts to {} keys, {} of them different; {} MB written, {} MB live",
        plan.distribution.name(),
        plan.puts,
        plan.keys,
        plan.live,
        plan.user_bytes() / 1_000_000,
        plan.live_bytes() / 1_000_000,
    );
    let peer = rows.iter().find(|row| row.config.is_peer());
    let peer = peer.map(|row| (row.config.to_string(), metrics(plan, row)));
    let mut lines = vec![vec![String::new()]];
    for (index, row) in rows.iter().enumerate() {
        let compared = peer.as_ref().filter(|_| !row.config.is_peer());
        lines[0].push(row.config.to_string());
        lines[0].extend(compared.map(|(name, _)| format!("x {name}")));
        for (at, metric) in metrics(plan, row).into_iter().enumerate() {
            if index == 0 {
                lines.push(vec![metric.name.to_owned()]);
            }
            let decimals = metric.decimals;
            let shown = metric.value.map_or("-".into(), |value| format!("{value:.decimals$}"));
            lines[at + 1].push(shown);
            if let Some((_, peer)) = compared {
                let ratio = metric.value.zip(peer[at].value).filter(|(_, peer)| *peer != 0.0);
                lines[at + 1].push(
                    ratio.map_or(String::new(), |(value, peer)| format!("{:.2}", value / peer)),
                );
            }
        }
    }
    let mut widths = vec![0; lines[0].len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.len());
        }
    }
    for line in &lines {
        print!("{:<1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            print!("  {cell:>width$}");
        }
        println!();
    }
    for row in rows {
        println!("{}: {}", row.config, levels(&row.settled.account.levels));
        println!("{}, at rest: {}", row.config, levels(&row.rested.account.levels));
        if row.verbose {
            println!("{}", row.rested.account.notes);
        }
    }
}

fn levels(levels: &[Level]) -> String {
    let one = |(number, level): (usize, &Level)| {
        format!(
            "L{number} {} MiB in {} tables, {} runs",
            level.bytes >> 20,
            level.tables,
            level.runs
        )
    };
    levels.iter().enumerate().map(one).collect::<Vec<_>>().join("; ")
}

pub fn json(plan: &Plan, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let name = |name: &str| {
            let words = name.split(|c: char| !c.is_ascii_alphanumeric());
            words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
        };
        let values: Map<String, Value> = metrics(plan, row)
            .into_iter()
            .map(|metric| (name(metric.name), Value::from(metric.value)))
            .collect();
        let level = |level: &Level| json!([level.tables, level.runs, level.bytes]);
        let of = |state: &State| state.account.levels.iter().map(level).collect::<Vec<_>>();
        json!({
            "engine": row.config.to_string(),
            "metrics": values,
            "levels_tables_runs_bytes": of(&row.settled),
            "at_rest_levels_tables_runs_bytes": of(&row.rested),
            "notes": row.rested.account.notes,
        })
    };
    json!({
        "keys": plan.distribution.name(),
        "puts": plan.puts, "put_rate": plan.rate, "key_count": plan.keys, "live": plan.live,
        "user_bytes": plan.user_bytes(), "live_bytes": plan.live_bytes(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
