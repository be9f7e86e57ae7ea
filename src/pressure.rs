//! How near the database is to making writers wait, as a value one can look at or wait on.

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
    /// Files cannot be written: most often the disk is full; [`health`](crate::Db::health) says
    /// why. Writes that need more room fail with that error and resume by themselves.
    Disk,
    /// A range has many L0 tables: compaction is behind. At `l0_tables_max` its flushes wait.
    L0 {
        /// The range's number.
        range: u32,
    },
    /// The log keeps much that is not in tables yet. At `log_retained_bytes_max` the ranges that
    /// pin it are flushed; no writer waits for that.
    Log,
    /// Memory of the whole database: flushing is behind. At `write_buffer_bytes` all writers wait.
    Memory,
    /// Memory of one range: above 0.5 flushing is behind there. At its limit the writers of this
    /// range wait.
    RangeMemory {
        /// The range's number.
        range: u32,
    },
}

/// How near the database is to making writers wait, and because of what: the highest of all causes.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// From 0.0 (nothing is held) to 1.0 (writers wait for room, or will with the next bytes).
    /// Memory rises and falls with every memtable: a range that is flushed in time goes up to 0.5,
    /// where its memtable is sealed, again and again.
    pub level: f64,
    /// What it is about; `None` at 0.0. Of equally high causes the one that the others follow from.
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
    /// What was short when they began, of several the one that the others follow from: `disk`
    /// (files cannot be written), `l0` (compaction is behind, so flushes are held back),
    /// `range memory`, `memory` (flushes are behind), or `queue` (places in the log's or a range's
    /// mailbox, which turn over by themselves).
    pub cause: &'static str,
    /// How many.
    pub waits: u64,
    /// How long they took, in microseconds. A wait counts when it ends.
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

/// A watch on a database's [`Pressure`]. Any number of them; none slows the database, and none
/// keeps it open.
///
/// It shows steps: a change of the level by 0.05 or more, a new cause, and reaching or leaving 1.0.
/// Writes do not update it; seals, flushes, compactions and writers that begin to wait do. So it
/// may be behind by what each range took in since then, about up to `memtable_bytes`;
/// [`Db::pressure`](crate::Db::pressure) never is.
pub struct PressureWatch {
    watcher: Watcher<Option<Level>>,
    last: Pressure,
    /// The watcher has seen the end: it will see nothing more.
    ended: bool,
}

impl PressureWatch {
    pub(crate) fn new(watcher: Watcher<Option<Level>>) -> Self {
        let mut watch = Self { watcher, last: Pressure::default(), ended: false };
        watch.latest();
        watch
    }

    /// The pressure that was shown last, which counts as seen. After the database was closed or has
    /// failed: the last one before.
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

    /// Waits until another pressure is shown than `latest` or `changed` returned last (at first:
    /// than was shown when the watch was made); changes in between are skipped. `None` once the
    /// database was closed or has failed: there will be no further change, and
    /// [`Health`](crate::Health) says why.
    ///
    /// # Cancellation
    /// Nothing is missed: the next call returns at once.
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
