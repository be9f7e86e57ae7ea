//! Recovery: opens a directory. The result is a version, or the reason why it is refused.
//!
//! Each step of an open is crash-safe and repeatable: after a crash anywhere, the next open ends in
//! the same state.
//!
//! 1. Read `CURRENT` and the manifest. Check that each table that it names is there and has its
//!    length.
//! 2. Replay the log. Write what it has into tables of L0 when that exceeds the budget, and at the
//!    end. So everything that will be readable is durable before anybody can read it, also what
//!    only the page cache has of the log, because a sync failed. Before the first table, or else
//!    before the manifest, what earlier opens were writing when they were interrupted is removed.
//! 3. Write a new manifest whose log floor is above every replayed segment, and swap it in.
//! 4. Only now remove old manifests, and log segments that were not replayed. The caller removes
//!    the others.
//!
//! The old log is never appended to; the caller starts a new one afterwards. An open that is
//! refused because of what is there changes nothing of it. One that fails later may have removed
//! files that nothing names. The caller holds the directory's lock. Who only reads does the first
//! two steps on a disk in memory, and removes nothing; it makes nothing durable.

pub mod directory;
mod gathered;
mod leftovers;
mod masks;
mod replay;
mod replayed;

use self::directory::DirectoryState;
use self::leftovers::sweep;
use self::replayed::{Purpose, Replayed};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::limits::COUNTERS_AT_OPEN_MAX;
use crate::manifest::{self, LoadedManifest, ManifestWriter, TornTail};
use crate::side_by_side::SideBySide;
use crate::table::TableOptions;
use crate::version::{Conflict, Image, TableCache, TableLimits, Version};
use crate::vfs::Vfs;
use crate::wal::{self, KnownLog, SealedSegment};
use bytes::Bytes;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How to open a directory.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// Create a database if there is none. Otherwise that is an error.
    pub create_if_missing: bool,
    /// The id of a new database: 16 random bytes.
    pub fresh_id: [u8; 16],
    /// The keys at which the ranges of a new database meet, ascending. An existing database keeps
    /// its own.
    pub split_keys: Vec<Bytes>,
    /// Memory that may be allocated for replayed entries, of all ranges together, in bytes. Before
    /// it is exceeded, the ranges with the most are flushed. A single entry may exceed it.
    pub replay_bytes_max: usize,
    /// Options of the tables that are made from the log.
    pub table: TableOptions,
    /// When the database is opened, in milliseconds since 1970. The tables are as old as that.
    pub now_ms: u64,
    /// A flush of fewer bytes is not cut at shard bounds.
    pub shard_cut_bytes_min: u64,
    /// The number of shards of each range of a new database.
    pub shards: usize,
    /// Limits of the open tables, and the cache of their blocks.
    pub tables: TableLimits,
    /// Runs what can be done in any order: writing tables, removing files.
    pub side_by_side: Arc<dyn SideBySide>,
}

/// A recovered database, before any actor runs.
#[derive(Debug)]
pub struct Recovered {
    /// The database's random id.
    pub db_id: [u8; 16],
    /// Everything that was durable. No entry exists only in the log.
    pub version: Arc<Version>,
    /// The table cache. No table is open yet.
    pub tables: Arc<TableCache>,
    /// The new manifest.
    pub manifest: ManifestWriter,
    /// The first number that no file has.
    pub next_file_number: FileNumber,
    /// The last sequence number that was stamped.
    pub last_seqno: Seqno,
    /// What the open found and did.
    pub report: RecoveryReport,
}

/// The content of a directory, for who only reads it.
#[derive(Debug)]
pub struct ReadContent {
    /// Everything, the log's entries included.
    pub version: Arc<Version>,
    /// The table cache. No table is open yet.
    pub tables: Arc<TableCache>,
    /// The last sequence number that was stamped.
    pub last_seqno: Seqno,
    /// What the open found and did.
    pub report: RecoveryReport,
}

/// What an open found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Was the database created by this open?
    pub created: bool,
    /// The incomplete edit at the end of the manifest, which never took effect, if there was one.
    pub manifest_torn: Option<TornTail>,
    /// The result of the log's replay; `None` for a new database.
    pub log: Option<wal::ReplayReport>,
    /// Bytes of the batches that were read from the log.
    pub bytes_replayed: u64,
    /// The most memory that was allocated for replayed entries at once, in bytes. If the database
    /// is opened for reading only, the caller adds that of the tables.
    pub replay_bytes_peak: u64,
    /// Log entries that were in no table yet.
    pub entries_replayed: u64,
    /// Log entries that were skipped: already in a table, masked, or of a dropped keyspace.
    pub entries_skipped: u64,
    /// Changes in the log that the manifest had prepared. They have taken effect now.
    pub changes_replayed: u64,
    /// Changes in the log that the manifest has not prepared, because they are settled already.
    pub changes_skipped: u64,
    /// Tables made from the log.
    pub tables_written: u64,
    /// The duration of the open. The caller fills it in, because only the caller has a clock.
    pub took: Duration,
    /// Names of the removed files.
    pub files_removed: Vec<String>,
}

impl RecoveryReport {
    /// The segments of the log that were replayed. After an open for writing they are below the
    /// log's floor: the caller removes them when it likes. If it does not, the next open does.
    pub fn old_log(&self) -> &[SealedSegment] {
        self.log.as_ref().map_or(&[], |log| &log.segments)
    }
}

