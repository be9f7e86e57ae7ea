//! The directory itself: it is durable, it belongs to one database, and its files may be replaced
//! by other things.

use crate::harness::{Home, PATIENCE, block_on, check, fill, fingerprint};
use crate::kit::disk::shared;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, ErrorKind, WriteOptions};
use sluicedb_storage::vfs::{CrashKind, MemVfs, OperationKind};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

/// An environment variable of the child process: where it opens a database by a relative path.
const CHILD: &str = "SLUICE_TEST_RELATIVE";

#[test]
fn a2_every_directory_that_open_creates_is_durable() {
    for dir in ["/x/y/z", "/one"] {
        let disk = MemVfs::new();
        let open = |disk: &MemVfs| {
            let simulator = Simulator::new(1);
            let builder = Db::builder(dir).options(settings::tiny());
            let open = builder.vfs(shared(disk)).runtime(simulator.handle()).open();
            let db = simulator.run(open).unwrap();
            (simulator, db)
        };
        let die = |(simulator, db): (Simulator, Db)| {
            simulator.kill();
            drop(db);
        };
        // An earlier open was killed after it had created the directories and before it synced any.
        let images = disk.record_images(1);
        die(open(&disk));
        let images = images.take();
        let killed = images.into_iter().find(|(next, _)| next.kind == OperationKind::SyncDir);
        let killed = killed.expect("names are made durable").1.kill_clone();
        for disk in [MemVfs::new(), killed] {
            let (simulator, db) = open(&disk);
            let synced = WriteOptions::durability(Durability::Synced);
            simulator.run(db.put_with("a", "1", synced)).unwrap();
            die((simulator, db));
            let (simulator, db) = open(&disk.crash_clone(CrashKind::DropUnsynced));
            let found = simulator.run(db.get("a")).unwrap();
            assert_eq!(found.as_deref(), Some(&b"1"[..]), "{dir}");
            die((simulator, db));
        }
    }
}

#[test]
fn child_that_goes_elsewhere() {
    let Ok(home) = std::env::var(CHILD) else { return };
    std::env::set_current_dir(&home).unwrap();
    let db = block_on(Db::builder("sub/db").options(settings::tiny()).open()).unwrap();
    fs::create_dir(Path::new(&home).join("elsewhere")).unwrap();
    std::env::set_current_dir(Path::new(&home).join("elsewhere")).unwrap();
    // Flushes, new log segments, manifests.
    let expected = block_on(fill(&db, 300, 200));
    block_on(db.compact()).unwrap();
    block_on(db.close()).unwrap();
    let db = block_on(Db::open(Path::new(&home).join("sub/db"))).unwrap();
    block_on(check(&db, &expected)).unwrap();
}

