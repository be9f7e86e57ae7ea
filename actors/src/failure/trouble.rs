//! What keeps the engine's parties from their work, for now, and what follows from it for others.
//!
//! Guarantees: a party's trouble is shown (`health`) from its failure to its next success; a write that
//! finds no room while the room it needs cannot come is refused with the reason instead of waiting;
//! three table syncs that fail in a row end the engine.
//! Does not: decide when something is tried again. Each party keeps its own pauses, which `try_now` cuts
//! short.

use crate::failure::{Concern, Failure, Party};
use crate::kernel::health::State;
use crate::kernel::sync::lock;
use crate::shared::Shared;
use sluicedb_storage::Error;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::version::RangeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A device that fails so many syncs in a row is given up.
const FAILED_SYNCS_MAX: u32 = 3;

/// Counts that belong to failing jobs.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Syncs of tables that failed since the last job that succeeded.
    failed_syncs: AtomicU32,
    /// How often somebody asked for everything to be tried at once.
    asked: AtomicU64,
}

/// The tables that were found damaged or missing, each with what was wrong when it was last looked at.
#[derive(Debug, Default)]
pub struct Damage(Mutex<BTreeMap<FileNumber, Arc<Error>>>);

impl Damage {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileNumber, Arc<Error>>> {
        lock(&self.0)
    }

    /// Takes note if the failure is that a table is damaged or missing.
    pub fn note(&self, failure: &Failure) {
        if let Failure::Storage(error) = failure
            && failure.is_damage()
            && let Some(number) = failure.table()
        {
            self.lock().insert(number, Arc::clone(error));
        }
    }

    /// A read has failed: is a table damaged or missing?
    #[cold]
    pub fn note_read(&self, error: &Error) {
        if !matches!(error, Error::WouldBlock) {
            self.note(&Failure::storage(error.duplicate()));
        }
    }

    /// The table is gone, or all of it could be read.
    pub fn forget(&self, number: FileNumber) {
        self.lock().remove(&number);
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Error>> {
        self.lock().values().cloned().collect()
    }
}

/// Remembers which request to try everything at once was followed.
#[derive(Debug, Default)]
pub struct Asked(u64);

impl Attempts {
    /// Has somebody asked since the last call with this `asked`?
    pub fn is_asked(&self, asked: &mut Asked) -> bool {
        let now = self.asked.load(Ordering::Acquire);
        std::mem::replace(&mut asked.0, now) != now
    }
}

impl Concern {
    /// Has a write to ranges that `touches` tells to fail rather than wait for room because of this? Merging
    /// is felt only where flushing waits for it, and then flushing says so. Space on the disk is everybody's.
    /// While the reserve is in use flushing goes on in it, and gives room.
    fn stops_writes(&self, failure: &Failure, touches: impl Fn(RangeId) -> bool) -> bool {
        let goes_on = matches!(self.party, Party::Compaction | Party::Reserve);
        !goes_on && (failure.is_no_space() || self.range.is_none_or(touches))
    }
}

impl Shared {
    /// Somebody cannot work for now: writes that need room which only that would give are refused.
    pub fn degrade(&self, concern: impl Into<Concern>, failure: Failure) {
        self.health.degrade(concern.into(), failure);
        self.show_pressure();
    }

    /// It has worked: nothing known is in the way any more.
    pub fn recover(&self, concern: impl Into<Concern>) {
        if self.health.recover(&concern.into()) {
            self.show_pressure();
        }
    }

    fn troubles(&self) -> Vec<(Concern, Failure)> {
        if self.health.is_running() {
            return Vec::new();
        }
        match self.health.state() {
            State::Degraded(causes) => causes,
            State::Running | State::Failed(_) | State::Closed(_) => Vec::new(),
        }
    }

    /// Why `party` cannot work for `range`, if it cannot.
    pub fn trouble(&self, party: Party, range: RangeId) -> Option<Failure> {
        let concerns =
            |concern: &Concern| concern.party == party && concern.range.is_none_or(|r| r == range);
        self.troubles().into_iter().find(|(c, _)| concerns(c)).map(|(_, failure)| failure)
    }

