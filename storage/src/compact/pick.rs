//! Chooses the next job from a version and its scores.
//!
//! Tables that recently failed to merge may be set aside. Jobs are then planned around them, and
//! around the tables that have to wait for them. So a damaged table affects its own keys only.

use super::backlog::{IDLE_MS, ShardView};
use super::claims::Claims;
use super::job::{Inputs, Job, JobTask, bounds};
use super::landing::{Landing, superseded};
use super::options::CompactionOptions;
use super::reshard;
use super::rest;
use super::rewrite;
use super::rounds::{RoundKind, Rounds};
use super::score::score;
use super::why::{Choice, Why};
use crate::version::{Place, RangeId, RangeVersion, Slice, SliceName, Version, runs_of};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;
use std::sync::Arc;

/// How many slices of a level are compared to find the cheapest, starting at the round-robin
/// cursor.
const WINDOW: usize = 8;
/// A pick grows by neighbours, up to this many slices.
const GROWTH: usize = 8;
/// Inputs and targets of at most this many full tables are merged at once instead of landing first.
const SMALL_TABLES: u64 = 2;

/// The inputs of a decision. They do not change while a job is chosen.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The version to plan with.
    pub version: &'a Version,
    /// The ranges of that version to choose from.
    pub ranges: &'a [Arc<RangeVersion>],
    /// Options of the database, which keyspaces may override.
    pub options: &'a CompactionOptions,
    /// The claims of running jobs.
    pub claims: &'a Claims,
    /// Tables, or parts of tables, that no job may use.
    pub set_aside: &'a BTreeSet<SliceName>,
    /// The current time, in milliseconds since 1970.
    pub now_ms: u64,
    /// When the last table arrived, in the same unit; see [`quiet_since_ms`].
    pub quiet_since_ms: u64,
    /// Ranges that are idle; see [`Agenda::resting`](super::Agenda::resting). `None`: there are
    /// none.
    pub resting: Option<&'a BTreeSet<RangeId>>,
    /// Ranges in a burst of writes: the tables of another flush will be there before a merge of L0
    /// could end. L0 waits for them, within bounds. `None`: there are none.
    pub bursts: Option<&'a BTreeSet<RangeId>>,
    /// May the job write tables? If not, it may only change the manifest.
    pub merges: bool,
}

impl std::fmt::Debug for Situation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Situation").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// In a burst of writes, L0 is compacted from so many times as many runs on.
const L0_TRIGGERS_IN_BURST: usize = 2;
/// The same where newer entries of L0 supersede much of it.
const L0_TRIGGERS_SUPERSEDED: usize = 3;
/// Much of L0 is superseded if at least this share of its entries is.
const L0_SUPERSEDED_MUCH: f64 = 0.15;
/// L0 waits for its third trigger while it has at most this many times the bytes that L1 may have.
/// A merge of more would hardly be cheaper, and meanwhile L0 takes space.
const L0_OVER_L1: u64 = 3;

/// A place that is due.
struct Due<'a> {
    range: &'a RangeVersion,
    score: f64,
    kind: RoundKind,
    place: Place,
    landing: Option<usize>,
}

