//! How close the engine is to making writers wait, and why.
//!
//! Guarantees: [`Board::measure`] is exact at the moment of the call and costs a few loads per
//! range. Watchers see what [`Board::look`] measured last, in steps; there may be any number of
//! them, and publishing never waits for one. A put measures nothing. The version manager looks
//! after each message, and any party when it finds the disk full or in order again. A writer that
//! begins to wait measures only the room that it waits for: its thread is a caller's, and there may
//! be thousands of ranges. So the board lags by what the active memtables have taken in since.
//! Whoever has measured is shown unless somebody who began later has been: what is shown last was
//! measured after everything that its watchers were to be told of.
//!
//! Does not: slow anybody down. The accounts do that (`gate`).

use super::RangeBudget;
use crate::config::EngineConfig;
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::watch::{Watch, Watcher};
use sluicedb_storage::version::{Layer, Place, RangeId, RangeVersion};
use sluicedb_storage::view::Superversion;
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The board publishes a change of the level of at least this size. It publishes at once a new
/// cause, and reaching or leaving 1.0.
pub const STEP: f64 = 0.05;
/// Tolerates binary rounding: the third L0 table of twenty is one step above the second, although
/// 0.15 - 0.1 < 0.05 in binary.
const ROUNDING: f64 = 1e-9;

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Space on the disk.
    Disk,
    /// Places in L0 of a range: compaction is behind.
    L0(RangeId),
    /// Log that must be retained: a flush is forced soon.
    Log,
    /// Memory of the engine: flushing is behind.
    Memory,
    /// Memory of one range.
    RangeMemory(RangeId),
}

/// The highest level of all causes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// From 0.0 (nothing is held) to 1.0 (writers wait, or will with the next bytes).
    pub level: f64,
    /// The cause of the level. `None` at 0.0.
    pub cause: Option<Cause>,
}

impl Pressure {
    /// Replaces the cause by one with a higher level. Of equal levels the first one stays.
    fn raise(&mut self, level: f64, cause: Cause) {
        if level > self.level {
            *self = Self { level, cause: Some(cause) };
        }
    }

    /// The range whose L0 is full, if that is what it says.
    fn full_l0(self) -> Option<RangeId> {
        match self.cause {
            Some(Cause::L0(range)) if self.level >= 1.0 => Some(range),
            _ => None,
        }
    }

    /// Is the change large enough to publish?
    fn differs_from(self, old: Self) -> bool {
        self.cause != old.cause
            || (self.level - old.level).abs() >= STEP - ROUNDING
            || (self.level >= 1.0) != (old.level >= 1.0)
    }
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Files cannot be written.
    Disk,
    /// A range has as many runs in L0 as it may have, so its flushes are held back.
    L0,
    /// Memory of one range.
    RangeMemory,
    /// Memory of the engine.
    Memory,
    /// A place in a queue: of the log, of a range, or of the commits in flight.
    Queue,
}

impl Stall {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Disk, Self::L0, Self::RangeMemory, Self::Memory, Self::Queue];
}

/// Measures the pressure.
pub trait Meter: Send + Sync {
    /// The pressure at this moment.
    fn pressure(&self) -> Pressure;

    /// See [`Gauges::stall`].
    fn stall(&self, range: Option<At>, l0_is_full: bool) -> Stall;
}

/// Where a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Which range.
    pub id: RangeId,
    /// Its position among all, by the routes that named it.
    pub position: usize,
}

/// What watchers see: the pressure, or `None` once the engine has stopped.
pub struct Board {
    shown: Watch<Option<Pressure>>,
    /// How many have begun to measure.
    begun: AtomicU64,
    /// The last of them who has finished. It changes under the lock of `shown`.
    newest: AtomicU64,
    meter: OnceLock<Box<dyn Meter>>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.shown.get()).finish()
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            shown: Watch::new(Some(Pressure::default())),
            begun: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            meter: OnceLock::new(),
        }
    }
}

impl Board {
    /// Sets the meter. Once only.
    pub fn measure_with(&self, meter: Box<dyn Meter>) {
        assert!(self.meter.set(meter).is_ok(), "there is one way to measure it");
    }

    /// The pressure at this moment.
    pub fn measure(&self) -> Pressure {
        self.meter.get().map(|meter| meter.pressure()).unwrap_or_default()
    }

