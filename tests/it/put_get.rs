use crate::harness::{Held, Home, block_on, check, fill};
use crate::kit::oracle::Map;
use crate::kit::settings;
use std::thread;

fn set(map: &mut Map, key: &str, value: &str) {
    map.insert(key.into(), value.into());
}

#[test]
fn a_write_is_read_back_wherever_it_is() {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(64 << 10);
    let held = Held::new(options);
    let db = held.open();
    // In the active memtable.
    let mut expected = block_on(fill(&db, 50, 20));
    block_on(check(&db, &expected)).unwrap();

    // Sealed and being flushed, with a new active memtable in front.
    held.hold();
    let flushing = {
        let db = db.clone();
        thread::spawn(move || block_on(db.flush()))
    };
    held.wait_until_held();
    block_on(check(&db, &expected)).unwrap();
    block_on(async {
        db.put("key0003", "newer").await.unwrap();
        db.delete("key0004").await.unwrap();
        db.put("key0004/child", "new").await.unwrap();
    });
    set(&mut expected, "key0003", "newer");
    expected.remove(&b"key0004"[..]);
    set(&mut expected, "key0004/child", "new");
    block_on(check(&db, &expected)).unwrap();

    // In a table, with newer entries in memory.
    held.release();
    flushing.join().unwrap().unwrap();
    assert_eq!(db.stats().sealed_bytes, 0);
    block_on(check(&db, &expected)).unwrap();

    // In two tables, then in one, then after close and open.
    block_on(db.flush()).unwrap();
    block_on(check(&db, &expected)).unwrap();
    block_on(db.compact()).unwrap();
    block_on(check(&db, &expected)).unwrap();
    block_on(db.close()).unwrap();
    drop(db);
    block_on(check(&held.open(), &expected)).unwrap();
}

#[test]
fn the_newest_of_many_versions_wins_in_every_place() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        for round in 0..12 {
            for n in 0..30 {
                db.put(format!("k{n}"), format!("round {round}")).await.unwrap();
            }
            match round % 4 {
                0 => db.flush().await.unwrap(),
                2 => db.compact().await.unwrap(),
                _ => {}
            }
            let mut expected = Map::new();
            (0..30).for_each(|n| set(&mut expected, &format!("k{n}"), &format!("round {round}")));
            check(&db, &expected).await.unwrap();
        }
    });
}

#[test]
fn a_deleted_key_never_comes_back() {
    let home = Home::new();
    let mut db = home.open();
    block_on(async {
        db.put("gone", "old").await.unwrap();
        db.put("stays", "1").await.unwrap();
        db.compact().await.unwrap();
        // The old value is in the last level now.
        db.delete("gone").await.unwrap();
        assert_eq!(db.get("gone").await.unwrap(), None);
        db.flush().await.unwrap();
        assert_eq!(db.get("gone").await.unwrap(), None);
    });
    for how in ["drop", "close", "compact", "drop", "compact", "close"] {
        block_on(async {
            match how {
                "close" => db.close().await.unwrap(),
                "compact" => db.compact().await.unwrap(),
                _ => {}
            }
        });
        drop(db);
        db = home.open();
        block_on(async {
            assert_eq!(db.get("gone").await.unwrap(), None, "{how}");
            assert!(!db.contains_key("gone").await.unwrap());
            let mut expected = Map::new();
            set(&mut expected, "stays", "1");
            check(&db, &expected).await.unwrap();
        });
    }
    let tombstones: u64 = db.level_info().iter().map(|info| info.tombstones).sum();
    assert_eq!(tombstones, 0, "nothing lies below the bottom: its tombstones are gone");
    block_on(async {
        db.put("gone", "again").await.unwrap();
        assert_eq!(db.get("gone").await.unwrap().as_deref(), Some(&b"again"[..]));
    });
}

#[test]
fn keys_and_values_of_every_size() {
    let home = Home::new();
    let db = home.open();
    let mut expected = Map::new();
    let largest = home.options.effective_value_bytes_max() as usize;
    let sizes = [0, 1, 127, 128, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536, 70_000, largest];
    block_on(async {
        for (n, size) in sizes.into_iter().enumerate() {
            let (key, value) = (format!("size{n:02}").into_bytes(), vec![n as u8; size]);
            db.put(&key, &value).await.unwrap();
            expected.insert(key, value);
        }
        for size in [1, 2, 127, 128, 255, 256, 16_383, 16_384, 65_534, 65_535] {
            let key = vec![b'k'; size];
            db.put(&key, size.to_string()).await.unwrap();
            expected.insert(key, size.to_string().into_bytes());
        }
        for key in [&[0][..], &[0, 0], &[0xFF], &[0xFF, 0xFF], &[0xFF; 300]] {
            db.put(key, "edge").await.unwrap();
            expected.insert(key.to_vec(), b"edge".to_vec());
        }
        check(&db, &expected).await.unwrap();
        db.flush().await.unwrap();
        check(&db, &expected).await.unwrap();
        db.compact().await.unwrap();
        check(&db, &expected).await.unwrap();
    });
    // This reads the log as well as the tables.
    block_on(db.put("last", "1")).unwrap();
    expected.insert(b"last".to_vec(), b"1".to_vec());
    drop(db);
    block_on(check(&home.open(), &expected)).unwrap();
}

#[test]
fn large_values_come_back_from_the_log() {
    let home = Home::new();
    let db = home.open();
    let mut expected = Map::new();
    for n in 0..6_usize {
        // Each value is larger than a log segment and a memtable.
        let (key, value) = (format!("large{n}").into_bytes(), vec![n as u8; 100_000 + n]);
        block_on(db.put(&key, &value)).unwrap();
        expected.insert(key, value);
    }
    drop(db);
    let db = home.open();
    block_on(check(&db, &expected)).unwrap();
}
