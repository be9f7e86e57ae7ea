//! Verifies a closed database, and reports everything that is wrong, not only the first problem.
//!
//! It only reads. It checks every checksum of every file that the manifest names, the log, the
//! rules of the tree, and the consistency of manifest, tables and log. If the manifest cannot be
//! read, tables and log are checked on their own. The caller holds the directory's lock.

use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::manifest::{self, LoadedManifest};
use crate::recover::{change_is_known, known_log, next_file_number, segments};
use crate::table::{BlockCache, Table, TableId, TableMeta};
use crate::version::{Conflict, Image, ObsoleteFiles, TableHandle, check};
use crate::vfs::Vfs;
use crate::wal::{self, KnownLog, LogIdentity, LogItem};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The offset in the file, if known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// All problems.
    pub findings: Vec<Finding>,
    /// The number of tables that were read.
    pub tables: u64,
    /// The number of data blocks that could be read.
    pub blocks: u64,
    /// The number of entries in those blocks.
    pub entries: u64,
    /// The number of records in the manifest.
    pub manifest_records: u64,
    /// The number of batches and changes in the log.
    pub log_records: u64,
    /// Ends of files that an unclean stop tore. They are not damage; the next open cuts them.
    pub torn: Vec<Finding>,
    /// Files that nothing refers to. They are not damage; the next open removes those that are
    /// ours.
    pub strays: Vec<String>,
}

impl VerifySummary {
    /// Is there no problem?
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn found(&mut self, error: &Error) {
        self.findings.push(finding(error));
    }
}

fn finding(error: &Error) -> Finding {
    let (file, offset) = match error {
        Error::Io { path, offset, .. } => (path.clone(), *offset),
        Error::Corrupt { path, offset, .. } => (path.clone(), Some(*offset)),
        Error::Unsupported { path, .. }
        | Error::Missing { path }
        | Error::NoDatabase { path, .. }
        | Error::Exists { path, .. }
        | Error::Locked { path, .. } => (path.clone(), None),
        Error::Invalid { .. } | Error::WouldBlock(_) => (PathBuf::new(), None),
    };
    let what = match error {
        Error::Corrupt { what, .. } | Error::Unsupported { what, .. } => what.clone(),
        other => other.to_string(),
    };
    Finding { file, offset, what }
}

