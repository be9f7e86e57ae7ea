use crate::harness::{Home, Simulated, block_on};
use crate::kit::disk::collect;
use crate::kit::settings;
use sluicedb::{Db, ErrorKind, Options};
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{Fault, OperationKind, Vfs};
use std::process::Command;
use std::time::Instant;

/// An environment variable of the child process: the directory.
const CHILD: &str = "SLUICE_TEST_DESCRIPTORS";
/// An environment variable: how many tables `b8_opening_costs_no_table` makes.
const TABLES: &str = "SLUICE_TABLES";

/// A requested compaction makes one table of every four kilobytes.
fn many_tables() -> Options {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(256 << 10);
    options.l0_trigger_tables = 1000;
    options.l0_tables_max = 2000;
    options.level_base_bytes = 1 << 30;
    options.table_bytes_max = 4096;
    options.open_tables_max = Some(8);
    options.l0_compression = sluicedb::Compression::None;
    options.compression = sluicedb::Compression::None;
    options
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:08}").into_bytes()
}

/// About `tables` tables of three entries of 1,200 bytes each.
async fn make(db: &Db, tables: u32) {
    for number in 0..3 * tables {
        let options = sluicedb::WriteOptions::durability(sluicedb::Durability::Buffered);
        db.put_with(key(number), vec![number as u8; 1200], options).await.unwrap();
    }
    db.compact().await.unwrap();
}

#[test]
fn b8_more_tables_than_may_be_open_are_read_scanned_and_compacted() {
    let home = Simulated::with(1, many_tables());
    let db = home.open();
    home.run(make(&db, 150));
    assert!(db.stats().tables >= 120, "{}", db.stats().tables);
    home.run(db.close()).unwrap();
    drop(db);
    home.simulator.settle();

    let before = home.faults.count(OperationKind::Open);
    let db = home.open();
    let stats = db.stats();
    assert_eq!((stats.open_tables, stats.table_opens, stats.open_tables_max), (0, 0, 8));
    let opened = home.faults.count(OperationKind::Open) - before;
    assert!(opened < 10, "{opened} files were opened");
    home.run(async {
        for number in (0..450).rev() {
            let value = db.get(key(number)).await.unwrap().unwrap();
            assert_eq!(&value[..], vec![number as u8; 1200]);
            assert!(db.stats().open_tables <= 8);
        }
        let stats = db.stats();
        assert!(stats.table_opens >= stats.tables, "{stats:?}");
        assert_eq!(stats.table_opens - stats.table_evictions, stats.open_tables);
        assert!(stats.index_bytes > 0 && stats.filter_bytes > 0);
        let (scan, snapshot) = (db.scan(..), db.snapshot());
        assert_eq!(collect(scan).await.unwrap().len(), 450);
        for number in 0..450 {
            db.delete(key(number)).await.unwrap();
        }
        db.compact().await.unwrap();
        assert_eq!(db.stats().tables, 0);
        assert_eq!(collect(db.scan(..)).await.unwrap().len(), 0);
        assert_eq!(collect(snapshot.scan(..)).await.unwrap().len(), 450);
        drop(snapshot);
        db.close().await.unwrap();
    });
    assert_eq!(db.stats().open_tables, 0);
}

/// Goal: a finished flush is installed even when its table cannot be opened, and nothing piles up.
#[test]
fn b7_tables_that_cannot_be_opened_are_flushed_once() {
    const EMFILE: i32 = 24;
    let home = Simulated::with(3, many_tables());
    let db = home.open();
    home.faults.arm(Fault::of(OperationKind::Open).named(".sst").errno(EMFILE).sticky());
    home.run(async {
        for number in 0..12 {
            db.put(key(number), vec![7; 300]).await.unwrap();
        }
        db.flush().await.unwrap();
        let error = db.get(key(3)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooManyOpenFiles, "{error:?}");
        assert!(error.path().is_some(), "{error:?}");
    });
    let names = home.disk.list(&home.dir).unwrap();
    let tables = names.iter().filter(|name| name.ends_with(".sst")).count() as u64;
    assert_eq!((tables, db.stats().job_retries), (db.stats().tables, 0), "{names:?}");
    home.faults.disarm();
    assert!(home.run(db.get(key(3))).unwrap().is_some());
    home.run(db.close()).unwrap();
}

