//! A log on a simulated disk, and what writes it, syncs it and replays it.

use super::*;
use crate::side_by_side::OneByOne;

pub(super) const DIR: &str = "/db";
/// Length of the begin record of a segment that continues another one.
pub(super) const BEGIN: u64 = 24 + 40;
/// Length of the `continued` record.
pub(super) const CONTINUED: u64 = 24 + 8;
pub(super) const IDENTITY: LogIdentity = LogIdentity { db_id: *b"0123456789abcdef" };

/// The batch of `count` operations that is unique to `first`.
pub(super) fn batch(first: u64, count: u32, value_len: usize) -> Vec<u8> {
    let mut batch = WriteBatch::new();
    for i in 0..u64::from(count) {
        let seqno = first + i;
        if seqno % 5 == 4 {
            batch.delete(seqno.to_be_bytes());
        } else {
            batch.put(seqno.to_be_bytes(), vec![seqno as u8; value_len]);
        }
    }
    batch.take_encoded()
}

/// The contents of a record with sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Batch(Vec<u8>),
    Change(ChangeId),
}

/// The batch that `batch` makes.
pub(super) fn said(first: u64, count: u32, value_len: usize) -> Said {
    Said::Batch(batch(first, count, value_len))
}

/// The change that is unique to this sequence number.
pub(super) fn change(seqno: u64) -> ChangeId {
    ChangeId(seqno.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Everything that was replayed, and the report.
pub(super) type Replayed = (Vec<(u64, Said)>, ReplayReport);

/// Replays the whole log of a disk.
pub(super) fn replay_all(vfs: &MemVfs, floor: u64) -> Result<Replayed> {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let mut numbers: Vec<_> = vfs
        .list(Path::new(DIR))
        .unwrap()
        .iter()
        .filter_map(|name| match FileKind::parse(name) {
            Some(FileKind::Wal(number)) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort();
    let mut records = Vec::new();
    let mut each = |entry: LogItem<'_>| {
        records.push(match entry {
            LogItem::Batch { first, payload } => (first.0, Said::Batch(payload.to_vec())),
            LogItem::Change { seqno, id } => (seqno.0, Said::Change(id)),
        });
        Ok(())
    };
    let report =
        replay(&vfs, Path::new(DIR), &IDENTITY, &known(floor), &numbers, &OneByOne, &mut each)?;
    Ok((records, report))
}

/// A manifest that records nothing but the floor.
pub(super) fn known(floor: u64) -> KnownLog {
    KnownLog {
        floor: FileNumber(floor),
        newest: None,
        last_seqno: Seqno::MAX,
        closed: false,
        synced: None,
        begun: true,
    }
}

/// A disk with a log on it.
pub(super) struct Bench {
    pub(super) vfs: MemVfs,
    pub(super) log: LogWriter,
    pub(super) next: u64,
    pub(super) next_number: u64,
}

impl Bench {
    pub(super) fn new(segment_bytes: u64) -> Self {
        Self::on(MemVfs::new(), segment_bytes)
    }

    pub(super) fn on(vfs: MemVfs, segment_bytes: u64) -> Self {
        vfs.create_dir_all(Path::new(DIR)).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        let spare = spare(&vfs, 1, segment_bytes, true);
        let log = LogWriter::start(IDENTITY, spare, Seqno(1), Predecessor::Barrier);
        let mut bench = Self { vfs, log, next: 1, next_number: 2 };
        bench.sync();
        bench
    }

    pub(super) fn append(&mut self, count: u32, value_len: usize, path: AppendPath) -> Appended {
        let payload = batch(self.next, count, value_len);
        let first = Seqno(self.next);
        self.next += u64::from(count);
        self.log.append(first, count, &payload, crc(&payload), path)
    }

    pub(super) fn append_change(&mut self, path: AppendPath) -> Appended {
        let seqno = self.next;
        self.next += 1;
        self.log.append_change(Seqno(seqno), change(seqno), path)
    }

    pub(super) fn write(&mut self) -> SyncGroup {
        let group = self.log.take_group();
        group.write().unwrap();
        self.log.written(&group);
        group
    }

    pub(super) fn sync(&mut self) -> Unsynced {
        let unsynced = self.write().into();
        self.report_synced(&unsynced);
        unsynced
    }

    pub(super) fn report_synced(&mut self, unsynced: &Unsynced) {
        unsynced.sync().unwrap();
        self.log.synced(unsynced);
    }

    pub(super) fn spare(&mut self, bytes: u64) -> Spare {
        let number = self.next_number;
        self.next_number += 1;
        spare(&self.vfs, number, bytes, true)
    }

    pub(super) fn rotate(&mut self) {
        let spare = self.spare(self.log.segment_bytes());
        self.log.rotate(spare);
    }

    pub(super) fn replay(&self) -> Result<Replayed> {
        replay_all(&self.vfs, 1)
    }
}

pub(super) fn spare(vfs: &MemVfs, number: u64, bytes: u64, mapped: bool) -> Spare {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    prepare_spare(&vfs, Path::new(DIR), &IDENTITY, FileNumber(number), bytes, mapped).unwrap()
}

pub(super) fn wal_path(number: u64) -> PathBuf {
    FileKind::Wal(FileNumber(number)).path(Path::new(DIR))
}
