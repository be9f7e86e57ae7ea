//! What a job adds to the progress of its order.

use crate::progress::{Progress, ProgressWatch};
use sluicedb_storage::compact::Job;
use std::sync::Weak;

/// The share of one job in its order. Dropping it takes the share back, unless the job was done.
pub(super) struct Share<'a> {
    shown: &'a Weak<ProgressWatch>,
    /// Bytes of the job's inputs.
    bytes: u64,
    /// Their entries, about. Not 0.
    entries: u64,
    added_bytes: u64,
}

impl<'a> Share<'a> {
    /// The share of `job`, which has not begun.
    pub(super) fn new(job: &Job, shown: &'a Weak<ProgressWatch>) -> Self {
        Self::of(job.input_bytes(), job.entries_about(), shown)
    }

    fn of(bytes: u64, entries: u64, shown: &'a Weak<ProgressWatch>) -> Self {
        Self { shown, bytes, entries: entries.max(1), added_bytes: 0 }
    }

    /// Shows that this many entries of the inputs were merged. Returns false if nobody wants the
    /// rest.
    pub(super) fn show(&mut self, entries: u64) -> bool {
        let entries = u128::from(entries.min(self.entries));
        let bytes = u128::from(self.bytes) * entries / u128::from(self.entries);
        self.add_up_to(bytes as u64)
    }

    /// The job is done, and its share stays.
    pub(super) fn done(mut self) {
        self.add_up_to(self.bytes);
        self.added_bytes = 0;
    }

    fn add_up_to(&mut self, bytes: u64) -> bool {
        let Some(shown) = self.shown.upgrade() else { return false };
        let more = bytes.saturating_sub(self.added_bytes);
        self.added_bytes += more;
        change(&shown, |done_bytes| done_bytes + more);
        true
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.added_bytes > 0
            && let Some(shown) = self.shown.upgrade()
        {
            change(&shown, |done_bytes| done_bytes.saturating_sub(self.added_bytes));
        }
    }
}

fn change(shown: &ProgressWatch, done_bytes: impl FnOnce(u64) -> u64) {
    shown.update(|shown| Some(Progress { done_bytes: done_bytes(shown.done_bytes), ..*shown }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Planted: the share of a failed job stays; the last entries are not counted.
    #[test]
    fn shares_add_up_and_those_of_jobs_that_fail_are_taken_back() {
        let watch = Arc::new(ProgressWatch::new(Progress::default()));
        let shown = Arc::downgrade(&watch);
        let done = || watch.get().done_bytes;
        let (mut one, mut other) = (Share::of(1000, 10, &shown), Share::of(500, 0, &shown));
        assert!(one.show(3) && other.show(0));
        assert_eq!(done(), 300);
        assert!(one.show(3) && other.show(7));
        assert_eq!(done(), 800);
        drop(other);
        assert_eq!(done(), 300);
        assert!(one.show(99));
        assert_eq!(done(), 1000);
        one.done();
        assert_eq!(done(), 1000);
        let mut last = Share::of(1 << 60, 1 << 60, &shown);
        drop(watch);
        assert!(!last.show(1), "nobody wants it");
    }
}
