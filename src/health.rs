//! The database's health as a value one can look at or wait on.

use crate::error::Error;
use sluicedb_actors::failure::Failure;
use sluicedb_actors::kernel::health::State;
use sluicedb_actors::kernel::signal::Watcher;
use std::fmt;

/// How the database is.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum HealthState {
    /// Everything works.
    Running,
    /// Writes that need more room fail with this error for now and resume by themselves; reads go
    /// on. A full disk.
    Degraded(Error),
    /// Writes have stopped for good because of this error; reads go on. Reopen after fixing it.
    Failed(Error),
    /// It was closed; with the failure that had stopped it before, if there was one.
    Closed(Option<Error>),
}

impl HealthState {
    /// Is everything well?
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// The failure, in every state that has one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Running => None,
            Self::Degraded(error) | Self::Failed(error) => Some(error),
            Self::Closed(error) => error.as_ref(),
        }
    }
}

/// A watch on a database's [`HealthState`]. Does not keep the database open.
pub struct Health {
    watcher: Watcher<State<Failure>>,
}

impl Health {
    pub(crate) fn new(watcher: Watcher<State<Failure>>) -> Self {
        Self { watcher }
    }

    /// The state now.
    pub fn state(&mut self) -> HealthState {
        public(self.watcher.get())
    }

    /// Waits until the state is another one than `state` or `changed` returned last.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
    pub async fn changed(&mut self) -> HealthState {
        public(self.watcher.changed().await)
    }
}

fn public(state: State<Failure>) -> HealthState {
    match state {
        State::Running => HealthState::Running,
        State::Degraded(cause) => HealthState::Degraded(cause.into()),
        State::Failed(cause) => HealthState::Failed(cause.into()),
        State::Closed(cause) => HealthState::Closed(cause.map(Error::from)),
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}
