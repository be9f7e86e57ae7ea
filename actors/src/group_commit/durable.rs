//! Who waits for the log to reach the disk, and how far the log has reached it.

use crate::failure::{Failure, WriteFailure};
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sluicedb_kernel::sync::{Mutex, MutexGuard, lock};
use sluicedb_storage::key::Seqno;
use std::collections::VecDeque;

/// What an acknowledged write survives.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The death of the process (kill -9, out of memory), but not a power cut.
    Buffered,
    /// A power cut as well: the log was synced. Concurrent writers share one sync.
    #[default]
    Synced,
}

/// How a commit ends: the sequence number of the batch's last operation, or why not.
pub type Committed = Result<Seqno, WriteFailure>;

/// Replies with their sequence numbers, in order.
pub type DueReplies = Vec<(Seqno, Reply<Committed>)>;

/// How far the log is written and synced, and who waits for more.
#[derive(Debug)]
pub struct Durable {
    /// Everything at or below this number is in the file, so it survives the process.
    written: AtomicU64,
    /// Everything at or below this number is synced, so it survives a power cut. Raised only after
    /// `fdatasync` returned without an error.
    synced: AtomicU64,
    waiting: Mutex<Waiting>,
    /// How many wait; a hint.
    awaited: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Both queues are in the order of sequence numbers: replies are registered under the log's
    /// seat.
    written: VecDeque<(Seqno, Reply<Committed>)>,
    synced: VecDeque<(Seqno, Reply<Committed>)>,
    failure: Option<Failure>,
}

impl Durable {
    /// A log in which everything up to `recovered` is in tables already.
    pub fn new(recovered: Seqno) -> Self {
        Self {
            written: AtomicU64::new(recovered.0),
            synced: AtomicU64::new(recovered.0),
            waiting: Mutex::new(Waiting::default()),
            awaited: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// The last durable sequence number. Never overstates.
    pub fn synced(&self) -> Seqno {
        Seqno(self.synced.load(Ordering::Acquire))
    }

    /// Answers `reply` once `seqno` is in the file (`Buffered`) or synced (`Synced`). The
    /// caller then sets `LogDue::sync`.
    ///
    /// # Errors
    /// The log has failed. Returns `reply` and the answer to send; send it once no seat is held.
    pub fn register(
        &self,
        durability: Durability,
        seqno: Seqno,
        reply: Reply<Committed>,
    ) -> Result<(), (Reply<Committed>, WriteFailure)> {
        let mut waiting = self.lock();
        if let Some(failure) = waiting.failure.clone() {
            return Err((reply, WriteFailure::unknown(failure)));
        }
        let queue = match durability {
            Durability::Buffered => &mut waiting.written,
            Durability::Synced => &mut waiting.synced,
        };
        // `sync` registers from outside the seat and may be late, so its reply is inserted in
        // order.
        let at = queue.partition_point(|(earlier, _)| *earlier <= seqno);
        queue.insert(at, (seqno, reply));
        self.count(&waiting);
        Ok(())
    }

    fn count(&self, waiting: &Waiting) {
        let count = waiting.written.len() + waiting.synced.len();
        self.awaited.store(count, Ordering::Relaxed);
    }

    /// How many wait. A hint: it may be out of date.
    pub fn awaited(&self) -> usize {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Does anybody wait for a sync, and does anybody wait for a write?
    pub fn wanted(&self) -> (bool, bool) {
        let waiting = self.lock();
        (!waiting.synced.is_empty(), !waiting.written.is_empty())
    }

    /// The file holds everything up to `upto`. Returns the replies that waited for that.
    pub fn raise_written(&self, upto: Seqno) -> DueReplies {
        self.written.fetch_max(upto.0, Ordering::Release);
        let mut waiting = self.lock();
        let passed = take(&mut waiting.written, upto);
        self.count(&waiting);
        passed
    }

    /// The disk holds everything up to `upto`. Returns the replies that waited for that.
    pub fn raise_synced(&self, upto: Seqno) -> DueReplies {
        self.synced.fetch_max(upto.0, Ordering::Release);
        let mut waiting = self.lock();
        let mut passed = take(&mut waiting.synced, upto);
        passed.append(&mut take(&mut waiting.written, upto));
        self.count(&waiting);
        passed
    }

    /// Takes all waiting replies. For a log that cannot be written for now.
    pub fn take_waiting(&self) -> DueReplies {
        let mut waiting = self.lock();
        let mut all = DueReplies::from(std::mem::take(&mut waiting.written));
        all.extend(std::mem::take(&mut waiting.synced));
        self.count(&waiting);
        all
    }

    /// The log failed. Answers everybody who waits with `failure`; nobody is acknowledged any more.
    pub fn fail(&self, failure: &Failure) {
        let mut waiting = self.lock();
        waiting.failure.get_or_insert_with(|| failure.clone());
        let mut lost = std::mem::take(&mut waiting.written);
        lost.append(&mut waiting.synced);
        self.count(&waiting);
        drop(waiting);
        for (_, reply) in lost {
            reply.send(Err(WriteFailure::unknown(failure.clone())));
        }
    }
}

fn take(queue: &mut VecDeque<(Seqno, Reply<Committed>)>, upto: Seqno) -> DueReplies {
    let passed = queue.partition_point(|(seqno, _)| *seqno <= upto);
    queue.drain(..passed).collect()
}
