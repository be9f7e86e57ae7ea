//! The compaction planner, with workers that the test plays, and with a whole engine whose actors
//! the test runs one by one.

mod landings;
mod played;
mod rest;

use super::message::Ended;
use super::run::input_names;
use super::*;
use crate::config::EngineConfig;
use crate::engine::Engine;
use crate::failure::Party;
use crate::log_writer::message::Durability;
use crate::progress::Progress;
use crate::testing::{Stepped, config, renew_ranges};
use crate::write::Submitted;
use futures::FutureExt;
use futures::future::BoxFuture;
use played::*;
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_storage::Error;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::compact::ClaimedJob;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::key::Span;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::table::Compression;
use sluicedb_storage::version::{Place, Version};
use sluicedb_storage::vfs::{MemVfs, OperationKind};
use std::path::Path;
use std::sync::LazyLock;
use std::task::{Context, Waker};
use std::time::Duration;

/// Planted: one worker is started, whatever the options say; the planner gives out one job at a
/// time.
#[test]
fn two_workers_have_jobs_of_two_ranges_under_way_at_once() {
    let home = Home::new("/planner/two", 2);
    home.fill_l0();
    home.runtime.run_all_but(&[PLANNER]);
    assert_eq!(home.engine.parts.versions.len(), 0);
    // Both have merged, and wait to be installed.
    home.runtime.run_all_but(&["sluice-version"]);
    let counters = &home.engine.counters().compactions;
    assert_eq!(home.engine.parts.versions.len(), 2);
    assert_eq!((counters.compactions_begun.get(), counters.compactions.get()), (2, 0));
    home.runtime.run_all_but(&[]);
    assert!(counters.compactions.get() > 2);
    assert_eq!(counters.compactions_begun.get(), counters.compactions.get(), "no conflict");
    for range in home.version().ranges() {
        assert_eq!(range.layers.in_order(Place::L0).len(), 0);
    }
}

/// Planted: claims that admit every job; a claim that ends when the job is given out.
#[test]
fn jobs_that_run_at_once_never_share_a_table() {
    let home = Home::new("/planner/apart", RANGES.into());
    home.fill_l0_and_l1();
    for seed in 1..20_u64 {
        let mut random = seed;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % n
        };
        let mut played = Played::new(&home, 7);
        let (mut most, mut in_one_range) = (0, false);
        let mut answers = Vec::new();
        for _ in 0..100 {
            played.look();
            let mut seen: BTreeSet<FileNumber> = BTreeSet::new();
            let mut ranges = BTreeSet::new();
            for job in played.running.iter().flatten() {
                in_one_range |= !ranges.insert(job.range);
                for (_, slice) in job.slices() {
                    assert!(seen.insert(slice.number()), "seed {seed}: twice {}", slice.number());
                }
            }
            most = most.max(played.count());
            if below(10) == 0 && played.requests.is_empty() {
                answers.push(request(&played.requests, of_range(below(3) as u8)));
            }
            let running: Vec<_> =
                (0..7).filter(|worker| played.running[*worker].is_some()).collect();
            if !running.is_empty() {
                // Nothing was installed, so the same tables are due again.
                let worker = running[below(running.len() as u64) as usize];
                let asked = !answers.is_empty();
                let fails = asked && below(4) == 0;
                let ended = if fails { Ended::Failed(io_error()) } else { Ended::Conflict };
                played.end(worker, ended);
                home.runtime.advance(Duration::from_secs(60));
            }
        }
        assert!(most > 3 && in_one_range, "seed {seed}: {most} at once");
    }
}

