//! Sections of a table's file: how they are read, and the errors for bytes that are wrong.

use super::filter::Filter;
use super::footer::Handle;
use super::trailer::{ChecksumSeed, Flaw, PIECE_BYTES, TRAILER_BYTES, append_piece};
use crate::error::{Error, Result};
use crate::vfs::File;
use std::io;
use std::path::Path;

/// The filter at `handle`; one that excludes no key if the table has none.
pub(super) fn load_filter(
    file: &dyn File,
    path: &Path,
    seed: ChecksumSeed,
    handle: Handle,
) -> Result<Filter> {
    if handle.length == 0 {
        return Ok(Filter::everything());
    }
    let payload = read_section(file, path, seed, handle)?;
    Filter::decode(&payload).map_err(|fault| refuse(path, handle.offset, fault))
}

/// Reads and opens a section. Its length was checked against the file's. Each piece is checked
/// before memory is asked for the next one.
pub(super) fn read_section(
    file: &dyn File,
    path: &Path,
    seed: ChecksumSeed,
    handle: Handle,
) -> Result<Vec<u8>> {
    let (mut payload, mut stored) = (Vec::new(), Vec::new());
    let mut at = handle.offset;
    while at < handle.end() {
        let length = (handle.end() - at).min((PIECE_BYTES + TRAILER_BYTES) as u64);
        read_over(file, path, at, length as usize, &mut stored)?;
        append_piece(&mut payload, &stored, seed, at).map_err(|fault| refuse(path, at, fault))?;
        at += length;
    }
    Ok(payload)
}

/// `length` bytes from `offset`.
pub(super) fn read(file: &dyn File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    read_over(file, path, offset, length, &mut buffer)?;
    Ok(buffer)
}

/// As `read`, into memory that may have been used before.
fn read_over(
    file: &dyn File,
    path: &Path,
    offset: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let more = length.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| refuse(path, offset, Flaw::OutOfMemory))?;
    buffer.resize(length, 0);
    read_into(file, path, offset, buffer)
}

/// Fills `buffer` from `offset`.
pub(super) fn read_into(
    file: &dyn File,
    path: &Path,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let read = file
        .read_at(buffer, offset)
        .map_err(|source| Error::io_at("read", path, offset, source))?;
    if read != buffer.len() {
        let what = format!("file ends after {read} of {} bytes", buffer.len());
        return Err(Error::corrupt(path, offset, what));
    }
    Ok(())
}

/// The error for what is wrong with the bytes at `offset`.
#[cold]
pub(super) fn refuse(path: &Path, offset: u64, fault: Flaw) -> Error {
    match fault {
        Flaw::Corrupt(what) => Error::corrupt(path, offset, what),
        Flaw::Unsupported(what) => {
            let what = format!("{what} (at offset {offset})");
            Error::Unsupported { path: path.to_owned(), what }
        }
        Flaw::OutOfMemory => {
            Error::io_at("read", path, offset, io::Error::from(io::ErrorKind::OutOfMemory))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trailer::{PIECE_BYTES, put_section};
    use super::*;
    use crate::vfs::{MemVfs, Vfs};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Planted: a section is read whole before its first checksum is looked at.
    #[test]
    fn a_section_is_read_and_checked_a_piece_at_a_time() {
        let (vfs, path) = (MemVfs::new(), Path::new("/section"));
        let payload: Vec<_> = (0..2 * PIECE_BYTES + 5).map(|i| (i % 251) as u8).collect();
        let seed = ChecksumSeed::new(&[1; 16]);
        let mut stored = vec![9; 10];
        put_section(&mut stored, &payload, seed, 10);
        let file = vfs.create(path).unwrap();
        file.write_all_at(&stored, 0).unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        vfs.on_read(move |_| {
            count.fetch_add(1, Relaxed);
        });
        let handle = Handle { offset: 10, length: stored.len() as u64 - 10 };
        let read = || read_section(&*file, path, seed, handle);
        assert!(read().unwrap() == payload);
        assert_eq!(reads.swap(0, Relaxed), 3, "one for each piece");
        file.write_all_at(b"?", 100).unwrap();
        let at = |error| match error {
            Error::Corrupt { offset, .. } => offset,
            other => panic!("{other}"),
        };
        assert_eq!(at(read().unwrap_err()), 10);
        assert_eq!(reads.load(Relaxed), 1, "nothing behind a broken piece");
        // A section that claims more than the file has.
        let handle = Handle { offset: 1 << 40, length: 1 << 50 };
        read_section(&*file, path, seed, handle).unwrap_err();
    }
}
