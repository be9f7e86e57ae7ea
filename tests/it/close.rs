use crate::harness::{Closings, Held, Home, Simulated, block_on, fill, is_table};
use crate::kit::disk::{collect, content, fresh_dir, shared};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::future::BoxFuture;
use sluicedb::{
    Db, Durability, ErrorKind, HealthState, Options, Outcome, Result, WriteBatch, WriteOptions,
};
use sluicedb_actors::runtime::{Runtime, Task};
use sluicedb_storage::side_by_side::SideBySide;
use sluicedb_storage::vfs::fault::{EMFILE, ENOSPC};
use sluicedb_storage::vfs::{Fault, LockError, MemVfs, OperationKind, Vfs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn closed<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(error.to_string(), "the database is closed");
}

fn one(key: &str, value: Vec<u8>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

/// The first log segment has 512 KiB.
fn buffered() -> Options {
    Options { durability: Durability::Buffered, ..Options::default() }
}

#[test]
fn after_close_writes_fail_and_reads_go_on() {
    let home = Home::new();
    let db = home.open();
    let other = db.clone();
    let mut health = db.health();
    block_on(async {
        let expected = fill(&db, 100, 30).await;
        let snapshot = db.snapshot();
        db.close().await.unwrap();
        for db in [&db, &other] {
            closed(db.put("a", "1").await);
            closed(db.delete("a").await);
            closed(db.put_with("a", "1", NO_WAIT).await);
            closed(db.delete_with("a", NO_WAIT).await);
            let mut batch = WriteBatch::new();
            batch.put("a", "1");
            closed(db.write(batch.clone()).await);
            closed(db.write_with(batch.clone(), NO_WAIT).await);
            closed(db.submit(batch).await);
            closed(db.flush().await);
            closed(db.sync().await);
            closed(db.compact().await);
            assert_eq!(content(db).await.unwrap(), expected);
            assert_eq!(db.get("key0001").await.unwrap().unwrap().len(), 30);
            assert_eq!(db.snapshot().get("a").await.unwrap(), None);
            assert!(matches!(db.health().state(), HealthState::Closed(None)));
            assert!(db.stats().visible_seqno >= 100);
            assert!(!db.level_info().is_empty());
        }
        assert_eq!(collect(snapshot.scan(..)).await.unwrap().len(), 100);
        assert!(matches!(health.changed().await, HealthState::Closed(None)));
    });
}

#[test]
fn close_may_be_called_again_and_by_many() {
    let home = Home::new();
    let db = home.open();
    block_on(fill(&db, 300, 60));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let db = db.clone();
            thread::spawn(move || block_on(db.close()))
        })
        .collect();
    block_on(db.close()).unwrap();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    block_on(async {
        db.close().await.unwrap();
        futures::try_join!(db.close(), db.close()).unwrap();
    });
    // The handles still exist, the lock does not.
    let again = home.open();
    assert_eq!(block_on(content(&again)).unwrap().len(), 300);
}

#[test]
fn t003_11_close_flushes_so_that_the_next_open_replays_nothing() {
    let home = Home::new();
    let db = home.open();
    let expected = block_on(fill(&db, 100, 30));
    block_on(db.close()).unwrap();
    let db = home.open();
    assert_eq!((db.stats().recovered_entries, db.stats().recovered_torn_bytes), (0, 0));
    assert_eq!(block_on(content(&db)).unwrap(), expected);
    // An unused database can be closed too, and more than once.
    for _ in 0..3 {
        let db = {
            block_on(db.close()).unwrap();
            home.open()
        };
        block_on(db.close()).unwrap();
    }
    assert!(crate::kit::disk::verify(&home.path()).unwrap().is_sound());
}

#[test]
fn what_was_submitted_before_close_is_in_the_database() {
    let home = Home::new();
    let db = home.open();
    let mut acked = 0;
    block_on(async {
        let mut tickets = Vec::new();
        for n in 0..100 {
            let mut batch = WriteBatch::new();
            batch.put(format!("k{n:03}"), "v");
            tickets.push(db.submit(batch).await.unwrap());
        }
        db.close().await.unwrap();
        for ticket in tickets {
            acked += usize::from(ticket.await.is_ok());
        }
    });
    let found = block_on(content(&home.open())).unwrap().len();
    assert_eq!((acked, found), (100, 100));
}

/// A batch larger than the first segment, and small ones behind it, wait for a segment that the
/// keeper has not begun to prepare when `close` is called.
///
/// Planted: a close that refuses what waits for a segment.
#[test]
fn what_waits_for_a_log_segment_before_close_is_in_the_database() {
    for seed in 0..30 {
        let home = Simulated::with(seed, buffered());
        let db = home.open();
        let tickets = home.run(async {
            let mut tickets = vec![db.submit(one("large", vec![0; 600 << 10])).await.unwrap()];
            for n in 0..10 {
                tickets.push(db.submit(one(&format!("k{n}"), vec![])).await.unwrap());
            }
            tickets
        });
        let (dropped, kept): (Vec<_>, Vec<_>) = tickets.into_iter().partition(|_| seed % 2 == 0);
        drop(dropped);
        home.run(db.close()).unwrap();
        for ticket in kept {
            home.run(ticket).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        }
        let found = home.run(content(&home.open())).unwrap().len();
        assert_eq!(found, 11, "seed {seed}");
    }
}

