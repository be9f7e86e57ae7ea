//! Choices among landings, over versions without files.
//!
//! Long because each choice has its example, and all share one way to make versions.

use super::superseded;
use crate::codec::hash64;
use crate::compact::agenda::Agenda;
use crate::compact::backlog::ShardView;
use crate::compact::claims::{ClaimedJob, Claims};
use crate::compact::job::{Job, JobTask, LandingMode};
use crate::compact::manual::{ManualCompaction, ManualStep};
use crate::compact::options::CompactionOptions;
use crate::compact::pick::{Situation, landing_of, pick, quiet_since_ms};
use crate::compact::rounds::Rounds;
use crate::compact::why::Choice;
use crate::filename::FileNumber;
use crate::key::Span;
use crate::version::testing::{part_of, slice, slice_at};
use crate::version::{
    Landed, ObsoleteFiles, Place, RangeId, RangeVersion, Shards, Slice, SliceMeta, SliceName,
    TableHandle, Version, check,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A slice that has landed.
fn landed(epoch: u64, slice: &Slice) -> Slice {
    let landed = Some(Landed { epoch, at_ms: 0 });
    let meta = SliceMeta { landed, ..slice.meta().clone() };
    Slice::new(meta, Arc::clone(slice.handle()))
}

/// A range over a part of the keys, with two shards.
fn range(
    id: u32,
    lo: &'static [u8],
    hi: Option<&'static [u8]>,
    bound: &'static [u8],
) -> RangeVersion {
    let span = Span { lo: Bytes::from_static(lo), hi: hi.map(Bytes::from_static) };
    let shards = Shards::at(&span, vec![Bytes::from_static(bound)]).unwrap();
    RangeVersion::empty(RangeId(id), span, shards)
}

fn version(ranges: Vec<RangeVersion>) -> Version {
    let version = Version::new(ranges.into_iter().map(Arc::new).collect(), ObsoleteFiles::new());
    check::check(&version).unwrap();
    version
}

fn options() -> CompactionOptions {
    CompactionOptions {
        table_bytes_max: MIB,
        level_base_bytes: 1 << 40,
        landing_runs_max: 4,
        rest_after_ms: u64::MAX,
        landing_batch: 2,
        keep_trigger: 1.0,
        landing_parallelism: 1.try_into().unwrap(),
        ..CompactionOptions::balanced()
    }
}

fn name(number: u64, min: &[u8]) -> SliceName {
    SliceName { table: FileNumber(number), min_key: Bytes::copy_from_slice(min) }
}

/// The next time at which something is due, as a sleeping planner sees it.
fn next_due(version: &Version, options: &CompactionOptions, now_ms: u64) -> Option<u64> {
    let mut agenda = Agenda::default();
    agenda.follow(version, |_| 0, options, now_ms);
    agenda.next_ms(now_ms)
}

/// A planner that picks and claims jobs repeatedly.
struct Planner {
    version: Version,
    options: CompactionOptions,
    claims: Claims,
    rounds: Rounds,
    set_aside: BTreeSet<SliceName>,
    now_ms: u64,
}

impl Planner {
    fn new(version: Version, options: CompactionOptions) -> Self {
        let (claims, rounds) = (Claims::new(), Rounds::default());
        Self { version, options, claims, rounds, set_aside: BTreeSet::new(), now_ms: 0 }
    }

    fn situation<'a>(
        &'a self,
        claims: &'a Claims,
        set_aside: &'a BTreeSet<SliceName>,
        merges: bool,
    ) -> Situation<'a> {
        Situation {
            version: &self.version,
            ranges: self.version.ranges(),
            options: &self.options,
            claims,
            set_aside,
            now_ms: self.now_ms,
            quiet_since_ms: quiet_since_ms(&self.version),
            resting: None,
            bursts: None,
            merges,
        }
    }

    fn pick(&mut self, merges: bool) -> Option<Job> {
        let mut rounds = std::mem::take(&mut self.rounds);
        let job = pick(&self.situation(&self.claims, &self.set_aside, merges), &mut rounds);
        self.rounds = rounds;
        job
    }

    fn claim(&mut self) -> Option<ClaimedJob> {
        let job = self.pick(true)?;
        Some(self.claims.claim(job))
    }
}

/// Two shards with much data over little, each of them worth a drain.
fn full(mut range: RangeVersion, first: u64, keys: [&[u8]; 2]) -> RangeVersion {
    for (shard, key) in (0..).zip(keys) {
        let number = first + 10 * u64::from(shard);
        let of = |n: u64| landed(n, &slice(number + n, key, key, MIB));
        range.layers = range.layers.with(Place::Landing(1, shard), vec![of(3), of(2), of(1)]);
    }
    let main = slice(first, keys[0], keys[1], MIB);
    range.layers = range.layers.with(Place::Main(1), vec![main]);
    range
}

