//! Tables of ten entries each on a simulated disk. There are more of them than may be open.

use super::*;
use crate::codec::hash64;
use crate::compact::TableSink;
use crate::error::Lacks;
use crate::filename::FileNumber;
use crate::iter::{ConcatCursor, Cursor};
use crate::key::{Kind, Seqno};
use crate::table::{CursorOptions, ReadTier, TableOptions};
use crate::version::{Run, RunParts, Slice};
use crate::vfs::{Fault, FaultControl, FaultVfs, MemVfs, OperationKind};

const DB_ID: [u8; 16] = [7; 16];
const EMFILE: i32 = 24;

struct Home {
    cache: Arc<TableCache>,
    handles: Vec<Arc<TableHandle>>,
    faults: FaultControl,
}

fn key(table: usize, entry: usize) -> Vec<u8> {
    format!("key{table:05}-{entry}").into_bytes()
}

fn home(tables: usize, open_max: usize, memory_bytes_max: u64) -> Home {
    let mem = MemVfs::new();
    let dir = Path::new("/db");
    mem.create_dir_all(dir).unwrap();
    let vfs = FaultVfs::over_mem(&mem);
    let faults = vfs.control();
    let vfs: Arc<dyn Vfs> = Arc::new(vfs);
    let mut next = 0;
    let mut sink = TableSink::new(&vfs, dir, DB_ID, TableOptions::default(), || {
        next += 1;
        FileNumber(next)
    });
    for table in 0..tables {
        for entry in 0..10 {
            sink.add(&key(table, entry), Seqno(1), Kind::Put, b"value").unwrap();
        }
        sink.cut().unwrap();
    }
    let metas = sink.finish().unwrap();
    let limits = TableLimits { open_max, memory_bytes_max, blocks: BlockCache::new(1 << 20) };
    let cache = TableCache::new(&vfs, dir, DB_ID, limits);
    let handles = metas.into_iter().map(|meta| cache.handle(Arc::new(meta))).collect();
    Home { cache, handles, faults }
}

impl Home {
    fn read(&self, table: usize, tier: ReadTier) -> Result<()> {
        let key = key(table, 3);
        let found = self.handles[table].table(tier)?.get(&key, hash64(&key), tier)?;
        assert_eq!(&found.expect("it was written").value[..], b"value");
        Ok(())
    }

    fn open(&self) -> u64 {
        self.cache.limits().blocks.open_tables()
    }
}

#[test]
fn b8_no_more_tables_are_open_than_allowed_and_the_read_ones_stay() {
    let home = home(60, 8, u64::MAX);
    assert_eq!((home.open(), home.cache.opens()), (0, 0));
    for round in 0..3 {
        for table in 0..60 {
            home.read(table, ReadTier::Disk).unwrap();
            // This table is read all the time, so the clock hand skips it.
            home.read(0, ReadTier::Disk).unwrap();
            assert!(home.open() <= 8, "{} in round {round}", home.open());
        }
    }
    let opens = home.cache.opens();
    assert_eq!(home.cache.evictions(), opens - home.open());
    assert!((3 * 59 + 1..3 * 60).contains(&opens), "table 0 stays open: {opens} opens");
}

#[test]
fn b8_a_closed_table_is_cold_and_its_blocks_are_still_cached() {
    let home = home(9, 8, u64::MAX);
    assert!(matches!(home.read(0, ReadTier::Memory), Err(Error::WouldBlock(Lacks::Thread))));
    for table in 0..9 {
        home.read(table, ReadTier::Disk).unwrap();
    }
    let closed = (0..9)
        .find(|&t| matches!(home.read(t, ReadTier::Memory), Err(Error::WouldBlock(Lacks::Thread))));
    let closed = closed.expect("one had to go");
    let misses = home.cache.limits().blocks.misses();
    home.read(closed, ReadTier::Disk).unwrap();
    assert_eq!(home.cache.limits().blocks.misses(), misses);
    home.read(closed, ReadTier::Memory).unwrap();
}

