//! Sync groups: what the log's syncer writes and syncs while the next group forms.
//!
//! A `SyncGroup` is written first. Then it joins `Unsynced`, which is all that was written and is
//! not synced yet, of however many groups. Only `Unsynced` can be synced. So a sync covers every
//! segment that any of the groups wrote to.
//!
//! Both own the file handles that they need, so the writer's seat is free while they work: write,
//! tell the writer; sync, tell the writer. Nothing here changes the writer.

use super::SealedSegment;
use super::spare::SegmentFile;
use crate::error::{Error, Result};
use crate::key::Seqno;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Staged bytes and where they belong.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) segment: Arc<SegmentFile>,
    pub(super) offset: u64,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// A segment to sync.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) segment: Arc<SegmentFile>,
    /// What the sync makes durable: everything before `upto`, of which earlier groups had what is
    /// before `from`.
    pub(super) from: u64,
    pub(super) upto: u64,
}

/// Everything that was appended before `LogWriter::take_group` and had not been taken yet.
///
/// Groups are written in the order they were taken, and then added to `Unsynced` in that order.
pub struct SyncGroup {
    pub(super) id: u64,
    pub(super) runs: Vec<Run>,
    /// Oldest segment first.
    pub(super) targets: Vec<Target>,
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) upto: Seqno,
}

impl SyncGroup {
    /// The last sequence number at or before the end of the group: in the file once `write`
    /// succeeded.
    pub fn upto(&self) -> Seqno {
        self.upto
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.targets.is_empty()
    }

    /// Staged bytes in it.
    pub fn staged_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes.len()).sum()
    }

    /// Writes the staged bytes into their files: one system call, or one per segment after a
    /// rotation. After success, and `LogWriter::written`, everything in the group survives the
    /// death of the process. Repeatable: it writes the same bytes to the same places.
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

/// Everything that was written and is not synced yet, of one group or of several.
#[derive(Default)]
pub struct Unsynced {
    pub(super) groups: Range<u64>,
    /// Oldest segment first; all but the last one are sealed, the last one may be.
    pub(super) targets: Vec<Target>,
    sealed: Vec<SealedSegment>,
    upto: Seqno,
}

impl Unsynced {
    /// Adds a group that was written, and frees its bytes.
    ///
    /// # Panics
    /// When it is not the one that was taken after the last one added.
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

    /// The last sequence number at or before the end of it: durable once `sync` succeeded.
    pub fn upto(&self) -> Seqno {
        self.upto
    }

    /// Is there nothing to sync?
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The segments that got their last byte in it; they are complete once it is synced.
    pub fn sealed(&self) -> &[SealedSegment] {
        &self.sealed
    }

    /// Makes all of it durable, older segments before newer ones.
    ///
    /// # Errors
    /// `Io`, naming the file. Final, whatever the cause, a full disk included: a failed sync must
    /// not be repeated on the same handle, for nobody knows what is on the disk, and nothing newer
    /// may be synced after it.
    pub fn sync(&self) -> Result<()> {
        // Order matters: a record confirms every older segment once its own is synced.
        for (index, target) in self.targets.iter().enumerate() {
            let segment = &target.segment;
            if let Some(mapping) = &segment.mapping {
                // The sealed segments come first, and nothing of them is stored to again.
                let is_sealed = index < self.sealed.len();
                let upto = if is_sealed { segment.bytes } else { target.upto };
                mapping.before_sync(target.from as usize, upto as usize);
            }
            segment.file.sync_data().map_err(|e| Error::io("sync", &segment.path, e))?;
            if let Some(mapping) = &segment.mapping {
                mapping.after_sync(target.upto as usize);
            }
        }
        Ok(())
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