/// Planted: claims ignore landings.
#[test]
fn t000_13_two_shards_are_drained_at_once_and_the_same_one_never() {
    let mut both = range(1, b"", None, b"m");
    for (shard, min, max) in [(0, &b"c"[..], &b"f"[..]), (1, b"p", b"q")] {
        let at = 10 + 10 * u64::from(shard);
        let of = |n: u64| landed(n, &slice(at + n, min, max, MIB));
        both.layers = both.layers.with(Place::Landing(1, shard), vec![of(3), of(2), of(1)]);
    }
    // The first shard can be drained in two parts that share no key.
    let main = [(7, b"c", b"d"), (8, b"e", b"f"), (9, b"p", b"q")];
    let main = main.map(|(number, min, max)| slice(number, min, max, MIB));
    both.layers = both.layers.with(Place::Main(1), main.into());
    let options = CompactionOptions {
        landing_parallelism: 4.try_into().unwrap(),
        table_bytes_max: MIB / 8,
        ..options()
    };
    let mut planner = Planner::new(version(vec![both]), options);
    let (first, second) = (planner.claim().expect("due"), planner.claim().expect("due"));
    assert_eq!((first.mode(), second.mode()), (LandingMode::Drain, LandingMode::Drain));
    assert_ne!(first.input_place(), second.input_place());
    assert!(planner.claim().is_none(), "both are busy");
    let place = first.input_place();
    drop(first);
    let again = planner.claim().expect("it is free again");
    assert_eq!(again.input_place(), place);
}

/// Goal: jobs of one range do not make another range wait. Each landing counts its own merges.
///
/// Planted: merges of all landings are counted together.
#[test]
fn t000_13_a_landing_waits_for_no_other_ranges() {
    let first = full(range(1, b"", Some(b"m"), b"f"), 10, [b"c", b"h"]);
    let mut second = range(2, b"m", None, b"t");
    let of = |n: u64| landed(n, &slice(100 + n, b"p", b"p", 1000));
    second.layers = second.layers.with(Place::Landing(1, 0), vec![of(3), of(2), of(1)]);
    second.layers = second.layers.with(Place::Main(1), vec![slice(100, b"o", b"q", 1000)]);
    let mut planner = Planner::new(version(vec![first, second]), options());
    let mut busy = BTreeSet::new();
    let mut running = Vec::new();
    while let Some(job) = planner.claim() {
        assert_eq!(job.mode(), LandingMode::Drain);
        busy.insert(job.range);
        running.push(job);
    }
    assert_eq!(busy.len(), 2, "{running:?}");
}

/// A shard that has as many runs as it may have, over much in the level.
fn full_shard() -> (RangeVersion, CompactionOptions) {
    let mut range = range(1, b"", None, b"m");
    let of = |n: u64| landed(n, &slice(10 + n, b"a", b"c", MIB));
    range.layers = range.layers.with(Place::Landing(1, 0), (1..=4).map(of).collect());
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"d", 100 * MIB)]);
    let options = CompactionOptions { landing_batch: 4, keep_trigger: 2.0, ..options() };
    (range, options)
}

/// Goal: the drain of a full shard has to wait for a long merge below it. A keep makes room, or
/// nothing could land until that merge ends.
///
/// Planted: what will be drained some time is not kept.
#[test]
fn t000_14_a_full_shard_whose_drain_has_to_wait_is_kept() {
    let (mut range, options) = full_shard();
    range.layers = range.layers.with(Place::Main(2), vec![slice(2, b"a", b"d", MIB)]);
    let mut planner = Planner::new(version(vec![range]), options);
    assert_eq!(planner.pick(true).expect("it is full").mode(), LandingMode::Drain);
    let whole = planner.options.clone();
    planner.options.level_base_bytes = MIB;
    planner.options.landing_runs_max = 5;
    let below = planner.claim().expect("the level is over its limit");
    assert_eq!((below.input_place(), below.mode()), (Place::Main(1), LandingMode::None));
    planner.options = whole;
    assert_eq!(planner.pick(true).expect("it is full").mode(), LandingMode::Keep);
    drop(below);
    assert_eq!(planner.pick(true).expect("it is full").mode(), LandingMode::Drain);
}

