//! The bulk worker: it writes the tables of a replacement. On which thread, for how long, and what
//! stops it.

use crate::harness::{PATIENCE, block_on, outside};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::settings;
use futures::FutureExt;
use sluicedb::{Db, ErrorKind, HealthState, OnEmpty};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::vfs::{MemVfs, OperationKind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::ThreadId;
use std::time::Instant;

/// A waker that reports each wake.
struct Woken(mpsc::SyncSender<()>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_send(());
    }
}

fn woken() -> (Waker, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::sync_channel(1);
    (Waker::from(Arc::new(Woken(sender))), receiver)
}

async fn open(disk: &MemVfs) -> Db {
    let builder = Db::builder(fresh_dir()).options(settings::tiny());
    builder.vfs(shared(disk)).open().await.unwrap()
}

async fn fill(db: &Db, value: &str) {
    for n in 0..200 {
        db.put(format!("a{n:05}"), value).await.unwrap();
    }
}

/// INVARIANT(no-block-on-executor): a replacement is dropped after its answer, and after each of
/// its first polls. It happens wholly or not at all, and the drop removes no file on the caller's
/// thread.
///
/// Planted: tables that pass through the caller on their way from the bulk worker to the version
/// manager.
#[test]
fn who_drops_a_replacement_removes_no_file() {
    let disk = MemVfs::new();
    let removers: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
    let seen = Arc::clone(&removers);
    disk.on_operation(move |_, operation| {
        if operation.kind == OperationKind::Remove {
            seen.lock().unwrap().push(std::thread::current().id());
        }
    });
    let (source, target) = block_on(async { (open(&disk).await, open(&disk).await) });
    block_on(fill(&source, "new"));
    let snapshot = source.snapshot();
    for wakes in 0..4 {
        block_on(fill(&target, "old"));
        {
            let mut replaced = pin!(target.replace_from(&snapshot, ["a".."b"], OnEmpty::Wipe));
            for _ in 0..=wakes {
                let (waker, wake) = woken();
                if replaced.as_mut().poll_unpin(&mut Context::from_waker(&waker)).is_ready() {
                    break;
                }
                wake.recv_timeout(PATIENCE).expect("it goes on");
            }
        }
        // The bulk worker works in order: when this excision has ended, the abandoned replacement
        // has ended too.
        block_on(target.excise("x".."y")).unwrap();
        let all = block_on(content(&target)).unwrap();
        let new = all.values().filter(|value| &value[..] == b"new").count();
        assert!(new == 0 || new == 200, "{new} of 200");
        assert!(wakes == 0 || new == 200, "after {wakes} it was done");
    }
    let here = std::thread::current().id();
    let removers = removers.lock().unwrap().clone();
    assert!(!removers.is_empty() && !removers.contains(&here));
    drop(snapshot);
    block_on(async { (source.close().await.unwrap(), target.close().await.unwrap()) });
}

/// A disk that counts the reads of files with this ending, and holds the sixth one until it is
/// released.
struct Reads {
    count: Arc<AtomicUsize>,
    arrived: mpsc::Receiver<()>,
    go_on: mpsc::SyncSender<()>,
}

