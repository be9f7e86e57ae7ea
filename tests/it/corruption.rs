use crate::harness::{Home, Simulated, block_on, check, fill, fingerprint};
use crate::kit::disk::{collect, content};
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use futures::FutureExt;
use futures::future::BoxFuture;
use sluicedb::{Compression, Db, Durability, Error, ErrorKind, WriteOptions};
use sluicedb_storage::vfs::Vfs;
use std::path::{Path, PathBuf};

const SYNCED: WriteOptions = WriteOptions::durability(Durability::Synced);

/// Nothing is compressed, so that a test finds its values in the files. Memtables are large, so
/// that the test decides when they are flushed.
fn home() -> Home {
    let mut options = settings::tiny();
    options.compression = Compression::None;
    options.memtable_bytes = Some(256 << 10);
    options.log_segment_bytes = 1 << 20;
    Home::with(options)
}

/// Finds the file with this ending that contains `text`, and its offset there.
fn find(home: &Home, ending: &str, text: &[u8]) -> (PathBuf, usize) {
    for path in home.files(ending) {
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            return (path, at);
        }
    }
    panic!("{} is in no {ending} file", text.escape_ascii());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Drops the database and waits until the engine has left the directory.
fn leave(home: &Home, db: Db) {
    drop(db);
    let lock = std::fs::File::options().write(true).open(home.path().join("LOCK")).unwrap();
    lock.lock().unwrap();
}

/// Waits until the log is at rest, then does as `leave`.
fn settle_and_leave(simulator: &Simulator, home: &Home, db: Db) {
    simulator.settle();
    drop(db);
    simulator.settle();
    let lock = std::fs::File::options().write(true).open(home.path().join("LOCK")).unwrap();
    lock.try_lock().unwrap();
}

fn marked(n: usize) -> Vec<u8> {
    format!("<value {n:04} of the log>").into_bytes()
}

