//! Which job comes next, over versions without files.

use super::*;
use crate::codec::hash64;
use crate::version::testing::{meta, slice, version_of};
use crate::version::{Landed, ObsoleteFiles, RangeId, SliceMeta, TableHandle};

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
        ranges: version.ranges(),
        options,
        claims,
        set_aside,
        now_ms: 0,
        quiet_since_ms: 0,
        resting: None,
        bursts: None,
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
        // Every table is one flush.
        shards: 1,
        landing_runs_max: 0,
        ..CompactionOptions::balanced()
    }
}

/// (level, numbers) of each input, the output level, and whether it is a move.
type Shape = (Vec<(u8, Vec<u64>)>, u8, bool);

fn shape(job: &Job) -> Shape {
    let numbers = |inputs: &Inputs| inputs.slices.iter().map(|t| t.number().0).collect();
    let inputs = job.inputs.iter().map(|inputs| (inputs.place.level(), numbers(inputs))).collect();
    (inputs, job.output.level(), job.task == JobTask::Move)
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
                vec![t(9, "c", "d", 1), t(8, "a", "e", 1), t(7, "b", "c", 1), t(6, "a", "b", 1)],
                vec![vec![t(2, "a", "a", 1), t(3, "e", "g", 1), t(4, "h", "z", 1)]],
            ),
            Some((vec![(0, vec![9, 8, 7, 6]), (1, vec![2, 3])], 1, false)),
        ),
        (
            "disjoint tables over nothing move",
            version_of(
                vec![t(9, "g", "h", 1), t(8, "e", "f", 1), t(7, "c", "d", 1), t(6, "a", "b", 1)],
                vec![vec![t(2, "m", "z", 1)]],
            ),
            Some((vec![(0, vec![9, 8, 7, 6])], 1, true)),
        ),
        (
            "overlapping tables over nothing are merged",
            version_of(
                vec![t(9, "a", "h", 1), t(8, "e", "f", 1), t(7, "c", "d", 1), t(6, "a", "b", 1)],
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
                vec![vec![t(5, "a", "z", 12)], vec![], vec![t(1, "a", "m", 6), t(2, "n", "z", 6)]],
            ),
            Some((vec![(1, vec![5])], 2, false)),
        ),
    ];
    for (name, version, want) in cases {
        crate::version::check::check(&version).unwrap();
        let job = pick(&version, &options(), &Claims::new(), &NONE);
        assert_eq!(job.as_ref().map(shape), want, "{name}");
    }
}

