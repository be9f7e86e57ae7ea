//! The one writer of the manifest.
//!
//! Several edits may be appended before one sync. INVARIANT(synced-to-is-durable): each of them
//! says how far the file was durable before them, and claims nothing of the others. So a crash
//! before the sync leaves some of them from the first on, and the rest is a torn end.
//!
//! What a failure means depends on one question: is it known what the disk holds afterwards?
//!
//! * A write found no space. Then only a part of the edit is on the disk, so the edit is not in the
//!   manifest. Nothing is appended behind that part: the next edit goes into a new manifest. The
//!   edits before that part are not concerned: a sync still makes them durable.
//! * A new manifest could not be written. Then it is removed, and `CURRENT` still names the old
//!   one.
//! * Any other write failed, or a sync, or a swap of `CURRENT` that may or may not have happened.
//!   Then nobody knows what a power cut would leave. This is final: the writer refuses every later
//!   edit with the same error, and only the next open can tell.
//!
//! All methods that take or write an edit block on the disk.

use super::current::{self, Current, SwapError};
use super::frame::{self, HEADER_BYTES, Identity, RecordType};
use super::{MANIFEST_BYTES_MAX, ROLL_BYTES};
use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::version::{Conflict, Image, VersionEdit};
use crate::vfs::{File, Vfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Appends edits to the manifest that `CURRENT` names.
#[derive(Debug)]
pub struct ManifestWriter {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    sink: Sink,
    image: Image,
    /// A write found no space: no edit may be appended behind the last one.
    torn: bool,
    failed: Option<Error>,
    roll_bytes: u64,
}

/// A manifest file.
#[derive(Debug)]
struct Sink {
    identity: Identity,
    path: PathBuf,
    file: Arc<dyn File>,
    snapshot_bytes: u64,
    /// Where the next edit goes.
    tail: u64,
    /// Up to here the file is durable.
    synced_to: u64,
}

impl ManifestWriter {
    /// Writes the manifest `number` with `image` as its snapshot, and makes `CURRENT` name it. All
    /// of it is durable when this returns.
    ///
    /// # Errors
    /// `Io`; `Invalid` if the snapshot is too large. After an error before the swap, the directory
    /// still names the old manifest, if any.
    pub fn create(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        db_id: [u8; 16],
        number: FileNumber,
        mut image: Image,
    ) -> Result<Self> {
        let identity = Identity { db_id, number };
        match publish(vfs, dir, identity, &mut image) {
            Ok(sink) => Ok(Self {
                vfs: Arc::clone(vfs),
                dir: dir.to_owned(),
                sink,
                image,
                torn: false,
                failed: None,
                roll_bytes: ROLL_BYTES,
            }),
            Err(SwapError::Before(error) | SwapError::Uncertain(error)) => Err(error),
        }
    }

    /// Sets the size from which on the manifest may be rewritten.
    #[cfg(test)]
    pub(crate) fn set_roll_bytes(&mut self, bytes: u64) {
        self.roll_bytes = bytes;
    }

    /// The contents of the manifest: all appended edits, folded, also those that are not durable.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The manifest's number.
    pub fn number(&self) -> FileNumber {
        self.sink.identity.number
    }

    /// The database's random id.
    pub fn db_id(&self) -> [u8; 16] {
        self.sink.identity.db_id
    }

    /// The manifest's length, in bytes.
    pub fn bytes(&self) -> u64 {
        self.sink.tail
    }

    /// The failure that ended this writer, if any.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Bytes of edits that no sync has made durable.
    pub fn unsynced_bytes(&self) -> u64 {
        self.sink.tail - self.sink.synced_to
    }

    /// Appends one edit and makes it durable, with every edit before it. Blocks on the disk.
    ///
    /// # Errors
    /// As [`append_unsynced`](Self::append_unsynced) and [`sync`](Self::sync).
    ///
    /// # Panics
    /// If `must_roll_over` is true.
    pub fn append(&mut self, edit: &VersionEdit) -> Result<()> {
        self.append_unsynced(edit)?;
        self.sync()
    }

    /// Appends one edit, which the next sync makes durable. After a crash before that it is whole
    /// or absent; if it is absent, so are the edits behind it. It must have passed
    /// `Version::apply`; an edit that contradicts the manifest, with all edits so far, is refused.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If `failure` is `None` afterwards, the edit is not in the manifest and never will be; if
    /// `must_roll_over` is true then, there was no space, and the next edit must go through
    /// `roll_over`. The edits before it are as they were. Otherwise the writer has failed for good.
    ///
    /// # Panics
    /// If `must_roll_over` is true.
    pub fn append_unsynced(&mut self, edit: &VersionEdit) -> Result<()> {
        self.check_alive()?;
        assert!(!self.torn, "behind an edit that was not written whole there comes no other");
        let next = self.image.admits(edit).map_err(|conflict| refused(&conflict))?;
        let (mut bytes, mut payload) = (Vec::new(), Vec::new());
        edit.encode(&mut payload);
        let Sink { identity, path, file, tail, synced_to, .. } = &self.sink;
        frame::encode_record(&mut bytes, identity, *tail, RecordType::Edit, *synced_to, &payload)?;
        if let Err(e) = file.write_all_at(&bytes, *tail) {
            let error = Error::io_at("write", path, *tail, e);
            if error.is_no_space() {
                self.torn = true;
                return Err(error);
            }
            return self.fail(error);
        }
        self.sink.tail += bytes.len() as u64;
        match next {
            Some(next) => self.image = next,
            None => self.image.apply(edit).expect("it was admitted"),
        }
        Ok(())
    }

    /// Makes every edit durable that was appended. Does nothing if all of them are. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// The writer has failed for good: nobody knows which of these edits a power cut would leave.
    pub fn sync(&mut self) -> Result<()> {
        self.check_alive()?;
        let Sink { path, file, tail, synced_to, .. } = &mut self.sink;
        if *synced_to < *tail {
            if let Err(e) = file.sync_data() {
                let error = Error::io("sync", path, e);
                return self.fail(error);
            }
            *synced_to = *tail;
        }
        Ok(())
    }

    /// Must the next edit go into a new manifest, through `roll_over`?
    pub fn must_roll_over(&self) -> bool {
        self.torn
    }

    /// Is a rewrite worthwhile? It is from 4 MiB on, if the manifest has at least twice its
    /// snapshot's size.
    pub fn wants_roll_over(&self) -> bool {
        let floor = self.roll_bytes.max(self.sink.snapshot_bytes.saturating_mul(2));
        self.failed.is_none() && self.sink.tail >= floor
    }

    /// Writes the whole image, with `edit` applied if given, as manifest `number`, and makes
    /// `CURRENT` name it. Then every edit so far is durable. Returns the old manifest's number; the
    /// caller may remove that file. Blocks on the disk.
    ///
    /// # Errors
    /// As `append_unsynced`: if `failure` is `None` afterwards, the old manifest still counts,
    /// without `edit`.
    pub fn roll_over(
        &mut self,
        number: FileNumber,
        edit: Option<&VersionEdit>,
    ) -> Result<FileNumber> {
        self.check_alive()?;
        let old = self.number();
        assert!(number > old, "a file number is never used again");
        let mut image = self.image.clone();
        if let Some(edit) = edit {
            image.apply(edit).map_err(|conflict| refused(&conflict))?;
        }
        let identity = Identity { db_id: self.db_id(), number };
        match publish(&self.vfs, &self.dir, identity, &mut image) {
            Ok(sink) => {
                self.sink = sink;
                self.image = image;
                self.torn = false;
                Ok(old)
            }
            Err(SwapError::Before(error)) => Err(error),
            Err(SwapError::Uncertain(error)) => self.fail(error),
        }
    }

    fn check_alive(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(error.duplicate()))
    }

    fn fail<T>(&mut self, error: Error) -> Result<T> {
        self.failed = Some(error.duplicate());
        Err(error)
    }
}

