use crate::harness::{Closings, Home, Simulated, block_on, fill};
use crate::kit::disk::{collect, content, fresh_dir, shared, verify};
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Db, Durability, ErrorKind, ReadOnlyDb, WriteOptions};
use sluicedb_storage::vfs::MemVfs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An environment variable of the child process, which reads the database there.
const READ: &str = "SLUICE_TEST_READ";

fn open(home: &Home) -> sluicedb::Result<ReadOnlyDb> {
    let builder = ReadOnlyDb::builder(home.path()).options(home.options.clone());
    block_on(builder.open_read_only())
}

async fn shown(db: &ReadOnlyDb) -> Map {
    collect(db.scan(..)).await.unwrap().into_iter().collect()
}

/// Every file, the lock included, with its metadata.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let paths = crate::harness::files(dir, "").into_iter();
    let all = paths.map(|path| {
        let modified = path.metadata().unwrap().modified().unwrap();
        (path.clone(), std::fs::read(path).unwrap(), modified)
    });
    all.collect()
}

/// A database that was not closed: tables, and a log with changes of routes.
fn unclosed(home: &Simulated) -> Map {
    let db = home.open();
    let expected = home.run(async {
        fill(&db, 200, 60).await;
        db.compact().await.unwrap();
        fill(&db, 40, 30).await;
        db.split_at("key0020").await.unwrap();
        db.delete("key0003").await.unwrap();
        db.put("key0021", "after the split").await.unwrap();
        db.sync().await.unwrap();
        content(&db).await.unwrap()
    });
    home.simulator.kill();
    drop(db);
    expected
}

#[test]
fn readers_share_and_keep_writers_out() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 300, 60));
    let refusal = open(&home).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Locked, "{refusal}");
    assert!(refusal.to_string().contains(&std::process::id().to_string()), "{refusal}");
    block_on(db.close()).unwrap();
    drop(db);
    let (one, two) = (open(&home).unwrap(), open(&home).unwrap());
    block_on(async {
        assert_eq!(shown(&one).await, expected);
        assert_eq!(shown(&two).await, expected);
        for (key, value) in &expected {
            assert_eq!(two.get(key).await.unwrap().as_deref(), Some(&value[..]));
            assert!(two.contains_key(key).await.unwrap());
        }
        assert_eq!(two.get("none").await.unwrap(), None);
        let many = two.multi_get(&["key0000", "none"]).await.unwrap();
        assert!(many[0].is_some() && many[1].is_none());
        assert_eq!(collect(two.scan_prefix("key00")).await.unwrap().len(), 100);
    });
    assert!(one.level_info().iter().map(|level| level.entries).sum::<u64>() >= 300);
    let stats = one.stats();
    assert!(stats.tables > 0 && stats.ranges.len() == 1 && stats.actors.is_empty());
    assert_eq!((stats.visible_seqno, stats.recovered_entries), (one.seqno(), 0));

    let writer = || block_on(home.builder().open());
    assert_eq!(writer().unwrap_err().kind(), ErrorKind::Locked);
    assert!(verify(&home.path()).unwrap().is_sound(), "who verifies shares as well");
    drop(one);
    let (snapshot, scan) = (two.snapshot(), two.scan(..));
    drop(two);
    assert_eq!(writer().unwrap_err().kind(), ErrorKind::Locked, "a snapshot is left");
    assert_eq!(snapshot.seqno(), 300);
    drop(snapshot);
    assert_eq!(writer().unwrap_err().kind(), ErrorKind::Locked, "a scan is left");
    drop(scan);
    drop(writer().unwrap());
}