/// Goal: a failed flush or compaction leaves nothing on the disk, whatever failed: it is retried
/// under new file numbers, perhaps for long.
///
/// Planted: tables that stay although no manifest can name them; tables that the writer had
/// finished before the failed one; a table that stays under its temporary name.
#[test]
fn b7_a_flush_or_compaction_that_fails_leaves_no_file() {
    let home = Simulated::new(0);
    let directory = home.dir.file_name().unwrap().to_string_lossy().into_owned();
    let faults = [
        Fault::of(OperationKind::Create).named(".tmp").after(1),
        Fault::of(OperationKind::Write).named(".tmp"),
        Fault::of(OperationKind::Write).named(".tmp").after(2),
        Fault::of(OperationKind::Sync).named(".tmp").after(1),
        Fault::of(OperationKind::Rename).named(".sst"),
        Fault::of(OperationKind::Rename).named(".sst").after(2),
        Fault::of(OperationKind::SyncDir).named(&directory),
        Fault::of(OperationKind::Write).named("MANIFEST").errno(ENOSPC),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        for compacts in [false, true] {
            let mut options = many_tables();
            options.shards_per_range = 4;
            options.memtable_bytes = Some(64 << 10);
            options.space_reserve_bytes = Some(0);
            let home = Simulated::on(home.disk.kill_clone(), home.dir.clone(), at as u64, options);
            let db = home.open();
            let fill = |round: u8| {
                let db = db.clone();
                async move {
                    for n in 0..40_u8 {
                        db.put([n * 6, n], vec![round; 1_000]).await.unwrap();
                    }
                }
            };
            home.run(fill(0));
            if compacts {
                home.run(db.flush()).unwrap();
                home.run(fill(1));
                home.run(db.flush()).unwrap();
            }
            let work = || {
                let db = db.clone();
                async move { if compacts { db.compact().await } else { db.flush().await } }
            };
            let look = |when: &str| {
                home.simulator.settle();
                let names = home.disk.list(&home.dir).unwrap();
                let ends = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
                let found = (ends(".tmp"), ends(".sst") as u64);
                assert_eq!(
                    found,
                    (0, db.stats().tables),
                    "{fault:?}, {compacts}, {when}: {names:?}"
                );
            };
            look("before");
            home.faults.arm(fault.clone());
            home.run(work()).expect_err("it is told");
            look("after the failure");
            home.run(work()).unwrap();
            look("after all");
            assert!(db.stats().tables > 3);
            home.run(db.close()).unwrap();
        }
    }
}

#[test]
fn emfile_of_a_flush_closes_tables_before_the_next_attempt() {
    const EMFILE: i32 = 24;
    let home = Simulated::with(4, many_tables());
    let db = home.open();
    home.run(async {
        db.put(key(1), vec![7; 300]).await.unwrap();
        db.flush().await.unwrap();
        assert!(db.get(key(1)).await.unwrap().is_some());
    });
    let before = db.stats();
    assert!(before.open_tables > 0, "{before:?}");
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").errno(EMFILE));
    home.run(db.put(key(2), vec![7; 300])).unwrap();
    // A waiting flush is answered with the first failure.
    let _ = home.run(db.flush());
    home.run(db.flush()).unwrap();
    let after = db.stats();
    assert_eq!((after.job_retries, after.table_evictions), (1, before.table_evictions + 1));
    home.run(db.close()).unwrap();
}

/// The child: has 64 file descriptors and a database of hundreds of tables.
#[test]
fn child_with_few_descriptors() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let mut options = many_tables();
    options.open_tables_max = None;
    assert_eq!(options.effective_open_tables_max(), 16);
    block_on(async {
        let db = Db::builder(dir).options(options).open().await.unwrap();
        let tables = db.stats().tables;
        assert!(tables >= 800, "{tables}");
        for number in (0..2700).step_by(7) {
            assert!(db.get(key(number)).await.unwrap().is_some());
        }
        assert_eq!(collect(db.scan(..)).await.unwrap().len(), 2700);
        for number in (0..2700).step_by(3) {
            db.delete(key(number)).await.unwrap();
        }
        db.compact().await.unwrap();
        assert_eq!(collect(db.scan(..)).await.unwrap().len(), 1800);
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(descriptors < 50, "{descriptors}");
        db.close().await.unwrap();
    });
}

#[test]
fn b8_eight_hundred_tables_work_with_sixty_four_descriptors() {
    let home = Home::with(many_tables());
    let db = home.open();
    block_on(make(&db, 900));
    block_on(db.close()).unwrap();
    drop(db);
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "tables::child_with_few_descriptors", "--nocapture"])
        .env(CHILD, home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

/// With `SLUICE_TABLES=10000` it prints how long an open takes, and how much memory it adds to the
/// process.
#[test]
fn b8_opening_costs_no_table() {
    let wanted = std::env::var(TABLES).map_or(200, |text| text.parse().expect("a number"));
    let home = Home::with(many_tables());
    let db = home.open();
    block_on(make(&db, wanted));
    block_on(db.close()).unwrap();
    drop(db);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let (before, began) = (resident(), Instant::now());
    let db = home.open();
    let took = began.elapsed();
    let stats = db.stats();
    println!(
        "{} tables: open took {took:?}, {} MiB resident before, {} more, {} descriptors",
        stats.tables,
        before >> 20,
        (resident().saturating_sub(before)) >> 20,
        descriptors(),
    );
    assert!(stats.tables >= u64::from(wanted) * 4 / 5, "{}", stats.tables);
    assert_eq!((stats.open_tables, stats.table_opens), (0, 0));
    for number in (0..3 * wanted).step_by(31) {
        assert!(block_on(db.get(key(number))).unwrap().is_some());
    }
    let stats = db.stats();
    assert!(stats.open_tables <= 8 && stats.table_evictions > 0, "{stats:?}");
    block_on(db.close()).unwrap();
}
