//! A checkpoint: a directory of its own with everything that a view shows, made while the database
//! is in use.
//!
//! It contains the tables of the view, as hard links to the same files (or copies, where links are
//! not possible), tables made of what the view's memtables show, and one manifest. It has no log,
//! so no log needs to be synced, cut or copied. The database does nothing for it: no flush, and no
//! work of its writers.
//!
//! Guarantees: the checkpoint contains all writes up to the view's sequence number and nothing
//! else. It becomes a database when `CURRENT` is written, which is the last step, after everything
//! else is durable. Until then no open takes the directory for a database. A checkpoint that
//! replaces an older one keeps the older one's files until then, and removes those that it does not
//! need afterwards.
//!
//! It is the same database at an earlier time. Its identity and the numbers of its tables are the
//! same, because the tables' checksums are seeded with both.
//!
//! Blocks on the disk. The caller holds the view, so that no table is removed meanwhile.

mod draft;
#[cfg(test)]
mod tests;

pub use draft::{Draft, Mode};

use crate::compact::TableSink;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::iter::{Cursor, MergeCursor};
use crate::key::Seqno;
use crate::table::{TableMeta, TableOptions};
use crate::version::{Image, Keyspaces, Place, RangeId, RangeImage, ShardCuts, SliceMeta};
use crate::vfs::Vfs;
use crate::view::{InFront, MemtableSlice, RangeEntry, View};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Bytes copied between two calls of `told`.
const COPY_BYTES: usize = 1 << 20;
/// Entries of memtables written between two calls of `told`.
const ASKED_EVERY: u64 = 1024;

/// The source of a checkpoint.
pub struct Origin<'a> {
    /// The disk of both directories.
    pub vfs: &'a Arc<dyn Vfs>,
    /// The database's directory.
    pub dir: &'a Path,
    /// The database's random id.
    pub db_id: [u8; 16],
    /// What the checkpoint will contain.
    pub view: &'a View,
    /// Options of the tables that are made of memtables.
    pub table: TableOptions,
    /// The creation time that those tables record, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// A range with fewer bytes in memory is not cut at shard bounds.
    pub shard_cut_bytes_min: u64,
    /// Returns file numbers that nobody else gets.
    pub next_number: &'a (dyn Fn() -> FileNumber + Sync),
}

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A number of files, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The number of files.
    pub tables: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}

impl Tables {
    fn add(&mut self, bytes: u64) {
        self.tables += 1;
        self.bytes += bytes;
    }
}

/// The progress of a checkpoint; in the end, what it consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of tables and memtables to process. Memtables count with their size in memory, because
    /// their size as tables is not known before.
    pub total_bytes: u64,
    /// The processed part of `total_bytes`.
    pub done_bytes: u64,
    /// Tables that were linked from the database.
    pub linked: Tables,
    /// Tables that had to be copied.
    pub copied: Tables,
    /// Tables that the older checkpoint already had.
    pub kept: Tables,
    /// Tables made of memtables.
    pub written: Tables,
    /// Removed files of an older checkpoint.
    pub removed: u64,
}

/// Called after each step; returns whether to continue.
pub type Told<'a> = &'a mut dyn FnMut(&Counts) -> bool;

