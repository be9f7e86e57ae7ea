//! The report of a benchmark: the result, and everything one must know to judge it.

use super::args::{BenchArgs, Order, Workload};
use crate::machine::Machine;
use crate::{output, units};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use sluicedb::Stats;
use std::time::Duration;

#[derive(Debug)]
pub struct Report {
    pub args: BenchArgs,
    pub machine: Machine,
    pub disk_bytes: u64,
    pub latencies: Histogram<u64>,
    /// The heartbeat before the work began.
    pub idle: Histogram<u64>,
    pub heartbeat: Histogram<u64>,
    pub entries: u64,
    pub bytes: u64,
    pub missing: u64,
    pub elapsed: Duration,
    pub before: Stats,
    pub after: Stats,
}

const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Report {
    /// User bytes of the entries that existed or were written.
    fn data_bytes(&self) -> u64 {
        let entries = match (self.args.workload, self.args.order) {
            (Workload::Fill, Order::Random | Order::Sequential) => self.entries,
            _ => self.args.entries,
        };
        entries * (self.args.key_bytes + self.args.value_bytes)
    }

    fn workload(&self) -> String {
        let args = &self.args;
        let name = match args.workload {
            Workload::Fill => "fill".to_owned(),
            Workload::Read => "read".to_owned(),
            Workload::Scan => format!("scan of {}", args.scan_entries),
            Workload::Mixed => format!("mixed ({} % reads)", args.reads),
        };
        let order = match args.order {
            Order::Random => "random".to_owned(),
            Order::Sequential => "sequential".to_owned(),
            Order::Zipf => format!("zipf {}", args.theta),
        };
        let batch =
            if args.batch > 1 { format!(", batches of {}", args.batch) } else { String::new() };
        let (key, value) = (units::bytes(args.key_bytes), units::bytes(args.value_bytes));
        format!("{name}, {order}{batch}, {} tasks, {key} keys, {value} values", args.tasks)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let args = &self.args;
        let operations = self.latencies.len();
        let fits = if self.data_bytes() <= args.memory { "fits in" } else { "larger than" };
        let mut head = vec![
            format!("  machine     {}", self.machine.describe()),
            format!("  workload    {}", self.workload()),
            format!("  durability  {}", args.durability.name()),
            format!(
                "  data        {} of keys and values, {} on disk; {fits} the budget of {}",
                units::bytes(self.data_bytes()),
                units::bytes(self.disk_bytes),
                units::bytes(args.memory)
            ),
        ];
        if cfg!(debug_assertions) {
            head.push("  build       debug: these numbers mean nothing, use --release".to_owned());
        }
        let mut result = output::table(&["result", ""]);
        result.add_row(["operations".to_owned(), units::count(operations)]);
        result.add_row(["time".to_owned(), units::seconds(self.elapsed)]);
        result.add_row(["operations/s".to_owned(), units::rate(operations, self.elapsed)]);
        result.add_row(["entries/s".to_owned(), units::rate(self.entries, self.elapsed)]);
        result.add_row(["keys and values".to_owned(), units::byte_rate(self.bytes, self.elapsed)]);
        let mut latency =
            output::table(&["latency", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"]);
        for (name, histogram) in [
            ("operation", &self.latencies),
            ("heartbeat late", &self.heartbeat),
            ("  before the work", &self.idle),
        ] {
            let mut row = vec![name.to_owned()];
            row.extend(
                PERCENTILES.iter().map(|(_, q)| units::nanos(histogram.value_at_quantile(*q))),
            );
            row.push(units::nanos(histogram.max()));
            row.push(units::nanos(histogram.mean() as u64));
            latency.add_row(row);
        }
        format!("{}\n\n{result}\n\n{latency}\n\n{}", head.join("\n"), self.engine())
    }

    /// What the engine did during the measurement.
    fn engine(&self) -> String {
        let (before, after) = (&self.before, &self.after);
        let log = after.log_bytes - before.log_bytes;
        let tables = after.flush_bytes + after.compaction_bytes_written
            - before.flush_bytes
            - before.compaction_bytes_written;
        let lookups =
            after.cache_hits + after.cache_misses - before.cache_hits - before.cache_misses;
        let pinned = match after.pinned_obsolete_bytes {
            0 => String::new(),
            pinned => format!("\n  pinned      {} of obsolete tables", units::bytes(pinned)),
        };
        format!(
            "  engine      {} log syncs, {} to the log, {} to tables, {} waits for room, \
             cache {} of {}{pinned}",
            units::count(after.log_syncs - before.log_syncs),
            units::bytes(log),
            units::bytes(tables),
            units::count(
                after.waits_local + after.waits_global - before.waits_local - before.waits_global
            ),
            units::count(after.cache_hits - before.cache_hits),
            units::count(lookups),
        )
    }

    /// The report for machines. Times are in nanoseconds.
    pub fn json(&self) -> Value {
        let args = &self.args;
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let seconds = self.elapsed.as_secs_f64();
        json!({
            "machine": self.machine.json(),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "workload": name(&args.workload), "order": name(&args.order), "theta": args.theta,
            "reads_percent": args.reads, "tasks": args.tasks, "batch": args.batch,
            "key_bytes": args.key_bytes, "value_bytes": args.value_bytes,
            "scan_entries": args.scan_entries, "durability": args.durability.name(),
            "memory_bytes": args.memory, "seed": args.seed,
            "data_bytes": self.data_bytes(), "disk_bytes": self.disk_bytes,
            "operations": self.latencies.len(), "entries": self.entries, "bytes": self.bytes,
            "missing": self.missing, "seconds": seconds,
            "operations_per_second": self.latencies.len() as f64 / seconds,
            "entries_per_second": self.entries as f64 / seconds,
            "latency_ns": percentiles(&self.latencies),
            "heartbeat_late_ns": percentiles(&self.heartbeat),
            "heartbeat_idle_late_ns": percentiles(&self.idle),
            "stats": crate::inspect::to_json(&self.after),
        })
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    let mut json: serde_json::Map<String, Value> = PERCENTILES
        .iter()
        .map(|(name, q)| ((*name).to_owned(), Value::from(histogram.value_at_quantile(*q))))
        .collect();
    json.insert("max".into(), histogram.max().into());
    json.insert("mean".into(), histogram.mean().into());
    Value::Object(json)
}
