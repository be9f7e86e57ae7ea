//! Group commit: one write and one sync answer everybody who was appended before they began.
//!
//! `Durable` knows who waits for what, and how far the log is. `GroupCommit` is the log thread's
//! part: it takes what was appended, writes it, and decides what has to be synced. Between any two
//! of its steps others append and rotate; it relies on nothing that it saw under the seat before.
//!
//! Guarantees: who is answered is in the file (`Buffered`) or synced (`Synced`), with everything
//! before it; a segment that was left is synced with the group that has its last bytes, whoever
//! took that (INVARIANT(sync-covers-segments)). Does not: wait, answer, or start a thread;
//! `log_syncer` does.

pub mod durable;

#[cfg(all(test, not(loom)))]
mod tests;

use crate::failure::Failure;
use durable::{DueReplies, Durable};
use sluicedb_storage::wal::{LogWriter, SealedSegment, SyncGroup, Unsynced};

/// The log behind its seat, as an engine thread enters it.
pub trait LogSeat {
    /// Runs `f` on the log.
    ///
    /// # Errors
    /// When the seat has failed.
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure>;
}

/// What the log thread holds: see the module.
#[derive(Debug)]
pub struct GroupCommit<'a, L> {
    log: &'a L,
    durable: &'a Durable,
    /// Taken, and not written.
    taken: Option<SyncGroup>,
    unsynced: Unsynced,
    sync_wanted: bool,
}

impl<'a, L: LogSeat> GroupCommit<'a, L> {
    /// Nothing was taken so far.
    pub fn new(log: &'a L, durable: &'a Durable) -> Self {
        Self { log, durable, taken: None, unsynced: Unsynced::default(), sync_wanted: false }
    }

    /// Takes what was appended, if there is something to do; `write` comes next then.
    ///
    /// There is if somebody waits, or if a segment was left. Else, if nothing in the log says that
    /// its end is durable, a record that does is appended and taken, so that damage to the end is
    /// told from a torn one. It is written and not synced: it is worth no disk flush of its own.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn take_due(&mut self) -> Result<bool, Failure> {
        let (sync_wanted, write_wanted) = self.durable.wanted();
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

    /// Takes what was appended, to be synced whoever waits.
    ///
    /// # Errors
    /// When the seat has failed.
    pub fn take_all(&mut self) -> Result<(), Failure> {
        self.sync_wanted = true;
        self.taken = Some(self.log.with_writer(LogWriter::take_group)?);
        Ok(())
    }

    /// Writes what was taken; returns who waited for that.
    ///
    /// # Errors
    /// When it cannot be written. It may be called again then, and writes the same bytes to the
    /// same places.
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

    /// Does what was written have to be synced now? The one place that decides it: if somebody
    /// waits, and if a segment was left, because only what is synced can become obsolete.
    pub fn must_sync(&self) -> bool {
        self.sync_wanted || self.has_left_segment()
    }

    /// Is a segment complete with what was written?
    pub fn has_left_segment(&self) -> bool {
        !self.unsynced.sealed().is_empty()
    }

    /// Syncs everything that was written; returns who waited for that. Before anybody can learn of
    /// it, `retire` is told the segments that are complete.
    ///
    /// # Errors
    /// When it cannot be synced. Final, a full disk included: nobody knows what is on the disk
    /// then, and asking again would be answered wrongly.
    pub fn sync(&mut self, retire: impl FnOnce(&[SealedSegment])) -> Result<DueReplies, Failure> {
        self.unsynced.sync()?;
        let synced = std::mem::take(&mut self.unsynced);
        self.sync_wanted = false;
        self.log.with_writer(|log| log.synced(&synced))?;
        retire(synced.sealed());
        Ok(self.durable.raise_synced(synced.upto()))
    }
}
