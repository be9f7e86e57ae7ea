//! Choices among landings, over versions without files.

use crate::compact::claims::{ClaimedJob, Claims};
use crate::compact::job::{IngestMode, Job, Task};
use crate::compact::options::CompactionOptions;
use crate::compact::pick::{Situation, pick};
use crate::compact::rounds::Rounds;
use crate::compact::why::Choice;
use crate::filename::FileNumber;
use crate::key::Span;
use crate::version::testing::{slice, slice_at};
use crate::version::{
    Graveyard, Landed, Place, RangeId, RangeVersion, Shards, Slice, SliceMeta, Version, check,
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

/// A range over a part of the keys, in two shards.
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
    let version = Version::new(ranges.into_iter().map(Arc::new).collect(), Graveyard::new());
    check::check(&version).unwrap();
    version
}

fn options() -> CompactionOptions {
    CompactionOptions {
        table_bytes_max: MIB,
        level_base_bytes: 1 << 40,
        landing_runs_max: 4,
        landing_batch: 2,
        keep_trigger: 1.0,
        landing_parallelism: 1.try_into().unwrap(),
        ..CompactionOptions::balanced()
    }
}

/// Who chooses, again and again.
struct Planner {
    version: Version,
    options: CompactionOptions,
    claims: Claims,
    rounds: Rounds,
    set_aside: BTreeSet<FileNumber>,
}

impl Planner {
    fn new(version: Version, options: CompactionOptions) -> Self {
        let (claims, rounds) = (Claims::new(), Rounds::default());
        Self { version, options, claims, rounds, set_aside: BTreeSet::new() }
    }

    fn pick(&mut self, merges: bool) -> Option<Job> {
        let situation = Situation {
            version: &self.version,
            options: &self.options,
            claims: &self.claims,
            set_aside: &self.set_aside,
            now_ms: 0,
            merges,
        };
        pick(&situation, &mut self.rounds)
    }

    fn claim(&mut self) -> Option<ClaimedJob> {
        let job = self.pick(true)?;
        Some(self.claims.claim(job))
    }
}

/// Two shards with much over little, each of them worth a drain.
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

/// Planted: claims that forget landings.
#[test]
fn t000_13_two_shards_are_drained_at_once_and_the_same_one_never() {
    let mut both = range(1, b"", None, b"m");
    for (shard, min, max) in [(0, &b"c"[..], &b"f"[..]), (1, b"p", b"q")] {
        let at = 10 + 10 * u64::from(shard);
        let of = |n: u64| landed(n, &slice(at + n, min, max, MIB));
        both.layers = both.layers.with(Place::Landing(1, shard), vec![of(3), of(2), of(1)]);
    }
    // The first shard can be drained in two parts, which share no key.
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
    assert_eq!((first.mode(), second.mode()), (IngestMode::Drain, IngestMode::Drain));
    assert_ne!(first.input_place(), second.input_place());
    assert!(planner.claim().is_none(), "both are busy");
    let place = first.input_place();
    drop(first);
    let again = planner.claim().expect("it is free again");
    assert_eq!(again.input_place(), place);
}

/// What a range has under way is no reason to let another one wait: each landing counts its own.
///
/// Planted: merges of all landings counted together.
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
        assert_eq!(job.mode(), IngestMode::Drain);
        busy.insert(job.range);
        running.push(job);
    }
    assert_eq!(busy.len(), 2, "{running:?}");
}

/// The oldest table of a full shard cannot be merged, so no drain can be had. What came later is merged into itself,
/// or nothing could land any more, also in other shards.
///
/// Planted: a keep that only looks at its own trigger.
#[test]
fn t000_14_a_full_shard_that_cannot_be_drained_is_kept() {
    let mut range = range(1, b"", None, b"m");
    let of = |n: u64| landed(n, &slice(10 + n, b"a", b"c", MIB));
    range.layers = range.layers.with(Place::Landing(1, 0), (1..=4).map(of).collect());
    range.layers = range.layers.with(Place::Main(1), vec![slice(1, b"a", b"d", 100 * MIB)]);
    let options = CompactionOptions { landing_batch: 4, keep_trigger: 2.0, ..options() };
    let mut planner = Planner::new(version(vec![range]), options);
    let drain = planner.pick(true).expect("it is full");
    assert_eq!(drain.mode(), IngestMode::Drain);
    planner.set_aside.insert(FileNumber(11));
    let keep = planner.pick(true).expect("it is full");
    assert_eq!(keep.mode(), IngestMode::Keep);
    let numbers: Vec<_> = keep.slices().map(|(_, slice)| slice.number().0).collect();
    assert_eq!(numbers, [14, 13, 12]);
}

/// A landing is always due, and more so than the level. Yet the level has its turn: also where, after each
/// job, somebody asks in vain for one that needs no merge.
///
/// Planted: a new round whenever nothing is found; the most urgent one first, always.
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
            // Nothing is installed: all of it stays due.
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

/// L0 has an old table and a newer one that overlaps it. The older one cannot go, so the newer one stays.
///
/// Planted: a landing of the newest ones.
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
    assert_eq!((all.task.clone(), numbers(&all)), (Task::Land, vec![22, 21]));
    planner.set_aside = [FileNumber(21)].into();
    assert!(planner.pick(true).is_none(), "it would pass the older one");
    planner.set_aside = [FileNumber(22)].into();
    assert_eq!(numbers(&planner.pick(true).expect("the older one may go")), [21]);
    planner.set_aside.clear();
    let running = planner.claims.claim(all);
    assert!(planner.pick(true).is_none(), "L0 has one job at a time");
    drop(running);
    // Only the older one has room, because the shard of the other one is full.
    let mut range = RangeVersion::clone(&planner.version.ranges()[0]);
    let full = (1..=4).map(|n| landed(n, &slice_at(n + 1, b"n", b"o", MIB, n..=n))).collect();
    range.layers =
        range.layers.with(Place::L0, vec![slice(22, b"k", b"z", MIB), slice(21, b"a", b"l", MIB)]);
    range.layers = range.layers.with(Place::Landing(1, 1), full);
    planner.version = version(vec![range]);
    let jobs: Vec<_> = std::iter::from_fn(|| planner.claim()).collect();
    let land = jobs.iter().find(|job| job.task == Task::Land).expect("there is room for one");
    assert_eq!(numbers(land), [21]);
}
