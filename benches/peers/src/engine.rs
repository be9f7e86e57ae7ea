//! An engine, as the clients see it, and how they wait until it is at rest.

use crate::keys::Key;
use crate::{Result, disk, process};
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// With nothing due, nothing written and a processor time of at most a tenth for so many looks,
/// it has settled.
const LOOKS_QUIET: u32 = 6;
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How an engine is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub cache_bytes: u64,
    pub memtable_bytes: u64,
    /// Are writes on the disk when they are acknowledged?
    pub synced: bool,
}

/// Write buffers of each engine that has them.
pub const MEMTABLES: u64 = 4;

impl Setup {
    /// Of an engine that does not tell cache and write buffer apart.
    #[allow(dead_code, reason = "no engine that is built in is like that")]
    pub fn memory_bytes(&self) -> u64 {
        self.cache_bytes + MEMTABLES * self.memtable_bytes
    }
}

/// What every engine can do. A handle is cheap to clone; each client has one.
pub trait Engine: Clone + Send + Sync + 'static {
    fn open(dir: &Path, setup: Setup) -> impl Future<Output = Result<Self>> + Send;

    fn put(&self, key: &Key, value: &[u8]) -> impl Future<Output = Result<()>> + Send;

    /// All of them at once.
    fn write(&self, entries: &[(Key, &[u8])]) -> impl Future<Output = Result<()>> + Send;

    /// Looks at a value; is there one?
    fn get(&self, key: &Key) -> impl Future<Output = Result<bool>> + Send;

    /// Looks at up to `limit` entries from `from` on; how many were there?
    fn scan(&self, from: &Key, limit: u64) -> impl Future<Output = Result<u64>> + Send;

    /// Moves to where it will stay what was written, as far as the engine can be told to. The
    /// caller waits afterwards until nothing moves any more.
    fn settle(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// Is background work due that does not show yet? `at_rest`: also such as is done only when
    /// nobody has written for a while.
    fn is_due(&self, at_rest: bool) -> bool {
        let _ = at_rest;
        false
    }

    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// Waits until what was written is where it stays and nothing moves any more, a minute at most. Is
/// it so?
///
/// # Errors
/// Those of the engine.
pub async fn settle<E: Engine>(engine: &E, at_rest: bool) -> Result<bool> {
    settle_within(engine, at_rest, SETTLE_MAX).await
}

/// The same, with another limit.
///
/// # Errors
/// Those of the engine.
pub async fn settle_within<E: Engine>(engine: &E, at_rest: bool, limit: Duration) -> Result<bool> {
    engine.settle().await?;
    let begun = Instant::now();
    let mut quiet = 0;
    let mut before = (process::cpu_time(), disk::bytes_written());
    while quiet < LOOKS_QUIET {
        if begun.elapsed() >= limit {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let now = (process::cpu_time(), disk::bytes_written());
        let moves = now.0.saturating_sub(before.0) > LOOK_EVERY / 10 || now.1 != before.1;
        quiet = if moves || engine.is_due(at_rest) { 0 } else { quiet + 1 };
        before = now;
    }
    Ok(true)
}

/// What a client does with an entry that it got.
pub fn look_at(key: &[u8], value: &[u8]) {
    std::hint::black_box((key.len(), value.len(), value.first(), value.last()));
}
