use crate::harness::{Simulated, fill};
use crate::kit::disk::{fresh_dir, shared};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::FutureExt;
use sluicedb::{Db, Durability, Options, WriteBatch, WriteOptions};
use sluicedb_kernel::wake::trust;
use sluicedb_storage::vfs::MemVfs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok};

/// Nothing is flushed, and nobody waits, in a small test.
pub fn roomy() -> Options {
    let mut options = settings::tiny();
    options.memory_budget_bytes = 64 << 20;
    options.write_buffer_bytes = None;
    options.memtable_bytes = None;
    options.cache_bytes = None;
    options.log_segment_bytes = 16 << 20;
    options
}

/// Planted: a value of any length is copied in one poll.
#[test]
fn a_long_value_is_copied_in_several_polls() {
    let home = Simulated::with(1, roomy());
    let db = home.open();
    home.simulator.settle();
    // No engine thread runs meanwhile.
    let value = vec![7; 1_000_000];
    let mut put = spawn(Box::pin(db.put("key", &value)));
    for piece in 0..4 {
        assert_pending!(put.poll());
        assert!(put.is_woken(), "it only lets others have a turn after piece {piece}");
    }
    home.run(put.into_inner()).unwrap();
    assert_eq!(home.run(db.get("key")).unwrap().as_deref(), Some(&value[..]));
}

#[test]
fn a_buffered_put_completes_on_its_first_poll() {
    let home = Simulated::with(1, roomy());
    let db = home.open();
    // The engine has finished its preparations. From here on only this task runs.
    home.simulator.settle();
    for n in 0..1_000_u32 {
        assert_ready_ok!(spawn(db.put(n.to_be_bytes(), "value")).poll());
    }
    assert_ready_ok!(spawn(db.delete(7_u32.to_be_bytes())).poll());
    assert_ready_ok!(spawn(db.put_with("k", "v", NO_WAIT)).poll());
    let mut batch = WriteBatch::new();
    batch.put("a", "1").put("b", "2");
    assert_ready_ok!(spawn(db.write(batch.clone())).poll());
    let ticket = assert_ready_ok!(spawn(db.submit(batch)).poll());
    assert_ready_ok!(spawn(ticket).poll());
    assert_eq!(db.stats().commits_inline, db.stats().commits);

    // A read from memory completes at once.
    let found = assert_ready_ok!(spawn(db.get("a")).poll());
    assert_eq!(found.as_deref(), Some(&b"1"[..]));
    assert_eq!(assert_ready_ok!(spawn(db.get("none")).poll()), None);
    assert!(assert_ready_ok!(spawn(db.contains_key("b")).poll()));
    assert_eq!(assert_ready_ok!(spawn(db.multi_get(&["a", "b"])).poll()).len(), 2);
    let mut scan = db.scan(..);
    assert!(assert_ready_ok!(spawn(scan.next_chunk()).poll()).is_some());
}

#[test]
fn a_synced_put_waits_for_the_disk_and_only_for_that() {
    let home = Simulated::with(2, roomy());
    let db = home.open();
    home.simulator.settle();
    let how = WriteOptions::durability(Durability::Synced);
    let mut put = spawn(db.put_with("a", "1", how));
    assert_pending!(put.poll());
    // The write is visible and not yet durable.
    assert!(assert_ready_ok!(spawn(db.get("a")).poll()).is_some());
    home.simulator.settle();
    assert!(put.is_woken());
    assert_ready_ok!(put.poll());
}

#[test]
fn a_cached_block_is_read_on_the_first_poll_and_a_cold_one_is_not() {
    let home = Simulated::with(3, roomy());
    home.disk.set_cold_reads(true);
    let db = home.open();
    home.run(fill(&db, 300, 60));
    home.run(db.close()).unwrap();
    drop(db);
    home.simulator.settle();
    let db = home.open();
    home.simulator.settle();

    let mut get = spawn(db.get("key0123"));
    assert_pending!(get.poll());
    home.simulator.settle();
    assert!(get.is_woken());
    assert!(assert_ready_ok!(get.poll()).is_some());
    let cold = db.stats().cold_reads;
    assert!(cold > 0);
    // Now it is in the cache.
    assert!(assert_ready_ok!(spawn(db.get("key0123")).poll()).is_some());
    assert_eq!(db.stats().cold_reads, cold);
    assert!(db.stats().cache_hits > 0);
    // The filter excludes this key without reading a block.
    assert!(assert_ready!(spawn(db.get("absent")).poll()).unwrap().is_none());
}

