//! Finds everything that is wrong with the log, not only what `replay` would stop at.
//!
//! It is used by `verify`. It reads every segment from end to end, continues after each piece of
//! damage, and judges it as `replay` does. It changes nothing.

use super::reader::{LogFiles, ReplayReport, Stray};
use super::record::kind;
use super::segment::{RECORDS_AT, Segment};
use super::window::FoundFrame;
use super::{KnownLog, LogIdentity, LogItem};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::key::Seqno;
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;

/// After this many pieces of damage, the rest of a segment is skipped.
const HOLES_MAX: usize = 100;

/// Calls `found` for everything that is wrong with the log in `dir`, and `each` for what a replay
/// would pass on. What `each` returns as an error is wrong too. If nothing is, returns the report
/// of a replay. Blocks on the disk.
pub fn survey(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    identity: &LogIdentity,
    known: &KnownLog,
    segments: &[FileNumber],
    each: &mut dyn FnMut(LogItem<'_>) -> Result<()>,
    found: &mut dyn FnMut(Error),
) -> Option<ReplayReport> {
    let mut told = Vec::new();
    let mut tell = |error: Error| {
        let text = error.to_string();
        if !told.contains(&text) {
            told.push(text);
            found(error);
        }
    };
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    for &number in segments.iter().filter(|&&number| number >= known.floor) {
        // What the disk has is surveyed. After a failed sync the page cache may have more, in pages
        // that are clean.
        if let Ok(file) = vfs.open(&FileKind::Wal(number).path(dir)) {
            file.drop_cache();
        }
        match Segment::look(vfs, dir, identity, number) {
            Ok(segment) => files.push(segment),
            Err(error) => {
                unreadable.push(number);
                tell(error);
            }
        }
    }
    let log = LogFiles { dir, known, files, unreadable };
    let whole = log.check_present().and_then(|()| {
        log.check_names(identity)?;
        let report = log.finish(log.follow(each)?, &mut |at| Stray::look(&log.files[at]))?;
        log.check_end(&report)?;
        Ok(report)
    });
    match whole {
        Ok(report) if log.unreadable.is_empty() => return Some(report),
        Ok(_) => {}
        Err(error) => tell(error),
    }
    for at in 0..log.files.len() {
        inspect(&log, at, &mut tell);
    }
    None
}

/// Checks one segment, and what it and its neighbours say about each other.
fn inspect(log: &LogFiles<'_>, at: usize, tell: &mut dyn FnMut(Error)) {
    let segment = &log.files[at];
    let lost = |offset, claimed_end, tell: &mut dyn FnMut(Error)| {
        let stray = &mut |at: usize| Stray::look(&log.files[at]);
        if let Err(error) = log.cut(ReplayReport::empty(), at, offset, claimed_end, stray) {
            tell(error);
        }
    };
    let Some(begin) = &segment.begin else {
        return lost(RECORDS_AT, None, tell);
    };
    if let Some(link) = segment.link()
        && link.number >= log.known.floor
        && let Err(error) = log.present(link.number)
    {
        tell(error);
    }
    let mut window = match segment.window() {
        Ok(window) => window,
        Err(error) => return tell(error),
    };
    let (mut offset, mut next_seqno, mut holes) = (RECORDS_AT, begin.first_seqno, 0);
    loop {
        let record = match window.find(offset) {
            Ok(FoundFrame::Record { header, end, .. }) => Some((header, end)),
            Ok(_) => None,
            Err(error) => return tell(error),
        };
        let Some((record, end)) = record else {
            holes += 1;
            lost(offset, None, tell);
            let mut behind = None;
            let scanned = segment.window().and_then(|mut window| {
                window.scan(offset, |at, header, _| {
                    behind = Some((at, header.first_seqno));
                    false
                })
            });
            match (scanned, behind) {
                (Ok(()), Some((found, first_seqno))) if holes < HOLES_MAX => {
                    (offset, next_seqno) = (found, first_seqno);
                    continue;
                }
                (Err(error), _) => return tell(error),
                _ => return,
            }
        };
        match segment.check_record(&mut window, offset, &record, next_seqno) {
            Ok(numbers) => next_seqno = Seqno(next_seqno.0 + numbers),
            Err(error) => {
                tell(error);
                holes += 1;
                if holes == HOLES_MAX {
                    return;
                }
                // The next record says which number is next.
                match window.find(end) {
                    Ok(FoundFrame::Record { header, .. }) => next_seqno = header.first_seqno,
                    _ => return lost(end, None, tell),
                }
            }
        }
        if record.kind == kind::CLOSE_MARK {
            return;
        }
        if record.kind == kind::CONTINUED {
            if let Ok(Some(next)) = segment.read_continued(&mut window, offset, &record)
                && let Err(error) = log.present(next)
            {
                tell(error);
            }
            return;
        }
        offset = end;
    }
}
