//! Sync groups: what the log's syncer writes and syncs while the next group forms.
//!
//! A `SyncGroup` is written first. Then it joins `Unsynced`, which is everything that is written
//! and not yet synced, of any number of groups. Only `Unsynced` can be synced. So a sync covers
//! every segment that any of the groups wrote to.
//!
//! Both own the file handles that they need, so the writer's combining lock is free during their
//! I/O: write and report to the writer, then sync and report to the writer. Nothing here changes
//! the writer.

use super::SealedSegment;
use super::spare::SegmentFile;
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::give_way;
use crate::key::Seqno;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Staged bytes and their place in a segment.
#[derive(Clone, Debug)]
pub(super) struct StagedBytes {
    pub(super) segment: Arc<SegmentFile>,
    pub(super) offset: u64,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// So much of a segment is handed to the disk in one call. In that call nobody else gets the core,
/// if the kernel is not preemptible: of a segment of 64 MiB for some milliseconds.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// A segment to sync.
#[derive(Debug)]
pub(super) struct SyncTarget {
    pub(super) segment: Arc<SegmentFile>,
    /// A sync makes durable what is before `upto`. Earlier groups covered what is before `from`.
    pub(super) from: u64,
    pub(super) upto: u64,
}

/// Everything that was appended between two calls of `LogWriter::take_group`.
///
/// Groups must be written in the order in which they were taken, and added to `Unsynced` in that
/// order.
pub struct SyncGroup {
    pub(super) id: u64,
    pub(super) runs: Vec<StagedBytes>,
    /// Oldest segment first.
    pub(super) targets: Vec<SyncTarget>,
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) upto: Seqno,
}

impl SyncGroup {
    /// The last sequence number at or before the end of the group. It is in the file once `write`
    /// has succeeded.
    pub fn upto(&self) -> Seqno {
        self.upto
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.targets.is_empty()
    }

    /// Did the log leave a segment whose last bytes are in the group?
    pub fn leaves_segment(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The number of staged bytes in the group.
    pub fn staged_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes.len()).sum()
    }

    /// Writes the staged bytes to their files: one system call, or one per segment after a
    /// rotation. After success and `LogWriter::written`, everything in the group survives the death
    /// of the process. It may be repeated: it writes the same bytes to the same places. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// `Io`, naming file and offset.
    pub fn write(&self) -> Result<()> {
        for run in &self.runs {
            let segment = &run.segment;
            segment
                .file
                .write_all_at(&run.bytes, run.offset)
                .map_err(|e| Error::io_at("write", &segment.path, run.offset, e))?;
        }
        Ok(())
    }
}

impl fmt::Debug for SyncGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncGroup")
            .field("id", &self.id)
            .field("upto", &self.upto)
            .field("staged_bytes", &self.staged_bytes())
            .field("segments", &self.targets.len())
            .finish_non_exhaustive()
    }
}

/// Everything that is written and not yet synced, of one group or of several.
#[derive(Default)]
pub struct Unsynced {
    pub(super) groups: Range<u64>,
    /// Oldest segment first. All but the last one are sealed; the last one may be.
    pub(super) targets: Vec<SyncTarget>,
    sealed: Vec<SealedSegment>,
    upto: Seqno,
}

impl Unsynced {
    /// Adds a written group and frees its bytes.
    ///
    /// # Panics
    /// If the group is not the next one in the order in which groups were taken.
    pub fn add(&mut self, group: SyncGroup) {
        self.upto = group.upto;
        if group.is_empty() {
            return;
        }
        if self.groups.is_empty() {
            self.groups = group.id..group.id;
        }
        assert!(self.groups.end == group.id, "groups are written in the order they were taken");
        self.groups.end += 1;
        for target in group.targets {
            match self.targets.last_mut() {
                // INVARIANT(sync-covers-segments): a segment stays a target until it is synced.
                Some(last) if Arc::ptr_eq(&last.segment, &target.segment) => {
                    last.upto = target.upto;
                }
                _ => self.targets.push(target),
            }
        }
        self.sealed.extend(group.sealed);
    }

    /// The last sequence number at or before its end. It is durable once `sync` has succeeded.
    pub fn upto(&self) -> Seqno {
        self.upto
    }

    /// Takes out the sealed segments below `floor`, oldest first, and unmaps them. No sync is to
    /// cover them: what they hold is durable in tables, and the durable manifest says that no
    /// recovery needs them. INVARIANT(sync-covers-segments): they are the oldest.
    pub fn give_up_below(&mut self, floor: FileNumber) -> Vec<SealedSegment> {
        let below = self.sealed.partition_point(|segment| segment.number < floor);
        // The sealed segments are the first targets.
        self.targets.drain(..below);
        self.sealed.drain(..below).collect()
    }

    /// Is there nothing to sync?
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The segments that were sealed in these groups. They are complete once `sync` has succeeded.
    pub fn sealed(&self) -> &[SealedSegment] {
        &self.sealed
    }

    /// Makes everything in it durable, older segments before newer ones. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`, naming the file. Every failure is final, even a full disk. A failed sync must not be
    /// repeated on the same handle, because nobody knows what is on the disk. Nothing newer may be
    /// synced after it.
    pub fn sync(&self) -> Result<()> {
        // The order matters: once a segment is synced, its records confirm every older segment.
        for (index, target) in self.targets.iter().enumerate() {
            let segment = &target.segment;
            if let Some(mapping) = &segment.mapping {
                // Sealed segments come first in `targets`, and nothing is stored to them any more.
                let is_sealed = index < self.sealed.len();
                let upto = if is_sealed { segment.bytes } else { target.upto };
                mapping.before_sync(target.from as usize, upto as usize);
            }
            begin_writing(target);
            segment.file.sync_data().map_err(|e| Error::io("sync", &segment.path, e))?;
            if let Some(mapping) = &segment.mapping {
                mapping.after_sync(target.upto as usize);
            }
        }
        Ok(())
    }
}

/// Has the disk begin with what the sync will wait for, a piece at a time, if it is much.
fn begin_writing(target: &SyncTarget) {
    let SyncTarget { segment, from, upto } = target;
    let mut at = *from;
    while upto.saturating_sub(at) > WRITE_BACK_BYTES {
        // Only a hint: if it fails, the sync fails as well, and that error counts.
        let _ = segment.file.write_back(at, WRITE_BACK_BYTES);
        at += WRITE_BACK_BYTES;
        give_way::now_and_then();
    }
}

impl From<SyncGroup> for Unsynced {
    fn from(written: SyncGroup) -> Self {
        let mut unsynced = Self::default();
        unsynced.add(written);
        unsynced
    }
}

impl fmt::Debug for Unsynced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsynced")
            .field("groups", &self.groups)
            .field("upto", &self.upto)
            .field("segments", &self.targets.len())
            .finish_non_exhaustive()
    }
}
