//! Compaction on request: a span ends up in one run per range, without tombstones.
//!
//! One step merges everything that overlaps the span straight into the deepest level that has
//! any of it, so each byte is written once. Ask again after each step until `Done`.

use super::claims::Claims;
use super::job::{Inputs, Job};
use crate::key::Span;
use crate::version::{Place, RangeId, RangeVersion, Version};
use bytes::Bytes;
use std::collections::BTreeSet;

/// What there is to do for a manual compaction.
#[derive(Debug)]
pub enum Step {
    /// Run and install this, then ask again.
    Job(Job),
    /// Running jobs are in the way: ask again when one of them is over.
    Busy,
    /// The span is compact.
    Done,
}

/// The next step towards a compact `span`, not counting the ranges that are `given_up`.
pub fn manual(
    version: &Version,
    span: &Span,
    claims: &Claims,
    given_up: &BTreeSet<RangeId>,
) -> Step {
    let mut busy = false;
    for range in version.ranges().iter().filter(|range| !given_up.contains(&range.id)) {
        match range_step(range, span, claims) {
            Step::Job(job) => return Step::Job(job),
            Step::Busy => busy = true,
            Step::Done => {}
        }
    }
    if busy { Step::Busy } else { Step::Done }
}

fn range_step(range: &RangeVersion, span: &Span, claims: &Claims) -> Step {
    let Some((min, max)) = grow(range, span) else {
        return Step::Done;
    };
    let mut inputs: Vec<_> = range
        .layers
        .places()
        .map(|place| Inputs { place, slices: range.overlapping(place, &min, &max) })
        .filter(|inputs| !inputs.slices.is_empty())
        .collect();
    let deepest = inputs.last().expect("grown from at least one slice").place;
    if inputs.len() == 1 && !deepest.is_tier() {
        // One run already. Rewrite only the slices with tombstones, which nothing lies under.
        let slices = &mut inputs[0].slices;
        slices.retain(|slice| slice.tombstones() > 0);
        if slices.is_empty() {
            return Step::Done;
        }
        slices.truncate(1);
    }
    let job = Job::new(range, inputs, Place::Main(deepest.level().max(1)));
    if claims.admits(&job) { Step::Job(job) } else { Step::Busy }
}

/// The bounds of all slices that must go together: those that overlap the span, and whatever
/// overlaps them, until nothing is added. `None` if no slice overlaps the span.
fn grow(range: &RangeVersion, span: &Span) -> Option<(Bytes, Bytes)> {
    let mut bounds: Option<(Bytes, Bytes)> = None;
    loop {
        let before = bounds.clone();
        for (_, slice) in range.layers.slices() {
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
    use crate::version::{Graveyard, Slice, TableHandle, check};

    fn inputs(step: &Step) -> (Vec<(u8, Vec<u64>)>, u8) {
        let Step::Job(job) = step else { panic!("{step:?}") };
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
        let step = manual(&version, &Span::all(), &Claims::new(), &BTreeSet::new());
        let all = (vec![(0, vec![9, 8]), (1, vec![5]), (3, vec![2])], 3);
        assert_eq!(inputs(&step), all);
        let step = manual(&version, &Span::prefix(b"a"), &Claims::new(), &BTreeSet::new());
        assert_eq!(inputs(&step), (vec![(0, vec![9]), (1, vec![5]), (3, vec![2])], 3));
        let step = manual(&version, &Span::prefix(b"y"), &Claims::new(), &BTreeSet::new());
        assert_eq!(inputs(&step), (vec![(0, vec![8])], 1));
        assert!(matches!(
            manual(&version, &Span::prefix(b"m"), &Claims::new(), &BTreeSet::new()),
            Step::Done
        ));
    }

    #[test]
    fn a_lone_run_is_rewritten_only_for_its_tombstones() {
        let mut dead = meta(3, b"d", b"e", 1000);
        dead.tombstones = 1;
        let dead = Slice::whole(&TableHandle::unopened(dead.into(), Graveyard::new()));
        let version = version_of(vec![], vec![vec![slice(2, b"a", b"b", 1), dead]]);
        let step = manual(&version, &Span::all(), &Claims::new(), &BTreeSet::new());
        assert_eq!(inputs(&step), (vec![(1, vec![3])], 1));
        let version = version_of(vec![], vec![vec![slice(2, b"a", b"b", 1)]]);
        assert!(matches!(
            manual(&version, &Span::all(), &Claims::new(), &BTreeSet::new()),
            Step::Done
        ));
        let empty = version_of(vec![], vec![]);
        assert!(matches!(
            manual(&empty, &Span::all(), &Claims::new(), &BTreeSet::new()),
            Step::Done
        ));
    }

    #[test]
    fn a_running_job_makes_it_wait() {
        let version = version_of(vec![slice(9, b"b", b"d", 1)], vec![]);
        let Step::Job(job) = manual(&version, &Span::all(), &Claims::new(), &BTreeSet::new())
        else {
            panic!()
        };
        let mut claims = Claims::new();
        let running = claims.claim(job);
        assert!(matches!(manual(&version, &Span::all(), &claims, &BTreeSet::new()), Step::Busy));
        drop(running);
        assert!(matches!(manual(&version, &Span::all(), &claims, &BTreeSet::new()), Step::Job(_)));
    }
}