/// Goal: the oldest table of a full shard cannot be merged, so no drain is possible. Newer tables
/// are merged into themselves, or nothing could land any more, not even in other shards.
///
/// Planted: a keep looks at its own trigger only.
#[test]
fn t000_14_a_full_shard_that_cannot_be_drained_is_kept() {
    let (range, options) = full_shard();
    let mut planner = Planner::new(version(vec![range]), options);
    let drain = planner.pick(true).expect("it is full");
    assert_eq!(drain.mode(), LandingMode::Drain);
    planner.set_aside.insert(name(11, b"a"));
    let keep = planner.pick(true).expect("it is full");
    assert_eq!(keep.mode(), LandingMode::Keep);
    let numbers: Vec<_> = keep.slices().map(|(_, slice)| slice.number().0).collect();
    assert_eq!(numbers, [14, 13, 12]);
}

/// Goal: tables of L0 wait for room in a full shard. Its drain is as urgent as they are many,
/// whatever it costs. That of another full shard, for which nothing waits, is not.
///
/// Planted: a full shard is as urgent as its drain pays; all tables of L0 wait for each shard.
#[test]
fn what_l0_waits_for_is_as_urgent_as_l0() {
    let (mut range, options) = full_shard();
    let of = |n: u64| landed(n, &slice(20 + n, b"p", b"q", MIB));
    range.layers = range.layers.with(Place::Landing(1, 1), (1..=4).map(of).collect());
    // The second shard is worth 3.2, the first next to nothing.
    let main = vec![slice(1, b"a", b"d", 100 * MIB), slice(2, b"p", b"q", 5 * MIB / 2)];
    range.layers = range.layers.with(Place::Main(1), main);
    for (runs, min, max, urgent) in
        [(0, b"a", b"c", 1), (12, b"a", b"c", 1), (13, b"a", b"c", 0), (13, b"p", b"q", 1)]
    {
        let l0 = (0..runs).map(|n| slice(99 - n, min, max, 1000)).collect();
        range.layers = range.layers.with(Place::L0, l0);
        let mut planner = Planner::new(version(vec![range.clone()]), options.clone());
        let job = planner.pick(true).expect("both shards are full");
        let place = Place::Landing(1, urgent);
        assert_eq!((job.mode(), job.input_place()), (LandingMode::Drain, place), "{runs} {min:?}");
    }
}

/// Goal: a table of the level cannot be merged, and slices in the landing overlap it and others.
/// They are drained on both sides of the damaged table.
///
/// Planted: a window contains a table that is set aside.
#[test]
fn a_drain_goes_around_a_table_of_the_level_that_is_set_aside() {
    let mut range = range(1, b"", None, b"zz");
    let of = |n: u64| landed(n, &slice(10 + n, b"a", b"z", MIB));
    range.layers = range.layers.with(Place::Landing(1, 0), (1..=4).map(of).collect());
    let main = [(1, b"b", b"c"), (2, b"f", b"g"), (3, b"m", b"p"), (4, b"r", b"s")];
    let main = main.map(|(number, min, max)| slice(number, min, max, MIB));
    range.layers = range.layers.with(Place::Main(1), main.into());
    let options = CompactionOptions { keep_trigger: f64::INFINITY, ..options() };
    let span = |lo: &'static [u8], hi: Option<&'static [u8]>| Span {
        lo: lo.into(),
        hi: hi.map(Bytes::from_static),
    };
    let cases: [(u64, &[u8], &[u64], Span); 3] = [
        (1, b"b", &[2, 3, 4], span(b"c\0", None)),
        (3, b"m", &[1, 2], span(b"", Some(b"m"))),
        (4, b"r", &[1, 2, 3], span(b"", Some(b"r"))),
    ];
    for (damaged, min, main, inside) in cases {
        let mut planner = Planner::new(version(vec![range.clone()]), options.clone());
        planner.set_aside.insert(name(damaged, min));
        let job = planner.pick(true).expect("it is full");
        let of_main = job.inputs[1].slices.iter().map(|s| s.number().0).collect::<Vec<_>>();
        assert_eq!((job.mode(), &of_main[..]), (LandingMode::Drain, main), "{damaged}");
        assert_eq!(job.span().intersection(&inside), *job.span(), "{damaged}");
    }
    let mut planner = Planner::new(version(vec![range]), options);
    let all: [(u64, &[u8]); 4] = [(1, b"b"), (2, b"f"), (3, b"m"), (4, b"r")];
    planner.set_aside = all.map(|(number, min)| name(number, min)).into();
    let job = planner.pick(true).expect("what lies over none of them goes");
    assert_eq!((job.mode(), job.inputs.len()), (LandingMode::Drain, 1));
}

