//! Sections of a table's file: how they are read, and the errors for bytes that are wrong.

use super::filter::Filter;
use super::footer::Handle;
use super::trailer::{ChecksumSeed, Flaw, open_section};
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
    Filter::decode(&payload).map_err(|what| Error::corrupt(path, handle.offset, what))
}

/// Reads and opens a section. Its length was checked against the file's.
pub(super) fn read_section(
    file: &dyn File,
    path: &Path,
    seed: ChecksumSeed,
    handle: Handle,
) -> Result<Vec<u8>> {
    let stored = read(file, path, handle.offset, handle.length as usize)?;
    open_section(&stored, seed, handle.offset).map_err(|(at, fault)| refuse(path, at, fault))
}

/// `length` bytes from `offset`.
pub(super) fn read(file: &dyn File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(|_| refuse(path, offset, Flaw::OutOfMemory))?;
    buffer.resize(length, 0);
    read_into(file, path, offset, &mut buffer)?;
    Ok(buffer)
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
