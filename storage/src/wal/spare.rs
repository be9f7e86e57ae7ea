//! Segments prepared ahead, so that a commit never creates, grows or names a file.
//!
//! A spare is built under its `.spare` name; recovery may delete such a file at any time. The
//! header page, which identifies the file, is made durable first. The `.wal` name comes last, with
//! a sync of the directory. From then on the spare is an empty part of the log: a `.wal` file whose
//! first record is not a begin record. So when the writer rotates into it, in memory only, its
//! first record already has a durable file and name.
//!
//! Everything here blocks on the disk and belongs on the threads of the log.

use super::header::{HEADER_BYTES, SegmentHeader};
use super::record::ALIGN;
use super::{LogIdentity, SealedSegment};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::vfs::{File, Mapping, Vfs};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ZERO_BYTES: usize = 1 << 20;
/// Zeros are synced after this many bytes. So preparing a segment never accumulates dirty pages
/// that a committing thread would have to wait for.
const DIRTY_BYTES_MAX: u64 = 4 << 20;
static ZEROS: [u8; ZERO_BYTES] = [0; ZERO_BYTES];

/// The longest segment: `synced_to` counts units of 8 bytes in 32 bits.
pub(super) const SEGMENT_BYTES_MAX: u64 = (u32::MAX as u64) * ALIGN;

/// The open file of a segment. The handle is the same from before the first write to the last sync.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) number: FileNumber,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Dropping the last reference unmaps the whole segment, which is slow. The sync group that
    /// seals a segment holds a reference, so the unmapping happens on the log's syncer.
    pub(super) mapping: Option<Arc<dyn Mapping>>,
    pub(super) bytes: u64,
}

/// A prepared segment: its blocks are allocated, its contents zeroed or recycled, its name durable.
/// It is mapped where that is safe.
pub struct Spare {
    pub(super) segment: SegmentFile,
}

impl Spare {
    /// The number that it will have in the log.
    pub fn number(&self) -> FileNumber {
        self.segment.number
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.segment.bytes
    }

    /// Can records be stored through a mapping, without a system call?
    pub fn is_mapped(&self) -> bool {
        self.segment.mapping.is_some()
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentFile { path, bytes, .. } = &self.segment;
        f.debug_struct("Spare")
            .field("path", path)
            .field("bytes", bytes)
            .field("mapped", &self.is_mapped())
            .finish()
    }
}

/// Creates the segment `number` with `bytes` bytes of zeros. It is mapped if `mapped` is set and
/// the file system can guarantee its blocks.
///
/// Blocks on the disk: writes and syncs the whole segment, and syncs the directory.
///
/// # Errors
/// `Io`, for example if the disk is full. The file is removed then, if possible.
pub fn prepare_spare(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    number: FileNumber,
    bytes: u64,
    mapped: bool,
) -> Result<Spare> {
    create(vfs, dir, identity, number, bytes, mapped, zero)
}

/// As `prepare_spare`, in a fraction of the time: the blocks are allocated but not written. Where
/// the file system cannot guarantee blocks, it is the same.
///
/// Stores into it cost about the same. But each sync of fresh pages costs about half as much again,
/// because it also records that the blocks are written now. For a segment that is needed soon.
///
/// # Errors
/// As `prepare_spare`.
pub fn allocate_spare(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    number: FileNumber,
    bytes: u64,
    mapped: bool,
) -> Result<Spare> {
    create(vfs, dir, identity, number, bytes, mapped, allocate)
}

/// Creates, fills, maps and names a segment.
fn create(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    number: FileNumber,
    bytes: u64,
    mapped: bool,
    fill: fn(&dyn File, &Path, &SegmentHeader) -> Result<bool>,
) -> Result<Spare> {
    assert!(bytes.is_multiple_of(HEADER_BYTES as u64), "segments are whole pages");
    assert!(bytes > HEADER_BYTES as u64, "a segment has room for records");
    assert!(bytes <= SEGMENT_BYTES_MAX, "offsets fit their fields");
    let path = FileKind::Spare(number).path(dir);
    let file = vfs.create(&path).map_err(|e| Error::io("create", &path, e))?;
    let header = SegmentHeader { identity: *identity, number, bytes };
    let prepared = fill(file.as_ref(), &path, &header)
        .and_then(|solid| finish(vfs, dir, &file, &path, number, bytes, mapped && solid));
    if prepared.is_err() {
        forget(vfs, dir, &path, number);
    }
    prepared
}

/// Removes a file that did not become a spare, under both of its possible names. Best effort: a
/// file that stays, or comes back after a power cut, is an unused segment, or a `.spare` file that
/// recovery deletes.
fn forget(vfs: &Arc<dyn Vfs>, dir: &Path, from: &Path, number: FileNumber) {
    for path in [from, &FileKind::Wal(number).path(dir)] {
        let _ = vfs.remove(path);
    }
}