/// Goal: a landing is always due and more urgent than the level, yet the level gets its turn. That
/// must hold even if the planner asks in vain for a metadata-only job after each job.
///
/// Planted: a new round whenever nothing is found; the most urgent job first, always.
#[test]
fn t000_16_a_level_has_its_turn_beside_a_landing_that_is_always_due() {
    for in_vain in [false, true] {
        let mut range = full(range(1, b"", None, b"m"), 10, [b"c", b"p"]);
        let over = |n: u64| slice(40 + n, &[b'r', n as u8], &[b'r', n as u8, 1], 5 * MIB);
        let mut l1: Vec<_> = (0..4).map(over).collect();
        l1.insert(0, slice(10, b"c", b"p", MIB));
        range.layers = range.layers.with(Place::Main(1), l1);
        let below = |n: u64| slice(50 + n, &[b'r', n as u8], &[b'r', n as u8, 2], MIB);
        let mut l2: Vec<_> = (0..4).map(below).collect();
        l2.insert(0, slice(60, b"c", b"p", 9 * MIB));
        range.layers = range.layers.with(Place::Main(2), l2);
        let options = CompactionOptions { level_base_bytes: MIB, ..options() };
        let mut planner = Planner::new(version(vec![range]), options);
        let mut met: BTreeMap<&str, u32> = BTreeMap::new();
        for _ in 0..40 {
            // No result is installed, so everything stays due.
            let job = planner.claim().expect("due");
            *met.entry(job.why.choice.name()).or_default() += 1;
            if in_vain {
                assert!(planner.pick(false).is_none());
            }
        }
        let of = |choice: Choice| met.get(choice.name()).copied().unwrap_or(0);
        assert!(of(Choice::Drain) >= 10 && of(Choice::Merge) >= 5, "in vain {in_vain}: {met:?}");
    }
}

/// Goal: a keep never writes what a due drain writes anyway, not even when it is the keeps' turn.
///
/// Planted: a keep that is due runs beside the drain of another shard.
#[test]
fn a_shard_that_is_about_to_be_drained_is_not_kept() {
    let mut range = range(1, b"", None, b"m");
    for (shard, key) in (0..).zip([b"c", b"p"]) {
        let number = 10 + 10 * u64::from(shard);
        let of = |n: u64| landed(n, &slice(number + n, key, key, MIB));
        range.layers = range.layers.with(Place::Landing(1, shard), vec![of(3), of(2), of(1)]);
    }
    let main = vec![slice(1, b"c", b"c", MIB), slice(2, b"p", b"p", MIB)];
    range.layers = range.layers.with(Place::Main(1), main);
    let options = CompactionOptions { landing_parallelism: 4.try_into().unwrap(), ..options() };
    let mut planner = Planner::new(version(vec![range]), options);
    let views = |planner: &Planner| {
        let (claims, set_aside) = (Claims::new(), BTreeSet::new());
        let range = &planner.version.ranges()[0];
        let situation = planner.situation(&claims, &set_aside, true);
        landing_of(range, 1, &situation)
    };
    let due = |view: &ShardView| view.drain_score >= 1.0 && view.keep_score >= 1.0;
    assert!(views(&planner).iter().all(due), "both are due by their scores");
    let first = planner.claim().expect("due");
    let second = planner.claim().expect("due");
    assert_eq!((first.mode(), second.mode()), (LandingMode::Drain, LandingMode::Drain));
    assert!(planner.claim().is_none(), "nothing is left");
    // Where the drain is impossible, a keep makes room.
    drop((first, second));
    planner.set_aside = [name(1, b"c"), name(2, b"p")].into();
    assert_eq!(planner.claim().expect("due").mode(), LandingMode::Keep);
}

