//! Ranges at rest, with workers that the test plays and a clock that it moves.

use super::*;
use sluicedb_storage::compact::Choice;

const SECOND: Duration = Duration::from_secs(1);

/// An engine whose ranges have tables in L0 that are not due, and little in L1.
fn home(dir: &str, ranges: u8, workers: usize) -> Home {
    let home = Home::with(dir, ranges, workers, |config| {
        config.compaction.l0_trigger = 4;
        config.compaction.level_base_bytes = 1 << 30;
        config.compaction.rest_after_ms = 5000;
    });
    home.runtime.run_all_but(&[]);
    for flush in 0..5 {
        let mut batch = WriteBatch::new();
        for range in 0..ranges {
            (0..KEYS).for_each(|key| {
                batch.put([range, key], [flush; 300]);
            });
        }
        home.write(batch);
        if flush == 3 {
            home.runtime.poll(PLANNER);
            home.runtime.run_all_but(&[]);
        }
    }
    for range in home.version().ranges() {
        let count = |place| range.layers.in_order(place).len();
        assert_eq!((count(Place::L0), range.layers.runs().len()), (1, 2), "{range:?}");
    }
    home
}

/// Planted: the alarm for rests is set only when another one is; batches of another range count.
#[test]
fn a_range_rests_when_its_time_has_come_and_nobody_has_written() {
    let home = home("/planner/rests", 2, 2);
    let ranges: Vec<_> = home.version().ranges().iter().map(|range| range.id).collect();
    let mut played = Played::new(&home, 2);
    played.look();
    assert_eq!(played.count(), 0, "nothing is due");
    home.runtime.advance(4 * SECOND);
    let mut batch = WriteBatch::new();
    batch.put([1, 1], [9; 10]);
    let payload = batch.take_encoded().into();
    assert!(home.engine.write_path().submit_owned(payload, 1, Durability::Buffered).is_ok());
    home.runtime.advance(SECOND);
    // Neither a message nor a signal wakes the planner.
    played.take();
    assert_eq!(
        (played.count(), played.job(0).range),
        (1, ranges[0]),
        "the other one is written to"
    );
    assert_eq!(played.job(0).why.choice, Choice::Rest);
    home.runtime.advance(4 * SECOND);
    played.take();
    assert_eq!(played.count(), 1);
    home.runtime.advance(SECOND);
    played.take();
    assert_eq!(played.count(), 2, "now it rests as well");
    // A range that is written to again is not chosen again at once.
    let batch = |range: u8| {
        let mut batch = WriteBatch::new();
        batch.put([range, 1], [9; 10]);
        let payload = batch.take_encoded().into();
        assert!(home.engine.write_path().submit_owned(payload, 1, Durability::Buffered).is_ok());
    };
    batch(0);
    played.end(0, Ended::Conflict);
    assert_eq!(played.count(), 1, "it is not chosen again");
    home.runtime.advance(5 * SECOND);
    played.take();
    assert_eq!(played.count(), 2, "but it is when that is over");
}

/// The whole engine: what waits above the levels is merged down without any request.
#[test]
fn an_engine_at_rest_has_nothing_in_front_of_its_levels() {
    let home = home("/planner/at-rest", 1, 1);
    home.runtime.run_all_but(&[]);
    assert_eq!(home.version().ranges()[0].layers.runs().len(), 2, "it is written to");
    home.runtime.advance(5 * SECOND);
    home.runtime.poll(PLANNER);
    home.runtime.run_all_but(&[]);
    assert_eq!(home.version().ranges()[0].layers.runs().len(), 1);
    let chosen = home.engine.counters().compactions.decisions.list();
    assert_eq!(chosen.last().map(|last| last.why.choice), Some(Choice::Rest), "{chosen:?}");
}
