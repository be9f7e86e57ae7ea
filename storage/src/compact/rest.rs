//! A range that rests: what waits in front of its levels is merged although it is not due.
//!
//! A landing makes writes cheap; reads and space pay for it. When nobody writes to a range, only
//! the price is left. So after a while the range rests: its L0 and its landings are merged into
//! their levels, as long as nothing is written to it.
//!
//! * The while is longer where it costs more. It is `rest_after_ms` where at most `drain_ratio`
//!   bytes of the levels are rewritten for each byte that waits, and ten times that for ten times
//!   as much. So somebody who writes a little now and then does not have a whole level rewritten
//!   each time.
//! * It goes from top to bottom. What is too much in one level then comes into the next landing
//!   before that is merged, and each table of a level is rewritten once.
//! * It comes after everything that is due in any range. A writer that comes back ends it with the
//!   next choice.

use super::job::Job;
use super::landing::Landing;
use super::options::CompactionOptions;
use super::pick::{Situation, pick_l0};
use super::why::{Choice, Why};
use crate::filename::FileNumber;
use crate::version::{Place, RangeVersion, Slice};

/// How long nothing is written to one range, as far as somebody who looks now and then can tell.
#[derive(Debug)]
pub(super) struct Rest {
    /// What had been written when somebody looked last: batches, and the newest table in L0.
    seen: (u64, Option<FileNumber>),
    /// Since when that is so, in milliseconds since 1970.
    since_ms: u64,
    /// For how long it has to be so. `None`: nothing waits.
    takes_ms: Option<u64>,
    /// It has been so for that long.
    begun: bool,
}

impl Rest {
    /// Of a range that has not been looked at before.
    pub(super) fn new(now_ms: u64) -> Self {
        Self { seen: (0, None), since_ms: now_ms, takes_ms: None, begun: false }
    }

    /// The range has other tables.
    pub(super) fn changed(
        &mut self,
        range: &RangeVersion,
        options: &CompactionOptions,
        now_ms: u64,
    ) {
        self.takes_ms = takes_ms(range, options);
        let l0 = range.layers.at(Place::L0).iter().flat_map(|layer| layer.run.slices().iter());
        // It is empty when all of it has gone down: that is nothing new.
        let newest = l0.map(|slice| slice.number()).max().max(self.seen.1);
        self.look((self.seen.0, newest), now_ms);
    }

    /// So many batches have been written to it.
    pub(super) fn written(&mut self, batches: u64, now_ms: u64) {
        self.look((batches, self.seen.1), now_ms);
    }

    fn look(&mut self, seen: (u64, Option<FileNumber>), now_ms: u64) {
        if seen != self.seen {
            (self.seen, self.since_ms, self.begun) = (seen, now_ms, false);
        }
        self.begun |= self.begins_ms().is_some_and(|at| at <= now_ms);
    }

    /// When it rests if nothing is written until then; `None` if nothing waits.
    pub(super) fn begins_ms(&self) -> Option<u64> {
        Some(self.since_ms.saturating_add(self.takes_ms?))
    }

    /// Does it rest, and is there something to do about it?
    pub(super) fn is_due(&self) -> bool {
        self.begun && self.takes_ms.is_some()
    }
}

/// How long nothing has to be written to `range` until it rests, in milliseconds. `None` if nothing
/// waits in front of its levels, or if it never rests.
pub fn takes_ms(range: &RangeVersion, options: &CompactionOptions) -> Option<u64> {
    if options.landing_runs_max == 0 || options.rest_after_ms == u64::MAX {
        return None;
    }
    let bytes = |slices: &[Slice]| slices.iter().map(|slice| slice.file_bytes()).sum::<u64>();
    let (mut waits, mut rewritten) = (0_u64, 0_u64);
    let mut place = |place: Place, level: u8| {
        let slices = range.layers.in_order(place);
        let min = slices.iter().map(|slice| slice.min_key()).min()?;
        let max = slices.iter().map(|slice| slice.max_key()).max()?;
        waits = waits.saturating_add(bytes(&slices));
        Some(bytes(&range.overlapping(Place::Main(level), min, max)))
    };
    let mut above = place(Place::L0, 1).unwrap_or(0);
    for level in 1..=range.deepest() {
        let landing = range.layers.landing(level).chunk_by(|a, b| a.place == b.place);
        let shards: u64 = landing.filter_map(|shard| place(shard[0].place, level)).sum();
        // What L0 and the landing of L1 lie over is rewritten once for both.
        rewritten = rewritten.saturating_add(shards.max(std::mem::take(&mut above)));
    }
    let worth = waits.saturating_mul(options.drain_ratio);
    let times = (rewritten as f64 / worth.max(1) as f64).max(1.0);
    (waits > 0).then_some((options.rest_after_ms as f64 * times) as u64)
}

/// The next job of a range that rests.
pub(super) fn pick(
    range: &RangeVersion,
    situation: &Situation<'_>,
    fits: impl Fn(&Job) -> bool,
) -> Option<Job> {
    if !range.layers.at(Place::L0).is_empty()
        && let Some(job) = pick_l0(range, 1.0, situation).filter(&fits)
    {
        let choice = if job.is_metadata_only() { job.why.choice } else { Choice::Rest };
        let why = Why { choice, ..job.why };
        return Some(job.because(why));
    }
    for level in 1..=range.deepest() {
        if situation.claims.takes_from_above(range.id, Place::Landing(level, 0)) {
            // What that brings down is to be merged with what is here already.
            return None;
        }
        let landing = Landing::of(range, level, situation);
        if let Some(job) = landing.and_then(|landing| landing.rest(situation)).filter(&fits) {
            return Some(job);
        }
    }
    None
}

#[cfg(test)]
mod tests;