/// Goal: of two overlapping tables in L0, the older one cannot move. So the newer one stays.
///
/// Planted: the newest tables land.
#[test]
fn t000_11_a_table_lands_only_when_the_older_ones_that_it_overlaps_do() {
    let mut range = range(1, b"", None, b"m");
    let (old, new) = (slice(21, b"a", b"m", MIB), slice(22, b"k", b"z", MIB));
    range.layers = range.layers.with(Place::L0, vec![new, old]);
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"z", 100 * MIB)]);
    let options = CompactionOptions { l0_trigger: 1, ..options() };
    let mut planner = Planner::new(version(vec![range]), options);
    let numbers = |job: &Job| job.slices().map(|(_, s)| s.number().0).collect::<Vec<_>>();
    let all = planner.pick(true).expect("due");
    assert_eq!((all.task.clone(), numbers(&all)), (JobTask::Land, vec![22, 21]));
    planner.set_aside = [name(21, b"a")].into();
    assert!(planner.pick(true).is_none(), "it would pass the older one");
    planner.set_aside = [name(22, b"k")].into();
    assert_eq!(numbers(&planner.pick(true).expect("the older one may go")), [21]);
    planner.set_aside.clear();
    let running = planner.claims.claim(all);
    assert!(planner.pick(true).is_none(), "L0 has one job at a time");
    drop(running);
    // Only the older one has room: the shard of the newer one is full.
    let mut range = RangeVersion::clone(&planner.version.ranges()[0]);
    let full = (1..=4).map(|n| landed(n, &slice_at(n + 1, b"n", b"o", MIB, n..=n))).collect();
    range.layers =
        range.layers.with(Place::L0, vec![slice(22, b"k", b"z", MIB), slice(21, b"a", b"l", MIB)]);
    range.layers = range.layers.with(Place::Landing(1, 1), full);
    planner.version = version(vec![range]);
    let jobs: Vec<_> = std::iter::from_fn(|| planner.claim()).collect();
    let land = jobs.iter().find(|job| job.task == JobTask::Land).expect("there is room for one");
    assert_eq!(numbers(land), [21]);
}

/// Goal: all workers that merge are busy. A small table would be merged at once if one were idle;
/// so it lands instead.
///
/// Planted: small tables are merged, even if no worker is idle.
#[test]
fn l0_lands_also_where_it_is_small_when_only_the_manifest_may_be_written() {
    let l0 = || vec![slice(22, b"c", b"p", 1000), slice(21, b"a", b"l", 1000)];
    let options = CompactionOptions { l0_trigger: 1, ..options() };
    for l1 in [vec![], vec![slice(1, b"a", b"z", 1000)]] {
        let mut range = range(1, b"", None, b"m");
        range.layers = range.layers.with(Place::L0, l0()).with(Place::Main(1), l1);
        let mut planner = Planner::new(version(vec![range]), options.clone());
        assert_eq!(planner.pick(true).expect("due").task, JobTask::Merge);
        assert_eq!(planner.pick(false).expect("L0 is due").task, JobTask::Land);
        let off = CompactionOptions { landing_runs_max: 0, ..options.clone() };
        planner.options = off;
        assert!(planner.pick(false).is_none(), "there is no landing");
    }
}

/// Goal: slices that land are cut at shard bounds, which must not move meanwhile.
///
/// Planted: a reshard conflicts only by its place.
#[test]
fn a_landing_and_new_bounds_are_not_given_out_together() {
    let mut range = range(1, b"", None, b"m");
    range.layers = range.layers.with(Place::L0, vec![slice(21, b"a", b"z", MIB)]);
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"z", 100 * MIB)]);
    let options = CompactionOptions { l0_trigger: 1, ..options() };
    let mut planner = Planner::new(version(vec![range.clone()]), options);
    let land = planner.pick(true).expect("due");
    assert_eq!(land.task, JobTask::Land);
    let bounds = Shards::at(&range.span, vec![Bytes::from_static(b"c")]).unwrap();
    let divides = Job::resharding(&range, Vec::new(), bounds);
    let running = planner.claims.claim(land.clone());
    assert!(!planner.claims.admits(&divides));
    drop(running);
    let running = planner.claims.claim(divides.clone());
    assert!(!planner.claims.admits(&land) && !planner.claims.admits(&divides));
    drop(running);
    assert!(planner.claims.admits(&land));
}

