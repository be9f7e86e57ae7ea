//! `ranges` and `split`: a map of where ranges meet and what each holds; and a new place where they
//! meet.

use crate::args::{RangesArgs, SplitArgs};
use crate::inspect::to_json;
use crate::outcome::{Failure, Result};
use crate::point::argument;
use crate::text::escape;
use crate::{output, store, units};
use serde_json::json;
use sluicedb::{Db, RangeInfo};

/// The map fits a terminal of this width.
const COLUMNS: usize = 80;
/// Length of the longest bar.
const BAR: usize = 20;

pub async fn ranges(args: RangesArgs) -> Result {
    let ranges = args.store.read_only().await?.ranges();
    if args.json {
        return output::json(&to_json(&ranges));
    }
    output::line(&map(&ranges))
}

pub async fn split(args: SplitArgs) -> Result {
    let key = argument(args.keys_as, &args.key)?;
    let db = args.store.existing().await?;
    let split = split_at(&db, &key).await;
    let (is_new, ranges) = store::close(db, split).await?;
    if args.json {
        return output::json(&json!({ "split": is_new, "ranges": to_json(&ranges) }));
    }
    let what = if is_new { "now" } else { "already" };
    output::line(&format!("ranges meet at {} {what}\n\n{}", escape(&key), map(&ranges)))
}

async fn split_at(db: &Db, key: &[u8]) -> Result<(bool, Vec<RangeInfo>)> {
    let is_new = db.split_at(key).await.map_err(Failure::from)?;
    Ok((is_new, db.ranges()))
}

/// The ranges from the first to the last, with the keys at which they meet between them.
fn map(ranges: &[RangeInfo]) -> String {
    let most = ranges.iter().map(|range| range.table_bytes).max().unwrap_or(0).max(1);
    let mut lines = vec![format!(
        "{:>5}  {:BAR$} {:>10} {:>14} {:>10} {:>9}",
        "range", "bytes", "size", "entries", "memtables", "batches/s"
    )];
    for range in ranges {
        if !range.start.is_empty() {
            lines.push(meeting_place(&range.start));
        }
        let filled = (u128::from(range.table_bytes) * BAR as u128).div_ceil(u128::from(most));
        lines.push(format!(
            "{:>5}  {:BAR$} {:>10} {:>14} {:>10} {:>9}",
            range.range,
            "#".repeat(filled as usize),
            units::bytes(range.table_bytes),
            units::count(range.entries),
            units::bytes(range.memtable_bytes),
            units::count(range.batches_per_second),
        ));
    }
    lines.join("\n")
}

/// A key between two ranges, shortened if it does not fit.
fn meeting_place(key: &[u8]) -> String {
    let (indent, room) = ("       ", COLUMNS - 7 - 3);
    let text = escape(key);
    if text.chars().count() <= room + 3 {
        return format!("{indent}{text}");
    }
    let head: String = text.chars().take(room).collect();
    format!("{indent}{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_shortened_and_short_ones_are_not() {
        assert_eq!(meeting_place(b"a\n"), "       a\\n");
        assert_eq!(meeting_place(&[b'x'; 73]).len(), 80);
        let line = meeting_place(&[0xFF; 500]);
        assert!(line.len() == COLUMNS && line.ends_with("..."), "{line}");
    }
}
