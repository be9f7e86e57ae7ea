//! Reads one segment of the log: its identity, its predecessor, its records in order.
//!
//! It trusts only what a checksum covers, and changes nothing. The file is open only while it is
//! read: a log may have more segments than a process may have descriptors. It does not judge
//! whether a missing end was torn or damaged: that takes the other segments (`reader.rs`).

use super::ends::{BEGIN_PAYLOAD_BYTES_MAX, CONTINUED_BYTES, decode_begin, decode_continued};
use super::header::{HEADER_BYTES, SegmentHeader};
use super::reader::{LogItem, ReplayReport, TailReason};
use super::record::{
    self, CHANGE_BYTES, DIGEST_START, RecordHeader, RecordSeed, decode_change, kind,
};
use super::window::{FoundFrame, Window};
use super::{Link, LogIdentity, Predecessor, SealedSegment};
use crate::batch::PointOperations;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::limits::{BATCH_BYTES_CAP, SEQNO_ON_DISK_MAX};
use crate::vfs::{File, Vfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The offset of the first record.
pub(super) const RECORDS_AT: u64 = HEADER_BYTES as u64;

/// One `.wal` file. It is not open.
pub(super) struct Segment {
    pub(super) number: FileNumber,
    pub(super) path: PathBuf,
    vfs: Arc<dyn Vfs>,
    seed: RecordSeed,
    bytes: u64,
    /// `None`: the segment was never used, or its first record was torn or damaged.
    pub(super) begin: Option<Begin>,
}

/// The contents of a segment's first record.
#[derive(Clone, Copy)]
pub(super) struct Begin {
    pub(super) first_seqno: Seqno,
    predecessor: Predecessor,
}

/// How the records of a segment end.
pub(super) struct SegmentEnd {
    /// Offset after the last valid record.
    pub(super) end: u64,
    digest: u64,
    /// Is the last record the close mark?
    pub(super) closed: bool,
    /// The segment that continues this one, if the last record names one.
    pub(super) continued: Option<FileNumber>,
    /// If an incomplete record begins at `end`: the offset at which it would end.
    pub(super) claimed_end: Option<u64>,
}

impl SegmentEnd {
    /// Compares what was read with what the successor `next` says was written.
    pub(super) fn check(
        &self,
        segment: &Segment,
        next: FileNumber,
        link: &Link,
        last_seqno: Seqno,
    ) -> Result<()> {
        let read = (self.end, self.digest, last_seqno, self.continued);
        let written = (link.final_length, link.digest, link.last_seqno, Some(next));
        if read == written {
            return Ok(());
        }
        let what = format!(
            "the records end at {} with sequence number {last_seqno} and digest {:#x}; segment \
             {next} says {}, {} and {:#x}",
            self.end, self.digest, link.final_length, link.last_seqno, link.digest
        );
        Err(Error::corrupt(&segment.path, self.end.min(link.final_length), what))
    }
}

impl Segment {
    /// Reads the header page and the first record. The file is closed afterwards.
    pub(super) fn look(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        identity: &LogIdentity,
        number: FileNumber,
    ) -> Result<Self> {
        let path = FileKind::Wal(number).path(dir);
        let file = open(vfs, &path)?;
        let bytes = file.len().map_err(|e| Error::io("stat", &path, e))?;
        let mut page = [0; HEADER_BYTES];
        let read = file.read_at(&mut page, 0).map_err(|e| Error::io_at("read", &path, 0, e))?;
        let header = SegmentHeader::decode(&page[..read], &path, identity, number)?;
        if header.bytes != bytes {
            let what = format!("the file has {bytes} bytes, its header says {}", header.bytes);
            return Err(Error::corrupt(&path, bytes.min(header.bytes), what));
        }
        let (vfs, seed) = (Arc::clone(vfs), RecordSeed::new(identity, number));
        let mut segment = Self { number, path, vfs, seed, bytes, begin: None };
        let mut window = Window::small(file, &segment.path, bytes, seed);
        segment.begin = segment.read_begin(&mut window)?;
        Ok(segment)
    }

    fn read_begin(&self, window: &mut Window) -> Result<Option<Begin>> {
        let FoundFrame::Record { header, .. } = window.find(RECORDS_AT)? else { return Ok(None) };
        self.check_flags(RECORDS_AT, &header)?;
        let payload = window.payload(RECORDS_AT, &header)?;
        let predecessor = match header.kind {
            kind::BEGIN => decode_begin(payload, self.number),
            _ => None,
        };
        let first_seqno = header.first_seqno;
        match predecessor {
            Some(predecessor) if (1..=SEQNO_ON_DISK_MAX).contains(&first_seqno.0) => {
                Ok(Some(Begin { first_seqno, predecessor }))
            }
            _ => {
                let what = "the first record does not say what the segment continues";
                Err(Error::corrupt(&self.path, RECORDS_AT, what))
            }
        }
    }

    /// One of `others` whose beginning is where this segment's should be.
    pub(super) fn begins_as(
        &self,
        identity: &LogIdentity,
        others: impl Iterator<Item = FileNumber>,
    ) -> Result<Option<FileNumber>> {
        let file = open(&self.vfs, &self.path)?;
        for other in others {
            let seed = RecordSeed::new(identity, other);
            let mut window = Window::small(Arc::clone(&file), &self.path, self.bytes, seed);
            if let FoundFrame::Record { .. } = window.find(RECORDS_AT)? {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// Opens the file. It is open until the window is dropped.
    ///
    /// # Errors
    /// `Missing`; `Io`.
    pub(super) fn window(&self) -> Result<Window> {
        let first_seqno = self.begin.as_ref().map(|begin| begin.first_seqno);
        let file = open(&self.vfs, &self.path)?;
        Ok(Window::new(file, &self.path, self.bytes, self.seed, first_seqno))
    }

    pub(super) fn link(&self) -> Option<Link> {
        match self.begin?.predecessor {
            Predecessor::Follows(link) => Some(link),
            Predecessor::Barrier => None,
        }
    }

    fn check_flags(&self, offset: u64, record: &RecordHeader) -> Result<()> {
        if record.flags == 0 {
            return Ok(());
        }
        let what = format!("the record at {offset} has unknown flags {:#x}", record.flags);
        Err(Error::Unsupported { path: self.path.clone(), what })
    }

    /// Passes the records to `each`, up to the first offset without a valid one, and updates
    /// `report`.
    pub(super) fn replay(
        &self,
        begin: &Begin,
        report: &mut ReplayReport,
        each: &mut dyn FnMut(LogItem<'_>) -> Result<()>,
    ) -> Result<SegmentEnd> {
        let first_seqno = begin.first_seqno;
        if !report.segments.is_empty() && first_seqno.0 != report.last_seqno.0 + 1 {
            let what = format!(
                "the segment begins with sequence number {first_seqno}, after {}",
                report.last_seqno
            );
            return Err(Error::corrupt(&self.path, RECORDS_AT, what));
        }
        let mut window = self.window()?;
        let mut outcome = SegmentEnd {
            end: RECORDS_AT,
            digest: DIGEST_START,
            closed: false,
            continued: None,
            claimed_end: None,
        };
        let mut next_seqno = first_seqno;
        while !outcome.closed && outcome.continued.is_none() {
            let offset = outcome.end;
            let (record, crc, end) = match window.find(offset)? {
                FoundFrame::Record { header, crc, end } => (header, crc, end),
                FoundFrame::Broken { claimed_end } => {
                    outcome.claimed_end = Some(claimed_end);
                    break;
                }
                FoundFrame::Nothing => break,
            };
            let numbers = self.check_record(&mut window, offset, &record, next_seqno)?;
            match record.kind {
                kind::BATCH => {
                    let payload = window.payload(offset, &record)?;
                    each(LogItem::Batch { first: next_seqno, payload })?;
                }
                kind::CHANGE => {
                    let id = decode_change(window.payload(offset, &record)?);
                    let id = id.expect("the record was checked");
                    each(LogItem::Change { seqno: next_seqno, id })?;
                }
                kind::CLOSE_MARK => outcome.closed = true,
                kind::CONTINUED => {
                    outcome.continued = self.read_continued(&mut window, offset, &record)?;
                }
                _ => {}
            }
            report.records += u64::from(numbers > 0);
            next_seqno = Seqno(next_seqno.0 + numbers);
            outcome.digest = record::roll(outcome.digest, crc);
            outcome.end = end;
        }
        report.segment = Some(self.number);
        report.offset = outcome.end;
        report.reason = if outcome.closed { TailReason::Closed } else { TailReason::End };
        report.clean_close = outcome.closed;
        report.last_seqno = Seqno(next_seqno.0 - 1);
        report.segments.push(SealedSegment {
            number: self.number,
            path: self.path.clone(),
            first_seqno,
            last_seqno: report.last_seqno,
            bytes: self.bytes,
        });
        Ok(outcome)
    }

    /// The segment that a `continued` record names.
    pub(super) fn read_continued(
        &self,
        window: &mut Window,
        offset: u64,
        record: &RecordHeader,
    ) -> Result<Option<FileNumber>> {
        Ok(decode_continued(window.payload(offset, record)?, self.number))
    }

    /// Checks a record with a valid checksum against the rules of the format and its position.
    /// Returns how many sequence numbers it takes.
    pub(super) fn check_record(
        &self,
        window: &mut Window,
        offset: u64,
        record: &RecordHeader,
        next_seqno: Seqno,
    ) -> Result<u64> {
        let corrupt = |what: String| Err(Error::corrupt(&self.path, offset, what));
        self.check_flags(offset, record)?;
        if !(kind::BATCH..=kind::CHANGE).contains(&record.kind) {
            let what = format!("the record at {offset} has unknown type {}", record.kind);
            return Err(Error::Unsupported { path: self.path.clone(), what });
        }
        if record.synced_to > offset {
            return corrupt(format!("a record confirms {}", record.synced_to));
        }
        let first = record.first_seqno;
        if first != next_seqno {
            return corrupt(format!("a record has sequence number {first}, expected {next_seqno}"));
        }
        let malformed = || corrupt(format!("a record of type {} is malformed", record.kind));
        if !is_length(record.kind, record.len as usize) {
            return malformed();
        }
        let payload = window.payload(offset, record)?;
        let well_formed = match record.kind {
            kind::BEGIN => offset == RECORDS_AT,
            kind::CONTINUED => decode_continued(payload, self.number).is_some(),
            _ => true,
        };
        if !well_formed {
            return malformed();
        }
        let numbers = match record.kind {
            kind::BATCH => self.count_operations(offset, payload)?,
            kind::CHANGE => 1,
            _ => return Ok(0),
        };
        if first.0.saturating_add(numbers) > SEQNO_ON_DISK_MAX {
            return corrupt(format!("a record of {numbers} numbers begins with {first}"));
        }
        Ok(numbers)
    }

    /// The number of operations in a batch that is not empty.
    ///
    /// # Errors
    /// `Corrupt` if the batch is malformed.
    fn count_operations(&self, offset: u64, payload: &[u8]) -> Result<u64> {
        let (mut operations, mut count) = (PointOperations::new(payload), 0);
        for _ in operations.by_ref() {
            count += 1;
        }
        if let Some(at) = operations.malformed_at() {
            let what = format!("a batch is malformed {at} bytes after its header");
            return Err(Error::corrupt(&self.path, offset, what));
        }
        Ok(count)
    }
}

fn open(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Arc<dyn File>> {
    vfs.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::io("open", path, e),
    })
}

/// Can a record of this type have a payload of `len` bytes?
pub(super) fn is_length(kind: u8, len: usize) -> bool {
    match kind {
        kind::BATCH => (1..=BATCH_BYTES_CAP).contains(&len),
        kind::BEGIN => len <= BEGIN_PAYLOAD_BYTES_MAX,
        kind::CONTINUED => len == CONTINUED_BYTES,
        kind::CHANGE => len == CHANGE_BYTES,
        _ => len == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: no limit for a batch; a limit that is one too high.
    #[test]
    fn c1_a_record_has_a_length_that_its_kind_can_have() {
        let fits = |kind, lengths: &[usize]| lengths.iter().all(|&len| is_length(kind, len));
        let too_long = |kind, lengths: &[usize]| !lengths.iter().any(|&len| is_length(kind, len));
        assert!(fits(kind::BATCH, &[1, 2, BATCH_BYTES_CAP]));
        assert!(too_long(kind::BATCH, &[0, BATCH_BYTES_CAP + 1, u32::MAX as usize]));
        assert!(fits(kind::BEGIN, &[0, 40]) && too_long(kind::BEGIN, &[41, 1 << 20]));
        assert!(fits(kind::CHANGE, &[8]) && too_long(kind::CHANGE, &[0, 7, 9, 1 << 31]));
        assert!(fits(kind::CONTINUED, &[8]) && too_long(kind::CONTINUED, &[0, 7, 9, 1 << 20]));
        for kind in [kind::CLOSE_MARK, kind::WATERMARK] {
            assert!(fits(kind, &[0]) && too_long(kind, &[1, 8, 1 << 30]));
        }
    }
}