/// Goal: while writes are so fast that the next flush will be there before a merge could end, L0
/// waits for it. It waits no longer when it has twice its runs, when the next flush is late, or
/// when it nears the runs that stop flushes.
///
/// Planted: only sealed memtables count; the burst of one range makes all wait; a burst that lasts
/// as long as the memtable is so full; nobody wakes the planner; no look at `l0_tables_max`.
#[test]
fn in_a_burst_l0_waits_for_the_next_flush() {
    for l0_tables_max in [8, 3] {
        let name = format!("/planner/burst/{l0_tables_max}");
        let home = Home::with(&name, RANGES, RANGES.into(), |config| {
            config.compaction.l0_trigger = 2;
            config.l0_tables_max = l0_tables_max;
        });
        let mut played = Played::new(&home, RANGES.into());
        let ranges: Vec<_> = home.version().ranges().iter().map(|range| range.id).collect();
        let full = home.engine.superversion().ranges[0].owner.budget.memtable_bytes;
        let begun = |played: &Played| {
            let ranges = played.running.iter().flatten().map(|job| job.range);
            ranges.collect::<BTreeSet<_>>()
        };
        let pause = Duration::from_millis(200);
        for n in 0..2 {
            played.look();
            assert!(begun(&played).is_empty());
            home.runtime.advance(pause);
            let mut batch = WriteBatch::new();
            for range in 0..RANGES {
                batch.put([range, 1], [n; 300]);
            }
            home.write(batch);
            // L0 is merged from two runs on, so a third of a memtable is a burst.
            let (mut batch, value) = (WriteBatch::new(), vec![7; full / 3]);
            batch.put([0, 0], &value);
            home.submit(batch);
        }
        played.look();
        if l0_tables_max == 3 {
            assert_eq!(begun(&played), ranges.iter().copied().collect(), "no slack");
            continue;
        }
        let others = ranges[1..].iter().copied().collect();
        assert_eq!(begun(&played), others, "only the first is in a burst");
        home.runtime.advance(pause + pause / 2);
        played.take();
        assert_eq!(begun(&played), others, "it may still come");
        home.runtime.advance(pause / 2);
        played.take();
        assert_eq!(begun(&played).len(), ranges.len(), "it is late");
    }
}

/// Planted: `Busy` is taken for done.
#[test]
fn a_request_waits_for_the_jobs_that_are_in_its_way() {
    let home = Home::new("/planner/busy", 4);
    home.fill_l0();
    home.runtime.run_all_but(&["sluice-version"]);
    assert_eq!(
        home.engine.parts.versions.len(),
        3,
        "three jobs are under way, and one worker is idle"
    );
    let mut answer = home.compact(Span::all());
    home.runtime.run_all_but(&["sluice-version"]);
    assert!((&mut answer).now_or_never().is_none(), "they are in its way");
    home.runtime.run_all_but(&[]);
    assert!(matches!((&mut answer).now_or_never(), Some(Ok(Ok(())))));
    for range in home.version().ranges() {
        assert_eq!(range.layers.in_order(Place::L0).len(), 0);
    }
}

/// Planted: the answer comes as soon as the tables are in place.
#[test]
fn a_request_is_answered_when_what_was_merged_for_it_is_counted() {
    let home = Home::new("/planner/counted", 1);
    home.fill_l0();
    let shown = unseen();
    let mut answer = request_shown(&home.engine.parts.planner, of_range(0), &shown);
    home.runtime.poll(PLANNER);
    home.runtime.run_all_but(&[PLANNER, "sluice-version"]);
    home.runtime.poll("sluice-version");
    home.runtime.poll(PLANNER);
    assert_eq!(home.version().ranges()[0].layers.in_order(Place::L0).len(), 0, "it is installed");
    assert!((&mut answer).now_or_never().is_none(), "but not reported");
    home.runtime.run_all_but(&[]);
    assert!(matches!((&mut answer).now_or_never(), Some(Ok(Ok(())))));
    let Progress { done_bytes, total_bytes, .. } = shown.get();
    assert!(done_bytes > 0 && done_bytes == total_bytes, "{done_bytes} of {total_bytes}");
}

/// Planted: the automatic job goes first; the request is answered while one of its jobs runs.
#[test]
fn a_request_goes_before_the_next_automatic_job_and_gives_up_only_ranges_that_fail() {
    let home = Home::new("/planner/first", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, 2);
    played.look();
    let begun = [played.job(0).range, played.job(1).range];
    let ranges: Vec<_> = home.version().ranges().iter().map(|r| r.id).collect();
    let third = ranges.iter().position(|range| !begun.contains(range)).expect("there are three");
    let mut answer = request(&played.requests, of_range(third as u8));
    let mut next = request(&played.requests, Span::all());
    played.end(0, Ended::Conflict);
    assert_eq!(played.job(0).range, ranges[third]);
    // Another worker is idle. A merge by it might be in the caller's way.
    played.end(1, Ended::Conflict);
    let merges = played.running.iter().flatten().filter(|job| !job.is_metadata_only());
    assert_eq!(merges.count(), 1);
    played.end(0, Ended::Failed(io_error()));
    assert!(matches!((&mut answer).now_or_never(), Some(Ok(Err(_)))));
    // The next request runs two of its jobs at once, and one fails.
    let failed = played.job(1).range;
    assert_ne!(failed, played.job(0).range);
    played.end(1, Ended::Failed(io_error()));
    assert_ne!(played.job(1).range, failed, "it goes on with the others");
    assert!((&mut next).now_or_never().is_none());
    played.end(1, Ended::Failed(io_error()));
    assert!((&mut next).now_or_never().is_none(), "one of its jobs is under way");
    played.end(0, Ended::Failed(io_error()));
    assert!(matches!((&mut next).now_or_never(), Some(Ok(Err(_)))));
}

