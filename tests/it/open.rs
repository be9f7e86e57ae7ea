use crate::harness::{Home, Simulated, block_on, check, fill, fingerprint};
use crate::kit::disk::{collect, shared};
use crate::kit::settings;
use sluicedb::{Db, Error, ErrorKind};
use sluicedb_storage::vfs::fault::{EMFILE, EROFS};
use sluicedb_storage::vfs::{Fault, MemVfs, OperationKind, Vfs};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// An environment variable of the child process: the directory that it opens and holds.
const CHILD: &str = "SLUICE_TEST_HOLD";

fn fails(home: &Home) -> Error {
    block_on(home.builder().open()).unwrap_err()
}

#[test]
fn x_22_a_second_open_in_this_process_fails_at_once_with_our_id() {
    let home = Home::new();
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    let error = fails(&home);
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.path(), Some(&*home.path()));
    let message = error.to_string();
    let wanted = format!("database is in use by process {}", std::process::id());
    assert!(message.contains(&wanted), "{message}");
    let verify = crate::kit::disk::verify(&home.path()).unwrap_err();
    assert_eq!(verify.kind(), ErrorKind::Locked);
    // The first database is not harmed. When it is closed the next open succeeds.
    block_on(db.put("b", "2")).unwrap();
    block_on(db.close()).unwrap();
    let again = home.open();
    assert_eq!(block_on(again.get("b")).unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn child_that_holds_a_database() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let db = block_on(Db::builder(dir).options(settings::tiny()).open()).unwrap();
    block_on(db.put("from", "the child")).unwrap();
    println!("holding");
    // Until the parent closes the pipe.
    let _ = std::io::stdin().lock().lines().next();
}

#[test]
fn a_second_open_in_another_process_fails_with_the_holders_id() {
    let home = Home::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "open::child_that_holds_a_database", "--nocapture"])
        .env(CHILD, home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("holding")));
    let error = fails(&home);
    assert_eq!(error.kind(), ErrorKind::Locked);
    let wanted = format!("in use by process {}", child.id());
    assert!(error.to_string().contains(&wanted), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let db = home.open();
    assert_eq!(block_on(db.get("from")).unwrap().as_deref(), Some(&b"the child"[..]));
}

#[test]
fn create_if_missing_and_error_if_exists() {
    let home = Home::new();
    let error = block_on(home.builder().create_if_missing(false).open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let path = home.path().display().to_string();
    assert_eq!(
        error.to_string(),
        format!("{path}: there is no database here, and create_if_missing is off")
    );
    assert!(!home.path().exists(), "a refused open creates nothing");
    assert_eq!(error.path(), Some(&*home.path()));
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::NotFound);

    let db = block_on(home.builder().error_if_exists(true).open()).unwrap();
    block_on(db.put("a", "1")).unwrap();
    block_on(db.close()).unwrap();
    drop(db);
    let before = fingerprint(&home.path());
    let error = block_on(home.builder().error_if_exists(true).open()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert_eq!(
        error.to_string(),
        format!("{path}: there is a database here already, and error_if_exists is on")
    );
    assert_eq!(fingerprint(&home.path()), before);
    assert_eq!(error.path(), Some(&*home.path()));
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::AlreadyExists);
    let db = block_on(home.builder().create_if_missing(false).open()).unwrap();
    assert!(block_on(db.contains_key("a")).unwrap());
}

/// Somebody else makes the database between the look and the lock.
///
/// Planted: what is there is looked at before the lock only.
#[test]
fn a_database_that_is_made_meanwhile_exists_already() {
    let theirs = Simulated::new(3);
    let db = theirs.open();
    theirs.run(db.put("a", "theirs")).unwrap();
    theirs.run(db.close()).unwrap();
    drop(db);
    let home = theirs.reborn(MemVfs::new());
    let (from, dir) = (shared(&theirs.disk), home.dir.clone());
    let copied = AtomicBool::new(false);
    home.disk.on_operation(move |disk, operation| {
        let made = disk.list(&dir).is_ok();
        if operation.kind == OperationKind::SyncDir && made && !copied.swap(true, Relaxed) {
            for name in from.list(&dir).unwrap().into_iter().filter(|name| name != "LOCK") {
                let path = dir.join(name);
                let mut bytes = vec![0; from.len(&path).unwrap() as usize];
                from.open(&path).unwrap().read_at(&mut bytes, 0).unwrap();
                disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
            }
        }
    });
    let opened = home.run(home.builder().error_if_exists(true).open());
    assert_eq!(opened.map(drop).unwrap_err().kind(), ErrorKind::Exists);
    home.disk.clear_hook();
    let db = home.open();
    assert_eq!(home.run(db.get("a")).unwrap().as_deref(), Some(&b"theirs"[..]));
}

