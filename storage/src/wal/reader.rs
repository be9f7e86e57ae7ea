//! Replays the log: every record in order, up to the point where an unclean stop tore it. Damage is
//! an error that names the file and the offset.
//!
//! Guarantees:
//! * The replayed records are a prefix of the appended ones.
//! * Nothing that a later record confirms is cut silently.
//! * A missing file with acknowledged records is noticed.
//! * Nothing on the disk is changed, whatever is found.
//!
//! Torn or damaged? Suppose the records stop at offset `s` of segment `k`. Something later may
//! *confirm* what should have followed:
//! * a valid record behind `s` whose `synced_to` is above `s`;
//! * a later begin record that knew `k` to be durable beyond `s`;
//! * any record of a later segment with a `synced_to` above 0, because an older segment is always
//!   synced first.
//!
//! A later begin record alone proves nothing: the operating system may have written it back before
//! the end of its predecessor. What is confirmed and missing is corruption. Otherwise it is the
//! torn tail, and everything from `s` on is cut, later segments included.
//!
//! Not here: what to do with the records, and which segments are obsolete.

use super::segment::{RECORDS_AT, Segment};
use super::{KnownLog, Link, LogIdentity, SealedSegment};
use crate::change::ChangeId;
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::side_by_side::{Piece, SideBySide};
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;

/// A record of the log that takes sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogItem<'a> {
    /// A batch.
    Batch {
        /// The sequence number of its first operation; the others follow.
        first: Seqno,
        /// The encoded operations. They are checked to be well-formed.
        payload: &'a [u8],
    },
    /// A change took effect between the batches around it. The manifest describes it.
    Change {
        /// Its sequence number.
        seqno: Seqno,
        /// Its id, unchecked: it may be any number, and may occur more than once. The manifest
        /// says which can be.
        id: ChangeId,
    },
}

/// Why the replay stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailReason {
    /// There was nothing to replay.
    Empty,
    /// The log was closed cleanly.
    Closed,
    /// Unused space follows the last record: the process stopped without closing the log.
    End,
    /// An incomplete record follows, or valid records follow beyond a hole. They were never
    /// confirmed, and are cut.
    Torn,
}

/// The result of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// The segment in which the replay stopped; `None` if nothing was replayed.
    pub segment: Option<FileNumber>,
    /// The offset in that segment.
    pub offset: u64,
    /// Bytes of incomplete or unreachable records that are cut, as far as they can be recognised.
    pub bytes_dropped: u64,
    /// Why the replay stopped there.
    pub reason: TailReason,
    /// The number of batches and changes that were replayed.
    pub records: u64,
    /// The last sequence number that the log knows to be stamped; 0 if there is none.
    pub last_seqno: Seqno,
    /// Was the log closed cleanly?
    pub clean_close: bool,
    /// The segments that were replayed, oldest first; the last one perhaps only in part.
    pub segments: Vec<SealedSegment>,
}