/// Planted: the planner does not look whether the caller still waits; bytes merged before count as
/// left.
#[test]
fn an_order_shows_how_far_it_is_and_is_off_when_nobody_wants_it() {
    let home = Home::new("/planner/off", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, 1);
    let shown = unseen();
    let mut answer = request_shown(&played.requests, Span::all(), &shown);
    played.look();
    let whole: u64 = home.version().slices().map(|(_, _, slice)| slice.file_bytes()).sum();
    assert_eq!(shown.get(), Progress { total_bytes: whole, ..Progress::default() });
    // One job of three is done. The test installs nothing, so its tables are still to be merged.
    let done = played.job(0).input_bytes();
    played.end(0, Ended::Done { tables: 1 });
    assert_eq!(shown.get().total_bytes, whole + done);
    assert!((&mut answer).now_or_never().is_none());
    let mut next = request(&played.requests, of_range(0));
    drop(shown);
    played.end(0, Ended::Off);
    assert!(matches!((&mut answer).now_or_never(), Some(Err(_))), "it is off");
    assert_eq!(played.job(0).range, home.version().ranges()[0].id, "the next one has begun");
    assert!((&mut next).now_or_never().is_none());
}

/// Planted: any job of an order counts for the current one.
#[test]
fn what_an_order_left_behind_does_not_count_in_the_next_one() {
    let home = Home::new("/planner/left", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, 2);
    let (first, second) = (unseen(), unseen());
    let _off = request_shown(&played.requests, of_range(0), &first);
    played.look();
    let left = played
        .running
        .iter()
        .position(|job| job.as_ref().is_some_and(|job| job.range == home.version().ranges()[0].id));
    drop(first);
    let _next = request_shown(&played.requests, of_range(1), &second);
    played.look();
    let whole = second.get().total_bytes;
    assert!(whole > 0, "it has begun");
    // The old job was nearly done when its order was cancelled. Now it ends.
    played.end(left.expect("it has begun"), Ended::Done { tables: 1 });
    assert_eq!(second.get().total_bytes, whole);
}

/// A long merge for a request does not keep flushed tables from landing.
///
/// Planted: nothing is chosen beside a request.
#[test]
fn l0_lands_while_an_order_is_under_way() {
    let home = Home::with("/planner/beside", RANGES, 1, |config| {
        config.compaction.l0_trigger = 2;
        config.compaction.landing_runs_max = 4;
        // No other kind of job goes first.
        config.compaction.shards = 1;
    });
    home.fill_l0();
    let mut played = Played::new(&home, 1);
    let _answer = request(&played.requests, of_range(0));
    played.look();
    let range = home.version().ranges()[0].id;
    assert_eq!((played.job(0).range, played.job(0).is_metadata_only()), (range, false));
    let lands = played.job(1);
    assert!(lands.is_metadata_only() && lands.range != range, "{lands:?}");
    assert_eq!(lands.input_place(), Place::L0);
}

/// Planted: the failure is forgotten as soon as nothing else is due.
#[test]
fn what_failed_is_not_forgotten_while_it_is_tried_again() {
    let home = Home::new("/planner/again", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, 2 * usize::from(RANGES));
    played.look();
    let ranges: Vec<RangeId> = home.version().ranges().iter().map(|range| range.id).collect();
    let trouble = || home.engine.failures().trouble(Party::Compaction, ranges[0]);
    let of = |played: &Played, range| {
        let runs = |job: &Option<ClaimedJob>| job.as_ref().is_some_and(|job| job.range == range);
        played.running.iter().position(runs)
    };
    for _ in 0..7 {
        let worker = of(&played, ranges[0]).expect("it is tried again");
        played.end(worker, Ended::Failed(io_error()));
        home.runtime.advance(Duration::from_secs(60));
        played.look();
        played.look();
    }
    assert!(trouble().is_some(), "it lasts");
    let worker = of(&played, ranges[0]).expect("it is tried again");
    played.end(worker, Ended::Done { tables: 1 });
    assert!(trouble().is_none(), "it has worked");
}

