//! How close the database is to making writers wait, as a value to look at or to wait for.

use sluicedb_actors::admission::Accounts;
use sluicedb_actors::admission::pressure::{Cause, Pressure as Level, Stall};
use sluicedb_actors::admission::waits::WaitCounts;
use sluicedb_kernel::watch::Watcher;
use std::fmt;

/// What is short.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PressureCause {
    /// Files cannot be written. Most often the disk is full; [`health`](crate::Db::health) says
    /// why. Writes that need more room fail with that error. They succeed again by themselves once
    /// there is space.
    Disk,
    /// A range has many runs in L0: compaction is behind. At `l0_tables_max` its flushes wait.
    L0 {
        /// The range's number.
        range: u32,
    },
    /// Much of the log is retained because it is not in tables yet. At `log_retained_bytes_max` the
    /// ranges that pin it are flushed. No writer waits for that.
    Log,
    /// Memory of the whole database: flushes are behind. At `write_buffer_bytes` all writers wait.
    Memory,
    /// Memory of one range: above 0.5 its flushes are behind. At its limit the writers of this
    /// range wait.
    RangeMemory {
        /// The range's number.
        range: u32,
    },
}

/// How close the database is to making writers wait, and why: the highest level of all causes.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// From 0.0 (nothing is held) to 1.0 (writers wait for room, or will with the next bytes).
    /// Memory rises and falls with every memtable: a range that is flushed in time rises to 0.5
    /// again and again, where its memtable is sealed.
    pub level: f64,
    /// The cause of the level. `None` at 0.0. Of equally high causes the root cause.
    pub cause: Option<PressureCause>,
}

impl From<Level> for Pressure {
    fn from(level: Level) -> Self {
        let cause = level.cause.map(|cause| match cause {
            Cause::Disk => PressureCause::Disk,
            Cause::L0(range) => PressureCause::L0 { range: range.0 },
            Cause::Log => PressureCause::Log,
            Cause::Memory => PressureCause::Memory,
            Cause::RangeMemory(range) => PressureCause::RangeMemory { range: range.0 },
        });
        Self { level: level.level, cause }
    }
}

impl fmt::Display for PressureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("files cannot be written (the health says why)"),
            Self::L0 { range } => write!(f, "L0 tables of range {range}"),
            Self::Log => f.write_str("retained log"),
            Self::Memory => f.write_str("memory"),
            Self::RangeMemory { range } => write!(f, "memory of range {range}"),
        }
    }
}

/// Waits for room with one cause, since the database was opened.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallStats {
    /// The cause when they began, and of several the root cause: `disk` (files cannot be written),
    /// `l0` (compaction is behind, so flushes are held back), `range memory`, `memory` (flushes are
    /// behind), or `queue` (places in the mailbox of the log or of a range, which turn over by
    /// themselves).
    pub cause: &'static str,
    /// How many waits began.
    pub waits: u64,
    /// Their total duration, in microseconds. A wait counts when it ends.
    pub micros: u64,
}

impl StallStats {
    pub(crate) fn all(accounts: &Accounts) -> Vec<Self> {
        let of = |(stall, counts): (&Stall, &WaitCounts)| Self {
            cause: match stall {
                Stall::Disk => "disk",
                Stall::L0 => "l0",
                Stall::RangeMemory => "range memory",
                Stall::Memory => "memory",
                Stall::Queue => "queue",
            },
            waits: counts.waits(),
            micros: counts.micros(),
        };
        Stall::ALL.iter().zip(&accounts.stalls).map(of).collect()
    }
}

/// A watch on a database's [`Pressure`]. There may be any number of them. None slows the database
/// down, and none keeps it open.
///
/// It shows steps: a change of the level by at least 0.05, a new cause, and reaching or leaving
/// 1.0. Seals, flushes, compactions, and writers that begin to wait update it; other writes do not.
/// So it may lag by what each range has taken in since then, up to about `memtable_bytes`.
/// [`Db::pressure`](crate::Db::pressure) never lags.
pub struct PressureWatch {
    watcher: Watcher<Option<Level>>,
    last: Pressure,
    /// Has the watcher seen the end? Then it sees nothing more.
    ended: bool,
}

impl PressureWatch {
    pub(crate) fn new(watcher: Watcher<Option<Level>>) -> Self {
        let mut watch = Self { watcher, last: Pressure::default(), ended: false };
        watch.latest();
        watch
    }

    /// The pressure that was shown last, which counts as seen. After the database was closed or has
    /// failed, the last one before that.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let mut watch = db.pressure_watch();
    /// assert!(watch.latest().level < 1.0, "no writer waits");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn latest(&mut self) -> Pressure {
        let shown = self.watcher.get();
        self.note(shown);
        self.last
    }

    fn note(&mut self, shown: Option<Level>) {
        match shown {
            Some(level) => self.last = level.into(),
            None => self.ended = true,
        }
    }

    /// Waits until a pressure is shown that differs from what `latest` or `changed` returned last
    /// (at first, from what was shown when the watch was made). Changes in between are skipped.
    /// Returns `None` once the database was closed or has failed: nothing changes any more, and
    /// [`Health`](crate::Health) says why.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let mut watch = db.pressure_watch();
    /// let shed = tokio::spawn(async move {
    ///     while let Some(pressure) = watch.changed().await {
    ///         println!("level {}, {:?}", pressure.level, pressure.cause);
    ///     }
    /// });
    /// db.close().await?;
    /// shed.await.unwrap(); // it ends with the database
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub async fn changed(&mut self) -> Option<Pressure> {
        if !self.ended {
            let shown = self.watcher.changed().await;
            self.note(shown);
        }
        (!self.ended).then_some(self.last)
    }
}

impl fmt::Debug for PressureWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PressureWatch").field("last", &self.last).finish_non_exhaustive()
    }
}