    /// What a write waits for that begins to wait at `range`, or at the engine. If that is room, it
    /// is published: writers wait now, and the version manager, which measures the rest, has not
    /// looked yet. Costs the same for any number of ranges.
    pub(super) fn stall(&self, range: Option<At>) -> Stall {
        let Some(meter) = self.meter.get() else { return Stall::Queue };
        let began = self.begin();
        // A full L0 is published at once, and nothing but a full disk is named in its place.
        let full_l0 = self.shown.get().and_then(Pressure::full_l0);
        let stall = meter.stall(range, full_l0.is_some());
        let range = range.map(|range| range.id);
        let cause = match stall {
            Stall::Disk => Some(Cause::Disk),
            Stall::L0 => range.or(full_l0).map(Cause::L0),
            Stall::RangeMemory => range.map(Cause::RangeMemory),
            Stall::Memory => Some(Cause::Memory),
            Stall::Queue => None,
        };
        if let Some(cause) = cause {
            let now = Pressure { level: 1.0, cause: Some(cause) };
            self.show(began, now, |shown| shown.level < 1.0);
        }
        stall
    }

    /// Measures, and publishes the result if the change is large enough.
    pub fn look(&self) {
        let (began, now) = (self.begin(), self.measure());
        self.show(began, now, |shown| now.differs_from(shown));
    }

    /// A number for somebody who measures from here on. With it he sees what all those changed who
    /// have one already.
    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel)
    }

    /// Shows what was measured from `began` on, unless something newer was.
    fn show(&self, began: u64, now: Pressure, replaces: impl FnOnce(Pressure) -> bool) {
        self.shown.update(|shown| {
            if began < self.newest.load(Ordering::Relaxed) {
                return None;
            }
            self.newest.store(began, Ordering::Relaxed);
            shown.is_some_and(replaces).then_some(Some(now))
        });
    }

    /// Ends the board: watchers see `None`, and no further change.
    pub(crate) fn end(&self) {
        self.shown.update(|shown| shown.is_some().then_some(None));
    }

    /// A watcher. What is shown now counts as seen by it.
    pub fn watcher(&self) -> Watcher<Option<Pressure>> {
        self.shown.watcher()
    }
}

/// What the pressure must know of a range's owner.
pub trait RangeMemory {
    /// 1.0 when the range has no room; see [`range_fullness`].
    fn fullness(&self) -> f64;
}

/// What the pressure is computed from, beside the ranges.
#[derive(Debug)]
pub struct Gauges<'a> {
    /// Capacities.
    pub config: &'a EngineConfig,
    /// The account of the engine.
    pub global: &'a Semaphore,
    /// Has some party found the disk full, and not succeeded since?
    pub disk_full: bool,
    /// Bytes of closed log segments that a recovery would need.
    pub log_retained_bytes: u64,
}

impl Gauges<'_> {
    /// The pressure at this moment. Of equal levels the root cause is named: a full L0 stops
    /// flushes, and that fills the memory.
    pub fn pressure<O: Deref<Target: RangeMemory>>(
        &self,
        superversion: &Superversion<O>,
    ) -> Pressure {
        let mut pressure = Pressure::default();
        if self.disk_full {
            pressure.raise(1.0, Cause::Disk);
        }
        for range in &superversion.ranges {
            let fullness = l0_fullness(&range.stable, self.config);
            pressure.raise(fullness.min(1.0), Cause::L0(range.id()));
        }
        let share = self.log_retained_bytes as f64 / self.config.log_retained_bytes_max as f64;
        pressure.raise(share.min(1.0), Cause::Log);
        pressure.raise(fullness(self.global), Cause::Memory);
        for range in &superversion.ranges {
            pressure.raise(range.owner.fullness(), Cause::RangeMemory(range.id()));
        }
        pressure
    }

    /// What a write that begins to wait at `range`, or at the engine, waits for: the root cause. A
    /// write that waits at a range looks only at that range's L0. `l0_is_full`: is that of any
    /// range?
    pub fn stall<O: Deref<Target: RangeMemory>>(
        &self,
        superversion: &Superversion<O>,
        range: Option<At>,
        l0_is_full: bool,
    ) -> Stall {
        // The routes may have changed since.
        let at = range.and_then(|At { id, position }| {
            let here = superversion.ranges.get(position).filter(|range| range.id() == id);
            here.or_else(|| superversion.range(id))
        });
        let l0_is_full = at.map_or(l0_is_full, |at| !l0_has_room(&at.stable, self.config));
        let memory_is_full = at.map_or(fullness(self.global), |at| at.owner.fullness()) >= 1.0;
        match (range, memory_is_full) {
            _ if self.disk_full => Stall::Disk,
            (_, false) => Stall::Queue,
            (_, true) if l0_is_full => Stall::L0,
            (Some(_), true) => Stall::RangeMemory,
            (None, true) => Stall::Memory,
        }
    }
}

