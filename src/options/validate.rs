//! Checks of the fields.

use super::derived::{RANGES_MAX_CAP, WRITE_BUFFER_BYTES_CAP};
use super::engine::table_compression;
use super::{MIB, Options};
use crate::error::{Error, Result};
use sluicedb_actors::runtime::cores::first_unusable;
use sluicedb_storage::limits::{
    BATCH_BYTES_CAP, ENTRY_OVERHEAD_BYTES, INITIAL_RANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_CAP,
};
use sluicedb_storage::version::KeyspaceOptions;

impl Options {
    /// Checks every field against its documented range and the fields against each other.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the field, its value and the
    /// range.
    ///
    /// # Examples
    /// ```
    /// use sluicedb::{ErrorKind, Options};
    /// let options = Options { level_ratio: 1, ..Options::default() };
    /// let refusal = options.validate().unwrap_err();
    /// assert_eq!(refusal.kind(), ErrorKind::Invalid);
    /// assert_eq!(refusal.to_string(), "level_ratio is 1; it must be 2..=1000");
    /// ```
    pub fn validate(&self) -> Result<()> {
        let write_buffer = self.effective_write_buffer_bytes();
        check("memory_budget_bytes", self.memory_budget_bytes, 4 * MIB, u64::MAX / 4)?;
        check("write_buffer_bytes", write_buffer, MIB, WRITE_BUFFER_BYTES_CAP)?;
        check("sealed_memtables_max", self.sealed_memtables_max as u64, 0, 1000)?;
        let memtable = self.effective_memtable_bytes();
        check("memtable_bytes", memtable, 4096, write_buffer / 2)?;
        if let Some(bytes) = self.range_buffer_bytes {
            check("range_buffer_bytes", bytes, 4 * memtable, write_buffer)?;
        }
        let value_cap = (VALUE_BYTES_CAP as u64).min(write_buffer / 4);
        check("value_bytes_max", self.effective_value_bytes_max(), 1, value_cap)?;
        let batch_floor = (KEY_BYTES_MAX + ENTRY_OVERHEAD_BYTES) as u64;
        let batch_cap = (BATCH_BYTES_CAP as u64).min(write_buffer / 2);
        check("batch_bytes_max", self.effective_batch_bytes_max(), batch_floor, batch_cap)?;
        check("open_tables_max", self.effective_open_tables_max() as u64, 8, 1_000_000)?;
        check("log_segment_bytes", self.log_segment_bytes, 64 << 10, 4 << 30)?;
        let retained = self.effective_log_retained_bytes_max();
        check("log_retained_bytes_max", retained, 2 * self.log_segment_bytes, u64::MAX / 4)?;
        check("sync_polling_us", self.sync_polling_us, 0, 1000)?;
        check("read_polling_us", self.read_polling_us, 0, 1000)?;
        check("idle_seal_after_ms", self.idle_seal_after_ms, 0, 7 * 24 * 3_600_000)?;
        check("commits_in_flight_max", self.commits_in_flight_max as u64, 16, 65_536)?;
        if !self.commits_in_flight_max.is_power_of_two() {
            return Err(Error::invalid(format!(
                "commits_in_flight_max is {}; it must be a power of two",
                self.commits_in_flight_max
            )));
        }
        check("block_bytes", self.block_bytes as u64, 256, MIB)?;
        check("restart_interval", self.restart_interval as u64, 1, 128)?;
        if !self.restart_interval.is_power_of_two() {
            return Err(Error::invalid(format!(
                "restart_interval is {}; it must be a power of two",
                self.restart_interval
            )));
        }
        check("l0_trigger_tables", self.l0_trigger_tables as u64, 1, 1000)?;
        let l0_max = self.l0_tables_max as u64;
        check("l0_tables_max", l0_max, self.l0_trigger_tables as u64 + 1, 10_000)?;
        check("l0_bytes_max", self.l0_bytes_max, 1, u64::MAX)?;
        check("l0_entries_max", self.l0_entries_max, 1, u64::MAX)?;
        check("level_base_entries", self.level_base_entries, 1, u64::MAX)?;
        check("table_bytes_max", self.table_bytes_max, 4096, u64::MAX)?;
        check("tombstone_percent_max", u64::from(self.tombstone_percent_max), 1, 100)?;
        check("space_reserve_bytes", self.effective_space_reserve_bytes(), 0, u64::MAX / 4)?;
        check("drain_ratio", self.drain_ratio, 1, u64::MAX)?;
        check("rest_after_ms", self.rest_after_ms, 0, 7 * 24 * 3_600_000)?;
        if self.keep_trigger.is_nan() || self.keep_trigger < 1.0 {
            let what = format!("keep_trigger is {}; it must be at least 1.0", self.keep_trigger);
            return Err(Error::invalid(what));
        }
        check("landing_batch", self.landing_batch as u64, 1, 64)?;
        check("landing_parallelism", self.effective_landing_parallelism() as u64, 1, 64)?;
        check("compaction_threads", self.effective_compaction_threads() as u64, 1, 64)?;
        if let Some(rate) = self.compaction_bytes_per_second {
            check("compaction_bytes_per_second", rate, 64 << 10, u64::MAX)?;
        }
        let read_only = self.effective_read_only_log_bytes_max();
        check("read_only_log_bytes_max", read_only, MIB, u64::MAX / 4)?;
        check("read_threads", self.read_threads as u64, 1, 64)?;
        check_cores(&self.engine_cores)?;
        check_split_keys(&self.initial_split_keys)?;
        check("ranges_max", self.effective_ranges_max() as u64, 1, RANGES_MAX_CAP as u64)?;
        check("range_cooldown_ms", self.range_cooldown_ms, 10, 7 * 24 * 3_600_000)?;
        let l0_compression = Some(table_compression(self.l0_compression));
        let of_keyspaces = self.of_keyspaces();
        of_keyspaces.check().map_err(Error::invalid)?;
        let of_l0 = KeyspaceOptions { compression: l0_compression, ..of_keyspaces };
        of_l0.check().map_err(Error::invalid)
    }
}

fn check_cores(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let refuse = |what: String| Err(Error::invalid(format!("engine_cores {what}")));
    match first_unusable(cores) {
        Ok(None) => Ok(()),
        Ok(Some(core)) => refuse(format!("names core {core}, which this process may not use")),
        Err(error) => refuse(format!("cannot be checked: {error}")),
    }
}

fn check(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} is {value}; it must be {min}..={max}")))
}

fn check_split_keys(keys: &[Vec<u8>]) -> Result<()> {
    let most = INITIAL_RANGES_MAX - 1;
    if keys.len() > most {
        let count = keys.len();
        let what = format!("initial_split_keys has {count} keys; give at most {most}");
        return Err(Error::invalid(what));
    }
    for (at, key) in keys.iter().enumerate() {
        let problem = if key.is_empty() {
            "is empty; leave it out, the first range begins before every key anyway".to_owned()
        } else if key.len() > KEY_BYTES_MAX {
            format!("is {} bytes long; give at most {KEY_BYTES_MAX}", key.len())
        } else if at > 0 && keys[at - 1] == *key {
            format!("is the same as initial_split_keys[{}]; leave one of them out", at - 1)
        } else if at > 0 && keys[at - 1] > *key {
            format!("is less than initial_split_keys[{}]; sort them in byte order", at - 1)
        } else {
            continue;
        };
        return Err(Error::invalid(format!("initial_split_keys[{at}] {problem}")));
    }
    Ok(())
}
