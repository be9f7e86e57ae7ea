//! Replays log entries into tables, within a memory budget.
//!
//! The tables that it writes are not named by any manifest yet. `undo` removes them if the open is
//! refused after all.

use super::RecoverOptions;
use super::gathered::{Gathered, OperationBytes, OperationPlace};
use super::leftovers::Leftovers;
use super::masks::Masks;
use super::replayed::remove_tables;
use crate::batch::PointOperations;
use crate::compact::TableSink;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::give_way;
use crate::key::Seqno;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::side_by_side::Piece;
use crate::table::TableOptions;
use crate::version::{
    ChangeId, Place, RangeId, RangeVersion, Slice, SliceMeta, TableCache, Version, VersionEdit,
};
use crate::vfs::Vfs;
use crate::wal::LogItem;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Memory of what is written into one table, about and at most, but one table for each shard may be
/// as large as it wants: L0 may have as many as a flush would make, and more would fill it. Several
/// tables are written on several cores.
const TABLE_BYTES: usize = 16 << 20;
/// Bytes of batches that are replayed before others are offered the core: some ten microseconds.
const GIVE_WAY_BYTES: u64 = 16 << 10;

/// The state of a replay.
pub(super) struct Replay<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    db_id: [u8; 16],
    options: &'a RecoverOptions,
    /// Opens tables that were written here, if they must be cut.
    tables: &'a Arc<TableCache>,
    /// The version at this point of the log.
    pub(super) version: Version,
    /// Prepared changes that the log may have stamped.
    prepared: BTreeMap<ChangeId, VersionEdit>,
    /// Prepared changes that the log has stamped.
    pub(super) happened: Vec<(ChangeId, Seqno)>,
    pub(super) masks: Masks,
    /// The sequence numbers of L0 tables that changes brought in, with their ranges, in descending
    /// order.
    ahead: Vec<(Seqno, RangeId)>,
    /// To be removed before the first table is written.
    pub(super) leftovers: Leftovers<'a>,
    pub(super) next: FileNumber,
    gathered: BTreeMap<RangeId, Gathered>,
    /// Memory of all that is gathered.
    bytes: usize,
    pub(super) bytes_peak: usize,
    pub(super) bytes_read: u64,
    pub(super) added: Vec<(RangeId, Place, SliceMeta)>,
    /// All tables that were written, even if no slice of them is left.
    pub(super) written: Vec<FileNumber>,
    pub(super) replayed: u64,
    pub(super) skipped: u64,
    pub(super) changes_skipped: u64,
}

impl<'a> Replay<'a> {
    /// A replay on top of `version`. New files get numbers from `next` on.
    pub(super) fn new(
        (vfs, dir): (&'a Arc<dyn Vfs>, &'a Path),
        db_id: [u8; 16],
        options: &'a RecoverOptions,
        tables: &'a Arc<TableCache>,
        (version, prepared): (Version, BTreeMap<ChangeId, VersionEdit>),
        leftovers: Leftovers<'a>,
        next: FileNumber,
    ) -> Self {
        let of = |range: &Arc<RangeVersion>| {
            let numbers = range.ahead().filter_map(|slice| slice.seqno);
            numbers.map(|at| (at, range.id)).collect::<Vec<_>>()
        };
        let mut ahead: Vec<_> = version.ranges().iter().flat_map(of).collect();
        ahead.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Self {
            vfs,
            dir,
            db_id,
            options,
            tables,
            version,
            prepared,
            happened: Vec::new(),
            masks: Masks::default(),
            ahead,
            leftovers,
            next,
            gathered: BTreeMap::new(),
            bytes: 0,
            bytes_peak: 0,
            bytes_read: 0,
            added: Vec::new(),
            written: Vec::new(),
            replayed: 0,
            skipped: 0,
            changes_skipped: 0,
        }
    }

    /// How many tables were written.
    pub(super) fn tables_written(&self) -> u64 {
        self.written.len() as u64
    }

    pub(super) fn next_number(&mut self) -> FileNumber {
        let number = self.next;
        self.next = FileNumber(number.0 + 1);
        number
    }

    /// Replays the next entry of the log.
    pub(super) fn entry(&mut self, entry: LogItem<'_>) -> Result<()> {
        match entry {
            LogItem::Batch { first, payload } => {
                self.pass_tables(first)?;
                self.batch(first, payload)
            }
            LogItem::Change { id, seqno } => self.change(id, seqno),
        }
    }

