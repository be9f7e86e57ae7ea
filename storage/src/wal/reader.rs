//! Reading the log back: every record in order, up to where an unclean stop tore it, or an error
//! that names what is damaged.
//!
//! Guarantees: what is handed out is a prefix of what was appended; nothing that anything later
//! vouches for is ever cut silently; nothing on the disk is changed, whatever is found.
//!
//! Torn or damaged? Where the records stop, `s` in segment `k`, something later may *vouch* for what
//! should have followed: a valid record behind `s` whose `synced_to` is above it; a later header that
//! knew `k` to be durable beyond `s`; any record of a later segment with `synced_to > 0`, because an
//! older segment is always synced first. A later header alone proves nothing: the operating system
//! may have written it back before the end of its predecessor. Vouched for means corrupt; otherwise
//! it is the torn tail and everything from `s` on is cut, later segments included.
//!
//! Does not decide what to do with the records, nor which segments are obsolete.

use super::header::{HEADER_BYTES, SegmentHeader};
use super::record::{self, DIGEST_START, Seed, kind};
use super::window::{Found, Window};
use super::{Link, LogIdentity, Predecessor, SealedSegment};
use crate::batch::Operations;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::vfs::{File, Vfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why replay stopped where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailReason {
    /// There was nothing to replay.
    Empty,
    /// The log was closed in order.
    Closed,
    /// Unused space follows the last record: the process stopped without closing the log.
    End,
    /// A record that was never completely durable follows, or lies beyond a hole; it was cut.
    Torn,
}

/// What `replay` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The segment in which replay stopped, if there was any.
    pub segment: Option<FileNumber>,
    /// Where in it.
    pub offset: u64,
    /// Bytes of unfinished or unreachable records that were cut, as far as they can be recognised.
    pub bytes_dropped: u64,
    /// Why it stopped there.
    pub reason: TailReason,
    /// How many batches were replayed.
    pub records: u64,
    /// The last sequence number that was given out, as far as the log knows; 0 if it knows nothing.
    pub last_seqno: Seqno,
    /// Was the log closed in order?
    pub clean_close: bool,
    /// The segments that were replayed, oldest first, the last one perhaps in part.
    pub segments: Vec<SealedSegment>,
}

/// Calls `each(first_seqno, payload)` for every batch of the log in `dir`, in order.
///
/// `segments` are the numbers of all `.wal` files there, ascending; those below `floor` are ignored.
/// The payload is the encoded operations, already checked to be well-formed; their sequence numbers
/// count up from `first_seqno`. Reads at the speed of the disk, in pieces of 1 MiB.
///
/// # Errors
/// `Corrupt`, `Missing` or `Unsupported`, naming the file and offset, for anything but a torn tail;
/// `Io`; and whatever `each` returns. What was handed out before an error must be thrown away.
pub fn replay(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    floor: FileNumber,
    segments: &[FileNumber],
    each: &mut dyn FnMut(Seqno, &[u8]) -> Result<()>,
) -> Result<RecoveryReport> {
    assert!(segments.is_sorted_by(|a, b| a < b), "segments are listed once each, ascending");
    let mut files = Vec::new();
    for &number in segments.iter().filter(|&&number| number >= floor) {
        files.push(Segment::open(vfs, dir, identity, number)?);
    }
    let log = Log { dir, files };
    let mut report = RecoveryReport::empty();
    let Some(mut at) = log.first(floor)? else {
        if log.files.is_empty() {
            return Ok(report);
        }
        // Nothing can be replayed. Spares look like that, and so does a log whose first header did
        // not make it, or was damaged.
        let mut report = log.cut(report, 0, 0, None)?;
        if report.bytes_dropped == 0 {
            report = RecoveryReport::empty();
        }
        return Ok(report);
    };
    loop {
        let segment = &log.files[at];
        let header = segment.header.as_ref().expect("the log is followed from header to header");
        let outcome = segment.replay(header, &mut report, each)?;
        let next = log.successor(at)?;
        if outcome.closed {
            return match next {
                Some((next, _)) => Err(Error::corrupt(
                    &log.files[next].path,
                    0,
                    format!("log segment {} was closed, yet this one has a header", segment.number),
                )),
                None => Ok(report),
            };
        }
        match next {
            Some((_, link)) if outcome.end < link.final_length => {
                return log.cut(report, at, outcome.end, Some(link.final_length));
            }
            Some((next, link)) => {
                outcome.check(segment, &link, report.last_seqno)?;
                at = next;
            }
            None => return log.cut(report, at, outcome.end, outcome.claimed_end),
        }
    }
}

impl RecoveryReport {
    fn empty() -> Self {
        Self {
            segment: None,
            offset: 0,
            bytes_dropped: 0,
            reason: TailReason::Empty,
            records: 0,
            last_seqno: Seqno::ZERO,
            clean_close: false,
            segments: Vec::new(),
        }
    }
}

