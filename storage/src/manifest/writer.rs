//! The one writer of the manifest.
//!
//! A failed append or sync is final: nobody can know what the disk holds, so the writer refuses every
//! later edit with the same error, and only a new open can tell. Blocks on the disk.

use super::current::{self, Current, SwapError};
use super::frame::{self, HEADER_BYTES, Identity, RecordType};
use super::{MANIFEST_BYTES_MAX, ROLL_BYTES};
use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::version::{Image, VersionEdit};
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
    failed: Option<Error>,
    roll_bytes: u64,
}

/// One manifest file and how far it is durable.
#[derive(Debug)]
struct Sink {
    identity: Identity,
    path: PathBuf,
    file: Arc<dyn File>,
    snapshot_bytes: u64,
    tail: u64,
}

impl ManifestWriter {
    /// Writes manifest `number` with `image` as its snapshot and makes `CURRENT` name it. All of
    /// it is durable when this returns. On an error before the swap the directory still names the
    /// manifest it named before.
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
                failed: None,
                roll_bytes: ROLL_BYTES,
            }),
            Err(SwapError::Before(error) | SwapError::Uncertain(error)) => Err(error),
        }
    }

    /// Sets the size below which the manifest is not rewritten. For tests.
    pub fn set_roll_bytes(&mut self, bytes: u64) {
        self.roll_bytes = bytes;
    }

    /// What the manifest says: every edit that was appended.
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

    /// The failure that ended this writer, if one did.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Makes one edit durable. See `append_all`.
    pub fn append(&mut self, edit: &VersionEdit) -> Result<()> {
        self.append_all(std::slice::from_ref(edit))
    }

    /// Makes edits durable, in order, with one write and one sync; each of them is whole or absent
    /// after a crash, and none is there without those before it. The edits must have passed
    /// `Version::apply`; one that contradicts the manifest is refused, and if others went before it
    /// the writer is finished. An I/O error finishes the writer.
    pub fn append_all(&mut self, edits: &[VersionEdit]) -> Result<()> {
        self.check_alive()?;
        let mut bytes = Vec::new();
        let mut payload = Vec::new();
        for (at, edit) in edits.iter().enumerate() {
            if let Err(conflict) = self.image.apply(edit) {
                let error = Error::invalid(format!("the manifest refuses an edit: {conflict}"));
                return if at == 0 { Err(error) } else { self.fail(error) };
            }
            payload.clear();
            edit.encode(&mut payload);
            let sink = &self.sink;
            let offset = sink.tail + bytes.len() as u64;
            let encoded = frame::encode_record(
                &mut bytes,
                &sink.identity,
                offset,
                RecordType::Edit,
                sink.tail,
                &payload,
            );
            if let Err(error) = encoded {
                return self.fail(error);
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let Sink { file, path, tail, .. } = &self.sink;
        if let Err(e) = file.write_all_at(&bytes, *tail) {
            let error = Error::io_at("write", path, *tail, e);
            return self.fail(error);
        }
        if let Err(e) = file.sync_data() {
            let error = Error::io("sync", path, e);
            return self.fail(error);
        }
        self.sink.tail += bytes.len() as u64;
        Ok(())
    }

    /// Is the manifest worth rewriting: 4 MiB or more, and twice what its snapshot took?
    pub fn wants_roll_over(&self) -> bool {
        let floor = self.roll_bytes.max(self.sink.snapshot_bytes.saturating_mul(2));
        self.failed.is_none() && self.sink.tail >= floor
    }

    /// Rewrites everything as manifest `number` and makes `CURRENT` name it; returns the old
    /// manifest, which the caller may now remove. If it fails before the swap, this writer goes on
    /// with the old manifest; a swap that may have happened finishes it.
    pub fn roll_over(&mut self, number: FileNumber) -> Result<FileNumber> {
        self.check_alive()?;
        let old = self.number();
        assert!(number > old, "a file number is never used again");
        let identity = Identity { db_id: self.db_id(), number };
        match publish(&self.vfs, &self.dir, identity, &mut self.image) {
            Ok(sink) => {
                self.sink = sink;
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

/// Writes a manifest, makes it durable under its name, then swaps `CURRENT`.
fn publish(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: Identity,
    image: &mut Image,
) -> Result<Sink, SwapError> {
    let number = identity.number;
    // The snapshot must already know the number of the file that it is in.
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
    // The name first: CURRENT must never name a manifest that a power cut could take away.
    vfs.sync_dir(dir).map_err(|e| SwapError::Before(Error::io("sync", dir, e)))?;
    let current = Current {
        manifest: number,
        snapshot_bytes: length,
        digest: hash64(&bytes),
        db_id: identity.db_id,
    };
    current::swap(vfs, dir, &current)?;
    Ok(Sink { identity, path, file, snapshot_bytes: length, tail: length })
}
