//! The database's health as a value one can look at or wait on.

use crate::error::Error;
use sluicedb_actors::failure::health::State;
use sluicedb_actors::failure::{Concern, Failure, Party as Who};
use sluicedb_kernel::watch::Watcher;
use std::fmt;

/// How the database is.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum HealthState {
    /// Everything works.
    Running,
    /// Somebody in the engine cannot do its work for now, for example because the disk is full or
    /// because a table is damaged: these, in the order in which it began. Reads go on, and so do
    /// writes that find room in memory. A write that does not find any fails with one of these
    /// errors if it is what keeps room from coming; it waits as ever if not, and to its deadline
    /// for what may pass. Resumes by itself.
    Degraded(Vec<Trouble>),
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

    /// The first failure, in every state that has one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Running => None,
            Self::Degraded(troubles) => troubles.first().map(|trouble| &trouble.error),
            Self::Failed(error) => Some(error),
            Self::Closed(error) => error.as_ref(),
        }
    }
}

/// Who cannot do its work.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The log: it cannot make its next segment.
    Log,
    /// The log: what was appended cannot be written. Only where a file system has no room for what
    /// it had given before (copy-on-write, delayed allocation).
    LogWrites,
    /// Flushing: memory cannot be written out as tables.
    Flush,
    /// Compaction: tables cannot be merged.
    Compaction,
    /// The manifest: the list of tables cannot be written.
    Manifest,
    /// The space reserve: the disk was full, and what was set aside for that is in use. Until it
    /// can be set aside again, deletes are taken and other writes are refused.
    Reserve,
}

/// What keeps a party from its work, for now.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Who cannot work.
    pub party: Party,
    /// For which range, if it is not for all.
    pub range: Option<u32>,
    /// Why: the newest failure of this party.
    pub error: Error,
}

impl Trouble {
    pub(crate) fn all(causes: Vec<(Concern, Failure)>) -> Vec<Self> {
        let one = |(concern, failure): (Concern, Failure)| {
            let party = match concern.party {
                Who::Log => Party::Log,
                Who::LogWrites => Party::LogWrites,
                Who::Flush => Party::Flush,
                Who::Compaction => Party::Compaction,
                Who::Manifest => Party::Manifest,
                Who::Reserve => Party::Reserve,
            };
            Self { party, range: concern.range.map(|range| range.0), error: failure.into() }
        };
        causes.into_iter().map(one).collect()
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::LogWrites => "log writes",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Manifest => "manifest",
            Self::Reserve => "space reserve",
        })
    }
}

/// A watch on a database's [`HealthState`]. Does not keep the database open.
pub struct Health {
    watcher: Watcher<State<Concern, Failure>>,
}

impl Health {
    pub(crate) fn new(watcher: Watcher<State<Concern, Failure>>) -> Self {
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

fn public(state: State<Concern, Failure>) -> HealthState {
    match state {
        State::Running => HealthState::Running,
        State::Degraded(causes) => HealthState::Degraded(Trouble::all(causes)),
        State::Failed(cause) => HealthState::Failed(cause.into()),
        State::Closed(cause) => HealthState::Closed(cause.map(Error::from)),
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}
