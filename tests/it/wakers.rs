//! Wakers are foreign code: they panic, sleep, or use the database. The engine continues, and so do
//! all other callers.

use crate::harness::{Held, Home, PATIENCE, Simulated, block_on, fill};
use crate::kit::settings;
use crate::kit::settings::NO_WAIT;
use futures::future::BoxFuture;
use sluicedb::{Db, Durability, HealthState, Options, WriteBatch, WriteOptions};
use sluicedb_actors::runtime::{Runtime, Task, ThreadRuntime};
use sluicedb_kernel::sync::block_on as block_on_in_waker;
use sluicedb_storage::side_by_side::SideBySide;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

fn synced() -> WriteOptions {
    WriteOptions::durability(Durability::Synced)
}

/// The waker's action. It wakes nobody.
type Mischief = Arc<dyn Fn() + Send + Sync>;

struct Foreign {
    name: &'static str,
    called: Mutex<Sender<&'static str>>,
    mischief: Mischief,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        let _ = self.called.lock().unwrap().send(self.name);
        (self.mischief)();
    }
}

/// Futures that wait for each of the engine's threads, polled once with such a waker.
struct Waiting<'a> {
    futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    names: Vec<&'static str>,
    calls: Receiver<&'static str>,
    called: Sender<&'static str>,
    mischief: Mischief,
}

impl<'a> Waiting<'a> {
    fn new(mischief: Mischief) -> Self {
        let (called, calls) = channel();
        Self { futures: Vec::new(), names: Vec::new(), calls, called, mischief }
    }

    fn add(&mut self, name: &'static str, future: impl Future + 'a) {
        let mut future: Pin<Box<dyn Future<Output = ()> + 'a>> =
            Box::pin(async { drop(future.await) });
        let (called, mischief) = (Mutex::new(self.called.clone()), self.mischief.clone());
        let waker = Waker::from(Arc::new(Foreign { name, called, mischief }));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.names.push(name);
            self.futures.push(future);
        }
    }

    /// Waits until every one of them was woken.
    fn wait_for_all(&mut self) {
        while !self.names.is_empty() {
            let called = self.calls.recv_timeout(PATIENCE);
            let called = called.unwrap_or_else(|_| panic!("not woken: {:?}", self.names));
            self.names.retain(|name| *name != called);
        }
    }
}

/// Holds the writing of tables, so that writers wait for room. Then releases it, while an ordinary
/// caller makes one call of each kind.
fn exercise(mischief: impl Fn(&Db) -> Mischief) {
    for log_mapped in [true, false] {
        let mut options = settings::tiny();
        options.log_mapped = log_mapped;
        options.cache_bytes = Some(0);
        let held = Held::new(options);
        held.disk.set_cold_reads(true);
        let db = held.open();
        block_on(fill(&db, 60, 200));
        block_on(db.flush()).unwrap();
        held.hold();
        let mut waiting = Waiting::new(mischief(&db));
        waiting.add("a synced put", db.put_with("synced", "1", synced()));
        waiting.add("another", db.put_with("synced too", "1", synced()));
        waiting.add("a cold read", db.get("key0007"));
        waiting.add("a flush", db.flush());
        held.wait_until_held();
        let mut full = Vec::new();
        for n in 0.. {
            match block_on(db.put_with(format!("full{n:05}"), vec![1; 1_000], NO_WAIT)) {
                Ok(_) => assert!(n < 10_000),
                Err(error) if error.scope().is_none() => panic!("{error:?}"),
                Err(_) if full.len() == 3 => break,
                // The log may have no segment ready. Three refusals in a row mean memory.
                Err(_) => full.push(block_on(db.sync())),
            }
        }
        waiting.add("room", db.put("room", vec![1; 1_000]));
        #[allow(clippy::disallowed_methods, reason = "a deadline that has all but passed")]
        let soon = Instant::now() + std::time::Duration::from_millis(1);
        waiting
            .add("a deadline", db.put_with("late", vec![1; 1_000], WriteOptions::new().by(soon)));
        held.release();
        waiting.wait_for_all();
        block_on(async {
            for n in 0..50 {
                db.put_with(format!("after{n:02}"), vec![1; 300], synced()).await.unwrap();
            }
            db.flush().await.unwrap();
            db.compact().await.unwrap();
            assert!(db.get("key0007").await.unwrap().is_some());
        });
        assert!(matches!(db.health().state(), HealthState::Running), "{:?}", db.health().state());
        let mut last = Waiting::new(waiting.mischief.clone());
        let mut health = db.health();
        last.add("its health", async move { drop(health.changed().await) });
        last.add("its end", db.close());
        block_on(db.close()).unwrap();
        last.wait_for_all();
        drop((waiting, last));
    }
}

/// Planted: `wake::call` without `catch_unwind`.
#[test]
fn o9_wakers_that_panic_harm_nobody() {
    exercise(|_| Arc::new(|| panic!("on purpose")));
}

/// Planted: engine threads that call wakers themselves. (Each of these wakers waits for all of the
/// threads.)
#[test]
fn o9_wakers_that_write_and_read_and_wait_for_it_harm_nobody() {
    exercise(|db| {
        let db = db.clone();
        Arc::new(move || {
            // The database may be closed by then.
            let _ = block_on_in_waker(db.put_with("from a waker", "1", synced()));
            let _ = block_on_in_waker(db.flush());
            let _ = block_on_in_waker(db.get("key0007"));
        })
    });
}

/// Planted: one thread for all wakers.
#[test]
fn o9_wakers_that_sleep_till_the_end_harm_nobody() {
    let bed: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    let theirs = bed.clone();
    exercise(move |_| {
        let bed = theirs.clone();
        Arc::new(move || {
            let up = bed.1.wait_while(bed.0.lock().unwrap(), |up| !*up);
            drop(up.unwrap());
        })
    });
    *bed.0.lock().unwrap() = true;
    bed.1.notify_all();
}

