//! What operations take of a task's turn.
//!
//! Tokio lets a task do 128 units of work before others get their turn, and leaves it to the
//! leaves to count them. Where every operation counts one unit, a task that scans, or writes large
//! batches, keeps its thread for tens of milliseconds, and timers on that thread are late. So here
//! a unit is a microsecond or two of work: a get, a small put, a KiB of a batch, 4 KiB of a scan.
//!
//! Guarantees: an operation waits for at most one turn of the others before it begins. Does not:
//! work under another executor's `block_on` inside a task, where no turn of the others comes.

use std::task::{Context, Poll, ready};
use tokio::task::coop::{consume_budget, poll_proceed};

/// What is written for one unit: it is copied into the log and into a memtable, entry by entry.
/// What an entry takes of a memtable beside its bytes counts with them.
pub(crate) const WRITTEN_BYTES: usize = 1 << 10;
/// What is read for one unit. With half of it, scans of 100 by one task were 5 % slower: the end of
/// a turn wakes another worker.
const SCANNED_BYTES: usize = 4 << 10;
/// What a scan takes beside its entries, in bytes: it looks into every layer.
const OPENED_BYTES: usize = 8 << 10;
/// More would only ask for a second turn.
const UNITS_MAX: usize = 127;

/// Takes what a small operation takes.
#[inline]
pub(crate) async fn one() {
    consume_budget().await;
}

/// Takes what it is to write so many bytes.
#[inline]
pub(crate) async fn to_write(bytes: usize) {
    one().await;
    if bytes >= WRITTEN_BYTES {
        more_to_write(bytes).await;
    }
}

/// Takes what it is to write so many bytes beside the first operation's unit.
#[inline]
pub(crate) async fn more_to_write(bytes: usize) {
    units(bytes / WRITTEN_BYTES).await;
}

async fn units(units: usize) {
    for _ in 0..units.min(UNITS_MAX) {
        consume_budget().await;
    }
}

/// What a scan has done and not paid for yet, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Owed(usize);

impl Owed {
    /// The scan is about to look into its layers.
    pub(crate) fn opens(&mut self) {
        self.reads(OPENED_BYTES);
    }

    /// So much has been read, or is about to be.
    pub(crate) fn reads(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes).min(UNITS_MAX * SCANNED_BYTES);
    }

    /// Pays for it.
    pub(crate) fn poll_pay(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.0 >= SCANNED_BYTES {
            ready!(poll_proceed(context)).made_progress();
            self.0 -= SCANNED_BYTES;
        }
        Poll::Ready(())
    }
}
