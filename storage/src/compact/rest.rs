//! Idle compaction: what waits in front of the levels of an idle range is merged before it is due.
//!
//! A landing makes writes cheap, at the expense of reads and of space. When nobody writes to a
//! range, only the expense is left. So after a while the range rests: its L0 and its landings are
//! merged into their levels, as long as nothing is written to it.
//!
//! - The wait grows with the cost of the merge. It is `rest_after_ms` if at most `drain_ratio`
//!   bytes of the levels are rewritten per byte that waits, and ten times that if ten times as much
//!   is. So a caller who writes a little now and then does not cause the rewrite of a whole level
//!   each time.
//! - The order is from top to bottom. The excess of one level then lands in front of the next level
//!   before that landing is merged, and each table of a level is rewritten once.
//! - Everything that is due in any range has priority. A new write ends the rest at the next
//!   choice.

use super::job::Job;
use super::landing::Landing;
use super::options::CompactionOptions;
use super::pick::{Situation, pick_l0};
use super::why::{Choice, Why};
use crate::filename::FileNumber;
use crate::version::{Place, RangeVersion, Slice};

/// Tracks how long nothing has been written to one range. It is polled, so its times are those of
/// the calls.
#[derive(Debug)]
pub(super) struct Rest {
    /// What was written at the last look: the number of batches, and the newest table of L0.
    seen: (u64, Option<FileNumber>),
    /// When `seen` last changed, in milliseconds since 1970.
    since_ms: u64,
    /// How long `seen` must stay unchanged until the range rests. `None`: nothing waits to be
    /// merged.
    needed_ms: Option<u64>,
    /// Has that time passed?
    begun: bool,
}

impl Rest {
    /// The state of a range that is new here.
    pub(super) fn new(now_ms: u64) -> Self {
        Self { seen: (0, None), since_ms: now_ms, needed_ms: None, begun: false }
    }

    /// Updates the state after the tables of the range changed.
    pub(super) fn changed(
        &mut self,
        range: &RangeVersion,
        options: &CompactionOptions,
        now_ms: u64,
    ) {
        self.needed_ms = quiet_needed_ms(range, options);
        let l0 = range.layers.at(Place::L0).iter().flat_map(|layer| layer.run.slices().iter());
        // An empty L0 was compacted, which is no sign of a write.
        let newest = l0.map(|slice| slice.number()).max().max(self.seen.1);
        self.look((self.seen.0, newest), now_ms);
    }

    /// Updates the state with the number of batches that were ever written to the range.
    pub(super) fn written(&mut self, batches: u64, now_ms: u64) {
        self.look((batches, self.seen.1), now_ms);
    }

    fn look(&mut self, seen: (u64, Option<FileNumber>), now_ms: u64) {
        if seen != self.seen {
            (self.seen, self.since_ms, self.begun) = (seen, now_ms, false);
        }
        self.begun |= self.begins_ms().is_some_and(|at| at <= now_ms);
    }

    /// When the range will rest if nothing is written until then; `None` if nothing waits to be
    /// merged.
    pub(super) fn begins_ms(&self) -> Option<u64> {
        Some(self.since_ms.saturating_add(self.needed_ms?))
    }

    /// Does the range rest, with something to merge?
    pub(super) fn is_due(&self) -> bool {
        self.begun && self.needed_ms.is_some()
    }
}

/// How long `range` must stay without writes until it rests, in milliseconds. `None` if nothing
/// waits in front of its levels, or if it never rests.
pub fn quiet_needed_ms(range: &RangeVersion, options: &CompactionOptions) -> Option<u64> {
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
        // L0 and the landing of L1 overlap the same tables, which are rewritten once for both.
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
            // The output of that job is to be merged together with what waits here.
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