/// How full L0 is. From 1.0 on no further flush is admitted. As with the compaction trigger, runs
/// count. Files count only where there are more of them than that many flushes write.
fn l0_fullness(range: &RangeVersion, config: &EngineConfig) -> f64 {
    let runs_max = config.l0_tables_max;
    let shards = range.own.compaction(&config.compaction).shards;
    let files_max = runs_max.saturating_mul(shards.max(range.shards.count()));
    let share = |count: usize, most: usize| count as f64 / most as f64;
    // Tables that are ahead of memtables wait for a flush, so they must not block it.
    let is_ahead = |layer: &&Layer| layer.run.slices().iter().all(|slice| range.is_ahead(slice));
    let ahead = range.layers.at(Place::L0).iter().filter(is_ahead).count();
    let runs = range.layers.at(Place::L0).len() - ahead;
    let files = range.layers.count(Place::L0) - range.ahead().count();
    share(runs, runs_max).max(share(files, files_max))
}

/// May `range` get the tables of another flush?
pub fn l0_has_room(range: &RangeVersion, config: &EngineConfig) -> bool {
    l0_fullness(range, config) < 1.0
}

/// May `range` get the tables of another flush before its L0 is merged? With them it must not be
/// beyond the middle between the runs that start a merge and those that stop flushes.
pub fn l0_has_slack(range: &RangeVersion, config: &EngineConfig) -> bool {
    let trigger = range.own.compaction(&config.compaction).l0_trigger as f64;
    let runs_max = config.l0_tables_max as f64;
    l0_fullness(range, config) * runs_max + 1.0 <= f64::midpoint(trigger, runs_max)
}

/// How full a range is. It is 1.0 when the active memtable has reached its hard limit, which is the
/// account `local`. While the range is flushed in time, it stays at or below half, where the
/// memtable is sealed. `held_bytes`, everything that the range holds, bounds the queue of sealed
/// memtables.
pub fn range_fullness(local: &Semaphore, held_bytes: usize, budget: &RangeBudget) -> f64 {
    let share = held_bytes as f64 / budget.buffer_bytes as f64;
    fullness(local).max(share.min(1.0))
}