/// Goal: a shard that has waited is drained for at most twice `drain_ratio` while tables arrive. It
/// is drained for more when the database idles, or when the shard is full.
///
/// Planted: five times for age alone.
#[test]
fn t000_17_what_has_waited_is_drained_at_a_bounded_price_unless_nothing_comes() {
    let of = |main_mib: u64, runs: u64| {
        let mut range = range(1, b"", None, b"m");
        let of = |n: u64| landed(n, &slice(10 + n, b"a", b"c", MIB));
        range.layers = range.layers.with(Place::Landing(1, 0), (1..=runs).map(of).collect());
        let main = vec![slice(1, b"a", b"d", main_mib * MIB)];
        range.layers = range.layers.with(Place::Main(1), main);
        // A table was just flushed into another range.
        let mut meta = crate::version::testing::meta(90, b"x", b"y", 1000);
        meta.created_at_ms = HOUR;
        let flushed = Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()));
        range.layers = range.layers.with(Place::L0, vec![flushed]);
        range
    };
    let options = CompactionOptions { keep_trigger: f64::INFINITY, ..options() };
    assert_eq!((options.drain_ratio, options.landing_runs_max), (2, 4));
    let due = |main_mib, runs, now_ms| {
        let mut planner = Planner::new(version(vec![of(main_mib, runs)]), options.clone());
        planner.now_ms = now_ms;
        planner.pick(true).is_some()
    };
    const HOUR: u64 = 3_600_000;
    for (main_mib, runs, now_ms, want) in [
        (2, 1, 0, true),
        (3, 1, 0, false),
        (3, 1, HOUR, true),
        (4, 1, HOUR, true),
        // It has waited for an hour, but a drain would rewrite five bytes per byte.
        (5, 1, HOUR, false),
        (12, 3, HOUR, true),
        (13, 3, HOUR, false),
        (13, 4, HOUR, true),
        // The database idles, so the price may be higher, but not any price.
        (5, 1, HOUR + HOUR / 2 - 1, false),
        (5, 1, HOUR + HOUR / 2, true),
        (10, 1, 2 * HOUR, true),
        (11, 1, 2 * HOUR, false),
    ] {
        assert_eq!(due(main_mib, runs, now_ms), want, "{main_mib} under {runs}, at {now_ms}");
    }
    // A planner that sleeps until something is due wakes up for it.
    let version = version(vec![of(5, 1)]);
    assert_eq!(next_due(&version, &options, HOUR), Some(HOUR + HOUR / 2));
    assert_eq!(next_due(&version, &options, HOUR + HOUR / 2), None);
}

/// A table with a sketch of its keys.
fn with_keys(number: u64, bytes: u64, keys: std::ops::Range<u64>) -> Arc<TableHandle> {
    let mut meta = crate::version::testing::meta(number, b"a", b"z", bytes);
    meta.entries = keys.end - keys.start;
    keys.for_each(|key| meta.keys.add(hash64(&key.to_be_bytes())));
    TableHandle::unopened(meta.into(), ObsoleteFiles::new())
}

/// Planted: a sketch for each part of a file; a part supersedes as much as the whole file would.
#[test]
fn parts_of_a_file_hide_nothing_of_each_other() {
    let half = |handle: &Arc<TableHandle>| part_of(handle, b"a", b"f");
    let near = |slices: &[Slice], want: f64| {
        let found = superseded(slices);
        assert!((found - want).abs() < 0.05, "{found}, not {want}");
    };
    let (old, same, new) =
        (with_keys(1, MIB, 0..1000), with_keys(2, MIB, 0..1000), with_keys(3, MIB, 0..1000));
    let parts = [part_of(&old, b"a", b"f"), part_of(&old, b"m", b"z")];
    assert!(superseded(&parts) == 0.0);
    near(&[half(&same), half(&old)], 0.5);
    near(&[Slice::whole(&new), half(&same), half(&old)], 0.5);
    let other = with_keys(4, MIB, 5000..14_000);
    near(&[Slice::whole(&other), half(&same), half(&old)], 0.05);
    // Two parts that wait are worth what they contain.
    let mut range = range(1, b"", None, b"zz");
    let table = with_keys(9, 3 * MIB, 0..1000);
    let parts = [(b"a", b"f"), (b"m", b"z")].map(|(min, max)| part_of(&table, min, max));
    range.layers =
        range.layers.with(Place::Landing(1, 0), parts.map(|part| landed(1, &part)).into());
    let main = [(1, b"a", b"f"), (2, b"m", b"z")];
    let main = main.map(|(number, min, max)| slice(number, min, max, 10 * MIB));
    range.layers = range.layers.with(Place::Main(1), main.into());
    assert!(next_due(&version(vec![range]), &options(), 0).is_some(), "it is worth 0.3");
}

/// Planted: slices are counted instead of runs.
#[test]
fn a_keep_that_is_due_takes_more_than_one_run() {
    let mut range = range(1, b"", None, b"zz");
    let landing = vec![
        landed(6, &slice(16, b"a", b"c", MIB)),
        landed(5, &slice(15, b"m", b"p", MIB)),
        landed(4, &slice(14, b"a", b"p", 100 * MIB)),
        landed(3, &slice(13, b"a", b"p", 500 * MIB)),
    ];
    range.layers = range.layers.with(Place::Landing(1, 0), landing);
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"z", 100_000 * MIB)]);
    for batch in [1, 2] {
        let options = CompactionOptions { landing_batch: batch, ..options() };
        let keep = Planner::new(version(vec![range.clone()]), options).pick(true).expect("due");
        let numbers: Vec<_> = keep.slices().map(|(_, slice)| slice.number().0).collect();
        assert_eq!((keep.mode(), numbers), (LandingMode::Keep, vec![16, 15, 14]), "{batch}");
    }
}

