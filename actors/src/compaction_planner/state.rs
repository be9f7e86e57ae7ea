//! What could not be merged lately, and when it is tried again. No I/O in here.

use crate::failure::Failure;
use crate::failure::backoff::{Backoff, LASTING, LONGEST_NO_SPACE};
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::version::{RangeId, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A table whose jobs fail.
#[derive(Debug)]
struct Setback {
    range: RangeId,
    backoff: Backoff,
    until: Instant,
    /// Its bytes are wrong, or it is not there.
    damaged: bool,
    /// Why, if that is to be shown.
    shown: Option<Failure>,
}

/// The tables that are set aside, each until its own time: jobs that do not need them go on. A full
/// disk is everybody's, so it makes all jobs pause, but never for long.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    tables: BTreeMap<FileNumber, Setback>,
    no_space: Option<(Backoff, Instant, Failure)>,
}

impl Setbacks {
    /// A job of `range` with these inputs failed; returns how long what is to blame for it pauses: one
    /// table, if it is named, or all inputs, or everything.
    pub(super) fn failed(
        &mut self,
        range: RangeId,
        inputs: &[FileNumber],
        failure: &Failure,
        now: Instant,
    ) -> Duration {
        if failure.is_no_space() {
            let mut backoff = self.no_space.take().map_or_else(Backoff::default, |(old, ..)| old);
            let pause = backoff.after_failure_at_most(LONGEST_NO_SPACE);
            self.no_space = Some((backoff, now + pause, failure.clone()));
            return pause;
        }
        let named = failure.table().filter(|number| inputs.contains(number));
        let blamed = named.as_ref().map_or(inputs, std::slice::from_ref);
        let mut longest = Duration::ZERO;
        for number in blamed {
            let setback = self.tables.entry(*number).or_insert_with(|| Setback {
                range,
                backoff: Backoff::default(),
                until: now,
                damaged: false,
                shown: None,
            });
            setback.damaged |= failure.is_damage();
            let pause = setback.backoff.after_failure();
            setback.until = now + pause;
            longest = longest.max(pause);
        }
        // Nobody is turned away because of something that may be over in a moment.
        if failure.is_damage() || longest >= LASTING {
            for number in blamed {
                let setback = self.tables.get_mut(number).expect("just set aside");
                setback.shown = Some(failure.clone());
            }
        }
        longest
    }

    /// A job that wrote tables was installed: there is space, and nothing is wrong with its inputs.
    pub(super) fn succeeded(&mut self, inputs: &[FileNumber]) {
        self.no_space = None;
        for number in inputs {
            self.tables.remove(number);
        }
    }

    /// Forgets tables that are not there any more; a range that has gone has left its tables to another.
    pub(super) fn prune(&mut self, version: &Version) {
        if self.tables.is_empty() {
            return;
        }
        let live = version.slices().map(|(range, _, slice)| (slice.number(), range));
        let live: BTreeMap<_, _> = live.collect();
        self.tables.retain(|number, setback| {
            live.get(number).inspect(|range| setback.range = **range).is_some()
        });
    }

    /// Somebody asks for everything to be tried now.
    pub(super) fn try_now(&mut self, now: Instant) {
        for setback in self.tables.values_mut() {
            setback.until = now;
        }
        if let Some((_, until, _)) = &mut self.no_space {
            *until = now;
        }
    }

    /// What no job may need now; `None` if there may be no job at all.
    pub(super) fn set_aside(&self, now: Instant) -> Option<BTreeSet<FileNumber>> {
        if self.no_space.as_ref().is_some_and(|(_, until, _)| *until > now) {
            return None;
        }
        let waiting = self.tables.iter().filter(|(_, setback)| setback.until > now);
        Some(waiting.map(|(number, _)| *number).collect())
    }

    /// When something that is set aside now may be tried again.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        let tables = self.tables.values().map(|setback| setback.until);
        tables
            .chain(self.no_space.as_ref().map(|(_, until, _)| *until))
            .filter(|until| *until > now)
            .min()
    }

    /// For whom merging is shown to be in trouble, and why: ranges with a table that has been failing for
    /// long, or is damaged, and has not been merged since; and, while the disk is full, everybody.
    pub(super) fn troubles(&self) -> BTreeMap<Option<RangeId>, Failure> {
        let of = |setback: &Setback| Some((Some(setback.range), setback.shown.clone()?));
        let full = self.no_space.as_ref().map(|(_, _, failure)| (None, failure.clone()));
        self.tables.values().filter_map(of).chain(full).collect()
    }

    /// Nothing waits for being tried again, and nothing is to be merged: what failed is not wanted any
    /// more. Only damage stays what it is.
    pub(super) fn nothing_due(&mut self) {
        self.no_space = None;
        self.tables.retain(|_, setback| setback.damaged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};
    use sluicedb_storage::Error;
    use sluicedb_storage::filename::FileKind;
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
    const INPUTS: [FileNumber; 3] = [FileNumber(4), FileNumber(5), FileNumber(6)];

    #[test]
    fn a7_a_damaged_table_is_set_aside_alone_and_its_pause_doubles() {
        let (mut setbacks, now) = (Setbacks::default(), ThreadRuntime::new().now());
        let first = setbacks.failed(RANGE, &INPUTS, &damage(5), now);
        assert_eq!(setbacks.set_aside(now), Some([FileNumber(5)].into()));
        assert_eq!(setbacks.next_try(now), Some(now + first));
        let later = now + first;
        assert_eq!(setbacks.set_aside(later), Some([].into()), "it is tried again");
        assert_eq!(setbacks.next_try(later), None, "and nothing wakes anybody before it was");
        assert!(setbacks.failed(RANGE, &INPUTS, &damage(5), later) > first);
        assert!(setbacks.troubles().contains_key(&Some(RANGE)));
        setbacks.succeeded(&[FileNumber(4), FileNumber(6)]);
        assert!(setbacks.troubles().contains_key(&Some(RANGE)), "jobs around it do not mend it");
        setbacks.nothing_due();
        assert!(setbacks.troubles().contains_key(&Some(RANGE)), "nor does it mend by itself");
        setbacks.succeeded(&[FileNumber(5)]);
        assert!(setbacks.troubles().is_empty());
    }

    #[test]
    fn a7_who_is_not_named_is_not_to_blame_alone() {
        let (mut setbacks, now) = (Setbacks::default(), ThreadRuntime::new().now());
        setbacks.failed(RANGE, &INPUTS, &io(5), now);
        assert_eq!(setbacks.set_aside(now), Some(INPUTS.into()));
        setbacks.try_now(now);
        assert_eq!(setbacks.set_aside(now), Some([].into()));
        setbacks.nothing_due();
        assert!(setbacks.troubles().is_empty(), "nobody wants them merged any more");
    }

    #[test]
    fn a8d_a_full_disk_makes_all_pause_but_not_for_long() {
        let (mut setbacks, mut now) = (Setbacks::default(), ThreadRuntime::new().now());
        for _ in 0..20 {
            let pause = setbacks.failed(RANGE, &INPUTS, &io(28), now);
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
