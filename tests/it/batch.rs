use crate::harness::{Home, Simulated, block_on, check};
use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::FutureExt;
use sluicedb::{Db, Error, ErrorKind, Options, Outcome, WriteBatch, WriteOptions};
use sluicedb_actors::runtime::Runtime;
#[cfg(debug_assertions)]
use sluicedb_storage::batch::operations_decoded;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn batch(build: impl FnOnce(&mut WriteBatch)) -> WriteBatch {
    let mut batch = WriteBatch::new();
    build(&mut batch);
    batch
}

#[test]
fn later_operations_of_a_batch_win() {
    let home = Home::new();
    let db = home.open();
    let mut expected = Map::new();
    expected.insert(b"a".to_vec(), b"2".to_vec());
    expected.insert(b"c".to_vec(), b"".to_vec());
    block_on(async {
        db.put("b", "before").await.unwrap();
        db.write(batch(|b| {
            b.put("a", "1").delete("a").put("a", "2").put("b", "1").delete("b").put("c", "");
        }))
        .await
        .unwrap();
        check(&db, &expected).await.unwrap();
        db.flush().await.unwrap();
        check(&db, &expected).await.unwrap();
    });
    drop(db);
    block_on(check(&home.open(), &expected)).unwrap();
}

fn refused(error: Error, message: &str) {
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(error.to_string(), message);
    assert_eq!(error.path(), None);
}

#[test]
fn what_can_never_succeed_is_refused_before_anything_happens() {
    let home = Home::new();
    let value_max = home.options.effective_value_bytes_max() as usize;
    let batch_max = home.options.effective_batch_bytes_max() as usize;
    let db = home.open();
    block_on(async {
        db.put("a", "1").await.unwrap();
        let before = db.stats();

        let empty = "the key is empty; keys are 1..=65535 bytes";
        refused(db.put("", "v").await.unwrap_err(), empty);
        refused(db.delete("").await.unwrap_err(), empty);
        refused(db.put_with("", "v", NO_WAIT).await.unwrap_err(), empty);
        refused(db.delete_with("", NO_WAIT).await.unwrap_err(), empty);
        let long = vec![b'k'; 65_536];
        let too_long = "the key has 65536 bytes; keys are 1..=65535 bytes";
        refused(db.put(&long, "v").await.unwrap_err(), too_long);
        refused(db.delete(&long).await.unwrap_err(), too_long);
        let large = vec![0; value_max + 1];
        let too_large = format!(
            "the value has {} bytes; the limit is {value_max} (option value_bytes_max)",
            value_max + 1
        );
        refused(db.put("a", &large).await.unwrap_err(), &too_large);

        // An invalid operation in the middle refuses the whole batch.
        let bad = |key: &[u8], value: &[u8]| {
            batch(|b| {
                b.put("a", "2").put(key, value).delete("a");
            })
        };
        refused(db.write(bad(b"", b"v")).await.unwrap_err(), empty);
        refused(db.write(bad(&long, b"v")).await.unwrap_err(), too_long);
        refused(db.write(bad(b"b", &large)).await.unwrap_err(), &too_large);
        refused(db.write_with(bad(b"", b"v"), NO_WAIT).await.unwrap_err(), empty);
        refused(db.submit(bad(b"", b"v")).await.unwrap_err(), empty);

        let huge = batch(|b| {
            for n in 0..=(batch_max / 1000) {
                b.put(format!("huge{n}"), vec![0; 1000]);
            }
        });
        let message = format!(
            "the batch has {} bytes; the limit is {batch_max} (option batch_bytes_max)",
            huge.encoded_len()
        );
        refused(db.write(huge.clone()).await.unwrap_err(), &message);
        refused(db.submit(huge).await.unwrap_err(), &message);

        let after = db.stats();
        assert_eq!(before.commits, after.commits);
        assert_eq!(before.visible_seqno, after.visible_seqno);
        assert_eq!(before.log_bytes, after.log_bytes);
    });
    let mut expected = Map::new();
    expected.insert(b"a".to_vec(), b"1".to_vec());
    block_on(check(&db, &expected)).unwrap();
    drop(db);
    block_on(check(&home.open(), &expected)).unwrap();
}

