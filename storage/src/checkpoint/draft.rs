//! The directory of a checkpoint while it is made.
//!
//! A draft knows what was in the directory before, and what it has created itself. If it is dropped
//! before [`Draft::publish`] has returned `Ok`, it removes what it created, as far as the disk
//! allows, except for the lock file. What remains is no database, or the older checkpoint.

use super::{Counts, is_checkpoint};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::manifest::{self, LoadedManifest, ManifestWriter};
use crate::recover::directory;
use crate::table::TableMeta;
use crate::version::{Image, SliceMeta};
use crate::vfs::{FileLock, LockError, Vfs};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many bytes at the end of two tables are compared. They include the footer, which has the
/// checksum of the index, which covers all blocks.
const TAIL_BYTES: u64 = 4096;

/// What the directory may contain before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Fresh,
    /// Nothing, or an older checkpoint of the same database, whose matching tables are kept.
    Incremental,
}

/// The older checkpoint in the directory.
#[derive(Debug)]
struct Before {
    manifest: FileNumber,
    tables: BTreeMap<FileNumber, Arc<TableMeta>>,
}

/// The directory of a checkpoint while it is made; see the module.
#[derive(Debug)]
pub struct Draft {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    db_id: [u8; 16],
    before: Option<Before>,
    /// Tables that this draft added to the directory.
    made: Vec<FileNumber>,
    /// The number of the new manifest, set before its file may exist.
    manifest: Option<FileNumber>,
    pub(super) counts: Counts,
    published: bool,
    /// Prevents others from opening the directory, or making another checkpoint there, meanwhile.
    _lock: Box<dyn FileLock>,
}

impl Draft {
    /// Begins a checkpoint of the database `db_id` in `dir`, which is created durably. If `private`
    /// is set, refuses a directory in which other users can change files. Blocks on the disk.
    ///
    /// # Errors
    /// `Exists` if `mode` does not allow what is there; `Locked` while another process uses the
    /// directory; `Invalid` if other users can write to it; errors of reading the older checkpoint;
    /// `Io`.
    pub fn begin(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        db_id: [u8; 16],
        mode: Mode,
        private: bool,
    ) -> Result<Self> {
        // Checked before anything is created, so that nothing is left among foreign files.
        let vacant = is_vacant(vfs, dir)?;
        if !vacant && mode == Mode::Fresh {
            return Err(Error::exists(dir, "the directory of a new checkpoint has to be empty"));
        }
        if !vacant {
            load(vfs, dir, db_id)?;
        }
        if private {
            directory::check_private(vfs, dir)?;
        }
        directory::make(vfs, dir)?;
        let path = FileKind::Lock.path(dir);
        let lock = vfs.lock(&path).map_err(|error| match error {
            LockError::Held { pid } => Error::Locked { path: dir.to_owned(), pid },
            LockError::Io(error) => Error::io("lock", &path, error),
        })?;
        // Checked again under the lock.
        let before = match (is_vacant(vfs, dir)?, mode) {
            (true, _) => None,
            (false, Mode::Fresh) => return Err(Error::exists(dir, "somebody else was quicker")),
            (false, Mode::Incremental) => Some(load(vfs, dir, db_id)?),
        };
        let draft = Self {
            vfs: Arc::clone(vfs),
            dir: dir.to_owned(),
            db_id,
            before,
            made: Vec::new(),
            manifest: None,
            counts: Counts::default(),
            published: false,
            _lock: lock,
        };
        draft.clear_strays()?;
        Ok(draft)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it consists of so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn made(&mut self, tables: impl IntoIterator<Item = FileNumber>) {
        self.made.extend(tables);
    }

    /// Removes what an interrupted attempt left under names that this one may need.
    fn clear_strays(&self) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        let is_stray = |kind: &FileKind| match kind {
            FileKind::Temp(_) => true,
            FileKind::Manifest(number) => *number != before.manifest,
            FileKind::Table(number) => !before.tables.contains_key(number),
            _ => false,
        };
        for kind in kinds(&self.vfs, &self.dir)?.into_iter().filter(is_stray) {
            let path = kind.path(&self.dir);
            self.vfs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(())
    }

    /// Is this table of the database, whose file is `from`, in the older checkpoint?
    pub(super) fn has(&self, vfs: &Arc<dyn Vfs>, meta: &TableMeta, from: &Path) -> Result<bool> {
        let there = self.before.as_ref().and_then(|before| before.tables.get(&meta.number));
        let Some(there) = there else { return Ok(false) };
        let path = FileKind::Table(meta.number).path(&self.dir);
        let same = **there == *meta && tail(vfs, &path, meta)? == tail(vfs, from, meta)?;
        if same { Ok(true) } else { Err(other_history(&path)) }
    }

    /// Turns the directory into a database, durably: writes `image` as its manifest, and then
    /// `CURRENT`. Afterwards removes what only the older checkpoint needed. Blocks on the disk.
    ///
    /// # Errors
    /// `Exists` if the directory has a newer checkpoint; `Io`. If either checkpoint may count, the
    /// files of both stay.
    pub fn publish(mut self, image: Image) -> Result<Counts> {
        let number = image.log_floor;
        if let Some(before) = self.before.as_ref().filter(|before| before.manifest >= number) {
            return Err(other_history(&FileKind::Manifest(before.manifest).path(&self.dir)));
        }
        self.manifest = Some(number);
        // INVARIANT(checkpoint-counts-last): `create` syncs the manifest, then all names, then
        // swaps `CURRENT`.
        let manifest = ManifestWriter::create(&self.vfs, &self.dir, self.db_id, number, image)?;
        self.published = true;
        if let Some(before) = self.before.take() {
            let needed = |table: &&FileNumber| {
                manifest.image().slices.values().any(|slice| slice.number() == **table)
            };
            let tables = before.tables.keys().filter(|table| !needed(table)).copied();
            let old = tables.map(FileKind::Table).chain([FileKind::Manifest(before.manifest)]);
            for path in old.map(|kind| kind.path(&self.dir)) {
                match self.vfs.remove(&path) {
                    Ok(()) => self.counts.removed += 1,
                    Err(error) => {
                        // The next incremental checkpoint removes it, or the next open does.
                        let path = path.display();
                        tracing::warn!(%path, %error, "an old file was left behind");
                    }
                }
            }
        }
        Ok(self.counts)
    }

    /// Is it certain that the new manifest does not count? If so, `ManifestWriter::create` has
    /// removed its file.
    fn manifest_is_gone(&self) -> bool {
        let Some(number) = self.manifest else { return true };
        let length = self.vfs.len(&FileKind::Manifest(number).path(&self.dir));
        length.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.published || (self.before.is_some() && !self.manifest_is_gone()) {
            return;
        }
        let mut names: Vec<FileKind> = Vec::new();
        if self.before.is_none() {
            // Without `CURRENT` the directory is no database, whatever else cannot be removed.
            if self.vfs.remove(&FileKind::Current.path(&self.dir)).is_ok() {
                let _ = self.vfs.sync_dir(&self.dir);
            }
            names.extend([FileKind::Temp(FileNumber(0))]);
            names.extend(self.manifest.map(FileKind::Manifest));
        }
        // The lock file stays: somebody may have opened it to take the lock next, and would have
        // that of a file that nobody else finds.
        names.extend(self.made.drain(..).map(FileKind::Table));
        for path in names.into_iter().map(|kind| kind.path(&self.dir)) {
            match self.vfs.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "a failed checkpoint left a file");
                }
                _ => {}
            }
        }
    }
}