/// Planted: `>=`; a rewrite in place whatever is below; L0 as well.
#[test]
fn tables_that_are_full_of_tombstones_are_merged_although_their_level_is_small() {
    let dead = |number, min: &str, max: &str, percent| {
        let mut meta = meta(number, min.as_bytes(), max.as_bytes(), 10_000);
        meta.tombstones = meta.entries * percent / 100;
        Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()))
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
            version_of(vec![], vec![vec![dead(5, "c", "d", 51)], vec![], vec![t(1, "d", "f", 0)]]),
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
        t(n + 31, &key, &format!("{key}x"), 3)
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
    // Picked one at a time, the round-robin continues from its cursor.
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
    let version =
        version_of(l0, vec![vec![t(2, "a", "d", 6), t(3, "m", "p", 6)], vec![t(1, "m", "n", 1)]]);
    let range = version.range(RangeId::FIRST).unwrap();
    let slices = range.layers.in_order(Place::Main(1))[1..].to_vec();
    let busy = Inputs { place: Place::Main(1), slices };
    let busy = Job::new(
        range,
        vec![busy, Inputs { place: Place::Main(2), slices: range.layers.in_order(Place::Main(2)) }],
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

/// Planted: the other way round; tables that overlap no input count.
#[test]
fn a_job_lies_above_tables_only_if_they_overlap_it() {
    for (below, lies_above) in [(t(3, "m", "p", 1), true), (t(3, "zz", "zzz", 1), false)] {
        let l0 = (0..4).map(|n| t(20 - n, "a", "z", 1)).collect();
        let version = version_of(l0, vec![vec![t(5, "a", "z", 1)], vec![below]]);
        let job = pick(&version, &options(), &Claims::new(), &NONE).unwrap();
        assert_eq!(job.lies_above(), lies_above);
    }
}

/// (tables set aside, what is picked of L0 and of L1)
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
        // 13 overlaps 11; 16 and 15 overlap 13.
        (&[11], Some((&[14, 12], &[3]))),
        (&[13], Some((&[14, 12, 11], &[2, 3]))),
        (&[16], Some((&[15, 14, 13, 12, 11], &[1, 2, 3]))),
        // A wall in L1 that nothing in L0 overlaps: only one side of it is picked.
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

/// Goal: landings were switched off while one had a table, and that table cannot be merged. Only
/// tables that overlap it wait.
///
/// Planted: landed tables are no walls.
#[test]
fn a7_without_landings_l0_goes_around_what_has_landed() {
    let landed = |epoch, slice: Slice| {
        let landed = Some(Landed { epoch, at_ms: 0 });
        Slice::new(SliceMeta { landed, ..slice.meta().clone() }, Arc::clone(slice.handle()))
    };
    let l0 = vec![t(14, "x", "z", 1), t(13, "n", "o", 1), t(12, "a", "b", 1), t(11, "p", "q", 1)];
    let version = version_of(l0, vec![vec![t(1, "a", "z", 1)]]);
    let mut range = RangeVersion::clone(&version.ranges()[0]);
    let there = vec![landed(2, t(5, "a", "c", 1)), landed(1, t(4, "b", "h", 1))];
    range.layers = range.layers.with(Place::Landing(1, 0), there);
    let version = Version::new(vec![Arc::new(range)], ObsoleteFiles::new());
    let options = CompactionOptions { l0_trigger: 1, level_base_bytes: 100 * MIB, ..options() };
    let damaged: Vec<_> = version.slices().map(|(_, _, slice)| slice.name()).collect();
    let damaged = damaged.into_iter().filter(|name| [4, 5].contains(&name.table.0)).collect();
    let job = pick(&version, &options, &Claims::new(), &damaged).expect("L0 is due");
    assert_eq!(shape(&job), (vec![(0, vec![14, 13, 11]), (1, vec![1])], 1, false));
}

/// Goal: in a burst of writes, L0 is merged, or lands, half as often. Other ranges and levels are
/// as due as ever, and so is an L0 that has more bytes than it may have.
///
/// Planted: bursts are ignored; no bound; L1 waits as well; the burst of any range counts; twice
/// all limits.
#[test]
fn in_a_burst_l0_waits_until_it_has_twice_as_many_runs() {
    let l0 = |runs: u64| (0..runs).map(|n| t(20 - n, "a", "z", 1)).collect::<Vec<_>>();
    let (here, elsewhere) = ([RangeId::FIRST].into(), [RangeId(7)].into());
    for (bursts, due_from) in [(None, 4), (Some(&elsewhere), 4), (Some(&here), 8)] {
        for merges in [true, false] {
            for runs in 1..=12 {
                // L1 is so large that L0 lands.
                let version = version_of(l0(runs), vec![vec![t(1, "a", "z", 400)]]);
                let options = CompactionOptions { level_base_bytes: 100 * MIB, ..options() };
                let options = CompactionOptions { landing_runs_max: 12, ..options };
                let claims = Claims::new();
                let quiet = situation(&version, &options, &claims, &NONE);
                let job =
                    super::pick(&Situation { bursts, merges, ..quiet }, &mut Rounds::default());
                assert_eq!(job.is_some(), runs >= due_from, "{runs} runs, {bursts:?}");
            }
        }
    }
    let version = version_of(l0(4), vec![vec![t(5, "a", "c", 6), t(6, "d", "f", 6)]]);
    let (mut options, claims) = (options(), Claims::new());
    options.l0_bytes_max = MIB / 8;
    let quiet = situation(&version, &options, &claims, &NONE);
    let burst = Situation { bursts: Some(&here), ..quiet };
    let job = super::pick(&burst, &mut Rounds::default()).expect("L0 has many bytes");
    assert_eq!(job.input_place(), Place::L0);
    options.l0_bytes_max = u64::MAX;
    let quiet = situation(&version, &options, &claims, &NONE);
    let burst = Situation { bursts: Some(&here), ..quiet };
    let job = super::pick(&burst, &mut Rounds::default()).expect("L1 is over its limit");
    assert_eq!(job.input_place(), Place::Main(1));
}

/// Flush `n`, newest first, whose tables have these keys.
fn flushes(runs: u64, keys: impl Fn(u64) -> std::ops::Range<u64>) -> Vec<Slice> {
    let flush = |n| {
        let mut meta = meta(99 - n, b"a", b"z", 10 * MIB);
        meta.entries = 1000;
        keys(n).for_each(|key| meta.keys.add(hash64(&key.to_be_bytes())));
        Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()))
    };
    (0..runs).map(flush).collect()
}

