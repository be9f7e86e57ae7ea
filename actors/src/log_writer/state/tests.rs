//! Changes and batches behind the seat share one order and one set of rules.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::side_by_side::OneByOne;
use sluicedb_storage::vfs::{MemVfs, Vfs};
use sluicedb_storage::wal::{
    KnownLog, LogIdentity, LogItem, Predecessor, Unsynced, prepare_spare, replay,
};
use std::path::Path;

const DIR: &str = "/db";
const IDENTITY: LogIdentity = LogIdentity { db_id: *b"0123456789abcdef" };

struct Bench {
    vfs: Arc<dyn Vfs>,
    state: LogState,
    commits: Sequencer,
    superversion: Published<Superversion>,
    durable: Durable,
    next_number: u64,
}

impl Bench {
    fn new() -> Self {
        let mem = MemVfs::new();
        mem.create_dir_all(Path::new(DIR)).unwrap();
        let vfs: Arc<dyn Vfs> = Arc::new(mem);
        let log = LogWriter::start(IDENTITY, spare(&vfs, 1), Seqno(1), Predecessor::Barrier);
        Self {
            vfs,
            state: LogState::new(log, Seqno(1), 1, Arc::default()),
            commits: Sequencer::new(0, 8),
            superversion: Published::new(Arc::new(Superversion::new(
                1,
                1,
                Seqno::ZERO,
                Arc::default(),
                Vec::new(),
            ))),
            durable: Durable::new(Seqno::ZERO),
            next_number: 2,
        }
    }

    fn add_spare(&mut self) {
        let spare = spare(&self.vfs, self.next_number);
        self.next_number += 1;
        let Self { state, commits, superversion, durable, .. } = self;
        let way = Way { commits, superversion, durable };
        state.add_spare(spare, way, &mut AfterTurn::default());
    }

    fn batch(&mut self, operations: u32, durability: Durability) -> Result<Stamped, NoRoom> {
        let payload = batch(operations);
        self.state.make_room(payload.len())?;
        Ok(self.state.append(&payload, codec::crc(&payload), operations, durability))
    }

    /// Each record's first number, with a change's id or the count of a batch's operations.
    fn logged(&mut self) -> Vec<(Seqno, Result<ChangeId, u32>)> {
        let group = self.state.log.take_group();
        group.write().unwrap();
        self.state.log.written(&group);
        let unsynced = Unsynced::from(group);
        unsynced.sync().unwrap();
        self.state.log.synced(&unsynced);
        let names = self.vfs.list(Path::new(DIR)).unwrap();
        let numbers = names.iter().filter_map(|name| FileKind::parse(name)?.number());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort();
        let (floor, last_seqno, synced) = (FileNumber(1), Seqno::MAX, None);
        let known =
            KnownLog { floor, newest: None, last_seqno, closed: false, synced, begun: true };
        let mut found = Vec::new();
        let mut each = |entry: LogItem<'_>| {
            found.push(match entry {
                LogItem::Batch { first, payload } => (first, Err(payload.len() as u32 / 3)),
                LogItem::Change { seqno, id } => (seqno, Ok(id)),
            });
            Ok(())
        };
        let dir = Path::new(DIR);
        let report =
            replay(&self.vfs, dir, &IDENTITY, &known, &numbers, &OneByOne, &mut each).unwrap();
        assert_eq!(report.last_seqno, self.state.last_seqno());
        found
    }
}

fn spare(vfs: &Arc<dyn Vfs>, number: u64) -> Spare {
    prepare_spare(vfs, Path::new(DIR), &IDENTITY, FileNumber(number), 8192, true).unwrap()
}

/// An encoded batch. Each operation takes three bytes.
fn batch(operations: u32) -> Vec<u8> {
    let mut batch = WriteBatch::new();
    for _ in 0..operations {
        batch.delete([7]);
    }
    batch.take_encoded()
}