#[test]
fn d2_damage_to_any_synced_record_refuses_to_open() {
    let home = home();
    let simulator = Simulator::new(1);
    let db = simulator.run(home.builder().runtime(simulator.handle()).open()).unwrap();
    for n in 0..40 {
        simulator.run(db.put_with(format!("key{n:04}"), marked(n), SYNCED)).unwrap();
    }
    settle_and_leave(&simulator, &home, db);
    // Damage in the last record is found too: an idle log has recorded that its end is durable.
    for n in [0, 1, 20, 38, 39] {
        let (path, at) = find(&home, ".wal", &marked(n));
        flip(&path, at + 3);
        let before = fingerprint(&home.path());
        let error = block_on(home.builder().open()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "record {n}: {error:?}");
        assert_eq!(error.path(), Some(&*path));
        let offset = error.offset().expect("an offset") as usize;
        // The damaged record begins a little before its value.
        assert!(offset <= at && at < offset + 100, "{offset} for damage at {at}");
        let message = error.to_string();
        assert!(
            message.contains(&name(&path)) && message.contains(&offset.to_string()),
            "{message}"
        );
        assert!(fingerprint(&home.path()) == before, "a refused open changes nothing");
        let report = crate::kit::disk::verify(&home.path()).unwrap();
        assert!(!report.is_sound());
        assert!(format!("{report:?}").contains(&name(&path)), "{report:?}");
        flip(&path, at + 3);
    }
    let db = home.open();
    assert_eq!(block_on(content(&db)).unwrap().len(), 40);
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let home = home();
    let db = home.open();
    for n in 0..40 {
        block_on(db.put(format!("key{n:04}"), marked(n))).unwrap();
    }
    leave(&home, db);
    let (path, at) = find(&home, ".wal", &marked(39));
    let mut bytes = std::fs::read(&path).unwrap();
    // The last record is incomplete.
    bytes[at + 5..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let db = home.open();
    let stats = db.stats();
    assert!(stats.recovered_torn_bytes > 0, "{stats:?}");
    assert_eq!(stats.recovered_entries, 39);
    let found = block_on(content(&db)).unwrap();
    assert_eq!(found.len(), 39);
    assert_eq!(found[&b"key0038"[..]], marked(38));
    block_on(db.put("key0039", "again")).unwrap();
    leave(&home, db);
    let db = home.open();
    assert_eq!(db.stats().recovered_torn_bytes, 0, "cut once, not twice");
    assert_eq!(block_on(content(&db)).unwrap().len(), 40);
}

/// Goal: no value makes a database impossible to open after a crash, whatever bytes it holds.
/// Method: a value of 1 MiB made of log record headers. Each header claims all bytes that follow
/// it, and confirms nearly all that precede it. The value's own record is torn, at its beginning or
/// its end, and none of it was synced.
///
/// Planted: a budget of checksums whose exhaustion refuses the log.
#[test]
fn a_torn_value_made_of_log_records_is_cut() {
    // The engine may have synced the value on its way out before it records that in the log. Then
    // no crash can leave such damage, and the open refuses it rightly.
    let mut tried = (0..8).map(|_| tear_value_made_of_log_records());
    assert!(tried.any(|tried| tried.is_ok()), "it is refused each time");
}

fn tear_value_made_of_log_records() -> sluicedb::Result<()> {
    let mut options = settings::tiny();
    options.memory_budget_bytes = 32 << 20;
    options.write_buffer_bytes = Some(16 << 20);
    options.memtable_bytes = Some(4 << 20);
    options.log_segment_bytes = 4 << 20;
    let home = Home::with(options);
    let db = home.open();
    for n in 0..10 {
        block_on(db.put_with(format!("key{n:04}"), marked(n), SYNCED)).unwrap();
    }
    let (path, _) = find(&home, ".wal", &marked(9));
    // The error names this segment or a later one.
    let first: u16 = name(&path).trim_end_matches(".wal").parse().unwrap();
    let mut value = vec![0; 1 << 20];
    let count = value.len() / 24;
    for (n, head) in value.chunks_exact_mut(24).enumerate() {
        head[4..8].copy_from_slice(&((count - n - 1) as u32 * 24).to_le_bytes());
        // A little before its own offset, in units of 8 bytes.
        head[8..12].copy_from_slice(&(514 + 3 * n as u32).to_le_bytes());
        head[12..14].copy_from_slice(&(first + n as u16 % 4).to_le_bytes());
        head[14] = 1;
        head[16..24].copy_from_slice(&11_u64.to_le_bytes());
    }
    // With a key of 3 bytes the value begins where a record could begin.
    block_on(db.put("key", &value)).unwrap();
    leave(&home, db);
    let (path, start) = find(&home, ".wal", &value[..240]);
    let number: u16 = name(&path).trim_end_matches(".wal").parse().unwrap();
    assert!(start.is_multiple_of(8) && (first..first + 4).contains(&number), "{start}, {number}");
    let whole = fingerprint(&home.path());
    for torn in [start - 8, start + value.len() - 1] {
        for (path, bytes) in &whole {
            std::fs::write(path, bytes).unwrap();
        }
        flip(&path, torn);
        let db = block_on(home.builder().open())?;
        for n in 0..10 {
            let found = block_on(db.get(format!("key{n:04}"))).unwrap();
            assert_eq!(found.as_deref(), Some(&marked(n)[..]), "torn at {torn}");
        }
        assert_eq!(block_on(db.get("key")).unwrap(), None, "torn at {torn}");
        assert!(db.stats().recovered_torn_bytes >= 1 << 20, "torn at {torn}");
        leave(&home, db);
        for path in home.files("") {
            let was_there = whole.iter().any(|(old, _)| *old == path);
            if !was_there && !path.ends_with("LOCK") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    Ok(())
}

#[test]
fn a_damaged_block_hurts_only_its_own_readers() {
    let home = home();
    let db = home.open();
    let expected = block_on(async {
        for n in 0..400 {
            db.put(format!("key{n:04}"), marked(n)).await.unwrap();
        }
        db.compact().await.unwrap();
        content(&db).await.unwrap()
    });
    block_on(db.close()).unwrap();
    drop(db);
    assert!(crate::kit::disk::verify(&home.path()).unwrap().is_sound());

    let (path, at) = find(&home, ".sst", &marked(200));
    flip(&path, at + 3);
    let report = crate::kit::disk::verify(&home.path()).unwrap();
    assert!(!report.is_sound());
    let text = format!("{report:?}");
    assert!(text.contains(&name(&path)), "{text}");

    let db = home.open();
    block_on(async {
        let error = db.get("key0200").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert_eq!(error.path(), Some(&*path));
        let offset = error.offset().expect("an offset") as usize;
        assert!(offset <= at && at < offset + 512, "{offset} for damage at {at}");
        // Each read gives the same error.
        assert_eq!(db.get("key0200").await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(db.multi_get(&["key0000", "key0200"]).await.is_err());

        let mut lost = 0;
        for (key, value) in &expected {
            match db.get(key).await {
                Ok(found) => assert_eq!(found.as_deref(), Some(&value[..])),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    lost += 1;
                }
            }
        }
        assert!((1..30).contains(&lost), "{lost} keys in a block of 256 bytes");
        // A scan up to the damage works. One across it ends with the error, never silently.
        assert_eq!(collect(db.scan(.."key0100")).await.unwrap().len(), 100);
        assert_eq!(collect(db.scan("key0300"..)).await.unwrap().len(), 100);
        assert_eq!(collect(db.scan(..)).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(collect(db.scan(..).rev()).await.unwrap_err().kind(), ErrorKind::Corrupt);
        // Writes continue. Compaction refuses to make a table that lacks entries.
        db.put("new", "1").await.unwrap();
        db.flush().await.unwrap();
        assert!(db.compact().await.is_err());
        assert_eq!(db.get("key0399").await.unwrap().as_deref(), Some(&marked(399)[..]));
        assert_eq!(db.get("new").await.unwrap().as_deref(), Some(&b"1"[..]));
        assert!(path.exists());
    });
    leave(&home, db);
    flip(&path, at + 3);
    let db = home.open();
    let mut expected = expected;
    expected.insert(b"new".to_vec(), b"1".to_vec());
    block_on(check(&db, &expected)).unwrap();
    block_on(db.compact()).unwrap();
    block_on(check(&db, &expected)).unwrap();
}

/// Goal: `stats().damaged` shows a damaged table whichever read finds it, because an operator looks
/// there.
/// Method: each kind of read, alone, in a process of its own; on the caller's thread and on a read
/// thread.
///
/// Planted: each of these reads not reporting: a scan, a cold scan, a snapshot's read, a cold one,
/// a cold `get`, and a `multi_get`, warm and cold.
#[test]
fn every_reader_that_meets_damage_shows_it() {
    let mut options = settings::tiny();
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options.cache_bytes = Some(0);
    let home = Simulated::with(3, options);
    let db = home.open();
    home.run(async {
        for n in 0..30 {
            db.put(format!("key{n:04}"), marked(n)).await.unwrap();
        }
        db.close().await.unwrap();
    });
    drop(db);
    home.simulator.settle();
    let names = home.disk.list(&home.dir).unwrap();
    let table = home.dir.join(names.iter().find(|name| name.ends_with(".sst")).unwrap());
    let file = home.disk.open_rw(&table).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(marked(4).len()).position(|window| window == marked(4)).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();

    type Read = fn(&Db) -> BoxFuture<'_, Option<Error>>;
    let reads: [(&str, Read); 9] = [
        ("get", |db| db.get("key0004").map(Result::err).boxed()),
        ("contains_key", |db| db.contains_key("key0004").map(Result::err).boxed()),
        ("multi_get", |db| async { db.multi_get(&["key0004"]).await.err() }.boxed()),
        ("scan", |db| collect(db.scan(..)).map(Result::err).boxed()),
        ("reverse scan", |db| collect(db.scan(..).rev()).map(Result::err).boxed()),
        ("snapshot get", |db| async { db.snapshot().get("key0004").await.err() }.boxed()),
        ("snapshot contains_key", |db| {
            async { db.snapshot().contains_key("key0004").await.err() }.boxed()
        }),
        ("snapshot multi_get", |db| {
            async { db.snapshot().multi_get(&["key0004"]).await.err() }.boxed()
        }),
        ("snapshot scan", |db| collect(db.snapshot().scan(..)).map(Result::err).boxed()),
    ];
    for (what, read) in reads {
        for cold in [false, true] {
            let disk = home.disk.kill_clone();
            disk.set_reads_without_waiting(!cold);
            let home = home.reborn(disk);
            let db = home.open();
            let what = format!("{what}, cold: {cold}");
            // This opens the table and reads another block.
            assert!(home.run(db.get("key0029")).unwrap().is_some(), "{what}");
            assert!(db.stats().damaged.is_empty(), "{what}");
            let before = db.stats().cold_reads;
            let error = home.run(read(&db)).expect("the block is damaged");
            assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(&*table)), "{what}");
            assert_eq!(db.stats().cold_reads > before, cold, "{what}");
            let shown = db.stats().damaged;
            assert_eq!(shown.len(), 1, "{what}: {shown:?}");
            assert_eq!((&shown[0].path, shown[0].offset), (&table, error.offset()), "{what}");
            drop(db);
            home.simulator.settle();
        }
    }
}

/// Damages each byte of each small file, and cuts each file at each length: the database gives the
/// right content or a typed error, never another answer and never a panic.
#[test]
fn every_byte_of_a_small_database_may_be_damaged() {
    let mut options = settings::tiny();
    options.log_segment_bytes = 64 << 10;
    let home = Home::with(options.clone());
    let simulator = Simulator::new(2);
    let db = simulator.run(home.builder().runtime(simulator.handle()).open()).unwrap();
    let expected = simulator.run(async {
        let mut expected = fill(&db, 12, 20).await;
        db.flush().await.unwrap();
        db.put_with("last", "in the log", SYNCED).await.unwrap();
        expected.insert(b"last".to_vec(), b"in the log".to_vec());
        expected
    });
    settle_and_leave(&simulator, &home, db);
    let original = fingerprint(&home.path());
    let mut opened = 0;
    let mut refused = 0;
    for (path, bytes) in &original {
        let name = name(path);
        if name.ends_with(".spare") || name.ends_with(".tmp") {
            continue;
        }
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let step = (end / 40).max(1);
        let places = (0..end).step_by(step).map(|at| (at, false));
        let cuts = [0, 1, end / 2, end.saturating_sub(1)].map(|at| (at, true));
        for (at, cut) in places.chain(cuts) {
            let copy = tempfile::tempdir().unwrap();
            let dir = copy.path().join("db");
            std::fs::create_dir(&dir).unwrap();
            for (path, bytes) in &original {
                std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
            }
            let mut damaged = bytes.clone();
            if cut {
                damaged.truncate(at);
            } else {
                damaged[at] ^= 1 << (at % 8);
            }
            std::fs::write(dir.join(&name), damaged).unwrap();
            let what = format!("{name}, byte {at}, cut {cut}");
            let typed = |error: Error| {
                let fits = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported);
                assert!(fits, "{what}: {error:?}");
                assert!(error.path().is_some(), "{what}: {error:?}");
            };
            match block_on(Db::builder(&dir).options(options.clone()).open()) {
                Err(error) => {
                    refused += 1;
                    typed(error);
                }
                Ok(db) => {
                    opened += 1;
                    for (key, value) in &expected {
                        match block_on(db.get(key)) {
                            Err(error) => typed(error),
                            // Even the end of the log may not be taken for torn: the log was at
                            // rest.
                            Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "{what}"),
                        }
                    }
                }
            }
        }
    }
    eprintln!("{opened} opened, {refused} refused");
    assert!(opened >= 10 && refused >= 40, "{opened} opened, {refused} refused");
}

