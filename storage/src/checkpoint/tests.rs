//! Goal: what the protocol guarantees about the directory, where tests of the engine cannot show
//! it.

use super::*;
use crate::checkpoint::Mode::{Fresh, Incremental};
use crate::key::{Kind, Span};
use crate::memtable::{MemtableWriter, memtable};
use crate::table::BlockCache;
use crate::version::check::check;
use crate::version::{
    ObsoleteFiles, RangeId, RangeVersion, Run, Shards, Slice, TableCache, TableHandle, TableLimits,
};
use crate::vfs::MemVfs;
use crate::view::{PendingRun, Superversion};

const DB: [u8; 16] = [7; 16];

fn disk() -> Arc<dyn Vfs> {
    Arc::new(MemVfs::new())
}

fn image(number: u64) -> Image {
    let split = crate::version::Image::of_new_database(FileNumber(number + 1), &[], 1);
    Image { log_floor: FileNumber(number), clean_close: true, ..split }
}

fn begin(vfs: &Arc<dyn Vfs>, mode: Mode) -> Result<Draft> {
    Draft::begin(vfs, Path::new("/copy"), DB, mode, true)
}

fn names(vfs: &Arc<dyn Vfs>) -> Vec<String> {
    let mut names = vfs.list(Path::new("/copy")).unwrap();
    names.sort();
    names
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing_but_its_lock() {
    let vfs = disk();
    let mut draft = begin(&vfs, Fresh).unwrap();
    assert!(matches!(begin(&vfs, Fresh), Err(Error::Locked { .. })), "one at a time");
    vfs.create(Path::new("/copy/000003.sst")).unwrap();
    draft.made([FileNumber(3), FileNumber(4)]);
    drop(draft);
    // Who has opened it for the lock would else get that of a file without a name, and the next one
    // that of a new file.
    assert_eq!(names(&vfs), ["LOCK"]);
    begin(&vfs, Fresh).unwrap().publish(image(9)).unwrap();
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000009"]);
    assert!(matches!(begin(&vfs, Fresh), Err(Error::Exists { .. })));
}

#[test]
fn what_an_interrupted_one_left_is_cleared_away() {
    let vfs = disk();
    begin(&vfs, Fresh).unwrap().publish(image(9)).unwrap();
    for stray in ["000010.sst", "000011.tmp", "MANIFEST-000012", "CURRENT.tmp"] {
        vfs.create(&Path::new("/copy").join(stray)).unwrap();
    }
    drop(begin(&vfs, Incremental).unwrap());
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000009"]);
    let counts = begin(&vfs, Incremental).unwrap().publish(image(12)).unwrap();
    assert_eq!(counts.removed, 1);
    assert_eq!(names(&vfs), ["CURRENT", "LOCK", "MANIFEST-000012"]);
}

#[test]
fn only_an_older_checkpoint_of_the_same_database_gives_way() {
    let vfs = disk();
    begin(&vfs, Incremental).unwrap().publish(image(9)).unwrap();
    let other = Draft::begin(&vfs, Path::new("/copy"), [8; 16], Incremental, true);
    assert!(matches!(other, Err(Error::Exists { .. })));
    let backwards = begin(&vfs, Incremental).unwrap().publish(image(9));
    assert!(matches!(backwards, Err(Error::Exists { .. })), "the numbers rise in one history");
    // As after an open for writing.
    let used = Image { newest_segment: FileNumber(13), ..image(12) };
    begin(&vfs, Incremental).unwrap().publish(used).unwrap();
    assert!(matches!(begin(&vfs, Incremental), Err(Error::Exists { .. })));
    vfs.remove(Path::new("/copy/CURRENT")).unwrap();
    assert!(matches!(begin(&vfs, Incremental), Err(Error::Exists { .. })), "interrupted");
}

fn insert(writer: &mut MemtableWriter, keys: &[&str], from: u64) {
    for (key, seqno) in keys.iter().zip(from..) {
        writer.insert(key.as_bytes(), Seqno(seqno), Kind::Put, b"v");
    }
}

/// A change with number 10 brought in a table. It is between an older memtable, from which `b` was
/// excised, and a newer one.
///
/// Planted: all memtables of a range go into one table; excised entries of memtables are written.
#[test]
fn memtables_with_tables_between_them_are_not_written_together() {
    let vfs = disk();
    let dir = Path::new("/db");
    vfs.create_dir_all(dir).unwrap();
    let blocks = BlockCache::new(1 << 20);
    let limits = TableLimits { open_max: 8, memory_bytes_max: 1 << 20, blocks };
    let tables = TableCache::new(&vfs, dir, DB, limits);
    let mut sink = TableSink::new(&vfs, dir, DB, TableOptions::default(), || FileNumber(1));
    sink.add(b"a", Seqno(1), Kind::Put, b"came").unwrap();
    let came = Slice::whole(&tables.handle(Arc::new(sink.finish().unwrap().remove(0))));
    let meta = SliceMeta { seqno: Some(Seqno(10)), ..came.meta().clone() };
    let came = Slice::new(meta, Arc::clone(came.handle()));

    let (old, mut writer) = memtable(1);
    insert(&mut writer, &["a", "b", "c"], 1);
    writer.freeze();
    let (active, mut writer) = memtable(2);
    insert(&mut writer, &["a", "d"], 11);
    let mut stable = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
    stable.layers = stable.layers.with(Place::L0, vec![came.clone()]);
    let mut range = RangeEntry::new(active, Arc::new(stable), ());
    range.sealed = vec![MemtableSlice::whole(old).without([&Span::prefix(b"b")])];
    range.pending = vec![PendingRun { behind: 1, seqno: Seqno(10), run: Run::new(vec![came]) }];
    let superversion = Arc::new(Superversion::new(1, 1, Seqno(10), Arc::default(), vec![range]));

    let numbers = std::sync::atomic::AtomicU64::new(2);
    let next = || FileNumber(numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let origin = Origin {
        vfs: &vfs,
        dir,
        db_id: DB,
        view: &View::new(superversion, Seqno(12)),
        table: TableOptions::default(),
        created_at_ms: 0,
        shard_cut_bytes_min: u64::MAX,
        next_number: &next,
    };
    let mut draft = begin(&vfs, Fresh).unwrap();
    let image = fill(&mut draft, &origin, &mut |_| true).unwrap().unwrap();
    let handle = |meta: &Arc<TableMeta>| {
        Ok::<_, crate::version::Conflict>(TableHandle::unopened(
            Arc::clone(meta),
            ObsoleteFiles::new(),
        ))
    };
    let version = image.to_version(ObsoleteFiles::new(), handle).unwrap();
    check(&version).unwrap();
    let l0 = version.ranges()[0].layers.in_order(Place::L0);
    let entries: Vec<_> = l0.iter().map(|slice| (slice.entries(), slice.max_seqno().0)).collect();
    assert_eq!(entries, [(2, 12), (1, 10), (2, 3)], "newest first; and `b` is gone");
}