fn reads(disk: &MemVfs, ending: &'static str) -> Reads {
    let count = Arc::new(AtomicUsize::new(0));
    let (arrives, arrived) = mpsc::sync_channel(1);
    let (go_on, may_go_on) = mpsc::sync_channel(1);
    let (counted, may_go_on) = (Arc::clone(&count), Mutex::new(may_go_on));
    disk.on_read(move |path| {
        let is_it = path.to_string_lossy().ends_with(ending);
        if is_it && counted.fetch_add(1, Ordering::SeqCst) == 5 {
            let _ = arrives.send(());
            let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    Reads { count, arrived, go_on }
}

/// Writes a table outside the database with many blocks.
fn table(disk: &MemVfs, path: &Path, value: &[u8]) {
    let options = TableOptions { block_bytes: 256, ..TableOptions::default() };
    let mut writer = ExternalWriter::create(&shared(disk), path, [7; 8], options).unwrap();
    for n in 0..2000 {
        writer.add(format!("a{n:05}").as_bytes(), Kind::Put, value).unwrap();
    }
    writer.finish().unwrap();
}

/// Planted: a table check that never looks whether the replacement was cancelled.
#[test]
fn close_does_not_wait_for_a_table_to_be_checked() {
    let (disk, path) = (MemVfs::new(), Path::new("/outside.table"));
    table(&disk, path, &[7; 100]);
    let db = block_on(open(&disk));
    let Reads { count, arrived, go_on } = reads(&disk, "outside.table");
    std::thread::scope(|threads| {
        let ingest = threads.spawn(|| block_on(db.ingest([path])));
        arrived.recv_timeout(PATIENCE).unwrap();
        let close = threads.spawn(|| block_on(db.close()));
        while !matches!(db.health().state(), HealthState::Closed(_)) {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        close.join().unwrap().unwrap();
        assert_eq!(ingest.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    let count = count.load(Ordering::SeqCst);
    assert!(count < 10, "{count} reads");
}

/// Planted: a copy that looks for cancellation only at an entry that it emits.
#[test]
fn a_replacement_that_nobody_waits_for_stands_in_nobodys_way() {
    let (disk, path) = (MemVfs::new(), Path::new("/outside.table"));
    table(&disk, path, &[7; 100]);
    let mut options = settings::tiny();
    // Nothing is compacted, so the deletes stay.
    (options.l0_trigger_tables, options.l0_tables_max) = (1000, 2000);
    options.write_buffer_bytes = Some(64 << 20);
    options.memtable_bytes = Some(32 << 20);
    options.memory_budget_bytes = 128 << 20;
    let builder = Db::builder(fresh_dir()).options(options).vfs(shared(&disk));
    let (source, target) = block_on(async { (builder.open().await.unwrap(), open(&disk).await) });
    block_on(async {
        let key = |n: u32| [&b"a"[..], &n.to_be_bytes(), &[7; 400]].concat();
        source.put("a", "").await.unwrap();
        source.flush().await.unwrap();
        for n in 0..60_000 {
            source.delete(key(n)).await.unwrap();
        }
        source.flush().await.unwrap();
    });
    let snapshot = source.snapshot();
    for of_table in [true, false] {
        let Reads { count, arrived, go_on } = reads(&disk, if of_table { "table" } else { ".sst" });
        {
            let (waker, _) = woken();
            let mut context = Context::from_waker(&waker);
            let ingested = target.ingest([path]).map(drop);
            let replaced = target.replace_from(&snapshot, ["a".."b"], OnEmpty::Wipe).map(drop);
            let mut replaced =
                if of_table { ingested.boxed_local() } else { replaced.boxed_local() };
            assert!(replaced.poll_unpin(&mut context).is_pending());
            arrived.recv_timeout(PATIENCE).unwrap();
        }
        go_on.send(()).unwrap();
        block_on(target.excise("x".."y")).unwrap();
        let count = count.load(Ordering::SeqCst);
        // The deletes alone are 24 MiB, in reads of 1 MiB. Tables are opened before.
        let most = if of_table { 12 } else { 30 };
        assert!(count < most, "of_table: {of_table}, {count} reads");
    }
    assert_eq!(block_on(content(&target)).unwrap().len(), 0);
    drop(snapshot);
    block_on(async { (source.close().await.unwrap(), target.close().await.unwrap()) });
}

/// Planted: tables that are all open at once; values that are
/// held against the format's limit alone.
#[test]
fn tables_come_in_with_one_open_and_no_value_is_too_long() {
    let disk = MemVfs::new();
    let files: Vec<PathBuf> = (0..300).map(|n| format!("/{n:03}.table").into()).collect();
    for (n, path) in (0_u64..).zip(&files) {
        let options = TableOptions::default();
        let made = ExternalWriter::create(&shared(&disk), path, n.to_le_bytes(), options);
        let mut writer = made.unwrap();
        writer.add(format!("{n:03}").as_bytes(), Kind::Put, &[7; 100]).unwrap();
        writer.finish().unwrap();
    }
    let (closed, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (read, seen) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::clone(&most));
    let (ends, reads) = (Arc::clone(&closed), Arc::clone(&read));
    disk.on_close(move |path| {
        if path.ends_with("299.table") {
            ends.fetch_add(1, Ordering::SeqCst);
        }
        reads.lock().unwrap().remove(path);
    });
    disk.on_read(move |path| {
        let mut open = read.lock().unwrap();
        if path.to_string_lossy().ends_with(".table") {
            open.insert(path.to_owned());
        }
        seen.fetch_max(open.len(), Ordering::SeqCst);
    });
    block_on(async {
        let db = open(&disk).await;
        assert_eq!(db.ingest(&files).await.unwrap(), 300);
        assert_eq!(most.load(Ordering::SeqCst), 1, "one is open at a time");
        assert_eq!(closed.load(Ordering::SeqCst), 2, "once to be checked, once to be read");
        db.close().await.unwrap();
        let mut options = settings::tiny();
        options.value_bytes_max = Some(99);
        let builder = Db::builder(fresh_dir()).options(options).vfs(shared(&disk));
        let short = builder.open().await.unwrap();
        assert_eq!(short.put("k", [7; 100]).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(short.ingest(&files).await.unwrap_err().kind(), ErrorKind::Invalid);
        short.close().await.unwrap();
    });
}

/// A long ingest is under way. What is merged meanwhile is removed from the disk, and memory
/// is given back: the job holds nothing of the state in which it began.
///
/// Planted: it holds the superversion until its tables are written.
#[test]
fn an_ingest_under_way_holds_no_table_of_the_database() {
    let disk = MemVfs::new();
    let db = block_on(open(&disk));
    block_on(fill(&db, "old"));
    block_on(db.flush()).unwrap();
    let (key, value) = (b"b".to_vec(), b"new".to_vec());
    let table = outside(&disk, "b.table", [(&key, Some(&value))]);
    let (begun, has_begun) = mpsc::sync_channel(1);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(1);
    let may_go_on = Mutex::new(may_go_on);
    disk.on_operation(move |_, operation| {
        let is_bulk = std::thread::current().name() == Some("sluice-bulk");
        if is_bulk && operation.kind == OperationKind::Create {
            let _ = begun.try_send(());
            let _ = may_go_on.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    std::thread::scope(|threads| {
        let came = threads.spawn(|| block_on(db.ingest([&table])));
        has_begun.recv_timeout(PATIENCE).unwrap();
        block_on(fill(&db, "new"));
        block_on(db.compact()).unwrap();
        // Other actors may hold the last state for a moment.
        let began = Instant::now();
        while db.stats().pinned_obsolete_tables > 0 {
            assert!(began.elapsed() < PATIENCE / 2, "{:?}", db.pins());
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        assert_eq!(came.join().unwrap().unwrap(), 1);
    });
    block_on(db.close()).unwrap();
}
