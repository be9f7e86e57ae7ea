//! Claims: what running jobs hold. A claim ends with its job, however the job ends.

use super::job::{Job, JobTask, LandingMode};
use crate::key::Span;
use crate::version::{Place, RangeId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

/// The claims of running jobs, and the round-robin cursor of each place.
///
/// Two jobs of a range may run at once only if they share no place or no key
/// (INVARIANT(claims-apart)). Then neither changes what the other was planned with, and tables that
/// a job saw below its output can only move deeper. A landing's shard has one merge at a time,
/// whatever the keys, because a slice of it may be cut. A job that lands tables holds only its
/// place of origin, because they are added on top of what is there. But it cuts them at the shard
/// bounds, so the bounds must not move meanwhile.
#[derive(Debug, Default)]
pub struct Claims {
    /// The jobs own their claims. Claims of ended jobs are removed at the next claim.
    held: Vec<Weak<Claim>>,
    cursors: BTreeMap<(RangeId, Place), Bytes>,
}

/// What a job holds: a span of keys in adjacent places of a range.
#[derive(Debug)]
struct Claim {
    range: RangeId,
    /// The first and the last place.
    places: (Place, Place),
    span: Span,
    /// Shards of landings that are merged or resharded.
    landings: Vec<Place>,
    mode: LandingMode,
    /// What the job needs of the bounds between shards.
    shards: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bounds {
    /// The job does not depend on them.
    Any,
    /// The job cuts slices at them.
    Cuts,
    Moves,
}

impl Claim {
    fn of(job: &Job) -> Self {
        let (first, last) = (job.input_place(), job.output);
        let is_landing = |place: &Place| matches!(place, Place::Landing(..));
        Self {
            range: job.range,
            places: (first, if job.task == JobTask::Land { first } else { last }),
            span: job.span().clone(),
            landings: job.inputs.iter().map(|inputs| inputs.place).filter(is_landing).collect(),
            mode: job.mode(),
            shards: match job.task {
                JobTask::Land => Bounds::Cuts,
                JobTask::Reshard => Bounds::Moves,
                JobTask::Merge | JobTask::Move => Bounds::Any,
            },
        }
    }

    fn conflicts_with(&self, other: &Self) -> bool {
        let keys = || {
            let both = self.span.intersection(&other.span);
            !both.is_empty()
        };
        let places = self.places.0 <= other.places.1 && other.places.0 <= self.places.1;
        let shards = matches!(
            (self.shards, other.shards),
            (Bounds::Moves, Bounds::Moves | Bounds::Cuts) | (Bounds::Cuts, Bounds::Moves)
        );
        self.range == other.range
            && (places && keys()
                || shards
                || self.landings.iter().any(|at| other.landings.contains(at)))
    }
}

/// A job with its claim. No other job may touch what it holds until this is dropped. The owner
/// drops it when the outcome is handled; a panic drops it, and so does the queue that it waits in.
#[derive(Debug)]
#[must_use = "a job that is dropped is not run"]
pub struct ClaimedJob {
    job: Box<Job>,
    /// Kept alive for `Claims`, which has only a weak reference.
    _claim: Arc<Claim>,
}

impl Deref for ClaimedJob {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl DerefMut for ClaimedJob {
    fn deref_mut(&mut self) -> &mut Job {
        &mut self.job
    }
}

impl Claims {
    /// No claims.
    pub fn new() -> Self {
        Self::default()
    }

    fn held(&self) -> impl Iterator<Item = Arc<Claim>> {
        self.held.iter().filter_map(Weak::upgrade)
    }

    /// Can `job` run beside everything that is claimed?
    pub fn admits(&self, job: &Job) -> bool {
        let extent = Claim::of(job);
        !self.held().any(|held| held.conflicts_with(&extent))
    }

    /// Claims what `job` needs, until the returned value is dropped.
    pub fn claim(&mut self, job: Job) -> ClaimedJob {
        debug_assert!(self.admits(&job), "picked jobs are admitted");
        let extent = Arc::new(Claim::of(&job));
        self.held.retain(|held| held.strong_count() > 0);
        self.held.push(Arc::downgrade(&extent));
        if let Some(first) = job.inputs.first()
            && !first.place.is_tier()
            && let Some(last) = first.slices.last()
        {
            self.cursors.insert((job.range, first.place), last.max_key().clone());
        }
        ClaimedJob { job: Box::new(job), _claim: extent }
    }

    /// The number of running merges of the landing in front of a level of a range.
    pub(super) fn merges_of_landing(&self, range: RangeId, level: u8) -> usize {
        let is_one = |held: &Arc<Claim>| {
            held.mode != LandingMode::None
                && held.range == range
                && held.landings.iter().any(|place| place.level() == level)
        };
        self.held().filter(is_one).count()
    }

    /// Does a running job of the range have inputs from above `place`?
    pub(super) fn takes_from_above(&self, range: RangeId, place: Place) -> bool {
        self.held().any(|held| held.range == range && held.places.0 < place)
    }

    /// Drops the round-robin cursors of all other ranges.
    pub fn prune(&mut self, ranges: &BTreeSet<RangeId>) {
        self.cursors.retain(|(range, _), _| ranges.contains(range));
    }

    /// Does no job run?
    pub fn is_empty(&self) -> bool {
        self.held().next().is_none()
    }

    /// The spans that running jobs of the range hold in a place.
    pub(super) fn held_at(&self, range: RangeId, place: Place) -> Vec<Span> {
        let touches = |held: &Claim| (held.places.0..=held.places.1).contains(&place);
        let held = self.held().filter(|held| held.range == range && touches(held));
        held.map(|held| held.span.clone()).collect()
    }

    /// The round-robin cursor of a place: the next pick continues after this key.
    pub(super) fn cursor(&self, range: RangeId, place: Place) -> Option<&Bytes> {
        self.cursors.get(&(range, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::{ManualCompaction, ManualStep};
    use crate::key::Span;
    use crate::version::Version;
    use crate::version::testing::{slice, version_of};
    use std::sync::mpsc;

    fn job_of(version: &Version, claims: &Claims) -> Job {
        match ManualCompaction::whole(crate::keyspace::KeyspaceId::DEFAULT, Span::all())
            .step(version, claims)
        {
            ManualStep::Job(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    /// Planted: a `prune` that does nothing.
    #[test]
    fn where_picks_go_on_is_forgotten_with_the_range() {
        let levels = vec![vec![slice(9, b"b", b"d", 1)], vec![slice(8, b"a", b"z", 1)]];
        let version = version_of(vec![], levels);
        let mut claims = Claims::new();
        let job = job_of(&version, &claims);
        let (range, place) = (job.range, Place::Main(1));
        drop(claims.claim(job));
        claims.prune(&[range].into());
        assert!(claims.cursor(range, place).is_some());
        claims.prune(&[RangeId(range.0 + 1)].into());
        assert!(claims.cursor(range, place).is_none());
    }

    /// Each way in which a job can end without returning its claim explicitly.
    #[test]
    fn a_claim_ends_with_its_job_whatever_becomes_of_that() {
        let version = version_of(vec![slice(9, b"b", b"d", 1), slice(8, b"c", b"f", 1)], vec![]);
        let mut claims = Claims::new();
        type Way = fn(ClaimedJob);
        let ways: [(&str, Way); 4] = [
            ("dropped", drop),
            ("lost in a queue", |job| {
                let (sender, receiver) = mpsc::channel();
                sender.send(job).expect("it is open");
                drop(receiver);
            }),
            ("a worker panics", |job| {
                let worker = std::thread::spawn(move || {
                    assert!(job.input_bytes() > 1 << 40, "planted");
                });
                worker.join().expect_err("it panics");
            }),
            ("a report that nobody takes", |job| {
                let (sender, receiver) = mpsc::channel();
                drop(receiver);
                drop(sender.send(job));
            }),
        ];
        for (way, end) in ways {
            let job = job_of(&version, &claims);
            let claimed = claims.claim(job.clone());
            assert!(!claims.admits(&job) && !claims.is_empty(), "{way}: while it runs");
            assert_eq!(claims.held_at(job.range, Place::L0).len(), 1, "{way}: while it runs");
            end(claimed);
            assert!(claims.admits(&job) && claims.is_empty(), "{way}: afterwards");
            assert!(claims.held_at(job.range, Place::L0).is_empty(), "{way}: afterwards");
        }
        assert_eq!(claims.held.len(), 1, "those that are gone do not pile up");
    }
}