#[test]
fn c5_a_relative_path_stays_where_it_was() {
    let home = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "directory::child_that_goes_elsewhere", "--nocapture"])
        .env(CHILD, home.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_dir(home.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn c6_a_directory_that_others_can_write_to_is_refused() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (bits, why) in [(0o770, "its group"), (0o757, "everybody"), (0o777, "everybody")] {
        let mut home = Home::new();
        block_on(home.open().close()).unwrap();
        assert_eq!(mode(&home.path()), 0o700);
        for file in home.files("") {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        fs::set_permissions(home.path(), Permissions::from_mode(bits)).unwrap();
        is_refused(&home, why);
        home.options.allow_shared_directory = true;
        block_on(home.open().close()).unwrap();
    }
    let home = Home::new();
    block_on(home.open().close()).unwrap();
    if std::os::unix::fs::chown(home.path(), Some(65_534), None).is_ok() {
        is_refused(&home, "belongs to user 65534");
    } else {
        eprintln!("skipped: this user cannot give a directory away");
    }
}

fn is_refused(home: &Home, why: &str) {
    let before = fingerprint(&home.path());
    let error = block_on(home.builder().open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let message = error.to_string();
    assert!(message.contains(why) && message.contains("allow_shared_directory"), "{message}");
    assert_eq!(fingerprint(&home.path()), before);
}

/// Opens on a thread of its own, so that the test can tell a hang from an answer.
fn open_in_time(home: &Home) -> sluicedb::Result<Db> {
    let (answer, answered) = mpsc::channel();
    let builder = home.builder();
    std::thread::spawn(move || answer.send(block_on(builder.open())));
    answered.recv_timeout(PATIENCE).expect("the open hangs")
}

#[test]
fn o8_what_is_not_a_file_is_refused_by_name() {
    let home = Home::new();
    let db = home.open();
    block_on(fill(&db, 200, 100));
    block_on(db.flush()).unwrap();
    block_on(db.put("last", "one")).unwrap();
    drop(db);
    block_on(home.open().close()).unwrap();
    let aside = home.path().with_file_name("aside");
    for file in home.files("") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name == "RESERVE" {
            // Its content is never read. It is created anew.
            continue;
        }
        let unused = {
            // A spare segment: it holds no data.
            let page = fs::read(&file).unwrap();
            name.ends_with(".wal") && page[4096..].iter().all(|&byte| byte == 0)
        };
        fs::rename(&file, &aside).unwrap();
        for kind in ["pipe", "directory", "link", "device"] {
            match kind {
                "pipe" => assert!(Command::new("mkfifo").arg(&file).status().unwrap().success()),
                "directory" => fs::create_dir(&file).unwrap(),
                "link" => symlink(&aside, &file).unwrap(),
                _ => {
                    let made = Command::new("mknod").arg(&file).args(["c", "1", "3"]).output();
                    if !made.is_ok_and(|made| made.status.success()) {
                        continue;
                    }
                }
            }
            let context = format!("{name} is a {kind}");
            if !(unused && kind == "directory") {
                let error = open_in_time(&home).expect_err(&context);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error:?}");
                assert!(error.to_string().contains(&name), "{context}: {error}");
                let summary = crate::kit::disk::verify(&home.path()).unwrap();
                let named = summary.findings.iter().any(|found| found.file == file);
                assert!(named, "{context}: {:?}", summary.findings);
            }
            if kind == "directory" {
                fs::remove_dir(&file).unwrap();
            } else {
                fs::remove_file(&file).unwrap();
            }
        }
        fs::rename(&aside, &file).unwrap();
    }
    home.open();
}

#[test]
fn o8_the_files_of_others_are_not_touched() {
    let strangers: [&[(&str, &str)]; 3] = [
        &[("notes.txt", "mine")],
        // LevelDB, and RocksDB.
        &[
            ("CURRENT", "MANIFEST-000004\n"),
            ("LOCK", ""),
            ("MANIFEST-000004", "x"),
            ("000005.ldb", "x"),
        ],
        &[
            ("CURRENT", "MANIFEST-000005\n"),
            ("LOCK", "theirs"),
            ("000009.sst", "x"),
            ("IDENTITY", "x"),
        ],
    ];
    for files in strangers {
        let home = Home::new();
        fs::create_dir(home.path()).unwrap();
        for (name, content) in files {
            fs::write(home.path().join(name), content).unwrap();
        }
        let error = block_on(home.builder().open()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        let verified = crate::kit::disk::verify(&home.path()).unwrap_err();
        assert_eq!(verified.kind(), ErrorKind::Invalid, "{verified:?}");
        assert_eq!(home.files("").len(), files.len(), "{:?}", home.files(""));
        for (name, content) in files {
            assert_eq!(fs::read_to_string(home.path().join(name)).unwrap(), *content, "{name}");
        }
    }
    // A damaged CURRENT of SluiceDB is damage, and still no reason to write.
    let home = Home::new();
    block_on(home.open().close()).unwrap();
    fs::remove_file(home.path().join("LOCK")).unwrap();
    let mut current = fs::read(home.path().join("CURRENT")).unwrap();
    current[3] ^= 1;
    fs::write(home.path().join("CURRENT"), current).unwrap();
    let error = block_on(home.builder().open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(!home.path().join("LOCK").exists());
}