#[test]
fn the_largest_batch_that_fits_is_written_whole() {
    let home = Home::new();
    let batch_max = home.options.effective_batch_bytes_max() as usize;
    let db = home.open();
    let mut largest = WriteBatch::new();
    let mut expected = Map::new();
    let mut n = 0_u32;
    while largest.encoded_len() + 1024 <= batch_max {
        let (key, value) = (n.to_be_bytes().to_vec(), vec![n as u8; 990]);
        largest.put(&key, &value);
        expected.insert(key, value);
        n += 1;
    }
    // Exactly up to the limit.
    let rest = batch_max - largest.encoded_len() - (1 + 1 + 2 + 1);
    largest.put("z", vec![1; rest]);
    expected.insert(b"z".to_vec(), vec![1; rest]);
    assert_eq!(largest.encoded_len(), batch_max);
    block_on(db.write(largest)).unwrap();
    block_on(check(&db, &expected)).unwrap();
    drop(db);
    block_on(check(&home.open(), &expected)).unwrap();
}

#[test]
fn an_empty_batch_does_nothing() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        db.put("a", "1").await.unwrap();
        let before = db.stats();
        db.write(WriteBatch::new()).await.unwrap();
        db.write_with(WriteBatch::new(), NO_WAIT).await.unwrap();
        let seqno = db.submit(WriteBatch::new()).await.unwrap().await.unwrap();
        assert_eq!(seqno, before.visible_seqno);
        let mut cleared = batch(|b| {
            b.put("x", "1");
        });
        cleared.clear();
        db.write(cleared).await.unwrap();
        assert_eq!(db.stats().commits, before.commits);
        assert_eq!(content(&db).await.unwrap().len(), 1);
    });
}

