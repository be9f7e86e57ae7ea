//! Manual compaction: merges a span into one run per range; at the bottom, without tombstones.
//!
//! One step merges everything that overlaps the span directly into its final place, so each byte is
//! written once. Ask again after each step until `Done`.

use super::claims::Claims;
use super::job::{Inputs, Job};
use super::why::{Choice, Why};
use crate::key::Span;
use crate::keyspace::KeyspaceId;
use crate::version::{Place, RangeId, RangeVersion, Version};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A span to be merged, and the target level.
#[derive(Clone, Debug)]
pub struct ManualCompaction {
    /// The keyspace of the span.
    pub keyspace: KeyspaceId,
    /// The keys to merge. Whole tables are merged, and with them every table that they overlap.
    pub span: Span,
    /// The target level; deeper levels are left alone. `None`: the deepest level that has tables of
    /// the span.
    pub level: Option<u8>,
    /// Ranges to skip from now on.
    pub given_up: BTreeSet<RangeId>,
}

/// The next step of a manual compaction.
#[derive(Debug)]
pub enum ManualStep {
    /// Run and install this job, then ask again.
    Job(Box<Job>),
    /// Running jobs are in the way. Ask again when one of them has ended.
    Busy,
    /// Nothing is left to merge.
    Done,
}

impl ManualCompaction {
    /// Everything in `span` of `keyspace`, down to the deepest level.
    pub fn whole(keyspace: KeyspaceId, span: Span) -> Self {
        Self { keyspace, span, level: None, given_up: BTreeSet::new() }
    }

    /// The next step.
    pub fn step(&self, version: &Version, claims: &Claims) -> ManualStep {
        let mut busy = false;
        for (range, mut inputs) in self.inputs(version) {
            let last = inputs.last().expect("there is a slice to merge").place;
            let output = Place::Main(self.level.unwrap_or(last.level().max(1)));
            if last == output && inputs.len() == 1 {
                // The tables of one run are rewritten one by one.
                inputs[0].slices.truncate(1);
            }
            let why = Why { choice: Choice::Manual, runs: inputs.len(), ..Why::default() };
            let job = Job::new(range, inputs, output).because(why);
            if claims.admits(&job) {
                return ManualStep::Job(Box::new(job));
            }
            busy = true;
        }
        if busy { ManualStep::Busy } else { ManualStep::Done }
    }

    /// Bytes of the tables that are still to be merged.
    pub fn bytes_left(&self, version: &Version) -> u64 {
        let slices = self.inputs(version).flat_map(|(_, inputs)| inputs);
        let slices = slices.flat_map(|inputs| inputs.slices);
        slices.fold(0, |sum, slice| sum.saturating_add(slice.file_bytes()))
    }

    /// For each range that is not done, the slices to merge.
    fn inputs<'a>(
        &'a self,
        version: &'a Version,
    ) -> impl Iterator<Item = (&'a RangeVersion, Vec<Inputs>)> {
        let is_meant = |range: &&Arc<RangeVersion>| {
            range.keyspace == self.keyspace && !self.given_up.contains(&range.id)
        };
        let ranges = version.ranges().iter().filter(is_meant);
        ranges.filter_map(|range| Some((&**range, self.inputs_of(range)?)))
    }

    fn inputs_of(&self, range: &RangeVersion) -> Option<Vec<Inputs>> {
        let deepest = Place::Main(self.level.unwrap_or(u8::MAX));
        let (min, max) = grow(range, &self.span, deepest)?;
        let mut inputs: Vec<_> = range
            .layers
            .places()
            .filter(|place| *place <= deepest)
            .map(|place| Inputs { place, slices: range.overlapping(place, &min, &max) })
            .filter(|inputs| !inputs.slices.is_empty())
            .collect();
        let last = inputs.last().expect("grown from at least one slice").place;
        let is_one_run = inputs.len() == 1 && !last.is_tier();
        if is_one_run && self.level.is_none_or(|level| last == Place::Main(level)) {
            // Only slices with tombstones are rewritten, and only where nothing older overlaps
            // them.
            let slices = &mut inputs[0].slices;
            slices.retain(|slice| {
                let (min, max) = (slice.min_key(), slice.max_key());
                slice.may_have_tombstones() && range.is_bottom_of(last, min, max)
            });
            inputs.retain(|inputs| !inputs.slices.is_empty());
        }
        (!inputs.is_empty()).then_some(inputs)
    }
}

