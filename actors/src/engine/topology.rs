//! The actors and their mailboxes, as seen from outside.

use super::Engine;
use super::start::{CHECKPOINT_INBOX_MAX, COMPACT_INBOX_MAX, VERSION_INBOX_MAX};
use crate::range_owner::RangeEntry;
use sluicedb_kernel::mailbox::Mailbox;

/// The state of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxInfo {
    /// The actor that it leads to.
    pub actor: String,
    /// Messages waiting.
    pub length: usize,
    /// Messages that can wait before senders do.
    pub capacity: usize,
    /// Messages handled so far.
    pub handled: u64,
}

impl Engine {
    /// Names, lengths and capacities of the mailboxes, in the order in which data flows.
    pub fn mailboxes(&self) -> Vec<MailboxInfo> {
        let info = |actor: &str, length, capacity, handled| MailboxInfo {
            actor: actor.to_owned(),
            length,
            capacity,
            handled,
        };
        let (parts, counters) = (&self.parts, &self.counters);
        let superversion = self.superversion();
        let capacity = parts.environment.config.commits_in_flight_max;
        let stamped = counters.log.commits.get();
        let mut all = vec![info("wal writer", parts.wal.seat.len(), capacity, stamped)];
        for RangeEntry { owner, .. } in &superversion.ranges {
            let name = format!("range owner {}", owner.id.0);
            all.push(info(&name, owner.seat.len(), capacity, owner.sizes.batches()));
        }
        // The flush worker has no mailbox. It reads what is due from the ranges.
        let ranges = &superversion.ranges;
        let to_flush = ranges.iter().filter(|range| !range.sealed.is_empty()).count();
        let to_merge = parts.compaction_jobs.iter().map(Mailbox::len).sum();
        let (begun, merged) =
            (&counters.compactions.compactions_begun, &counters.compactions.compactions);
        let (versions, planner) = (&counters.versions, parts.planner.len());
        let (reads, turns) = (&self.reads, &self.turns);
        all.extend([
            info("flush worker", to_flush, ranges.len(), versions.flushes.get()),
            info("compaction planner", planner, COMPACT_INBOX_MAX, begun.get()),
            info("compaction workers", to_merge, parts.compaction_jobs.len(), merged.get()),
            info("version manager", parts.versions.len(), VERSION_INBOX_MAX, versions.edits.get()),
            info(
                "checkpointer",
                parts.checkpoints.len(),
                CHECKPOINT_INBOX_MAX,
                counters.checkpoints.checkpoints.get(),
            ),
            info("read threads", reads.queued(), reads.capacity(), reads.cold_reads()),
            info("turn thread", turns.queued(), turns.capacity(), turns.handed_on()),
        ]);
        all
    }
}
