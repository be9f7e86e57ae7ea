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
        self.after_power_cut_from(FileNumber(1))
    }

    /// How many of them are in the segments from `floor` on.
    fn after_power_cut_from(&self, floor: FileNumber) -> u64 {
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
        let (last_seqno, synced) = (Seqno::MAX, None);
        let known =
            KnownLog { floor, newest: Some(floor), last_seqno, closed: false, synced, begun: true };
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
        assert!(groups.take_due().unwrap() && !groups.must_sync(0));
        send(groups.write().unwrap());
        drop(log.append(Durability::Buffered));
        assert!(groups.take_due().unwrap());
        // Meanwhile somebody writes and leaves the segment.
        let acked = log.append(Durability::Synced);
        log.rotate();
        drop(log.append(Durability::Buffered));
        send(groups.write().unwrap());
        assert!(!groups.must_sync(0), "what was left was not taken yet");
        assert!(groups.take_due().unwrap());
        send(groups.write().unwrap());
        let mut retired = Vec::new();
        assert!(groups.must_sync(0));
        let synced = groups.sync(|sealed| retired.extend_from_slice(sealed)).unwrap();
        assert_eq!(send(synced), [3]);
        assert_eq!(futures::executor::block_on(acked).unwrap().unwrap(), Seqno(3));
        assert_eq!(retired.iter().map(|sealed| sealed.number.0).collect::<Vec<_>>(), [1]);
        assert_eq!(log.after_power_cut(), 4);
        assert!(!groups.must_sync(0));
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
    assert!(groups.must_sync(0), "nobody waits, yet the segment is to be retired");
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
    assert!(!groups.must_sync(0) && !groups.take_due().unwrap(), "and once is enough");
}

/// One that left a segment, took and wrote what was in it. Whether it must be synced now.
fn leaves(log: &Log, groups: &mut GroupCommit<'_, Log>) -> bool {
    drop(log.append(Durability::Buffered));
    log.rotate();
    assert!(groups.take_due().unwrap());
    send(groups.write().unwrap());
    groups.must_sync(3 * 8192)
}

/// Goal: while nobody asks for a sync, segments that were left are not synced, up to a limit. A
/// sync that somebody asks for covers all of them, and from then on the next one is synced at once.
///
/// Planted: `must_sync` does not ask whether it is calm; it counts no bytes, or no segments;
/// `sync_was_wanted` stays as it is.
#[test]
fn a1_a_sync_that_was_put_off_comes_before_whoever_asks_is_answered() {
    for can_map in [false, true] {
        let log = Log::new(can_map);
        let mut groups = GroupCommit::new(&log, &log.durable);
        assert!(leaves(&log, &mut groups), "nobody knows yet whether anybody will ask");
        send(groups.sync(|_| ()).unwrap());
        assert!((2..5).all(|_| !leaves(&log, &mut groups)));
        assert_eq!((log.durable.synced(), log.after_power_cut()), (Seqno(1), 1));
        let acked = log.append(Durability::Synced);
        assert!(groups.take_due().unwrap());
        send(groups.write().unwrap());
        let mut retired = 0;
        assert_eq!(send(groups.sync(|sealed| retired += sealed.len()).unwrap()), [5]);
        assert!(futures::executor::block_on(acked).unwrap().is_ok());
        assert_eq!((retired, log.after_power_cut()), (3, 5));
        assert!(leaves(&log, &mut groups), "somebody has asked since the last one was left");
        send(groups.sync(|_| ()).unwrap());
        assert!((7..10).all(|_| !leaves(&log, &mut groups)));
        assert!(leaves(&log, &mut groups), "that is too much");
        assert!(!groups.must_sync(u64::MAX));
        assert!((11..23).all(|_| leaves(&log, &mut groups)));
        assert!(!groups.must_sync(u64::MAX));
        assert!(leaves(&log, &mut groups) && groups.must_sync(u64::MAX), "these are too many");
    }
}

/// Goal: what is in tables needs no sync. It counts as durable, and a later sync covers what is
/// left.
///
/// Planted: `give_up_below` takes the segment at the floor as well; it leaves the targets; it does
/// not raise what is durable.
#[test]
fn a1_segments_below_the_floor_are_given_up_and_never_synced() {
    let log = Log::new(true);
    let mut groups = GroupCommit::new(&log, &log.durable);
    assert!(leaves(&log, &mut groups));
    send(groups.sync(|_| ()).unwrap());
    assert!((2..5).all(|_| !leaves(&log, &mut groups)));
    let mut retired = Vec::new();
    let mut numbers = |sealed: &[SealedSegment]| {
        retired.extend(sealed.iter().map(|sealed| sealed.number.0));
    };
    assert!(groups.give_up_below(FileNumber(2), &mut numbers).is_empty());
    assert_eq!(log.durable.synced(), Seqno(1));
    let (reply, answer) = reply();
    log.durable.register_sync(Seqno(3), reply).unwrap();
    assert_eq!(send(groups.give_up_below(FileNumber(4), &mut numbers)), [3]);
    assert_eq!(futures::executor::block_on(answer).unwrap().unwrap(), Seqno(3));
    assert_eq!(log.durable.synced(), Seqno(3));
    let synced_before = log.after_power_cut();
    let acked = log.append(Durability::Synced);
    assert!(groups.take_due().unwrap());
    send(groups.write().unwrap());
    assert_eq!(send(groups.sync(&mut numbers).unwrap()), [5]);
    assert!(futures::executor::block_on(acked).unwrap().is_ok());
    assert_eq!(retired, [2, 3, 4]);
    assert_eq!(synced_before, 1, "the file of the second segment has nothing");
    assert_eq!(log.after_power_cut_from(FileNumber(4)), 2);
}
