//! From sealed memtables to L0 tables.
//!
//! The input is a cursor over one range's memtables at `Seqno::MAX`, merged newest first, so it has
//! only the newest entry of each key. Tombstones stay: older entries may lie in any level below.

use super::run::{Control, HOOK_EVERY, Progress};
use super::sink::TableSink;
use crate::error::Result;
use crate::iter::Cursor;
use crate::table::TableMeta;

/// Writes everything under `cursor` into tables of at most about `table_bytes_max` bytes; `u64::MAX`
/// makes one. `Ok(None)` when `hook`, called now and then, says stop. The tables are durable when
/// this returns; no table comes from an empty cursor. Blocks on the disk.
pub fn write_tables<C: Cursor + ?Sized>(
    cursor: &mut C,
    mut sink: TableSink<'_>,
    table_bytes_max: u64,
    hook: &mut dyn FnMut(Progress) -> Control,
) -> Result<Option<Vec<TableMeta>>> {
    let mut entries = 0;
    cursor.seek_first()?;
    while cursor.valid() {
        if sink.table_bytes() >= table_bytes_max {
            sink.cut()?;
        }
        sink.add(cursor.key(), cursor.seqno(), cursor.kind(), cursor.value())?;
        cursor.next()?;
        entries += 1;
        if entries % HOOK_EVERY == 0 {
            let progress = Progress { entries_in: entries, bytes_out: sink.total_bytes() };
            if hook(progress) == Control::Stop {
                return Ok(None);
            }
        }
    }
    let tables = sink.finish()?;
    let written: u64 = tables.iter().map(|meta| meta.entries).sum();
    assert_eq!(written, entries, "every entry of the memtables is in a table");
    Ok(Some(tables))
}
