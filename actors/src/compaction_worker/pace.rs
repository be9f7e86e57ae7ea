//! How fast compactions go: by a rate in bytes, if one is set; otherwise by how much is due.
//!
//! Guarantees: with a rate, all workers together write at most what it allows, plus one slice each.
//! Without a rate, a worker works at least a quarter of the time, and more if more is due. It works
//! all the time when its job is urgent, when writers wait or soon will, and when nobody writes. A
//! worker stops waiting once its job is not wanted, the engine has stopped, or the engine is being
//! closed.
//!
//! Does not: slow a writer or a flush down. It only leaves the disk and the cores to them for a
//! while.

use crate::admission::Accounts;
use crate::compaction_planner::CompactionCounts;
use crate::failure::Failures;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use futures::FutureExt;
use sluicedb_kernel::sync::{Mutex, lock};
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::key::Seqno;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The smallest share of its time that a worker with a job works.
const DUTY_MIN: f64 = 0.25;
/// A shorter wait is postponed, because it would take longer than meant.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How often a waiting worker looks whether its job is still wanted.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// Nobody writes if nothing became visible for this long.
const IDLE_AFTER: Duration = Duration::from_millis(100);
/// Above this pressure no worker waits.
const PRESSURE_MAX: f64 = 0.5;

/// The share of the time to work at this debt: from a quarter at 1.0, which is just due, to all of
/// it at 2.0.
fn duty(debt: f64) -> f64 {
    DUTY_MIN + (1.0 - DUTY_MIN) * (debt - 1.0).clamp(0.0, 1.0)
}

/// How long to wait after `worked`, so that work is this share of the time.
fn owed_after(worked: Duration, duty: f64) -> Duration {
    worked.mul_f64(1.0 / duty - 1.0)
}

/// A leaky bucket that saves nothing up. Whoever has poured bytes in waits until they have run out.
#[derive(Debug)]
struct Rate {
    bytes_per_second: NonZeroU64,
    empty_at: Option<Instant>,
}

impl Rate {
    /// Pours in bytes that were written by `now`. Returns when the bucket is empty again.
    fn pour(&mut self, bytes: u64, now: Instant) -> Instant {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let begins = self.empty_at.map_or(now, |empty_at| empty_at.max(now));
        *self.empty_at.insert(begins + takes)
    }
}

/// What the workers of an engine share.
#[derive(Debug)]
pub struct Pace {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    accounts: Arc<Accounts>,
    topology: Arc<Topology>,
    rate: Option<Mutex<Rate>>,
    /// Is the engine being closed?
    released: Watch<bool>,
}

impl Pace {
    /// The pace that the configuration sets.
    pub fn new(
        environment: &Arc<Environment>,
        accounts: &Arc<Accounts>,
        topology: &Arc<Topology>,
    ) -> Arc<Self> {
        let rate = environment.config.compaction_bytes_per_second;
        let rate = rate.map(|rate| Mutex::new(Rate { bytes_per_second: rate, empty_at: None }));
        Arc::new(Self {
            environment: Arc::clone(environment),
            failures: Arc::clone(&topology.failures),
            accounts: Arc::clone(accounts),
            topology: Arc::clone(topology),
            rate,
            released: Watch::new(false),
        })
    }

    /// From now on nobody waits, because running merges would delay the close.
    pub fn release(&self) {
        self.released.set(true);
    }
}

/// The pause that one worker owes.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Arc<Pace>,
    counts: Arc<CompactionCounts>,
    owed: Duration,
    seen: Seqno,
    seen_at: Instant,
}

/// What a worker did since it last paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worked {
    /// How long it took.
    pub(super) time: Duration,
    /// Bytes written, about.
    pub(super) bytes: u64,
    /// How much is due.
    pub(super) debt: f64,
}

impl Pacer {
    pub(super) fn new(pace: Arc<Pace>, counts: Arc<CompactionCounts>) -> Self {
        let (seen, seen_at) = (pace.topology.visible(), pace.environment.now());
        Self { pace, counts, owed: Duration::ZERO, seen, seen_at }
    }

