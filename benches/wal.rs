//! What the log costs: a commit turn on each path against one `pwrite` per record, in one run, and
//! reading a log back.
//!
//! The bar: a Buffered turn costs at most a quarter of a `pwrite`. Checked at the end.
//! Everything is on a real file; the payload is a 16-byte key and a 100-byte value.

use criterion::{Criterion, Throughput};
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::codec::crc;
use sluicedb_storage::filename::FileNumber;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::side_by_side::OneByOne;
use sluicedb_storage::vfs::{DiskVfs, Vfs};
use sluicedb_storage::wal::{
    AppendPath, KnownLog, LogIdentity, LogItem, LogWriter, Predecessor, Spare, Unsynced,
    prepare_spare, recycle, replay,
};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SEGMENT_BYTES: u64 = 64 << 20;
/// As in "a sync never".
const NEVER: u64 = u64::MAX;
const IDENTITY: LogIdentity = LogIdentity { db_id: [42; 16] };

fn payload() -> Vec<u8> {
    let mut batch = WriteBatch::new();
    batch.put([7; 16], [9; 100]);
    batch.take_encoded()
}

/// A log on a real directory that never runs out of segments: old ones are recycled, untimed.
struct Rolling {
    vfs: Arc<dyn Vfs>,
    dir: tempfile::TempDir,
    log: Option<LogWriter>,
    seqno: u64,
    number: u64,
}

impl Rolling {
    fn new() -> Self {
        let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
        let dir = tempfile::tempdir_in(".").expect("the working directory is writable");
        Self { vfs, dir, log: None, seqno: 1, number: 1 }
    }

    fn start(&mut self, spare: Spare) {
        let seqno = Seqno(self.seqno);
        self.log = Some(LogWriter::start(IDENTITY, spare, seqno, Predecessor::Barrier));
    }

    /// Makes room for one more record; what is durable is recycled.
    fn turn_over(&mut self) {
        self.number += 1;
        let number = FileNumber(self.number);
        let (vfs, dir) = (&self.vfs, self.dir.path());
        let Some(log) = &mut self.log else {
            let spare = prepare_spare(vfs, dir, &IDENTITY, number, SEGMENT_BYTES, true)
                .expect("room on disk");
            self.start(spare);
            return;
        };
        let fresh =
            prepare_spare(vfs, dir, &IDENTITY, number, 1 << 20, false).expect("room on disk");
        log.rotate(fresh);
        let group = log.take_group();
        group.write().expect("the disk works");
        let unsynced = Unsynced::from(group);
        unsynced.sync().expect("the disk works");
        let sealed = unsynced.sealed()[0].clone();
        drop(unsynced);
        self.number += 1;
        let spare = recycle(&self.vfs, self.dir.path(), &sealed, FileNumber(self.number), true);
        self.start(spare.expect("room on disk"));
    }