impl Situation<'_> {
    /// Decides with the options of the range's keyspace.
    pub fn of<T>(&self, range: &RangeVersion, decide: impl FnOnce(&Situation<'_>) -> T) -> T {
        let options = &*range.own.compaction(self.options);
        decide(&Situation { options, ..*self })
    }

    /// The score of a place of the range that is due, with the options of its keyspace.
    ///
    /// In a burst L0 is due from twice as many runs on. Each merge of L0 rewrites what it overlaps
    /// in L1, and in a burst the next merge follows at once. So half as many merges rewrite half as
    /// much. The limits of its bytes and entries are those that the user has set.
    fn due(&self, range: &RangeVersion, place: Place) -> Option<f64> {
        let options = &*range.own.compaction(self.options);
        let score = |options: &CompactionOptions| {
            score(range, place, options).filter(|score| *score >= 1.0)
        };
        let due = score(options)?;
        if place == Place::L0 && self.bursts.is_some_and(|bursts| bursts.contains(&range.id)) {
            let at = |triggers| {
                let l0_trigger = options.l0_trigger.saturating_mul(triggers);
                score(&CompactionOptions { l0_trigger, ..options.clone() })
            };
            at(L0_TRIGGERS_IN_BURST)?;
            if self.waits_longer(range) {
                at(L0_TRIGGERS_SUPERSEDED)?;
            }
        }
        Some(due)
    }

    /// Must L0 wait for half as many runs again, because its tables supersede each other? Then some
    /// keys are written again and again. Reads want those most, and find them in the newest runs.
    /// And the more runs a merge takes, the larger the part of them that it drops.
    fn waits_longer(&self, range: &RangeVersion) -> bool {
        let l0 = range.layers.in_order(Place::L0);
        let bytes: u64 = l0.iter().map(|slice| slice.file_bytes()).sum();
        let options = &*range.own.compaction(self.options);
        bytes <= options.level_bytes(1).saturating_mul(L0_OVER_L1)
            && superseded(&l0) >= L0_SUPERSEDED_MUCH
    }

    pub(super) fn admits(&self, job: &Job) -> bool {
        self.claims.admits(job) && !job.slices().any(|(_, slice)| self.is_set_aside(slice))
    }

    /// Has no table arrived for long?
    pub(super) fn idles(&self) -> bool {
        self.now_ms.saturating_sub(self.quiet_since_ms) >= IDLE_MS
    }

    pub(super) fn is_set_aside(&self, slice: &Slice) -> bool {
        // Nearly always the set is empty.
        !self.set_aside.is_empty() && self.set_aside.contains(&slice.name())
    }
}

/// The most urgent job that can run beside the claimed ones and uses no table that is set aside.
/// `None` if nothing is due. The order is: places over their limit, then idle ranges, then single
/// tables that are worth a rewrite. Claim the job before asking again.
pub fn pick(situation: &Situation<'_>, rounds: &mut Rounds) -> Option<Job> {
    let mut landings: Vec<Landing<'_>> = Vec::new();
    let mut due: Vec<Due<'_>> = Vec::new();
    for range in situation.ranges {
        for level in 1..=range.deepest() {
            let landing = situation.of(range, |situation| Landing::of(range, level, situation));
            let Some(landing) = landing else { continue };
            for (score, choice, shard) in landing.due() {
                let kind = if choice == Choice::Keep { RoundKind::Keep } else { RoundKind::Drain };
                let (place, landing) = (Place::Landing(level, shard), Some(landings.len()));
                due.push(Due { range, score, kind, place, landing });
            }
            landings.push(landing);
        }
    }
    let landing_score = due.iter().map(|due| due.score).fold(0.0, f64::max);
    for range in situation.ranges {
        for place in range.layers.places() {
            let Some(score) = situation.due(range, place) else { continue };
            let kind = if place == Place::L0 { RoundKind::L0 } else { RoundKind::Regular };
            due.push(Due { range, score, kind, place, landing: None });
        }
    }
    due.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.place.cmp(&b.place)));
    let fits = |job: &Job| situation.merges || job.is_metadata_only();
    let job_of = |due: &Due<'_>, situation: &Situation<'_>| match (due.kind, due.landing) {
        (RoundKind::Keep | RoundKind::Drain, Some(landing)) => {
            let choice = if due.kind == RoundKind::Keep { Choice::Keep } else { Choice::Drain };
            let Place::Landing(_, shard) = due.place else { return None };
            landings[landing].job(choice, shard, situation)
        }
        (RoundKind::L0, _) => pick_l0(due.range, due.score, situation),
        _ => pick_level(due.range, due.place.level(), due.score, situation),
    };
    let job = |due: &Due<'_>| situation.of(due.range, |situation| job_of(due, situation));
    // Kinds that have a turn left in this round are first. If none of their jobs can run, the first
    // other job that can run begins a new round. A job that only changes the manifest takes no
    // turn.
    let (has, has_not): (Vec<_>, Vec<_>) = due.iter().partition(|due| rounds.has(due.kind));
    for (due, begins) in has.iter().zip(repeat(false)).chain(has_not.iter().zip(repeat(true))) {
        let Some(job) = job(due).filter(fits) else { continue };
        if !job.is_metadata_only() {
            if begins {
                rounds.begin(landing_score);
            }
            rounds.take(due.kind);
        }
        return Some(job);
    }
    let rests = |id| situation.resting.is_some_and(|resting| resting.contains(&id));
    let mut resting = situation.ranges.iter().filter(|range| rests(range.id));
    if let Some(job) =
        resting.find_map(|range| situation.of(range, |own| rest::pick(range, own, fits)))
    {
        return Some(job);
    }
    let rewrite = || {
        situation
            .ranges
            .iter()
            .find_map(|range| situation.of(range, |own| rewrite::pick(range, own)))
    };
    rewrite().filter(fits)
}