fn refused(conflict: &Conflict) -> Error {
    Error::invalid(format!("the manifest refuses an edit: {conflict}"))
}

/// Writes a manifest, makes it durable under its name, and then swaps `CURRENT`. If it is certain
/// that `CURRENT` does not name the new manifest, its file is removed.
/// INVARIANT(checkpoint-counts-last): `CURRENT` is written last.
fn publish(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: Identity,
    image: &mut Image,
) -> Result<Sink, SwapError> {
    let published = write_and_swap(vfs, dir, identity, image);
    if let Err(SwapError::Before(_)) = &published {
        // The next open would also remove it, but on a full disk its space is needed now.
        let _ = vfs.remove(&FileKind::Manifest(identity.number).path(dir));
    }
    published
}

fn write_and_swap(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: Identity,
    image: &mut Image,
) -> Result<Sink, SwapError> {
    let number = identity.number;
    // The snapshot must already count the number of its own file.
    image.next_file_number = image.next_file_number.max(FileNumber(number.0 + 1));
    let mut payload = Vec::new();
    image.to_edit().encode(&mut payload);
    let mut bytes = frame::encode_header(&identity).to_vec();
    frame::encode_record(
        &mut bytes,
        &identity,
        HEADER_BYTES as u64,
        RecordType::Snapshot,
        0,
        &payload,
    )
    .map_err(SwapError::Before)?;
    let length = bytes.len() as u64;
    if length > MANIFEST_BYTES_MAX {
        let what = format!("a snapshot of {length} bytes is more than a manifest can have");
        return Err(SwapError::Before(Error::invalid(what)));
    }
    let path = FileKind::Manifest(number).path(dir);
    let before = |op, e| SwapError::Before(Error::io(op, &path, e));
    let file = vfs.create(&path).map_err(|e| before("create", e))?;
    file.write_all_at(&bytes, 0).map_err(|e| before("write", e))?;
    file.sync_all().map_err(|e| before("sync", e))?;
    // Sync the name first: `CURRENT` must never name a manifest that a power cut could take away.
    vfs.sync_dir(dir).map_err(|e| SwapError::Before(Error::io("sync", dir, e)))?;
    let current = Current {
        manifest: number,
        snapshot_bytes: length,
        digest: hash64(&bytes),
        db_id: identity.db_id,
    };
    current::swap(vfs, dir, &current)?;
    Ok(Sink { identity, path, file, snapshot_bytes: length, tail: length, synced_to: length })
}
