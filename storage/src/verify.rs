//! Checks a closed database and reports everything that is wrong, not only the first thing.
//!
//! Reads only. Every checksum of every file that the manifest names, the log, and the rules of the
//! tree. The caller holds the directory's lock.

use crate::error::{Error, Result};
use crate::filename::FileKind;
use crate::manifest;
use crate::recover::{known_log, open_table, segments};
use crate::table::BlockCache;
use crate::version::{Conflict, Graveyard, Image, TableHandle, check};
use crate::vfs::Vfs;
use crate::wal::{self, LogIdentity};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, if known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a verification saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Tables that were read.
    pub tables: u64,
    /// Data blocks whose checksums hold.
    pub blocks: u64,
    /// Entries in those.
    pub entries: u64,
    /// Records of the manifest.
    pub manifest_records: u64,
    /// Batches of the log.
    pub log_records: u64,
    /// Ends of files that an unclean stop tore: not damage; the next open cuts them.
    pub torn: Vec<Finding>,
    /// Files that nothing refers to: not damage; the next open removes those that are ours.
    pub strays: Vec<String>,
}

impl VerifySummary {
    /// Is nothing wrong?
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
        Error::Unsupported { path, .. } | Error::Missing { path } | Error::Locked { path, .. } => {
            (path.clone(), None)
        }
        Error::Invalid { .. } | Error::WouldBlock => (PathBuf::new(), None),
    };
    let what = match error {
        Error::Corrupt { what, .. } | Error::Unsupported { what, .. } => what.clone(),
        other => other.to_string(),
    };
    Finding { file, offset, what }
}

/// Verifies the database in `dir`; `progress` is called after each table with how many are done and
/// how many there are. Blocks on the disk, for about as long as reading everything takes.
///
/// # Errors
/// Only if the directory cannot be listed; all else is a finding.
pub fn verify_directory(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifySummary> {
    let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut summary = VerifySummary::default();
    let current = match manifest::read_current(vfs, dir) {
        Ok(Some(current)) => current,
        Ok(None) => {
            summary.found(&Error::Missing { path: FileKind::Current.path(dir) });
            return Ok(summary);
        }
        Err(error) => {
            summary.found(&error);
            return Ok(summary);
        }
    };
    let loaded = match manifest::load(vfs, dir, &current) {
        Ok(loaded) => loaded,
        Err(error) => {
            summary.found(&error);
            return Ok(summary);
        }
    };
    summary.manifest_records = loaded.records;
    if let Some(torn) = &loaded.torn {
        let (file, offset) = (torn.path.clone(), Some(torn.offset));
        summary.torn.push(Finding { file, offset, what: torn.reason.clone() });
    }
    let manifest_path = FileKind::Manifest(loaded.number).path(dir);
    verify_tree(&loaded.image, &manifest_path, &mut summary);
    verify_tables(vfs, dir, loaded.db_id, &loaded.image, &mut summary, progress);
    verify_log(vfs, dir, loaded.db_id, &loaded.image, &names, &mut summary);
    let live: BTreeSet<_> = loaded.image.tables.keys().map(|(_, _, number)| *number).collect();
    summary.strays = names
        .into_iter()
        .filter(|name| match FileKind::parse(name) {
            Some(FileKind::Lock | FileKind::Current | FileKind::Spare(_)) => false,
            Some(FileKind::Manifest(number)) => number != loaded.number,
            Some(FileKind::Table(number)) => !live.contains(&number),
            Some(FileKind::Wal(number)) => number < loaded.image.log_floor,
            Some(FileKind::Temp(_)) | None => true,
        })
        .collect();
    summary.strays.sort();
    Ok(summary)
}

fn verify_tree(image: &Image, manifest: &Path, summary: &mut VerifySummary) {
    let graveyard = Graveyard::new();
    let shared = Arc::clone(&graveyard);
    let version = image.to_version(graveyard, |meta| {
        Ok::<_, Conflict>(TableHandle::unopened(meta.clone(), Arc::clone(&shared)))
    });
    if let Err(conflict) = version.and_then(|version| check::check(&version)) {
        let file = manifest.to_owned();
        summary.findings.push(Finding { file, offset: None, what: conflict.to_string() });
    }
}

fn verify_tables(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    db_id: [u8; 16],
    image: &Image,
    summary: &mut VerifySummary,
    progress: &mut dyn FnMut(u64, u64),
) {
    let cache = BlockCache::new(0);
    let total = image.tables.len() as u64;
    for (meta, done) in image.tables.values().zip(1..) {
        match open_table(vfs, dir, db_id, meta, &cache) {
            Ok(table) => {
                let report = table.verify(&mut |error| summary.findings.push(finding(&error)));
                summary.blocks += report.blocks;
                summary.entries += report.entries;
            }
            Err(error) => summary.found(&error),
        }
        summary.tables += 1;
        progress(done, total);
    }
}

fn verify_log(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    db_id: [u8; 16],
    image: &Image,
    names: &[String],
    summary: &mut VerifySummary,
) {
    let identity = LogIdentity { db_id };
    let mut each = |_, _: &[u8]| Ok(());
    match wal::replay(vfs, dir, &identity, &known_log(image), &segments(names), &mut each) {
        Ok(report) => {
            summary.log_records = report.records;
            if report.bytes_dropped > 0
                && let Some(segment) = report.segment
            {
                let file = FileKind::Wal(segment).path(dir);
                let what = format!("{} bytes of the log are torn", report.bytes_dropped);
                summary.torn.push(Finding { file, offset: Some(report.offset), what });
            }
        }
        Err(error) => summary.found(&error),
    }
}
