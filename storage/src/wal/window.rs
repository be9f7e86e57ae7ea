//! Reads a segment in large pieces and finds records in it.
//!
//! Memory is bounded by the piece size, or by the largest batch that fits into the file: a length
//! from the disk is compared with the file's length, and with what its record's type can have,
//! before memory is asked for.

use super::header::HEADER_BYTES;
use super::record::{self, ALIGN, RECORD_HEADER_BYTES, RecordHeader, RecordSeed, kind};
use super::segment::is_length;
use crate::codec::{PrefixCrcs, crc_between};
use crate::error::{Error, Result};
use crate::key::Seqno;
use crate::limits::BATCH_BYTES_CAP;
use crate::vfs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that are read at once to see a segment's first record.
const SMALL_PIECE_BYTES: usize = 4096;
/// A candidate record of at most this length is checksummed directly. The checksum of a longer one
/// is derived from the checksums of prefixes.
const SHORT_BYTES: u64 = 4096;

/// So many bytes are looked at together, to see whether all of them are zeros: a multiple of
/// `ALIGN`.
const ZEROS_BYTES: usize = 1024;

/// A moving window on one segment's bytes.
pub(super) struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    seed: RecordSeed,
    first_seqno: Option<Seqno>,
    len: u64,
    piece_bytes: usize,
    start: u64,
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes that were read without moving the window.
    aside: Vec<u8>,
}

/// Checksums from which that of any later part of the file can be derived.
struct Prefixes {
    from: u64,
    crcs: PrefixCrcs,
}

/// What is at an offset.
pub(super) enum FoundFrame {
    /// A record with a valid checksum.
    Record { header: RecordHeader, crc: u32, end: u64 },
    /// Zeros, bytes of another segment, or too few bytes for a record.
    Nothing,
    /// A header of this segment whose record is not valid; by its length it ends at `claimed_end`.
    Broken { claimed_end: u64 },
}

impl Window {
    /// `first_seqno` is that of the segment's first record, if it can be read.
    pub(super) fn new(
        file: Arc<dyn File>,
        path: &Path,
        len: u64,
        seed: RecordSeed,
        first_seqno: Option<Seqno>,
    ) -> Self {
        let path = path.to_owned();
        let (start, filled, buffer, aside) = (0, 0, Vec::new(), Vec::new());
        let piece_bytes = PIECE_BYTES;
        Self { file, path, seed, first_seqno, len, piece_bytes, start, buffer, filled, aside }
    }

    /// As `new`, for one short record: reads little more.
    pub(super) fn small(file: Arc<dyn File>, path: &Path, len: u64, seed: RecordSeed) -> Self {
        Self { piece_bytes: SMALL_PIECE_BYTES, ..Self::new(file, path, len, seed, None) }
    }

