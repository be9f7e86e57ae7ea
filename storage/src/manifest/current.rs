//! `CURRENT`: 64 bytes that name the manifest that counts and have the digest of its snapshot.

use super::FORMAT_VERSION;
use crate::codec::{Decoder, crc};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::limits::FILE_NUMBER_MAX;
use crate::vfs::Vfs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

pub(super) const CURRENT_BYTES: usize = 64;
const CRC_AT: usize = 60;
const MAGIC: [u8; 8] = *b"SLUICECU";

/// The contents of `CURRENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The manifest that counts.
    pub manifest: FileNumber,
    /// Length of its header and snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// `hash64` of those bytes.
    pub digest: u64,
    /// The database's random id.
    pub db_id: [u8; 16],
}

impl Current {
    pub(super) fn encode(&self) -> [u8; CURRENT_BYTES] {
        let mut out = [0; CURRENT_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.manifest.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.snapshot_bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.digest.to_le_bytes());
        out[32..48].copy_from_slice(&self.db_id);
        out[48..50].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let sum = crc(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"MANIFEST-") {
            let what =
                "this names a manifest the way LevelDB and RocksDB do; it is no SluiceDB database";
            return Err(Error::invalid(format!("{}: {what}", path.display())));
        }
        if bytes.len() != CURRENT_BYTES {
            let what = format!("expected {CURRENT_BYTES} bytes, found {}", bytes.len());
            return Err(Error::corrupt(path, 0, what));
        }
        if bytes[..8] != MAGIC {
            return Err(Error::corrupt(
                path,
                0,
                "expected the magic of CURRENT, found other bytes",
            ));
        }
        let mut reader = Decoder::new(&bytes[8..]);
        let (found, want) = (crc(&bytes[..CRC_AT]), Decoder::new(&bytes[CRC_AT..]).u32());
        if want != Some(found) {
            let what = format!("checksum mismatch: computed {found:#010x}");
            return Err(Error::corrupt(path, CRC_AT as u64, what));
        }
        let mut fields = || {
            Some((
                FileNumber(reader.u64()?),
                reader.u64()?,
                reader.u64()?,
                <[u8; 16]>::try_from(reader.take(16)?).ok()?,
                reader.u16()?,
            ))
        };
        let (manifest, snapshot_bytes, digest, db_id, format) =
            fields().expect("the length was checked");
        if manifest.0 > FILE_NUMBER_MAX {
            return Err(Error::corrupt(path, 8, format!("no manifest has number {manifest}")));
        }
        if format != FORMAT_VERSION {
            let what = format!("format version {format}, this build knows {FORMAT_VERSION}");
            return Err(Error::Unsupported { path: path.to_owned(), what });
        }
        Ok(Self { manifest, snapshot_bytes, digest, db_id })
    }
}

/// Reads `CURRENT` in `dir`; `None` if there is no such file. Blocks on the disk.
///
/// # Errors
/// `Corrupt`, `Unsupported` or `Io`, naming the file; `Invalid` for a `CURRENT` of another engine.
pub fn read_current(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Option<Current>> {
    let path = FileKind::Current.path(dir);
    let file = match vfs.open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    file.drop_cache();
    let mut bytes = [0; CURRENT_BYTES + 1];
    let count = file.read_at(&mut bytes, 0).map_err(|e| Error::io_at("read", &path, 0, e))?;
    Current::decode(&path, &bytes[..count]).map(Some)
}

/// Why a swap failed: is it certain that the old `CURRENT` still counts?
pub(super) enum SwapError {
    /// Nothing has changed.
    Before(Error),
    /// The name may or may not have changed, on disk or in memory.
    Uncertain(Error),
}

/// Replaces `CURRENT` by `current`: writes a temporary file, syncs it, renames it, and syncs the
/// directory.
pub(super) fn swap(vfs: &Arc<dyn Vfs>, dir: &Path, current: &Current) -> Result<(), SwapError> {
    let temp = FileKind::Temp(FileNumber(0)).path(dir);
    match vfs.remove(&temp) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(SwapError::Before(Error::io("remove", &temp, e)));
        }
        _ => {}
    }
    if let Err(error) = write(vfs, &temp, current) {
        // If the file cannot be removed, the next swap tries again.
        let _ = vfs.remove(&temp);
        return Err(SwapError::Before(error));
    }
    let path = FileKind::Current.path(dir);
    if let Err(e) = vfs.rename(&temp, &path) {
        let error = Error::io("rename", &path, e);
        // The rename found no space, and `CURRENT` still has the old contents. So nothing has
        // changed.
        let refused = error.is_no_space() && !names(vfs, dir, current);
        if !refused {
            return Err(SwapError::Uncertain(error));
        }
        let _ = vfs.remove(&temp);
        return Err(SwapError::Before(error));
    }
    vfs.sync_dir(dir).map_err(|e| SwapError::Uncertain(Error::io("sync", dir, e)))
}

fn write(vfs: &Arc<dyn Vfs>, path: &Path, current: &Current) -> Result<()> {
    let file = vfs.create(path).map_err(|e| Error::io("create", path, e))?;
    file.write_all_at(&current.encode(), 0).map_err(|e| Error::io_at("write", path, 0, e))?;
    file.sync_all().map_err(|e| Error::io("sync", path, e))
}

/// Could `CURRENT` name this manifest? True if it cannot be read.
fn names(vfs: &Arc<dyn Vfs>, dir: &Path, current: &Current) -> bool {
    match read_current(vfs, dir) {
        Ok(found) => found.is_some_and(|found| found.manifest == current.manifest),
        Err(_) => true,
    }
}
