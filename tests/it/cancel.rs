use crate::harness::{Held, Home, Simulated, block_on, fill};
use crate::kit::disk::{collect, content, shared};
use crate::kit::settings;
use futures::FutureExt;
use futures::future::BoxFuture;
use sluicedb::{Db, Durability, WriteBatch, WriteOptions};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::vfs::LockError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Drops its future after this many polls, and returns `None` then.
struct DropAfter<F> {
    polls: usize,
    future: Option<Pin<Box<F>>>,
}

fn drop_after<F: Future>(polls: usize, future: F) -> DropAfter<F> {
    DropAfter { polls, future: Some(Box::pin(future)) }
}

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            self.future = None;
        }
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.polls == 1 => {
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.polls -= 1;
                Poll::Pending
            }
        }
    }
}

fn twins(round: u32) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put("twin/a", round.to_be_bytes()).put("twin/b", round.to_be_bytes());
    batch
}

type Action = (&'static str, fn(Db, u32) -> BoxFuture<'static, ()>);

/// Every async function of the API.
fn actions() -> Vec<Action> {
    fn synced() -> WriteOptions {
        WriteOptions::durability(Durability::Synced)
    }
    vec![
        ("put", |db, n| {
            async move { db.put("put", n.to_be_bytes()).await.map(drop).unwrap() }.boxed()
        }),
        ("put synced", |db, n| {
            async move { db.put_with("put", n.to_be_bytes(), synced()).await.map(drop).unwrap() }
                .boxed()
        }),
        ("delete", |db, _| {
            async move { db.delete_with("put", synced()).await.map(drop).unwrap() }.boxed()
        }),
        ("write", |db, n| async move { db.write(twins(n)).await.map(drop).unwrap() }.boxed()),
        ("write synced", |db, n| {
            async move { db.write_with(twins(n), synced()).await.map(drop).unwrap() }.boxed()
        }),
        ("submit and await", |db, n| {
            async move {
                let ticket = db.submit_with(twins(n), synced()).await.unwrap();
                ticket.await.unwrap();
            }
            .boxed()
        }),
        ("put large", |db, n| {
            async move { db.put("large", vec![n as u8; 100_000]).await.map(drop).unwrap() }.boxed()
        }),
        ("get", |db, _| async move { drop(db.get("key0007").await.unwrap().unwrap()) }.boxed()),
        ("contains", |db, _| {
            async move { assert!(db.contains_key("key0011").await.unwrap()) }.boxed()
        }),
        ("multi_get", |db, _| {
            async move {
                let found = db.multi_get(&["key0001", "key0150", "no"]).await.unwrap();
                assert!(found[0].is_some() && found[1].is_some() && found[2].is_none());
            }
            .boxed()
        }),
        ("scan", |db, _| {
            async move { assert!(collect(db.scan("key".."kez")).await.unwrap().len() == 200) }
                .boxed()
        }),
        ("snapshot get", |db, _| {
            async move { drop(db.snapshot().get("key0180").await.unwrap().unwrap()) }.boxed()
        }),
        ("flush", |db, _| async move { db.flush().await.unwrap() }.boxed()),
        ("sync", |db, _| async move { db.sync().await.unwrap() }.boxed()),
        ("compact", |db, _| async move { db.compact().await.unwrap() }.boxed()),
    ]
}