/// Goal: the output of an earlier keep landed as many tables together. It is not merged again for a
/// few small tables above it.
///
/// Planted: a single table of it is compared with what is taken already.
#[test]
fn a_keep_leaves_what_was_merged_before_until_as_much_has_come() {
    let mut range = range(1, b"", None, b"zz");
    let new = |epoch| landed(epoch, &slice(20 + epoch, b"a", b"t", 16 * MIB));
    let old = |n: u64| {
        let key = [b'a' + n as u8];
        landed(6, &slice(n + 2, &key, &key, 64 * MIB))
    };
    let of = |newest| (7..=newest).map(new).chain((0..10).map(old)).collect();
    range.layers = range.layers.with(Place::Landing(1, 0), of(10));
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"z", 100_000 * MIB)]);
    let options = CompactionOptions { landing_batch: 4, landing_runs_max: 99, ..options() };
    for (newest, want) in [(10, 4), (25, 19), (26, 30)] {
        let mut range = range.clone();
        range.layers = range.layers.with(Place::Landing(1, 0), of(newest));
        let mut planner = Planner::new(version(vec![range]), options.clone());
        let keep = planner.pick(true).expect("due");
        assert_eq!((keep.mode(), keep.slices().count()), (LandingMode::Keep, want), "{newest}");
    }
}

/// Goal: of tables that landed together, the newest cannot be merged. A keep leaves all of them.
/// Its output would have their epoch and the same sequence number, and hide the newest one.
///
/// Planted: only what is set aside is skipped.
#[test]
fn a_keep_takes_all_that_landed_together_or_none_of_it() {
    let ingested = |number, min: &[u8], max: &[u8]| slice_at(number, min, max, MIB, 500..=500);
    let together = [
        landed(4, &ingested(22, b"n", b"z")),
        landed(4, &ingested(21, b"b", b"m")),
        landed(4, &slice(11, b"b", b"z", MIB)),
    ];
    let options = CompactionOptions { landing_runs_max: 99, ..options() };
    for (older, want) in [(0, &[][..]), (3, &[10, 9, 8])] {
        let older = (0..older).map(|n| landed(3 - n, &slice(10 - n, b"b", b"z", MIB)));
        let mut range = range(1, b"", None, b"zz");
        let landing = together.iter().cloned().chain(older).collect();
        range.layers = range.layers.with(Place::Landing(1, 0), landing);
        range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"z", 9000 * MIB)]);
        let mut planner = Planner::new(version(vec![range]), options.clone());
        planner.set_aside.insert(name(22, b"n"));
        let keep = planner.pick(true);
        let kept = keep.iter().flat_map(Job::slices).map(|(_, slice)| slice.number().0);
        assert_eq!(kept.collect::<Vec<_>>(), want);
    }
}

/// Goal: something is due but perhaps cannot run. There still is an alarm for what becomes due
/// later.
///
/// Planted: no alarm where something is due; the earliest of all times, even in the past.
#[test]
fn what_will_be_due_is_not_forgotten_beside_what_is() {
    const DAY: u64 = 24 * 3_600_000;
    // Two shards: one is worth a drain at once, the other one after two minutes.
    let mut both = range(1, b"", None, b"m");
    both.layers =
        both.layers.with(Place::Landing(1, 0), vec![landed(1, &slice(5, b"a", b"c", MIB))]);
    both.layers =
        both.layers.with(Place::Landing(1, 1), vec![landed(2, &slice(6, b"n", b"p", MIB))]);
    let main = vec![slice(1, b"a", b"c", MIB), slice(2, b"n", b"p", 3 * MIB)];
    both.layers = both.layers.with(Place::Main(1), main);
    let version_of = |range: &RangeVersion| version(vec![range.clone()]);
    assert_eq!(next_due(&version_of(&both), &options(), 1000), Some(120_002));
    // Two tombstones: one is old, the other one will be.
    let dead = |number, key: &[u8], made| {
        let mut meta = crate::version::testing::meta(number, key, key, MIB);
        (meta.tombstones, meta.created_at_ms) = (1, made);
        Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()))
    };
    let options = CompactionOptions { tombstone_age_max_ms: DAY, ..options() };
    let mut range = range(1, b"", None, b"m");
    let main = vec![dead(3, b"a", 5), dead(4, b"c", 1005)];
    range.layers = range.layers.with(Place::Main(1), main);
    assert_eq!(next_due(&version_of(&range), &options, DAY), Some(DAY + 6));
    assert_eq!(next_due(&version_of(&range), &options, DAY + 6), Some(DAY + 1006));
    assert_eq!(next_due(&version_of(&range), &options, DAY + 1006), None);
}

