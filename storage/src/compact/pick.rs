//! Version + scores -> the next job.
//!
//! Tables that could not be merged lately may be set aside. Jobs are then planned around them and around
//! what has to wait for them, so that a damaged table hurts its own keys only.

use super::backlog::{IDLE_MS, ShardView};
use super::claims::Claims;
use super::job::{Inputs, Job, Task, bounds};
use super::landing::{Landing, superseded};
use super::options::CompactionOptions;
use super::reshard;
use super::rewrite;
use super::rounds::{Kind, Rounds};
use super::score::scores;
use super::why::{Choice, Why};
use crate::version::{Place, RangeVersion, Slice, SliceName, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat;

/// How many slices of a level are compared for the cheapest pick, from the round-robin cursor on.
const WINDOW: usize = 8;
/// A pick grows by neighbours that cost no further target, up to this many slices.
const GROWTH: usize = 8;
/// What is this small is merged at once instead of landing first, in tables of full size.
const SMALL_TABLES: u64 = 2;

/// What is decided on: all of it is the same while one job is chosen.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Where everything lies.
    pub version: &'a Version,
    /// Limits and costs.
    pub options: &'a CompactionOptions,
    /// What running jobs hold.
    pub claims: &'a Claims,
    /// Tables, or parts of tables, that no job may need.
    pub set_aside: &'a BTreeSet<SliceName>,
    /// The time, in milliseconds since 1970.
    pub now_ms: u64,
    /// When something came last, likewise: see [`quiet_since_ms`].
    pub quiet_since_ms: u64,
    /// May a job write tables? If not, only the manifest.
    pub merges: bool,
}

impl std::fmt::Debug for Situation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Situation").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// Something that is due.
struct Due<'a> {
    range: &'a RangeVersion,
    score: f64,
    kind: Kind,
    place: Place,
    landing: Option<usize>,
}

impl Situation<'_> {
    pub(super) fn admits(&self, job: &Job) -> bool {
        self.claims.admits(job) && !job.slices().any(|(_, slice)| self.is_set_aside(slice))
    }

    /// Has nothing come for long?
    pub(super) fn idles(&self) -> bool {
        self.now_ms.saturating_sub(self.quiet_since_ms) >= IDLE_MS
    }

    pub(super) fn is_set_aside(&self, slice: &Slice) -> bool {
        // Nearly always nothing is.
        !self.set_aside.is_empty() && self.set_aside.contains(&slice.name())
    }
}

/// The most urgent job that can run beside what is claimed and does not need what is set aside; `None` when
/// nothing is due. What is too large comes before a table that is worth a rewrite for itself. Claim the job
/// before asking again.
pub fn pick(situation: &Situation<'_>, rounds: &mut Rounds) -> Option<Job> {
    let (version, options) = (situation.version, situation.options);
    let mut landings: Vec<Landing<'_>> = Vec::new();
    let mut due: Vec<Due<'_>> = Vec::new();
    for range in version.ranges() {
        for level in 1..=range.deepest() {
            let Some(landing) = Landing::of(range, level, situation) else { continue };
            for (score, choice, shard) in landing.due() {
                let kind = if choice == Choice::Keep { Kind::Keep } else { Kind::Drain };
                let (place, landing) = (Place::Landing(level, shard), Some(landings.len()));
                due.push(Due { range, score, kind, place, landing });
            }
            landings.push(landing);
        }
    }
    let landing_score = due.iter().map(|due| due.score).fold(0.0, f64::max);
    for level in scores(version, options).into_iter().take_while(|level| level.score >= 1.0) {
        let range = version.range(level.range)?;
        let kind = if level.place == Place::L0 { Kind::L0 } else { Kind::Regular };
        due.push(Due { range, score: level.score, kind, place: level.place, landing: None });
    }
    due.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.place.cmp(&b.place)));
    let fits = |job: &Job| situation.merges || job.is_metadata_only();
    let job = |due: &Due<'_>| match (due.kind, due.landing) {
        (Kind::Keep | Kind::Drain, Some(landing)) => {
            let choice = if due.kind == Kind::Keep { Choice::Keep } else { Choice::Drain };
            let Place::Landing(_, shard) = due.place else { return None };
            landings[landing].job(choice, shard, situation)
        }
        (Kind::L0, _) => pick_l0(due.range, due.score, situation),
        _ => pick_level(due.range, due.place.level(), due.score, situation),
    };
    // First those that have a turn in this round. If none of them can be run, another one that can be begins
    // a new round. What needs no merge costs nobody a turn.
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
    let rewrite = || version.ranges().iter().find_map(|range| rewrite::pick(range, situation));
    rewrite().filter(fits)
}

