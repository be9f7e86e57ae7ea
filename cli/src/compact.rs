//! `compact`: merges all keys, or some, and shows its progress and what was chosen.

use crate::args::CompactArgs;
use crate::inspect::to_json;
use crate::outcome::{Failure, Result};
use crate::progress::Progress;
use crate::{levels, output, store, units};
use serde_json::json;
use sluicedb::LevelInfo;
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
    let mut progress = compaction.progress();
    let compacted = Progress::follow(compaction.progress(), compaction).await;
    let elapsed = started.elapsed();
    let (after, decisions) = (db.level_info(), db.stats().decisions);
    store::close(db, compacted.map_err(Failure::from)).await?;
    if args.json {
        return output::json(&json!({
            "before": to_json(&before), "after": to_json(&after),
            "merged": to_json(&progress.latest()),
            "decisions": to_json(&decisions), "seconds": elapsed.as_secs_f64(),
        }));
    }
    let sum = |levels: &[LevelInfo]| units::bytes(levels.iter().map(|level| level.bytes).sum());
    output::line(&levels::table(&after).to_string())?;
    if args.why {
        output::line(&format!("\n{}", levels::decided(&decisions)))?;
    }
    output::message(&format!(
        "compacted {} to {} in {}",
        sum(&before),
        sum(&after),
        units::seconds(elapsed)
    ));
    Ok(())
}
