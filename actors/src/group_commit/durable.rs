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
    /// Everything at or below this number survives a power cut. Raised only after `fdatasync`
    /// returned without an error, or when all of it is in tables by the durable manifest.
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

    /// As `register` with `Synced`, for a caller that holds no seat. Before the list grows, callers
    /// who have given up leave it: they may ask again and again while the log makes no progress.
    /// Only those leave whose numbers the new caller covers, so what they asked for is synced all
    /// the same.
    ///
    /// # Errors
    /// The log has failed.
    pub fn register_sync(&self, upto: Seqno, reply: Reply<Committed>) -> Result<(), WriteFailure> {
        // They are dropped without the lock: that may call wakers.
        let given_up = self.take_given_up(upto);
        drop(given_up);
        self.register(Durability::Synced, upto, reply).map_err(|(_, failed)| failed)
    }

    fn take_given_up(&self, upto: Seqno) -> VecDeque<(Seqno, Reply<Committed>)> {
        let mut waiting = self.lock();
        let queue = &mut waiting.synced;
        if queue.len() < queue.capacity() {
            return VecDeque::new();
        }
        let (given_up, stay): (_, VecDeque<_>) = std::mem::take(queue)
            .into_iter()
            .partition(|(seqno, reply)| *seqno <= upto && reply.is_abandoned());
        *queue = stay;
        // The next look comes after as many more have come.
        queue.reserve(queue.len() + 1);
        self.count(&waiting);
        given_up
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
        debug_assert!(
            waiting.written.front().is_none_or(|(seqno, _)| *seqno > upto),
            "what is synced was written before"
        );
        let passed = take(&mut waiting.synced, upto);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use futures::FutureExt;
    use sluicedb_kernel::reply::reply;

    /// Planted: a list that only grows; callers leave it although nobody else asks for as much.
    #[test]
    fn who_gives_up_a_sync_and_asks_again_and_again_is_not_remembered() {
        let durable = Durable::new(Seqno(1));
        let (stays, mut answer) = reply();
        durable.register_sync(Seqno(2), stays).expect("the log works");
        let (later, given_up) = reply();
        durable.register_sync(Seqno(2_000), later).expect("the log works");
        drop(given_up);
        for n in 2..1_000 {
            let (gives_up, given_up) = reply();
            durable.register_sync(Seqno(n), gives_up).expect("the log works");
            drop(given_up);
        }
        let count = durable.lock().synced.len();
        assert!(count <= 8 && durable.awaited() == count, "{count} wait, and one of them asks");
        let synced = durable.raise_synced(Seqno(1_000));
        for (seqno, reply) in synced {
            reply.send(Ok(seqno));
        }
        assert!(matches!((&mut answer).now_or_never(), Some(Ok(Ok(Seqno(2))))));
        assert_eq!(durable.wanted(), (true, false), "a later number is not covered");
    }
}