/// A merge that wrote no table proves nothing about space, so the pause for a full disk goes on.
///
/// Planted: each job that ends well ends the pause.
#[test]
fn only_a_job_that_wrote_a_table_ends_the_pause_of_a_full_disk() {
    let home = Home::new("/planner/no-space", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, 3);
    played.look();
    assert_eq!(played.count(), 3);
    let full = std::io::Error::from_raw_os_error(28);
    let full = Failure::storage(Error::io("write", Path::new("/db/000099.tmp"), full));
    played.end(0, Ended::Failed(full));
    played.end(1, Ended::Done { tables: 0 });
    assert_eq!(played.count(), 1, "nothing begins while the disk is full");
    played.end(2, Ended::Done { tables: 1 });
    assert!(played.count() > 1, "there is space again");
}

/// Goal: the trouble of a range that is replaced is shown for the range that has its tables now,
/// before anything fails again.
///
/// Planted: `show` only withdraws troubles.
#[test]
fn the_trouble_of_a_range_that_goes_is_that_of_its_heir() {
    let home = Home::new("/planner/heir", RANGES.into());
    home.fill_l0();
    let mut played = Played::new(&home, usize::from(RANGES));
    played.look();
    let range = |at: usize| home.version().ranges()[at].id;
    let trouble = |range| home.engine.failures().trouble(Party::Compaction, range);
    let first = range(0);
    let runs = |job: &Option<ClaimedJob>| job.as_ref().is_some_and(|job| job.range == first);
    let worker = played.running.iter().position(runs).expect("there is a worker for each range");
    let name = input_names(played.job(worker))[0].clone();
    let path = FileKind::Table(name.table).path(Path::new("/db"));
    let damage = Failure::storage(Error::corrupt(&path, 77, "planted"));
    played.end(worker, Ended::Failed(damage));
    assert!(trouble(first).is_some() && trouble(range(1)).is_none());

    home.runtime.run(PLANNER, renew_ranges(&home.engine)).expect("the disk works");
    let heir = range(0);
    assert_ne!(heir, first);
    played.look();
    let told = trouble(heir).expect("its table is as damaged as it was").to_string();
    assert!(told.contains("planted"), "{told}");
    assert!(trouble(first).is_none() && trouble(range(1)).is_none());
    // Now the table can be merged after all.
    home.runtime.advance(Duration::from_secs(60));
    for worker in 0..usize::from(RANGES) {
        if played.running[worker].is_some() {
            played.end(worker, Ended::Conflict);
        }
    }
    let has = |job: &Option<ClaimedJob>| {
        job.as_ref().is_some_and(|job| job.range == heir && input_names(job).contains(&name))
    };
    let worker = played.running.iter().position(has).expect("it is tried again");
    played.end(worker, Ended::Done { tables: 1 });
    assert!(trouble(heir).is_none());
}

/// Planted: a panic only ends the thread; workers wait for a job for ever.
#[test]
fn a_worker_that_panics_stops_the_engine_and_leaves_nobody_waiting() {
    let home = Home::new("/planner/panic", 4);
    home.fill_l0();
    let runtime = home.runtime.clone();
    home.disk.on_operation(move |_, operation| {
        let breaks =
            runtime.now_running() == "sluice-merge-1" && operation.kind == OperationKind::Create;
        assert!(!breaks, "planted");
    });
    let mut answer = home.compact(Span::all());
    home.runtime.run_all_but(&[]);
    let failure = home.engine.failures().stopped_by().expect("it has failed");
    assert!(matches!(failure, Failure::Panicked { actor: "compaction worker", .. }), "{failure}");
    assert!(!matches!((&mut answer).now_or_never(), None | Some(Ok(Ok(())))), "who waits is told");
    let left = home.runtime.names();
    let compacts = |name: &String| name == PLANNER || name.starts_with("sluice-merge");
    assert!(!left.iter().any(compacts), "{left:?}");
}
