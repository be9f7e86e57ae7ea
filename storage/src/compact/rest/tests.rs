//! Idle ranges, over versions without files.

use super::*;
use crate::compact::{
    Agenda, ClaimedJob, Claims, JobTask, LandingMode, Rounds, pick, quiet_since_ms,
};
use crate::key::Span;
use crate::version::testing::{slice, slice_at};
use crate::version::{Landed, ObsoleteFiles, RangeId, Shards, SliceMeta, Version, check};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;

fn options() -> CompactionOptions {
    CompactionOptions {
        table_bytes_max: MIB,
        level_base_bytes: 10 * MIB,
        landing_parallelism: 1.try_into().unwrap(),
        rest_after_ms: 5 * SECOND,
        keep_trigger: f64::INFINITY,
        ..CompactionOptions::balanced()
    }
}

fn landed(epoch: u64, slice: &Slice) -> Slice {
    let landed = Some(Landed { epoch, at_ms: 0 });
    let meta = SliceMeta { landed, ..slice.meta().clone() };
    Slice::new(meta, Arc::clone(slice.handle()))
}

fn range(id: u32, lo: &'static [u8], hi: Option<&'static [u8]>) -> RangeVersion {
    let span = Span { lo: Bytes::from_static(lo), hi: hi.map(Bytes::from_static) };
    RangeVersion::empty(RangeId(id), span, Shards::one())
}

/// 1 MiB in L0 and 2 MiB in each of the landings of L1 and L2, all over much larger levels: nothing
/// is due.
fn waiting(id: u32, lo: &'static [u8], hi: Option<&'static [u8]>) -> RangeVersion {
    let mut range = range(id, lo, hi);
    let first = u64::from(id) * 100;
    let (min, max) = ([lo, b"a"].concat(), [lo, b"k"].concat());
    let of = |number: u64, bytes| slice(first + number, &min, &max, bytes);
    let landing = |number, at: u64, count: u64| {
        let of = |n| landed(at + n, &of(number + n, 2 * MIB / count));
        (0..count).rev().map(of).collect()
    };
    range.layers = range
        .layers
        .with(Place::L0, vec![of(90, MIB)])
        .with(Place::Landing(1, 0), landing(80, 4, 4))
        .with(Place::Main(1), vec![of(70, 99 * MIB)])
        .with(Place::Landing(2, 0), landing(60, 1, 2))
        .with(Place::Main(2), vec![of(50, 801 * MIB)]);
    range
}

fn version(ranges: Vec<RangeVersion>) -> Version {
    let version = Version::new(ranges.into_iter().map(Arc::new).collect(), ObsoleteFiles::new());
    check::check(&version).unwrap();
    version
}

/// A planner that looks and chooses when the test says so.
struct Planner {
    version: Version,
    options: CompactionOptions,
    agenda: Agenda,
    claims: Claims,
    rounds: Rounds,
    written: Vec<u64>,
    now_ms: u64,
}

impl Planner {
    fn new(ranges: Vec<RangeVersion>) -> Self {
        let written = vec![7; ranges.len()];
        let mut planner = Self {
            version: version(ranges),
            options: options(),
            agenda: Agenda::default(),
            claims: Claims::new(),
            rounds: Rounds::default(),
            written,
            now_ms: 1_000_000,
        };
        assert!(planner.claim().is_none(), "nothing is due");
        planner
    }

    fn claim(&mut self) -> Option<ClaimedJob> {
        let Self { version, options, agenda, now_ms, .. } = self;
        agenda.follow(version, |at| self.written[at], options, *now_ms);
        let situation = Situation {
            version,
            ranges: &agenda.due(version, *now_ms),
            options,
            claims: &self.claims,
            set_aside: &BTreeSet::new(),
            now_ms: *now_ms,
            quiet_since_ms: quiet_since_ms(version),
            resting: Some(&agenda.resting()),
            bursts: None,
            merges: true,
        };
        let job = pick(&situation, &mut self.rounds)?;
        Some(self.claims.claim(job))
    }

    /// The time of its alarm, from now.
    fn sleeps(&self) -> Option<u64> {
        self.agenda.next_ms(self.now_ms).map(|at| at - self.now_ms)
    }

    /// Lets the time pass until the alarm.
    fn sleep(&mut self) {
        self.now_ms += self.sleeps().expect("it has an alarm");
    }