    /// Applies a change that the manifest has prepared, at its place in the log
    /// (INVARIANT(prepared-needs-its-record)). A change that is not prepared is settled already
    /// (INVARIANT(change-is-known)).
    fn change(&mut self, id: ChangeId, seqno: Seqno) -> Result<()> {
        let Some(edit) = self.prepared.remove(&id) else {
            self.changes_skipped += 1;
            return Ok(());
        };
        let mut new = Vec::new();
        for (_, _, slice) in &edit.added {
            if slice.seqno == Some(SliceMeta::SEQNO_PENDING) {
                self.tables.check_presence(&slice.table)?;
                new.push(self.tables.handle(Arc::clone(&slice.table)));
            }
        }
        let after = self.version.apply(&edit.stamped(seqno), &new).map_err(|conflict| {
            let what = format!("change {id} in the log cannot have happened: {conflict}");
            Error::corrupt(&FileKind::Current.path(self.dir), 0, what)
        })?;
        // Entries that were replayed so far are older than the change, which may excise them. So
        // they go into tables of their own.
        let concerned = self.version.ranges().iter().filter(|range| edit.concerns(range));
        let concerned = concerned.map(|range| (range.id, range.keyspace));
        for (range, keyspace) in concerned.collect::<Vec<_>>() {
            if edit.keyspaces_removed.contains(&keyspace) {
                self.take(range);
            } else {
                self.flush(&[range])?;
            }
        }
        let before = std::mem::replace(&mut self.version, after);
        for (range, place, slice) in std::mem::take(&mut self.added) {
            let keyspace = before.range(range).expect("it was replayed for it").keyspace;
            self.bring_home((keyspace, range), place, slice, &edit.excised)?;
        }
        self.happened.push((id, seqno));
        Ok(())
    }

    /// Distributes a replayed table to the ranges that have its keys now, without excised spans. If
    /// the keyspace was dropped, no range has them, and the table is left over.
    fn bring_home(
        &mut self,
        (keyspace, range): (KeyspaceId, RangeId),
        place: Place,
        slice: SliceMeta,
        excised: &[KeyspaceSpan],
    ) -> Result<()> {
        let handle = self.tables.handle(Arc::clone(&slice.table));
        let slice = Slice::new(slice, handle);
        let excised = KeyspaceSpan::of(excised, keyspace);
        let left = slice.without(&excised)?.unwrap_or_else(|| vec![slice]);
        if self.version.range(range).is_some() {
            let left = left.into_iter().map(|piece| (range, place, piece.meta().clone()));
            self.added.extend(left);
            return Ok(());
        }
        let theirs = self.version.ranges().iter().filter(|range| range.keyspace == keyspace);
        let bounds: Vec<Bytes> = theirs.map(|range| range.span.lo.clone()).collect();
        for slice in left {
            for piece in slice.cut(&bounds)? {
                let range = self.version.route(keyspace, piece.min_key());
                self.added.extend(range.map(|range| (range.id, place, piece.meta().clone())));
            }
        }
        Ok(())
    }

    /// INVARIANT(ahead-waits): entries from `first` on are newer than some tables that changes
    /// brought in, and entries replayed before are older. They must not share a table, so this
    /// flushes first.
    fn pass_tables(&mut self, first: Seqno) -> Result<()> {
        while let Some((at, range)) = self.ahead.last().copied().filter(|(at, _)| *at < first) {
            self.ahead.retain(|ahead| *ahead != (at, range));
            self.flush(&[range])?;
        }
        Ok(())
    }

    /// Prepared changes that the log has not stamped. They never take effect.
    pub(super) fn abandoned(&self) -> Vec<ChangeId> {
        self.prepared.keys().copied().collect()
    }

    /// Replays one batch. Its operations have consecutive sequence numbers from `first` on.
    fn batch(&mut self, first: Seqno, payload: &[u8]) -> Result<()> {
        let (mut operations, mut start, mut next) = (PointOperations::new(payload), 0, first.0);
        while let Some(operation) = operations.next() {
            let encoded = &payload[start..operations.position()];
            let seqno = Seqno(next);
            (start, next) = (operations.position(), next + 1);
            let Some(range) = self.version.route(operation.keyspace, operation.key) else {
                // Its keyspace was dropped later.
                self.skipped += 1;
                continue;
            };
            if seqno <= range.flushed_seqno
                || self.masks.hide(operation.keyspace, operation.key, seqno)
            {
                self.skipped += 1;
                continue;
            }
            self.replayed += 1;
            let range = range.id;
            let mut gathered = self.gathered.entry(range).or_default();
            if gathered.add(encoded, &operation, seqno) {
                continue;
            }
            let mut growth = gathered.growth(encoded.len());
            if self.bytes + growth > self.options.replay_bytes_max {
                // Down to half of it, so that the flushes are large enough to be worth a table.
                let max = self.options.replay_bytes_max;
                self.flush_down_to((max / 2).min(max.saturating_sub(growth)))?;
                gathered = self.gathered.entry(range).or_default();
                growth = gathered.growth(encoded.len());
            }
            self.bytes += growth;
            self.bytes_peak = self.bytes_peak.max(self.bytes);
            gathered.add_with_growth(encoded, &operation, seqno);
        }
        give_way_after(&mut self.bytes_read, payload.len());
        Ok(())
    }

    /// Flushes what is gathered of the largest ranges, until at most `bytes` are left.
    pub(super) fn flush_down_to(&mut self, bytes: usize) -> Result<()> {
        let mut sizes: Vec<_> = self.gathered.iter().map(|(id, of)| (of.bytes(), *id)).collect();
        sizes.sort_unstable();
        let mut left = self.bytes;
        let mut largest = Vec::new();
        while left > bytes {
            let (size, range) = sizes.pop().expect("bytes belong to a range");
            left -= size;
            largest.push(range);
        }
        self.flush(&largest)
    }

