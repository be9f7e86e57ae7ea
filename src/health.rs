//! The database's health, as a value to look at or to wait for.

use crate::error::Error;
use sluicedb_actors::failure::health::State;
use sluicedb_actors::failure::{Concern, Failure, Party as Who};
use sluicedb_kernel::watch::Watcher;
use std::fmt;

/// The state of a database.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum HealthState {
    /// Every part of the engine can work.
    Running,
    /// Some parts of the engine cannot work for now, for example because the disk is full or a
    /// table is damaged. This lists them in the order in which that began. Reads go on, and so do
    /// writes that find room in memory. A write that finds none fails with one of these errors if
    /// that error keeps room from becoming free, and waits otherwise. Until its deadline it also
    /// waits for an error that may pass. Work resumes by itself.
    Degraded(Vec<Trouble>),
    /// Writes have stopped for good because of this error. Reads go on. Reopen after fixing it.
    Failed(Error),
    /// It was closed. With the failure that had stopped it before, if there was one.
    Closed(Option<Error>),
}

impl HealthState {
    /// Can every part of the engine work?
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// assert!(db.health().state().is_running());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// The first failure, in every state that has one.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// if let Some(error) = db.health().state().error() {
    ///     println!("not all parts of the engine can work: {error}");
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Running => None,
            Self::Degraded(troubles) => troubles.first().map(|trouble| &trouble.error),
            Self::Failed(error) => Some(error),
            Self::Closed(error) => error.as_ref(),
        }
    }
}

/// A part of the engine that may be unable to work.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The log: its next segment cannot be prepared.
    Log,
    /// The log: what was appended cannot be written. This happens only on file systems that may
    /// have no room for bytes that were allocated before (copy-on-write, delayed allocation).
    LogWrites,
    /// Flushes: memory cannot be written out as tables.
    Flush,
    /// Compaction: tables cannot be merged.
    Compaction,
    /// The manifest: the list of tables cannot be written.
    Manifest,
    /// The space reserve: the disk was full, and the reserved space is in use. Until it can be set
    /// aside again, deletes are accepted and other writes are refused.
    Reserve,
}

/// What keeps a part of the engine from working for now.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Which part.
    pub party: Party,
    /// For which range, if not for all.
    pub range: Option<u32>,
    /// Why: the part's newest failure.
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

    /// The current state, which counts as seen.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::HealthState;
    /// let mut health = db.health();
    /// db.close().await?;
    /// assert!(matches!(health.state(), HealthState::Closed(None)));
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn state(&mut self) -> HealthState {
        public(self.watcher.get())
    }

    /// Waits until the state differs from the one that `state` or `changed` returned last. Nothing
    /// follows `Closed`: end the loop there.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let mut health = db.health();
    /// assert!(health.state().is_running());
    /// let alarm = tokio::spawn(async move { health.changed().await });
    /// db.close().await?;
    /// assert!(!alarm.await.unwrap().is_running());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
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
