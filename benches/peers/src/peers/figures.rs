//! What was measured of one row with one engine, as it goes from the child to its parent, and into
//! the file.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sluicedb_bench_peers::drive::Driven;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figures {
    pub engine: String,
    pub row: String,
    pub values: BTreeMap<String, f64>,
}

/// The names of values.
pub mod name {
    pub const OPERATIONS: &str = "operations_per_s";
    pub const ENTRIES: &str = "entries_per_s";
    pub const P50: &str = "p50_us";
    pub const P99: &str = "p99_us";
    pub const P999: &str = "p99.9_us";
    pub const MAX: &str = "max_us";
    pub const BEAT_P50: &str = "heartbeat_p50_ms";
    pub const BEAT_P999: &str = "heartbeat_p99.9_ms";
    pub const BEAT_MAX: &str = "heartbeat_max_ms";
    /// Beats that were counted.
    pub const BEATS: &str = "heartbeats";
    pub const CPU: &str = "cpu_us_per_operation";
    pub const PEAK: &str = "peak_mib";
    pub const ANONYMOUS: &str = "anonymous_mib";
    pub const SETTLE: &str = "settle_s";
    pub const WRITTEN: &str = "write_amplification";
    /// From the disk, what was read ahead included.
    pub const READ: &str = "read_kib_per_operation";
    pub const SPACE: &str = "space_amplification";
    pub const CLOSE: &str = "close_ms";
    pub const OPEN: &str = "open_ms";
    /// Share of what was acknowledged that was there after a crash of the process.
    pub const KEPT: &str = "kept";
}

impl Figures {
    pub fn new(engine: &str, row: &str) -> Self {
        Self { engine: engine.into(), row: row.into(), values: BTreeMap::new() }
    }

    pub fn set(&mut self, name: &str, value: f64) -> &mut Self {
        self.values.insert(name.into(), value);
        self
    }

    pub fn set_millis(&mut self, name: &str, time: Duration) -> &mut Self {
        self.set(name, time.as_secs_f64() * 1e3)
    }

    pub fn set_mib(&mut self, name: &str, bytes: Option<u64>) -> &mut Self {
        if let Some(bytes) = bytes {
            self.set(name, bytes as f64 / f64::from(1 << 20));
        }
        self
    }

    pub fn set_driven(&mut self, driven: &Driven) -> &mut Self {
        let (operations, seconds) = (driven.operations() as f64, driven.took.as_secs_f64());
        let micros = |quantile| driven.latencies.value_at_quantile(quantile) as f64 / 1e3;
        self.set(name::OPERATIONS, operations / seconds)
            .set(name::ENTRIES, driven.entries as f64 / seconds)
            .set(name::P50, micros(0.5))
            .set(name::P99, micros(0.99))
            .set(name::P999, micros(0.999))
            .set(name::MAX, driven.latencies.max() as f64 / 1e3)
            .set(name::CPU, driven.cpu.as_secs_f64() * 1e6 / operations)
    }

    pub fn set_lateness(&mut self, late: &Histogram<u64>) -> &mut Self {
        let millis = |quantile| late.value_at_quantile(quantile) as f64 / 1e6;
        self.set(name::BEATS, late.len() as f64)
            .set(name::BEAT_P50, millis(0.5))
            .set(name::BEAT_P999, millis(0.999))
            .set(name::BEAT_MAX, late.max() as f64 / 1e6)
    }
}