    /// Appends `records` records, with an untimed sync after every `synced_every`th.
    fn time(
        &mut self,
        records: u64,
        path: AppendPath,
        payload: &[u8],
        synced_every: u64,
    ) -> Duration {
        let payload_crc = crc(payload);
        let mut spent = Duration::ZERO;
        let mut left = records;
        while left > 0 {
            if self.log.as_ref().is_none_or(|log| !log.has_room(payload.len())) {
                self.turn_over();
            }
            let log = self.log.as_mut().expect("started above");
            let mut start = now();
            while left > 0 && log.has_room(payload.len()) {
                let payload = black_box(payload);
                black_box(log.append(Seqno(self.seqno), 1, payload, payload_crc, path));
                self.seqno += 1;
                left -= 1;
                if left > 0 && left.is_multiple_of(synced_every) {
                    spent += start.elapsed();
                    let group = log.take_group();
                    group.write().expect("the disk works");
                    log.written(&group);
                    let unsynced = Unsynced::from(group);
                    unsynced.sync().expect("the disk works");
                    log.synced(&unsynced);
                    start = now();
                }
                if path == AppendPath::Staged && left.is_multiple_of(64) {
                    // As with 64 clients waiting; the write itself is the log syncer's.
                    let group = log.take_group();
                    log.written(&group);
                    log.synced(&group.into());
                }
            }
            spent += start.elapsed();
        }
        spent
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark has to look at the clock")]
fn now() -> Instant {
    Instant::now()
}

/// One `pwrite` per record into a file that was prepared in the same way.
struct Pwrites {
    rolling: Rolling,
    file: Arc<dyn sluicedb_storage::vfs::File>,
    offset: u64,
}

impl Pwrites {
    fn new() -> Self {
        let rolling = Rolling::new();
        let dir = rolling.dir.path();
        let spare =
            prepare_spare(&rolling.vfs, dir, &IDENTITY, FileNumber(1), SEGMENT_BYTES, false);
        let path = dir.join("000001.wal");
        drop(spare.expect("room on disk"));
        let file = rolling.vfs.open_rw(&path).expect("it was just made");
        Self { rolling, file, offset: 4096 }
    }

    fn time(&mut self, records: u64, record: &[u8]) -> Duration {
        let start = now();
        for _ in 0..records {
            if self.offset + record.len() as u64 > SEGMENT_BYTES {
                self.offset = 4096;
            }
            self.file.write_all_at(black_box(record), self.offset).expect("the disk works");
            self.offset += record.len() as u64;
        }
        start.elapsed()
    }
}

fn commit_turn(c: &mut Criterion) {
    let payload = payload();
    let mut group = c.benchmark_group("wal/turn");
    group.throughput(Throughput::Elements(1));
    let mut mapped = Rolling::new();
    group.bench_function("mapped", |b| {
        b.iter_custom(|records| mapped.time(records, AppendPath::Mapped, &payload, NEVER));
    });
    let mut synced = Rolling::new();
    group.bench_function("mapped, a sync every 1,000", |b| {
        b.iter_custom(|records| synced.time(records, AppendPath::Mapped, &payload, 1000));
    });
    let mut staged = Rolling::new();
    group.bench_function("staged", |b| {
        b.iter_custom(|records| staged.time(records, AppendPath::Staged, &payload, NEVER));
    });
    let mut pwrites = Pwrites::new();
    let record = [&[0; 24], &payload[..], &[0; 1]].concat();
    group.bench_function("pwrite", |b| b.iter_custom(|records| pwrites.time(records, &record)));
    group.finish();
    // The bar, measured the way the groups above are, in turns so that both see the same machine.
    let (mut turn, mut pwrite) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..10 {
        turn += mapped.time(100_000, AppendPath::Mapped, &payload, NEVER);
        pwrite += pwrites.time(100_000, &record);
    }
    let ratio = turn.as_secs_f64() / pwrite.as_secs_f64();
    #[expect(clippy::print_stdout, reason = "a benchmark reports")]
    {
        println!("wal/turn: mapped / pwrite = {ratio:.3} ({:?} / {:?})", turn / 1_000_000, {
            pwrite / 1_000_000
        });
    }
    assert!(ratio <= 0.25, "a Buffered turn costs at most a quarter of a pwrite");
    assert!(pwrites.rolling.log.is_none());
}

fn read_back(c: &mut Criterion) {
    let payload = payload();
    let mut rolling = Rolling::new();
    let records = (SEGMENT_BYTES - (64 << 10)) / 144;
    rolling.time(records, AppendPath::Mapped, &payload, NEVER);
    let log = rolling.log.as_mut().expect("it was used");
    let (number, bytes) = (log.number(), log.tail());
    let group = log.take_group();
    group.write().expect("the disk works");
    Unsynced::from(group).sync().expect("the disk works");
    let mut group = c.benchmark_group("wal/replay");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("records of 117 B, cache dropped", |b| {
        b.iter(|| read(&rolling.vfs, rolling.dir.path(), number, records));
    });
    group.finish();
}

fn read(vfs: &Arc<dyn Vfs>, dir: &Path, number: FileNumber, records: u64) {
    let mut bytes = 0;
    let mut each = |entry: LogItem<'_>| {
        if let LogItem::Batch { payload, .. } = entry {
            bytes += payload.len();
        }
        Ok(())
    };
    let (last_seqno, closed, synced) = (Seqno::MAX, false, None);
    let known =
        KnownLog { floor: number, newest: Some(number), last_seqno, closed, synced, begun: true };
    let report =
        replay(vfs, dir, &IDENTITY, &known, &[number], &OneByOne, &mut each).expect("it is intact");
    assert_eq!(report.records, records);
    black_box(bytes);
}

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(4))
        .warm_up_time(Duration::from_secs(1))
        .configure_from_args();
    commit_turn(&mut criterion);
    read_back(&mut criterion);
    criterion.final_summary();
}