struct Quick;

impl Wake for Quick {
    fn wake(self: Arc<Self>) {}
}

/// The system reads what a caller that does not wait has asked for. Planted: a get that goes to a
/// read thread at once; a snapshot that does.
#[test]
fn who_waits_alone_finds_what_the_system_reads_meanwhile() {
    let home = Simulated::with(5, roomy());
    let db = home.open();
    home.run(fill(&db, 300, 60));
    home.run(db.close()).unwrap();
    drop(db);
    home.disk.set_cold_reads(true);
    let db = home.open();
    home.simulator.settle();
    // The table is open.
    home.run(db.get("key0123")).unwrap();
    let waker = Waker::from(Arc::new(Quick));
    trust(&waker);
    let context = &mut Context::from_waker(&waker);
    let (snapshot, begun) = (db.snapshot(), db.stats());
    let mut lookups = [db.get("key0050").boxed(), snapshot.get("key0250").boxed()];
    for lookup in &mut lookups {
        home.disk.set_cold_reads(true);
        for _ in 0..3 {
            assert!(lookup.as_mut().poll(context).is_pending());
            home.simulator.advance(Duration::from_micros(1));
        }
        home.disk.set_cold_reads(false);
        // No read thread has had a turn.
        let found = lookup.as_mut().poll(context);
        assert!(matches!(found, Poll::Ready(Ok(Some(_)))), "{found:?}");
    }
    drop(lookups);
    let stats = db.stats();
    assert_eq!(stats.cold_reads - begun.cold_reads, 2);
    assert_eq!(stats.cache_misses - begun.cache_misses, 2, "who looks again misses once");
    assert_eq!(stats.gets_found - begun.gets_found, 2);
}

/// A read from the page cache completes like one from the block cache: no other thread, no waiting.
#[test]
fn what_the_page_cache_has_is_read_on_the_first_poll() {
    let mut options = roomy();
    options.cache_bytes = Some(0);
    let home = Simulated::with(4, options);
    let db = home.open();
    home.run(fill(&db, 300, 60));
    home.run(db.compact()).unwrap();
    home.simulator.settle();
    for n in 0..300 {
        assert!(assert_ready_ok!(spawn(db.get(format!("key{n:04}"))).poll()).is_some());
    }
    assert_eq!(db.stats().cold_reads, 0);
}

/// Planted: a worker that polls its queue; a timer that is set again whenever it fires; a reclaimer
/// that never stops looking.
#[test]
fn b11_no_actor_runs_while_there_is_nothing_to_do() {
    for mut options in [settings::tiny(), roomy()] {
        options.initial_split_keys = vec![b"key0100".to_vec()];
        let home = Simulated::with(5, options);
        let db = home.open();
        home.run(async {
            for _ in 0..3 {
                fill(&db, 200, 60).await;
            }
            db.sync().await.unwrap();
            assert!(db.get("key0007").await.unwrap().is_some());
        });
        let rest = || {
            home.simulator.advance(std::time::Duration::from_secs(600));
            home.simulator.settle();
        };
        home.simulator.limit_steps(home.simulator.steps() + 100_000);
        // Remaining work is done, and idle memtables are sealed.
        (0..20).for_each(|_| rest());
        let before = home.simulator.steps();
        (0..100).for_each(|_| rest());
        assert_eq!(home.simulator.steps(), before, "polls in {:?}", home.simulator.names());
        home.run(db.close()).unwrap();
    }
}

fn on_memory() -> sluicedb::Builder {
    Db::builder(fresh_dir()).options(roomy()).vfs(shared(&MemVfs::new()))
}

