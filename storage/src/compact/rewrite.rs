//! Tables that are worth a rewrite although their level is within its limit.

use super::job::{Inputs, Job};
use super::options::CompactionOptions;
use super::pick::{Situation, into_nothing};
use super::why::{Choice, Why};
use crate::version::{Place, RangeVersion, Slice};

/// The next rewrite of a table below L0.
///
/// A table with many or old tombstones is merged into the next level. If nothing below overlaps it,
/// it is rewritten in place, without its tombstones. A slice that uses little of its file is
/// rewritten in place, so that the file can be deleted. Each such job makes progress towards an
/// end, so their number is bounded.
pub(super) fn pick(range: &RangeVersion, situation: &Situation<'_>) -> Option<Job> {
    levels(range).find_map(|(place, slice)| {
        let shrinks = is_little_here(slice, range) && is_little(slice, situation);
        if !shrinks && !has_due_tombstones(slice, situation) {
            return None;
        }
        let input = Inputs { place, slices: vec![slice.clone()] };
        let (min, max) = (slice.min_key(), slice.max_key());
        let job = if shrinks || range.is_bottom_of(place, min, max) {
            Job::new(range, vec![input], place)
        } else {
            let below = Place::Main(place.level() + 1);
            let landed = range.layers.landing(below.level()).iter();
            if landed.into_iter().any(|layer| !layer.run.overlapping(min, max).is_empty()) {
                // The table must not pass what has landed. That will be drained; at once if this
                // table has an old tombstone.
                return None;
            }
            let targets = range.overlapping(below, min, max);
            if targets.is_empty() {
                into_nothing(range, input, below, situation.options)
            } else {
                Job::new(range, vec![input, Inputs { place: below, slices: targets }], below)
            }
        };
        let choice = if shrinks { Choice::Shrink } else { Choice::Tombstones };
        let bytes = slice.file_bytes();
        let target_bytes = job.input_bytes() - bytes;
        let job = job.because(Why { choice, bytes, target_bytes, runs: 1, ..Why::default() });
        situation.admits(&job).then_some(job)
    })
}

/// Is there such a table? Looks only at tables of this range, so it may say yes in vain.
pub(super) fn is_due(range: &RangeVersion, situation: &Situation<'_>) -> bool {
    levels(range)
        .any(|(_, slice)| is_little_here(slice, range) || has_due_tombstones(slice, situation))
}

fn levels(range: &RangeVersion) -> impl Iterator<Item = (Place, &Slice)> {
    range.layers.slices().filter(|(place, _)| matches!(place, Place::Main(_)))
}

/// When the next tombstone below L0 becomes old, in milliseconds since 1970; later than `now_ms`.
pub(super) fn next_old_ms(
    range: &RangeVersion,
    options: &CompactionOptions,
    now_ms: u64,
) -> Option<u64> {
    let below = range.layers.iter().filter(|layer| layer.place != Place::L0);
    let slices = below.flat_map(|layer| layer.run.slices().iter());
    let dead = slices.filter(|slice| slice.tombstones() > 0 && slice.table.created_at_ms > 0);
    let made = dead.map(|slice| slice.table.created_at_ms);
    let old =
        made.filter_map(|made| made.checked_add(options.tombstone_age_max_ms)?.checked_add(1));
    old.filter(|at| *at > now_ms).min()
}

fn has_due_tombstones(slice: &Slice, situation: &Situation<'_>) -> bool {
    let percent = situation.options.tombstone_percent_max;
    let share = u128::from(slice.tombstones()) * 100;
    share > u128::from(slice.entries()) * u128::from(percent) || has_old_tombstone(slice, situation)
}

/// Does it have a tombstone that is older than allowed?
pub(super) fn has_old_tombstone(slice: &Slice, situation: &Situation<'_>) -> bool {
    // The creation time may be unknown, and the clock may have been set back.
    let made = slice.table.created_at_ms;
    let age_ms = if made == 0 { 0 } else { situation.now_ms.saturating_sub(made) };
    slice.tombstones() > 0 && age_ms > situation.options.tombstone_age_max_ms
}

/// Do all slices of its file together use less than half of the file?
fn is_little(slice: &Slice, situation: &Situation<'_>) -> bool {
    is_less_than_half(slice, situation.version.slices().map(|(_, _, other)| other))
}

/// As `is_little`, but only with slices of this range. If this is false, the slices of all other
/// ranges need not be searched.
fn is_little_here(slice: &Slice, range: &RangeVersion) -> bool {
    slice.part.is_some() && is_less_than_half(slice, range.layers.slices().map(|(_, other)| other))
}

fn is_less_than_half<'a>(slice: &Slice, among: impl Iterator<Item = &'a Slice>) -> bool {
    let same = among.filter(|other| other.number() == slice.number());
    let used = same.fold(0_u64, |sum, other| sum.saturating_add(other.file_bytes()));
    used < slice.table.file_bytes / 2
}
