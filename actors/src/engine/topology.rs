//! Who there is, as seen from outside: the actors and their mailboxes.

use super::Engine;
use super::open::{COMPACT_INBOX_MAX, VERSION_INBOX_MAX};
use crate::kernel::mailbox::Mailbox;
use crate::shared::RangeEntry;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a mailbox looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Whose it is.
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
        let counters = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let capacity = self.shared.config.commits_in_flight_max;
        let mut all = vec![MailboxInfo {
            actor: "wal writer".to_owned(),
            length: self.wal.seat.len(),
            capacity,
            handled: get(&counters.commits),
        }];
        for RangeEntry { owner, .. } in &self.shared.superversion.load_full().ranges {
            all.push(MailboxInfo {
                actor: format!("range owner {}", owner.id.0),
                length: owner.seat.len(),
                capacity,
                handled: owner.sizes.batches(),
            });
        }
        all.append(&mut actors_with_threads(self));
        all
    }
}

/// What the mailboxes of the thread-driven actors look like.
fn actors_with_threads(engine: &Engine) -> Vec<MailboxInfo> {
    let info = |actor: &str, length, capacity, handled: &AtomicU64| MailboxInfo {
        actor: actor.to_owned(),
        length,
        capacity,
        handled: handled.load(Ordering::Relaxed),
    };
    let Engine { versions, planner, compaction_jobs, reads, turns, .. } = engine;
    let counters = engine.counters();
    // It has no mailbox: what is due is read off the ranges.
    let ranges = &engine.superversion().ranges;
    let to_flush = ranges.iter().filter(|range| !range.sealed.is_empty()).count();
    let to_merge = compaction_jobs.iter().map(Mailbox::len).sum();
    vec![
        info("flush worker", to_flush, ranges.len(), &counters.flushes),
        info("compaction planner", planner.len(), COMPACT_INBOX_MAX, &counters.compactions_begun),
        info("compaction workers", to_merge, compaction_jobs.len(), &counters.compactions),
        info("version manager", versions.len(), VERSION_INBOX_MAX, &counters.edits),
        info("read threads", reads.queued(), reads.capacity(), &counters.cold_reads),
        info("turn thread", turns.queued(), turns.capacity(), &counters.turns_handed_on),
    ]
}
