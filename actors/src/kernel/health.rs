//! How the engine is: `Running <-> Degraded -> Failed -> Closed`.
//!
//! Guarantees: the first failure wins and is what everybody is told; no way leads back from `Failed`
//! or `Closed`; a change wakes every watcher; asking on the hot path is one atomic load. A check made
//! behind the same seat as the work it guards cannot be overtaken by a failure declared there.
//! Does not: know what a cause is, nor close anything; those who watch do.

use super::signal::{Watch, Watcher};
use super::sync::atomic::{AtomicU8, Ordering};
use super::sync::{Arc, block_on};

/// The states. `C` is the cause, usually an `Arc` of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State<C> {
    /// All is well.
    Running,
    /// Some writes are refused for now (a full disk); may go back to `Running`.
    Degraded(C),
    /// No write and no acknowledgement any more; reads go on. Final for this incarnation.
    Failed(C),
    /// Closed; with the first failure, if there was one.
    Closed(Option<C>),
}

/// Why work is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down<C> {
    /// Refused for now.
    Degraded(C),
    /// Refused for good.
    Failed(C),
    /// Closed; with the first failure, if there was one.
    Closed(Option<C>),
}

const RUNNING: u8 = 0;
const DEGRADED: u8 = 1;
const FAILED: u8 = 2;
const CLOSED: u8 = 3;

/// See the module. Clones share one state.
pub struct Health<C> {
    /// The state's number, stored before the watch lets go of its lock.
    level: Arc<AtomicU8>,
    watch: Watch<State<C>>,
}

opaque_debug!("Health", [C] Health<C>);

impl<C> Clone for Health<C> {
    fn clone(&self) -> Self {
        Self { level: Arc::clone(&self.level), watch: self.watch.clone() }
    }
}

impl<C: Clone + Send + Sync> Default for Health<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clone + Send + Sync> Health<C> {
    /// Running.
    pub fn new() -> Self {
        Self { level: Arc::new(AtomicU8::new(RUNNING)), watch: Watch::new(State::Running) }
    }

    /// `Ok` while running or degraded.
    #[inline]
    pub fn check(&self) -> Result<(), Down<C>> {
        if self.level.load(Ordering::Acquire) <= DEGRADED { Ok(()) } else { Err(self.down()) }
    }

    /// `Ok` while running; for what a degraded engine refuses.
    #[inline]
    pub fn check_running(&self) -> Result<(), Down<C>> {
        if self.level.load(Ordering::Acquire) == RUNNING {
            return Ok(());
        }
        match self.state() {
            // It recovered between the two looks.
            State::Running => Ok(()),
            State::Degraded(cause) => Err(Down::Degraded(cause)),
            State::Failed(cause) => Err(Down::Failed(cause)),
            State::Closed(cause) => Err(Down::Closed(cause)),
        }
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

    /// The state now.
    pub fn state(&self) -> State<C> {
        self.watch.get()
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<C> {
        match self.state() {
            State::Failed(cause) => Some(cause),
            State::Closed(cause) => cause,
            State::Running | State::Degraded(_) => None,
        }
    }

    fn advance(&self, level: u8, next: impl FnOnce(&State<C>) -> Option<State<C>>) -> bool {
        self.watch.update(|state| {
            let next = next(state)?;
            self.level.store(level, Ordering::Release);
            Some(next)
        })
    }

    /// Fails for good, unless failed or closed already; did this call decide?
    pub fn fail(&self, cause: C) -> bool {
        self.advance(FAILED, |state| match state {
            State::Running | State::Degraded(_) => Some(State::Failed(cause)),
            State::Failed(_) | State::Closed(_) => None,
        })
    }

    /// Degrades, or replaces the cause; does nothing once failed or closed.
    pub fn degrade(&self, cause: C) -> bool {
        self.advance(DEGRADED, |state| match state {
            State::Running | State::Degraded(_) => Some(State::Degraded(cause)),
            State::Failed(_) | State::Closed(_) => None,
        })
    }

    /// Back from degraded to running.
    pub fn recover(&self) -> bool {
        self.advance(RUNNING, |state| matches!(state, State::Degraded(_)).then_some(State::Running))
    }

    /// Closes, whatever the state was; keeps the first failure.
    pub fn close(&self) -> bool {
        self.advance(CLOSED, |state| match state {
            State::Running | State::Degraded(_) => Some(State::Closed(None)),
            State::Failed(cause) => Some(State::Closed(Some(cause.clone()))),
            State::Closed(_) => None,
        })
    }

    /// A watcher that has seen the present state.
    pub fn watcher(&self) -> Watcher<State<C>> {
        self.watch.watcher()
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

    /// As [`Health::until_down`], parking this thread. For engine threads only.
    pub fn until_down_blocking(&self) -> Down<C> {
        block_on(self.until_down())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_wins() {
        let health = Health::new();
        assert_eq!((health.check(), health.check_running()), (Ok(()), Ok(())));
        assert!(health.degrade("disk full"));
        assert_eq!(health.check(), Ok(()));
        assert_eq!(health.check_running(), Err(Down::Degraded("disk full")));
        assert!(health.recover());
        assert!(!health.recover());
        assert!(health.fail("sync"));
        assert!(!health.fail("later"));
        assert!(!health.degrade("later") && !health.recover());
        assert_eq!(health.check(), Err(Down::Failed("sync")));
        assert!(health.close());
        assert!(!health.close());
        assert_eq!(health.check_running(), Err(Down::Closed(Some("sync"))));
        assert_eq!(health.failure(), Some("sync"));
    }

    #[test]
    fn a_failure_wakes_those_who_wait() {
        let health = Health::<u32>::new();
        let watched = health.clone();
        let thread = std::thread::spawn(move || watched.until_down_blocking());
        health.degrade(1);
        health.recover();
        health.fail(7);
        assert_eq!(thread.join().expect("the thread returns"), Down::Failed(7));
    }
}
