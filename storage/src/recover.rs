//! Opening a directory: what the disk holds becomes a version, or a reason why it cannot.
//!
//! The order of an open, each step crash-safe and repeatable (a crash anywhere leaves a directory
//! whose next open ends in the same state):
//!
//! 1. `CURRENT` and the manifest are read, and every table that it names is there with its length.
//! 2. The log is replayed into memtables, which become L0 tables whenever they exceed the budget
//!    and at the end: everything that will be readable is durable before anybody can read it.
//! 3. A new manifest whose log floor lies past every replayed segment is written and swapped in.
//! 4. Only now old logs, old manifests and files that were never published are removed.
//!
//! The old log is never appended to; the caller starts a new one after this returned. When an open
//! is refused nothing that was there has changed. The caller holds the directory's lock.

pub mod directory;
mod replay;

use self::directory::DirectoryState;
use self::replay::Replay;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::limits::COUNTERS_AT_OPEN_MAX;
use crate::manifest::{self, LoadedManifest, ManifestWriter, TornTail};
use crate::table::TableOptions;
use crate::version::{Conflict, Image, SliceMeta, TableCache, TableLimits, Version, VersionEdit};
use crate::vfs::Vfs;
use crate::wal::{self, KnownLog, LogIdentity};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How to open a directory.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// Make a new database where there is none; otherwise that is an error.
    pub create_if_missing: bool,
    /// The id that a new database gets: 16 random bytes.
    pub fresh_id: [u8; 16],
    /// Where the ranges of a new database meet, ascending; an existing one keeps its own ranges.
    pub split_keys: Vec<Bytes>,
    /// Memory for replayed entries of all ranges together, in bytes; beyond it the largest
    /// memtables are flushed. One batch may exceed it.
    pub replay_bytes_max: usize,
    /// How tables made from the log are written.
    pub table: TableOptions,
    /// A table of one range that would have fewer bytes is not cut at shard bounds.
    pub shard_cut_bytes_min: u64,
    /// Shards of the ranges of a new database.
    pub shards: usize,
    /// What open tables may take, and where their blocks are cached.
    pub tables: TableLimits,
}

/// An open database, before anything runs.
#[derive(Debug)]
pub struct Recovered {
    /// The database's random id.
    pub db_id: [u8; 16],
    /// All that was durable. No log entry is outside it.
    pub version: Arc<Version>,
    /// Opens its tables; none is open yet.
    pub tables: Arc<TableCache>,
    /// The new manifest.
    pub manifest: ManifestWriter,
    /// The first number that no file has.
    pub next_file_number: FileNumber,
    /// The last sequence number that was given out.
    pub last_seqno: Seqno,
    /// What was found.
    pub report: RecoveryReport,
}

/// What an open found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Was the database made just now?
    pub created: bool,
    /// The manifest edit that never happened, if the manifest ended in one.
    pub manifest_torn: Option<TornTail>,
    /// What the log held and where it ended; `None` for a new database.
    pub log: Option<wal::ReplayReport>,
    /// Bytes of the batches that were read from the log.
    pub bytes_replayed: u64,
    /// The most memory that replayed entries held at once, in bytes.
    pub replay_bytes_peak: u64,
    /// Log entries that were in no table yet.
    pub entries_replayed: u64,
    /// Log entries that were in a table already.
    pub entries_skipped: u64,
    /// Changes in the log that the manifest waited for, and that have happened now.
    pub changes_replayed: u64,
    /// Changes in the log that the manifest does not wait for.
    pub changes_skipped: u64,
    /// Tables made from the log.
    pub tables_written: u64,
    /// How long it took. Filled in by the caller, who has a clock.
    pub took: Duration,
    /// Names of the files that were removed.
    pub files_removed: Vec<String>,
}

/// Opens the database in `dir`, or makes one. Blocks on the disk.
///
/// # Errors
/// `Corrupt`, `Missing` and `Unsupported` name the file; `Invalid` where there is no database and
/// none may be made, or where somebody else's files are; `Io`.
pub fn open_directory(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: &RecoverOptions,
) -> Result<Recovered> {
    match directory::look(vfs, dir)? {
        DirectoryState::Vacant(leftovers) => create(vfs, dir, &leftovers, options),
        DirectoryState::Database(current) => {
            // The process that made these names may have died before they were durable. They must
            // be durable before any other name is there: a manifest without `CURRENT` is no
            // database.
            vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
            let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
            let loaded = manifest::load(vfs, dir, &current)?;
            reopen(vfs, dir, &names, loaded, options)
        }
    }
}