    /// The `count` bytes at `offset`. They must lie within the file.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> Result<&[u8]> {
        debug_assert!(offset + count as u64 <= self.len, "only what is there is asked for");
        if !self.is_inside(offset, count) {
            self.slide(offset, count)?;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.buffer[at..at + count])
    }

    fn is_inside(&self, offset: u64, count: usize) -> bool {
        offset >= self.start && offset + count as u64 <= self.start + self.filled as u64
    }

    /// As `bytes`, without moving the window.
    fn glance(&mut self, offset: u64, count: usize) -> Result<&[u8]> {
        if self.is_inside(offset, count) {
            return self.bytes(offset, count);
        }
        self.aside.resize(count, 0);
        fill(self.file.as_ref(), &self.path, offset, &mut self.aside)?;
        Ok(&self.aside)
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
        let target = self.piece_bytes.max(count).min((self.len - offset) as usize);
        if self.buffer.len() < target {
            let more = target - self.buffer.len();
            self.buffer.try_reserve_exact(more).map_err(|_| {
                Error::io_at("read", &self.path, offset, io::ErrorKind::OutOfMemory.into())
            })?;
            self.buffer.resize(target, 0);
        }
        let at = offset + kept as u64;
        fill(self.file.as_ref(), &self.path, at, &mut self.buffer[kept..target])?;
        self.filled = target;
        Ok(())
    }

    /// What is at `offset`, a multiple of 8.
    pub(super) fn find(&mut self, offset: u64) -> Result<FoundFrame> {
        let room = self.len.saturating_sub(offset);
        if room < RECORD_HEADER_BYTES as u64 {
            return Ok(FoundFrame::Nothing);
        }
        let seed = self.seed;
        let head = self.bytes(offset, RECORD_HEADER_BYTES)?;
        let Some(header) = head.first_chunk().and_then(|head| record::decode(seed, head)) else {
            return Ok(FoundFrame::Nothing);
        };
        let len = header.len as usize;
        let extent = record::record_bytes(len);
        if extent > room {
            return Ok(FoundFrame::Broken { claimed_end: self.len });
        }
        let end = offset + extent;
        // What is read at once anyway is looked at in any case: if its checksum is right, whoever
        // reads the record says what is wrong with it.
        if extent > self.piece_bytes as u64 && !may_have_length(&header) {
            return Ok(FoundFrame::Broken { claimed_end: end });
        }
        let bytes = self.bytes(offset, extent as usize)?;
        Ok(match record::verify(seed, offset, len, bytes) {
            Some(crc) => FoundFrame::Record { header, crc, end },
            None => FoundFrame::Broken { claimed_end: end },
        })
    }

    /// The payload of a record that `find` has just returned for `offset`.
    pub(super) fn payload(&mut self, offset: u64, header: &RecordHeader) -> Result<&[u8]> {
        self.bytes(offset + RECORD_HEADER_BYTES as u64, header.len as usize)
    }

    /// Calls `each(offset, header, end)` for every valid record at or after `from`, at any multiple
    /// of 8, until `each` returns false.
    ///
    /// A user's values may contain bytes that look like records. So each candidate costs the same,
    /// whatever length it claims, and the file is read at most twice.
    pub(super) fn scan(
        &mut self,
        from: u64,
        mut each: impl FnMut(u64, &RecordHeader, u64) -> bool,
    ) -> Result<()> {
        let mut offset = from.next_multiple_of(ALIGN);
        let mut prefixes = None;
        while let Some((candidate, header)) = self.next_candidate(offset)? {
            offset = candidate + ALIGN;
            let extent = record::record_bytes(header.len as usize);
            let whole = if extent <= SHORT_BYTES {
                matches!(self.find(candidate)?, FoundFrame::Record { .. })
            } else {
                let prefixes = match &mut prefixes {
                    Some(prefixes) => prefixes,
                    none => none.insert(self.prefixes(candidate)?),
                };
                self.is_whole(candidate, &header, prefixes)?
            };
            if whole {
                offset = candidate + extent;
                if !each(candidate, &header, offset) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the rest of the file and computes its prefix checksums.
    fn prefixes(&self, from: u64) -> Result<Prefixes> {
        let mut crcs = PrefixCrcs::new(self.len - from);
        let mut piece = vec![0; PIECE_BYTES.min((self.len - from) as usize)];
        let mut at = from;
        while at < self.len {
            let count = piece.len().min((self.len - at) as usize);
            fill(self.file.as_ref(), &self.path, at, &mut piece[..count])?;
            crcs.append(&piece[..count]);
            at += count as u64;
        }
        Ok(Prefixes { from, crcs })
    }

    /// Is the record at `offset` with this header valid? Reads its header, its end, and a few bytes
    /// in between.
    fn is_whole(
        &mut self,
        offset: u64,
        header: &RecordHeader,
        Prefixes { from, crcs }: &Prefixes,
    ) -> Result<bool> {
        let payload_at = offset + RECORD_HEADER_BYTES as u64;
        let payload_end = payload_at + u64::from(header.len);
        let end = offset + record::record_bytes(header.len as usize);
        let mark = from + crcs.mark_before(payload_end - from);
        let last = self.glance(mark, (end - mark) as usize)?;
        let (since, padding) = last.split_at((payload_end - mark) as usize);
        if !record::is_padding(padding) {
            return Ok(false);
        }
        let upto = crcs.upto(payload_end - from, since);
        let mark = from + crcs.mark_before(payload_at - from);
        let since = self.glance(mark, (payload_at - mark) as usize)?;
        let before = crcs.upto(payload_at - from, since);
        let payload_crc = crc_between(0, before, upto, u64::from(header.len));
        let seed = self.seed;
        let head = self.bytes(offset, RECORD_HEADER_BYTES)?;
        let head = head.first_chunk().expect("as many bytes as a header has were asked for");
        Ok(record::verify_header(seed, offset, head, payload_crc).is_some())
    }

    /// Could this header have been written at `offset`? This is decided without a checksum. The
    /// former life of a recycled segment may hold binary values full of small numbers, and not each
    /// of them should be checksummed.
    fn is_plausible(&self, header: &RecordHeader, offset: u64) -> bool {
        let fitting = match header.kind {
            kind::BATCH | kind::CLOSE_MARK | kind::WATERMARK | kind::CONTINUED | kind::CHANGE => {
                true
            }
            kind::BEGIN => offset == HEADER_BYTES as u64,
            _ => false,
        };
        // Two records of a segment differ by no more in sequence numbers than in bytes.
        let seqnos = match self.first_seqno {
            Some(Seqno(first)) => first..=first.saturating_add(self.len),
            None => 1..=Seqno::MAX.0,
        };
        fitting
            && is_length(header.kind, header.len as usize)
            && header.flags == 0
            && seqnos.contains(&header.first_seqno.0)
            && header.synced_to <= offset
            && record::record_bytes(header.len as usize) <= self.len - offset
    }

    /// The first plausible header of this segment at or after `offset`.
    fn next_candidate(&mut self, mut offset: u64) -> Result<Option<(u64, RecordHeader)>> {
        while offset + RECORD_HEADER_BYTES as u64 <= self.len {
            let Some(data) = self.skip_hole(offset)? else { return Ok(None) };
            if data > offset {
                offset = data;
                continue;
            }
            let seed = self.seed;
            let bytes = self.ahead(offset)?;
            let zeros = zeros_ahead(bytes);
            if zeros > RECORD_HEADER_BYTES {
                // The first bytes of a header may be zeros.
                offset += (zeros - RECORD_HEADER_BYTES) as u64;
                continue;
            }
            let steps = (bytes.len() - RECORD_HEADER_BYTES) / ALIGN as usize + 1;
            let steps = steps.min(ZEROS_BYTES / ALIGN as usize);
            let found = (0..steps).map(|step| step * ALIGN as usize).find_map(|at| {
                let head = bytes[at..].first_chunk().expect("a step leaves room for a header");
                Some((offset + at as u64, record::decode(seed, head)?))
            });
            match found {
                Some((at, header)) if self.is_plausible(&header, at) => {
                    return Ok(Some((at, header)));
                }
                Some((at, _)) => offset = at + ALIGN,
                None => offset += (steps * ALIGN as usize) as u64,
            }
        }
        Ok(None)
    }

    /// Where a header at or after `offset` can begin; `None`: nowhere. The end of a segment may
    /// never have been written to, and reading its zeros can take longer than reading the records.
    fn skip_hole(&self, offset: u64) -> Result<Option<u64>> {
        if self.is_inside(offset, RECORD_HEADER_BYTES) {
            return Ok(Some(offset));
        }
        let data = self.file.next_data(offset);
        let data = data.map_err(|e| Error::io_at("seek in", &self.path, offset, e))?;
        // The first bytes of a header may be zeros.
        let first = |data: u64| data.saturating_sub(RECORD_HEADER_BYTES as u64);
        Ok(data.map(|data| first(data).next_multiple_of(ALIGN).max(offset)))
    }

    /// The bytes in the window from `offset` on, at least a header. Moves the window only if they
    /// are not in it.
    fn ahead(&mut self, offset: u64) -> Result<&[u8]> {
        if !self.is_inside(offset, RECORD_HEADER_BYTES) {
            self.slide(offset, RECORD_HEADER_BYTES)?;
        }
        Ok(&self.buffer[(offset - self.start) as usize..self.filled])
    }
}

/// Could a record of this type be so long? Nothing is known of types that later builds may have.
fn may_have_length(header: &RecordHeader) -> bool {
    let len = header.len as usize;
    match header.kind {
        kind::BATCH..=kind::CHANGE => is_length(header.kind, len),
        _ => len <= BATCH_BYTES_CAP,
    }
}

/// How many of the first bytes are zeros, counted in pieces of `ZEROS_BYTES`.
fn zeros_ahead(bytes: &[u8]) -> usize {
    let all_zeros = |piece: &&[u8]| piece.iter().fold(0, |any, byte| any | byte) == 0;
    bytes.chunks_exact(ZEROS_BYTES).take_while(all_zeros).count() * ZEROS_BYTES
}

/// Reads exactly these bytes. The file must have them.
fn fill(file: &dyn File, path: &Path, offset: u64, into: &mut [u8]) -> Result<()> {
    let read = file.read_at(into, offset).map_err(|e| Error::io_at("read", path, offset, e))?;
    if read < into.len() {
        return Err(Error::corrupt(path, offset + read as u64, "the file ends too early"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filename::FileNumber;
    use crate::vfs::{MemVfs, Vfs};
    use crate::wal::LogIdentity;

    /// Planted: `find` asks for memory before it looks whether a record can have this length.
    #[test]
    fn a_length_that_no_record_has_asks_for_no_memory() {
        let seed = RecordSeed::new(&LogIdentity { db_id: [7; 16] }, FileNumber(1));
        let len = 64 << 20;
        let kinds = [kind::CLOSE_MARK, kind::WATERMARK, kind::BEGIN, kind::CONTINUED, kind::CHANGE];
        for kind in kinds.into_iter().chain([kind::BATCH]) {
            let (vfs, path) = (MemVfs::new(), Path::new("/segment"));
            let file = vfs.create(path).unwrap();
            file.set_len(len).unwrap();
            let claimed = (len / 2) as u32;
            let first_seqno = Seqno(1);
            let header = RecordHeader { len: claimed, synced_to: 0, kind, flags: 0, first_seqno };
            let (head, _) = record::encode(seed, 8, &header, 5);
            file.write_all_at(&head, 8).unwrap();
            let mut window = Window::new(file, path, len, seed, None);
            let end = 8 + record::record_bytes(claimed as usize);
            let found = window.find(8).unwrap();
            assert!(matches!(found, FoundFrame::Broken { claimed_end } if claimed_end == end));
            let is_possible = kind == kind::BATCH;
            assert_eq!(window.buffer.len() > PIECE_BYTES, is_possible, "type {kind}");
        }
    }
}
