//! RocksDB.
//!
//! Set, everything else being a default:
//! * `write_buffer_size` 8 MiB, `max_write_buffer_number` 4;
//! * `max_bytes_for_level_base` 32 MiB, `max_bytes_for_level_multiplier` 10 (its default): L1 may
//!   have 32 MiB, L2 320 MiB, L3 3.2 GiB;
//! * `level_compaction_dynamic_level_bytes` false. Its default is true: then the *last* level gives
//!   the sizes of the others, which bounds the space taken at about 1.11 of what lives;
//! * `target_file_size_base` 8 MiB, a block cache of 64 MiB;
//! * what `rocks.rs` beside this folder sets;
//! * the log is written, and not synced (`WriteOptions::sync` false, the default);
//! * statistics, without histograms and timers, for the bytes of log, flushes and compactions.
//!
//! Defaults that matter: L0 is merged from 4 tables on, slows writers down from 20 and stops them
//! at 36.
//!
//! Four threads write.

use super::{
    Account, CACHE_BYTES, L1_BYTES, LEVEL_RATIO, Level, MEMTABLE_BYTES, MEMTABLES, Store,
    TABLE_BYTES, Writer, histogram,
};
use crate::Result;
use crate::keys::{Plan, Progress};
use hdrhistogram::Histogram;
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{DB, Options, WaitForCompactOptions, properties};
use sluicedb_bench_peers::rocks::Sizes;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub struct Rocks {
    db: DB,
    options: Options,
}

impl Rocks {
    pub fn open(dir: &Path) -> Result<Self> {
        let sizes = Sizes {
            memtable_bytes: MEMTABLE_BYTES,
            memtables: MEMTABLES,
            cache_bytes: CACHE_BYTES,
        };
        let mut options = sluicedb_bench_peers::rocks::options(sizes);
        options.set_max_bytes_for_level_base(L1_BYTES);
        options.set_max_bytes_for_level_multiplier(LEVEL_RATIO as f64);
        options.set_level_compaction_dynamic_level_bytes(false);
        options.set_target_file_size_base(TABLE_BYTES);
        options.enable_statistics();
        options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        let db = DB::open(&options, dir)?;
        Ok(Self { db, options })
    }

    fn levels(&self) -> Result<Vec<Level>> {
        let mut levels = Vec::new();
        // Lines of "level files MB", after two of headings.
        let sizes = self.db.property_value(properties::LEVELSTATS)?.unwrap_or_default();
        for line in sizes.lines().skip(2) {
            let mut words = line.split_whitespace().skip(1);
            let tables: u64 = words.next().unwrap_or_default().parse()?;
            let mib: u64 = words.next().unwrap_or_default().parse()?;
            let runs = if levels.is_empty() { tables } else { tables.min(1) };
            levels.push(Level { tables, runs, bytes: mib << 20 });
        }
        let deepest = levels.iter().rposition(|level| level.tables > 0).unwrap_or_default();
        levels.truncate(deepest + 1);
        Ok(levels)
    }
}

fn write(db: &DB, writer: &mut Writer) -> Result<()> {
    let plan = Arc::clone(&writer.plan);
    for put in plan.share(writer.number) {
        let (key, value) = (plan.key(put), plan.value(put));
        let begun = Instant::now();
        db.put(key, value)?;
        if let Some(pause) = writer.note(put, begun.elapsed()) {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

impl Store for Rocks {
    fn fill(&self, plan: &Arc<Plan>, progress: &Arc<Progress>) -> Result<Histogram<u64>> {
        let mut writers: Vec<_> = Writer::all(plan, progress).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = writers
                .iter_mut()
                .map(|writer| scope.spawn(move || write(&self.db, writer)))
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a writer died")?)
        })?;
        let mut latencies = histogram();
        for writer in writers {
            latencies.add(writer.latencies)?;
        }
        Ok(latencies)
    }

    fn get(&self, key: &[u8]) -> Result<bool> {
        Ok(self.db.get_pinned(key)?.is_some())
    }

    fn settle(&self) -> Result<Instant> {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        self.db.wait_for_compact(&wait)?;
        Ok(Instant::now())
    }

    fn rest(&mut self) -> Result<Instant> {
        // It does nothing because nobody writes.
        self.settle()
    }

    fn scan(&self) -> Result<u64> {
        let mut scan = self.db.raw_iterator();
        scan.seek_to_first();
        let mut entries = 0;
        while scan.valid() {
            entries += 1;
            std::hint::black_box((scan.key(), scan.value()));
            scan.next();
        }
        scan.status()?;
        Ok(entries)
    }

    fn account(&self) -> Result<Account> {
        let ticker = |ticker| self.options.get_ticker_count(ticker);
        Ok(Account {
            log_bytes: ticker(Ticker::WalFileBytes),
            flush_bytes: ticker(Ticker::FlushWriteBytes),
            compaction_bytes: ticker(Ticker::CompactWriteBytes),
            stalls: None,
            stall_micros: ticker(Ticker::StallMicros),
            levels: self.levels()?,
            notes: self
                .db
                .property_value(properties::CFSTATS_NO_FILE_HISTOGRAM)?
                .unwrap_or_default(),
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
