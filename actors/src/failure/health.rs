//! The state of the engine: `Running <-> Degraded -> Failed -> Closed`.
//!
//! Guarantees: the first failure wins, and everybody is told that one. Nothing leads back from
//! `Failed` or `Closed`. Each party that cannot work for now has a cause of its own, which only
//! that party withdraws; the engine is running again when the last cause is gone. A change wakes
//! every watcher. A check on the hot path costs one atomic load. A check made behind the same seat
//! as the work it guards cannot be overtaken by a failure declared there.
//!
//! Does not: know what a party or a cause is, or close anything; watchers do.

use sluicedb_kernel::sync::Arc;
use sluicedb_kernel::sync::atomic::{AtomicU8, Ordering};
use sluicedb_kernel::watch::{Watch, Watcher};
use std::fmt;

/// The states. `C` is a cause, usually an `Arc` of an error. `P` says whose cause it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<P, C> {
    /// Every party can work.
    Running,
    /// Some parties cannot work for now, for example because the disk is full: which, and why, in
    /// the order in which it began. Never empty. May go back to `Running`.
    Degraded(Vec<(P, C)>),
    /// No write and no acknowledgement any more. Reads go on. Final for this incarnation.
    Failed(C),
    /// Closed. With the first failure, if there was one.
    Closed(Option<C>),
}

impl<P, C> State<P, C> {
    fn level(&self) -> u8 {
        match self {
            Self::Running => RUNNING,
            Self::Degraded(_) => DEGRADED,
            Self::Failed(_) => FAILED,
            Self::Closed(_) => CLOSED,
        }
    }
}

/// Why work is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down<C> {
    /// Refused for good.
    Failed(C),
    /// Closed. With the first failure, if there was one.
    Closed(Option<C>),
}

const RUNNING: u8 = 0;
const DEGRADED: u8 = 1;
const FAILED: u8 = 2;
const CLOSED: u8 = 3;

/// See the module. Clones share one state.
pub struct Health<P, C>(Arc<Shown<P, C>>);

struct Shown<P, C> {
    /// The state's level. Stored before the watch releases its lock.
    level: AtomicU8,
    watch: Watch<State<P, C>>,
}

impl<P, C> fmt::Debug for Health<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl<P, C> Clone for Health<P, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Clone + Eq, C: Clone> Default for Health<P, C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Clone + Eq, C: Clone> Health<P, C> {
    /// A running state.
    pub fn new() -> Self {
        let watch = Watch::new(State::Running);
        Self(Arc::new(Shown { level: AtomicU8::new(RUNNING), watch }))
    }

    /// `Ok` while running or degraded.
    #[inline]
    pub fn check(&self) -> Result<(), Down<C>> {
        if self.0.level.load(Ordering::Acquire) <= DEGRADED { Ok(()) } else { Err(self.down()) }
    }