/// Adds the tables of `origin` to `draft`. Returns `None` if `told` returned false. Call
/// [`Draft::publish`] afterwards. Blocks on the disk.
///
/// # Errors
/// `Exists` if the draft's older checkpoint has another table with the same number; `Missing`,
/// `Corrupt` and `Io`, naming the file.
pub fn fill(draft: &mut Draft, origin: &Origin<'_>, told: Told<'_>) -> Result<Option<Image>> {
    let superversion = &origin.view.superversion;
    let stable: BTreeMap<FileNumber, &Arc<TableMeta>> = superversion
        .ranges
        .iter()
        .flat_map(|range| range.stable.layers.slices())
        .map(|(_, slice)| (slice.number(), &slice.table))
        .collect();
    let mut memtables = BTreeMap::new();
    for table in superversion.ranges.iter().flat_map(RangeEntry::memtables) {
        if table.first_seqno().is_some_and(|first| first <= origin.view.upto) {
            memtables.insert(table.id(), table.used_bytes() as u64);
        }
    }
    let tables_bytes: u64 = stable.values().map(|meta| meta.file_bytes).sum();
    let memtables_bytes: u64 = memtables.values().sum();
    let mut counts = Counts { total_bytes: tables_bytes + memtables_bytes, ..Counts::default() };
    // Memtables first: their read point keeps overwritten entries from being reclaimed.
    let Some(written) = write_memtables(draft, origin, &counts, told)? else { return Ok(None) };
    for (_, meta) in &written {
        counts.written.add(meta.file_bytes);
    }
    counts.done_bytes += memtables_bytes;
    for meta in stable.values() {
        if !told(&counts) || !place(draft, origin, meta, &mut counts, told)? {
            return Ok(None);
        }
    }
    draft.counts = counts;
    Ok(told(&counts).then(|| image(origin, written)))
}

/// Writes what the view shows of its memtables into tables of the draft, each of one range.
fn write_memtables(
    draft: &mut Draft,
    origin: &Origin<'_>,
    counts: &Counts,
    told: Told<'_>,
) -> Result<Option<Vec<(RangeId, TableMeta)>>> {
    let Origin { vfs, view, .. } = origin;
    let numbers = || (origin.next_number)();
    let sink = TableSink::new(vfs, draft.dir(), origin.db_id, origin.table.clone(), numbers);
    let mut sink = sink.created_at(origin.created_at_ms);
    // `ranges` has the range of each finished table.
    let (mut ranges, mut entries) = (Vec::new(), 0_u64);
    for range in &view.superversion.ranges {
        sink.set_options(range.stable.own.l0_table(&origin.table));
        // INVARIANT(shard-disjoint): where this cuts depends on the ranges alone.
        let bytes: usize = range.memtables().map(|table| table.used_bytes()).sum();
        let bounds = range.stable.shards.for_flush(bytes as u64, origin.shard_cut_bytes_min);
        for memtables in between_tables(range) {
            let cursors = memtables.iter().map(|table| table.cursor(view.upto)).collect();
            let mut cursor = MergeCursor::new(cursors);
            let mut cuts = ShardCuts::at(bounds);
            cursor.seek(&range.span().lo)?;
            while cursor.valid() && range.span().contains(cursor.key()) {
                // A cursor that rests is at a key without an entry to show; see `Cursor`.
                if cursor.seqno() > Seqno::ZERO {
                    if cuts.passes(cursor.key()) {
                        sink.cut()?;
                    }
                    sink.add(cursor.key(), cursor.seqno(), cursor.kind(), cursor.value())?;
                }
                entries += 1;
                if entries.is_multiple_of(ASKED_EVERY) && !told(counts) {
                    return Ok(None);
                }
                cursor.next()?;
            }
            sink.cut()?;
        }
        ranges.resize(sink.tables(), range.id());
    }
    let written = sink.finish()?;
    draft.made(written.iter().map(|meta| meta.number));
    Ok(Some(ranges.into_iter().zip(written).collect()))
}

/// The memtables of a range, newest first, divided where ingested tables lie between them. A table
/// made of memtables must not have both older and newer entries than such a table
/// (newest-layer-first).
fn between_tables(range: &RangeEntry<()>) -> Vec<Vec<MemtableSlice>> {
    let mut parts = vec![Vec::new()];
    for layer in range.in_front() {
        let memtables = parts.last_mut().expect("there is one from the start");
        match layer {
            InFront::Active(table) => memtables.push(MemtableSlice::whole(Arc::clone(table))),
            InFront::Sealed(slice) => memtables.push(slice.clone()),
            InFront::Tables(_) => parts.push(Vec::new()),
        }
    }
    parts
}