#[test]
fn directories_are_created_with_their_parents_and_for_us_alone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a/b/c");
    let db = block_on(Db::builder(&dir).options(settings::tiny()).open()).unwrap();
    block_on(fill(&db, 200, 60));
    block_on(db.compact()).unwrap();
    block_on(db.close()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir) & 0o077, 0);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

/// A closed database with a few tables, and its content.
fn made(home: &Home) -> crate::kit::oracle::Map {
    let db = home.open();
    let expected = block_on(fill(&db, 150, 60));
    block_on(db.flush()).unwrap();
    block_on(db.close()).unwrap();
    expected
}

/// Checks that an open fails with this kind, names this file, and changes nothing.
fn refuses(home: &Home, kind: ErrorKind, name: &str) -> Error {
    let before = fingerprint(&home.path());
    let error = fails(home);
    assert_eq!(error.kind(), kind, "{error:?}");
    let path = error.path().expect("the error names a file");
    let file = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(file.contains(name), "{error:?} should be about {name}");
    assert!(error.to_string().contains(&file), "{error}");
    let after = fingerprint(&home.path());
    let names = |files: &[(std::path::PathBuf, Vec<u8>)]| -> Vec<_> {
        files.iter().map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(names(&before), names(&after), "a refused open changes nothing");
    assert!(before == after, "a refused open changes nothing");
    error
}

/// Overwrites the two bytes of the format version and makes the checksum (at `crc`, over everything
/// before it) right again.
fn set_version(path: &Path, known: u8, at: usize, crc: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[at..at + 2], [known, 0], "the version is where the format says");
    bytes[at] = 99;
    let sum = sluicedb_storage::codec::crc(&bytes[..crc]);
    bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn files_of_another_version_are_unsupported() {
    let home = Home::new();
    made(&home);
    set_version(&home.path().join("CURRENT"), 3, 48, 60);
    let error = refuses(&home, ErrorKind::Unsupported, "CURRENT");
    assert!(error.to_string().contains("99"), "{error}");

    // The log was not closed, so the open reads it.
    let home = Home::new();
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    drop(db);
    // Wait for it to leave.
    drop(home.open());
    let db = home.open();
    block_on(db.put("b", "1")).unwrap();
    let log = home.files(".wal").pop().unwrap();
    drop(db);
    drop(lock_when_free(&home));
    set_version(&log, 1, 8, 4092);
    let error = refuses(&home, ErrorKind::Unsupported, ".wal");
    assert!(error.to_string().contains("99"), "{error}");
}

/// Takes the lock of a dropped database as soon as the engine has left its directory.
fn lock_when_free(home: &Home) -> std::fs::File {
    let file = std::fs::File::options().write(true).open(home.path().join("LOCK")).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn missing_files_are_named() {
    let home = Home::new();
    made(&home);
    let table = home.files(".sst").pop().unwrap();
    let name = table.file_name().unwrap().to_string_lossy().into_owned();
    let aside = home.path().parent().unwrap().join("aside");
    std::fs::rename(&table, &aside).unwrap();
    let error = refuses(&home, ErrorKind::Corrupt, &name);
    assert!(error.to_string().contains("missing"), "{error}");
    std::fs::rename(&aside, &table).unwrap();

    let manifest = home.files("MANIFEST").pop().unwrap();
    let name = manifest.file_name().unwrap().to_string_lossy().into_owned();
    std::fs::rename(&manifest, &aside).unwrap();
    refuses(&home, ErrorKind::Corrupt, &name);
    std::fs::rename(&aside, &manifest).unwrap();

    // Without CURRENT the other files have no meaning. It is by no means a new database.
    let current = home.path().join("CURRENT");
    std::fs::rename(&current, &aside).unwrap();
    refuses(&home, ErrorKind::Corrupt, "CURRENT");
    std::fs::rename(&aside, &current).unwrap();
    home.open();
}

#[test]
fn a_table_of_another_database_or_under_another_name_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    let expected = made(&home);
    made(&other);
    let (ours, theirs) = (home.files(".sst"), other.files(".sst"));
    let mine = std::fs::read(&ours[0]).unwrap();
    std::fs::copy(&theirs[0], &ours[0]).unwrap();
    let name = ours[0].file_name().unwrap().to_string_lossy().into_owned();
    // The open finds a table of another length. A read finds one of the same length.
    let theirs = std::fs::metadata(&ours[0]).unwrap().len();
    if theirs == mine.len() as u64 {
        let read = block_on(collect(home.open().scan(..)));
        let error = read.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(&name), "{error}");
    } else {
        refuses(&home, ErrorKind::Corrupt, &name);
    }
    // A truncated one, and an empty one.
    std::fs::write(&ours[0], &mine[..mine.len() - 1]).unwrap();
    refuses(&home, ErrorKind::Corrupt, &name);
    std::fs::write(&ours[0], b"").unwrap();
    refuses(&home, ErrorKind::Corrupt, &name);
    std::fs::write(&ours[0], &mine).unwrap();
    block_on(check(&home.open(), &expected)).unwrap();
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let home = Home::new();
    drop(home.open());
    for name in ["notes.txt", "1.sst", "000001.sst.bak", "x.wal"] {
        std::fs::write(home.path().join(name), name).unwrap();
    }
    std::fs::create_dir(home.path().join("subdirectory")).unwrap();
    let expected = {
        let db = home.open();
        let expected = block_on(fill(&db, 150, 60));
        block_on(db.compact()).unwrap();
        block_on(db.close()).unwrap();
        expected
    };
    block_on(check(&home.open(), &expected)).unwrap();
    for name in ["notes.txt", "1.sst", "000001.sst.bak", "x.wal"] {
        assert_eq!(std::fs::read_to_string(home.path().join(name)).unwrap(), name);
    }
    assert!(home.path().join("subdirectory").is_dir());
}