    /// Can every party work? One atomic load.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.0.level.load(Ordering::Acquire) == RUNNING
    }

    #[cold]
    fn down(&self) -> Down<C> {
        match self.state() {
            State::Failed(cause) => Down::Failed(cause),
            State::Closed(cause) => Down::Closed(cause),
            State::Running | State::Degraded(_) => {
                unreachable!("no way leads back from failed or closed")
            }
        }
    }

    /// The current state.
    pub fn state(&self) -> State<P, C> {
        self.0.watch.get()
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<C> {
        match self.state() {
            State::Failed(cause) => Some(cause),
            State::Closed(cause) => cause,
            State::Running | State::Degraded(_) => None,
        }
    }

    fn advance(&self, next: impl FnOnce(&State<P, C>) -> Option<State<P, C>>) -> bool {
        self.0.watch.update(|state| {
            let next = next(state)?;
            self.0.level.store(next.level(), Ordering::Release);
            Some(next)
        })
    }

    /// Fails for good, unless failed or closed already. Did this call decide?
    pub fn fail(&self, cause: C) -> bool {
        self.advance(|state| match state {
            State::Running | State::Degraded(_) => Some(State::Failed(cause)),
            State::Failed(_) | State::Closed(_) => None,
        })
    }

    /// `party` cannot work for now because of `cause`, which replaces an earlier cause of the
    /// party. Does nothing once failed or closed.
    pub fn degrade(&self, party: P, cause: C) -> bool {
        self.advance(|state| {
            let mut causes = match state {
                State::Running => Vec::new(),
                State::Degraded(causes) => causes.clone(),
                State::Failed(_) | State::Closed(_) => return None,
            };
            match causes.iter_mut().find(|(other, _)| *other == party) {
                Some((_, earlier)) => *earlier = cause,
                None => causes.push((party, cause)),
            }
            Some(State::Degraded(causes))
        })
    }

    /// `party` works again. Withdraws its cause; without causes the engine is running.
    pub fn recover(&self, party: &P) -> bool {
        // This is called after each success, so a healthy party pays one load. A party that has set
        // a cause sees its own store.
        if self.0.level.load(Ordering::Acquire) != DEGRADED {
            return false;
        }
        self.advance(|state| {
            let State::Degraded(causes) = state else { return None };
            let left: Vec<_> = causes.iter().filter(|(other, _)| other != party).cloned().collect();
            if left.len() == causes.len() {
                return None;
            }
            Some(if left.is_empty() { State::Running } else { State::Degraded(left) })
        })
    }

    /// Closes, whatever the state was; keeps the first failure.
    pub fn close(&self) -> bool {
        self.advance(|state| match state {
            State::Running | State::Degraded(_) => Some(State::Closed(None)),
            State::Failed(cause) => Some(State::Closed(Some(cause.clone()))),
            State::Closed(_) => None,
        })
    }

    /// A watcher. The current state counts as seen by it.
    pub fn watcher(&self) -> Watcher<State<P, C>> {
        self.0.watch.watcher()
    }

    /// Resolves once failed or closed.
    pub async fn until_down(&self) -> Down<C> {
        let mut watcher = self.watcher();
        loop {
            if let Err(down) = self.check() {
                return down;
            }
            watcher.changed().await;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use sluicedb_kernel::sync::block_on;

    #[test]
    fn the_first_failure_wins() {
        let health = Health::new();
        assert!(health.check().is_ok() && health.is_running());
        assert!(health.degrade("log", "disk full"));
        assert!(health.check().is_ok() && !health.is_running());
        assert!(health.recover(&"log"));
        assert!(!health.recover(&"log"));
        assert!(health.fail("sync"));
        assert!(!health.fail("later"));
        assert!(!health.degrade("log", "later") && !health.recover(&"log"));
        assert_eq!(health.check(), Err(Down::Failed("sync")));
        assert!(health.close());
        assert!(!health.close());
        assert_eq!(health.check(), Err(Down::Closed(Some("sync"))));
        assert_eq!(health.failure(), Some("sync"));
    }

    #[test]
    fn a8e_each_party_clears_its_own_cause_only() {
        let health = Health::new();
        assert!(health.degrade("flush", 1));
        assert!(health.degrade("log", 2));
        assert!(health.degrade("flush", 3));
        assert_eq!(health.state(), State::Degraded(vec![("flush", 3), ("log", 2)]));
        assert!(!health.recover(&"compaction"));
        assert!(health.recover(&"flush"));
        assert_eq!(health.state(), State::Degraded(vec![("log", 2)]));
        assert!(!health.is_running());
        assert!(health.recover(&"log"));
        assert_eq!((health.state(), health.is_running()), (State::Running, true));
    }

    #[test]
    fn a_failure_wakes_those_who_wait() {
        let health = Health::<&str, u32>::new();
        let watched = health.clone();
        let thread = std::thread::spawn(move || block_on(watched.until_down()));
        health.degrade("log", 1);
        health.recover(&"log");
        health.fail(7);
        assert_eq!(thread.join().expect("the thread returns"), Down::Failed(7));
    }
}
