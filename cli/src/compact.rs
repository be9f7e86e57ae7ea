//! `compact`: merges all keys, or some, and shows its progress.

use crate::args::CompactArgs;
use crate::inspect::to_json;
use crate::outcome::{Failure, Result};
use crate::progress::Progress;
use crate::{levels, output, store, units};
use serde_json::json;
use sluicedb::{Compaction, LevelInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

pub async fn run(args: CompactArgs) -> Result {
    let keys = args.keys.bounds()?;
    let db = args.store.existing().await?;
    let before = db.level_info();
    let started = Instant::now();
    let mut compaction = db.compact_range(keys);
    if let Some(level) = args.to_level {
        compaction = compaction.to_level(level);
    }
    let compacted = watched(compaction).await;
    let elapsed = started.elapsed();
    let after = db.level_info();
    let progress = store::close(db, compacted).await?;
    if args.json {
        return output::json(&json!({
            "before": to_json(&before), "after": to_json(&after), "merged": to_json(&progress),
            "seconds": elapsed.as_secs_f64(),
        }));
    }
    let sum = |levels: &[LevelInfo]| units::bytes(levels.iter().map(|level| level.bytes).sum());
    output::line(&levels::table(&after).to_string())?;
    output::message(&format!(
        "compacted {} to {} in {}",
        sum(&before),
        sum(&after),
        units::seconds(elapsed)
    ));
    Ok(())
}

/// Runs the compaction, and shows its progress.
async fn watched(compaction: Compaction) -> Result<sluicedb::Progress> {
    let (done, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut watch = compaction.progress();
    let bar = Progress::growing_bytes(&total, &done);
    let shows = async {
        while let Some(progress) = watch.changed().await {
            total.store(progress.total_bytes, Relaxed);
            done.store(progress.done_bytes, Relaxed);
        }
    };
    let (compacted, ()) = tokio::join!(compaction.into_future(), shows);
    drop(bar);
    compacted.map_err(Failure::from)?;
    Ok(watch.latest())
}