/// Planted: a close that waits for a segment that cannot be prepared; a close that says why
/// itself.
#[test]
fn what_waits_for_a_segment_that_cannot_be_prepared_is_told_why_and_close_ends() {
    let no_space = Fault::of(OperationKind::Create).named(".spare").errno(ENOSPC);
    let no_files = Fault::of(OperationKind::Create).named(".spare").errno(EMFILE);
    for seed in 0..20 {
        for (fault, kind) in
            [(&no_space, ErrorKind::NoSpace), (&no_files, ErrorKind::TooManyOpenFiles)]
        {
            for reserve in [0, 1 << 20] {
                let mut options = buffered();
                options.space_reserve_bytes = Some(reserve);
                let home = Simulated::with(seed, options);
                let db = home.open();
                home.faults.arm(fault.clone().sticky());
                let ticket = home.run(db.submit(one("large", vec![0; 600 << 10]))).unwrap();
                let _ = home.run(db.close());
                let error = home.run(ticket).unwrap_err();
                assert_eq!(error.kind(), kind, "seed {seed}: {error:?}");
                assert_eq!(error.outcome(), Outcome::NotApplied);
                home.faults.disarm();
                assert!(home.run(content(&home.open())).unwrap().is_empty());
            }
        }
    }
}

#[test]
fn close_while_others_write_refuses_or_keeps_each_write() {
    let home = Home::new();
    let db = home.open();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let db = db.clone();
            thread::spawn(move || {
                for n in 0_u32.. {
                    let result = block_on(db.put(format!("{writer}/{n:06}"), vec![1; 30]));
                    match result {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::Closed => return (writer, n),
                        Err(error) => panic!("{error:?}"),
                    }
                }
                unreachable!()
            })
        })
        .collect();
    while db.stats().commits < 2_000 {
        thread::yield_now();
    }
    block_on(db.close()).unwrap();
    let written: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let found = block_on(content(&home.open())).unwrap();
    let total: u32 = written.iter().map(|(_, count)| count).sum();
    assert_eq!(found.len() as u32, total, "no more and no less than what was acknowledged");
    for (writer, count) in written {
        assert!(count == 0 || found.contains_key(format!("{writer}/{:06}", count - 1).as_bytes()));
    }
}

#[test]
fn a_dropped_close_goes_on() {
    for polls in 0..6 {
        let held = Held::new(settings::tiny());
        let db: Db = held.open();
        block_on(fill(&db, 40, 20));
        held.hold();
        let mut close = tokio_test::task::spawn({
            let db = db.clone();
            async move { db.close().await }
        });
        for _ in 0..polls {
            assert!(close.poll().is_pending());
        }
        drop(close);
        held.release();
        if polls > 0 {
            // A polled close runs to its end, and so does a second close.
            block_on(db.close()).unwrap();
            closed(block_on(db.put("a", "1")));
        } else {
            block_on(db.put("a", "1")).unwrap();
        }
        drop(db);
        let db = held.open();
        assert_eq!(block_on(content(&db)).unwrap().len(), if polls > 0 { 40 } else { 41 });
    }
}

/// A runtime that refuses to start more than this many threads.
#[derive(Debug)]
struct Stingy {
    inner: Arc<dyn Runtime>,
    left: AtomicUsize,
}

impl Stingy {
    fn new(home: &Simulated, left: usize) -> Arc<Self> {
        Arc::new(Self { inner: home.simulator.handle(), left: left.into() })
    }
}

impl SideBySide for Stingy {}

impl Runtime for Stingy {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        let one_less = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => self.inner.spawn(name, body),
            Err(_) => Err(std::io::Error::other("no thread to give")),
        }
    }

    fn now(&self) -> std::time::Instant {
        self.inner.now()
    }

    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(deadline)
    }
}

/// Planted: tasks that are dropped with the thread's body (the second close hangs, and a drop never
/// releases the lock).
#[test]
fn b10_a_close_without_a_thread_has_not_happened_and_may_be_asked_for_again() {
    for again in [true, false] {
        let home = Simulated::new(5);
        let runtime = Stingy::new(&home, usize::MAX);
        let db = home.run(home.builder().runtime(runtime.clone()).open()).unwrap();
        home.run(db.put("a", "1")).unwrap();
        runtime.left.store(0, Ordering::SeqCst);
        let (first, second) = home.run(async { futures::join!(db.close(), db.close()) });
        for result in [first, second] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
            assert!(error.to_string().contains("no thread to give"), "{error}");
        }
        home.run(db.put("b", "2")).unwrap();
        assert!(matches!(db.health().state(), HealthState::Running));
        runtime.left.store(usize::MAX, Ordering::SeqCst);
        if again {
            home.run(db.close()).unwrap();
            closed(home.run(db.put("c", "3")));
        }
        drop(db);
        home.simulator.settle();
        let db = home.open();
        assert_eq!(home.run(content(&db)).unwrap().len(), 2);
    }
}

