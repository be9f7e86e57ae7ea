//! Counts of jobs that fail, and requests to try everything at once.

use super::Failure;
use crate::counter::Counter;
use sluicedb_storage::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A device that fails this many syncs in a row is given up.
const FAILED_SYNCS_MAX: u32 = 3;

/// Counts about failing jobs.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Jobs that failed and will be tried again.
    pub retries: Counter,
    /// Syncs of tables that failed since the last job that succeeded.
    failed_syncs: AtomicU32,
    /// How often a caller has asked to try everything at once.
    asked: AtomicU64,
}

/// Remembers the last request that its owner has followed.
#[derive(Debug, Default)]
pub struct Asked(u64);

impl Attempts {
    /// Asks that whatever failed and pauses be tried now. The caller then wakes those who have
    /// something to try.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Release);
    }

    /// Has anybody asked since the last call with this `asked`?
    pub fn is_asked(&self, asked: &mut Asked) -> bool {
        let now = self.asked.load(Ordering::Acquire);
        std::mem::replace(&mut asked.0, now) != now
    }

    /// A job that writes tables has succeeded.
    pub fn job_succeeded(&self) {
        self.failed_syncs.store(0, Ordering::Relaxed);
    }

    /// A job that writes tables has failed. Must the device be given up?
    pub(super) fn was_one_too_many(&self, failure: &Failure) -> bool {
        let Failure::Storage(error) = failure else { return false };
        // To sync a directory it must be opened. Where that is all that failed, nothing was synced.
        if !matches!(**error, Error::Io { op: "sync", .. }) || error.is_out_of_descriptors() {
            return false;
        }
        self.failed_syncs.fetch_add(1, Ordering::Relaxed) + 1 >= FAILED_SYNCS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Planted: each failure of a sync counts.
    #[test]
    fn a_lack_of_descriptors_says_nothing_about_the_device() {
        let failed = |errno| {
            let error = std::io::Error::from_raw_os_error(errno);
            Failure::storage(Error::io("sync", Path::new("/db"), error))
        };
        let attempts = Attempts::default();
        for _ in 0..10 * FAILED_SYNCS_MAX {
            assert!(!attempts.was_one_too_many(&failed(24)));
        }
        assert!((0..FAILED_SYNCS_MAX).any(|_| attempts.was_one_too_many(&failed(5))));
    }

    #[test]
    fn each_party_follows_each_request_once() {
        let attempts = Attempts::default();
        let (mut one, mut other) = (Asked::default(), Asked::default());
        assert!(!attempts.is_asked(&mut one));
        attempts.ask();
        assert!(attempts.is_asked(&mut one) && !attempts.is_asked(&mut one));
        assert!(attempts.is_asked(&mut other));
    }
}