/// One `.wal` file.
struct Segment {
    number: FileNumber,
    path: PathBuf,
    file: Arc<dyn File>,
    seed: Seed,
    bytes: u64,
    /// `None`: a spare, or a header that did not make it, or was damaged.
    header: Option<SegmentHeader>,
}

/// How the records of one segment ended.
struct Outcome {
    /// Offset after the last valid record.
    end: u64,
    digest: u64,
    closed: bool,
    /// Where the record that is not whole would have ended, if one begins at `end`.
    claimed_end: Option<u64>,
}

impl Outcome {
    /// Compares what was read with what the successor says was written.
    fn check(&self, segment: &Segment, link: &Link, last_seqno: Seqno) -> Result<()> {
        let read = (self.end, self.digest, last_seqno);
        let written = (link.final_length, link.digest, link.last_seqno);
        if read == written {
            return Ok(());
        }
        let what = format!(
            "the records end at {} with sequence number {last_seqno} and digest {:#x}; the next \
             segment says {}, {} and {:#x}",
            self.end, self.digest, link.final_length, link.last_seqno, link.digest
        );
        Err(Error::corrupt(&segment.path, self.end.min(link.final_length), what))
    }
}

impl Segment {
    fn open(
        vfs: &Arc<dyn Vfs>,
        dir: &Path,
        identity: &LogIdentity,
        number: FileNumber,
    ) -> Result<Self> {
        let path = FileKind::Wal(number).path(dir);
        let file = vfs.open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::io("open", &path, e),
        })?;
        // After a failed sync the cache may hold bytes that the disk does not.
        file.drop_cache();
        let bytes = file.len().map_err(|e| Error::io("stat", &path, e))?;
        let mut page = [0; HEADER_BYTES];
        let read = file.read_at(&mut page, 0).map_err(|e| Error::io_at("read", &path, 0, e))?;
        if read < HEADER_BYTES {
            // The length was durable before the file got this name.
            return Err(Error::corrupt(&path, read as u64, "the file ends within its header page"));
        }
        let header = SegmentHeader::decode(&page, &path, identity, number)?;
        if let Some(header) = header.filter(|header| header.bytes != bytes) {
            let what = format!("the file has {bytes} bytes, its header says {}", header.bytes);
            return Err(Error::corrupt(&path, bytes.min(header.bytes), what));
        }
        let seed = Seed::new(identity, number);
        Ok(Self { number, path, file, seed, bytes, header })
    }

    fn window(&self) -> Window {
        let first_seqno = self.header.as_ref().map(|header| header.first_seqno);
        Window::new(self.file.clone(), &self.path, self.bytes, self.seed, first_seqno)
    }

    fn link(&self) -> Option<Link> {
        match self.header?.predecessor {
            Predecessor::Follows(link) => Some(link),
            Predecessor::Barrier => None,
        }
    }

    /// Hands out the records up to the first offset where none stands.
    fn replay(
        &self,
        header: &SegmentHeader,
        report: &mut RecoveryReport,
        each: &mut dyn FnMut(Seqno, &[u8]) -> Result<()>,
    ) -> Result<Outcome> {
        let corrupt = |offset, what: String| Error::corrupt(&self.path, offset, what);
        let mut next_seqno = header.first_seqno;
        if next_seqno <= report.last_seqno {
            let what = format!(
                "the segment begins with sequence number {next_seqno}, after {}",
                report.last_seqno
            );
            return Err(corrupt(64, what));
        }
        let mut window = self.window();
        let mut offset = HEADER_BYTES as u64;
        let mut outcome =
            Outcome { end: offset, digest: DIGEST_START, closed: false, claimed_end: None };
        while !outcome.closed {
            let (record, crc, end) = match window.find(offset)? {
                Found::Record { header, crc, end } => (header, crc, end),
                Found::Broken { claimed_end, .. } => {
                    outcome.claimed_end = Some(claimed_end);
                    break;
                }
                Found::Nothing => break,
            };
            if record.flags != 0 {
                let what = format!("the record at {offset} has unknown flags {:#x}", record.flags);
                return Err(Error::Unsupported { path: self.path.clone(), what });
            }
            if record.synced_to > offset {
                return Err(corrupt(offset, format!("a record vouches for {}", record.synced_to)));
            }
            let first = record.first_seqno;
            match record.kind {
                kind::BATCH => {
                    if first != next_seqno {
                        let what =
                            format!("a record has sequence number {first}, expected {next_seqno}");
                        return Err(corrupt(offset, what));
                    }
                    let payload = window.payload(offset, &record)?;
                    let mut operations = Operations::new(payload);
                    let count = operations.by_ref().count() as u64;
                    if let Some(at) = operations.malformed_at() {
                        let what = format!("a batch is malformed {at} bytes after its header");
                        return Err(corrupt(offset, what));
                    }
                    if count == 0 || first.0 >= Seqno::MAX.0 - count {
                        let what = format!("a batch of {count} operations begins with {first}");
                        return Err(corrupt(offset, what));
                    }
                    each(first, payload)?;
                    next_seqno = Seqno(first.0 + count);
                    report.records += 1;
                }
                kind::VOUCH | kind::CLOSE_MARK => {
                    if first < next_seqno || first > Seqno::MAX || record.len != 0 {
                        let what =
                            format!("a mark has sequence number {first}, expected {next_seqno}");
                        return Err(corrupt(offset, what));
                    }
                    next_seqno = first;
                    outcome.closed = record.kind == kind::CLOSE_MARK;
                }
                unknown => {
                    let what = format!("the record at {offset} has unknown type {unknown}");
                    return Err(Error::Unsupported { path: self.path.clone(), what });
                }
            }
            outcome.digest = record::roll(outcome.digest, crc);
            outcome.end = end;
            offset = end;
        }
        let last_seqno = Seqno(next_seqno.0 - 1);
        report.segment = Some(self.number);
        report.offset = outcome.end;
        report.reason = if outcome.closed { TailReason::Closed } else { TailReason::End };
        report.clean_close = outcome.closed;
        report.last_seqno = last_seqno;
        report.segments.push(SealedSegment {
            number: self.number,
            path: self.path.clone(),
            first_seqno: header.first_seqno,
            last_seqno,
            bytes: self.bytes,
        });
        Ok(outcome)
    }
}

