//! Splits ranges under load, makes a checkpoint and reads it, and replaces spans of another
//! database by it.

use super::report::{Report, Step};
use super::work::{Digest, Tally, digest};
use crate::outcome::{Failure, Result};
use crate::text::escape;
use crate::{store, units};
use sluicedb::{Db, OnEmpty, ReadOnlyDb, Replacement};
use std::path::Path;

/// The spans of the demo's entries.
const SPANS: [std::ops::Range<&str>; 2] = ["file/".."file0", "line/".."line0"];
/// The keys at which ranges meet after the splits.
const MEET: [&str; 2] = ["file/m", "line/"];

/// Splits ranges while others write.
pub async fn part(db: &Db) -> Result {
    for key in MEET {
        db.split_at(key).await?;
    }
    Ok(())
}

/// Makes a checkpoint of `db` in a directory beside it, and checks that it holds what `then` says.
/// Then replaces the content of another database by the checkpoint's entries.
pub async fn copy(db: &Db, then: Digest, path: &Path, memory: u64, report: &mut Report) -> Result {
    // On the same file system, so that files can be linked.
    let beside = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let beside = beside.unwrap_or(Path::new("."));
    let dir = tempfile::Builder::new().prefix("sluice-copies-").tempdir_in(beside);
    let dir = dir.map_err(|error| Failure::io("temporary directory", &error))?;

    let step = Step::start("checkpoint, opened read-only");
    let to = dir.path().join("checkpoint");
    let made = db.checkpoint(&to).await?;
    let options = store::options(Some(memory));
    let copy = ReadOnlyDb::builder(&to).options(options.clone()).open_read_only().await?;
    let mut tally = Tally::default();
    let found = digest(copy.scan(..), false, &mut tally).await?;
    super::same("the checkpoint", found, then, &mut tally);
    report.done(step, &tally)?;
    report.note(&format!(
        "{} tables linked, {} copied, {} written",
        units::count(made.tables_linked),
        units::count(made.tables_copied),
        units::count(made.tables_written)
    ))?;

    let step = Step::start("replace in another database");
    let other = store::open(&dir.path().join("other"), options, true).await?;
    for n in 0..1000 {
        for span in &SPANS {
            other.put(format!("{}stale {n:04}", span.start), "of another time").await?;
        }
    }
    let replaced = other.replace_from(&copy.snapshot(), SPANS, OnEmpty::Refuse).await?;
    let mut tally = Tally::default();
    for span in SPANS {
        compare(&other, &copy, span, &mut tally).await?;
    }
    if replaced != (Replacement::Replaced { entries: tally.entries }) {
        tally.mismatch(format!("{replaced:?}, and {} entries are there", tally.entries));
    }
    other.close().await?;
    report.done(step, &tally)
}

/// Compares `other` with `copy` in `span`, key by key: neither has more than the other.
async fn compare(
    other: &Db,
    copy: &ReadOnlyDb,
    span: std::ops::Range<&str>,
    tally: &mut Tally,
) -> Result {
    let (mut scan, mut found) = (other.scan(span.clone()), 0);
    while let Some(batch) = scan.next_chunk().await? {
        for (key, value) in batch.iter() {
            if copy.get(key).await?.as_deref() != Some(value) {
                tally.mismatch(format!("{} is not what the source has", escape(key)));
            }
            found += 1;
            tally.bytes += (key.len() + value.len()) as u64;
        }
    }
    tally.entries += found;
    let wanted = digest(copy.scan(span.clone()).keys_only(), false, &mut Tally::default()).await?;
    if wanted.entries != found {
        let (start, wanted) = (span.start, wanted.entries);
        tally.mismatch(format!("{found} keys from {start} on, the source has {wanted}"));
    }
    Ok(())
}