/// Calls `each` for every batch and every change of the log in `dir`, in order.
///
/// `segments` are the numbers of all `.wal` files there, ascending. Those below `known.floor` are
/// ignored. Blocks on the disk: reads at its speed, in pieces of 1 MiB.
///
/// Segments without a first record are looked through `side_by_side` with the records. Usually they
/// are spares, and may be longer than the log: they have to be read, because one of their records
/// could confirm what is torn. One file is open for each piece that runs.
///
/// # Errors
/// `Corrupt`, `Missing` or `Unsupported`, naming the file and offset, for anything but a torn tail;
/// `Io`; and whatever `each` returns. Discard everything that was passed to `each` before an error.
pub fn replay(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    known: &KnownLog,
    segments: &[FileNumber],
    side_by_side: &dyn SideBySide,
    each: &mut (dyn FnMut(LogItem<'_>) -> Result<()> + Send),
) -> Result<ReplayReport> {
    assert!(segments.is_sorted_by(|a, b| a < b), "segments are listed once each, ascending");
    let mut files = Vec::new();
    for &number in segments.iter().filter(|&&number| number >= known.floor) {
        files.push(Segment::look(vfs, dir, identity, number)?);
    }
    let log = LogFiles { dir, known, files, unreadable: Vec::new() };
    log.check_present()?;
    log.check_names(identity)?;
    let mut followed = None;
    let mut strays: Vec<_> = log.files.iter().map(|_| None).collect();
    let follow: Piece<'_> = Box::new(|| followed = Some(log.follow(each)));
    let unused = log.files.iter().zip(&mut strays).filter(|(file, _)| file.begin.is_none());
    let look = unused
        .map(|(file, stray)| -> Piece<'_> { Box::new(move || *stray = Some(Stray::look(file))) });
    side_by_side.run(std::iter::once(follow).chain(look).collect());
    let followed = followed.expect("every piece has run")?;
    let mut stray = |at: usize| strays[at].take().unwrap_or_else(|| Stray::look(&log.files[at]));
    let report = log.finish(followed, &mut stray)?;
    log.check_end(&report)?;
    Ok(report)
}

/// What the chain of segments ends with.
pub(super) enum Followed {
    /// The close mark, or there is no log.
    End(ReplayReport),
    /// A record that is missing, at `offset` of the file at index `at`. What is there may claim to
    /// end at `claimed_end`.
    Cut { report: ReplayReport, at: usize, offset: u64, claimed_end: Option<u64> },
}

/// The records of a segment to which no chain leads.
pub(super) struct Stray {
    bytes: u64,
    /// The first of them before which something was durable.
    confirms_at: Option<u64>,
}

impl Stray {
    pub(super) fn look(segment: &Segment) -> Result<Self> {
        let mut stray = Self { bytes: 0, confirms_at: None };
        segment.window()?.scan(RECORDS_AT, |found, record, end| {
            stray.bytes += end - found;
            if record.synced_to > 0 {
                stray.confirms_at = Some(found);
            }
            stray.confirms_at.is_none()
        })?;
        Ok(stray)
    }
}

impl ReplayReport {
    pub(super) fn empty() -> Self {
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

/// All segments at or above the floor.
pub(super) struct LogFiles<'a> {
    pub(super) dir: &'a Path,
    pub(super) known: &'a KnownLog,
    pub(super) files: Vec<Segment>,
    /// Segments that exist but cannot be read. Only `survey` continues with these.
    pub(super) unreadable: Vec<FileNumber>,
}

impl LogFiles<'_> {
    /// INVARIANT(no-log-file-missing): the newest segment that the manifest names must exist.
    pub(super) fn check_present(&self) -> Result<()> {
        self.known.newest.map_or(Ok(()), |newest| self.present(newest))
    }

    /// Checks that no segment without a beginning has that of another one without it: somebody
    /// exchanged them. A recycled segment may have an old one, but that number is below the floor.
    pub(super) fn check_names(&self, identity: &LogIdentity) -> Result<()> {
        let unbegun = || self.files.iter().filter(|file| file.begin.is_none());
        for file in unbegun() {
            let others = unbegun().map(|file| file.number);
            if let Some(other) = file.begins_as(identity, others)? {
                let what = format!("the log segment holds the records of number {other}");
                return Err(Error::corrupt(&file.path, RECORDS_AT, what));
            }
        }
        Ok(())
    }

    /// Passes on the records of the chain, up to the first one that is missing.
    pub(super) fn follow(
        &self,
        each: &mut dyn FnMut(LogItem<'_>) -> Result<()>,
    ) -> Result<Followed> {
        let mut report = ReplayReport::empty();
        let Some(mut at) = self.first()? else {
            if self.files.is_empty() {
                return Ok(Followed::End(report));
            }
            // No segment is used. They may be spares, or their first records may be torn or
            // damaged.
            return Ok(Followed::Cut { report, at: 0, offset: RECORDS_AT, claimed_end: None });
        };
        loop {
            let segment = &self.files[at];
            let begin = segment.begin.as_ref().expect("the log is followed where it begins");
            let outcome = segment.replay(begin, &mut report, each)?;
            let next = self.successor(at)?;
            if outcome.closed {
                let Some((next, _)) = next else { return Ok(Followed::End(report)) };
                let what =
                    format!("log segment {} was closed, yet this one is used", segment.number);
                return Err(Error::corrupt(&self.files[next].path, RECORDS_AT, what));
            }
            // INVARIANT(no-log-file-missing): the successor that a sealed segment names must exist.
            outcome.continued.map_or(Ok(()), |next| self.present(next))?;
            match next {
                Some((_, link)) if outcome.end < link.final_length => {
                    let (offset, claimed_end) = (outcome.end, Some(link.final_length));
                    return Ok(Followed::Cut { report, at, offset, claimed_end });
                }
                Some((next, link)) => {
                    outcome.check(segment, self.files[next].number, &link, report.last_seqno)?;
                    at = next;
                }
                None => {
                    // The segment ended in order, so what is missing is the begin record of the
                    // next one.
                    let next = outcome.continued.and_then(|next| self.index(next));
                    let (at, offset) = next.map_or((at, outcome.end), |next| (next, RECORDS_AT));
                    let claimed_end = outcome.claimed_end;
                    return Ok(Followed::Cut { report, at, offset, claimed_end });
                }
            }
        }
    }

    /// Judges how the chain ends. `stray` looks through the segment at an index.
    ///
    /// # Errors
    /// As `cut`.
    pub(super) fn finish(
        &self,
        followed: Followed,
        stray: &mut dyn FnMut(usize) -> Result<Stray>,
    ) -> Result<ReplayReport> {
        match followed {
            Followed::End(report) => Ok(report),
            Followed::Cut { report, at, offset, claimed_end } => {
                self.cut(report, at, offset, claimed_end, stray)
            }
        }
    }

    /// Checks that a named segment exists, used or not. Its name was durable before any record
    /// could name it.
    pub(super) fn present(&self, number: FileNumber) -> Result<()> {
        match self.index(number) {
            Some(_) => Ok(()),
            None if self.unreadable.contains(&number) => Ok(()),
            None => Err(Error::Missing { path: FileKind::Wal(number).path(self.dir) }),
        }
    }

    fn index(&self, number: FileNumber) -> Option<usize> {
        self.files.binary_search_by_key(&number, |segment| segment.number).ok()
    }

    /// The index of the segment in which the log begins. `None` if no segment is used, or if the
    /// oldest used one continues a segment that is needed but has no begin record.
    fn first(&self) -> Result<Option<usize>> {
        let begun = |segment: &Segment| Some(segment.begin.as_ref()?.first_seqno);
        let first = self.files.iter().enumerate().find_map(|(at, s)| Some((at, begun(s)?)));
        let Some((first, first_seqno)) = first else { return Ok(None) };
        let segment = &self.files[first];
        if let Some(link) = segment.link().filter(|link| link.number >= self.known.floor) {
            return self.present(link.number).map(|()| None);
        }
        // INVARIANT(no-log-file-missing): an edit that sets the floor records all sequence numbers
        // before the floor's first one. So there is no gap between the manifest and the log.
        let last_seqno = self.known.last_seqno;
        if first_seqno.0 > last_seqno.0 + 1 {
            let what = format!(
                "the log begins with sequence number {first_seqno}, the manifest ends at \
                 {last_seqno}: a part of the log is missing, or the manifest is an older one"
            );
            return Err(Error::corrupt(&segment.path, RECORDS_AT, what));
        }
        Ok(Some(first))
    }

    /// The segment that continues the one at index `at`, and its link to it. `None` if there is
    /// none, perhaps because its begin record never reached the disk.
    fn successor(&self, at: usize) -> Result<Option<(usize, Link)>> {
        let later = at + 1..self.files.len();
        let Some(next) = later.into_iter().find(|&next| self.files[next].begin.is_some()) else {
            return Ok(None);
        };
        let number = self.files[at].number;
        let segment = &self.files[next];
        let Some(link) = segment.link() else {
            let what = "the segment says that the log begins here, but an older one is in use";
            return Err(Error::corrupt(&segment.path, RECORDS_AT, what));
        };
        if link.number < number {
            let what = format!("the segment continues {} instead of {number}", link.number);
            return Err(Error::corrupt(&segment.path, RECORDS_AT, what));
        }
        if link.number == number {
            return Ok(Some((next, link)));
        }
        // The segment in between has no begin record, so nothing says how this segment ended.
        self.present(link.number).map(|()| None)
    }

    /// Cuts everything from `offset` of segment `at` on, and finishes the report.
    ///
    /// # Errors
    /// `Corrupt` if something confirms what is missing.
    pub(super) fn cut(
        &self,
        mut report: ReplayReport,
        at: usize,
        offset: u64,
        claimed_end: Option<u64>,
        stray: &mut dyn FnMut(usize) -> Result<Stray>,
    ) -> Result<ReplayReport> {
        let stopped = &self.files[at];
        let mut confirmed_by: Option<String> = None;
        let mut dropped = claimed_end.map_or(0, |end| end.saturating_sub(offset));
        stopped.window()?.scan(offset, |found, record, end| {
            dropped = dropped.max(end - offset);
            if record.synced_to > offset {
                confirmed_by = Some(format!("the record at {found}"));
            }
            confirmed_by.is_none()
        })?;
        for (later, file) in self.files.iter().enumerate().skip(at + 1) {
            if confirmed_by.is_some() {
                break;
            }
            if let Some(link) = file.link() {
                let confirmed = match link.number.cmp(&stopped.number) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => link.synced_length > offset,
                    std::cmp::Ordering::Greater => link.synced_length > 0,
                };
                if confirmed {
                    confirmed_by = Some(format!("the beginning of {}", file.path.display()));
                    break;
                }
            }
            let stray = stray(later)?;
            dropped = dropped.saturating_add(stray.bytes);
            let at = |found| format!("{} at offset {found}", file.path.display());
            confirmed_by = stray.confirms_at.map(at);
        }
        if let Some(witness) = confirmed_by {
            let what = format!("the log is damaged: {witness} confirms what was here");
            return Err(Error::corrupt(&stopped.path, offset, what));
        }
        if dropped == 0 && report.segments.is_empty() {
            return Ok(ReplayReport::empty());
        }
        report.segment = Some(stopped.number);
        report.offset = offset;
        report.bytes_dropped = dropped;
        report.reason = if dropped == 0 { TailReason::End } else { TailReason::Torn };
        Ok(report)
    }

    /// Compares the end of the log with what the manifest knows of it.
    pub(super) fn check_end(&self, report: &ReplayReport) -> Result<()> {
        self.check_begun(report)?;
        self.check_synced(report)?;
        self.check_close(report)
    }

    /// INVARIANT(no-log-file-missing): the beginning of the log was durable before the manifest
    /// named its newest segment. So was that of the floor, unless the manifest says that nothing
    /// from there on was.
    fn check_begun(&self, report: &ReplayReport) -> Result<()> {
        let is_told = self.known.synced.is_some() && self.known.begun;
        let newest = self.known.newest.filter(|_| is_told && report.segments.is_empty());
        let Some(newest) = newest else { return Ok(()) };
        let oldest = self.files.first().map_or(newest, |segment| segment.number);
        let path = FileKind::Wal(oldest).path(self.dir);
        let what = "the log was in use, but it has no beginning: this is an older copy of this \
                    file, or its records were lost; put back the newest copy of it, or a whole \
                    backup, not single files";
        Err(Error::corrupt(&path, RECORDS_AT, what))
    }

    /// INVARIANT(no-log-file-missing): what was durable when the manifest said so is found, or it
    /// is in segments below the floor.
    fn check_synced(&self, report: &ReplayReport) -> Result<()> {
        let (found, wanted) = (report.last_seqno, self.known.synced.unwrap_or_default());
        let stopped = report.segments.last().filter(|_| found < wanted);
        let Some(stopped) = stopped else { return Ok(()) };
        let what = format!(
            "the log ends at sequence number {found}, but the manifest knows that it was \
             synced up to {wanted}: this is an older copy of this file, or its end was lost; put \
             back the newest copy of it, or a whole backup, not single files"
        );
        Err(Error::corrupt(&stopped.path, report.offset, what))
    }

    /// If the manifest says that the database was closed cleanly, the log must have been, too: it
    /// is closed first.
    fn check_close(&self, report: &ReplayReport) -> Result<()> {
        let Some(newest) = self.known.newest.filter(|_| self.known.closed) else { return Ok(()) };
        let (found, wanted) = (report.last_seqno, self.known.last_seqno);
        if report.clean_close && found == wanted {
            return Ok(());
        }
        let path = FileKind::Wal(report.segment.unwrap_or(newest)).path(self.dir);
        let what = format!(
            "the database was closed in order at sequence number {wanted}, but the log has no mark \
             that says so: it ends at {found}"
        );
        Err(Error::corrupt(&path, report.offset.max(RECORDS_AT), what))
    }
}
