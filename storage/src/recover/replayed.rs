//! What the manifest and the log of a directory add up to, before any of it counts.
//!
//! The tables that were made from the log are written, and no manifest names them. Whoever opens
//! the directory for writing makes them count (`reopen`), or removes them (`undo`).

use super::leftovers::Leftovers;
use super::masks::Masks;
use super::replay::{Replay, give_way_after};
use super::{
    RecoverOptions, RecoveryReport, change_is_known, check_counter, known_log, make_version,
    next_file_number, segments,
};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::manifest::LoadedManifest;
use crate::version::{Image, TableCache, Version, VersionEdit};
use crate::vfs::Vfs;
use crate::wal::{self, LogIdentity};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a directory is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    /// Nothing that is there is removed.
    Read,
}

/// See the module.
pub(super) struct Replayed {
    /// Everything that manifest and log have.
    pub(super) version: Version,
    pub(super) tables: Arc<TableCache>,
    /// The first record of the manifest that would make it count, and that manifest's number.
    pub(super) image: Image,
    pub(super) number: FileNumber,
    pub(super) last_seqno: Seqno,
    pub(super) report: RecoveryReport,
    /// The tables that were written.
    written: Vec<FileNumber>,
}

impl Replayed {
    /// Replays the log over what the manifest has. Blocks on the disk.
    ///
    /// # Errors
    /// As `open_directory`. No table is left then.
    pub(super) fn new(
        (vfs, dir): (&Arc<dyn Vfs>, &Path),
        names: &[String],
        loaded: LoadedManifest,
        options: &RecoverOptions,
        purpose: Purpose,
    ) -> Result<Self> {
        let path = FileKind::Manifest(loaded.number).path(dir);
        let LoadedManifest { db_id, mut image, torn, number: old, .. } = loaded;
        if let Some(conflict) = image.contradictions().first() {
            return Err(Error::corrupt(&path, 0, conflict.to_string()));
        }
        let next = next_file_number(dir, names, &image)?;
        let tables = TableCache::new(vfs, dir, db_id, options.tables.clone());
        let version = make_version(&image, &tables).map_err(|problem| problem.into_error(&path))?;
        let (prepared, masks) = (image.prepared.clone(), image.masks.clone());
        let (identity, known) = (LogIdentity { db_id }, known_log(&image));
        let (segments, given_out) = (segments(names), image.next_file_number);
        let side_by_side = options.side_by_side.as_ref();
        let read = |each: &mut (dyn FnMut(wal::LogItem<'_>) -> Result<()> + Send)| {
            let mut each = |item: wal::LogItem<'_>| {
                change_is_known(&item, given_out, &path)?;
                each(item)
            };
            let log = wal::replay(vfs, dir, &identity, &known, &segments, side_by_side, &mut each)?;
            check_counter(dir, "a sequence number", log.last_seqno.0)?;
            Ok(log)
        };
        let judge = || {
            let mut bytes = 0;
            let mut pass = |entry: wal::LogItem<'_>| {
                if let wal::LogItem::Batch { payload, .. } = entry {
                    give_way_after(&mut bytes, payload.len());
                }
                Ok(())
            };
            read(&mut pass).map(drop)
        };
        let leftovers = match purpose {
            Purpose::Write => Leftovers::among(names, old, &image, &judge),
            Purpose::Read => Leftovers::none(old),
        };
        let mut replay =
            Replay::new((vfs, dir), db_id, options, &tables, (version, prepared), leftovers, next);
        replay.masks = Masks::new(masks);
        let log = read(&mut |entry| replay.entry(entry)).and_then(|log| {
            replay.leftovers.log_is_sound();
            replay.flush_down_to(0).map(|()| log)
        });
        let log = match log {
            Ok(log) => log,
            Err(error) => {
                replay.undo();
                return Err(error);
            }
        };
        let flushed_max = image.ranges.values().map(|range| range.flushed).max();
        let last_seqno = image.last_seqno.max(log.last_seqno).max(flushed_max.unwrap_or_default());
        let number = replay.next_number();
        let edit = VersionEdit {
            added: replay.added.clone(),
            flushed: replay.version.ranges().iter().map(|range| (range.id, last_seqno)).collect(),
            settled: replay.happened.clone(),
            abandoned: replay.abandoned(),
            // All existing segments have lower numbers, and all later ones will have higher ones.
            log_floor: Some(number),
            next_file_number: Some(replay.next),
            last_seqno: Some(last_seqno),
            ..VersionEdit::default()
        };
        let added =
            replay.added.iter().map(|(_, _, slice)| tables.handle(Arc::clone(&slice.table)));
        let added: Vec<_> = added.collect();
        let installed = image.apply(&edit).and_then(|()| replay.version.apply(&edit, &added));
        let installed =
            installed.map_err(|conflict| Error::corrupt(&path, 0, conflict.to_string()));
        // INVARIANT(leftovers-after-the-log): before the manifest, if there was no table.
        let installed = installed
            .and_then(|version| replay.leftovers.remove(vfs, dir, side_by_side).map(|()| version));
        let version = match installed {
            Ok(version) => version,
            Err(error) => {
                replay.undo();
                return Err(error);
            }
        };
        let report = RecoveryReport {
            created: false,
            manifest_torn: torn,
            bytes_replayed: replay.bytes_read,
            replay_bytes_peak: replay.bytes_peak as u64,
            entries_replayed: replay.replayed,
            entries_skipped: replay.skipped,
            changes_replayed: replay.happened.len() as u64,
            changes_skipped: replay.changes_skipped,
            tables_written: replay.tables_written(),
            log: Some(log),
            took: Duration::ZERO,
            files_removed: replay.leftovers.into_removed(),
        };
        let written = replay.written;
        Ok(Self { version, tables, image, number, last_seqno, report, written })
    }

    /// Removes all tables that were written.
    pub(super) fn undo(&self, vfs: &Arc<dyn Vfs>, dir: &Path) {
        remove_tables(vfs, dir, &self.written);
    }
}

/// Removes tables that nothing names, as far as the disk allows.
pub(super) fn remove_tables(vfs: &Arc<dyn Vfs>, dir: &Path, tables: &[FileNumber]) {
    for number in tables {
        let _ = vfs.remove(&FileKind::Table(*number).path(dir));
    }
}
