#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::durable::Durability;
use super::*;
use durable::Committed;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::sync::{Mutex, lock};
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::codec;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::key::Seqno;
use sluicedb_storage::side_by_side::OneByOne;
use sluicedb_storage::vfs::{CrashKind, MemVfs, Vfs};
use sluicedb_storage::wal::{
    AppendPath, KnownLog, LogIdentity, LogItem, Predecessor, prepare_spare, replay,
};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/db";
const IDENTITY: LogIdentity = LogIdentity { db_id: *b"0123456789abcdef" };

struct Log {
    vfs: MemVfs,
    seat: Mutex<LogWriter>,
    durable: Durable,
}

impl LogSeat for Log {
    fn with_writer<R>(&self, f: impl FnOnce(&mut LogWriter) -> R) -> Result<R, Failure> {
        Ok(f(&mut lock(&self.seat)))
    }
}

impl Log {
    fn new(can_map: bool) -> Self {
        let vfs = MemVfs::new();
        vfs.set_can_map(can_map);
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        let (dir, number) = (Path::new(DIR), FileNumber(1));
        let spare = prepare_spare(&disk(&vfs), dir, &IDENTITY, number, 8192, true).unwrap();
        let log = LogWriter::start(IDENTITY, spare, Seqno(1), Predecessor::Barrier);
        Self { vfs, seat: Mutex::new(log), durable: Durable::new(Seqno::ZERO) }
    }

    /// Appends one more write, as a caller does.
    fn append(&self, durability: Durability) -> Answer<Committed> {
        let mut batch = WriteBatch::new();
        batch.put("key", vec![b'v'; 100]);
        let payload = batch.take_encoded();
        let (reply, answer) = reply();
        self.with_writer(|log| {
            let seqno = log.next_seqno();
            log.append(seqno, 1, &payload, codec::crc(&payload), AppendPath::Staged);
            assert!(self.durable.register(durability, seqno, reply).is_ok());
        })
        .unwrap();
        answer
    }

    fn rotate(&self) {
        self.with_writer(|log| {
            let number = FileNumber(log.number().0 + 1);
            let (disk, dir) = (disk(&self.vfs), Path::new(DIR));
            log.rotate(prepare_spare(&disk, dir, &IDENTITY, number, 8192, true).unwrap());
        })
        .unwrap();
    }

    /// How many records survive a power cut now.
    fn after_power_cut(&self) -> u64 {
        let cut = self.vfs.crash_clone(CrashKind::DropUnsynced);
        let mut numbers: Vec<_> = cut
            .list(Path::new(DIR))
            .unwrap()
            .iter()
            .filter_map(|name| match FileKind::parse(name) {
                Some(FileKind::Wal(number)) => Some(number),
                _ => None,
            })
            .collect();
        numbers.sort();
        let each = &mut |_: LogItem<'_>| Ok(());
        let dir = Path::new(DIR);
        let (floor, last_seqno, synced) = (FileNumber(1), Seqno::MAX, None);
        let known = KnownLog { floor, newest: Some(floor), last_seqno, closed: false, synced };
        replay(&disk(&cut), dir, &IDENTITY, &known, &numbers, &OneByOne, each).unwrap().records
    }
}

fn disk(vfs: &MemVfs) -> Arc<dyn Vfs> {
    Arc::new(vfs.clone())
}

fn send(passed: DueReplies) -> Vec<u64> {
    let seqnos = passed.iter().map(|(seqno, _)| seqno.0).collect();
    for (seqno, reply) in passed {
        reply.send(Ok(seqno));
    }
    seqnos
}

/// Goal: a segment that was left is synced, and can become obsolete, whatever the log thread saw
/// when it looked. Planted: `must_sync` asks only whether somebody waits, and `Unsynced` forgets
/// what earlier groups wrote to.
#[test]
fn a1_a_sealed_segment_is_synced_whoever_took_it() {
    for can_map in [false, true] {
        let log = Log::new(can_map);
        let mut groups = GroupCommit::new(&log, &log.durable);
        // When the log thread looks, nobody wants a sync and no segment was left.
        drop(log.append(Durability::Buffered));
        assert!(groups.take_due().unwrap() && !groups.must_sync());
        send(groups.write().unwrap());
        drop(log.append(Durability::Buffered));
        assert!(groups.take_due().unwrap());
        // Meanwhile somebody writes and leaves the segment.
        let acked = log.append(Durability::Synced);
        log.rotate();
        drop(log.append(Durability::Buffered));
        send(groups.write().unwrap());
        assert!(!groups.must_sync(), "what was left was not taken yet");
        assert!(groups.take_due().unwrap());
        send(groups.write().unwrap());
        let mut retired = Vec::new();
        assert!(groups.must_sync() && groups.has_left_segment());
        let synced = groups.sync(|sealed| retired.extend_from_slice(sealed)).unwrap();
        assert_eq!(send(synced), [3]);
        assert_eq!(futures::executor::block_on(acked).unwrap().unwrap(), Seqno(3));
        assert_eq!(retired.iter().map(|sealed| sealed.number.0).collect::<Vec<_>>(), [1]);
        assert_eq!(log.after_power_cut(), 4);
        assert!(!groups.must_sync());
    }
}

/// As above, but the thread took a group with a left segment while nobody wanted a sync, and a
/// later group brings the sync.
#[test]
fn a1_a_later_sync_covers_what_was_only_written() {
    let log = Log::new(false);
    let mut groups = GroupCommit::new(&log, &log.durable);
    drop(log.append(Durability::Buffered));
    log.rotate();
    assert!(groups.take_due().unwrap());
    send(groups.write().unwrap());
    assert!(groups.must_sync(), "nobody waits, yet the segment is to be retired");
    let acked = log.append(Durability::Synced);
    assert!(groups.take_due().unwrap());
    send(groups.write().unwrap());
    let mut retired = 0;
    assert_eq!(send(groups.sync(|sealed| retired += sealed.len()).unwrap()), [2]);
    assert!(futures::executor::block_on(acked).unwrap().is_ok());
    assert_eq!((retired, log.after_power_cut()), (1, 2));
    assert_eq!(log.durable.synced(), Seqno(2));
}

/// Planted: an idle log thread appends no watermark; it syncs the watermark.
#[test]
fn an_idle_log_says_that_its_end_is_durable() {
    let log = Log::new(false);
    let mut groups = GroupCommit::new(&log, &log.durable);
    drop(log.append(Durability::Synced));
    assert!(groups.take_due().unwrap());
    send(groups.write().unwrap());
    send(groups.sync(|_| ()).unwrap());
    let tail = || log.with_writer(|log| log.tail()).unwrap();
    let before = tail();
    assert!(groups.take_due().unwrap(), "the log confirms its end");
    assert!(tail() > before);
    send(groups.write().unwrap());
    assert!(!groups.must_sync() && !groups.take_due().unwrap(), "and once is enough");
}
