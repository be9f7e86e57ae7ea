//! The configuration of test engines, and a runtime that moves only when the test says so.

use crate::config::{EngineConfig, RangePolicy};
use crate::engine::Engine;
use crate::failure::WriteFailure;
use crate::runtime::{Runtime, Task};
use crate::version_manager::message::Change;
use bytes::Bytes;
use futures::future::BoxFuture;
use sluicedb_kernel::sync::lock;
use sluicedb_storage::compact::CompactionOptions;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::side_by_side::SideBySide;
use sluicedb_storage::table::{Compression, TableOptions};
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// A configuration with this many ranges; range `n` begins at the key `[n]`.
pub(crate) fn config(dir: &str, ranges: u8) -> EngineConfig {
    EngineConfig {
        dir: dir.into(),
        create_if_missing: true,
        error_if_exists: false,
        write_buffer_bytes: 16 << 20,
        range_buffer_bytes: None,
        memtable_bytes: None,
        sealed_memtables_max: 2,
        buffer: None,
        cache_bytes: 1 << 20,
        open_tables_max: 8,
        open_tables_bytes_max: 1 << 20,
        log_segment_bytes: 8 << 20,
        log_retained_bytes_max: 64 << 20,
        log_unsynced_bytes_max: 64 << 20,
        idle_seal_after: None,
        space_reserve_bytes: 0,
        log_mapped: true,
        allow_shared_directory: false,
        sync_polling: Duration::ZERO,
        read_polling: Duration::ZERO,
        commits_in_flight_max: 1024,
        value_bytes_max: 1 << 20,
        batch_bytes_max: 8 << 20,
        l0_tables_max: 8,
        l0_table: TableOptions::default(),
        level_compression: Compression::None,
        compaction: CompactionOptions::default(),
        compaction_threads: NonZeroUsize::MIN,
        compaction_bytes_per_second: None,
        read_only_log_bytes_max: 1 << 20,
        read_threads: 1,
        ranges: RangePolicy {
            bytes_max: u64::MAX,
            entries_max: u64::MAX,
            heat_max: u64::MAX,
            ranges_max: 1,
            merges: false,
            cooldown: Duration::from_secs(60),
        },
        initial_split_keys: (1..ranges).map(|byte| vec![byte].into()).collect(),
        fresh_id: [7; 16],
    }
}

/// Replaces every range and its owner: each is split right after its first key and merged again.
/// Returns the number of the last change.
pub(crate) async fn renew_ranges(engine: &Engine) -> Result<Seqno, WriteFailure> {
    let mut last = None;
    for range in &engine.superversion().ranges {
        let at = Bytes::from([&range.span().lo[..], &[0]].concat());
        engine.change(Change::Split { keyspace: KeyspaceId::DEFAULT, at: at.clone() }).await?;
        last = engine.change(Change::Merge { keyspace: KeyspaceId::DEFAULT, at }).await?;
        assert!(last.is_some(), "nothing of the one part is older than anything of the other");
    }
    Ok(last.expect("there is a range"))
}

/// A runtime on the test's thread. The test says which actors are held, and moves the clock.
#[derive(Clone)]
pub(crate) struct Stepped {
    tasks: Arc<Mutex<Vec<Stepping>>>,
    /// The name of the actor that is being polled.
    now_running: Arc<Mutex<String>>,
    began: Instant,
    passed: Arc<Mutex<Duration>>,
}

struct Stepping {
    name: String,
    flag: Arc<Flag>,
    body: BoxFuture<'static, ()>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Stepped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stepped")
    }
}

impl Stepped {
    #[allow(clippy::disallowed_methods, reason = "where its clock begins")]
    pub(crate) fn new() -> Self {
        Self {
            tasks: Arc::default(),
            now_running: Arc::default(),
            began: Instant::now(),
            passed: Arc::default(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.tasks).iter().map(|task| task.name.clone()).collect()
    }

    /// Runs every actor that is ready, except those whose names begin with one of `held`.
    pub(crate) fn run_all_but(&self, held: &[&str]) {
        loop {
            let mut task = {
                let mut tasks = lock(&self.tasks);
                let free = |name: &str| !held.iter().any(|held| name.starts_with(held));
                let ready =
                    |task: &Stepping| free(&task.name) && task.flag.0.load(Ordering::SeqCst);
                let Some(at) = tasks.iter().position(ready) else { return };
                tasks.remove(at)
            };
            task.flag.0.store(false, Ordering::SeqCst);
            task.name.clone_into(&mut lock(&self.now_running));
            let waker = Waker::from(Arc::clone(&task.flag));
            if task.body.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                lock(&self.tasks).push(task);
            }
        }
    }

    /// The name of the running actor, for calls from within it.
    pub(crate) fn now_running(&self) -> String {
        lock(&self.now_running).clone()
    }

    /// Polls one actor once.
    pub(crate) fn poll(&self, name: &str) {
        let mut tasks = lock(&self.tasks);
        let at = tasks.iter().position(|task| task.name == name).expect("it is there");
        let mut task = tasks.remove(at);
        drop(tasks);
        let waker = Waker::from(Arc::clone(&task.flag));
        if task.body.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            lock(&self.tasks).push(task);
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        *lock(&self.passed) += by;
    }

    /// Runs every actor but `held` until `future` is done.
    pub(crate) fn run<T>(&self, held: &str, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..1000 {
            if let Poll::Ready(value) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return value;
            }
            self.run_all_but(&[held]);
        }
        panic!("it is never done; there are {:?}", self.names());
    }
}

impl SideBySide for Stepped {}

impl Runtime for Stepped {
    fn spawn(&self, name: &str, body: BoxFuture<'static, ()>) -> std::io::Result<Task> {
        let (task, token) = Task::new();
        let body = Box::pin(async move {
            let _ended = token;
            body.await;
        });
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        lock(&self.tasks).push(Stepping { name: name.to_owned(), flag, body });
        Ok(task)
    }

    fn now(&self) -> Instant {
        self.began + *lock(&self.passed)
    }

    fn unix_ms(&self) -> u64 {
        1_790_000_000_000 + lock(&self.passed).as_millis() as u64
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let this = self.clone();
        // No waker is kept. Whoever moves the clock must poll the sleepers again.
        let awake = move || this.now() >= deadline;
        Box::pin(std::future::poll_fn(
            move |_| if awake() { Poll::Ready(()) } else { Poll::Pending },
        ))
    }
}
