//! What could not be merged lately, and when it is tried again. No I/O in here.

use crate::failure::Failure;
use crate::failure::backoff::{LASTING, LONGEST, LONGEST_NO_SPACE, Retry};
use sluicedb_storage::version::{RangeId, SliceName, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A slice whose jobs failed.
#[derive(Debug)]
struct Setback {
    range: RangeId,
    retry: Retry,
    /// Are its bytes wrong, or is its file missing?
    damaged: bool,
    /// The failure, if it is to be shown.
    shown: Option<Failure>,
}

/// A pause of all jobs.
#[derive(Debug)]
struct Pause {
    retry: Retry,
    failure: Failure,
    shown: bool,
}

/// The slices that are set aside, each until its own time. Jobs that do not need them go on, even
/// jobs that need another part of the same file. Some failures are no slice's fault: a full disk,
/// and the failure of a job without inputs, which only writes the manifest. These make all jobs
/// pause. The pause for a full disk is never long.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    slices: BTreeMap<SliceName, Setback>,
    all: Option<Pause>,
}

/// Whose trouble a failure is: that of `range`, or everybody's (`None`).
pub(super) fn whose(range: RangeId, inputs: &[SliceName], failure: &Failure) -> Option<RangeId> {
    (!failure.is_no_space() && !inputs.is_empty()).then_some(range)
}

impl Setbacks {
    /// A job of `range` with these inputs failed. Sets aside what is to blame: the slices of one
    /// table, if the failure names it; otherwise all inputs; or everything. Returns the length of
    /// the pause.
    pub(super) fn failed(
        &mut self,
        range: RangeId,
        inputs: &[SliceName],
        failure: &Failure,
        now: Instant,
    ) -> Duration {
        if whose(range, inputs, failure).is_none() {
            let full = failure.is_no_space();
            let mut retry = self.all.take().map_or(Retry::fresh(now), |pause| pause.retry);
            let pause = retry.failed(now, if full { LONGEST_NO_SPACE } else { LONGEST });
            let shown = full || pause >= LASTING;
            self.all = Some(Pause { retry, failure: failure.clone(), shown });
            return pause;
        }
        let named = failure.table();
        let is_named = |name: &&SliceName| Some(name.table) == named;
        let of_table: Vec<_> = inputs.iter().filter(is_named).collect();
        let blamed = if of_table.is_empty() { inputs.iter().collect() } else { of_table };
        let mut longest = Duration::ZERO;
        for name in &blamed {
            let setback = self.slices.entry((*name).clone()).or_insert_with(|| Setback {
                range,
                retry: Retry::fresh(now),
                damaged: false,
                shown: None,
            });
            setback.damaged |= failure.is_damage();
            longest = longest.max(setback.retry.failed(now, LONGEST));
        }
        // Nobody is refused because of a failure that may be over in a moment.
        if failure.is_damage() || longest >= LASTING {
            for name in blamed {
                let setback = self.slices.get_mut(name).expect("just set aside");
                setback.shown = Some(failure.clone());
            }
        }
        longest
    }

    /// A job that wrote tables was installed, so there is space, and its inputs are in order.
    pub(super) fn succeeded(&mut self, inputs: &[SliceName]) {
        self.all = None;
        for name in inputs {
            self.slices.remove(name);
        }
    }

    /// A job that wrote no table was installed. That proves nothing about space for tables.
    pub(super) fn edited(&mut self) {
        self.all.take_if(|pause| !pause.failure.is_no_space());
    }

    /// Forgets slices that are gone. If a range is gone, its slices belong to another range now.
    pub(super) fn prune(&mut self, version: &Version) {
        if self.slices.is_empty() {
            return;
        }
        let live = version.slices().map(|(range, _, slice)| (slice.name(), range));
        let live: BTreeMap<_, _> = live.collect();
        self.slices.retain(|name, setback| {
            live.get(name).inspect(|range| setback.range = **range).is_some()
        });
    }

    /// Lets everything be tried now. A caller has asked for it.
    pub(super) fn try_now(&mut self, now: Instant) {
        for setback in self.slices.values_mut() {
            setback.retry.try_now(now);
        }
        if let Some(pause) = &mut self.all {
            pause.retry.try_now(now);
        }
    }

    /// The slices that no job may use now. `None` if no job may run at all.
    pub(super) fn set_aside(&self, now: Instant) -> Option<BTreeSet<SliceName>> {
        if self.all.as_ref().is_some_and(|pause| pause.retry.waits(now)) {
            return None;
        }
        let waiting = self.slices.iter().filter(|(_, setback)| setback.retry.waits(now));
        Some(waiting.map(|(name, _)| name.clone()).collect())
    }