/// Verifies the database in `dir`. Calls `progress` after each table, with the number of verified
/// tables and of all tables. Blocks on the disk, for about as long as reading everything takes.
///
/// # Errors
/// `Io` if the directory cannot be listed. Everything else is a finding.
pub fn verify_directory(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifySummary> {
    let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut run = Verification { vfs, dir, names, summary: VerifySummary::default(), progress };
    run.lock_file();
    match run.manifest() {
        Ok(loaded) => run.by_manifest(&loaded),
        Err(db_id) => run.standalone(db_id),
    }
    Ok(run.summary)
}

struct Verification<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    names: Vec<String>,
    summary: VerifySummary,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Verification<'_> {
    /// Its contents do not matter, but it must be a regular file.
    fn lock_file(&mut self) {
        let path = FileKind::Lock.path(self.dir);
        match self.vfs.open(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                self.summary.found(&Error::io("open", &path, e));
            }
            _ => {}
        }
    }

    /// The current manifest. If it cannot be read, the id of the database to which the files seem
    /// to belong.
    fn manifest(&mut self) -> Result<LoadedManifest, Option<[u8; 16]>> {
        let (vfs, dir) = (self.vfs, self.dir);
        let current = match manifest::read_current(vfs, dir) {
            Ok(Some(current)) => current,
            Ok(None) => {
                self.summary.found(&Error::Missing { path: FileKind::Current.path(dir) });
                return Err(self.claimed_id());
            }
            Err(error) => {
                self.summary.found(&error);
                return Err(self.claimed_id());
            }
        };
        manifest::load(vfs, dir, &current).map_err(|error| {
            self.summary.found(&error);
            Some(current.db_id)
        })
    }

    /// The id of the database that the first readable header names.
    fn claimed_id(&self) -> Option<[u8; 16]> {
        let kinds = self.names.iter().filter_map(|name| FileKind::parse(name));
        kinds.into_iter().find_map(|kind| match kind {
            FileKind::Manifest(number) => manifest::claimed_id(self.vfs, self.dir, number),
            FileKind::Wal(number) => wal::claimed_id(self.vfs, self.dir, number),
            _ => None,
        })
    }

    fn by_manifest(&mut self, loaded: &LoadedManifest) {
        let image = &loaded.image;
        self.summary.manifest_records = loaded.records;
        if let Some(torn) = &loaded.torn {
            let (file, offset) = (torn.path.clone(), Some(torn.offset));
            self.summary.torn.push(Finding { file, offset, what: torn.reason.clone() });
        }
        if let Err(error) = next_file_number(self.dir, &self.names, image) {
            self.summary.found(&error);
        }
        let manifest = FileKind::Manifest(loaded.number).path(self.dir);
        self.tree(image, &manifest);
        let mut happened = BTreeSet::new();
        self.log(loaded.db_id, &known_log(image), &mut |item| {
            if let LogItem::Change { id, .. } = item {
                happened.insert(id);
            }
            change_is_known(&item, image.next_file_number, &manifest)
        });
        // A change without a record never happens. Its tables may have been removed.
        let there: BTreeSet<_> =
            self.names.iter().filter_map(|name| FileKind::parse(name)?.number()).collect();
        let prepared = image
            .prepared_slices()
            .filter(|(id, slice)| happened.contains(id) || there.contains(&slice.number()));
        let slices = image.slices.values().chain(prepared.map(|(_, slice)| slice));
        let slices = slices.map(|slice| (slice.number(), &*slice.table));
        let tables: BTreeMap<_, _> = slices.collect();
        let tables: Vec<_> =
            tables.into_iter().map(|(number, meta)| (number, Some(meta))).collect();
        self.tables(loaded.db_id, &tables);
        let live: BTreeSet<_> = tables.iter().map(|(number, _)| *number).collect();
        let is_stray = |name: &String| match FileKind::parse(name) {
            Some(FileKind::Lock | FileKind::Current | FileKind::Reserve | FileKind::Spare(_)) => {
                false
            }
            Some(FileKind::Manifest(number)) => number != loaded.number,
            Some(FileKind::Table(number)) => !live.contains(&number),
            Some(FileKind::Wal(number)) => number < image.log_floor,
            Some(FileKind::Temp(_)) | None => true,
        };
        self.summary.strays = self.names.iter().filter(|name| is_stray(name)).cloned().collect();
        self.summary.strays.sort();
    }

    /// Checks tables and log without a manifest. Nobody knows which of them count, so none is a
    /// stray.
    fn standalone(&mut self, db_id: Option<[u8; 16]>) {
        // The missing id is a finding already. Without it, no checksum of a table can be verified.
        let Some(db_id) = db_id else { return };
        let number = |name: &String| match FileKind::parse(name) {
            Some(FileKind::Table(number)) => Some((number, None)),
            _ => None,
        };
        let mut tables: Vec<_> = self.names.iter().filter_map(number).collect();
        tables.sort_unstable_by_key(|(number, _)| *number);
        self.tables(db_id, &tables);
        let (floor, last_seqno, synced) = (FileNumber(0), Seqno::MAX, None);
        let known =
            KnownLog { floor, newest: None, last_seqno, closed: false, synced, begun: true };
        self.log(db_id, &known, &mut |_| Ok(()));
    }

    fn tree(&mut self, image: &Image, manifest: &Path) {
        let obsolete_files = ObsoleteFiles::new();
        let shared = Arc::clone(&obsolete_files);
        let version = image.to_version_unchecked(obsolete_files, |meta| {
            Ok::<_, Conflict>(TableHandle::unopened(Arc::clone(meta), Arc::clone(&shared)))
        });
        let conflicts = match &version {
            Ok(version) => check::all(version),
            Err(conflict) => vec![conflict.clone()],
        };
        for conflict in conflicts.into_iter().chain(image.contradictions()) {
            let (file, what) = (manifest.to_owned(), conflict.to_string());
            self.summary.findings.push(Finding { file, offset: None, what });
        }
    }

    fn tables(&mut self, db_id: [u8; 16], tables: &[(FileNumber, Option<&TableMeta>)]) {
        let cache = BlockCache::new(0);
        let total = tables.len() as u64;
        for (&(number, meta), done) in tables.iter().zip(1..) {
            let path = FileKind::Table(number).path(self.dir);
            let id = TableId { db_id, number };
            let summary = &mut self.summary;
            match Table::open(self.vfs, path, id, meta, Arc::clone(&cache)) {
                Ok(table) => {
                    let report = table.verify(&mut |error| summary.found(&error));
                    summary.blocks += report.blocks;
                    summary.entries += report.entries;
                }
                Err(error) => summary.found(&error),
            }
            summary.tables += 1;
            (self.progress)(done, total);
        }
    }

    fn log(
        &mut self,
        db_id: [u8; 16],
        known: &KnownLog,
        each: &mut dyn FnMut(LogItem<'_>) -> Result<()>,
    ) {
        let (identity, segments) = (LogIdentity { db_id }, segments(&self.names));
        let summary = &mut self.summary;
        let mut found = |error: Error| summary.found(&error);
        let report = wal::survey(self.vfs, self.dir, &identity, known, &segments, each, &mut found);
        let Some(report) = report else { return };
        self.summary.log_records = report.records;
        if let Some(segment) = report.segment.filter(|_| report.bytes_dropped > 0) {
            let file = FileKind::Wal(segment).path(self.dir);
            let what = format!("{} bytes of the log are torn", report.bytes_dropped);
            self.summary.torn.push(Finding { file, offset: Some(report.offset), what });
        }
    }
}