#[test]
fn changes_and_batches_share_one_order_of_numbers() {
    let mut bench = Bench::new();
    let mut want = Vec::new();
    for (round, durability) in
        [Durability::Buffered, Durability::Synced, Durability::Buffered].into_iter().enumerate()
    {
        let stamped = bench.state.append_change(ChangeId(round as u64), durability).unwrap();
        assert_eq!((stamped.first, stamped.last), (stamped.last, bench.state.last_seqno()));
        assert_eq!(stamped.in_file, durability == Durability::Buffered);
        want.push((stamped.first, Ok(ChangeId(round as u64))));
        let stamped = bench.batch(3, durability).unwrap();
        assert_eq!(
            (stamped.first, stamped.last),
            (Seqno(2 + 4 * round as u64), Seqno(4 + 4 * round as u64))
        );
        want.push((stamped.first, Err(3)));
    }
    assert_eq!(bench.state.next_seqno(), Seqno(13));
    assert_eq!(bench.logged(), want);
    // The log counts the bytes of both. The other counters are about batches only.
    let counts = &bench.state.counts;
    assert_eq!(counts.log_bytes.get(), 3 * (32 + 40));
    assert_eq!((counts.commits.get(), counts.entries_written.get()), (3, 9));
    assert_eq!(counts.bytes_written.get(), 3 * 9);
}

#[test]
fn a_change_without_room_is_not_stamped_and_goes_on_in_the_next_segment() {
    let mut bench = Bench::new();
    let mut spare_due = 0;
    let last = loop {
        match bench.state.append_change(ChangeId(5), Durability::Synced) {
            Ok(stamped) => spare_due += usize::from(stamped.spare_due),
            Err(NoRoom::Later) => break bench.state.last_seqno(),
            Err(refused) => panic!("{refused:?}"),
        }
    };
    assert_eq!(spare_due, 1, "the keeper is told once per segment");
    assert!(bench.state.spare_wanted(2).is_some());
    // A change needs a segment, and it needs a log that does not refuse.
    let full = Failure::Closed;
    bench.state.refuse_room(&full, &mut AfterTurn::default());
    let refused = bench.state.append_change(ChangeId(6), Durability::Synced);
    assert!(matches!(refused, Err(NoRoom::Refused(_))));
    bench.add_spare();
    bench.state.refuse_for_now(&full, &mut AfterTurn::default());
    let refused = bench.state.append_change(ChangeId(7), Durability::Synced);
    assert!(matches!(refused, Err(NoRoom::Refused(_))));
    bench.state.resume();
    let stamped = bench.state.append_change(ChangeId(8), Durability::Synced).unwrap();
    assert_eq!((stamped.first, stamped.rotated), (last.next(), true));
    assert_eq!(bench.state.segments.of(last).0, FileNumber(1));
    assert_eq!(bench.state.segments.of(stamped.first), (FileNumber(2), stamped.first));
    assert_eq!(bench.state.segments.current_first_seqno(), stamped.first);
    let logged = bench.logged();
    assert_eq!(logged.len() as u64, stamped.first.0);
    assert_eq!(logged.last(), Some(&(stamped.first, Ok(ChangeId(8)))));
    bench.state.close(full, &mut AfterTurn::default());
    let closed = bench.state.append_change(ChangeId(9), Durability::Synced);
    assert!(matches!(closed, Err(NoRoom::Refused(_))));
    assert_eq!(bench.state.last_seqno(), stamped.first);
}

/// Goal: a change that waits for a segment is enough for one to be prepared, also after the log has
/// rested and given up its spares. No batch is parked then.
///
/// Planted: only parked batches, and records that reach a quarter of the segment, ask for one.
#[test]
fn a_change_that_waits_asks_for_a_segment_by_itself() {
    let mut bench = Bench::new();
    bench.add_spare();
    let next = bench.state.next_seqno();
    assert_eq!(bench.state.give_up_spares(next, 64 << 10).len(), 1);
    while bench.state.append_change(ChangeId(5), Durability::Synced).is_ok() {}
    let wanted = bench.state.spare_wanted(1).expect("the change waits");
    assert!(wanted.soon && wanted.late);
}