#[test]
fn any_future_may_be_dropped_at_any_poll() {
    for seed in 0..3 {
        let mut options = settings::tiny();
        options.cache_bytes = Some(if seed == 0 { 0 } else { 1 << 20 });
        options.log_mapped = seed != 1;
        let home = Simulated::with(seed, options);
        home.disk.set_cold_reads(seed != 2);
        let db = home.open();
        home.run(fill(&db, 200, 30));
        home.run(db.compact()).unwrap();
        let mut round = 0;
        let mut dropped = 0;
        for (name, action) in actions() {
            for polls in 0..200 {
                round += 1;
                let done = home.run(drop_after(polls, action(db.clone(), round)));
                dropped += usize::from(done.is_none());
                // Each batch is whole or absent, and nothing hangs.
                let keys = ["twin/a", "twin/b"];
                let both = home.run(db.multi_get(&keys)).unwrap();
                assert_eq!(both[0], both[1], "{name} dropped after {polls} polls");
                home.run(db.put("alive", round.to_be_bytes())).unwrap();
                if done.is_some() {
                    assert!(polls > 0, "{name}: dropped before its first poll it does nothing");
                    break;
                }
                assert!(polls < 199, "{name} is still pending after 199 polls");
            }
        }
        assert!(dropped >= 20, "only {dropped} futures were dropped half-way");
        // The dropped futures kept nothing: the database can still be filled and emptied.
        home.run(fill(&db, 400, 3_000));
        home.run(db.close()).unwrap();
        drop(db);
        home.simulator.settle();
        assert_eq!(home.simulator.names(), Vec::<String>::new(), "every actor has ended");
        let db = home.open();
        let both = home.run(db.multi_get(&["twin/a", "twin/b"])).unwrap();
        assert_eq!(both[0], both[1]);
    }
}

#[test]
fn a_write_that_was_never_polled_never_happened() {
    let home = Home::new();
    let db = home.open();
    drop(db.put("a", "1"));
    drop(db.write(twins(1)));
    drop(db.submit(twins(1)));
    drop(db.delete("a"));
    assert!(block_on(content(&db)).unwrap().is_empty());
    assert_eq!(db.stats().commits, 0);
}

#[test]
fn a_scan_that_was_dropped_in_the_middle_of_a_cold_read_is_fine() {
    let mut options = settings::tiny();
    options.cache_bytes = Some(0);
    let home = Simulated::with(4, options);
    home.disk.set_cold_reads(true);
    let db = home.open();
    home.run(fill(&db, 300, 60));
    home.run(db.compact()).unwrap();
    home.run(db.close()).unwrap();
    drop(db);
    home.simulator.settle();
    let db = home.open();
    let mut limited = db.scan(..);
    assert!(home.run(drop_after(1, limited.next_chunk())).is_none(), "it waits for the disk");
    let mut limited = limited.limit(2);
    let batch = home.run(limited.next_chunk()).unwrap().expect("there are entries");
    assert_eq!(batch.len(), 2, "a limit that comes while they are read counts");
    assert!(home.run(limited.next_chunk()).unwrap().is_none());
    for polls in 0..20 {
        let mut scan = db.scan(..);
        // The pending `next_chunk` is dropped, but the scan is not: it continues where it was.
        home.run(drop_after(polls, async { scan.next_chunk().await.map(drop) }));
        let mut scan = db.scan("key0100".."kez");
        let mut found = 0;
        home.run(async {
            loop {
                match drop_after(1, scan.next_chunk()).await {
                    None => {
                        // Another write runs in between.
                        db.put("other", "1").await.unwrap();
                    }
                    Some(Ok(Some(batch))) => found += batch.len(),
                    Some(Ok(None)) => break,
                    Some(Err(error)) => panic!("{error:?}"),
                }
            }
        });
        assert_eq!(found, 200, "after {polls} polls");
    }
}

/// The database is dropped without `close`. The next open in the same process follows at once.
#[test]
fn a_database_may_be_dropped_and_opened_again_at_once() {
    let home = Home::new();
    let mut expected = 0;
    for round in 0..25_u32 {
        let db = home.open();
        assert_eq!(block_on(content(&db)).unwrap().len() as u32, expected, "round {round}");
        for n in 0..20 {
            let key = format!("{round:02}/{n:02}");
            block_on(db.put(key, vec![round as u8; 300])).unwrap();
            expected += 1;
        }
        // Work of every kind is under way, and tickets are dropped.
        if round % 3 == 0 {
            let mut flush = tokio_test::task::spawn(db.flush());
            let _ = flush.poll();
            drop(flush);
        }
        if round % 5 == 0 {
            let mut compact = tokio_test::task::spawn(db.compact());
            let _ = compact.poll();
            drop(compact);
        }
        drop(db);
    }
    let db = home.open();
    assert_eq!(block_on(content(&db)).unwrap().len() as u32, expected);
    block_on(db.close()).unwrap();
    assert!(crate::kit::disk::verify(&home.path()).unwrap().is_sound());
}

