//! Makes an idle log small: the keeper gives back what only writers need.
//!
//! After a pause it removes spare segments and those kept for recycling. Once the log is idle, it
//! goes on in a small segment. The large segment that it leaves can then be removed as soon as its
//! contents are in tables; the version manager flushes idle ranges for that. A crash at any point
//! is harmless: an unused segment may stay or go at any time, and the log leaves a segment here as
//! in any rotation.

use super::LogKeeper;
use super::growth::{FIRST_SEGMENT_BYTES, Growth};
use crate::failure::Failure;
use crate::runtime::Environment;
use sluicedb_kernel::reply::reply;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::wal::{
    LogIdentity, SealedSegment, Spare, allocate_spare, discard, remove, segment_bytes_needed,
};
use std::sync::Arc;
use std::time::Instant;

/// Writers who log no more than this within `idle_seal_after` need nothing kept ready.
const LITTLE: u64 = 64 << 10;

impl LogKeeper {
    /// Gives back what nobody needs if next to nothing was written for a while. After the pause in
    /// which a range rests that is whatever is kept ready. After `idle_seal_after` it is the large
    /// segment as well. Returns when to look again.
    pub(super) fn look_for_rest(&mut self) -> Option<Instant> {
        let config = &self.environment.config;
        let (pause, idle) = (config.rest_after(), config.idle_seal_after);
        let first_bytes = FIRST_SEGMENT_BYTES.min(config.log_segment_bytes);
        // If the seat has failed, the engine has failed.
        let looked = self.wal.with_log(|state| {
            (state.next_seqno(), state.has_spares(), state.has_grown(first_bytes))
        });
        let (next_seqno, has_spares, grown) = looked.ok()?;
        let is_ready = has_spares || !self.recycling.is_empty();
        if !grown && !is_ready {
            self.quiet = None;
            return None;
        }
        let logged = self.wal.counts.log_bytes.get();
        let now = self.environment.now();
        let since = match self.quiet {
            Some((seen, since)) if logged - seen <= LITTLE => since,
            _ => {
                self.quiet = Some((logged, now));
                now
            }
        };
        let quiet = now.saturating_duration_since(since);
        if let Some(after) = idle.filter(|after| quiet >= *after) {
            if let Err(failure) = self.rest(next_seqno, first_bytes) {
                tracing::debug!(%failure, "the log goes on in a large segment");
            }
            // Looks again later, because somebody may have written meanwhile.
            self.quiet = Some((logged, now));
            return Some(now + after);
        }
        let mut again = idle.map(|after| since + after);
        if let Some(after) = pause.filter(|_| is_ready) {
            let mut at = since + after;
            if quiet >= after {
                self.give_back_spares(next_seqno);
                at = now + after;
            }
            again = Some(again.map_or(at, |again| again.min(at)));
        }
        again
    }

    /// Keeps nothing ready, unless something was stamped since the caller read `next_seqno`.
    fn give_back_spares(&mut self, next_seqno: Seqno) {
        self.resting = true;
        remove_segments(&self.environment.vfs, &self.recycling.take_all());
        if let Ok(spares) = self.wal.with_log(|state| state.give_up_spares(next_seqno, LITTLE)) {
            self.discard_all(spares);
        }
    }

    /// Ends the log in a last segment of the smallest size, and keeps nothing ready. Best effort.
    pub(super) fn leave(&mut self) {
        let Ok(next_seqno) = self.wal.with_log(|state| state.next_seqno()) else { return };
        if let Err(failure) = self.rest(next_seqno, segment_bytes_needed(0)) {
            tracing::debug!(%failure, "the log ends in a large segment");
        }
    }

    /// Gives back what it can, then continues the log in a segment of `bytes` bytes. It does
    /// neither if something was stamped since the caller read `next_seqno`.
    /// INVARIANT(no-log-file-missing): the removed files were never used, so nobody names them.
    fn rest(&mut self, next_seqno: Seqno, bytes: u64) -> Result<(), Failure> {
        self.growth = Growth::new(self.environment.config.log_segment_bytes);
        // Removed first, so that the new segment may use their space.
        self.give_back_spares(next_seqno);
        if !self.wal.with_log(|state| state.has_grown(bytes))? {
            return Ok(());
        }
        let Environment { config, vfs, db_id, .. } = &*self.environment;
        let identity = LogIdentity { db_id: *db_id };
        let number = self.files.numbers.take();
        let next = allocate_spare(vfs, &config.dir, &identity, number, bytes, config.log_mapped)?;
        let refused = self.wal.with_log(|state| state.go_on_in(next, next_seqno))?;
        if refused.is_some() {
            self.discard_all(refused);
            return Ok(());
        }
        // Nobody waits for it, but nothing else would sync the segment that was left: an idle log
        // does not put that off.
        let last = Seqno(next_seqno.0 - 1);
        let _ = self.wal.durable.register_sync(last, reply().0);
        self.wal.due.sync.set();
        Ok(())
    }

    /// Removes unused segments. If that fails, the next open removes them.
    fn discard_all(&self, spares: impl IntoIterator<Item = Spare>) {
        for spare in spares {
            if let Err(error) = discard(&self.environment.vfs, spare) {
                tracing::warn!(%error, "a spare log segment was left behind");
            }
        }
    }

    /// Removes what the open has replayed, all of it.
    pub(super) fn remove_old_log(&mut self) {
        remove_segments(&self.environment.vfs, &std::mem::take(&mut self.old_log));
    }
}

/// Removes segments below the floor. If that fails, the next open removes them.
pub(crate) fn remove_segments(vfs: &Arc<dyn Vfs>, obsolete: &[SealedSegment]) {
    for old in obsolete {
        if let Err(error) = remove(vfs, old) {
            tracing::warn!(%error, "an old log segment was left behind");
        }
    }
}