    /// Lets others run. Then waits as long as the pace asks for, while `goes_on` says that the job
    /// is wanted.
    pub(super) async fn rest(
        &mut self,
        worked: Worked,
        goes_on: &mut (dyn FnMut() -> bool + Send),
    ) {
        let_others_run().await;
        let pace = Arc::clone(&self.pace);
        let now = pace.environment.now();
        let until = self.owe(worked);
        if until < now + WAIT_MIN {
            return;
        }
        self.owed = Duration::ZERO;
        let mut board = pace.accounts.board.watcher();
        let mut released = pace.released.watcher();
        loop {
            let at = pace.environment.now();
            let hurries = pace.rate.is_none() && self.is_urgent(board.get().map(|it| it.level), at);
            if at >= until || hurries || released.get() || pace.failures.is_stopped() || !goes_on()
            {
                let waited = at.saturating_duration_since(now);
                return self.counts.compaction_pace_micros.add(waited.as_micros() as u64);
            }
            let look_at = Some(until.min(at + LOOK_AFTER));
            futures::select! {
                () = pace.environment.until(look_at).boxed().fuse() => {}
                _ = board.changed().fuse() => {}
                _ = released.changed().fuse() => {}
                _ = pace.failures.health.until_down().boxed().fuse() => {}
            }
        }
    }

    /// Counts what was done. Returns when the worker may go on.
    pub(super) fn owe(&mut self, worked: Worked) -> Instant {
        let now = self.pace.environment.now();
        if let Some(rate) = &self.pace.rate {
            return lock(rate).pour(worked.bytes, now);
        }
        self.owed += owed_after(worked.time, duty(worked.debt));
        now + self.owed
    }

    /// Do writers wait, will they soon, or does nobody write?
    fn is_urgent(&mut self, pressure: Option<f64>, now: Instant) -> bool {
        let visible = self.pace.topology.visible();
        if visible != self.seen {
            (self.seen, self.seen_at) = (visible, now);
        }
        let idle = now.saturating_duration_since(self.seen_at) >= IDLE_AFTER;
        idle || pressure.is_none_or(|level| level > PRESSURE_MAX)
    }
}

/// Yields to other tasks of the runtime once. A thread of its own has none.
async fn let_others_run() {
    let mut has_let = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_let, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};

    /// Planted: the share falls with the debt; it is below a quarter; the share is that of the
    /// pause and not of the time.
    #[test]
    fn the_share_of_work_rises_from_a_quarter_to_all_with_the_debt() {
        let millis = |debt: f64| owed_after(Duration::from_millis(30), duty(debt)).as_millis();
        assert_eq!([0.0, 0.5, 1.0].map(millis), [90; 3]);
        // Half of the time: the pause is as long as the work.
        assert_eq!(millis(4.0 / 3.0), 30);
        // Three quarters of the time.
        assert_eq!(millis(5.0 / 3.0), 10);
        assert_eq!([2.0, 5.0, f64::INFINITY].map(millis), [0; 3]);
        let duties: Vec<f64> = (0..=20).map(|tenth| duty(f64::from(tenth) / 10.0)).collect();
        assert!(duties.is_sorted() && duties[0] >= 0.25 && duties[20] <= 1.0, "{duties:?}");
    }

    /// Planted: a bucket per worker; idle time is saved up; bytes cost nothing.
    #[test]
    fn those_who_write_wait_together_for_what_the_rate_lets_them() {
        let rate = NonZeroU64::new(1 << 20).expect("not 0");
        let mut rate = Rate { bytes_per_second: rate, empty_at: None };
        let start = ThreadRuntime::new(&[]).now();
        let at = |millis| start + Duration::from_millis(millis);
        // Two workers at the same time.
        assert_eq!(rate.pour(512 << 10, at(0)), at(500));
        assert_eq!(rate.pour(1 << 20, at(0)), at(1500));
        assert_eq!(rate.pour(0, at(200)), at(1500));
        // One pours before the bucket is empty, and one long after.
        assert_eq!(rate.pour(256 << 10, at(1000)), at(1750));
        assert_eq!(rate.pour(256 << 10, at(9000)), at(9250));
        let mut fastest = Rate { bytes_per_second: NonZeroU64::MAX, empty_at: None };
        assert_eq!(fastest.pour(u64::MAX, at(0)), at(1000));
        let slow = NonZeroU64::new(64 << 10).expect("not 0");
        let mut slowest = Rate { bytes_per_second: slow, empty_at: None };
        assert_eq!(slowest.pour(1 << 30, at(0)), at(16_384_000));
    }
}