#[test]
fn dropping_never_waits() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    block_on(fill(&db, 100, 60));
    held.hold();
    let mut flush = tokio_test::task::spawn({
        let db = db.clone();
        async move { db.flush().await }
    });
    assert!(flush.poll().is_pending());
    held.wait_until_held();
    // The flush worker is held in the middle of its work until `release`. A drop that waited for it
    // would hang.
    drop(flush);
    drop(db);
    held.release();
    let db = held.open();
    assert_eq!(block_on(content(&db)).unwrap().len(), 100);
}

#[test]
fn p23_the_lock_is_held_until_the_last_call_to_the_disk_has_ended() {
    let held = Held::new(settings::tiny());
    let db = held.open();
    block_on(fill(&db, 100, 60));
    held.hold();
    let mut flush = tokio_test::task::spawn(db.flush());
    assert!(flush.poll().is_pending());
    held.wait_until_held();
    drop(flush);
    drop(db);
    // The flush worker is inside a call. Another open of the directory now would collide with its
    // table.
    let lock = FileKind::Lock.path(&held.dir);
    assert!(matches!(shared(&held.disk).lock(&lock), Err(LockError::Held { .. })));
    held.release();
    let db = held.open();
    assert_eq!(block_on(content(&db)).unwrap().len(), 100);
}

/// The runtime is dropped first, with writing tasks in it. What they acknowledged is true.
#[test]
fn a_runtime_may_be_dropped_before_the_database() {
    let home = Home::new();
    let told: Arc<[AtomicU64; 4]> = Arc::default();
    for round in 0..6_u64 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let db = runtime.block_on(home.builder().open()).unwrap();
        for writer in 0..4 {
            let (db, told) = (db.clone(), told.clone());
            runtime.spawn(async move {
                for n in round * 1_000_000.. {
                    let level = if n % 20 == 0 { Durability::Synced } else { Durability::Buffered };
                    let key = format!("writer{writer}");
                    let options = WriteOptions::durability(level);
                    db.put_with(key, n.to_be_bytes(), options).await.unwrap();
                    told[writer].store(n, Ordering::Release);
                }
            });
        }
        while db.stats().commits < 200 + 30 * round {
            std::thread::yield_now();
        }
        if round % 2 == 0 {
            runtime.shutdown_background();
            drop(db);
        } else {
            drop(db);
            drop(runtime);
        }
        // Another runtime opens at once. Tasks of the old one may keep their handles for a moment.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut tries = 0;
        let db = loop {
            match runtime.block_on(home.builder().open()) {
                Ok(db) => break db,
                Err(error) => assert_eq!(error.kind(), sluicedb::ErrorKind::Locked),
            }
            tries += 1;
            assert!(tries < 10_000_000, "the dropped runtime's tasks keep the database open");
            std::thread::yield_now();
        };
        for writer in 0..4 {
            let found = runtime.block_on(db.get(format!("writer{writer}"))).unwrap();
            let told = told[writer].load(Ordering::Acquire);
            if told > 0 {
                let found = u64::from_be_bytes(found.unwrap()[..].try_into().unwrap());
                // At most one write more than was acknowledged: the write whose future was dropped.
                assert!(found == told || found == told + 1, "{found} found, {told} acknowledged");
            }
        }
        drop(runtime);
        drop(db);
    }
}