/// What waits in the landing in front of a level of a range: its shards that have something.
pub fn landing_of(range: &RangeVersion, level: u8, situation: &Situation<'_>) -> Vec<ShardView> {
    let landing = Landing::of(range, level, situation);
    landing.map_or_else(Vec::new, |landing| landing.views().collect())
}

/// When something came last, in milliseconds since 1970, as far as that can be seen: the newest table in L0, or
/// the last one that landed. 0 if there is none.
pub fn quiet_since_ms(version: &Version) -> u64 {
    version.ranges().iter().map(|range| newest_ms(range)).max().unwrap_or(0)
}

fn newest_ms(range: &RangeVersion) -> u64 {
    let tiers = range.layers.iter().filter(|layer| layer.place.is_tier());
    let slices = tiers.flat_map(|layer| layer.run.slices().iter());
    let came = slices.map(|slice| slice.landed.map_or(slice.table.created_at_ms, |l| l.at_ms));
    came.max().unwrap_or(0)
}

/// When something will be due that is not yet, if nothing changes but the time: in milliseconds since 1970.
pub fn next_due(version: &Version, options: &CompactionOptions, now_ms: u64) -> Option<u64> {
    let (claims, set_aside) = (Claims::new(), BTreeSet::new());
    let (claims, set_aside, merges) = (&claims, &set_aside, true);
    let quiet_since_ms = quiet_since_ms(version);
    let situation =
        Situation { version, options, claims, set_aside, now_ms, quiet_since_ms, merges };
    let ranges = version.ranges().iter();
    let times = ranges.flat_map(|range| {
        let levels = 1..=range.deepest();
        let landings = levels.filter_map(|level| Landing::of(range, level, &situation));
        let drains = landings.filter_map(|landing| landing.next_drain_ms(&situation));
        drains.chain(rewrite::next_old_ms(range, options)).collect::<Vec<_>>()
    });
    times.filter(|at| *at > now_ms).min()
}

/// Everything in L0 that no running job holds, nor what lies over that: into the landing of L1, or with what it overlaps into L1 itself.
fn pick_l0(range: &RangeVersion, score: f64, situation: &Situation<'_>) -> Option<Job> {
    // Before anything lands: a new range learns early how its keys spread.
    if let Some(job) = reshard::pick(range, situation) {
        return Some(job);
    }
    let slices = unhindered(range, situation);
    // L1 or its landing may be busy or full somewhere below the newest tables: then the oldest ones go, closed
    // under "older and overlapping". Walking from the oldest, a prefix is closed by itself.
    (1..=slices.len()).rev().find_map(|count| {
        let oldest = slices[slices.len() - count..].to_vec();
        let inputs = Inputs { place: Place::L0, slices: oldest };
        hand_down(range, inputs, score, situation).filter(|job| situation.admits(job))
    })
}

/// The L0 tables that may go down without one that is set aside, or that a job has, newest first: closed under "older and
/// overlapping" (INVARIANT(oldest-closed)). Where nothing can land, they also lie within bounds that hold
/// no L1 table that is set aside, and of several such groups it is the one with the most tables. Where it can,
/// those that lie over a shard that has no room stay as well.
fn unhindered(range: &RangeVersion, situation: &Situation<'_>) -> Vec<Slice> {
    let l0 = range.layers.in_order(Place::L0);
    let options = situation.options;
    let lands = options.landing_runs_max > 0;
    let l1 = if lands { Vec::new() } else { range.layers.in_order(Place::Main(1)) };
    let walls: Vec<_> = l1.iter().filter(|slice| situation.is_set_aside(slice)).collect();
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
    // What lies over a table that has to stay has to stay as well.
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

/// One slice of a level and some neighbours: the one that drags the least along, from the cursor on.
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
    // Neighbours to the right that overlap no further target come along for free.
    let most = situation.options.grandparent_bytes_max();
    for end in at + 1..slices.len().min(at + GROWTH) {
        let targets = |job: &Job| job.slices().filter(|(place, _)| *place == target).count();
        let Some(wider) = admitted(at, end) else { break };
        let large = wider.input_bytes() > most;
        if best.task != Task::Merge || targets(&wider) != targets(&best) || large {
            break;
        }
        best = wider;
    }
    Some(best)
}