/// The non-empty shards of the landing in front of a level of a range.
pub fn landing_of(range: &RangeVersion, level: u8, situation: &Situation<'_>) -> Vec<ShardView> {
    let landing = situation.of(range, |situation| Landing::of(range, level, situation));
    landing.map_or_else(Vec::new, |landing| landing.views().collect())
}

/// When the last table arrived, in milliseconds since 1970, as far as the version shows: the newest
/// table of L0 or of a landing. 0 if there is none.
pub fn quiet_since_ms(version: &Version) -> u64 {
    version.ranges().iter().map(|range| newest_ms(range)).max().unwrap_or(0)
}

pub(super) fn newest_ms(range: &RangeVersion) -> u64 {
    let tiers = range.layers.iter().filter(|layer| layer.place.is_tier());
    let slices = tiers.flat_map(|layer| layer.run.slices().iter());
    let came = slices.map(|slice| slice.landed.map_or(slice.table.created_at_ms, |l| l.at_ms));
    came.max().unwrap_or(0)
}

/// Compacts the tables of L0, except those that a running job holds and those that overlap them and
/// are newer. They go to the landing of L1, or are merged into L1 with what they overlap.
pub(super) fn pick_l0(range: &RangeVersion, score: f64, situation: &Situation<'_>) -> Option<Job> {
    // Before anything lands: so a new range soon learns how its keys are spread.
    if let Some(job) = reshard::pick(range, situation) {
        return Some(job);
    }
    let slices = unhindered(range, situation);
    // L1 or its landing may be busy or full below the newest tables. Then only the oldest tables
    // are taken. Counted from the oldest, every prefix is closed under "older and overlapping".
    (1..=slices.len()).rev().find_map(|count| {
        let oldest = slices[slices.len() - count..].to_vec();
        let inputs = Inputs { place: Place::L0, slices: oldest };
        hand_down(range, inputs, score, situation).filter(|job| situation.admits(job))
    })
}

/// The tables of L0 that may be compacted, newest first. No table is among them that is set aside,
/// that a job holds, or that overlaps such a table and is newer: so the result is closed under
/// "older and overlapping" (INVARIANT(oldest-closed)).
///
/// - With landings, tables over a shard that is full stay as well.
/// - Without landings, the bounds of the result also contain no table of L1 that is set aside, and
///   no table that has landed. Among several such groups this is the one with the most tables.
fn unhindered(range: &RangeVersion, situation: &Situation<'_>) -> Vec<Slice> {
    let l0 = range.layers.in_order(Place::L0);
    let options = situation.options;
    let lands = options.landing_runs_max > 0;
    let mut walls: Vec<&Slice> = Vec::new();
    if !lands {
        let landed = range.layers.landing(1).iter().flat_map(|layer| layer.run.slices().iter());
        let l1 = range.layers.main(1).into_iter().flat_map(|run| run.slices().iter());
        walls.extend(l1.filter(|slice| situation.is_set_aside(slice)).chain(landed));
        walls.sort_by(|a, b| a.max_key().cmp(b.max_key()));
    }
    let held = situation.claims.held_at(range.id, Place::L0);
    let is_held = |slice: &Slice| {
        held.iter().any(|span| span.overlaps_closed(slice.min_key(), slice.max_key()))
    };
    let stays = |slice: &Slice| {
        let is_over_full = || {
            let input = Inputs { place: Place::L0, slices: vec![slice.clone()] };
            lands && !has_room(range, &input, 1, options)
        };
        situation.is_set_aside(slice) || is_held(slice) || is_over_full()
    };
    if walls.is_empty() && !l0.iter().any(stays) {
        return l0;
    }
    // A table must also stay if it overlaps an older one that stays.
    let mut staying = walls.clone();
    let mut groups: BTreeMap<usize, Vec<Slice>> = BTreeMap::new();
    for slice in l0.iter().rev() {
        let overlaps = |other: &&Slice| other.overlaps(slice.min_key(), slice.max_key());
        if stays(slice) || staying.iter().any(overlaps) {
            staying.push(slice);
        } else {
            let gap = walls.partition_point(|wall| wall.max_key() < slice.min_key());
            groups.entry(gap).or_default().push(slice.clone());
        }
    }
    let mut largest = groups.into_values().max_by_key(Vec::len).unwrap_or_default();
    largest.reverse();
    largest
}