/// A batch with more operations than a turn on an executor thread may take is applied by an engine
/// thread.
#[test]
fn a_batch_of_many_operations_is_atomic_too() {
    let mut options = Options::default();
    options.memory_budget_bytes = 64 << 20;
    let home = Home::with(options);
    let db = home.open();
    for round in 0..3 {
        let mut batch = WriteBatch::new();
        for n in 0..9_000_u32 {
            batch.put(n.to_be_bytes(), format!("round {round}"));
        }
        block_on(db.write(batch)).unwrap();
        let found = block_on(content(&db)).unwrap();
        assert_eq!(found.len(), 9_000);
        assert!(found.values().all(|value| *value == format!("round {round}").into_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_half_a_batch() {
    let home = Home::new();
    let db = home.builder().open().await.unwrap();
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = {
        let (db, stop, seen) = (db.clone(), stop.clone(), seen.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                one_look(&db).await;
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    // The loop runs until the reader had its turns, on any machine.
    let mut round = 0_u32;
    while round < 1_500 || (seen.load(Ordering::Relaxed) < 50 && round < 1_000_000) {
        let mut batch = WriteBatch::new();
        for n in 0..5 {
            batch.put(format!("twin{n}"), round.to_be_bytes());
        }
        if round.is_multiple_of(3) {
            batch.delete("twin3");
            batch.delete("twin4");
        }
        db.write(batch).await.unwrap();
        round += 1;
    }
    stop.store(true, Ordering::Relaxed);
    reader.await.unwrap();
    assert!(seen.load(Ordering::Relaxed) >= 50);
}

async fn one_look(db: &Db) {
    let keys = ["twin0", "twin1", "twin2", "twin3", "twin4"];
    let all = db.multi_get(&keys).await.unwrap();
    assert!(all[0] == all[1] && all[1] == all[2] && all[3] == all[4], "{all:?}");
    let found = content(db).await.unwrap();
    let round = found.get(&b"twin0"[..]);
    assert!(found.values().all(|value| Some(value) == round), "{found:?}");
    if let Some(round) = round {
        let round = u32::from_be_bytes(round[..].try_into().unwrap());
        assert_eq!(found.len(), if round % 3 == 0 { 3 } else { 5 }, "round {round}");
    }
}

/// The largest number of ranges, and so much memory that nothing is sealed.
fn many_ranges(seed: u64) -> Simulated {
    let mut options = crate::kit::settings::tiny();
    options.memory_budget_bytes = 256 << 20;
    options.write_buffer_bytes = Some(128 << 20);
    options.memtable_bytes = None;
    options.log_segment_bytes = 16 << 20;
    options.initial_split_keys = (1..=255).map(|byte| vec![byte]).collect();
    Simulated::with(seed, options)
}

/// Keys that jump from range to range.
fn scattered(operations: u32) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for n in 0..operations {
        batch.put([[(n * 151) as u8].as_slice(), &n.to_be_bytes()].concat(), "value");
    }
    batch
}

/// A batch is decoded once to find its ranges, and once by each range for its own operations.
#[cfg(debug_assertions)]
#[test]
fn b3_a_batch_over_many_ranges_is_decoded_once_and_by_each_range_its_own_part() {
    let home = many_ranges(1);
    let db = home.open();
    home.simulator.settle();
    let operations = 4_000;
    let before = operations_decoded();
    home.run(db.write(scattered(operations))).unwrap();
    home.simulator.settle();
    let decoded = operations_decoded() - before;
    assert!(decoded <= 2 * u64::from(operations) + 2, "{decoded} for {operations}");
    assert_eq!(home.run(content(&db)).unwrap().len(), operations as usize);
}

/// Seed 2. The caller's thread looks at no operation of a heavy batch.
#[cfg(debug_assertions)]
#[test]
fn b3_a_heavy_batch_over_many_ranges_is_routed_by_an_engine_thread() {
    let home = many_ranges(2);
    let db = home.open();
    home.simulator.settle();
    let operations = 20_000;
    let before = operations_decoded();
    let mut write = tokio_test::task::spawn(db.write(scattered(operations)));
    tokio_test::assert_pending!(write.poll());
    assert_eq!(operations_decoded() - before, 0, "decoded by the caller");
    let mut polled = before;
    while !write.is_woken() {
        home.simulator.settle();
        polled = operations_decoded();
    }
    while write.poll().is_pending() {
        assert_eq!(operations_decoded() - polled, 0, "decoded by the caller");
        home.simulator.settle();
        polled = operations_decoded();
    }
    assert_eq!(operations_decoded() - polled, 0, "decoded by the caller");
    assert!(polled - before <= 2 * u64::from(operations) + 2, "{} in all", polled - before);
    assert_eq!(home.run(content(&db)).unwrap().len(), operations as usize);
}

/// The same holds without waiting, with a deadline that has passed, and for a batch that has to
/// wait for room.
#[test]
fn b3_a_heavy_batch_over_many_ranges_is_written_in_every_way() {
    let home = many_ranges(3);
    let db = home.open();
    let mut expected = Map::new();
    let operations = 5_000;
    let past = home.simulator.now();
    home.simulator.advance(std::time::Duration::from_secs(1));
    for operation in scattered(operations).points() {
        expected.insert(operation.key.to_vec(), operation.value.to_vec());
    }
    home.run(async {
        db.write_with(scattered(operations), NO_WAIT).await.unwrap();
        check(&db, &expected).await.unwrap();
        db.write_with(scattered(operations), WriteOptions::new().by(past)).await.unwrap();
        db.submit(scattered(operations)).await.unwrap().await.unwrap();
        check(&db, &expected).await.unwrap();
        // The whole batch is in one range.
        let mut one = WriteBatch::new();
        for n in 0..operations {
            one.put([&[7][..], &n.to_be_bytes()].concat(), "one");
        }
        for operation in one.points() {
            expected.insert(operation.key.to_vec(), operation.value.to_vec());
        }
        db.write(one).await.unwrap();
        check(&db, &expected).await.unwrap();
        db.close().await.unwrap();
    });
    let error = home.run(db.write_with(scattered(operations), NO_WAIT)).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotApplied));
    drop(db);
    home.run(check(&home.open(), &expected)).unwrap();
}

/// The empty key is not a key. A write of it is refused and harms nothing else, a read of it finds
/// nothing, and as a bound of a span it means the beginning of all keys.
///
/// Planted: an empty key that is routed to the first range.
#[test]
fn x_16_the_empty_key_is_refused_by_whatever_writes_and_found_by_nothing() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        db.put("a", "1").await.unwrap();
        let with_empty = || {
            let mut batch = WriteBatch::new();
            batch.put("a", "2").put("", "v");
            batch
        };
        let refusals = [
            db.put("", "v").await.map(drop),
            db.delete("").await.map(drop),
            db.put_with("", "v", NO_WAIT).await.map(drop),
            db.delete_with("", NO_WAIT).await.map(drop),
            db.write(with_empty()).await.map(drop),
            db.write_with(with_empty(), NO_WAIT).await.map(drop),
            db.submit(with_empty()).await.map(drop),
            db.split_at("").await.map(drop),
            db.merge_at("").await.map(drop),
        ];
        let path = home.path().with_file_name("outside");
        let mut table = sluicedb::TableWriter::create(&path).unwrap();
        let of_table = [table.put("", "v"), table.delete("")];
        for refusal in refusals.into_iter().chain(of_table) {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Invalid);
        }
        table.put("b", "3").unwrap();
        assert_eq!(table.finish().unwrap().entries, 1);
        db.ingest([path]).await.unwrap();
        let snapshot = db.snapshot();
        for when in ["in memory", "in tables"] {
            assert_eq!(db.get("").await.unwrap(), None, "{when}");
            assert_eq!(snapshot.get("").await.unwrap(), None, "{when}");
            assert!(!db.contains_key("").await.unwrap(), "{when}");
            assert_eq!(db.multi_get(&["", "a"]).await.unwrap(), [None, Some("1".into())], "{when}");
            assert_eq!(content(&db).await.unwrap().len(), 2, "{when}");
            db.flush().await.unwrap();
        }
        db.excise("".."").await.unwrap();
        assert_eq!(content(&db).await.unwrap().len(), 2);
        db.excise("".."b").await.unwrap();
        assert_eq!(content(&db).await.unwrap().into_keys().collect::<Vec<_>>(), [b"b"]);
        db.close().await.unwrap();
    });
}