fn other_history(path: &Path) -> Error {
    let what = "it is of another history of this database; make the checkpoint in a new directory";
    Error::exists(path, what)
}

/// The files of the database format in `dir`.
fn kinds(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Vec<FileKind>> {
    let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
    Ok(names.iter().filter_map(|name| FileKind::parse(name)).collect())
}

/// Is `dir` empty, except perhaps for a lock file that an interrupted attempt left?
fn is_vacant(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<bool> {
    match vfs.list(dir) {
        Ok(names) => Ok(names.iter().all(|name| FileKind::parse(name) == Some(FileKind::Lock))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            Err(Error::exists(dir, "there is something that is no directory"))
        }
        Err(e) => Err(Error::io("list", dir, e)),
    }
}

/// Reads the checkpoint of the database `db_id` in `dir`.
fn load(vfs: &Arc<dyn Vfs>, dir: &Path, db_id: [u8; 16]) -> Result<Before> {
    let Some(current) = manifest::read_current(vfs, dir)? else {
        let what = "there is no checkpoint, but other files; a checkpoint that was interrupted \
                    leaves such a directory: remove it";
        return Err(Error::exists(dir, what));
    };
    if current.db_id != db_id {
        return Err(Error::exists(dir, "there is another database"));
    }
    let LoadedManifest { number, image, .. } = manifest::load(vfs, dir, &current)?;
    if !is_checkpoint(&image) {
        let what = "there is a database that has been opened for writing, no checkpoint";
        return Err(Error::exists(dir, what));
    }
    let meta = |slice: SliceMeta| (slice.number(), slice.table);
    let tables = image.slices.into_values().map(meta).collect();
    Ok(Before { manifest: number, tables })
}

/// The last bytes of a table.
fn tail(vfs: &Arc<dyn Vfs>, path: &Path, meta: &TableMeta) -> Result<Vec<u8>> {
    let file = vfs.open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::io("open", path, e),
    })?;
    let at = meta.file_bytes.saturating_sub(TAIL_BYTES);
    // One byte more than expected: a longer file is another one.
    let mut bytes = vec![0; (meta.file_bytes - at) as usize + 1];
    let length = file.read_at(&mut bytes, at).map_err(|e| Error::io_at("read", path, at, e))?;
    bytes.truncate(length);
    Ok(bytes)
}