/// The key bounds of all slices down to `deepest` that must be merged together: those that overlap
/// the span, and repeatedly those that overlap them. `None` if no slice overlaps the span.
fn grow(range: &RangeVersion, span: &Span, deepest: Place) -> Option<(Bytes, Bytes)> {
    let mut bounds: Option<(Bytes, Bytes)> = None;
    loop {
        let before = bounds.clone();
        for (_, slice) in range.layers.slices().filter(|(place, _)| *place <= deepest) {
            let (first, last) = (slice.min_key(), slice.max_key());
            let inside = bounds.as_ref().is_some_and(|(min, max)| slice.overlaps(min, max));
            if inside || span.overlaps_closed(first, last) {
                bounds = Some(match bounds {
                    Some((min, max)) => (min.min(first.clone()), max.max(last.clone())),
                    None => (first.clone(), last.clone()),
                });
            }
        }
        if bounds == before {
            return bounds;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::testing::{meta, slice, version_of};
    use crate::version::{ObsoleteFiles, Slice, TableHandle, check};

    fn inputs(step: &ManualStep) -> (Vec<(u8, Vec<u64>)>, u8) {
        let ManualStep::Job(job) = step else { panic!("{step:?}") };
        let numbers = |inputs: &Inputs| inputs.slices.iter().map(|t| t.number().0).collect();
        (job.inputs.iter().map(|i| (i.place.level(), numbers(i))).collect(), job.output.level())
    }

    #[test]
    fn everything_goes_to_the_deepest_level_at_once() {
        let version = version_of(
            vec![slice(9, b"b", b"d", 1), slice(8, b"x", b"z", 1)],
            vec![vec![slice(5, b"a", b"c", 1)], vec![], vec![slice(2, b"d", b"e", 1)]],
        );
        check::check(&version).unwrap();
        let step = ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all())
            .step(&version, &Claims::new());
        let all = (vec![(0, vec![9, 8]), (1, vec![5]), (3, vec![2])], 3);
        assert_eq!(inputs(&step), all);
        let step = ManualCompaction::whole(KeyspaceId::DEFAULT, Span::prefix(b"a"))
            .step(&version, &Claims::new());
        assert_eq!(inputs(&step), (vec![(0, vec![9]), (1, vec![5]), (3, vec![2])], 3));
        let step = ManualCompaction::whole(KeyspaceId::DEFAULT, Span::prefix(b"y"))
            .step(&version, &Claims::new());
        assert_eq!(inputs(&step), (vec![(0, vec![8])], 1));
        assert!(matches!(
            ManualCompaction::whole(KeyspaceId::DEFAULT, Span::prefix(b"m"))
                .step(&version, &Claims::new()),
            ManualStep::Done
        ));
    }

    #[test]
    fn a_lone_run_is_rewritten_only_for_its_tombstones() {
        let mut dead = meta(3, b"d", b"e", 1000);
        dead.tombstones = 1;
        let dead = Slice::whole(&TableHandle::unopened(dead.into(), ObsoleteFiles::new()));
        let version = version_of(vec![], vec![vec![slice(2, b"a", b"b", 1), dead]]);
        let step = ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all())
            .step(&version, &Claims::new());
        assert_eq!(inputs(&step), (vec![(1, vec![3])], 1));
        let version = version_of(vec![], vec![vec![slice(2, b"a", b"b", 1)]]);
        assert!(matches!(
            ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all())
                .step(&version, &Claims::new()),
            ManualStep::Done
        ));
        let empty = version_of(vec![], vec![]);
        assert!(matches!(
            ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all()).step(&empty, &Claims::new()),
            ManualStep::Done
        ));
    }

    #[test]
    fn t003_08_what_lies_below_the_target_level_stays() {
        let version = version_of(
            vec![slice(9, b"b", b"d", 1), slice(8, b"x", b"z", 10)],
            vec![vec![slice(5, b"a", b"c", 100)], vec![], vec![slice(2, b"a", b"z", 1000)]],
        );
        let to = |level| ManualCompaction {
            level: Some(level),
            ..ManualCompaction::whole(KeyspaceId::DEFAULT, Span::prefix(b"b"))
        };
        assert_eq!(
            inputs(&to(1).step(&version, &Claims::new())),
            (vec![(0, vec![9]), (1, vec![5])], 1)
        );
        assert_eq!(
            inputs(&to(2).step(&version, &Claims::new())),
            (vec![(0, vec![9]), (1, vec![5])], 2)
        );
        let all = (vec![(0, vec![9, 8]), (1, vec![5]), (3, vec![2])], 4);
        assert_eq!(inputs(&to(4).step(&version, &Claims::new())), all);
        let left: Vec<_> = (1..=4).map(|level| to(level).bytes_left(&version)).collect();
        assert_eq!(left, [101, 101, 1111, 1111]);
        let given_up = BTreeSet::from([RangeId::FIRST]);
        let none = ManualCompaction { given_up, ..to(1) };
        assert!(matches!(none.step(&version, &Claims::new()), ManualStep::Done));
        assert_eq!(none.bytes_left(&version), 0);
    }

    /// Planted: the levels below are not checked.
    #[test]
    fn t003_05_a_run_is_not_rewritten_for_tombstones_that_hide_something() {
        let mut dead = meta(3, b"d", b"e", 1000);
        dead.tombstones = 1;
        let dead = Slice::whole(&TableHandle::unopened(dead.into(), ObsoleteFiles::new()));
        let to_1 = ManualCompaction {
            level: Some(1),
            ..ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all())
        };
        let over = |below| version_of(vec![], vec![vec![dead.clone()], vec![below]]);
        let hides = over(slice(2, b"a", b"d", 1));
        assert!(matches!(to_1.step(&hides, &Claims::new()), ManualStep::Done));
        let hides_nothing = over(slice(2, b"f", b"g", 1));
        assert_eq!(inputs(&to_1.step(&hides_nothing, &Claims::new())), (vec![(1, vec![3])], 1));
    }

    #[test]
    fn a_running_job_makes_it_wait() {
        let version = version_of(vec![slice(9, b"b", b"d", 1)], vec![]);
        let ManualStep::Job(job) = ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all())
            .step(&version, &Claims::new())
        else {
            panic!()
        };
        let mut claims = Claims::new();
        let running = claims.claim(*job);
        assert!(matches!(
            ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all()).step(&version, &claims),
            ManualStep::Busy
        ));
        drop(running);
        assert!(matches!(
            ManualCompaction::whole(KeyspaceId::DEFAULT, Span::all()).step(&version, &claims),
            ManualStep::Job(_)
        ));
    }
}