/// Goal: a batch that is within the limits that a database tells is accepted, and what is above
/// them is refused with advice.
///
/// Planted: only the encoded bytes are compared with a limit.
#[test]
fn a_batch_of_many_small_operations_is_within_the_limits_or_refused() {
    let options = Options { write_buffer_bytes: Some(1 << 20), ..settings::tiny() };
    let home = Simulated::with(7, options);
    let db = home.open();
    let limits = db.limits();
    let mut small = WriteBatch::new();
    let mut n = 0_u32;
    while small.memory_bytes() + 80 <= limits.batch_memory_bytes_max {
        small.delete(&n.to_be_bytes()[1..]);
        n += 1;
    }
    assert!(small.encoded_len() as u64 * 4 < limits.batch_bytes_max, "it is small");
    home.run(db.write(small.clone())).unwrap();
    small.delete([1; 8]).delete([2; 8]);
    let mut error = home.run(db.write(small)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().ends_with("write them in several batches"), "{error}");
    assert!(error.take_batch().is_some());
}

/// Planted: a deadline of a batch that deletes ranges is forgotten.
#[test]
fn a_batch_that_deletes_ranges_takes_no_deadline() {
    let home = Simulated::new(8);
    let db = home.open();
    let deadline = home.simulator.handle().now() + std::time::Duration::from_secs(1);
    for options in [NO_WAIT, WriteOptions::new().by(deadline)] {
        let deletes = batch(|b| {
            b.delete_range("a".."b");
        });
        let error = home.run(db.write_with(deletes, options)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// Goal: a write that must not wait is refused, with its batch, when the threads that prepare heavy
/// batches have no place for it: whether it is to be copied for its keyspace, or routed.
/// Method: nobody runs those threads, so others fill their queue.
///
/// Planted: a copy that waits for a place whatever the limit; a deadline in the past that waits.
#[test]
fn who_does_not_wait_for_room_does_not_wait_for_the_threads_that_prepare_heavy_batches() {
    let home = many_ranges(4);
    let db = home.open();
    let other = home.run(db.keyspace("other")).unwrap();
    let heavy = || {
        batch(|b| {
            for n in 0..4_200_u32 {
                b.delete(&n.to_be_bytes()[2..]);
            }
        })
    };
    let past = home.simulator.handle().now();
    home.simulator.advance(std::time::Duration::from_secs(1));
    let limits = [NO_WAIT, WriteOptions::new().by(past)];
    // More than the queue of one thread has places for.
    let fillers = (0..300).map(|_| {
        let (other, batch) = (other.clone(), heavy());
        let mut filler = tokio_test::task::spawn(async move { other.write(batch).await });
        assert!(filler.poll().is_pending());
        filler
    });
    let fillers: Vec<_> = fillers.collect();
    for options in limits {
        for keyspace in [&db, &other] {
            let written = keyspace.write_with(heavy(), options).now_or_never();
            let mut error = written.expect("it does not wait").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
            assert_eq!(error.take_batch(), Some(heavy()), "as it was");
        }
    }
    drop(fillers);
    home.simulator.settle();
    for options in limits {
        for keyspace in [&db, &other] {
            home.run(keyspace.write_with(heavy(), options)).unwrap();
        }
    }
}
