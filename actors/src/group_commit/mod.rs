//! Group commit: one write and one sync answer everybody whose record was appended before they
//! began.
//!
//! `Durable` knows who waits for what, and how far the log is. `GroupCommit` is the log thread's
//! part: it takes what was appended, writes it, and decides what must be synced. Between any two of
//! its steps others append and rotate, so it never relies on what it saw under the seat before.
//!
//! Guarantees: whoever is answered is in the file (`Buffered`) or synced (`Synced`), with
//! everything before. A segment that was left is synced with the group that holds its last bytes,
//! whichever group that is (INVARIANT(sync-covers-segments)). Does not: wait, answer, or start a
//! thread; `log_syncer` does.

pub mod durable;

#[cfg(all(test, not(loom)))]
mod tests;

use crate::failure::Failure;
use durable::{DueReplies, Durable};
use sluicedb_storage::wal::{LogWriter, SealedSegment, SyncGroup, Unsynced};

/// The log behind its seat. An engine thread enters the seat.
pub trait LogSeat {
    /// Runs `f` on the log.
    ///
    /// # Errors
    /// When the seat has failed.
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure>;
}

/// The groups that the log thread holds; see the module.
#[derive(Debug)]
pub struct GroupCommit<'a, L> {
    log: &'a L,
    durable: &'a Durable,
    /// Taken and not yet written.
    taken: Option<SyncGroup>,
    unsynced: Unsynced,
    sync_wanted: bool,
    /// Was somebody told that his write waits for the disk, and does he no longer wait for it? Then
    /// nothing else says that what was appended must be written.
    owed: bool,
}

impl<'a, L: LogSeat> GroupCommit<'a, L> {
    /// A group commit that has taken nothing so far.
    pub fn new(log: &'a L, durable: &'a Durable) -> Self {
        let unsynced = Unsynced::default();
        Self { log, durable, taken: None, unsynced, sync_wanted: false, owed: false }
    }

    /// Takes what was appended, if there is something to do. Call `write` next if it returns true.
    ///
    /// There is something to do if somebody waits, if something is owed, or if a segment was left.
    /// Otherwise, if no record in the log says that its end is durable, a watermark that does is
    /// appended and taken, so that damage to the end can be told from a torn tail. The watermark is
    /// written and not synced: it is not worth a disk flush of its own.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn take_due(&mut self) -> Result<bool, Failure> {
        let (sync_wanted, write_wanted) = self.durable.wanted();
        let sync_wanted = sync_wanted || std::mem::take(&mut self.owed);
        let taken = self.log.with_writer(|log| {
            if sync_wanted || write_wanted || log.has_sealed() {
                return Some(log.take_group());
            }
            let confirmed = log.wants_watermark() && log.append_watermark();
            confirmed.then(|| log.take_group())
        })?;
        self.sync_wanted |= sync_wanted;
        self.taken = taken;
        Ok(self.taken.is_some())
    }

    /// Those who wait are told that their writes come later. The next `take_due` takes everything
    /// that was appended, and it is synced, although nobody waits for it any more.
    pub fn owe(&mut self) {
        self.owed = true;
    }

    /// Takes what was appended. It must be synced even if nobody waits.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn take_all(&mut self) -> Result<(), Failure> {
        self.sync_wanted = true;
        self.taken = Some(self.log.with_writer(LogWriter::take_group)?);
        Ok(())
    }

    /// Writes the group that was taken. Returns the replies that waited for the write.
    ///
    /// # Errors
    /// When the group cannot be written. Call it again to write the same bytes to the same places.
    pub fn write(&mut self) -> Result<DueReplies, Failure> {
        if let Some(group) = &self.taken {
            group.write()?;
            self.log.with_writer(|log| log.written(group))?;
        }
        let Some(group) = self.taken.take() else { return Ok(DueReplies::new()) };
        let upto = group.upto();
        self.unsynced.add(group);
        Ok(self.durable.raise_written(upto))
    }

    /// Must what was written be synced now? This is the only place that decides it: yes if somebody
    /// waits, and yes if a segment was left, because only synced segments can become obsolete.
    pub fn must_sync(&self) -> bool {
        self.sync_wanted || self.has_left_segment()
    }

    /// Do the written groups complete a segment?
    pub fn has_left_segment(&self) -> bool {
        !self.unsynced.sealed().is_empty()
    }

    /// Syncs everything that was written. Returns the replies that waited for that. `retire` gets
    /// the complete segments before anybody can learn of the sync.
    ///
    /// # Errors
    /// When the log cannot be synced. This is final, even for a full disk: nobody knows then what
    /// is on the disk, and a second sync may wrongly report success.
    pub fn sync(&mut self, retire: impl FnOnce(&[SealedSegment])) -> Result<DueReplies, Failure> {
        self.unsynced.sync()?;
        let synced = std::mem::take(&mut self.unsynced);
        self.sync_wanted = false;
        self.log.with_writer(|log| log.synced(&synced))?;
        retire(synced.sealed());
        Ok(self.durable.raise_synced(synced.upto()))
    }
}