/// One slice of a level and some of its neighbours. Among the slices from the cursor on, it is the
/// one whose merge rewrites the least per byte.
fn pick_level(
    range: &RangeVersion,
    level: u8,
    score: f64,
    situation: &Situation<'_>,
) -> Option<Job> {
    let slices = range.layers.main(level)?.slices();
    let target = Place::Main(level + 1);
    let start = situation.claims.cursor(range.id, Place::Main(level)).map_or(0, |after| {
        let at = slices.partition_point(|slice| *slice.max_key() <= *after);
        if at == slices.len() { 0 } else { at }
    });
    let cost = |at: usize| {
        let slice = &slices[at];
        let targets = range.overlapping(target, slice.min_key(), slice.max_key());
        let bytes: u64 = targets.iter().map(|slice| slice.file_bytes()).sum();
        bytes as f64 / slice.file_bytes().max(1) as f64
    };
    let admitted = |from: usize, to: usize| {
        let inputs = Inputs { place: Place::Main(level), slices: slices[from..=to].to_vec() };
        hand_down(range, inputs, score, situation).filter(|job| situation.admits(job))
    };
    let order = (0..slices.len()).map(|step| (start + step) % slices.len());
    let mut window: Vec<(f64, usize)> = Vec::new();
    for at in order {
        if admitted(at, at).is_some() {
            window.push((cost(at), at));
            if window.len() == WINDOW {
                break;
            }
        }
    }
    let (_, at) = window.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut best = admitted(at, at)?;
    // Neighbours to the right that overlap no further target slice cost nothing extra. Others come
    // along as well while the level has too much and each is worth a merge: kinds have turns by
    // jobs, and where two neighbours overlap the same slice, it is rewritten once.
    let level_bytes = range.layers.main(level)?.bytes() as f64;
    let too_much = level_bytes * (1.0 - 1.0 / score);
    let (most, ratio) = (situation.options.overlap_bytes_max(), situation.options.drain_ratio);
    for end in at + 1..slices.len().min(at + GROWTH) {
        let Some(wider) = admitted(at, end) else { break };
        if best.task != JobTask::Merge || wider.task != JobTask::Merge {
            break;
        }
        let more = wider.why.bytes.saturating_sub(best.why.bytes);
        let more_targets = wider.why.target_bytes.saturating_sub(best.why.target_bytes);
        let is_free = more_targets == 0 && wider.why.bytes <= most;
        let is_worth = more_targets <= more.saturating_mul(ratio)
            && (best.why.bytes as f64) < too_much
            && wider.input_bytes() <= most;
        if !is_free && !is_worth {
            break;
        }
        best = wider;
    }
    Some(best)
}

