//! Version + scores -> the next job.
//!
//! Tables that could not be merged lately may be set aside. Jobs are then planned around them and around
//! what has to wait for them, so that a damaged table hurts its own keys only.

use super::claims::Claims;
use super::job::{Inputs, Job};
use super::options::CompactionOptions;
use super::score::scores;
use crate::filename::FileNumber;
use crate::version::{Place, RangeVersion, Slice, Version};
use std::collections::{BTreeMap, BTreeSet};

/// How many slices of a level are compared for the cheapest pick, from the round-robin cursor on.
const WINDOW: usize = 8;
/// A pick grows by neighbours that cost no further target, up to this many slices.
const GROWTH: usize = 8;

/// What a job has to leave alone.
#[derive(Clone, Copy)]
struct Others<'a> {
    claims: &'a Claims,
    set_aside: &'a BTreeSet<FileNumber>,
}

impl Others<'_> {
    fn admit(&self, job: &Job) -> bool {
        self.claims.admits(job) && !job.slices().any(|(_, slice)| self.is_set_aside(slice))
    }

    fn is_set_aside(&self, slice: &Slice) -> bool {
        // Nearly always nothing is.
        !self.set_aside.is_empty() && self.set_aside.contains(&slice.number())
    }
}

/// The most urgent job that can run beside `claims` and does not need what is `set_aside`; `None` when
/// nothing is due. A level that is too large comes before a table that is full of tombstones. Claim the job
/// before asking again.
pub fn pick(
    version: &Version,
    options: &CompactionOptions,
    claims: &Claims,
    set_aside: &BTreeSet<FileNumber>,
) -> Option<Job> {
    let others = Others { claims, set_aside };
    for due in scores(version, options).into_iter().take_while(|due| due.score >= 1.0) {
        let range = version.range(due.range)?;
        let job = match due.place {
            Place::Main(level) => pick_level(range, level, options, others),
            Place::L0 | Place::Landing(..) => pick_l0(range, options, others),
        };
        if job.is_some() {
            return job;
        }
    }
    version.ranges().iter().find_map(|range| pick_tombstones(range, options, others))
}

/// A table that scans walk over for nothing. It goes down to what its tombstones hide; where that is
/// nothing, it is rewritten in its place without them. Either way it comes nearer to its end: the number
/// of such jobs is bounded by the number of levels.
fn pick_tombstones(
    range: &RangeVersion,
    options: &CompactionOptions,
    others: Others<'_>,
) -> Option<Job> {
    let is_due = |slice: &Slice| {
        let share = u128::from(slice.tombstones()) * 100;
        share > u128::from(slice.entries()) * u128::from(options.tombstone_percent_max)
    };
    let levels = range.layers.iter().filter(|layer| matches!(layer.place, Place::Main(_)));
    levels.filter(|layer| layer.run.tombstones() > 0).find_map(|layer| {
        let (place, slices) = (layer.place, layer.run.slices().iter());
        slices.filter(|slice| is_due(slice)).find_map(|slice| {
            let input = Inputs { place, slices: vec![slice.clone()] };
            let job = if range.is_bottom_of(place, slice.min_key(), slice.max_key()) {
                Job::new(range, vec![input], place)
            } else {
                with_targets(range, input, Place::Main(place.level() + 1), options)
            };
            others.admit(&job).then_some(job)
        })
    })
}

/// Everything in L0 that no running job holds, with what it overlaps in L1.
fn pick_l0(range: &RangeVersion, options: &CompactionOptions, others: Others<'_>) -> Option<Job> {
    // One L0 job per range: a second one would have to prove that it skips nothing older.
    if others.claims.touches(range.id, Place::L0) {
        return None;
    }
    let slices = unhindered(range, others);
    if slices.is_empty() {
        return None;
    }
    let of = |slices: &[Slice]| {
        let inputs = Inputs { place: Place::L0, slices: slices.to_vec() };
        with_targets(range, inputs, Place::Main(1), options)
    };
    let job = of(&slices);
    if others.admit(&job) {
        return Some(job);
    }
    // L1 is busy somewhere below the newest tables: try the oldest ones, closed under "older and
    // overlapping". Walking from the oldest, a prefix is closed by itself.
    (1..slices.len()).rev().find_map(|count| {
        let job = of(&slices[slices.len() - count..]);
        others.admit(&job).then_some(job)
    })
}