    /// Finishes the job: its inputs become one table in its output, or land there.
    fn install(&mut self, job: ClaimedJob) {
        let at = self.version.ranges().iter().position(|range| range.id == job.range);
        let at = at.expect("it is there");
        let mut ranges: Vec<_> = self.version.ranges().to_vec();
        let mut range = RangeVersion::clone(&ranges[at]);
        for inputs in &job.inputs {
            let mut left = range.layers.in_order(inputs.place);
            left.retain(|slice| !inputs.slices.iter().any(|taken| taken.name() == slice.name()));
            range.layers = range.layers.with(inputs.place, left);
        }
        let mut there = range.layers.in_order(job.output);
        if job.task == JobTask::Merge {
            let newest = job.slices().map(|(_, slice)| slice.number().0).max().expect("it has one");
            let min = job.slices().map(|(_, slice)| slice.min_key()).min().expect("it has one");
            let max = job.slices().map(|(_, slice)| slice.max_key()).max().expect("it has one");
            there.push(slice_at(newest, min, max, job.input_bytes(), newest..=newest));
        } else {
            let came = job.pieces().unwrap();
            let handle = |meta: &SliceMeta| {
                let of = job.slices().find(|(_, slice)| slice.number() == meta.number());
                Arc::clone(of.expect("it is one of them").1.handle())
            };
            let came = came.into_iter().map(|(_, meta)| Slice::new(meta.clone(), handle(&meta)));
            there.splice(0..0, came);
        }
        range.layers = range.layers.with(job.output, there);
        ranges[at] = Arc::new(range);
        self.version = Version::new(ranges, ObsoleteFiles::new());
        check::check(&self.version).unwrap();
        // This ends its claim.
        drop(job);
    }
}

fn numbers(job: &Job) -> Vec<u64> {
    job.slices().map(|(_, slice)| slice.number().0).collect()
}

/// Planted: the same wait whatever the cost; L0 and the landing of L1 counted as two merges.
#[test]
fn what_a_rest_takes_grows_with_what_it_rewrites() {
    let takes = |of: &dyn Fn(&mut RangeVersion)| {
        let mut range = waiting(1, b"", None);
        of(&mut range);
        quiet_needed_ms(&range, &options())
    };
    let only = |places: &'static [Place]| {
        takes(&move |range: &mut RangeVersion| {
            for place in [Place::L0, Place::Landing(1, 0), Place::Landing(2, 0)] {
                if !places.contains(&place) {
                    range.layers = range.layers.with(place, vec![]);
                }
            }
        })
    };
    // 5 MiB wait over 900. Each 5 seconds of waiting allow a rewrite of twice the 5 MiB.
    assert_eq!(only(&[Place::L0, Place::Landing(1, 0), Place::Landing(2, 0)]), Some(450 * SECOND));
    assert_eq!(only(&[Place::L0, Place::Landing(1, 0)]), Some(82_500));
    assert_eq!(only(&[Place::L0]), Some(247_500));
    assert_eq!(only(&[Place::Landing(2, 0)]), Some(1_001_250));
    assert_eq!(only(&[]), None, "nothing waits");
    let little = |range: &mut RangeVersion| {
        range.layers = range.layers.with(Place::Main(1), vec![]).with(Place::Main(2), vec![]);
    };
    assert_eq!(takes(&little), Some(5 * SECOND), "it is never shorter");
    for off in [
        CompactionOptions { rest_after_ms: u64::MAX, ..options() },
        CompactionOptions { landing_runs_max: 0, ..options() },
    ] {
        assert_eq!(quiet_needed_ms(&waiting(1, b"", None), &off), None);
    }
}

/// Goal: levels are merged from top to bottom, each one once, although two workers are idle. L0
/// lands and is merged with what has landed; the excess of L1 then lands; all of that is merged
/// into L2 at once. Then it is over.
///
/// Planted: the deepest landing first; jobs above are ignored; one batch of a landing, as a drain
/// takes it.
#[test]
fn a_range_that_rests_is_drained_from_top_to_bottom_and_each_level_is_written_once() {
    let mut planner = Planner::new(vec![waiting(1, b"", None)]);
    assert_eq!(planner.sleeps(), Some(450 * SECOND));
    planner.now_ms += 450 * SECOND - 1;
    assert!(planner.claim().is_none());
    planner.sleep();
    let mut met = Vec::new();
    while let Some(job) = planner.claim() {
        if let Some(beside) = planner.claim() {
            panic!("{beside:?} beside {job:?}");
        }
        met.push((job.why.choice, job.input_place(), numbers(&job)));
        planner.install(job);
    }
    let want = [
        (Choice::Land, Place::L0, vec![190]),
        (Choice::Rest, Place::Landing(1, 0), vec![190, 183, 182, 181, 180, 170]),
        (Choice::Land, Place::Main(1), vec![190]),
        (Choice::Rest, Place::Landing(2, 0), vec![190, 161, 160, 150]),
    ];
    assert_eq!(met, want);
    assert_eq!(planner.version.ranges()[0].layers.runs().len(), 1);
    assert_eq!(planner.sleeps(), None, "nothing waits");
}