/// Planted: a batch that is thrown away with the error behind it.
#[test]
fn a_scan_hands_out_what_is_in_front_of_a_damaged_block() {
    let mut options = home().options;
    options.table_bytes_max = 1 << 20;
    let home = Simulated::with(9, options);
    let db = home.open();
    let entries: Vec<_> = home.run(fill(&db, 400, 60)).into_iter().collect();
    home.run(db.compact()).unwrap();
    home.run(db.close()).unwrap();
    drop(db);
    home.simulator.settle();
    let tables = home.tables();
    let [table] = &tables[..] else { panic!("{tables:?}") };
    let path = home.dir.join(table);
    let (file, middle) = (home.disk.open_rw(&path).unwrap(), home.disk.len(&path).unwrap() / 2);
    let mut byte = [0];
    file.read_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], middle).unwrap();
    let db = home.open();
    let lost: Vec<_> = (0..400).filter(|at| home.run(db.get(&entries[*at].0)).is_err()).collect();
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    assert!(first > 100 && last < 300, "{lost:?}");
    let in_front = [entries[..first].to_vec(), entries[last + 1..].iter().rev().cloned().collect()];
    for (is_cold, reverse) in [(false, false), (false, true), (true, false), (true, true)] {
        home.disk.set_cold_reads(is_cold);
        let expected = &in_front[usize::from(reverse)];
        let scan = || if reverse { db.scan(..).rev() } else { db.scan(..) };
        home.run(async {
            let (mut chunks, mut entries, mut found) = (scan(), scan(), Vec::new());
            let error = loop {
                match chunks.next_chunk().await {
                    Ok(chunk) => {
                        let chunk = chunk.expect("no scan ends silently");
                        found.extend(chunk.iter().map(|(k, v)| (k.to_vec(), v.to_vec())));
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Corrupt, "cold: {is_cold}");
            assert!(found == *expected, "{} of {}, cold: {is_cold}", found.len(), expected.len());
            assert!(chunks.next_chunk().await.unwrap().is_none());
            for (key, value) in expected {
                assert_eq!(entries.next_entry().await.unwrap(), Some((&key[..], &value[..])));
            }
            assert_eq!(entries.next_entry().await.unwrap_err().kind(), ErrorKind::Corrupt);
            // Who wants no more meets no damage.
            let limited = collect(scan().limit(expected.len() as u64)).await.unwrap();
            assert_eq!(limited.len(), expected.len());
        });
    }
}