/// Planted: actors without a share of the lock.
#[test]
fn others_are_kept_out_until_the_last_actor_has_ended_also_without_a_thread_that_waits_for_it() {
    let is_locked = |home: &Simulated| match home.disk.lock(&home.dir.join("LOCK")) {
        Ok(_) => false,
        Err(LockError::Held { .. }) => true,
        Err(error) => panic!("{error:?}"),
    };
    let home = Simulated::new(6);
    let runtime = Stingy::new(&home, usize::MAX);
    let db = home.run(home.builder().runtime(runtime.clone()).open()).unwrap();
    home.run(db.put("a", "1")).unwrap();
    runtime.left.store(0, Ordering::SeqCst);
    drop(db);
    assert!(is_locked(&home), "its actors have not looked up yet");
    home.simulator.settle();
    assert!(!is_locked(&home));
    // An open for which only some threads start.
    let mut kept_out = 0;
    for threads in 0.. {
        let runtime = Stingy::new(&home, threads);
        let opened = home.run(home.builder().runtime(runtime.clone()).open());
        kept_out += usize::from(opened.is_err() && is_locked(&home));
        home.simulator.settle();
        match opened {
            Ok(db) => {
                runtime.left.store(usize::MAX, Ordering::SeqCst);
                home.run(db.close()).unwrap();
                break;
            }
            Err(error) => assert!(error.to_string().contains("no thread to give"), "{error}"),
        }
        assert!(!is_locked(&home), "{threads} threads");
    }
    assert!(kept_out > 0);
    let db = home.open();
    assert_eq!(home.run(content(&db)).unwrap().len(), 1);
}

#[test]
fn o10_sync_after_close_says_closed() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        db.put("a", "1").await.unwrap();
        db.sync().await.unwrap();
        db.close().await.unwrap();
        closed(db.sync().await);
    });
}

/// Planted: state of a closed database that is freed by its last handle.
#[test]
fn who_drops_the_last_handle_closes_no_file_and_unmaps_nothing() {
    for closes in [true, false] {
        let disk = MemVfs::new();
        let closings = Closings::of(&disk);
        let dir = fresh_dir();
        let builder = || Db::builder(&dir).options(settings::tiny()).vfs(shared(&disk));
        let db = block_on(builder().open()).unwrap();
        let expected = block_on(fill(&db, 200, 100));
        block_on(db.flush()).unwrap();
        assert_eq!(block_on(content(&db)).unwrap(), expected, "its tables are open");
        if closes {
            block_on(db.close()).unwrap();
        }
        // A scan may have closed a table that was compacted away under it.
        closings.forget();
        drop(db);
        assert_eq!(closings.on_this_thread(), Vec::<PathBuf>::new());
        // Another thread closes the files, and no caller waits for that.
        let again = block_on(builder().open()).unwrap();
        assert_eq!(block_on(content(&again)).unwrap(), expected);
        closings.await_table();
        block_on(again.close()).unwrap();
    }
}

/// A ticket may be dropped anywhere, also after everything else.
/// Planted: a ticket that keeps the routes of its write, finished or not.
#[test]
fn who_drops_a_ticket_last_closes_no_file_and_unmaps_nothing() {
    for closes in [true, false] {
        let disk = MemVfs::new();
        let closings = Closings::of(&disk);
        // No table is compacted.
        let builder = Db::builder(fresh_dir()).vfs(shared(&disk));
        let db = block_on(builder.open()).unwrap();
        let expected = block_on(fill(&db, 20, 100));
        block_on(db.flush()).unwrap();
        assert_eq!(block_on(content(&db)).unwrap(), expected, "its tables are open");
        let options = WriteOptions::durability(Durability::Synced);
        let submit = |key: &str| {
            let mut batch = WriteBatch::new();
            batch.put(key, "value");
            block_on(db.submit_with(batch, options)).unwrap()
        };
        let mut finished = submit("a");
        block_on(&mut finished).unwrap();
        let unfinished = submit("b");
        if closes {
            block_on(db.close()).unwrap();
        }
        assert!(!closings.forget().iter().any(|path| is_table(path)), "its tables are open");
        drop(db);
        // Another thread closes the tables, although the tickets still exist.
        closings.await_table();
        drop((finished, unfinished));
        assert_eq!(closings.on_this_thread(), Vec::<PathBuf>::new(), "a caller has closed a file");
    }
}