/// Opens the database in `dir`, or creates one. Blocks on the disk: reads the whole log.
///
/// # Errors
/// `Corrupt`, `Missing` and `Unsupported` name the file. `NoDatabase` if there is none and none
/// may be created. `Invalid` if the directory has files of another program. `Io`.
pub fn open_directory(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: &RecoverOptions,
) -> Result<Recovered> {
    match directory::look(vfs, dir)? {
        DirectoryState::Vacant(leftovers) => create(vfs, dir, &leftovers, options),
        DirectoryState::Database(current) => {
            // The process that created these names may have died before they were durable. They
            // must be durable before any further name exists: a manifest without `CURRENT` is no
            // database.
            vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
            let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
            let loaded = manifest::load(vfs, dir, &current)?;
            reopen(vfs, dir, &names, loaded, options)
        }
    }
}

/// Finds out what the database in `dir` holds. The log's entries are written into tables, which no
/// manifest names: `vfs` is a disk that keeps them in memory. Nothing that is there is changed.
/// Blocks on the disk: reads the whole log.
///
/// # Errors
/// As `open_directory`.
pub fn read_directory(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: &RecoverOptions,
) -> Result<ReadContent> {
    let DirectoryState::Database(current) = directory::look(vfs, dir)? else {
        return Err(no_database(dir));
    };
    let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let loaded = manifest::load(vfs, dir, &current)?;
    let replayed = Replayed::new((vfs, dir), &names, loaded, options, Purpose::Read)?;
    let Replayed { version, tables, last_seqno, report, .. } = replayed;
    Ok(ReadContent { version: Arc::new(version), tables, last_seqno, report })
}

fn no_database(dir: &Path) -> Error {
    Error::NoDatabase { path: dir.to_owned(), why: "none may be created" }
}

/// Creates a database in a directory whose name is durable.
fn create(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    leftovers: &[FileKind],
    options: &RecoverOptions,
) -> Result<Recovered> {
    if !options.create_if_missing {
        return Err(no_database(dir));
    }
    let image = Image::of_new_database(FileNumber(2), &options.split_keys, options.shards);
    // The version is made before anything is written, so that split keys that make no ranges are
    // refused.
    let tables = TableCache::new(vfs, dir, options.fresh_id, options.tables.clone());
    let version = make_version(&image, &tables).map_err(|problem| match problem {
        Problem::Rule(conflict) => Error::invalid(format!("the split keys: {conflict}")),
        Problem::File(error) => error,
    })?;
    for kind in leftovers {
        let path = kind.path(dir);
        vfs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    // The manifest's first record has all ranges. It counts once `CURRENT` names it.
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

/// The first number that no file has or had, whoever created the file.
///
/// # Errors
/// `Corrupt` if this number, or the last sequence number, is so large that later ones could not be
/// read back. Only hand-made files have such numbers.
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

/// Makes what a directory holds count: writes a manifest above all of the log.
fn reopen(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    names: &[String],
    loaded: LoadedManifest,
    options: &RecoverOptions,
) -> Result<Recovered> {
    if !loaded.writable {
        let path = FileKind::Manifest(loaded.number).path(dir);
        let what = "it has features that forbid this build to write the database".to_owned();
        return Err(Error::Unsupported { path, what });
    }
    let db_id = loaded.db_id;
    let mut replayed = Replayed::new((vfs, dir), names, loaded, options, Purpose::Write)?;
    let image = std::mem::take(&mut replayed.image);
    let manifest = match ManifestWriter::create(vfs, dir, db_id, replayed.number, image) {
        Ok(manifest) => manifest,
        Err(error) => {
            // If the new manifest may count, its tables must stay. If its file has gone, it is
            // certain that the old one counts: then `create` has removed it.
            let length = vfs.len(&FileKind::Manifest(replayed.number).path(dir));
            if length.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                replayed.undo(vfs, dir);
            }
            return Err(error);
        }
    };
    let counts = (manifest.number(), manifest.image());
    let Replayed { version, tables, last_seqno, mut report, .. } = replayed;
    let removed = sweep(vfs, dir, counts, report.old_log(), options.side_by_side.as_ref());
    report.files_removed.extend(removed);
    report.files_removed.sort();
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

/// Checks that the manifest at `path`, whose next file number is `next`, has had the change that
/// the log has here.
///
/// INVARIANT(change-is-known): the id of a change is a file number that is taken just before the
/// manifest records the change, and each edit records the next number. So a manifest that had the
/// change once has a larger next number, also after the change is settled. One that has not lost
/// its last edits, or is an older one that was put back.
///
/// # Errors
/// `Corrupt`, naming the manifest.
pub(crate) fn change_is_known(
    item: &wal::LogItem<'_>,
    next: FileNumber,
    path: &Path,
) -> Result<()> {
    match item {
        wal::LogItem::Change { id, .. } if id.0 >= next.0 => {
            let what = format!("change {id}, which is in the log, is missing");
            Err(Error::corrupt(path, 0, what))
        }
        _ => Ok(()),
    }
}

/// What the manifest records of the log.
pub(crate) fn known_log(image: &Image) -> KnownLog {
    let needed = image.log_floor.max(FileNumber(1));
    KnownLog {
        floor: image.log_floor,
        newest: Some(image.newest_segment).filter(|number| *number >= needed),
        last_seqno: image.last_seqno,
        closed: image.clean_close,
        synced: image.log_synced,
        begun: image.log_unbegun.is_none_or(|first| image.log_synced >= Some(first)),
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

/// Why the tables of a manifest do not make a version.
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

/// The version of `image`. Checks that each table's file exists and has its length. Its contents
/// are checked when they are read.
fn make_version(image: &Image, tables: &Arc<TableCache>) -> Result<Version, Problem> {
    image.to_version(Arc::clone(tables.obsolete_files()), |meta| {
        tables.check_presence(meta).map_err(Problem::File)?;
        Ok(tables.handle(Arc::clone(meta)))
    })
}

#[cfg(test)]
mod tests;
