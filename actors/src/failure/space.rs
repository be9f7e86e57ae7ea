//! Space on a full disk: the reserve is released for those who find the disk full, and set aside
//! again when there is room.
//!
//! While the reserve is in use, deletes are accepted and other writes refused. The reserve is for
//! getting out of the situation, not further into it.

use super::{Failure, Failures, Party};
use sluicedb_storage::batch::PointOperations;
use sluicedb_storage::key::Kind;
use sluicedb_storage::reserve::ReserveTurn;
use std::time::{Duration, Instant};

/// The smallest reserve that is useful: a small log segment, a manifest and some small tables.
pub(crate) const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// The reserve is at least this part of the tables.
const PART_OF_TABLES: u64 = 32;
/// Steps between two powers of two.
const STEPS: u64 = 4;
/// How often the version manager looks for room while the reserve is in use; also the first delay.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A reserve of at least twice the wanted size is cut after this long.
const CUT_AFTER: Duration = Duration::from_secs(10);

/// What the version manager remembers of the reserve.
#[derive(Debug, Default)]
pub struct ReserveWatch {
    /// When it was first seen to be released, if it is.
    spent_since: Option<Instant>,
    /// When it was first seen to be at least twice the wanted size, if it is.
    large_since: Option<Instant>,
}

/// How much a database of this size sets aside: enough to flush its memory, and to merge a part of
/// its tables. In steps, so that it seldom changes.
pub fn reserve_wanted(bytes_max: u64, memory_bytes: u64, table_bytes: u64) -> u64 {
    let wanted = memory_bytes.max(table_bytes / PART_OF_TABLES).max(RESERVE_BYTES_MIN);
    let step = (wanted.next_power_of_two() / (2 * STEPS)).max(1);
    wanted.next_multiple_of(step).min(bytes_max)
}

impl Failures {
    /// Releases the reserve if `failure` was for want of space, and nobody else has released it
    /// since the attempt that failed. Returns whether there is space now, so that the caller can
    /// try again at once. `releases` is the count of [`SpaceReserve::releases`] before that
    /// attempt.
    ///
    /// [`SpaceReserve::releases`]: sluicedb_storage::reserve::SpaceReserve::releases
    pub fn use_reserve(&self, failure: &Failure, releases: u64) -> bool {
        if !failure.is_no_space() {
            return false;
        }
        let other_released = || self.reserve.releases() != releases;
        // A release counts before the bytes are gone.
        if self.reserve.bytes() == 0 {
            return other_released();
        }
        // The reserve and what health says of it change together.
        let turn = self.reserve.turn();
        if other_released() {
            return true;
        }
        self.degrade(Party::Reserve, failure.clone());
        let released = turn.release();
        if released.is_err() {
            self.recover(Party::Reserve);
        }
        drop(turn);
        match released {
            Ok(bytes) => {
                // From now on the version manager looks for room. Not where nothing was released:
                // it would try again what has just failed, and come back here at once.
                self.reserve_due.set();
                tracing::warn!(%failure, bytes, "the disk is full; the reserve is in use");
                bytes > 0
            }
            Err(error) => {
                tracing::warn!(%error, "the disk is full, and the reserve cannot be let go of");
                false
            }
        }
    }

    /// Why this batch is refused although the engine works, if it is. A heavy batch is always
    /// refused, because checking it would take too long here. Costs one load unless the reserve is
    /// in use, whatever else keeps parties from working.
    #[cold]
    pub fn refuses(&self, payload: &[u8], heavy: bool) -> Option<Failure> {
        if !self.reserve.is_spent() {
            return None;
        }
        let failure = self.trouble_of(Party::Reserve)?;
        let deletes_only =
            !heavy && PointOperations::new(payload).all(|one| one.kind == Kind::Delete);
        (!deletes_only).then_some(failure)
    }

    /// Sets `wanted` bytes aside if that is more than there is now, and if there is room. Cuts a
    /// reserve that has been too large for a while. Returns when to look again, if that is due.
    /// `free_bytes` tells how much is free on the disk.
    ///
    /// It does not set the reserve aside again right after a release. Whoever it was released for
    /// tries again now, and must be able to fail. Otherwise what the failed attempt frees would
    /// become the reserve again, and the attempts would never end.
    pub fn keep_reserve(
        &self,
        wanted: u64,
        watch: &mut ReserveWatch,
        now: Instant,
        free_bytes: impl FnOnce() -> Option<u64>,
    ) -> Option<Instant> {
        let turn = self.reserve.turn();
        let spent = self.reserve.is_spent();
        if wanted == 0 {
            if let Err(error) = turn.give_up() {
                tracing::warn!(%error, "the reserve is not wanted and stays");
            }
            self.recover(Party::Reserve);
            return None;
        }
        let held = self.reserve.bytes();
        if wanted <= held / 2 {
            let due = *watch.large_since.get_or_insert(now) + CUT_AFTER;
            if now < due {
                return Some(due);
            }
            cut(&turn, wanted);
        }
        watch.large_since = None;
        if wanted <= held {
            return None;
        }
        if spent {
            let due = *watch.spent_since.get_or_insert(now) + LOOK_AGAIN;
            if now < due {
                return Some(due);
            }
        }
        // It never takes the last space: the reserve must not be what makes the disk full.
        let room = free_bytes().is_none_or(|free| free >= 2 * wanted);
        if room && turn.grow_to(wanted).is_ok() {
            watch.spent_since = None;
            self.recover(Party::Reserve);
            return None;
        }
        spent.then(|| now + LOOK_AGAIN)
    }

