//! Reads a manifest: folds all edits into an image, and judges how the file ends.

use super::MANIFEST_BYTES_MAX;
use super::current::Current;
use super::frame::{self, HEADER_BYTES, Identity, Record, RecordType};
use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::version::{Image, VersionEdit};
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes at the end of a file that are not a record and that no record confirms. They are cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// The offset at which the valid part ends.
    pub offset: u64,
    /// The number of bytes behind it.
    pub bytes_dropped: u64,
    /// Why they are not a record.
    pub reason: String,
}

/// The contents of a manifest.
#[derive(Clone, Debug)]
pub struct LoadedManifest {
    /// The database's random id.
    pub db_id: [u8; 16],
    /// The manifest's number.
    pub number: FileNumber,
    /// All edits, folded.
    pub image: Image,
    /// The number of records, the snapshot included.
    pub records: u64,
    /// Length of the valid part, in bytes.
    pub bytes: u64,
    /// The incomplete edit at the end of the file, which never took effect, if there is one.
    pub torn: Option<TornTail>,
    /// False if the file has a feature that forbids this build to write to the database.
    pub writable: bool,
}

/// Reads the manifest that `current` names, at most `MANIFEST_BYTES_MAX` bytes. Modifies nothing.
/// Blocks on the disk.
///
/// # Errors
/// `Missing`, `Corrupt`, `Unsupported` or `Io`, naming the file.
pub fn load(vfs: &Arc<dyn Vfs>, dir: &Path, current: &Current) -> Result<LoadedManifest> {
    let path = FileKind::Manifest(current.manifest).path(dir);
    let bytes = read_whole(vfs, &path)?;
    let (identity, writable) = frame::decode_header(&path, current.manifest, &bytes)?;
    if identity.db_id != current.db_id {
        return Err(Error::corrupt(&path, 40, "the manifest belongs to another database"));
    }
    let snapshot_end = snapshot_end(&path, current, &bytes)?;
    let mut loaded = LoadedManifest {
        db_id: identity.db_id,
        number: identity.number,
        image: Image::default(),
        records: 0,
        bytes: HEADER_BYTES as u64,
        torn: None,
        writable,
    };
    while loaded.bytes < bytes.len() as u64 {
        let offset = loaded.bytes;
        match frame::parse_record(&identity, &bytes, offset as usize) {
            Ok(record) => fold(&path, offset, &record, &mut loaded)?,
            Err(reason) if offset < snapshot_end => {
                return Err(Error::corrupt(&path, offset, reason));
            }
            Err(reason) => {
                loaded.torn = Some(judge_tail(&path, &identity, &bytes, &loaded, reason)?);
                break;
            }
        }
        if loaded.records == 1 && loaded.bytes != snapshot_end {
            let what = format!("the snapshot ends here, but CURRENT says at {snapshot_end}");
            return Err(Error::corrupt(&path, loaded.bytes, what));
        }
    }
    if loaded.records == 0 {
        return Err(Error::corrupt(&path, loaded.bytes, "the manifest has no snapshot"));
    }
    Ok(loaded)
}

/// The id of the database that the manifest `number` in `dir` claims to belong to; `None` if its
/// header cannot be read.
pub fn claimed_id(vfs: &Arc<dyn Vfs>, dir: &Path, number: FileNumber) -> Option<[u8; 16]> {
    let path = FileKind::Manifest(number).path(dir);
    let mut header = [0; HEADER_BYTES];
    vfs.open(&path).ok()?.read_at(&mut header, 0).ok()?;
    frame::decode_header(&path, number, &header).ok().map(|(identity, _)| identity.db_id)
}

fn read_whole(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Vec<u8>> {
    let file = match vfs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::Missing { path: path.to_owned() });
        }
        Err(e) => return Err(Error::io("open", path, e)),
    };
    // The contents of the disk count, not what a failed sync left in the page cache.
    file.drop_cache();
    let length = file.len().map_err(|e| Error::io("stat", path, e))?;
    if length > MANIFEST_BYTES_MAX {
        let what = format!("{length} bytes are more than a manifest can have");
        return Err(Error::corrupt(path, MANIFEST_BYTES_MAX, what));
    }
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(length as usize).is_err() {
        return Err(Error::io("read", path, ErrorKind::OutOfMemory.into()));
    }
    bytes.resize(length as usize, 0);
    let count = file.read_at(&mut bytes, 0).map_err(|e| Error::io_at("read", path, 0, e))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Checks the digest of header and snapshot against `CURRENT`. Returns the snapshot's end.
fn snapshot_end(path: &Path, current: &Current, bytes: &[u8]) -> Result<u64> {
    let confirmed = usize::try_from(current.snapshot_bytes).ok().and_then(|end| bytes.get(..end));
    let Some(confirmed) = confirmed else {
        let what = format!("the file ends here, but its snapshot at {}", current.snapshot_bytes);
        return Err(Error::corrupt(path, bytes.len() as u64, what));
    };
    if hash64(confirmed) != current.digest {
        let what = "header and snapshot differ from the digest in CURRENT";
        return Err(Error::corrupt(path, HEADER_BYTES as u64, what));
    }
    Ok(current.snapshot_bytes)
}

fn fold(path: &Path, offset: u64, record: &Record<'_>, loaded: &mut LoadedManifest) -> Result<()> {
    use crate::version::EditError;
    let expected = if loaded.records == 0 { RecordType::Snapshot } else { RecordType::Edit } as u8;
    if record.kind != expected {
        let what = format!("expected record type {expected}, found {}", record.kind);
        return Err(Error::corrupt(path, offset, what));
    }
    let payload_at = offset + frame::RECORD_HEADER_BYTES as u64;
    let edit = VersionEdit::decode(record.payload).map_err(|error| match error {
        EditError::Malformed { at, what } => Error::corrupt(path, payload_at + at as u64, what),
        EditError::Unsupported { what } => {
            Error::Unsupported { path: path.to_owned(), what: format!("an edit has {what}") }
        }
    })?;
    // If it is refused, the whole manifest is.
    let image = std::mem::take(&mut loaded.image);
    loaded.image = image.into_applied(&edit).map_err(|conflict| {
        Error::corrupt(path, offset, format!("an edit contradicts those before it: {conflict}"))
    })?;
    loaded.records += 1;
    loaded.bytes = record.end;
    Ok(())
}

/// Judges whether the bytes from `loaded.bytes` on, which are not a record, are torn or damaged.
/// INVARIANT(synced-to-is-durable): whole records may be behind a torn one if they shared its sync.
/// They are torn off with it.
fn judge_tail(
    path: &Path,
    identity: &Identity,
    bytes: &[u8],
    loaded: &LoadedManifest,
    reason: &str,
) -> Result<TornTail> {
    let offset = loaded.bytes;
    if loaded.image.clean_close {
        let what = format!("{reason}, after the mark of a clean close");
        return Err(Error::corrupt(path, offset, what));
    }
    if let Some(witness) = frame::find_witness(identity, bytes, offset as usize) {
        let what = format!("{reason}, but the record at offset {witness} says it was durable");
        return Err(Error::corrupt(path, offset, what));
    }
    Ok(TornTail {
        path: path.to_owned(),
        offset,
        bytes_dropped: bytes.len() as u64 - offset,
        reason: reason.to_owned(),
    })
}