/// The cheapest way of slices of one place into the next level. They move as they are where nothing
/// overlaps. They are merged at once if the overlapped bytes are few, per byte or in total.
/// Otherwise they land and wait for more. `None` if none of this is possible now.
fn hand_down(
    range: &RangeVersion,
    input: Inputs,
    score: f64,
    situation: &Situation<'_>,
) -> Option<Job> {
    let options = situation.options;
    let output = Place::Main(input.place.level() + 1);
    let (min, max) = bounds(std::slice::from_ref(&input))?;
    let targets = range.overlapping(output, &min, &max);
    let sum = |slices: &[Slice]| slices.iter().map(|slice| slice.file_bytes()).sum::<u64>();
    let (bytes, target_bytes) = (sum(&input.slices), sum(&targets));
    let runs = runs_of(input.place, input.slices.clone()).len();
    let superseded = superseded(&input.slices);
    let why = |choice| Why { choice, score, bytes, target_bytes, runs, superseded };
    let mut landed = range.layers.landing(output.level()).iter();
    let over_landed = landed.any(|layer| !layer.run.overlapping(&min, &max).is_empty());
    let lands = options.landing_runs_max > 0;
    // While no worker may merge, L0 must not wait for one.
    let waits = lands && !situation.merges && input.place == Place::L0;
    if !over_landed {
        if targets.is_empty() {
            let job = into_nothing(range, input.clone(), output, options);
            let choice = if job.task == JobTask::Move { Choice::Move } else { Choice::Merge };
            if choice == Choice::Move || !waits {
                return Some(job.because(why(choice)));
            }
        }
        let small = options.table_bytes_max.saturating_mul(SMALL_TABLES);
        let cheap = target_bytes <= bytes.saturating_mul(options.drain_ratio)
            && !targets.iter().any(|slice| situation.is_set_aside(slice))
            && (bytes.saturating_add(target_bytes) <= small || input.place != Place::L0);
        if (cheap && !waits) || !lands {
            let inputs = vec![input, Inputs { place: output, slices: targets }];
            return Some(Job::new(range, inputs, output).because(why(Choice::Merge)));
        }
    }
    let room = lands && has_room(range, &input, output.level(), options);
    let land = || Job::landing(range, input, output.level(), situation.now_ms);
    room.then(|| land().because(why(Choice::Land)))
}

/// Hands slices to a place where they overlap nothing. They move as they are, unless they overlap
/// each other, or too much of the level below that place.
pub(super) fn into_nothing(
    range: &RangeVersion,
    input: Inputs,
    output: Place,
    options: &CompactionOptions,
) -> Job {
    let job = Job::new(range, vec![input], output);
    let overlap: u64 = job.grandparents.iter().map(|slice| slice.file_bytes()).sum();
    let is_move = overlap <= options.overlap_bytes_max() && is_disjoint(&job, options);
    if is_move { job.moved() } else { job }
}

/// Can the inputs be one run without a rewrite? With one table per level, only a single slice can.
fn is_disjoint(job: &Job, options: &CompactionOptions) -> bool {
    let mut slices: Vec<_> = job.slices().map(|(_, slice)| slice).collect();
    slices.sort_by(|a, b| a.min_key().cmp(b.min_key()));
    let one_per_level = options.table_bytes_max == u64::MAX && slices.len() > 1;
    !one_per_level && slices.windows(2).all(|pair| pair[0].max_key() < pair[1].min_key())
}

/// Does each shard that the input overlaps have room for its runs?
fn has_room(range: &RangeVersion, input: &Inputs, level: u8, options: &CompactionOptions) -> bool {
    let touched = |slice: &Slice| range.shards.touched(slice.min_key(), slice.max_key());
    let shards = input.slices.iter().flat_map(touched);
    let mut more: BTreeMap<usize, usize> = BTreeMap::new();
    shards.for_each(|shard| *more.entry(shard).or_default() += 1);
    // Slices of a level do not overlap, so they add one run.
    let runs = |more: usize| if input.place.is_tier() { more } else { 1 };
    more.into_iter().all(|(shard, more)| {
        let there = range.layers.at(Place::Landing(level, shard as u16)).len();
        there == 0 || there + runs(more) <= options.landing_runs_max
    })
}

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;