/// The L0 tables that may go down without one that is set aside, newest first: closed under "older and
/// overlapping" (INVARIANT(oldest-closed)), and within bounds that hold no L1 table that is set aside.
/// Of several such groups the one with the most tables.
fn unhindered(range: &RangeVersion, others: Others<'_>) -> Vec<Slice> {
    let l1 = range.layers.in_order(Place::Main(1));
    let l0 = range.layers.in_order(Place::L0);
    let walls: Vec<_> = l1.iter().filter(|slice| others.is_set_aside(slice)).collect();
    if walls.is_empty() && !l0.iter().any(|slice| others.is_set_aside(slice)) {
        return l0;
    }
    // What lies over a table that has to stay has to stay as well.
    let mut staying = walls.clone();
    let mut groups: BTreeMap<usize, Vec<Slice>> = BTreeMap::new();
    for slice in l0.iter().rev() {
        let overlaps = |other: &&Slice| other.overlaps(slice.min_key(), slice.max_key());
        if others.is_set_aside(slice) || staying.iter().any(overlaps) {
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
    options: &CompactionOptions,
    others: Others<'_>,
) -> Option<Job> {
    let slices = range.layers.main(level)?.slices();
    let target = Place::Main(level + 1);
    let start = others.claims.cursor(range.id, Place::Main(level)).map_or(0, |after| {
        let at = slices.partition_point(|slice| *slice.max_key() <= *after);
        if at == slices.len() { 0 } else { at }
    });
    let cost = |at: usize| {
        let slice = &slices[at];
        let targets = range.overlapping(target, slice.min_key(), slice.max_key());
        let bytes: u64 = targets.iter().map(|slice| slice.file_bytes()).sum();
        bytes as f64 / slice.file_bytes().max(1) as f64
    };
    let of = |from: usize, to: usize| {
        let inputs = Inputs { place: Place::Main(level), slices: slices[from..=to].to_vec() };
        with_targets(range, inputs, target, options)
    };
    let admitted = |at: usize| {
        let job = of(at, at);
        others.admit(&job).then_some(job)
    };
    let order = (0..slices.len()).map(|step| (start + step) % slices.len());
    let mut window: Vec<(f64, usize)> = Vec::new();
    for at in order {
        if admitted(at).is_some() {
            window.push((cost(at), at));
            if window.len() == WINDOW {
                break;
            }
        }
    }
    let (_, at) = window.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let mut best = admitted(at)?;
    // Neighbours to the right that overlap no further target come along for free.
    for end in at + 1..slices.len().min(at + GROWTH) {
        let wider = of(at, end);
        let targets = |job: &Job| job.slices().filter(|(place, _)| *place == target).count();
        let large = wider.input_bytes() > options.grandparent_bytes_max();
        if best.is_move || targets(&wider) != targets(&best) || large || !others.admit(&wider) {
            break;
        }
        best = wider;
    }
    Some(best)
}

/// Completes an input by what it overlaps in the output's place; a move where nothing overlaps.
fn with_targets(
    range: &RangeVersion,
    input: Inputs,
    output: Place,
    options: &CompactionOptions,
) -> Job {
    let mut job = Job::new(range, vec![input], output);
    let targets = {
        let (min, max) = job.bounds();
        range.overlapping(output, min, max)
    };
    if !targets.is_empty() {
        let mut inputs = std::mem::take(&mut job.inputs);
        inputs.push(Inputs { place: output, slices: targets });
        return Job::new(range, inputs, output);
    }
    let overlap: u64 = job.grandparents.iter().map(|slice| slice.file_bytes()).sum();
    job.is_move =
        options.moves && overlap <= options.grandparent_bytes_max() && is_disjoint(&job, options);
    job
}

/// Could the inputs be one run as they are? With one table per level, only a single one can.
fn is_disjoint(job: &Job, options: &CompactionOptions) -> bool {
    let mut slices: Vec<_> = job.slices().map(|(_, slice)| slice).collect();
    slices.sort_by(|a, b| a.min_key().cmp(b.min_key()));
    let one_per_level = options.table_bytes_max == u64::MAX && slices.len() > 1;
    !one_per_level && slices.windows(2).all(|pair| pair[0].max_key() < pair[1].min_key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::testing::{meta, slice, version_of};
    use crate::version::{Graveyard, RangeId, TableHandle};

    const MIB: u64 = 1 << 20;
    static NONE: BTreeSet<FileNumber> = BTreeSet::new();

    fn others(claims: &Claims) -> Others<'_> {
        Others { claims, set_aside: &NONE }
    }

    fn options() -> CompactionOptions {
        CompactionOptions {
            level_base_bytes: MIB,
            table_bytes_max: MIB,
            // Every table is a flush.
            shards: 1,
            ..CompactionOptions::balanced()
        }
    }

    /// (level, numbers) of each input, the output level, and whether it is a move.
    type Shape = (Vec<(u8, Vec<u64>)>, u8, bool);

    fn shape(job: &Job) -> Shape {
        let numbers = |inputs: &Inputs| inputs.slices.iter().map(|t| t.number().0).collect();
        let inputs =
            job.inputs.iter().map(|inputs| (inputs.place.level(), numbers(inputs))).collect();
        (inputs, job.output.level(), job.is_move)
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
        let busy = with_targets(range, busy, Place::Main(2), &options());
        let mut claims = Claims::new();
        let busy = claims.claim(busy);
        let job = pick_l0(range, &options(), others(&claims)).unwrap();
        assert_eq!(shape(&job), (vec![(0, vec![8, 7, 6]), (1, vec![2])], 1, false));
        let held = claims.claim(job);
        drop(busy);
        assert!(pick_l0(range, &options(), others(&claims)).is_none());
        drop(held);
        let job = pick_l0(range, &options(), others(&claims)).unwrap();
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
            let set_aside = set_aside.iter().copied().map(FileNumber).collect();
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
            let set_aside = [FileNumber(number)].into();
            let job = pick(&version, &options(), &Claims::new(), &set_aside);
            job.map(|job| job.inputs[0].slices[0].number().0)
        };
        assert_eq!((picked(6), picked(3), picked(5)), (Some(5), Some(5), Some(6)));
        assert_eq!(picked(2), None, "both overlap it");
    }
}