/// Makes a new database in a directory whose name is durable.
fn create(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    leftovers: &[FileKind],
    options: &RecoverOptions,
) -> Result<Recovered> {
    if !options.create_if_missing {
        let what = format!("{} has no database, and none may be created", dir.display());
        return Err(Error::invalid(what));
    }
    let image = Image::of_new_database(FileNumber(2), &options.split_keys, options.shards);
    // Before anything is written: split keys that make no ranges are refused here.
    let tables = TableCache::new(vfs, dir, options.fresh_id, options.tables.clone());
    let version = make_version(&image, &tables).map_err(|problem| match problem {
        Problem::Rule(conflict) => Error::invalid(format!("the split keys: {conflict}")),
        Problem::File(error) => error,
    })?;
    for kind in leftovers {
        let path = kind.path(dir);
        vfs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    // All ranges are in the manifest's first record, which counts once `CURRENT` names it.
    let manifest = ManifestWriter::create(vfs, dir, options.fresh_id, FileNumber(1), image)?;
    Ok(Recovered {
        db_id: options.fresh_id,
        version: Arc::new(version),
        tables,
        next_file_number: manifest.image().next_file_number,
        manifest,
        last_seqno: Seqno::ZERO,
        report: RecoveryReport { created: true, ..RecoveryReport::default() },
    })
}

/// The first number that no file has or had, whoever left it there.
///
/// # Errors
/// `Corrupt` where it, or the last sequence number, is so large that what follows could not be read
/// again: only files made by hand have such numbers.
pub(crate) fn next_file_number(dir: &Path, names: &[String], image: &Image) -> Result<FileNumber> {
    let numbers = names.iter().filter_map(|name| FileKind::parse(name)?.number());
    let above = numbers.map(|number| FileNumber(number.0.saturating_add(1))).max();
    let next = image.next_file_number.max(above.unwrap_or_default()).max(FileNumber(1));
    check_counter(dir, "a file number", next.0)?;
    check_counter(dir, "a sequence number", image.last_seqno.0)?;
    Ok(next)
}

fn check_counter(dir: &Path, what: &str, number: u64) -> Result<()> {
    if number <= COUNTERS_AT_OPEN_MAX {
        return Ok(());
    }
    let what = format!("{what} in this directory is {number}, more than can have been given out");
    Err(Error::corrupt(&FileKind::Current.path(dir), 0, what))
}

fn reopen(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    names: &[String],
    loaded: LoadedManifest,
    options: &RecoverOptions,
) -> Result<Recovered> {
    let path = FileKind::Manifest(loaded.number).path(dir);
    if !loaded.writable {
        let what = "it has features that forbid this build to write the database".to_owned();
        return Err(Error::Unsupported { path, what });
    }
    let LoadedManifest { db_id, mut image, torn, number: old, .. } = loaded;
    if let Some(conflict) = image.contradictions().first() {
        return Err(Error::corrupt(&path, 0, conflict.to_string()));
    }
    let next = next_file_number(dir, names, &image)?;
    let tables = TableCache::new(vfs, dir, db_id, options.tables.clone());
    let version = make_version(&image, &tables).map_err(|problem| problem.into_error(&path))?;
    let (prepared, masks) = (image.prepared.clone(), image.masks.clone());
    let mut replay = Replay::new((vfs, dir), db_id, options, &tables, version, prepared, next);
    replay.masks = masks;
    let segments = segments(names);
    let identity = LogIdentity { db_id };
    let mut each = |entry: wal::Entry<'_>| replay.entry(entry);
    let log = wal::replay(vfs, dir, &identity, &known_log(&image), &segments, &mut each);
    let log = log.and_then(|log| {
        check_counter(dir, "a sequence number", log.last_seqno.0)?;
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
        // All segments that exist have lower numbers, all that will come have higher ones.
        log_floor: Some(number),
        next_file_number: Some(replay.next),
        last_seqno: Some(last_seqno),
        ..VersionEdit::default()
    };
    let added = replay.added.iter().map(|(_, _, slice)| tables.handle(Arc::clone(&slice.table)));
    let added: Vec<_> = added.collect();
    let installed = image.apply(&edit).and_then(|()| replay.version.apply(&edit, &added));
    let version = match installed {
        Ok(version) => version,
        Err(conflict) => {
            replay.undo();
            return Err(Error::corrupt(&path, 0, conflict.to_string()));
        }
    };
    let mut report = RecoveryReport {
        created: false,
        manifest_torn: torn,
        bytes_replayed: replay.bytes_read,
        replay_bytes_peak: replay.bytes_peak as u64,
        entries_replayed: replay.replayed,
        entries_skipped: replay.skipped,
        changes_replayed: replay.happened.len() as u64,
        changes_skipped: replay.changes_skipped,
        tables_written: replay.tables_written(),
        log: None,
        took: Duration::ZERO,
        files_removed: Vec::new(),
    };
    let manifest = match ManifestWriter::create(vfs, dir, db_id, number, image) {
        Ok(manifest) => manifest,
        Err(error) => {
            // If the new manifest may already count, its tables must stay. If there was no space
            // for it, it does not count, and its tables take space that is needed.
            let counts = |current: manifest::Current| current.manifest != old;
            let counts = manifest::read_current(vfs, dir).map(|found| found.is_none_or(counts));
            if error.is_no_space() && matches!(counts, Ok(false)) {
                replay.undo();
            }
            return Err(error);
        }
    };
    report.files_removed = sweep(vfs, dir, &manifest);
    report.log = Some(log);
    Ok(Recovered {
        db_id,
        version: Arc::new(version),
        tables,
        next_file_number: manifest.image().next_file_number,
        manifest,
        last_seqno,
        report,
    })
}

/// What the manifest says of the log.
pub(crate) fn known_log(image: &Image) -> KnownLog {
    let needed = image.log_floor.max(FileNumber(1));
    KnownLog {
        floor: image.log_floor,
        newest: Some(image.newest_segment).filter(|number| *number >= needed),
        last_seqno: image.last_seqno,
        closed: image.clean_close,
    }
}

/// The numbers of the log segments in a directory, ascending.
pub(crate) fn segments(names: &[String]) -> Vec<FileNumber> {
    let mut segments: Vec<_> = names
        .iter()
        .filter_map(|name| match FileKind::parse(name) {
            Some(FileKind::Wal(number)) => Some(number),
            _ => None,
        })
        .collect();
    segments.sort_unstable();
    segments.dedup();
    segments
}

/// Why a manifest's tables do not make a version.
enum Problem {
    Rule(Conflict),
    File(Error),
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        Self::Rule(conflict)
    }
}

impl Problem {
    fn into_error(self, manifest: &Path) -> Error {
        match self {
            Self::Rule(conflict) => Error::corrupt(manifest, 0, conflict.to_string()),
            Self::File(error) => error,
        }
    }
}

/// The version that `image` describes. Every table's file is there and has its length; what is in
/// it is checked when it is read.
fn make_version(image: &Image, tables: &Arc<TableCache>) -> Result<Version, Problem> {
    image.to_version(Arc::clone(tables.obsolete_files()), |meta| {
        tables.check_presence(meta).map_err(Problem::File)?;
        Ok(tables.handle(Arc::clone(meta)))
    })
}

/// Removes what the new manifest makes unreachable. Names that are not ours stay, as does
/// everything that cannot be removed; the next open tries again.
fn sweep(vfs: &Arc<dyn Vfs>, dir: &Path, manifest: &ManifestWriter) -> Vec<String> {
    let image = manifest.image();
    let live: BTreeSet<_> = image.slices.values().map(SliceMeta::number).collect();
    let mut removed = Vec::new();
    let names = match vfs.list(dir) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "old files are not removed: the directory cannot be listed");
            return removed;
        }
    };
    for name in names {
        let obsolete = match FileKind::parse(&name) {
            None | Some(FileKind::Lock | FileKind::Current | FileKind::Reserve) => false,
            Some(FileKind::Temp(_) | FileKind::Spare(_)) => true,
            Some(FileKind::Manifest(number)) => number < manifest.number(),
            Some(FileKind::Wal(number)) => number < image.log_floor,
            Some(FileKind::Table(number)) => {
                number < image.next_file_number && !live.contains(&number)
            }
        };
        if !obsolete {
            continue;
        }
        match vfs.remove(&dir.join(&name)) {
            Ok(()) => removed.push(name),
            Err(error) => tracing::warn!(%error, file = %name, "an old file is not removed"),
        }
    }
    removed.sort();
    removed
}

#[cfg(test)]
mod tests;