/// All segments at or above the floor.
struct Log<'a> {
    dir: &'a Path,
    files: Vec<Segment>,
}

impl Log<'_> {
    /// Checks that the segment a header names is there, with or without a header of its own: its
    /// name was durable before it was used.
    fn linked(&self, number: FileNumber) -> Result<()> {
        if self.files.iter().any(|segment| segment.number == number) {
            return Ok(());
        }
        Err(Error::Missing { path: FileKind::Wal(number).path(self.dir) })
    }

    /// Where the log begins. `None`: nowhere, because no segment has a header, or because the oldest
    /// header continues a segment that is needed but has none.
    fn first(&self, floor: FileNumber) -> Result<Option<usize>> {
        let Some(first) = self.files.iter().position(|segment| segment.header.is_some()) else {
            return Ok(None);
        };
        match self.files[first].link() {
            Some(link) if link.number >= floor => self.linked(link.number).map(|()| None),
            _ => Ok(Some(first)),
        }
    }

    /// The segment that continues the one at index `at`, with what its header says about that one.
    /// `None`: no header continues it, perhaps because the one that should never reached the disk.
    fn successor(&self, at: usize) -> Result<Option<(usize, Link)>> {
        let later = at + 1..self.files.len();
        let Some(next) = later.into_iter().find(|&next| self.files[next].header.is_some()) else {
            return Ok(None);
        };
        let number = self.files[at].number;
        let segment = &self.files[next];
        let Some(link) = segment.link() else {
            let what = "the segment says that the log begins here, but an older one is in use";
            return Err(Error::corrupt(&segment.path, 80, what));
        };
        if link.number < number {
            let what = format!("the segment continues {} instead of {number}", link.number);
            return Err(Error::corrupt(&segment.path, 88, what));
        }
        if link.number == number {
            return Ok(Some((next, link)));
        }
        // The segment in between has no header, so nothing says how this one ended.
        self.linked(link.number).map(|()| None)
    }

    /// Everything from `offset` in segment `at` on is to be cut. Finishes the report, unless
    /// something vouches for what is missing.
    fn cut(
        &self,
        mut report: RecoveryReport,
        at: usize,
        offset: u64,
        claimed_end: Option<u64>,
    ) -> Result<RecoveryReport> {
        let stopped = &self.files[at];
        let mut vouched_by: Option<String> = None;
        let mut dropped = claimed_end.map_or(0, |end| end - offset);
        stopped.window().scan(offset, |found, record, end| {
            dropped = dropped.max(end - offset);
            if record.synced_to > offset {
                vouched_by = Some(format!("the record at {found}"));
            }
            vouched_by.is_none()
        })?;
        for later in &self.files[at + 1..] {
            if vouched_by.is_some() {
                break;
            }
            if let Some(link) = later.link() {
                let vouched = match link.number.cmp(&stopped.number) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => link.synced_length > offset,
                    std::cmp::Ordering::Greater => link.synced_length > 0,
                };
                if vouched {
                    vouched_by = Some(format!("the header of {}", later.path.display()));
                    break;
                }
            }
            later.window().scan(HEADER_BYTES as u64, |found, record, end| {
                dropped += end - found;
                if record.synced_to > 0 {
                    vouched_by = Some(format!("{} at offset {found}", later.path.display()));
                }
                vouched_by.is_none()
            })?;
        }
        if let Some(witness) = vouched_by {
            let what = format!("the log is damaged: {witness} vouches for what was here");
            return Err(Error::corrupt(&stopped.path, offset, what));
        }
        report.segment = Some(stopped.number);
        report.offset = offset;
        report.bytes_dropped = dropped;
        report.reason = if dropped == 0 { TailReason::End } else { TailReason::Torn };
        Ok(report)
    }
}