    /// Leaves at most `wanted` bytes of the reserve to a database that is being closed.
    pub fn cut_reserve(&self, wanted: u64) {
        let turn = self.reserve.turn();
        if wanted < self.reserve.bytes() {
            cut(&turn, wanted);
        }
    }
}

fn cut(turn: &ReserveTurn<'_>, wanted: u64) {
    if let Err(error) = turn.cut_to(wanted) {
        tracing::warn!(%error, "the reserve stays larger than it need be");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use sluicedb_storage::Error;
    use sluicedb_storage::reserve::SpaceReserve;
    use sluicedb_storage::vfs::fault::ENOSPC;
    use sluicedb_storage::vfs::{Fault, FaultVfs, MemVfs, OperationKind, Vfs};
    use std::path::Path;
    use std::sync::Arc;

    /// Goal: each party whose attempt failed before the reserve was released tries once more,
    /// whoever released it, and none tries more than once.
    ///
    /// Planted: only the party that releases it tries again; every party does while it is spent.
    #[test]
    fn who_finds_the_disk_full_before_a_release_tries_again_whoever_released() {
        let vfs = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
        let (disk, path): (Arc<dyn Vfs>, _) = (vfs.clone(), Path::new("/000007.sst"));
        let failures = Failures::new(SpaceReserve::adopt(&disk, Path::new("/")));
        failures.reserve.turn().grow_to(64 << 10).expect("there is room");
        // The disk is full until the reserve is released.
        vfs.control().arm(Fault::of(OperationKind::Create).errno(ENOSPC).sticky());
        let attempt = || {
            let releases = failures.reserve.releases();
            let made = disk.create(path).map(drop);
            (made.map_err(|e| Failure::storage(Error::io("create", path, e))), releases)
        };
        let (first, second, third) = (attempt(), attempt(), attempt());
        let tries_again = |(made, releases): (Result<(), Failure>, u64)| {
            failures.use_reserve(&made.expect_err("the disk is full"), releases)
        };
        assert!(tries_again(first), "it releases the reserve");
        assert!(tries_again(second), "it failed before that");
        vfs.control().disarm();
        assert!(attempt().0.is_ok());
        assert!(tries_again(third), "this one, too");
        vfs.control().arm(Fault::of(OperationKind::Create).errno(ENOSPC).sticky());
        assert!(!tries_again(attempt()), "nothing was released since");
    }

    /// Goal: the disk is full, and the reserve cannot be let go of. The version manager is not
    /// woken to look for room: it would fail in the same way, and wake itself for ever.
    ///
    /// Planted: it is woken whatever became of the release.
    #[test]
    fn a_reserve_that_stays_wakes_nobody() {
        let vfs = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
        let disk: Arc<dyn Vfs> = vfs.clone();
        let failures = Failures::new(SpaceReserve::adopt(&disk, Path::new("/")));
        failures.reserve.turn().grow_to(64 << 10).expect("there is room");
        let path = Path::new("/000007.sst");
        let full = std::io::Error::from_raw_os_error(ENOSPC);
        let full = Failure::storage(Error::io("create", path, full));
        vfs.control().arm(Fault::of(OperationKind::Remove).errno(ENOSPC).sticky());
        assert!(!failures.use_reserve(&full, failures.reserve.releases()));
        assert!(failures.reserve_due.wait().now_or_never().is_none());
        vfs.control().disarm();
        assert!(failures.use_reserve(&full, failures.reserve.releases()));
        assert!(failures.reserve_due.wait().now_or_never().is_some());
    }

    #[test]
    fn a8f_the_reserve_follows_the_database_in_steps() {
        const MIB: u64 = 1 << 20;
        assert_eq!(reserve_wanted(64 * MIB, 0, 0), 64 << 10);
        assert_eq!(reserve_wanted(64 * MIB, 100 << 10, MIB), 112 << 10);
        assert_eq!(reserve_wanted(64 * MIB, 5 * MIB, 32 * MIB), 5 * MIB);
        assert_eq!(reserve_wanted(64 * MIB, 0, 129 * MIB), 5 * MIB);
        assert_eq!(reserve_wanted(64 * MIB, 5 * MIB, 1 << 40), 64 * MIB);
        assert_eq!(reserve_wanted(0, 5 * MIB, 1 << 40), 0);
    }
}