/// How full an account is. It is 1.0 when the account is full, or when somebody waits for it.
fn fullness(account: &Semaphore) -> f64 {
    if account.is_short() {
        return 1.0;
    }
    (account.used() as f64 / account.limit().max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    fn memory(level: f64) -> Pressure {
        Pressure { level, cause: Some(Cause::Memory) }
    }

    #[test]
    fn the_first_of_the_hardest_causes_is_named() {
        let mut pressure = Pressure::default();
        pressure.raise(0.0, Cause::Memory);
        assert_eq!(pressure, Pressure::default());
        for (level, cause) in [
            (0.5, Cause::L0(RangeId(3))),
            (0.5, Cause::Memory),
            (0.75, Cause::RangeMemory(RangeId(4))),
            (0.25, Cause::RangeMemory(RangeId(5))),
        ] {
            pressure.raise(level, cause);
        }
        let cause = Some(Cause::RangeMemory(RangeId(4)));
        assert_eq!(pressure, Pressure { level: 0.75, cause });
    }

    #[test]
    fn small_changes_are_not_told() {
        let board = Board::default();
        let mut watcher = board.watcher();
        let mut told = |level, cause| {
            let now = Pressure { level, cause };
            board.show(board.begin(), now, |shown| now.differs_from(shown));
            watcher.changed().now_or_never().is_some()
        };
        let memory = Some(Cause::Memory);
        assert!(told(0.02, memory), "the cause is new");
        assert!(!told(0.0625, memory));
        assert!(told(0.125, memory), "small changes add up");
        assert!(told(0.125, Some(Cause::Disk)));
        assert!(told(0.97, memory));
        assert!(told(1.0, memory), "from here on writers wait");
        assert!(!told(1.0, memory));
        assert!(told(0.99, memory), "they go on");
        assert!(told(0.0, None));
    }

    #[test]
    fn nothing_is_told_after_the_end() {
        let board = Board::default();
        let mut watcher = board.watcher();
        board.end();
        assert_eq!(watcher.get(), None);
        board.show(board.begin(), memory(0.5), |_| true);
        board.end();
        assert!(watcher.changed().now_or_never().is_none());
    }

    #[test]
    fn an_account_that_somebody_waits_for_is_full() {
        let account = sluicedb_kernel::semaphore::Semaphore::new(100);
        assert_eq!(fullness(&account).to_bits(), 0.0_f64.to_bits());
        let held = account.try_acquire(50).expect("there is room");
        assert_eq!(fullness(&account).to_bits(), 0.5_f64.to_bits());
        let mut large = Box::pin(account.acquire(80));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(large.as_mut().poll(&mut context).is_pending());
        assert_eq!(fullness(&account).to_bits(), 1.0_f64.to_bits());
        drop(large);
        assert_eq!(fullness(&account).to_bits(), 0.5_f64.to_bits());
        drop(held);
    }

    /// A meter for writers that must not walk all ranges.
    struct OfOne(Stall);

    impl Meter for OfOne {
        fn pressure(&self) -> Pressure {
            panic!("all ranges are measured on a caller's thread")
        }

        fn stall(&self, _: Option<At>, _: bool) -> Stall {
            self.0
        }
    }

    /// Goal: a writer that begins to wait does not pay for each range of the engine, and watchers
    /// learn of it at once.
    ///
    /// Planted: `stall` that looks at everything.
    #[test]
    fn who_begins_to_wait_measures_only_what_it_waits_for() {
        let at = At { id: RangeId(3), position: 2 };
        for (stall, range, cause) in [
            (Stall::Disk, Some(at), Some(Cause::Disk)),
            (Stall::L0, Some(at), Some(Cause::L0(RangeId(3)))),
            (Stall::RangeMemory, Some(at), Some(Cause::RangeMemory(RangeId(3)))),
            (Stall::Memory, None, Some(Cause::Memory)),
            (Stall::Queue, None, None),
        ] {
            let board = Board::default();
            board.measure_with(Box::new(OfOne(stall)));
            assert_eq!(board.stall(range), stall);
            let shown = cause.map(|_| Pressure { level: 1.0, cause });
            assert_eq!(board.watcher().get(), Some(shown.unwrap_or_default()));
        }
        // What was measured of all ranges has a better cause.
        let board = Board::default();
        board.measure_with(Box::new(OfOne(Stall::Memory)));
        let full = Pressure { level: 1.0, cause: Some(Cause::L0(RangeId(7))) };
        board.show(board.begin(), full, |_| true);
        assert_eq!(board.stall(None), Stall::Memory);
        assert_eq!(board.watcher().get(), Some(full));
    }

    /// A meter whose first reading, a full one, is held back before it is returned.
    struct HeldBack(Mutex<Option<(SyncSender<()>, Receiver<()>)>>);

    impl Meter for HeldBack {
        fn pressure(&self) -> Pressure {
            let first = self.0.lock().expect("nothing panics under it").take();
            match first {
                Some((measured, go_on)) => {
                    measured.send(()).expect("somebody listens");
                    go_on.recv().expect("somebody lets it go on");
                    memory(1.0)
                }
                None => memory(0.25),
            }
        }

        fn stall(&self, _: Option<At>, _: bool) -> Stall {
            Stall::Queue
        }
    }

    /// Goal: who is interrupted between measuring and publishing does not leave a stale pressure as
    /// the last one, also where the newer one was no change worth telling.
    ///
    /// Planted: `show` that publishes whatever comes last; `newest` only of what is published.
    #[test]
    fn a_pressure_that_others_have_outrun_is_not_shown() {
        for told in [true, false] {
            let ((measured, heard), (let_go, go_on)) = (sync_channel(1), sync_channel(1));
            let board = Board::default();
            board.measure_with(Box::new(HeldBack(Mutex::new(Some((measured, go_on))))));
            if !told {
                board.show(board.begin(), memory(0.25), |_| true);
            }
            std::thread::scope(|scope| {
                scope.spawn(|| board.look());
                heard.recv().expect("it measures");
                board.look();
                let_go.send(()).expect("it waits");
            });
            assert_eq!(board.watcher().get(), Some(memory(0.25)));
        }
    }
}