/// Goal: in a burst, L0 waits for three times its runs where newer entries supersede a good part of
/// it, so that each rewrite of L1 takes more; but not if it is much larger than L1.
///
/// Planted: it waits in no burst as well; whatever is superseded; however large it is; without end.
#[test]
fn in_a_burst_an_l0_that_supersedes_itself_waits_for_three_times_as_many_runs() {
    let due_from = |base_mib: u64, in_burst: bool, keys: &dyn Fn(u64) -> std::ops::Range<u64>| {
        let here = [RangeId::FIRST].into();
        let level_base_bytes = base_mib * MIB;
        let options = CompactionOptions { level_base_bytes, landing_runs_max: 20, ..options() };
        let due = |runs: &u64| {
            let l1 = vec![t(1, "a", "z", 400)];
            let version = version_of(flushes(*runs, keys), vec![l1, vec![t(2, "a", "b", 1)]]);
            let claims = Claims::new();
            let quiet = situation(&version, &options, &claims, &NONE);
            let burst = Situation { bursts: in_burst.then_some(&here), ..quiet };
            burst.due(&version.ranges()[0], Place::L0).is_some()
        };
        (1..20).find(due).expect("no more than that")
    };
    let hot = |_| 0..1000;
    // Each flush has some keys of the one before: of eight, 0.35 and 0.09 are superseded.
    let some = |n| n * 600..n * 600 + 1000;
    let few = |n| n * 900..n * 900 + 1000;
    let none = |n| n * 1000..(n + 1) * 1000;
    assert_eq!((due_from(10, true, &hot), due_from(10, false, &hot)), (12, 4));
    assert_eq!((due_from(10, true, &none), due_from(10, false, &none)), (8, 4));
    assert_eq!((due_from(10, true, &some), due_from(10, true, &few)), (12, 8));
    for (base_mib, from) in [(1, 8), (2, 8), (3, 10), (4, 12)] {
        assert_eq!(due_from(base_mib, true, &hot), from, "{base_mib}0 MiB in L1");
    }
}

/// Planted: each piece of a flush counts as a run.
#[test]
fn a_decision_about_l0_counts_the_runs_that_its_tables_form() {
    let pieces = |flush| [t(flush + 1, "a", "k", 1), t(flush, "l", "z", 1)];
    let l0 = [8, 6, 4, 2].into_iter().flat_map(pieces).collect();
    let version = version_of(l0, vec![vec![t(1, "a", "z", 400)]]);
    let options = CompactionOptions { landing_runs_max: 12, shards: 2, ..options() };
    let options = CompactionOptions { level_base_bytes: 100 * MIB, ..options };
    let job = pick(&version, &options, &Claims::new(), &NONE).expect("L0 is due");
    assert_eq!((job.why.choice, job.why.runs, job.slices().count()), (Choice::Land, 4, 8));
}

mod neighbours;
