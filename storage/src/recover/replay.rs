//! Replays log entries into tables, within a memory budget.
//!
//! The tables that it writes are not named by any manifest yet. `undo` removes them if the open is
//! refused after all.

use super::RecoverOptions;
use crate::batch::PointOperations;
use crate::compact::{TableSink, write_tables};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::give_way;
use crate::key::Seqno;
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::memtable::{MemtableWriter, memtable};
use crate::version::{
    ChangeId, Place, RangeId, RangeVersion, Slice, SliceMeta, TableCache, Version, VersionEdit,
};
use crate::vfs::Vfs;
use crate::wal::LogItem;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

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
    /// INVARIANT(mask-covers-replay): entries of these spans with lower sequence numbers are
    /// excised.
    pub(super) masks: Vec<(KeyspaceSpan, Seqno)>,
    /// The sequence numbers of L0 tables that changes brought in, with their ranges, in descending
    /// order.
    ahead: Vec<(Seqno, RangeId)>,
    pub(super) next: FileNumber,
    writers: BTreeMap<RangeId, MemtableWriter>,
    /// Memory of all memtables together.
    bytes: usize,
    pub(super) bytes_peak: usize,
    pub(super) bytes_read: u64,
    pub(super) added: Vec<(RangeId, Place, SliceMeta)>,
    /// All tables that were written, even if no slice of them is left.
    written: Vec<FileNumber>,
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
        version: Version,
        prepared: BTreeMap<ChangeId, VersionEdit>,
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
            masks: Vec::new(),
            ahead,
            next,
            writers: BTreeMap::new(),
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
    /// (INVARIANT(prepared-needs-its-record)). A change that is not prepared is settled already.
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
                self.flush(range)?;
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
            self.flush(range)?;
        }
        Ok(())
    }

    /// Prepared changes that the log has not stamped. They never take effect.
    pub(super) fn abandoned(&self) -> Vec<ChangeId> {
        self.prepared.keys().copied().collect()
    }

    /// Replays one batch. Its operations have consecutive sequence numbers from `first` on.
    fn batch(&mut self, first: Seqno, payload: &[u8]) -> Result<()> {
        for (operation, seqno) in PointOperations::new(payload).zip(first.0..) {
            let Some(range) = self.version.route(operation.keyspace, operation.key) else {
                // Its keyspace was dropped later.
                self.skipped += 1;
                continue;
            };
            let (id, seqno) = (range.id, Seqno(seqno));
            let is_masked = |(span, at): &(KeyspaceSpan, Seqno)| {
                seqno < *at && span.contains(operation.keyspace, operation.key)
            };
            if seqno <= range.flushed_seqno || self.masks.iter().any(is_masked) {
                self.skipped += 1;
                continue;
            }
            self.replayed += 1;
            let writer = self.writers.entry(id).or_insert_with(|| memtable(0).1);
            let before = writer.memtable().used_bytes();
            writer.insert(operation.key, seqno, operation.kind, operation.value);
            self.bytes = self.bytes + writer.memtable().used_bytes() - before;
        }
        give_way::now_and_then();
        self.bytes_read += payload.len() as u64;
        self.bytes_peak = self.bytes_peak.max(self.bytes);
        if self.bytes > self.options.replay_bytes_max {
            // Down to half of it, so that the flushes are large enough to be worth a table.
            self.flush_down_to(self.options.replay_bytes_max / 2)?;
        }
        Ok(())
    }

    /// Flushes memtables, the largest first, until at most `bytes` are left.
    pub(super) fn flush_down_to(&mut self, bytes: usize) -> Result<()> {
        while self.bytes > bytes {
            let size = |writer: &MemtableWriter| writer.memtable().used_bytes();
            let largest = self.writers.iter().max_by_key(|(_, writer)| size(writer));
            let range = *largest.expect("bytes belong to a memtable").0;
            self.flush(range)?;
        }
        Ok(())
    }

    /// Removes the memtable of `range`, if it has one.
    fn take(&mut self, range: RangeId) -> Option<MemtableWriter> {
        let writer = self.writers.remove(&range)?;
        self.bytes -= writer.memtable().used_bytes();
        Some(writer)
    }

    /// Flushes the memtable of `range`.
    fn flush(&mut self, range: RangeId) -> Result<()> {
        let Some(writer) = self.take(range) else { return Ok(()) };
        let memtable = Arc::clone(writer.memtable());
        writer.freeze();
        let bytes = memtable.used_bytes();
        let next = &mut self.next;
        let home = self.version.range(range).expect("it was routed to");
        let table = home.own.l0_table(&self.options.table);
        let sink = TableSink::new(self.vfs, self.dir, self.db_id, table, || {
            let number = *next;
            *next = FileNumber(number.0 + 1);
            number
        });
        let bounds = home.shards.for_flush(bytes as u64, self.options.shard_cut_bytes_min);
        let mut cursor = memtable.cursor(Seqno::MAX);
        let tables = write_tables(&mut cursor, sink, bounds, &|| true)?;
        let tables = tables.expect("nobody stops a recovery");
        self.written.extend(tables.iter().map(|table| table.number));
        let slices = tables.into_iter().map(SliceMeta::whole);
        self.added.extend(slices.map(|slice| (range, Place::L0, slice)));
        Ok(())
    }

    /// Removes all tables that were written, because the open is refused.
    pub(super) fn undo(&self) {
        for number in &self.written {
            let _ = self.vfs.remove(&FileKind::Table(*number).path(self.dir));
        }
    }
}