/// An open of the wrong directory must not create a database among other files.
#[test]
fn a_directory_with_other_files_is_not_made_into_a_database() {
    let home = Home::new();
    std::fs::create_dir(home.path()).unwrap();
    std::fs::write(home.path().join("notes.txt"), "mine").unwrap();
    let error = fails(&home);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read_to_string(home.path().join("notes.txt")).unwrap(), "mine");
    // An empty one is fine.
    std::fs::remove_file(home.path().join("notes.txt")).unwrap();
    home.open();
}

#[test]
fn files_that_nobody_names_are_swept() {
    let home = Home::new();
    let expected = made(&home);
    // A crash may leave these behind: a table that was never published, a half-written file.
    std::fs::write(home.path().join("000002.tmp"), b"half").unwrap();
    std::fs::copy(&home.files(".sst")[0], home.path().join("000001.sst")).unwrap();
    let db = home.open();
    block_on(check(&db, &expected)).unwrap();
    assert!(!home.path().join("000002.tmp").exists());
    assert!(!home.path().join("000001.sst").exists());
}

#[test]
fn a_path_that_cannot_be_a_directory() {
    let home = Home::new();
    std::fs::write(home.path(), "a file").unwrap();
    let error = fails(&home);
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert_eq!(std::fs::read_to_string(home.path()).unwrap(), "a file");
    let error = block_on(Db::open("/proc/no/such/place")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.path().is_some() && std::error::Error::source(&error).is_some());
}

#[test]
fn a_directory_that_may_not_be_written() {
    let home = Home::new();
    made(&home);
    let dir = home.path();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o500)).unwrap();
    let probe = dir.join("probe");
    if std::fs::write(&probe, "x").is_ok() {
        let _ = std::fs::remove_file(&probe);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        eprintln!("skipped: this user may write everywhere (root); see the simulated twin below");
        return;
    }
    let error = fails(&home);
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    home.open();
}

#[test]
fn a_read_only_or_exhausted_system_is_told_as_it_is() {
    for errno in [EROFS, EMFILE, 13] {
        let home = Simulated::new(1);
        let db = home.open();
        let expected = home.run(fill(&db, 100, 60));
        home.run(db.close()).unwrap();
        drop(db);
        home.simulator.settle();
        let changes = if errno == EMFILE {
            vec![OperationKind::Open, OperationKind::Create]
        } else {
            vec![
                OperationKind::CreateDir,
                OperationKind::Create,
                OperationKind::Rename,
                OperationKind::Remove,
                OperationKind::Write,
                OperationKind::SetLen,
                OperationKind::Allocate,
                OperationKind::Lock,
            ]
        };
        let used = home.disk.used_bytes();
        for kind in changes {
            home.faults.arm(Fault::of(kind).errno(errno).sticky());
        }
        let error = home.run(home.builder().open()).unwrap_err();
        let kind = if errno == EMFILE { ErrorKind::TooManyOpenFiles } else { ErrorKind::Io };
        assert_eq!(error.kind(), kind, "{errno}: {error:?}");
        assert!(error.path().is_some(), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!source.is_empty());
        home.simulator.settle();
        assert_eq!(home.disk.used_bytes(), used);
        home.faults.disarm();
        let db = home.open();
        home.run(check(&db, &expected)).unwrap();
    }
}

#[test]
fn a_dropped_open_closes_again() {
    let home = Home::new();
    for polls in 0..3 {
        let mut open = tokio_test::task::spawn(home.builder().open());
        for _ in 0..polls {
            if open.poll().is_ready() {
                break;
            }
        }
        drop(open);
    }
    // The old engine may still be leaving: then this open waits, or it reports the lock.
    let mut tries = 0;
    let db = loop {
        match block_on(home.builder().open()) {
            Ok(db) => break db,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Locked),
        }
        tries += 1;
        assert!(tries < 1_000_000, "a dropped open never lets go of its lock");
        std::thread::yield_now();
    };
    block_on(db.put("a", "1")).unwrap();
}
