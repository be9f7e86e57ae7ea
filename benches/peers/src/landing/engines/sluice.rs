//! SluiceDB.
//!
//! Set, everything else being a default:
//! * `memtable_bytes` 8 MiB, `write_buffer_bytes` 4 x 8 MiB, `sealed_memtables_max` 2 (and one that
//!   is written to, and one that is being flushed);
//! * `level_base_bytes` 3.2 MiB and `level_ratio` 10: L1 may have 32 MiB, L2 320 MiB, L3 3.2 GiB;
//! * `table_bytes_max` 8 MiB, `block_bytes` 4096, `filter_bits_per_key` 10 (tables that lie above
//!   others get 20 by default), no compression at any level;
//! * `cache_bytes` 64 MiB, of which the indexes and filters of open tables take their part;
//! * `log_segment_bytes` 16 MiB: logs of RocksDB are as large as its memtables;
//! * `durability` buffered: the log is written, not synced;
//! * `rest_after_ms` 0 (never), until the database is opened again to see it rest.
//!
//! Defaults that matter: L0 is merged from 4 runs on and holds flushes up from 20; flushes are cut
//! into 4 shards; log segments are used again; one flush and, on a small machine, two compactions
//! at a time, where RocksDB has one: `sluicedb:compaction_threads=1` is its equal.
//!
//! Four tasks write, on a tokio runtime with two threads. Who reads does so from a thread of its
//! own.

use super::{
    Account, BLOCK_BYTES, CACHE_BYTES, FILTER_BITS_PER_KEY, L1_BYTES, LEVEL_RATIO, Level,
    MEMTABLE_BYTES, MEMTABLES, Store, TABLE_BYTES, Writer, histogram,
};
use crate::Result;
use crate::keys::{Plan, Progress};
use hdrhistogram::Histogram;
use serde_json::Value;
use sluicedb::{Compression, Db, Durability, Options, Stats};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const RUNTIME_THREADS: usize = 2;
/// With nothing due and nothing done for so long, it has settled.
const QUIET: Duration = Duration::from_millis(500);

pub struct Sluice {
    db: Db,
    runtime: Runtime,
    dir: PathBuf,
    /// Those it rests with.
    options: Options,
    /// Counted before `db` was opened.
    before: Account,
}

fn options(settings: &[(String, String)]) -> Result<Options> {
    let mut options = Options::default();
    options.memtable_bytes = Some(MEMTABLE_BYTES);
    options.write_buffer_bytes = Some(MEMTABLES * MEMTABLE_BYTES);
    options.sealed_memtables_max = MEMTABLES as usize - 2;
    options.level_base_bytes = L1_BYTES / LEVEL_RATIO;
    options.level_ratio = LEVEL_RATIO;
    options.table_bytes_max = TABLE_BYTES;
    options.cache_bytes = Some(CACHE_BYTES);
    options.block_bytes = BLOCK_BYTES as usize;
    options.filter_bits_per_key = FILTER_BITS_PER_KEY as usize;
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options.log_segment_bytes = 2 * MEMTABLE_BYTES;
    options.durability = Durability::Buffered;
    let mut fields = serde_json::to_value(&options)?;
    for (field, value) in settings {
        let place = fields.get_mut(field).ok_or_else(|| format!("no option is called {field}"))?;
        *place = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value.as_str()));
    }
    Ok(serde_json::from_value(fields)?)
}

impl Sluice {
    pub fn open(dir: &Path, settings: &[(String, String)]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .enable_time()
            .build()?;
        let options = options(settings)?;
        let awake = Options { rest_after_ms: 0, ..options.clone() };
        let db = runtime.block_on(Db::builder(dir).options(awake).open())?;
        Ok(Self { db, runtime, dir: dir.to_owned(), options, before: Account::default() })
    }

    fn is_due(&self) -> bool {
        self.db.level_info().iter().any(|level| level.score >= 1.0)
    }

    /// Does anything wait in front of a level, for something to be due or for a rest?
    fn waits(&self) -> bool {
        self.db.level_info().iter().any(|level| level.rest_ms.is_some())
    }

    /// Waits until that is over, and nothing has been done for [`QUIET`]; returns since when.
    fn quiet(&self, goes_on: impl Fn(&Self) -> bool) -> Instant {
        let (mut last, mut since) = (jobs(&self.db.stats()), Instant::now());
        while since.elapsed() < QUIET || goes_on(self) {
            std::thread::sleep(Duration::from_millis(5));
            let now = jobs(&self.db.stats());
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        since
    }
}

/// What changes with every job.
fn jobs(stats: &Stats) -> [u64; 4] {
    [stats.edits, stats.flushes, stats.compactions, stats.tables_deleted]
}

async fn write(db: Db, mut writer: Writer) -> sluicedb::Result<Writer> {
    let plan = Arc::clone(&writer.plan);
    for put in plan.share(writer.number) {
        let (key, value) = (plan.key(put), plan.value(put));
        let begun = Instant::now();
        db.put(key, value).await?;
        if let Some(pause) = writer.note(put, begun.elapsed()) {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(writer)
}

impl Store for Sluice {
    fn fill(&self, plan: &Arc<Plan>, progress: &Arc<Progress>) -> Result<Histogram<u64>> {
        let tasks: Vec<_> = Writer::all(plan, progress)
            .map(|writer| self.runtime.spawn(write(self.db.clone(), writer)))
            .collect();
        let mut latencies = histogram();
        for task in tasks {
            latencies.add(self.runtime.block_on(task)??.latencies)?;
        }
        Ok(latencies)
    }

    fn get(&self, key: &[u8]) -> Result<bool> {
        Ok(self.runtime.block_on(self.db.get(key))?.is_some())
    }

    fn settle(&self) -> Result<Instant> {
        self.runtime.block_on(self.db.flush())?;
        Ok(self.quiet(Self::is_due))
    }

    fn rest(&mut self) -> Result<Instant> {
        self.before = self.account()?;
        self.runtime.block_on(self.db.clone().close())?;
        let again = Db::builder(&self.dir).options(self.options.clone()).open();
        self.db = self.runtime.block_on(again)?;
        Ok(self.quiet(|db| db.is_due() || db.waits()))
    }

    fn scan(&self) -> Result<u64> {
        self.runtime.block_on(async {
            let (mut scan, mut entries) = (self.db.scan(..), 0);
            while let Some(batch) = scan.next_chunk().await? {
                for (key, value) in batch.iter() {
                    entries += 1;
                    std::hint::black_box((key, value));
                }
            }
            Ok(entries)
        })
    }

    fn account(&self) -> Result<Account> {
        let stats = self.db.stats();
        let level = |level: &sluicedb::LevelInfo| Level {
            tables: level.tables,
            runs: if level.tables == 0 { 0 } else { level.runs },
            bytes: level.bytes,
        };
        let before = &self.before;
        Ok(Account {
            log_bytes: before.log_bytes + stats.log_bytes,
            flush_bytes: before.flush_bytes + stats.flush_bytes,
            compaction_bytes: before.compaction_bytes + stats.compaction_bytes_written,
            stalls: Some(
                before.stalls.unwrap_or_default() + stats.waits_local + stats.waits_global,
            ),
            stall_micros: before.stall_micros + stats.wait_micros_local + stats.wait_micros_global,
            levels: self.db.level_info().iter().map(level).collect(),
            notes: format!(
                "{}{} flushes of {} seals, {} compactions, {} moves, {} log segments\n",
                before.notes,
                stats.flushes,
                stats.seals,
                stats.compactions,
                stats.trivial_moves,
                stats.log_segments
            ),
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.db.close())?)
    }
}