#[test]
fn not_a_byte_changes() {
    let home = Simulated::new(3);
    let expected = unclosed(&home);
    let disk = home.disk.kill_clone();
    let changes = disk.operations();
    let reader = home.reborn(disk.clone());
    let builder = ReadOnlyDb::builder(&home.dir).options(home.options.clone());
    let builder = builder.vfs(shared(&disk)).runtime(reader.simulator.handle());
    let db = reader.run(builder.open_read_only()).unwrap();
    assert_eq!(reader.run(shown(&db)), expected);
    let stats = db.stats();
    assert!(stats.recovered_entries > 0, "{stats:?}");
    assert_eq!(stats.ranges.len(), 2, "the split has happened");
    drop(db);
    assert_eq!(disk.operations(), changes, "nothing that could change the disk was done");
    // A later writer finds what it would have found without the reader.
    let writer = home.reborn(disk);
    let db = writer.open();
    assert_eq!(writer.run(content(&db)).unwrap(), expected);
    assert_eq!(db.stats().recovered_entries, stats.recovered_entries);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_enough() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 100, 60));
    // Not closed: the log is replayed.
    drop(db);
    drop(home.open());
    let db = loop {
        match open(&home) {
            Ok(db) => break db,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Locked),
        }
    };
    drop(db);
    let mode = |mode| {
        for path in crate::harness::files(&home.path(), "") {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode & 0o444)).unwrap();
        }
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(0o500);
    let before = everything(&home.path());
    let db = open(&home);
    let found = db.as_ref().map(|db| block_on(shown(db)));
    let after = everything(&home.path());
    mode(0o700);
    assert_eq!(found.unwrap(), expected);
    assert!(before == after, "something changed");
}

#[test]
fn a_torn_log_is_read_up_to_its_tear() {
    let home = Simulated::new(4);
    let db = home.open();
    home.run(async {
        let synced = WriteOptions::durability(Durability::Synced);
        db.put_with("a", "synced", synced).await.unwrap();
        db.put("b", "lost").await.unwrap();
    });
    home.simulator.kill();
    drop(db);
    let disk = home.disk.crash_clone(sluicedb_storage::vfs::CrashKind::DropUnsynced);
    let changes = disk.operations();
    let reader = home.reborn(disk.clone());
    let builder = ReadOnlyDb::builder(&home.dir).options(home.options.clone());
    let builder = builder.vfs(shared(&disk)).runtime(reader.simulator.handle());
    let db = reader.run(builder.open_read_only()).unwrap();
    assert_eq!(reader.run(db.get("a")).unwrap().as_deref(), Some(&b"synced"[..]));
    assert_eq!(reader.run(db.get("b")).unwrap(), None);
    assert_eq!(disk.operations(), changes);
}

