//! A checkpoint: a directory of its own with everything that a view shows, while its database goes
//! on.
//!
//! What is in it: the tables of the view, as second names of the same files (or copies, where that
//! cannot be), tables made of what the view's memtables show, and one manifest. There is no log, so
//! none has to be waited for, cut or copied, and the database itself does nothing: it is not
//! flushed, and its writers are not asked.
//!
//! Promises: the checkpoint holds the writes up to the view's number, all of them and nothing else.
//! It is a database once `CURRENT` is there, which is the last step, after everything else is
//! durable. Before that no open takes the directory for a database; a checkpoint that takes the
//! place of an older one has the older one's files until then, and removes what it does not need
//! afterwards.
//!
//! It is the same database at an earlier time: it has the same identity and its tables have the
//! same numbers, because their checksums are seeded with both.
//!
//! Blocks on the disk. The caller holds the view, so that no table goes meanwhile.

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

/// So much is copied between two looks whether anybody wants the rest.
const COPY_BYTES: usize = 1 << 20;
/// So often, in entries, the same is asked while memtables are written.
const ASKED_EVERY: u64 = 1024;

/// What a checkpoint is made of.
pub struct Origin<'a> {
    /// The disk of both directories.
    pub vfs: &'a Arc<dyn Vfs>,
    /// The database's directory.
    pub dir: &'a Path,
    /// The database's random id.
    pub db_id: [u8; 16],
    /// What the checkpoint will show.
    pub view: &'a View,
    /// How tables made of memtables are written.
    pub table: TableOptions,
    /// What they say about when they were made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// A range with fewer bytes in memory is not cut at shard bounds.
    pub shard_cut_bytes_min: u64,
    /// Hands out file numbers that nobody else gets.
    pub next_number: &'a (dyn Fn() -> FileNumber + Sync),
}

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Files of one kind, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// How many.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tables {
    fn add(&mut self, bytes: u64) {
        self.tables += 1;
        self.bytes += bytes;
    }
}

/// How far a checkpoint has come; at the end, what it consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of tables and memtables that there are to do. What memtables take as tables is not
    /// known before: they count as what they take in memory.
    pub total_bytes: u64,
    /// Of those, what is done.
    pub done_bytes: u64,
    /// Tables that the database has as well.
    pub linked: Tables,
    /// Tables that had to be copied.
    pub copied: Tables,
    /// Tables that were there already.
    pub kept: Tables,
    /// Tables made of memtables.
    pub written: Tables,
    /// Files of an older checkpoint that were removed.
    pub removed: u64,
}

/// Told after each step; says whether to go on.
pub type Told<'a> = &'a mut dyn FnMut(&Counts) -> bool;

/// Puts the tables of `origin` into `draft`; `None` when `told` said no. See [`Draft::publish`] for
/// the rest.
///
/// # Errors
/// `Exists` where the draft's older checkpoint has another table under the same name; whatever the
/// disk says.
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
    // First: it is what readers of the memtables wait for, and what their writer cannot reclaim.
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

/// Writes what the view shows of its memtables into tables of the draft, each for one range.
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
    // Of each table.
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
                // A cursor that rests stands on no entry.
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

/// The memtables of a range, newest first, parted where tables that came in from outside stand
/// between them: no table of memtables may have older entries than such a one and newer ones as
/// well (newest-layer-first).
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

/// Has one table of the database in the draft: it is there already, gets a second name, or is
/// copied.
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

/// Copies a file of `bytes` bytes and makes its content durable; false if it was stopped.
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
        // So that the sync at the end has less to wait for. Its failure is the sync's to tell.
        let _ = target.write_back(at, want as u64);
        at += want as u64;
        if !goes_on(want as u64) {
            return Ok(false);
        }
    }
    target.sync_all().map_err(|e| Error::io("sync", to, e))?;
    Ok(true)
}

/// What the manifest of the checkpoint says: the view's ranges and tables, all flushed up to its
/// number; no log; closed in order.
fn image(origin: &Origin<'_>, written: Vec<(RangeId, TableMeta)>) -> Image {
    let View { superversion, upto, .. } = origin.view;
    // As long as no log is named, no segment is expected: all that come have higher numbers.
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

/// Does this manifest say that nobody has written since the checkpoint was made? A database that
/// was opened for writing has a log.
fn is_checkpoint(image: &Image) -> bool {
    image.clean_close && image.newest_segment < image.log_floor && image.prepared.is_empty()
}
