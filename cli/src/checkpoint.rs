//! `checkpoint`: a copy of a database by hard links, whole or the difference to an older one.

use crate::args::CheckpointArgs;
use crate::inspect::to_json;
use crate::outcome::{Exit, Failure, Result};
use crate::progress::Progress;
use crate::{output, store, units};
use sluicedb::ErrorKind;
use std::time::Instant;

pub async fn run(args: CheckpointArgs) -> Result {
    let db = args.store.existing().await?;
    let started = Instant::now();
    let mut checkpoint = db.checkpoint(&args.to);
    if args.incremental {
        checkpoint = checkpoint.incremental();
    }
    let made = Progress::follow(checkpoint.progress(), checkpoint).await;
    let made = made.map_err(|error| match error.kind() {
        // This is about the directory: that the database exists was checked before.
        ErrorKind::Exists => Failure::new(Exit::Usage, error.to_string()),
        _ => error.into(),
    });
    let elapsed = started.elapsed();
    let made = store::close(db, made).await?;
    if args.json {
        let mut json = to_json(&made);
        json["seconds"] = elapsed.as_secs_f64().into();
        return output::json(&json);
    }
    output::line(&format!(
        "checkpoint of seqno {} in {}: {} linked, {} copied, {} kept, {} written; {} files removed",
        units::count(made.seqno),
        units::seconds(elapsed),
        tables(made.tables_linked, made.bytes_linked),
        tables(made.tables_copied, made.bytes_copied),
        tables(made.tables_kept, made.bytes_kept),
        tables(made.tables_written, made.bytes_written),
        units::count(made.files_removed),
    ))
}

fn tables(count: u64, bytes: u64) -> String {
    format!("{} ({})", units::count(count), units::bytes(bytes))
}