/// The same on a thread that hands no waker on, like a caller's.
#[test]
fn o9_wakers_that_panic_end_their_panics_on_any_thread() {
    let home = Simulated::new(3);
    let db = home.open();
    let mut waiting = Waiting::new(Arc::new(|| panic!("on purpose")));
    for round in 0..200 {
        waiting.add("a synced put", db.put_with(format!("key{round}"), "1", synced()));
        if round % 20 == 19 {
            home.run(db.put_with("mine", "1", synced())).unwrap();
        }
    }
    waiting.add("a flush", db.flush());
    home.run(db.flush()).unwrap();
    waiting.wait_for_all();
    assert!(matches!(db.health().state(), HealthState::Running));
    drop(waiting);
    home.run(db.close()).unwrap();
}

/// The engine's usual threads, except that the one for long turns hands no waker on, like a
/// caller's thread, whose turns make wakers due. Records whether the log's thread is waiting.
#[derive(Debug)]
struct TurnsOfCallers {
    inner: Arc<ThreadRuntime>,
    log_is_at_work: Arc<AtomicBool>,
    turns_begin: Arc<Barrier>,
}

impl SideBySide for TurnsOfCallers {}

impl Runtime for TurnsOfCallers {
    fn spawn(&self, name: &str, mut body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        if name.starts_with("sluice-turn") {
            let (task, token) = Task::new();
            let begin = self.turns_begin.clone();
            std::thread::spawn(move || {
                let _ended = token;
                begin.wait();
                block_on(body);
            });
            return Ok(task);
        }
        let at_work = self.log_is_at_work.clone();
        let is_log = name == "sluice-wal";
        let watched = poll_fn(move |context| {
            at_work.fetch_or(is_log, Ordering::SeqCst);
            let polled = body.as_mut().poll(context);
            at_work.fetch_and(!is_log, Ordering::SeqCst);
            polled
        });
        self.inner.spawn(name, Box::pin(watched))
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(deadline)
    }
}

/// One thread makes three wakers due: that of a task which waits for a synced write; that of the
/// log's thread, which waits for that write's visibility to acknowledge it; and that of a heavy
/// batch, which the thread has applied.
/// Planted: one list for all wakers of a thread.
#[test]
fn o9_a_waker_that_waits_for_a_synced_write_waits_for_no_waker_behind_it() {
    for writes_itself in [false, true] {
        // Now and then an engine thread holds the log's seat at that moment, and takes the heavy
        // batch's turn.
        let mut attempts = 0..100;
        assert!(attempts.any(|_| a_waker_waits_for_a_synced_write(writes_itself)), "never reached");
    }
}

/// Returns false if the heavy batch was not taken by the intended thread.
fn a_waker_waits_for_a_synced_write(writes_itself: bool) -> bool {
    let home = Home::with(Options::default());
    let (log_is_at_work, turns_begin) = (Arc::default(), Arc::new(Barrier::new(2)));
    let runtime = TurnsOfCallers {
        inner: ThreadRuntime::new(&[]),
        log_is_at_work: Arc::clone(&log_is_at_work),
        turns_begin: Arc::clone(&turns_begin),
    };
    let db = block_on(home.builder().runtime(Arc::new(runtime)).open()).unwrap();
    // So heavy that the thread for long turns gets it. That thread is held between the log's turn
    // and the range's.
    let mut heavy = WriteBatch::new();
    for n in 0..5_000 {
        heavy.put(format!("heavy{n:05}"), "1");
    }
    let (stamped, is_stamped) = channel();
    let (go, gone) = channel();
    let gone = Mutex::new(gone);
    let between = Foreign {
        name: "stamped",
        called: Mutex::new(stamped),
        mischief: Arc::new(move || gone.lock().unwrap().recv().unwrap()),
    };
    let options = WriteOptions::durability(Durability::Buffered);
    let mut heavy = Box::pin(db.write_with(heavy, options));
    let waker = Waker::from(Arc::new(between));
    assert!(heavy.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    turns_begin.wait();
    is_stamped.recv_timeout(PATIENCE).unwrap();
    // Stamped after the heavy batch, and visible after it.
    let (done, synced_put) = channel();
    let (awake, was_woken) = channel();
    let (theirs, synced_put) = (db.clone(), Mutex::new(synced_put));
    let waits = Foreign {
        name: "not stuck",
        called: Mutex::new(channel().0),
        mischief: Arc::new(move || {
            let written = if writes_itself {
                block_on_in_waker(theirs.put_with("from a waker", "1", synced())).is_ok()
            } else {
                synced_put.lock().unwrap().recv_timeout(PATIENCE / 3).is_ok()
            };
            awake.send(written).unwrap();
        }),
    };
    let mut waiting = Box::pin(db.put_with("waits", "1", options));
    let waker = Waker::from(Arc::new(waits));
    if waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        go.send(()).unwrap();
        block_on(heavy).unwrap();
        return false;
    }
    let last = db.stats().visible_seqno + 5_000 + 2;
    let writer = std::thread::spawn({
        let db = db.clone();
        move || {
            block_on(db.put_with("synced", "1", synced())).unwrap();
            let _ = done.send(());
        }
    });
    // The log's thread has synced it, and waits for its visibility.
    while db.durable_seqno() < last || log_is_at_work.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    let written = was_woken.recv_timeout(PATIENCE).expect("the waker hangs");
    assert!(written, "the waker waited in vain");
    writer.join().unwrap();
    block_on(heavy).unwrap();
    block_on(waiting).unwrap();
    block_on(db.close()).unwrap();
    true
}
