//! What was deleted disappears from the disk, although its tombstone is cut off from most of its
//! table, or is merged again and again before it is old.

use crate::harness::{Simulated, check, fill};
use crate::kit::settings;
use sluicedb::{Db, Options};
use sluicedb_storage::version::Place;
use std::future::IntoFuture;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Levels are never too large, and nothing is merged because it has rested.
fn options() -> Options {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(64 << 10);
    options.level_base_bytes = 16 << 20;
    options.table_bytes_max = 1 << 20;
    options.rest_after_ms = 0;
    options
}

/// The tombstones of whole tables below L0.
fn buried(home: &Simulated) -> u64 {
    let image = home.image();
    let below = image.slices.iter().filter(|((_, place, _), _)| *place != Place::L0);
    below.map(|(_, slice)| slice.table.tombstones).sum()
}

async fn delete(db: &Db, key: &str) {
    db.delete(key).await.unwrap();
    db.flush().await.unwrap();
}

/// A tombstone lies in L1 over its value in L2. What is beside it is written and merged three times
/// an hour. After an hour it is merged with its value.
///
/// Planted: the output of a merge is as young as its file.
#[test]
fn a_tombstone_that_is_merged_often_becomes_old_all_the_same() {
    let mut options = options();
    options.tombstone_age_max_ms = 60 * 60_000;
    let home = Simulated::with(3, options);
    let db = home.open();
    let mut map = home.run(fill(&db, 100, 100));
    home.run(db.compact_range(..).to_level(2).into_future()).unwrap();
    home.run(delete(&db, "key0050"));
    map.remove(&b"key0050"[..]);
    for round in 0..5 {
        home.run(db.put("key0051", [round])).unwrap();
        home.run(db.compact_range("key005".."key0052").to_level(1).into_future()).unwrap();
        home.simulator.settle();
        if round < 3 {
            assert_eq!(buried(&home), 1, "round {round}: it is not old yet");
        }
        home.simulator.advance(20 * MINUTE);
        home.simulator.settle();
    }
    map.insert(b"key0051".to_vec(), vec![4]);
    assert_eq!(buried(&home), 0, "{:?}", db.level_info());
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}

/// A table with one tombstone is cut in two, so that neither part has one by its estimate.
///
/// Planted: a part whose estimate is 0 is taken to have none.
#[test]
fn a_tombstone_in_a_part_of_a_table_is_removed() {
    let mut options = options();
    options.l0_trigger_tables = 1;
    let home = Simulated::with(4, options);
    let db = home.open();
    let mut map = home.run(fill(&db, 100, 100));
    map.remove(&b"key0050"[..]);
    home.run(delete(&db, "key0050"));
    home.simulator.settle();
    assert_eq!(buried(&home), 1, "it went to L1 as it is: {:?}", db.level_info());
    assert!(home.run(db.split_at("key0030")).unwrap());
    let estimate: u64 = db.level_info().iter().map(|level| level.tombstones).sum();
    assert_eq!(estimate, 0, "{:?}", db.level_info());
    home.run(db.compact().into_future()).unwrap();
    assert_eq!(buried(&home), 0, "{:?}", db.level_info());
    home.run(check(&db, &map)).unwrap();
    home.run(db.close()).unwrap();
}
