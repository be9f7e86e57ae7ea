//! A planner with workers that are played.

use super::*;

/// An engine over a disk in memory. Its actors run when the test says so.
pub(super) struct Home {
    pub(super) runtime: Stepped,
    pub(super) disk: MemVfs,
    pub(super) engine: Engine,
}

pub(super) const RANGES: u8 = 3;
pub(super) const KEYS: u8 = 40;
/// The thread name of the engine's own planner.
pub(super) const PLANNER: &str = "sluice-plan";

impl Home {
    /// Each test needs a directory of its own, because no engine here ever releases its lock.
    pub(super) fn new(dir: &str, compaction_threads: usize) -> Self {
        Self::with(dir, RANGES, compaction_threads, |config| {
            config.compaction.l0_trigger = 2;
            config.compaction.level_base_bytes = 4 << 10;
            config.compaction.level_ratio = 2;
            config.compaction.table_bytes_max = 2 << 10;
            config.compaction.landing_runs_max = 0;
        })
    }

    pub(super) fn with(
        dir: &str,
        ranges: u8,
        compaction_threads: usize,
        set: impl FnOnce(&mut EngineConfig),
    ) -> Self {
        let (runtime, disk) = (Stepped::new(), MemVfs::new());
        let compaction_threads = compaction_threads.try_into().expect("not 0");
        let mut config = EngineConfig { compaction_threads, ..config(dir, ranges) };
        config.l0_table.compression = Compression::None;
        set(&mut config);
        let opening = Engine::open(config, Arc::new(disk.clone()), Arc::new(runtime.clone()));
        let engine = runtime.run(PLANNER, opening).expect("an empty directory opens");
        Self { runtime, disk, engine }
    }

    pub(super) fn version(&self) -> Version {
        self.engine.parts.files.version(&self.engine.superversion())
    }

    /// Writes two tables to L0 of each range, so that all are due.
    pub(super) fn fill_l0(&self) {
        for _ in 0..2 {
            let mut batch = WriteBatch::new();
            for range in 0..RANGES {
                for key in 0..KEYS {
                    batch.put([range, key], [key; 300]);
                }
            }
            self.write(batch);
        }
    }

    /// Writes a batch and flushes.
    pub(super) fn write(&self, batch: WriteBatch) {
        self.submit(batch);
        self.runtime.run(PLANNER, self.engine.flush()).expect("the disk works");
    }

    /// Writes a batch.
    pub(super) fn submit(&self, mut batch: WriteBatch) {
        let operations = batch.len() as u32;
        let payload = batch.take_encoded().into();
        let written =
            self.engine.write_path().submit_owned(payload, operations, Durability::Buffered);
        assert!(matches!(written, Ok(Submitted::Done(_) | Submitted::Waiting(_))));
    }

    /// Merges each range's L0 into L1, which is then over its limit, and fills L0 again.
    pub(super) fn fill_l0_and_l1(&self) {
        self.fill_l0();
        self.runtime.poll(PLANNER);
        self.runtime.run_all_but(&[PLANNER]);
        self.fill_l0();
        for range in self.version().ranges() {
            let count = |place| range.layers.in_order(place).len();
            assert!(count(Place::L0) >= 2 && count(Place::Main(1)) > 4);
        }
    }

    pub(super) fn compact(&self, span: Span) -> Answer<Result<(), Failure>> {
        request(&self.engine.parts.planner, span)
    }
}

/// The progress watch of requests that are never cancelled.
pub(super) static WANTED: LazyLock<Arc<ProgressWatch>> = LazyLock::new(unseen);

pub(super) fn unseen() -> Arc<ProgressWatch> {
    Arc::new(ProgressWatch::new(Progress::default()))
}

pub(super) fn request(
    planner: &Mailbox<PlannerMessage>,
    span: Span,
) -> Answer<Result<(), Failure>> {
    request_shown(planner, span, &WANTED)
}

pub(super) fn request_shown(
    planner: &Mailbox<PlannerMessage>,
    span: Span,
    shown: &Arc<ProgressWatch>,
) -> Answer<Result<(), Failure>> {
    let (reply, answer) = reply();
    let permit = planner.try_reserve(1).expect("there is room");
    let (order, shown) =
        (ManualCompaction::whole(KeyspaceId::DEFAULT, span), Arc::downgrade(shown));
    permit.send(PlannerMessage::Compact { order, shown, reply }).expect("the planner is there");
    answer
}

pub(super) fn of_range(range: u8) -> Span {
    Span::prefix(&[range])
}

/// A second planner, over an engine's tables. The engine's own planner does not run. The test plays
/// the workers.
pub(super) struct Played {
    pub(super) due: Arc<TablesDue>,
    pub(super) planner: BoxFuture<'static, ()>,
    pub(super) requests: Mailbox<PlannerMessage>,
    pub(super) inboxes: Vec<Inbox<Assignment>>,
    pub(super) reports: Mailbox<Report>,
    pub(super) running: Vec<Option<ClaimedJob>>,
}

impl Played {
    pub(super) fn new(home: &Home, workers: usize) -> Self {
        let parts = &home.engine.parts;
        let (files, topology) = (Arc::clone(&parts.files), Arc::clone(&parts.topology));
        let due = Arc::<TablesDue>::default();
        let one = Capacity { messages: 1, bytes: 1 };
        let (requests, inbox) = Mailbox::new(Capacity { messages: 4, bytes: 4 });
        // The last worker gets only jobs that need no merge.
        let workers = workers + 1;
        let (jobs, inboxes) = (0..workers).map(|_| Mailbox::new(one)).unzip();
        let (reports, ended) = Mailbox::new(Capacity { messages: workers, bytes: 64 });
        let planner = CompactionPlanner::new(files, topology, Arc::clone(&due), inbox, jobs, ended);
        let running = (0..workers).map(|_| None).collect();
        Self { due, planner: planner.run().boxed(), requests, inboxes, reports, running }
    }

    /// Lets the planner look, and lets the workers take their jobs.
    pub(super) fn look(&mut self) {
        self.due.compaction.set();
        self.take();
    }

    /// Polls the planner, and lets the workers take their jobs.
    pub(super) fn take(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.planner.as_mut().poll(&mut context).is_pending(), "it goes on");
        for (inbox, running) in self.inboxes.iter_mut().zip(&mut self.running) {
            if let Some(assignment) = inbox.try_recv() {
                assert!(running.is_none(), "a worker has one job at a time");
                *running = Some(assignment.job);
            }
        }
    }

    /// Ends the worker's job and reports it to the planner.
    pub(super) fn end(&mut self, worker: usize, ended: Ended) {
        let job = self.running[worker].take().expect("it has a job");
        let permit = self.reports.try_reserve(1).expect("each worker has room");
        permit.send(Report { worker, job, ended }).expect("the planner is there");
        self.look();
    }

    pub(super) fn job(&self, worker: usize) -> &ClaimedJob {
        self.running[worker].as_ref().expect("it has a job")
    }

    pub(super) fn count(&self) -> usize {
        self.running.iter().flatten().count()
    }
}

pub(super) fn io_error() -> Failure {
    let error = std::io::Error::from_raw_os_error(5);
    Failure::storage(Error::io("write", Path::new("/db/000099.tmp"), error))
}
