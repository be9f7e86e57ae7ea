//! Group commit: one write and one sync answer everybody whose record was appended before they
//! began.
//!
//! `Durable` knows who waits for what, and how far the log is. `GroupCommit` is the log thread's
//! part: it takes what was appended, writes it, and decides what must be synced. Between any two of
//! its steps others append and rotate, so it never relies on what it saw under the seat before.
//!
//! Guarantees: whoever is answered is in the file (`Buffered`) or synced (`Synced`), with
//! everything before. A sync covers every segment that was left since the last one, whichever group
//! holds its last bytes (INVARIANT(sync-covers-segments)). Does not: wait, answer, or start a
//! thread; `log_syncer` does.
//!
//! Nobody needs a segment that was left to be synced, unless somebody asks for a sync. Soon a flush
//! makes what it holds durable in tables; then it is given up, and the disk never sees it. So the
//! sync is *put off* while nobody asks for one, up to a limit: the pages are dirty until then, and
//! a kernel that has many dirty pages slows down whoever makes more.

pub mod durable;

#[cfg(all(test, not(loom)))]
mod tests;

use crate::failure::Failure;
use durable::{DueReplies, Durable};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::wal::{LogWriter, SealedSegment, SyncGroup, Unsynced};

/// Syncs are put off for at most so many segments: each has an open file.
const PUT_OFF_MAX: usize = 16;

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
    /// Was a sync wanted since the log last left a segment?
    sync_was_wanted: bool,
    /// Was none wanted from one segment's end to the next?
    is_calm: bool,
    /// Was somebody told that his write waits for the disk, and does he no longer wait for it? Then
    /// nothing else says that what was appended must be written.
    owed: bool,
}

impl<'a, L: LogSeat> GroupCommit<'a, L> {
    /// A group commit that has taken nothing so far.
    pub fn new(log: &'a L, durable: &'a Durable) -> Self {
        Self {
            log,
            durable,
            taken: None,
            unsynced: Unsynced::default(),
            sync_wanted: false,
            sync_was_wanted: true,
            is_calm: false,
            owed: false,
        }
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
        self.want_sync(sync_wanted);
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
        self.want_sync(true);
        self.taken = Some(self.log.with_writer(LogWriter::take_group)?);
        Ok(())
    }

    fn want_sync(&mut self, wanted: bool) {
        self.sync_wanted |= wanted;
        self.sync_was_wanted |= wanted;
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
        if group.leaves_segment() {
            self.is_calm = !std::mem::take(&mut self.sync_was_wanted);
        }
        let upto = group.upto();
        self.unsynced.add(group);
        Ok(self.durable.raise_written(upto))
    }

    /// Must what was written be synced now? This is the only place that decides it: yes if somebody
    /// waits, and yes if segments were left whose sync is not put off. It is put off for at most
    /// this many bytes of segments.
    pub fn must_sync(&self, put_off_bytes_max: u64) -> bool {
        let left = self.unsynced.sealed();
        let bytes = left.iter().map(|segment| segment.bytes).sum::<u64>();
        let calm = self.is_calm && bytes <= put_off_bytes_max && left.len() <= PUT_OFF_MAX;
        self.sync_wanted || !left.is_empty() && !calm
    }

    /// Gives up the segments below `floor` whose sync was put off: the durable manifest says that
    /// no recovery needs them. So what they hold is durable. Returns the replies that waited for
    /// that. `retire` gets the segments before anybody can learn of it.
    pub fn give_up_below(
        &mut self,
        floor: FileNumber,
        retire: impl FnOnce(&[SealedSegment]),
    ) -> DueReplies {
        let given_up = self.unsynced.give_up_below(floor);
        let Some(last) = given_up.last() else { return DueReplies::new() };
        retire(&given_up);
        self.durable.raise_synced(last.last_seqno)
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