/// The cheapest way for slices of one place into the next level. They go as they are where nothing overlaps. They
/// are merged with what they overlap where that is little for what they bring, or little at all.
/// Otherwise they land, and wait for others. `None` if none of that can be done yet.
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
    let (runs, superseded) = (input.slices.len(), superseded(&input.slices));
    let why = |choice| Why { choice, score, bytes, target_bytes, runs, superseded };
    let mut landed = range.layers.landing(output.level()).iter();
    let over_landed = landed.any(|layer| !layer.run.overlapping(&min, &max).is_empty());
    let lands = options.landing_runs_max > 0;
    // While nobody can merge, L0 is not to wait for that.
    let waits = lands && !situation.merges && input.place == Place::L0;
    if !over_landed {
        if targets.is_empty() {
            let job = into_nothing(range, input.clone(), output, options);
            let choice = if job.task == Task::Move { Choice::Move } else { Choice::Merge };
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

/// Into a place where nothing overlaps: as they are, unless they overlap each other, or too much of the level
/// below that.
pub(super) fn into_nothing(
    range: &RangeVersion,
    input: Inputs,
    output: Place,
    options: &CompactionOptions,
) -> Job {
    let job = Job::new(range, vec![input], output);
    let overlap: u64 = job.grandparents.iter().map(|slice| slice.file_bytes()).sum();
    let is_move =
        options.moves && overlap <= options.grandparent_bytes_max() && is_disjoint(&job, options);
    if is_move { job.moved() } else { job }
}

/// Could the inputs be one run as they are? With one table per level, only a single one can.
fn is_disjoint(job: &Job, options: &CompactionOptions) -> bool {
    let mut slices: Vec<_> = job.slices().map(|(_, slice)| slice).collect();
    slices.sort_by(|a, b| a.min_key().cmp(b.min_key()));
    let one_per_level = options.table_bytes_max == u64::MAX && slices.len() > 1;
    !one_per_level && slices.windows(2).all(|pair| pair[0].max_key() < pair[1].min_key())
}

/// Has each shard that the input lies in room for its runs?
fn has_room(range: &RangeVersion, input: &Inputs, level: u8, options: &CompactionOptions) -> bool {
    let shards = input.slices.iter().flat_map(|slice| {
        range.shards.index(slice.min_key())..=range.shards.index(slice.max_key())
    });
    let mut more: BTreeMap<usize, usize> = BTreeMap::new();
    shards.for_each(|shard| *more.entry(shard).or_default() += 1);
    // Slices of a level do not overlap: they are one run.
    let runs = |more: usize| if input.place.is_tier() { more } else { 1 };
    more.into_iter().all(|(shard, more)| {
        let there = range.layers.at(Place::Landing(level, shard as u16)).len();
        there == 0 || there + runs(more) <= options.landing_runs_max
    })
}

#[cfg(test)]
mod example;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::testing::{meta, slice, version_of};
    use crate::version::{Graveyard, RangeId, TableHandle};

    const MIB: u64 = 1 << 20;
    static NONE: BTreeSet<SliceName> = BTreeSet::new();

    fn situation<'a>(
        version: &'a Version,
        options: &'a CompactionOptions,
        claims: &'a Claims,
        set_aside: &'a BTreeSet<SliceName>,
    ) -> Situation<'a> {
        Situation {
            version,
            options,
            claims,
            set_aside,
            now_ms: 0,
            quiet_since_ms: 0,
            merges: true,
        }
    }

    fn pick(
        version: &Version,
        options: &CompactionOptions,
        claims: &Claims,
        set_aside: &BTreeSet<SliceName>,
    ) -> Option<Job> {
        super::pick(&situation(version, options, claims, set_aside), &mut Rounds::default())
    }

    fn pick_only_l0(version: &Version, claims: &Claims) -> Option<Job> {
        let (options, range) = (options(), version.range(RangeId::FIRST).unwrap());
        pick_l0(range, 1.0, &situation(version, &options, claims, &NONE))
    }

    fn options() -> CompactionOptions {
        CompactionOptions {
            level_base_bytes: MIB,
            table_bytes_max: MIB,
            // Every table is a flush.
            shards: 1,
            landing_runs_max: 0,
            ..CompactionOptions::balanced()
        }
    }

    /// (level, numbers) of each input, the output level, and whether it is a move.
    type Shape = (Vec<(u8, Vec<u64>)>, u8, bool);

    fn shape(job: &Job) -> Shape {
        let numbers = |inputs: &Inputs| inputs.slices.iter().map(|t| t.number().0).collect();
        let inputs =
            job.inputs.iter().map(|inputs| (inputs.place.level(), numbers(inputs))).collect();
        (inputs, job.output.level(), job.task == Task::Move)
    }

    fn t(number: u64, min: &str, max: &str, mib: u64) -> Slice {
        slice(number, min.as_bytes(), max.as_bytes(), mib * MIB)
    }

    #[test]
    fn versions_and_the_jobs_they_call_for() {
        let cases: Vec<(&str, Version, Option<Shape>)> = vec![
            ("nothing is due", version_of(vec![t(3, "a", "z", 1)], vec![]), None),
            (
                "four overlapping tables and what they overlap below",
                version_of(
                    vec![
                        t(9, "c", "d", 1),
                        t(8, "a", "e", 1),
                        t(7, "b", "c", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![vec![t(2, "a", "a", 1), t(3, "e", "g", 1), t(4, "h", "z", 1)]],
                ),
                Some((vec![(0, vec![9, 8, 7, 6]), (1, vec![2, 3])], 1, false)),
            ),
            (
                "disjoint tables over nothing move",
                version_of(
                    vec![
                        t(9, "g", "h", 1),
                        t(8, "e", "f", 1),
                        t(7, "c", "d", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![vec![t(2, "m", "z", 1)]],
                ),
                Some((vec![(0, vec![9, 8, 7, 6])], 1, true)),
            ),
            (
                "overlapping tables over nothing are merged",
                version_of(
                    vec![
                        t(9, "a", "h", 1),
                        t(8, "e", "f", 1),
                        t(7, "c", "d", 1),
                        t(6, "a", "b", 1),
                    ],
                    vec![],
                ),
                Some((vec![(0, vec![9, 8, 7, 6])], 1, false)),
            ),
            (
                "the table that drags the least along",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "a", "c", 6), t(6, "d", "f", 6)],
                        vec![t(1, "a", "b", 20), t(2, "c", "d", 20), t(3, "f", "g", 1)],
                    ],
                ),
                Some((vec![(1, vec![6]), (2, vec![2, 3])], 2, false)),
            ),
            (
                "nothing below: a move",
                version_of(vec![], vec![vec![t(5, "a", "c", 6), t(6, "d", "f", 6)]]),
                Some((vec![(1, vec![5])], 2, true)),
            ),
            (
                "no move onto a mountain of grandparents",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "a", "z", 12)],
                        vec![],
                        vec![t(1, "a", "m", 6), t(2, "n", "z", 6)],
                    ],
                ),
                Some((vec![(1, vec![5])], 2, false)),
            ),
            (
                "neighbours that cost nothing come along",
                version_of(
                    vec![],
                    vec![
                        vec![t(5, "b", "c", 4), t(6, "d", "e", 4), t(7, "f", "zz", 4)],
                        vec![t(1, "a", "f", 1), t(2, "zz", "zzz", 50)],
                    ],
                ),
                Some((vec![(1, vec![5, 6]), (2, vec![1])], 2, false)),
            ),
        ];
        for (name, version, want) in cases {
            crate::version::check::check(&version).unwrap();
            let job = pick(&version, &options(), &Claims::new(), &NONE);
            assert_eq!(job.as_ref().map(shape), want, "{name}");
        }
    }

    /// Planted: `>=`; a rewrite in place whatever lies below; L0 too.
    #[test]
    fn tables_that_are_full_of_tombstones_are_merged_although_their_level_is_small() {
        let dead = |number, min: &str, max: &str, percent| {
            let mut meta = meta(number, min.as_bytes(), max.as_bytes(), 10_000);
            meta.tombstones = meta.entries * percent / 100;
            Slice::whole(&TableHandle::unopened(meta.into(), Graveyard::new()))
        };
        let cases: Vec<(&str, Version, Option<Shape>)> = vec![
            (
                "half is not more than half, and L0 has its own trigger",
                version_of(vec![dead(9, "a", "z", 100)], vec![vec![dead(5, "a", "c", 50)]]),
                None,
            ),
            (
                "over nothing",
                version_of(
                    vec![],
                    vec![vec![t(4, "a", "b", 0), dead(5, "c", "d", 51)], vec![t(1, "e", "f", 0)]],
                ),
                Some((vec![(1, vec![5])], 1, false)),
            ),
            (
                "over what they hide",
                version_of(vec![], vec![vec![dead(5, "c", "d", 51)], vec![t(1, "d", "f", 0)]]),
                Some((vec![(1, vec![5]), (2, vec![1])], 2, false)),
            ),
            (
                "far above what they hide: a step nearer",
                version_of(
                    vec![],
                    vec![vec![dead(5, "c", "d", 51)], vec![], vec![t(1, "d", "f", 0)]],
                ),
                Some((vec![(1, vec![5])], 2, true)),
            ),
            (
                "the first that can be had",
                version_of(vec![], vec![vec![dead(5, "c", "d", 90), dead(6, "e", "f", 60)]]),
                Some((vec![(1, vec![5])], 1, false)),
            ),
        ];
        for (name, version, want) in cases {
            let job = pick(&version, &options(), &Claims::new(), &NONE);
            assert_eq!(job.as_ref().map(shape), want, "{name}");
            let off = CompactionOptions { tombstone_percent_max: 100, ..options() };
            assert!(pick(&version, &off, &Claims::new(), &NONE).is_none(), "{name}");
        }
    }

    #[test]
    fn picks_go_round_the_level_and_around_running_jobs() {
        let tables = || {
            (0..20).map(|n| {
                let key = format!("k{n:02}");
                t(n + 1, &key, &key, 1)
            })
        };
        let below = (0..20).map(|n| {
            let key = format!("k{n:02}");
            t(n + 31, &key, &format!("{key}x"), 1)
        });
        let version = version_of(vec![], vec![tables().collect(), below.collect()]);
        let mut claims = Claims::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut running = Vec::new();
        for _ in 0..20 {
            let job = pick(&version, &options(), &claims, &NONE).expect("due");
            assert!(seen.insert(job.inputs[0].slices[0].number()), "picked again while running");
            running.push(claims.claim(job));
        }
        assert!(pick(&version, &options(), &claims, &NONE).is_none(), "all of it is claimed");
        // One at a time, the round goes on from its cursor.
        let mut claims = Claims::new();
        let mut order = Vec::new();
        for _ in 0..3 {
            let job = pick(&version, &options(), &claims, &NONE).expect("due");
            order.push(job.inputs[0].slices[0].number().0);
            drop(claims.claim(job));
        }
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn l0_waits_for_its_own_job_but_its_oldest_tables_go_around_a_busy_l1() {
        let l0 = vec![t(9, "a", "z", 1), t(8, "a", "c", 1), t(7, "b", "c", 1), t(6, "a", "b", 1)];
        let version = version_of(
            l0,
            vec![vec![t(2, "a", "d", 6), t(3, "m", "p", 6)], vec![t(1, "m", "n", 1)]],
        );
        let range = version.range(RangeId::FIRST).unwrap();
        let slices = range.layers.in_order(Place::Main(1))[1..].to_vec();
        let busy = Inputs { place: Place::Main(1), slices };
        let busy = Job::new(
            range,
            vec![
                busy,
                Inputs { place: Place::Main(2), slices: range.layers.in_order(Place::Main(2)) },
            ],
            Place::Main(2),
        );
        let mut claims = Claims::new();
        let busy = claims.claim(busy);
        let job = pick_only_l0(&version, &claims).unwrap();
        assert_eq!(shape(&job), (vec![(0, vec![8, 7, 6]), (1, vec![2])], 1, false));
        let held = claims.claim(job);
        drop(busy);
        assert!(pick_only_l0(&version, &claims).is_none());
        drop(held);
        let job = pick_only_l0(&version, &claims).unwrap();
        assert_eq!(job.inputs[0].slices.len(), 4);
    }

    #[test]
    fn tombstones_are_dropped_only_over_nothing_older() {
        let version = version_of(
            (0..4).map(|n| t(20 - n, "a", "z", 1)).collect(),
            vec![vec![t(5, "a", "z", 1)], vec![t(4, "c", "f", 1)], vec![t(3, "m", "p", 1)]],
        );
        let job = pick(&version, &options(), &Claims::new(), &NONE).unwrap();
        for (key, may) in [
            ("a", true),
            ("c", false),
            ("d", false),
            ("f", false),
            ("g", true),
            ("n", false),
            ("q", true),
        ] {
            assert_eq!(job.may_drop_tombstone(key.as_bytes()), may, "{key}");
        }
    }

    /// (what is set aside, what is picked of L0 and of L1)
    type Around = (&'static [u64], Option<(&'static [u64], &'static [u64])>);

    #[test]
    fn a7_jobs_go_around_what_is_set_aside_and_around_what_lies_over_it() {
        let l0 = vec![
            t(16, "a", "b", 1),
            t(15, "e", "f", 1),
            t(14, "p", "q", 1),
            t(13, "b", "e", 1),
            t(12, "r", "s", 1),
            t(11, "d", "d", 1),
        ];
        let l1 = vec![t(1, "a", "c", 1), t(2, "m", "n", 1), t(3, "q", "z", 1)];
        let cases: [Around; 8] = [
            (&[], Some((&[16, 15, 14, 13, 12, 11], &[1, 2, 3]))),
            (&[99], Some((&[16, 15, 14, 13, 12, 11], &[1, 2, 3]))),
            // 13 lies over 11, and 16 and 15 over 13.
            (&[11], Some((&[14, 12], &[3]))),
            (&[13], Some((&[14, 12, 11], &[2, 3]))),
            (&[16], Some((&[15, 14, 13, 12, 11], &[1, 2, 3]))),
            // A wall in L1 that nothing in L0 overlaps: one side of it.
            (&[2], Some((&[16, 15, 13, 11], &[1]))),
            (&[2, 11], Some((&[14, 12], &[3]))),
            (&[1, 3, 11], None),
        ];
        let version = version_of(l0, vec![l1]);
        let options = CompactionOptions { l0_trigger: 1, level_base_bytes: 100 * MIB, ..options() };
        for (set_aside, want) in cases {
            let set_aside = version
                .slices()
                .map(|(_, _, slice)| slice.name())
                .filter(|name| set_aside.contains(&name.table.0))
                .collect();
            let job = pick(&version, &options, &Claims::new(), &set_aside);
            let numbers = |job: &Job, level| -> Vec<u64> {
                let of = job.slices().filter(|(place, _)| place.level() == level);
                of.map(|(_, slice)| slice.number().0).collect()
            };
            let found = job.map(|job| (numbers(&job, 0), numbers(&job, 1)));
            let want = want.map(|(l0, l1)| (l0.to_vec(), l1.to_vec()));
            assert_eq!(found, want, "set aside: {set_aside:?}");
        }
    }

    #[test]
    fn a7_a_level_goes_around_what_is_set_aside() {
        let upper = vec![t(5, "a", "c", 6), t(6, "d", "f", 6)];
        let lower = vec![t(1, "a", "b", 20), t(2, "c", "d", 20), t(3, "f", "g", 1)];
        let version = version_of(vec![], vec![upper, lower]);
        let picked = |number| {
            let names = version.slices().map(|(_, _, slice)| slice.name());
            let set_aside = names.filter(|name| name.table.0 == number).collect();
            let job = pick(&version, &options(), &Claims::new(), &set_aside);
            job.map(|job| job.inputs[0].slices[0].number().0)
        };
        assert_eq!((picked(6), picked(3), picked(5)), (Some(5), Some(5), Some(6)));
        assert_eq!(picked(2), None, "both overlap it");
    }
}