    /// Removes what is gathered of `range`, if there is any.
    fn take(&mut self, range: RangeId) -> Option<Gathered> {
        let gathered = self.gathered.remove(&range)?;
        self.bytes -= gathered.bytes();
        Some(gathered)
    }

    /// Writes what is gathered of `ranges` into tables: one for each shard of a range
    /// (INVARIANT(shard-disjoint)), or one for each range that has little.
    fn flush(&mut self, ranges: &[RangeId]) -> Result<()> {
        let taken = ranges.iter().filter_map(|range| Some((*range, self.take(*range)?)));
        let mut taken: Vec<_> = taken.collect();
        if taken.is_empty() {
            return Ok(());
        }
        let side_by_side = self.options.side_by_side.as_ref();
        let (vfs, dir, db_id) = (self.vfs, self.dir, self.db_id);
        // INVARIANT(leftovers-after-the-log): before the first table. Until then nothing is
        // written, only sorted.
        let (mut tables, mut removed) = (Vec::new(), Ok(()));
        let (version, options, next) = (&self.version, self.options, &mut self.next);
        let taken = &mut taken;
        let divide = || {
            for (range, gathered) in taken {
                let home = version.range(*range).expect("it was routed to");
                tables.extend(new_tables(home, gathered, options, next));
            }
        };
        let mut pieces: Vec<Piece<'_>> = vec![Box::new(divide)];
        if !self.leftovers.is_empty() {
            let leftovers = &mut self.leftovers;
            pieces.push(Box::new(|| removed = leftovers.remove(vfs, dir, side_by_side)));
        }
        side_by_side.run(pieces);
        removed?;
        let ranges: Vec<_> = tables.iter().map(|table| table.range).collect();
        let mut sinks: Vec<_> = tables.iter().map(|_| None).collect();
        let failed = AtomicBool::new(false);
        let failed = &failed;
        let pieces = tables.into_iter().zip(&mut sinks).map(|(table, sink)| -> Piece<'_> {
            Box::new(move || {
                if !failed.load(Relaxed) {
                    let written = table.write(vfs, dir, db_id);
                    failed.fetch_or(written.is_err(), Relaxed);
                    *sink = Some(written);
                }
            })
        });
        side_by_side.run(pieces.collect());
        let sinks = sinks.into_iter().flatten().collect::<Result<_>>()?;
        for (range, meta) in ranges.into_iter().zip(TableSink::finish_all(sinks)?) {
            self.written.push(meta.number);
            self.added.push((range, Place::L0, SliceMeta::whole(meta)));
        }
        Ok(())
    }

    /// Removes all tables that were written, because the open is refused.
    pub(super) fn undo(&self) {
        remove_tables(self.vfs, self.dir, &self.written);
    }
}

/// Counts bytes that were replayed, and offers others the core now and then.
pub(super) fn give_way_after(bytes: &mut u64, more: usize) {
    let before = *bytes;
    *bytes += more as u64;
    if before / GIVE_WAY_BYTES < *bytes / GIVE_WAY_BYTES {
        give_way::now_and_then();
    }
}

/// A table that is to be made.
struct NewTable<'a> {
    range: RangeId,
    number: FileNumber,
    created_at_ms: u64,
    options: TableOptions,
    operations: &'a OperationBytes,
    /// What it will have.
    entries: &'a mut [OperationPlace],
}

/// Divides what is gathered of the range `home` into tables, with numbers from `next` on.
fn new_tables<'a>(
    home: &RangeVersion,
    gathered: &'a mut Gathered,
    options: &RecoverOptions,
    next: &mut FileNumber,
) -> Vec<NewTable<'a>> {
    let content_bytes = gathered.content_bytes();
    let bounds = home.shards.for_flush(content_bytes as u64, options.shard_cut_bytes_min);
    let table_bytes = TABLE_BYTES.max(content_bytes.div_ceil(home.shards.count()));
    let (operations, parts) = gathered.parts(bounds, table_bytes, options.side_by_side.as_ref());
    let new = |entries| {
        let number = *next;
        *next = FileNumber(number.0 + 1);
        NewTable {
            range: home.id,
            number,
            created_at_ms: options.now_ms,
            options: home.own.l0_table(&options.table),
            operations,
            entries,
        }
    };
    parts.into_iter().map(new).collect()
}

impl NewTable<'_> {
    /// Writes the table. It is durable but for its name, which `TableSink::finish_all` makes so.
    fn write<'s>(self, vfs: &Arc<dyn Vfs>, dir: &Path, db_id: [u8; 16]) -> Result<TableSink<'s>> {
        let number = self.number;
        let mut sink = TableSink::new(vfs, dir, db_id, self.options, move || number)
            .created_at(self.created_at_ms);
        self.operations.in_order(self.entries, |operation, seqno| {
            sink.add(operation.key, seqno, operation.kind, operation.value)
        })?;
        sink.cut()?;
        Ok(sink)
    }
}
