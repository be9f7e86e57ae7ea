//! Reads a segment in large pieces and finds records in it.
//!
//! Memory is bounded by the piece size or the largest record that really fits into the file: no
//! length from the disk is believed before it was compared with what the file holds.

use super::ends::CONTINUED_BYTES;
use super::header::HEADER_BYTES;
use super::record::{self, ALIGN, RECORD_HEADER_BYTES, RecordHeader, Seed, kind};
use crate::error::{Error, Result};
use crate::key::Seqno;
use crate::vfs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A moving window on one segment's bytes.
pub(super) struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    seed: Seed,
    first_seqno: Option<Seqno>,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
    filled: usize,
}

/// What stands at an offset.
pub(super) enum Found {
    /// A record whose checksum is right.
    Record { header: RecordHeader, crc: u32, end: u64 },
    /// Zeros, bytes of another segment, or too few bytes for a record.
    Nothing,
    /// A header of this segment whose record is not whole; it claims to end at `claimed_end`, and
    /// to tell cost checksumming `checked` bytes.
    Broken { claimed_end: u64, checked: u64 },
}

impl Window {
    /// `first_seqno` is what the segment's first record says, if it can be read.
    pub(super) fn new(
        file: Arc<dyn File>,
        path: &Path,
        len: u64,
        seed: Seed,
        first_seqno: Option<Seqno>,
    ) -> Self {
        let path = path.to_owned();
        Self { file, path, seed, first_seqno, len, start: 0, buffer: Vec::new(), filled: 0 }
    }

    /// The `count` bytes at `offset`, which lie within the file.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8]> {
        debug_assert!(offset + count as u64 <= self.len, "only what is there is asked for");
        let inside =
            offset >= self.start && offset + count as u64 <= self.start + self.filled as u64;
        if !inside {
            self.slide(offset, count)?;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.buffer[at..at + count])
    }

    fn slide(&mut self, offset: u64, count: usize) -> Result<()> {
        let kept = if (self.start..self.start + self.filled as u64).contains(&offset) {
            let at = (offset - self.start) as usize;
            self.buffer.copy_within(at..self.filled, 0);
            self.filled - at
        } else {
            0
        };
        (self.start, self.filled) = (offset, kept);
        let target = PIECE_BYTES.max(count).min((self.len - offset) as usize);
        if self.buffer.len() < target {
            let more = target - self.buffer.len();
            self.buffer.try_reserve_exact(more).map_err(|_| {
                Error::io_at("read", &self.path, offset, io::ErrorKind::OutOfMemory.into())
            })?;
            self.buffer.resize(target, 0);
        }
        let at = offset + kept as u64;
        let read = self
            .file
            .read_at(&mut self.buffer[kept..target], at)
            .map_err(|e| Error::io_at("read", &self.path, at, e))?;
        self.filled += read;
        if self.filled < target {
            return Err(Error::corrupt(&self.path, at + read as u64, "the file ends too early"));
        }
        Ok(())
    }

    /// What stands at `offset`, a multiple of 8.
    pub(super) fn find(&mut self, offset: u64) -> Result<Found> {
        let room = self.len.saturating_sub(offset);
        if room < RECORD_HEADER_BYTES as u64 {
            return Ok(Found::Nothing);
        }
        let seed = self.seed;
        let head = self.bytes(offset, RECORD_HEADER_BYTES)?;
        let Some(header) = head.first_chunk().and_then(|head| record::decode(seed, head)) else {
            return Ok(Found::Nothing);
        };
        let len = header.len as usize;
        let extent = record::record_bytes(len);
        if extent > room {
            return Ok(Found::Broken { claimed_end: self.len, checked: 0 });
        }
        let end = offset + extent;
        let bytes = self.bytes(offset, extent as usize)?;
        Ok(match record::verify(seed, offset, len, bytes) {
            Some(crc) => Found::Record { header, crc, end },
            None => Found::Broken { claimed_end: end, checked: extent },
        })
    }

    /// The payload of a record that `find` just returned for `offset`.
    pub(super) fn payload(&mut self, offset: u64, header: &RecordHeader) -> Result<&[u8]> {
        self.bytes(offset + RECORD_HEADER_BYTES as u64, header.len as usize)
    }

    /// Calls `each(offset, header, end)` for every valid record at or after `from`, wherever it may
    /// start, until `each` returns false.
    ///
    /// Bytes made to look like headers could make this checksum the file again and again. It gives
    /// up, refusing the file, after 64 times its length. What claims more than the file holds is not
    /// checksummed and does not count: a recycled segment full of random values has more than a
    /// hundred of those.
    pub(super) fn scan(
        &mut self,
        from: u64,
        mut each: impl FnMut(u64, &RecordHeader, u64) -> bool,
    ) -> Result<()> {
        let mut budget = self.len.saturating_mul(64);
        let mut offset = from.next_multiple_of(ALIGN);
        while let Some(candidate) = self.next_candidate(offset)? {
            offset = candidate + ALIGN;
            match self.find(candidate)? {
                Found::Record { header, end, .. } => {
                    if !each(candidate, &header, end) {
                        return Ok(());
                    }
                    offset = end;
                }
                Found::Broken { checked, .. } => {
                    budget = budget.saturating_sub(checked);
                    if budget == 0 {
                        let what = "too many bytes that look like records but are none";
                        return Err(Error::corrupt(&self.path, candidate, what));
                    }
                }
                Found::Nothing => {}
            }
        }
        Ok(())
    }

    /// Could this header, found at `offset`, have been written there? Said without a checksum, so
    /// that the former life of a recycled segment (other people's binary files, full of small
    /// numbers) does not have to be checksummed again and again.
    fn is_plausible(&self, header: &RecordHeader, offset: u64) -> bool {
        let fitting = match header.kind {
            kind::BATCH => header.len > 0,
            kind::CLOSE_MARK | kind::VOUCH => header.len == 0,
            kind::BEGIN => offset == HEADER_BYTES as u64,
            kind::CONTINUED => header.len as usize == CONTINUED_BYTES,
            _ => false,
        };
        // No two records of a segment are further apart in numbers than in bytes.
        let seqnos = match self.first_seqno {
            Some(Seqno(first)) => first..=first.saturating_add(self.len),
            None => 1..=Seqno::MAX.0,
        };
        fitting
            && header.flags == 0
            && seqnos.contains(&header.first_seqno.0)
            && header.synced_to <= offset
            && u64::from(header.len) <= self.len - offset
    }

    /// The first offset at or after `offset` where a header of this segment could stand.
    fn next_candidate(&mut self, mut offset: u64) -> Result<Option<u64>> {
        while offset + RECORD_HEADER_BYTES as u64 <= self.len {
            let seed = self.seed;
            let available = PIECE_BYTES.min((self.len - offset) as usize);
            let bytes = self.bytes(offset, available)?;
            let steps = (available - RECORD_HEADER_BYTES) / ALIGN as usize + 1;
            let mut found = None;
            for step in 0..steps {
                let at = step * ALIGN as usize;
                let head = bytes[at..].first_chunk().expect("a step leaves room for a header");
                if let Some(header) = record::decode(seed, head) {
                    found = Some((offset + at as u64, header));
                    break;
                }
            }
            if let Some((at, header)) = found {
                if self.is_plausible(&header, at) {
                    return Ok(Some(at));
                }
                offset = at + ALIGN;
                continue;
            }
            offset += (steps * ALIGN as usize) as u64;
        }
        Ok(None)
    }
}