#[test]
fn b8_indexes_and_filters_are_bounded_in_bytes() {
    let all = home(60, 1000, u64::MAX);
    (0..60).for_each(|table| all.read(table, ReadTier::Disk).unwrap());
    assert_eq!(all.open(), 60);
    let blocks = &all.cache.limits().blocks;
    let each = (blocks.index_bytes() + blocks.filter_bytes()) / 60;
    let home = home(60, 1000, 10 * each + each / 2);
    for table in 0..60 {
        home.read(table, ReadTier::Disk).unwrap();
        let blocks = &home.cache.limits().blocks;
        assert!(blocks.index_bytes() + blocks.filter_bytes() <= 10 * each + each / 2);
    }
    assert!((9..=10).contains(&home.open()), "{}", home.open());
    drop(home.handles);
    let blocks = &home.cache.limits().blocks;
    assert_eq!((blocks.open_tables(), blocks.index_bytes(), blocks.filter_bytes()), (0, 0, 0));
}

#[test]
fn b8_what_is_being_walked_stays_open_and_a_long_walk_holds_one_table() {
    let home = home(60, 8, u64::MAX);
    let walked: Vec<_> =
        home.handles[..20].iter().map(|h| Arc::clone(&*h.table(ReadTier::Disk).unwrap())).collect();
    assert_eq!(home.open(), 20, "beyond the limit, because each is held");
    assert_eq!(home.cache.evictions(), 0);
    drop(walked);
    let run = Run::new(home.handles.iter().map(Slice::whole).collect());
    let run = RunParts::new(run, CursorOptions::default());
    let mut cursor = ConcatCursor::new(run);
    cursor.seek_first().unwrap();
    let mut entries = 0;
    while cursor.valid() {
        entries += 1;
        cursor.next().unwrap();
    }
    assert_eq!(entries, 600);
    assert!(home.open() <= 8, "{}", home.open());
}

#[test]
fn emfile_closes_tables_and_tries_once_more() {
    let home = home(20, 16, u64::MAX);
    (0..12).for_each(|table| home.read(table, ReadTier::Disk).unwrap());
    home.faults.arm(Fault::of(OperationKind::Open).errno(EMFILE));
    home.read(15, ReadTier::Disk).unwrap();
    assert_eq!((home.cache.evictions(), home.open()), (3, 10));
    home.faults.arm(Fault::of(OperationKind::Open).errno(EMFILE).sticky());
    let error = home.read(16, ReadTier::Disk).unwrap_err();
    assert!(error.is_out_of_descriptors(), "{error}");
    assert_eq!(home.open(), 8, "a quarter, once");
    home.faults.disarm();
    home.read(16, ReadTier::Disk).unwrap();
}

#[test]
fn b8_many_threads_open_one_table_once() {
    for round in 0..20 {
        let home = home(2, 8, u64::MAX);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let home = &home;
                scope.spawn(move || home.read((thread + round) % 2, ReadTier::Disk).unwrap());
            }
        });
        assert_eq!((home.cache.opens(), home.open()), (2, 2));
    }
}

/// Goal: while tables are opened, closed and replaced, readers lose nothing, and the counts are
/// right in the end.
#[test]
fn b8_reading_and_closing_at_the_same_time() {
    let home = home(40, 8, u64::MAX);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let home = &home;
            scope.spawn(move || {
                for step in 0..2_000_usize {
                    let table = (step * (2 * thread + 3) + thread) % 40;
                    home.read(table, ReadTier::Disk).unwrap();
                }
            });
        }
    });
    home.cache.close_some();
    assert!(home.open() <= 8, "{}", home.open());
    assert_eq!(home.cache.opens() - home.cache.evictions(), home.open());
}

#[test]
fn b8_presence_is_checked_without_opening() {
    let home = home(3, 8, u64::MAX);
    let meta = crate::table::TableMeta::clone(home.handles[1].meta());
    home.cache.check_presence(&meta).unwrap();
    let longer = TableMeta { file_bytes: meta.file_bytes + 1, ..meta.clone() };
    let error = home.cache.check_presence(&longer).unwrap_err();
    assert!(error.to_string().contains("000002.sst: file has"), "{error}");
    let gone = TableMeta { number: FileNumber(99), ..meta };
    assert!(matches!(home.cache.check_presence(&gone), Err(Error::Missing { .. })));
    assert_eq!((home.open(), home.faults.count(OperationKind::Open)), (0, 0));
}
