use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use sluicedb_actors::failure::Failure;
use sluicedb_actors::group_commit::durable::{Committed, DueReplies, Durability, Durable};
use sluicedb_actors::group_commit::{GroupCommit, LogSeat};
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::{Mutex, block_on, lock};
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::codec;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::key::Seqno;
use sluicedb_storage::side_by_side::OneByOne;
use sluicedb_storage::vfs::{CrashKind, MemVfs, Vfs};
use sluicedb_storage::wal::{
    AppendPath, KnownLog, LogIdentity, LogItem, LogWriter, Predecessor, Spare, Unsynced,
    prepare_spare, replay,
};
use std::path::Path;

const DIR: &str = "/db";
const IDENTITY: LogIdentity = LogIdentity { db_id: *b"0123456789abcdef" };

/// The real parts are the log, a seat, the waiters, and the log thread's `GroupCommit`. Answers do
/// not wait for visibility here; the kernel's model of the sequencer covers that.
struct Log {
    vfs: MemVfs,
    seat: Mutex<(LogWriter, Option<Spare>)>,
    durable: Durable,
    due: Signal,
    stop: AtomicBool,
}

impl LogSeat for Log {
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure> {
        Ok(f(&mut lock(&self.seat).0))
    }
}

impl Log {
    /// An empty log on a disk that cannot map. Its first page is durable, and it has one spare
    /// segment.
    fn new() -> Self {
        let vfs = MemVfs::new();
        vfs.set_can_map(false);
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        let spare = |number| {
            let (dir, number) = (Path::new(DIR), FileNumber(number));
            prepare_spare(&disk(&vfs), dir, &IDENTITY, number, 8192, true).unwrap()
        };
        let mut log = LogWriter::start(IDENTITY, spare(1), Seqno(1), Predecessor::Barrier);
        let header = log.take_group();
        header.write().unwrap();
        log.written(&header);
        let header = Unsynced::from(header);
        header.sync().unwrap();
        log.synced(&header);
        let seat = Mutex::new((log, Some(spare(2))));
        let (durable, due) = (Durable::new(Seqno::ZERO), Signal::new());
        Self { vfs, seat, durable, due, stop: AtomicBool::new(false) }
    }

    /// Appends one more write, as a caller does.
    fn append(&self, durability: Durability) -> Answer<Committed> {
        let mut batch = WriteBatch::new();
        batch.put("key", "value");
        let payload = batch.take_encoded();
        let (reply, answer) = reply();
        {
            let mut seat = lock(&self.seat);
            let (log, _) = &mut *seat;
            let seqno = log.next_seqno();
            log.append(seqno, 1, &payload, codec::crc(&payload), AppendPath::Staged);
            assert!(self.durable.register(durability, seqno, reply).is_ok());
        }
        self.due.set();
        answer
    }

    /// Rotates, as a write that finds no room does.
    fn leave_segment(&self) {
        {
            let mut seat = lock(&self.seat);
            let (log, spare) = &mut *seat;
            log.rotate(spare.take().expect("one rotation"));
        }
        self.due.set();
    }

    /// The log thread.
    fn serve(&self) {
        let mut groups = GroupCommit::new(self, &self.durable);
        loop {
            let last = self.stop.load(Ordering::Acquire);
            while groups.take_due().unwrap() {
                send(groups.write().unwrap());
                if groups.must_sync(u64::MAX) {
                    send(groups.sync(|_| ()).unwrap());
                }
            }
            if last {
                return;
            }
            block_on(self.due.wait());
        }
    }

    /// Asserts that everything up to `upto` survives a power cut now.
    fn survives(&self, upto: Seqno) {
        let cut = self.vfs.crash_clone(CrashKind::DropUnsynced);
        let numbers: Vec<_> = (1..=2).map(FileNumber).collect();
        let numbers = numbers
            .into_iter()
            .filter(|number| cut.len(&FileKind::Wal(*number).path(Path::new(DIR))).is_ok());
        let numbers: Vec<_> = numbers.collect();
        let each = &mut |_: LogItem<'_>| Ok(());
        let (dir, floor) = (Path::new(DIR), FileNumber(1));
        let (last_seqno, synced) = (Seqno::MAX, None);
        let known =
            KnownLog { floor, newest: Some(floor), last_seqno, closed: false, synced, begun: true };
        let report =
            replay(&disk(&cut), dir, &IDENTITY, &known, &numbers, &OneByOne, each).unwrap();
        assert!(report.last_seqno >= upto, "{upto} was promised: {report:?}");
    }
}

fn disk(vfs: &MemVfs) -> std::sync::Arc<dyn Vfs> {
    std::sync::Arc::new(vfs.clone())
}

fn send(passed: DueReplies) {
    for (seqno, reply) in passed {
        reply.send(Ok(seqno));
    }
}

/// Group commit of two writers: whoever is answered is on the disk, with everything before it, and
/// `durable` never claims more than the disk has. One of them leaves a segment.
/// Catches: `durable` that is raised before the sync; a left segment that is looked for in one
/// visit of the seat and taken in another, with a sync of the last group's segments only.
#[test]
fn durable_never_overstates() {
    loom::model(|| {
        let log = Arc::new(Log::new());
        let (serving, writing) = (log.clone(), log.clone());
        let thread = thread::spawn(move || serving.serve());
        let writer = thread::spawn(move || {
            let answer = writing.append(Durability::Synced);
            writing.survives(writing.durable.synced());
            let seqno = block_on(answer).unwrap().unwrap();
            writing.survives(seqno);
            assert!(writing.durable.synced() >= seqno);
        });
        // Written, and perhaps not synced by itself. Then the segment is left.
        let answer = log.append(Durability::Buffered);
        log.leave_segment();
        block_on(answer).unwrap().unwrap();
        let seqno = block_on(log.append(Durability::Synced)).unwrap().unwrap();
        log.survives(seqno);
        writer.join().unwrap();
        log.stop.store(true, Ordering::Release);
        log.due.set();
        thread.join().unwrap();
    });
}