/// Planted: a rest continues after a write; the alarm keeps its old time.
#[test]
fn what_is_written_or_flushed_puts_a_rest_off_and_ends_it() {
    let mut planner = Planner::new(vec![waiting(1, b"", None)]);
    planner.now_ms += 449 * SECOND;
    planner.written[0] += 1;
    assert!(planner.claim().is_none());
    assert_eq!(planner.sleeps(), Some(450 * SECOND), "it begins anew");
    planner.sleep();
    let land = planner.claim().expect("it rests");
    planner.install(land);
    // Written, but not flushed yet.
    planner.written[0] += 1;
    assert!(planner.claim().is_none(), "who comes back finds nothing in the way");
    planner.sleep();
    let drain = planner.claim().expect("it rests again");
    assert_eq!((drain.mode(), drain.why.choice), (LandingMode::Drain, Choice::Rest));
    planner.install(drain);
    while let Some(job) = planner.claim() {
        planner.install(job);
    }
    assert_eq!((planner.sleeps(), planner.version.ranges()[0].layers.runs().len()), (None, 1));
    // A flush of entries that were written earlier, as of an idle range.
    let mut range = RangeVersion::clone(&planner.version.ranges()[0]);
    range.layers = range.layers.with(Place::L0, vec![slice(195, b"a", b"b", MIB)]);
    planner.version = version(vec![range]);
    assert!(planner.claim().is_none());
    assert_eq!(planner.sleeps(), quiet_needed_ms(&planner.version.ranges()[0], &planner.options));
    planner.sleep();
    assert!(planner.claim().is_some(), "it rests");
}

/// Goal: one range is idle and its neighbour is not. What is due in the neighbour is first; what is
/// not due there stays; and the idle range gets its turn.
///
/// Planted: turns are shared with drains that are due; all ranges rest when one does.
#[test]
fn a_range_rests_beside_a_busy_one() {
    let mut planner = Planner::new(vec![waiting(1, b"", Some(b"m")), waiting(2, b"m", None)]);
    for _ in 0..450 {
        planner.now_ms += SECOND;
        planner.written[1] += 1;
        planner.agenda.follow(
            &planner.version,
            |at| planner.written[at],
            &planner.options,
            planner.now_ms,
        );
    }
    assert_eq!(planner.agenda.resting(), [RangeId(1)].into());
    let mut busy = RangeVersion::clone(&planner.version.ranges()[1]);
    let l0 = (0..4).rev().map(|n| slice(290 + n, b"ma", b"mk", 5 * MIB)).collect();
    busy.layers = busy.layers.with(Place::L0, l0);
    let quiet = RangeVersion::clone(&planner.version.ranges()[0]);
    planner.version = version(vec![quiet, busy]);
    let first = planner.claim().expect("L0 is due");
    assert_eq!((first.range, first.input_place()), (RangeId(2), Place::L0));
    let second = planner.claim().expect("somebody is idle");
    assert_eq!((second.range, second.why.choice), (RangeId(1), Choice::Land));
    planner.install(first);
    planner.install(second);
    let mut met = Vec::new();
    while let Some(job) = planner.claim() {
        assert!(job.range == RangeId(1) || job.why.choice != Choice::Rest, "{job:?}");
        met.push((job.range, job.why.choice));
        planner.install(job);
    }
    assert!(met.contains(&(RangeId(1), Choice::Rest)), "{met:?}");
    assert!(planner.version.ranges()[1].layers.landing(1).len() > 1, "it is written to");
}

/// Goal: the landing of L1 cannot be merged. The landing of L2 is merged all the same.
///
/// Planted: nothing is merged below what waits.
#[test]
fn what_cannot_be_merged_keeps_nothing_below_it_from_resting() {
    let mut planner = Planner::new(vec![waiting(1, b"", None)]);
    planner.sleep();
    assert!(planner.claim().is_some(), "it rests");
    let range = &planner.version.ranges()[0];
    let damaged = range.layers.main(1).into_iter().flat_map(|run| run.slices().iter());
    let situation = Situation {
        version: &planner.version,
        ranges: planner.version.ranges(),
        options: &planner.options,
        claims: &Claims::new(),
        set_aside: &damaged
            .chain(&range.layers.in_order(Place::L0))
            .map(|slice| slice.name())
            .collect(),
        now_ms: planner.now_ms,
        quiet_since_ms: 0,
        resting: Some(&[range.id].into()),
        bursts: None,
        merges: true,
    };
    let job = pick(&situation, &mut Rounds::default()).expect("the landing of L2 is free");
    assert_eq!((job.why.choice, job.input_place()), (Choice::Rest, Place::Landing(2, 0)));
}

/// Planted: all ranges start their wait anew when a range is added or removed.
#[test]
fn a_range_rests_whatever_ranges_come_and_go_beside_it() {
    let mut planner = Planner::new(vec![waiting(1, b"", Some(b"m")), range(2, b"m", None)]);
    let quiet_needed_ms = planner.sleeps().expect("it will rest");
    let parts = quiet_needed_ms / 4 + 1;
    for round in 0..4 {
        planner.now_ms += parts;
        let mut ranges = vec![waiting(1, b"", Some(b"m"))];
        ranges[0].id = RangeId(1);
        let first = 10 + round * 2;
        if round % 2 == 0 {
            ranges.push(range(first, b"m", Some(b"t")));
            ranges.push(range(first + 1, b"t", None));
        } else {
            ranges.push(range(first, b"m", None));
        }
        planner.written = vec![7; ranges.len()];
        planner.version = version(ranges);
        if planner.claim().is_some() {
            assert_eq!(round, 3, "not before its time");
            return;
        }
    }
    panic!("it never rests");
}