    /// When the next thing that is set aside may be tried again.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        let tables = self.slices.values().map(|setback| &setback.retry);
        let all = self.all.as_ref().map(|pause| &pause.retry);
        tables.chain(all).filter(|retry| retry.waits(now)).map(Retry::at).min()
    }

    /// For whom a compaction trouble is shown, and why. These are ranges with a slice that is
    /// damaged, or has failed for long, and has not been merged since. It is everybody (`None`)
    /// while the disk is full, or while the manifest could not be written for long.
    pub(super) fn troubles(&self) -> BTreeMap<Option<RangeId>, Failure> {
        let of = |setback: &Setback| Some((Some(setback.range), setback.shown.clone()?));
        let all = self.all.as_ref().filter(|pause| pause.shown);
        let all = all.map(|pause| (None, pause.failure.clone()));
        self.slices.values().filter_map(of).chain(all).collect()
    }

    /// Nothing waits to be tried again, and nothing is due, so what failed is not wanted any more.
    /// Only damage remains.
    pub(super) fn nothing_due(&mut self) {
        self.all = None;
        self.slices.retain(|_, setback| setback.damaged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};
    use sluicedb_storage::Error;
    use sluicedb_storage::filename::{FileKind, FileNumber};
    use std::path::Path;

    fn damage(number: u64) -> Failure {
        let path = FileKind::Table(FileNumber(number)).path(Path::new("/db"));
        Failure::storage(Error::corrupt(&path, 77, "planted"))
    }

    fn io(errno: i32) -> Failure {
        let path = Path::new("/db/000099.tmp");
        Failure::storage(Error::io("write", path, std::io::Error::from_raw_os_error(errno)))
    }

    const RANGE: RangeId = RangeId(1);
    fn part(number: u64, min: &'static [u8]) -> SliceName {
        SliceName { table: FileNumber(number), min_key: min.into() }
    }

    fn inputs() -> [SliceName; 3] {
        [part(4, b"a"), part(5, b"a"), part(6, b"a")]
    }

    #[test]
    fn a7_a_damaged_table_is_set_aside_alone_and_its_pause_doubles() {
        let (mut setbacks, now) = (Setbacks::default(), ThreadRuntime::new(&[]).now());
        let first = setbacks.failed(RANGE, &inputs(), &damage(5), now);
        assert_eq!(setbacks.set_aside(now), Some([part(5, b"a")].into()));
        assert_eq!(setbacks.next_try(now), Some(now + first));
        let later = now + first;
        assert_eq!(setbacks.set_aside(later), Some([].into()), "it is tried again");
        assert_eq!(setbacks.next_try(later), None, "and nothing wakes anybody before it was");
        assert!(setbacks.failed(RANGE, &inputs(), &damage(5), later) > first);
        assert!(setbacks.troubles().contains_key(&Some(RANGE)));
        setbacks.succeeded(&[part(4, b"a"), part(6, b"a")]);
        assert!(setbacks.troubles().contains_key(&Some(RANGE)), "jobs around it do not mend it");
        setbacks.nothing_due();
        assert!(setbacks.troubles().contains_key(&Some(RANGE)), "nor does it mend by itself");
        setbacks.succeeded(&[part(5, b"a")]);
        assert!(setbacks.troubles().is_empty());
    }

    /// Planted: the whole file is set aside.
    #[test]
    fn a7_another_part_of_the_same_file_is_not_set_aside() {
        let (mut setbacks, now) = (Setbacks::default(), ThreadRuntime::new(&[]).now());
        setbacks.failed(RANGE, &[part(5, b"a"), part(7, b"c")], &io(5), now);
        let aside = setbacks.set_aside(now).expect("there is space");
        assert!(aside.contains(&part(5, b"a")) && !aside.contains(&part(5, b"m")));
        setbacks.failed(RANGE, &[part(5, b"m"), part(8, b"m")], &damage(5), now);
        let aside = setbacks.set_aside(now).expect("there is space");
        assert!(aside.contains(&part(5, b"m")) && !aside.contains(&part(8, b"m")));
        setbacks.succeeded(&[part(5, b"a")]);
        let aside = setbacks.set_aside(now).expect("there is space");
        assert_eq!(aside, [part(5, b"m"), part(7, b"c")].into());
    }

    #[test]
    fn a7_who_is_not_named_is_not_to_blame_alone() {
        let (mut setbacks, now) = (Setbacks::default(), ThreadRuntime::new(&[]).now());
        setbacks.failed(RANGE, &inputs(), &io(5), now);
        assert_eq!(setbacks.set_aside(now), Some(inputs().into()));
        setbacks.try_now(now);
        assert_eq!(setbacks.set_aside(now), Some([].into()));
        setbacks.nothing_due();
        assert!(setbacks.troubles().is_empty(), "nobody wants them merged any more");
    }

    /// A job without inputs: it moves the shard bounds of a range in which nothing has landed.
    ///
    /// Planted: only the inputs pause, and there are none.
    #[test]
    fn a_job_without_inputs_that_fails_pauses_as_well() {
        let (mut setbacks, mut now) = (Setbacks::default(), ThreadRuntime::new(&[]).now());
        let mut last = Duration::ZERO;
        while last < LASTING {
            assert!(setbacks.troubles().is_empty(), "it may be over in a moment");
            let pause = setbacks.failed(RANGE, &[], &io(5), now);
            assert!(pause > last, "{pause:?}");
            assert_eq!(
                (setbacks.set_aside(now), setbacks.next_try(now)),
                (None, Some(now + pause))
            );
            (now, last) = (now + pause, pause);
            assert_eq!(setbacks.set_aside(now), Some([].into()));
        }
        assert!(setbacks.troubles().contains_key(&None));
        setbacks.edited();
        assert!(setbacks.troubles().is_empty());
        setbacks.failed(RANGE, &[], &io(28), now);
        setbacks.edited();
        assert!(setbacks.troubles().contains_key(&None), "there is no space still");
    }

    #[test]
    fn a8d_a_full_disk_makes_all_pause_but_not_for_long() {
        let (mut setbacks, mut now) = (Setbacks::default(), ThreadRuntime::new(&[]).now());
        for _ in 0..20 {
            let pause = setbacks.failed(RANGE, &inputs(), &io(28), now);
            assert!(pause <= LONGEST_NO_SPACE);
            assert_eq!(setbacks.set_aside(now), None);
            now += pause;
            assert_eq!(setbacks.set_aside(now), Some([].into()));
        }
        assert!(setbacks.troubles().contains_key(&None));
        setbacks.succeeded(&[]);
        assert!(setbacks.troubles().is_empty());
    }
}