/// Turns an obsolete segment into a spare with a new `number`. This saves the zeroing: the old
/// records carry the old number, so they are never read as records of the new segment. Nothing of
/// it is written: pages that are still dirty stay so, and what is stored to them next costs the
/// disk nothing more.
///
/// Blocks on the disk: reads what is not in the page cache, and syncs the directory.
///
/// # Errors
/// `Io`; `Corrupt` if the file has another length. The file is removed then, if possible. Otherwise
/// it still has its old name, which is below the manifest's log floor, or its new name, under which
/// it is an unused segment.
pub fn recycle(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    old: &SealedSegment,
    number: FileNumber,
    mapped: bool,
) -> Result<Spare> {
    assert!(number > old.number, "a recycled segment gets a new number");
    let recycled = reuse(vfs, dir, old, number, mapped);
    if recycled.is_err() {
        forget(vfs, dir, &old.path, number);
    }
    recycled
}

fn reuse(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    old: &SealedSegment,
    number: FileNumber,
    mapped: bool,
) -> Result<Spare> {
    let path = &old.path;
    let file = vfs.open_rw(path).map_err(|e| Error::io("open", path, e))?;
    let bytes = file.len().map_err(|e| Error::io("stat", path, e))?;
    if bytes != old.bytes {
        let what = format!("the log segment has {bytes} bytes, expected {}", old.bytes);
        return Err(Error::corrupt(path, bytes.min(old.bytes), what));
    }
    let solid = file.allocate(bytes).map_err(|e| Error::io("allocate", path, e))?;
    finish(vfs, dir, &file, path, number, bytes, mapped && solid)
}

/// Deletes an obsolete segment. Syncs nothing: if the file comes back after a power cut, the
/// manifest's log floor still excludes it.
///
/// # Errors
/// `Io`; a file that is already gone is fine.
pub fn remove(vfs: &Arc<dyn Vfs>, old: &SealedSegment) -> Result<()> {
    remove_file(vfs, &old.path)
}

/// Deletes a spare that is not needed any more. Syncs nothing: if the file comes back after a power
/// cut, it is an unused segment.
///
/// # Errors
/// `Io`; a file that is already gone is fine.
pub fn discard(vfs: &Arc<dyn Vfs>, spare: Spare) -> Result<()> {
    let path = spare.segment.path.clone();
    // Unmap before the file is removed.
    drop(spare);
    remove_file(vfs, &path)
}

fn remove_file(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<()> {
    match vfs.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

fn write_header(file: &dyn File, path: &Path, header: &SegmentHeader) -> Result<()> {
    file.write_all_at(&header.encode(), 0).map_err(|e| Error::io_at("write", path, 0, e))
}

/// Writes the header and real zeros behind it. Returns whether the file system guarantees the
/// blocks.
fn zero(file: &dyn File, path: &Path, header: &SegmentHeader) -> Result<bool> {
    let bytes = header.bytes;
    let solid = file.allocate(bytes).map_err(|e| Error::io("allocate", path, e))?;
    write_header(file, path, header)?;
    let mut at = HEADER_BYTES as u64;
    while at < bytes {
        // Up to the next multiple of the piece.
        let piece = (ZERO_BYTES - at as usize % ZERO_BYTES).min((bytes - at) as usize);
        file.write_all_at(&ZEROS[..piece], at).map_err(|e| Error::io_at("write", path, at, e))?;
        at += piece as u64;
        if at.is_multiple_of(DIRTY_BYTES_MAX) {
            file.sync_data().map_err(|e| Error::io("sync", path, e))?;
        }
    }
    file.sync_all().map_err(|e| Error::io("sync", path, e))?;
    Ok(solid)
}

/// Reserves the file's blocks and writes only the header. Where the file system cannot guarantee
/// blocks, writes all of it.
fn allocate(file: &dyn File, path: &Path, header: &SegmentHeader) -> Result<bool> {
    let solid = file.allocate(header.bytes).map_err(|e| Error::io("allocate", path, e))?;
    if !solid {
        return zero(file, path, header);
    }
    write_header(file, path, header)?;
    file.sync_all().map_err(|e| Error::io("sync", path, e))?;
    Ok(solid)
}

/// Maps and names a segment whose blocks exist and whose bytes are durable.
fn finish(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    file: &Arc<dyn File>,
    from: &Path,
    number: FileNumber,
    bytes: u64,
    mapped: bool,
) -> Result<Spare> {
    // Mapped last, after the syncs, and not touched: a sync makes the pages that it finds in the
    // page tables slow to store to, 165 ns per record instead of 8 (docs/adr/0005).
    let mapping = match (mapped, usize::try_from(bytes)) {
        (true, Ok(window)) => {
            file.map_for_writing(window).map_err(|e| Error::io("map", from, e))?
        }
        _ => None,
    };
    let path = FileKind::Wal(number).path(dir);
    vfs.rename(from, &path).map_err(|e| Error::io("rename", from, e))?;
    vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
    Ok(Spare { segment: SegmentFile { number, path, file: file.clone(), mapping, bytes } })
}
