//! The keeper's loop and its disk work.

use super::LogKeeper;
use super::growth::{FULL_DISK_SEGMENT_BYTES, Growth, Logged};
use super::rest::remove_segments;
use super::state::RECYCLED_WRITE_BUFFERS_MAX;
use crate::failure::backoff::{Backoff, LONGEST_NO_SPACE};
use crate::failure::{Failure, Party};
use crate::log_writer::{AfterTurn, SpareWanted, Way};
use crate::runtime::Environment;
use crate::version_manager::message::VersionMessage;
use futures::FutureExt;
use futures::future::select;
use sluicedb_kernel::combining::Spent;
use sluicedb_storage::wal::{
    LogIdentity, allocate_spare, prepare_spare, recycle, segment_bytes_needed,
};
use std::panic::AssertUnwindSafe;
use std::pin::pin;

impl LogKeeper {
    /// The loop.
    pub async fn run(mut self) {
        // A panic is caught here because those who wait for a segment, now or later, must be told,
        // whatever ended the loop.
        let ended = AssertUnwindSafe(self.serve()).catch_unwind().await;
        self.remove_old_log();
        if let Err(panic) = ended {
            self.failures.fail(Failure::panicked("log keeper", &*panic));
        }
        let mut after = AfterTurn::default();
        // If the seat has failed, it has dropped what was queued, and that answered the callers.
        let _ = self.wal.with_log(|state| state.close(self.failures.why_stopped(), &mut after));
        after.run(&self.wal.due, &mut Spent::default());
    }

    async fn serve(&mut self) {
        let (mut told, mut prepared) = (0, false);
        let mut backoff = Backoff::default();
        while !self.failures.is_stopped() {
            let leaving = self.wal.take_leaving();
            if !leaving.is_empty() {
                self.leave();
                for reply in leaving {
                    reply.send(());
                }
            }
            let spares_max = self.growth.spares_max();
            // If the seat has failed, the engine has failed, too.
            let wanted = self.wal.with_log(|state| state.spare_wanted(spares_max));
            let Ok(wanted) = wanted else { return };
            let waiting = self.wal.take_collecting();
            let retained = self.collect();
            for reply in waiting {
                reply.send(());
            }
            // More log is retained, a good part of a segment has been written since, or a change
            // that waits has room now or is to be refused. A full mailbox needs no message: the
            // version manager looks after each message anyway.
            if (retained > told || wanted.is_some() || std::mem::take(&mut prepared))
                && let Ok(permit) = self.versions.try_reserve(1)
            {
                // If the mailbox is closed, nobody seals anything any more.
                let _ = permit.send(VersionMessage::LogGrown);
            }
            told = retained;
            let Some(wanted) = wanted else {
                self.failures.recover(Party::Log);
                if let Some(old) = self.old_log.pop() {
                    remove_segments(&self.environment.vfs, &[old]);
                    continue;
                }
                let again = self.look_for_rest();
                let again = pin!(self.environment.until(again));
                select(pin!(self.wal.due.keeping.wait()), again).await;
                continue;
            };
            let releases = self.failures.reserve.releases();
            match self.prepare(wanted) {
                Ok(()) => {
                    backoff.reset();
                    prepared = true;
                    // Somebody wants it: it is not given back before he has had time to come.
                    self.quiet = None;
                }
                // The space of the old log, or of the reserve, may let the next attempt succeed.
                Err(failure) if failure.is_no_space() && !self.old_log.is_empty() => {
                    self.remove_old_log();
                }
                Err(failure) if self.failures.use_reserve(&failure, releases) => {}
                Err(failure) => {
                    // The disk may have room for a small segment.
                    self.growth = Growth::new(self.environment.config.log_segment_bytes);
                    tracing::warn!(%failure, "no log segment can be prepared");
                    self.failures.attempts.retries.add(1);
                    self.failures.degrade(Party::Log, failure.clone());
                    let mut after = AfterTurn::default();
                    let refused =
                        self.wal.with_log(|state| state.refuse_room(&failure, &mut after));
                    after.run(&self.wal.due, &mut Spent::default());
                    let pause = backoff.after_failure_at_most(LONGEST_NO_SPACE);
                    if refused.is_err() || !self.environment.pause(pause, &self.failures).await {
                        return;
                    }
                }
            }
        }
    }

    /// Makes one spare segment and gives it to the log.
    fn prepare(&mut self, wanted: SpareWanted) -> Result<(), Failure> {
        let Environment { config, vfs, db_id, .. } = &*self.environment;
        let counts = &self.wal.counts;
        let logged = Logged { bytes: counts.log_bytes.get(), syncs: counts.log_syncs.get() };
        self.growth.look(self.environment.now(), logged);
        let needed = segment_bytes_needed(wanted.payload_bytes);
        let usual = self.growth.next(wanted.late);
        let bytes = usual.max(needed);
        let number = self.files.numbers.take();
        let identity = LogIdentity { db_id: *db_id };
        let spare = if let Some(old) = self.recycling.take(bytes) {
            recycle(vfs, &config.dir, &old, number, config.log_mapped)?
        } else {
            // While the reserve is in use there are deletes to log and no space to waste.
            let spent = self.failures.reserve.is_spent();
            let bytes = if spent { needed.max(FULL_DISK_SEGMENT_BYTES) } else { bytes };
            let zeroed = self.growth.zeroed() && !wanted.soon;
            let make = if zeroed { prepare_spare } else { allocate_spare };
            make(vfs, &config.dir, &identity, number, bytes, config.log_mapped)?
        };
        self.growth.made(usual);
        self.resting = false;
        let mut after = AfterTurn::default();
        let way = Way::of(&self.topology, &self.wal.durable);
        self.wal.with_log(|state| state.add_spare(spare, way, &mut after))?;
        self.failures.recover(Party::Log);
        after.run(&self.wal.due, &mut Spent::default());
        Ok(())
    }

    /// Takes segments below the durable floor out of the log, keeps some for recycling and removes
    /// the others. INVARIANT(watermark-at-seal): only the version manager raises the floor. Returns
    /// the bytes of the closed segments that remain.
    fn collect(&mut self) -> u64 {
        let floor = self.wal.floor();
        self.recycling.add(self.wal.take_retired_below(floor));
        // If the seat has failed, nobody asks for segments any more.
        let segments = self.wal.with_log(|state| {
            state.segments.forget_below(floor);
            (state.segments.count() as u64, state.segments.retained_bytes(floor))
        });
        let (segments, retained) = segments.unwrap_or_default();
        self.wal.counts.log_segments.set(segments);
        self.wal.counts.log_retained_bytes.set(retained);
        let buffer_bytes = self.environment.config.write_buffer_bytes as u64;
        // Segments of another size than the next ones cannot be recycled.
        let surplus = if self.resting {
            self.recycling.take_all()
        } else {
            // On a full disk others need the space more. One stays, for the next segment.
            let full = self.failures.is_disk_full();
            let bytes_max = if full { 0 } else { RECYCLED_WRITE_BUFFERS_MAX * buffer_bytes };
            self.recycling.take_surplus(self.growth.bytes(), bytes_max)
        };
        remove_segments(&self.environment.vfs, &surplus);
        retained
    }
}