#[test]
fn more_log_than_memory_is_refused_and_a_writer_helps() {
    let mut options = settings::tiny();
    options.memory_budget_bytes = 64 << 20;
    options.write_buffer_bytes = Some(32 << 20);
    options.memtable_bytes = Some(8 << 20);
    options.l0_compression = sluicedb::Compression::None;
    let home = Home::with(options);
    let db = home.open();
    let expected = block_on(fill(&db, 400, 10_000));
    drop(db);
    let mut small = home.options.clone();
    small.read_only_log_bytes_max = Some(1 << 20);
    let refusal = loop {
        let builder = ReadOnlyDb::builder(home.path()).options(small.clone());
        match block_on(builder.open_read_only()) {
            // The old engine's threads are still leaving.
            Err(error) if error.kind() == ErrorKind::Locked => {}
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(refusal.kind(), ErrorKind::Invalid, "{refusal}");
    assert!(refusal.to_string().contains("read_only_log_bytes_max"), "{refusal}");
    let db = open(&home).unwrap();
    assert_eq!(block_on(shown(&db)), expected);
    drop(db);
    block_on(home.open().close()).unwrap();
    let builder = ReadOnlyDb::builder(home.path()).options(small);
    let db = block_on(builder.open_read_only()).unwrap();
    assert_eq!(block_on(shown(&db)), expected);
}

/// Planted: an open for reading writes a manifest into memory.
#[test]
fn a_closed_database_is_read_whatever_its_manifest_takes() {
    let mut options = settings::tiny();
    options.initial_split_keys = (0..500).map(|n| format!("key{n:02997}").into_bytes()).collect();
    let home = Home::with(options);
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    block_on(db.close()).unwrap();
    drop(db);
    let manifest_bytes = home
        .files("MANIFEST")
        .into_iter()
        .map(|path| path.metadata().unwrap().len())
        .max()
        .unwrap();
    let mut small = home.options.clone();
    small.read_only_log_bytes_max = Some(1 << 20);
    assert!(manifest_bytes > 1 << 20, "{manifest_bytes}");
    let builder = ReadOnlyDb::builder(home.path()).options(small);
    let db = block_on(builder.open_read_only()).unwrap();
    assert_eq!(block_on(db.get("a")).unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn where_there_is_no_database_none_is_made() {
    let home = Home::new();
    let refusal = open(&home).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Exists, "{refusal}");
    assert_eq!(refusal.path(), Some(&*home.path()));
    assert_eq!(std::io::Error::from(refusal).kind(), std::io::ErrorKind::NotFound);
    assert!(!home.path().exists());
    std::fs::create_dir(home.path()).unwrap();
    assert_eq!(open(&home).unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(crate::harness::files(&home.path(), "").len(), 0);
}

/// An open for reading makes no lock file where there is none.
#[test]
fn a_copy_without_its_lock_file_is_read_as_it_is() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 50, 20));
    block_on(db.close()).unwrap();
    std::fs::remove_file(home.path().join("LOCK")).unwrap();
    let before = everything(&home.path());
    let db = open(&home).unwrap();
    assert_eq!(block_on(shown(&db)), expected);
    assert!(everything(&home.path()) == before);
}

#[test]
fn child_that_reads() {
    let Ok(dir) = std::env::var(READ) else { return };
    let db = block_on(ReadOnlyDb::open(dir)).unwrap();
    let count = block_on(shown(&db)).len();
    println!("\nread {count}");
    // Until the parent has seen enough.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[test]
fn two_processes_read_at_once_and_neither_lets_a_writer_in() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 120, 40));
    block_on(db.close()).unwrap();
    drop(db);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "read_only::child_that_reads", "--nocapture"])
        .env(READ, home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = out.by_ref().map(|line| line.unwrap()).find(|line| line.starts_with("read"));
    assert_eq!(told.as_deref(), Some("read 120"));
    let db = open(&home).unwrap();
    assert_eq!(block_on(shown(&db)), expected);
    drop(db);
    let refusal = block_on(home.builder().open()).unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Locked, "{refusal}");
    child.stdin.take().unwrap().write_all(b"enough\n").unwrap();
    out.for_each(drop);
    assert!(child.wait().unwrap().success());
    let db = block_on(home.builder().open()).unwrap();

    // The other way around: a reader keeps a writer out.
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "read_only::child_that_reads", "--nocapture"])
        .env(READ, home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success() && said.contains("kind: Locked"), "{said}");
    drop::<Db>(db);
}

/// Planted: an engine that its last handle frees.
#[test]
fn who_drops_the_last_handle_of_a_reader_closes_no_table() {
    let disk = MemVfs::new();
    let closings = Closings::of(&disk);
    let dir = fresh_dir();
    let builder = || Db::builder(&dir).options(settings::tiny()).vfs(shared(&disk));
    let db = block_on(builder().open()).unwrap();
    let expected = block_on(fill(&db, 200, 100));
    block_on(db.close()).unwrap();
    drop(db);
    for order in 0..3 {
        let db = block_on(builder().open_read_only()).unwrap();
        assert_eq!(block_on(shown(&db)), expected, "its tables are open");
        closings.forget();
        match order {
            0 => drop(db),
            1 => {
                let clone = db.clone();
                drop(db);
                drop(clone);
            }
            _ => {
                let snapshot = db.snapshot();
                drop(snapshot);
                drop(db);
            }
        }
        // It releases the lock itself: the directory is free. Another thread closes the tables.
        assert_eq!(closings.on_this_thread(), [dir.join("LOCK")]);
        block_on(block_on(builder().open()).unwrap().close()).unwrap();
        closings.await_table();
    }
}
