//! The planner and landings, with workers that the test plays.

use super::*;
use sluicedb_storage::compact::LandingMode;
use std::collections::BTreeMap;

/// An engine with one range. Its landing before L1 has tables in each of four shards; L1 has
/// little.
fn landed(dir: &str, value_bytes: usize) -> Home {
    let home = Home::with(dir, 1, 1, |config| {
        // So that flushes are cut at shard bounds.
        config.memtable_bytes = Some(32 << 10);
        config.compaction.l0_trigger = 2;
        config.compaction.level_base_bytes = 1 << 30;
        config.compaction.table_bytes_max = 2 << 10;
        config.compaction.keep_trigger = f64::INFINITY;
        config.compaction.landing_parallelism = 8.try_into().expect("not 0");
    });
    let shards = || {
        let version = home.version();
        let landing = version.ranges()[0].layers.landing(1);
        landing.iter().map(|layer| layer.place).collect::<BTreeSet<_>>()
    };
    // Tables go into L1 first and then into its landing. Where the shard bounds move, it tries
    // again.
    for _ in 0..2 {
        for _ in 0..2 {
            let mut batch = WriteBatch::new();
            (0..=255_u8).for_each(|key| {
                batch.put([key], vec![key; value_bytes]);
            });
            home.write(batch);
        }
        for _ in 0..3 {
            if shards().is_empty() {
                home.runtime.poll(PLANNER);
                home.runtime.run_all_but(&[PLANNER]);
            }
        }
    }
    let chosen = home.engine.counters().compactions.decisions.list();
    assert!(shards().len() >= 2, "{chosen:?}");
    home
}

/// Which worker drains which shard.
fn drains(played: &Played) -> BTreeMap<Place, usize> {
    let running = played.running.iter().enumerate();
    let jobs = running.filter_map(|(worker, job)| Some((worker, job.as_ref()?)));
    let mut drains = BTreeMap::new();
    for (worker, job) in jobs.filter(|(_, job)| job.mode() == LandingMode::Drain) {
        assert!(drains.insert(job.input_place(), worker).is_none(), "a shard is drained twice");
    }
    drains
}

#[test]
fn t000_14_a_drain_that_fails_in_one_shard_stops_no_other_and_is_tried_again() {
    let home = landed("/planner/drains", 100);
    let mut played = Played::new(&home, 8);
    played.look();
    let first = drains(&played);
    assert!(first.len() >= 2, "two shards are drained at once: {first:?}");
    let (&failing, &worker) = first.first_key_value().expect("there are two");
    // This includes shards that have another part of the same file.
    let others: Vec<_> = first.keys().filter(|place| **place != failing).copied().collect();
    assert!(!others.is_empty(), "{first:?}");
    played.end(worker, Ended::Failed(io_error()));
    for _ in 0..3 {
        let now = drains(&played);
        assert!(!now.contains_key(&failing), "it pauses");
        for place in &others {
            let worker = *now.get(place).expect("the other shards go on");
            played.end(worker, Ended::Conflict);
        }
    }
    home.runtime.advance(Duration::from_secs(60));
    played.look();
    played.look();
    let worker = *drains(&played).get(&failing).expect("its claim has gone, and it is tried again");
    played.end(worker, Ended::Done { tables: 1 });
    for place in &others {
        assert!(drains(&played).contains_key(place));
    }
}

/// A job cuts its inputs when it begins. If it fails then, it is the slice as the version knows it
/// that is set aside. So it is not tried again at once.
///
/// Planted: the names of the cut pieces.
#[test]
fn a_drain_that_fails_after_it_was_cut_is_set_aside() {
    // So much that a shard is drained in several windows.
    let home = landed("/planner/cut", 400);
    let mut played = Played::new(&home, 8);
    played.look();
    let damage = |table| {
        let path = FileKind::Table(table).path(Path::new("/db"));
        Ended::Failed(Failure::storage(Error::corrupt(&path, 77, "planted")))
    };
    let (place, worker) = drains(&played).pop_first().expect("a shard is drained");
    // The first table of the level is set aside, so the next drain begins behind it.
    let main = played.job(worker).slices().find(|(at, _)| !at.is_tier());
    let first = main.expect("it merges with the level").1.number();
    played.end(worker, damage(first));

    let worker = *drains(&played).get(&place).expect("the keys behind that table are drained");
    let job = played.running[worker].as_mut().expect("it runs");
    let landed = job.slices().next().expect("it drains something").1.clone();
    assert!(job.slices().all(|(_, slice)| slice.number() != first));
    job.cut().expect("the disk works");
    let piece = job.slices().find(|(_, slice)| slice.number() == landed.number());
    let piece = piece.expect("it has a part of it").1.name();
    assert_ne!(piece, landed.name(), "it is cut where the drain begins");
    played.end(worker, damage(landed.number()));
    for _ in 0..3 {
        let running = drains(&played);
        let again = running.values().any(|&worker| {
            played.job(worker).slices().any(|(_, slice)| slice.name() == landed.name())
        });
        assert!(!again, "it is tried again at once");
        played.look();
    }
    home.runtime.advance(Duration::from_secs(60));
    played.look();
    played.look();
    assert!(drains(&played).contains_key(&place), "it is tried again later");
}

/// One range is in a long merge while a tombstone of another one becomes too old.
///
/// Planted: the alarm is set only while nothing runs.
#[test]
fn what_becomes_due_while_a_job_runs_is_given_to_who_is_idle() {
    const HOUR: Duration = Duration::from_secs(3600);
    let home = Home::with("/planner/alarm", 2, 2, |config| {
        config.compaction.l0_trigger = 1;
        config.compaction.level_base_bytes = 1 << 30;
        config.compaction.table_bytes_max = 64 << 10;
        config.compaction.tombstone_age_max_ms = HOUR.as_millis() as u64;
        config.compaction.keep_trigger = f64::INFINITY;
    });
    let settle = || {
        for _ in 0..3 {
            home.runtime.poll(PLANNER);
            home.runtime.run_all_but(&[PLANNER]);
        }
    };
    let mut batch = WriteBatch::new();
    for key in 0..KEYS {
        batch.put([0, key], [key; 1000]);
    }
    batch.put([1, 1], [1; 100]);
    home.write(batch);
    settle();
    let mut batch = WriteBatch::new();
    batch.delete([0, 1]);
    home.write(batch);
    settle();
    let mut batch = WriteBatch::new();
    batch.put([1, 1], [2; 100]);
    home.write(batch);
    let version = home.version();
    let landed = version.ranges()[0].layers.landing(1).len();
    let chosen = home.engine.counters().compactions.decisions.list();
    assert_eq!((landed, version.ranges()[1].layers.count(Place::L0)), (1, 1), "{chosen:?}");
    let mut played = Played::new(&home, 2);
    played.look();
    assert_eq!((played.count(), played.job(0).range), (1, version.ranges()[1].id));
    home.runtime.advance(HOUR + Duration::from_secs(1));
    // Neither a message nor a signal wakes the planner.
    played.take();
    assert_eq!(played.job(1).mode(), LandingMode::Drain);
}