/// Adds one table of the database to the draft: keeps it if it is there, or links it, or copies it.
/// Returns `false` if `told` stopped the copy.
fn place(
    draft: &mut Draft,
    origin: &Origin<'_>,
    meta: &Arc<TableMeta>,
    counts: &mut Counts,
    told: Told<'_>,
) -> Result<bool> {
    let Origin { vfs, dir, .. } = origin;
    let kind = FileKind::Table(meta.number);
    let (from, to) = (kind.path(dir), kind.path(draft.dir()));
    if draft.has(vfs, meta, &from)? {
        counts.kept.add(meta.file_bytes);
    } else {
        draft.made([meta.number]);
        match vfs.hard_link(&from, &to) {
            Ok(()) => counts.linked.add(meta.file_bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::Missing { path: from });
            }
            Err(e) => {
                let error = Error::io("link", &to, e);
                if error.is_no_space() {
                    return Err(error);
                }
                tracing::debug!(%error, "a table is copied instead");
                let mut done = 0;
                let mut goes_on = |bytes| {
                    done += bytes;
                    told(&Counts { done_bytes: counts.done_bytes + done, ..*counts })
                };
                if !copy(vfs, &from, &to, meta.file_bytes, &mut goes_on)? {
                    return Ok(false);
                }
                counts.copied.add(meta.file_bytes);
            }
        }
    }
    counts.done_bytes += meta.file_bytes;
    Ok(true)
}

/// Copies a file of `bytes` bytes and makes its contents durable; `false` if `goes_on` stopped it.
fn copy(
    vfs: &Arc<dyn Vfs>,
    from: &Path,
    to: &Path,
    bytes: u64,
    goes_on: &mut dyn FnMut(u64) -> bool,
) -> Result<bool> {
    let source = vfs.open(from).map_err(|e| Error::io("open", from, e))?;
    let target = vfs.create(to).map_err(|e| Error::io("create", to, e))?;
    let mut piece = vec![0; COPY_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let want = piece.len().min((bytes - at) as usize);
        let got = source
            .read_at(&mut piece[..want], at)
            .map_err(|e| Error::io_at("read", from, at, e))?;
        if got < want {
            let what = format!("file has {} bytes, expected {bytes}", at + got as u64);
            return Err(Error::corrupt(from, at + got as u64, what));
        }
        target.write_all_at(&piece[..want], at).map_err(|e| Error::io_at("write", to, at, e))?;
        // Starts the write-back, so that the final sync has less to wait for. The sync will report
        // a failure.
        let _ = target.write_back(at, want as u64);
        at += want as u64;
        if !goes_on(want as u64) {
            return Ok(false);
        }
    }
    target.sync_all().map_err(|e| Error::io("sync", to, e))?;
    Ok(true)
}

/// The image of the checkpoint: the view's ranges and tables, all flushed up to the view's number;
/// no log; cleanly closed.
fn image(origin: &Origin<'_>, written: Vec<(RangeId, TableMeta)>) -> Image {
    let View { superversion, upto, .. } = origin.view;
    // No log segment is named, so none is expected. All later segments get higher numbers.
    let number = (origin.next_number)();
    let mut image = Image {
        log_floor: number,
        next_file_number: FileNumber(number.0 + 1),
        last_seqno: *upto,
        clean_close: true,
        keyspaces: Keyspaces::clone(&superversion.keyspaces),
        ..Image::default()
    };
    for range in superversion.ranges.iter().map(|range| &range.stable) {
        let (span, shards) = (range.span.clone(), range.shards.clone());
        let (keyspace, flushed) = (range.keyspace, *upto);
        image.ranges.insert(range.id, RangeImage { keyspace, span, shards, flushed });
        for (place, slice) in range.layers.slices() {
            image.slices.insert((range.id, place, slice.name()), slice.meta().clone());
        }
    }
    for (range, table) in written {
        let slice = SliceMeta::whole(table);
        image.slices.insert((range, Place::L0, slice.name()), slice);
    }
    debug_assert_eq!(image.contradictions(), [], "a view agrees with itself");
    image
}

/// Does this image show that nobody has written since the checkpoint was made? A database that was
/// opened for writing has a log.
fn is_checkpoint(image: &Image) -> bool {
    image.clean_close && image.newest_segment < image.log_floor && image.prepared.is_empty()
}