    /// The trouble of just this party and range.
    pub fn trouble_of(&self, concern: impl Into<Concern>) -> Option<Failure> {
        let concern = concern.into();
        let mut troubles = self.troubles().into_iter();
        troubles.find(|(other, _)| *other == concern).map(|(_, failure)| failure)
    }

    /// Has somebody found the disk full, and not succeeded since?
    pub fn is_disk_full(&self) -> bool {
        self.troubles().iter().any(|(_, failure)| failure.is_no_space())
    }

    /// Why a write that finds no room fails instead of waiting, if it does. One that would wait `for_ever`
    /// fails for any reason; one that has a deadline, or does not wait, only for one that does not pass
    /// without somebody doing something about it.
    pub fn refusal(&self, for_ever: bool, touches: impl Fn(RangeId) -> bool) -> Option<Failure> {
        let mut troubles = self.troubles().into_iter();
        let stops = troubles.find(|(concern, failure)| {
            let matters = for_ever || failure.is_no_space() || failure.is_damage();
            matters && concern.stops_writes(failure, &touches)
        });
        stops.map(|(_, failure)| failure)
    }

    /// Resolves once there is such a reason.
    pub async fn until_refused(
        &self,
        for_ever: bool,
        touches: impl Fn(RangeId) -> bool,
    ) -> Failure {
        let mut watcher = self.health.watcher();
        loop {
            if let Some(failure) = self.refusal(for_ever, &touches) {
                return failure;
            }
            watcher.changed().await;
        }
    }

    /// A job that writes tables has failed; has that ended the engine? Its source is still there and it can
    /// be done again, but not for ever on a device that does not keep what it is given.
    pub fn job_failed(&self, failure: &Failure) -> bool {
        let Failure::Storage(error) = failure else { return false };
        if !matches!(**error, Error::Io { op: "sync", .. }) {
            return false;
        }
        let failed = self.attempts.failed_syncs.fetch_add(1, Ordering::Relaxed) + 1;
        if failed >= FAILED_SYNCS_MAX {
            self.fail(failure.clone());
        }
        failed >= FAILED_SYNCS_MAX
    }

    /// A job that writes tables has succeeded.
    pub fn job_succeeded(&self) {
        self.attempts.failed_syncs.store(0, Ordering::Relaxed);
    }

    /// Whatever failed and pauses is tried now: somebody waits for it, and things may have changed.
    pub fn try_now(&self) {
        self.attempts.asked.fetch_add(1, Ordering::Release);
        self.flush_due.set();
        self.compaction_due.set();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a7_a_trouble_stops_those_who_need_what_it_keeps_from_coming() {
        let path = Path::new("/db/000007.sst");
        let damage = Failure::storage(Error::corrupt(path, 3, "planted"));
        let full = std::io::Error::from_raw_os_error(28);
        let full = Failure::storage(Error::io("write", path, full));
        let touches = |range| range == RangeId(1);
        for (concern, failure, stops) in [
            (Party::Flush.of(RangeId(1)), &damage, true),
            (Party::Flush.of(RangeId(2)), &damage, false),
            (Party::Flush.into(), &damage, true),
            (Party::Flush.of(RangeId(2)), &full, true),
            (Party::Compaction.of(RangeId(1)), &damage, false),
            (Party::Compaction.into(), &full, false),
            (Party::Log.into(), &full, true),
            (Party::Manifest.into(), &full, true),
        ] {
            assert_eq!(concern.stops_writes(failure, touches), stops, "{concern:?} {failure}");
        }
    }

    #[test]
    fn each_party_follows_each_request_once() {
        let attempts = Attempts::default();
        let (mut one, mut other) = (Asked::default(), Asked::default());
        assert!(!attempts.is_asked(&mut one));
        attempts.asked.fetch_add(1, Ordering::Release);
        assert!(attempts.is_asked(&mut one) && !attempts.is_asked(&mut one));
        assert!(attempts.is_asked(&mut other));
    }
}
