//! Tables that are worth a rewrite although their level is within its limit.

use super::job::{Inputs, Job};
use super::options::CompactionOptions;
use super::pick::{Situation, into_nothing};
use super::why::{Choice, Why};
use crate::filename::FileNumber;
use crate::version::{Place, RangeVersion, Slice};
use std::collections::{BTreeMap, BTreeSet};

/// The next rewrite of a table below L0.
///
/// A table with many or old tombstones is merged into the next level. If nothing below overlaps it,
/// it is rewritten in place, without its tombstones. A slice that uses little of its file is
/// rewritten in place, so that the file can be deleted. Each such job makes progress towards an
/// end, so their number is bounded.
pub(super) fn pick(range: &RangeVersion, situation: &Situation<'_>) -> Option<Job> {
    let little = little(range, situation);
    levels(range).find_map(|(place, slice)| {
        let shrinks = little.contains(&slice.number());
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
    let little = little_of(range.layers.slices().map(|(_, slice)| slice));
    levels(range)
        .any(|(_, slice)| little.contains(&slice.number()) || has_due_tombstones(slice, situation))
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
    let dead = slices.filter(|slice| slice.may_have_tombstones() && slice.table.created_at_ms > 0);
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
    slice.may_have_tombstones() && age_ms > situation.options.tombstone_age_max_ms
}

/// The files of which all slices in the version together use less than half, and of which the range
/// has a slice.
fn little(range: &RangeVersion, situation: &Situation<'_>) -> BTreeSet<FileNumber> {
    let here = little_of(range.layers.slices().map(|(_, slice)| slice));
    if here.is_empty() {
        // The slices of all other ranges need not be searched.
        return here;
    }
    let all = situation.version.slices().map(|(_, _, slice)| slice);
    little_of(all.filter(|slice| here.contains(&slice.number())))
}

/// The files of which `slices` use less than half. A file with a whole slice has no other slices.
fn little_of<'a>(slices: impl Iterator<Item = &'a Slice>) -> BTreeSet<FileNumber> {
    let mut used: BTreeMap<FileNumber, (u64, u64)> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.part.is_some()) {
        let (bytes, _) = used.entry(slice.number()).or_insert((0, slice.table.file_bytes));
        *bytes = bytes.saturating_add(slice.file_bytes());
    }
    used.retain(|_, (bytes, file)| *bytes < *file / 2);
    used.into_keys().collect()
}