/// Every call here completes on its first poll. Without the cooperative budget the loops would
/// never let the other task run.
#[tokio::test(flavor = "current_thread")]
async fn tight_loops_let_other_tasks_run() {
    let db = on_memory().open().await.unwrap();
    let mut batch = WriteBatch::new();
    batch.put("batch", "1");
    for kind in ["put", "write", "submit", "get", "contains", "snapshot", "scan"] {
        let done = Arc::new(AtomicBool::new(false));
        let other = {
            let done = done.clone();
            tokio::spawn(async move {
                let mut turns = 0;
                while !done.load(Ordering::Relaxed) {
                    turns += 1;
                    tokio::task::yield_now().await;
                }
                turns
            })
        };
        let snapshot = db.snapshot();
        let (working, batch) = (db.clone(), batch.clone());
        let rounds = 4_000_u32;
        let worker = tokio::spawn(async move {
            for n in 0..rounds {
                match kind {
                    "put" => working.put(n.to_be_bytes(), "v").await.map(drop).unwrap(),
                    "write" => working.write(batch.clone()).await.map(drop).unwrap(),
                    "submit" => drop(working.submit(batch.clone()).await.unwrap()),
                    "get" => drop(working.get(n.to_be_bytes()).await.unwrap()),
                    "contains" => drop(working.contains_key(n.to_be_bytes()).await.unwrap()),
                    "snapshot" => drop(snapshot.get(n.to_be_bytes()).await.unwrap()),
                    _ => drop(working.scan(n.to_be_bytes()..).next_chunk().await.unwrap()),
                }
            }
        });
        worker.await.unwrap();
        done.store(true, Ordering::Relaxed);
        let turns = other.await.unwrap();
        // tokio gives a task a budget of 128 operations.
        assert!(turns >= 15, "{kind}: the other task ran {turns} times during {rounds} operations");
    }
}

/// The same within one long call.
#[tokio::test(flavor = "current_thread")]
async fn long_calls_let_other_tasks_run() {
    let db = on_memory().open().await.unwrap();
    for n in 0..20_000_u32 {
        db.put(n.to_be_bytes(), [0; 16]).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let other = {
        let done = done.clone();
        tokio::spawn(async move {
            let mut turns = 0;
            while !done.load(Ordering::Relaxed) {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        })
    };
    let worker = {
        let db = db.clone();
        tokio::spawn(async move {
            let keys: Vec<_> = (0..20_000_u32).map(u32::to_be_bytes).collect();
            assert_eq!(db.multi_get(&keys).await.unwrap().len(), 20_000);
            assert_eq!(crate::kit::disk::collect(db.scan(..)).await.unwrap().len(), 20_000);
        })
    };
    worker.await.unwrap();
    done.store(true, Ordering::Relaxed);
    let turns = other.await.unwrap();
    assert!(turns >= 5, "the other task ran {turns} times");
}

/// Goal: however many of its keys are cold, a call begins few reads in one turn, and leaves room in
/// the queue of the read threads.
/// Planted: all reads begun at once.
#[test]
fn many_cold_keys_are_read_a_few_at_a_time() {
    let mut options = roomy();
    options.cache_bytes = Some(0);
    let home = Simulated::with(6, options);
    home.disk.set_cold_reads(true);
    let db = home.open();
    let expected = home.run(fill(&db, 1_000, 60));
    home.run(db.compact()).unwrap();
    home.simulator.settle();
    let (keys, values): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
    let mut reads = spawn(db.multi_get(&keys));
    let mut turns = 0;
    let found = loop {
        let before = db.stats().cold_reads;
        let polled = reads.poll();
        let begun = db.stats().cold_reads - before;
        assert!(begun <= 64, "{begun} reads in one turn");
        turns += 1;
        if let Poll::Ready(found) = polled {
            break found.unwrap();
        }
        home.simulator.settle();
        assert!(reads.is_woken());
    };
    let cold = db.stats().cold_reads;
    assert!(cold > 500 && turns > cold / 64, "{cold} reads in {turns} turns");
    assert!(found.iter().map(|value| value.as_deref()).eq(values.iter().map(|v| Some(&v[..]))));
}