/// Goal: an old tombstone is merged although that costs more than what has landed is worth: in the
/// landing itself, and in the level above where it overlaps the landing.
///
/// Planted: only levels are searched; a table that overlaps a landing is skipped.
#[test]
fn tombstones_that_are_old_make_landings_drain() {
    const DAY: u64 = 24 * 3_600_000;
    let dead = |number, min: &[u8], max: &[u8]| {
        let mut meta = crate::version::testing::meta(number, min, max, MIB);
        (meta.tombstones, meta.created_at_ms) = (1, 5);
        Slice::whole(&TableHandle::unopened(meta.into(), ObsoleteFiles::new()))
    };
    let options = CompactionOptions { tombstone_age_max_ms: DAY, ..options() };
    // In a landing, in the second of two windows.
    let mut first = range(1, b"", None, b"x");
    let landing = vec![landed(2, &dead(12, b"p", b"q")), landed(1, &slice(11, b"a", b"c", MIB))];
    first.layers = first.layers.with(Place::Landing(1, 0), landing);
    let main = vec![slice(1, b"a", b"d", 90 * MIB), slice(2, b"p", b"r", 100 * MIB)];
    first.layers = first.layers.with(Place::Main(1), main);
    let mut planner = Planner::new(version(vec![first]), options.clone());
    planner.now_ms = DAY + 5;
    assert!(planner.pick(true).is_none(), "it is not older than a day");
    assert_eq!(next_due(&planner.version, &options, DAY), Some(DAY + 6));
    planner.now_ms += 1;
    let job = planner.pick(true).expect("it is old");
    let numbers = |job: &Job| job.slices().map(|(_, s)| s.number().0).collect::<Vec<_>>();
    assert_eq!((job.mode(), numbers(&job)), (LandingMode::Drain, vec![12, 2]));
    // In L1, over tables in the landing of L2.
    let mut second = range(1, b"", None, b"m");
    second.layers = second.layers.with(Place::Main(1), vec![dead(9, b"a", b"c")]);
    second.layers =
        second.layers.with(Place::Landing(2, 0), vec![landed(1, &slice(5, b"b", b"d", MIB))]);
    second.layers = second.layers.with(Place::Main(2), vec![slice(1, b"a", b"d", 100 * MIB)]);
    planner.version = version(vec![second]);
    let job = planner.pick(true).expect("it is old");
    assert_eq!((job.mode(), numbers(&job)), (LandingMode::Drain, vec![5, 1]));
}

/// Goal: while a job holds a part of L0, the rest of L0 still lands. Tables over that part wait.
///
/// Planted: one job of L0 at a time, whatever its keys.
#[test]
fn t000_11_l0_lands_beside_a_job_that_has_another_part_of_it() {
    let mut range = range(1, b"", None, b"m");
    let l0 = vec![
        slice(25, b"n", b"q", MIB),
        slice(24, b"c", b"e", MIB),
        slice(23, b"p", b"r", MIB),
        slice(22, b"a", b"b", MIB),
        slice(21, b"a", b"d", MIB),
    ];
    range.layers = range.layers.with(Place::L0, l0);
    let main = vec![slice(1, b"a", b"g", 100 * MIB), slice(2, b"n", b"z", 100 * MIB)];
    range.layers = range.layers.with(Place::Main(1), main);
    let options = CompactionOptions { l0_trigger: 1, ..options() };
    let mut planner = Planner::new(version(vec![range]), options);
    let order = ManualCompaction::whole(crate::keyspace::KeyspaceId::DEFAULT, Span::prefix(b"b"));
    let ManualStep::Job(job) = order.step(&planner.version, &planner.claims) else {
        panic!("free")
    };
    let numbers = |job: &Job| job.slices().map(|(_, s)| s.number().0).collect::<Vec<_>>();
    assert_eq!(numbers(&job), [24, 22, 21, 1]);
    let running = planner.claims.claim(*job);
    let job = planner.pick(false).expect("L0 is due");
    assert_eq!((job.task.clone(), numbers(&job)), (JobTask::Land, vec![25, 23]));
    let landing = planner.claims.claim(job);
    assert!(planner.pick(false).is_none(), "the rest is busy");
    drop((running, landing));
}
