//! An uncontended write allocates nothing of its own. A cached read allocates only its value. A
//! snapshot makes one allocation.
//!
//! This is a binary of its own, because it counts in the global allocator. The engine's threads are
//! idle while it counts: the writes fit into the first memtable and the first log segment.

use sluicedb::{Db, Durability, Options};
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{Fault, FaultVfs, MemVfs, OperationKind};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every method forwards to the system allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get() + layout.size() as u64));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn allocations(work: impl Future<Output = ()>) -> u64 {
    let before = COUNT.with(Cell::get);
    work.await;
    COUNT.with(Cell::get) - before
}

async fn allocated_bytes(work: impl Future<Output = ()>) -> u64 {
    let before = BYTES.with(Cell::get);
    work.await;
    BYTES.with(Cell::get) - before
}

/// Goal: no allocation per write or per cached read beyond the bytes themselves.
/// Method: count on this thread over a thousand of each. The memtable's arena takes a chunk and
/// radix nodes every few hundred entries, so a small allowance per thousand remains.
#[test]
fn a_put_allocates_nothing_and_a_get_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.durability = Durability::Buffered;
    futures::executor::block_on(async {
        let db = Db::builder(dir.path()).options(options).open().await.unwrap();
        let key = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        for index in 0..1000 {
            db.put(key(index), [1; 100]).await.unwrap();
        }
        let puts = allocations(async {
            for index in 1000..2000 {
                db.put(key(index), [2; 100]).await.unwrap();
            }
        });
        let puts = puts.await;
        assert!(puts <= 30, "{puts} allocations in 1000 puts");
        let gets = allocations(async {
            for index in 0..1000 {
                assert!(db.get(key(index)).await.unwrap().is_some());
            }
        });
        let gets = gets.await;
        assert!(gets <= 2030, "{gets} allocations in 1000 gets: the value and its counter");
        db.close().await.unwrap();
    });
}

/// Goal: what keeps some party from working costs nothing to writes that it does not concern. (The
/// simulated disk allocates for each write.)
///
/// Planted: each write copies all causes to see whether one is about the reserve.
#[test]
fn a_put_beside_a_compaction_that_fails_allocates_no_more() {
    let vfs = Arc::new(FaultVfs::over_mem(&MemVfs::new()));
    let mut options = Options::default();
    options.durability = Durability::Buffered;
    options.space_reserve_bytes = Some(0);
    futures::executor::block_on(async {
        let builder = Db::builder("/beside-a-failure").options(options).vfs(vfs.clone());
        let db = builder.open().await.unwrap();
        let key = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        let put = async |indexes: Range<u64>| {
            for index in indexes {
                db.put(key(index), [1; 100]).await.unwrap();
            }
        };
        for _ in 0..2 {
            put(0..50).await;
            db.flush().await.unwrap();
        }
        put(0..1000).await;
        let before = allocations(put(1000..2000)).await;
        vfs.control().arm(Fault::of(OperationKind::Create).named(".sst").errno(ENOSPC).sticky());
        vfs.control().arm(Fault::of(OperationKind::Create).named(".tmp").errno(ENOSPC).sticky());
        db.compact().await.unwrap_err();
        assert!(!db.health().state().is_running());
        put(2000..3000).await;
        let beside = allocations(put(3000..4000)).await;
        assert!(!db.health().state().is_running());
        assert!(beside <= before + 100, "{beside} allocations in 1000 puts, {before} before");
    });
}

/// Goal: a snapshot, or a scan that is not polled, makes one allocation, however many others are
/// open: the state that its clones share. A label costs a copy of its text and room in a list.
#[test]
fn a_snapshot_allocates_what_its_clones_share() {
    let dir = tempfile::tempdir().unwrap();
    futures::executor::block_on(async {
        let db = Db::builder(dir.path()).open().await.unwrap();
        db.put("key", "value").await.unwrap();
        let open: Vec<_> = (0..100).map(|_| db.snapshot()).collect();
        let room = (db.snapshot(), db.snapshot_labelled("makes room"));
        drop(room);
        let taken = allocations(async {
            for _ in 0..1000 {
                let _both = (db.snapshot(), db.scan(..));
            }
        });
        assert_eq!(taken.await, 2000);
        let labelled = allocations(async {
            for _ in 0..1000 {
                let _labelled = db.snapshot_labelled("backup");
            }
        });
        assert_eq!(labelled.await, 2000);
        drop(open);
        db.close().await.unwrap();
    });
}

/// Goal: a scan of a hundred entries that are in memory takes its memory at once, and not with each
/// entry; one that goes on elsewhere keeps what it has.
///
/// Planted: a chunk that grows with its entries; a seek that opens the layers again.
#[test]
fn a_short_scan_takes_its_memory_at_once() {
    let dir = tempfile::tempdir().unwrap();
    futures::executor::block_on(async {
        let db = Db::builder(dir.path()).open().await.unwrap();
        for key in 0..2000_u32 {
            db.put(key.to_be_bytes(), [1; 100]).await.unwrap();
        }
        db.flush().await.unwrap();
        db.compact().await.unwrap();
        // From here on the blocks are in the cache.
        let mut scan = db.scan(..);
        while scan.next_chunk().await.unwrap().is_some() {}
        let batch = allocations(async {
            let mut scan = db.scan(&700_u32.to_be_bytes()[..]..).limit(100);
            assert_eq!(scan.next_chunk().await.unwrap().unwrap().len(), 100);
            assert!(scan.next_chunk().await.unwrap().is_none());
        });
        let batch = batch.await;
        assert!(batch <= 8, "{batch} allocations for a batch");
        let mut scan = db.scan(..);
        let lent = allocations(async {
            for _ in 0..100 {
                assert!(scan.next_entry().await.unwrap().is_some());
            }
        });
        let lent = lent.await;
        assert!(lent <= 8, "{lent} allocations for entries that are lent");
        let sought = allocations(async {
            for key in 0..500_u32 {
                scan.seek((key * 7919 % 1900).to_be_bytes());
                assert!(scan.next_entry().await.unwrap().is_some());
            }
        });
        let sought = sought.await;
        assert!(sought <= 8, "{sought} allocations in 500 seeks of one scan");
        db.close().await.unwrap();
    });
}

/// Goal: who asks only whether a key has a value, how long it is, or which write gave it, pays for
/// no value, also where the value lies in several chunks of a memtable. So does a scan of keys.
///
/// Planted: a question for which the pieces of an entry are put together.
#[test]
fn who_wants_no_value_copies_none() {
    const VALUE_BYTES: usize = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    futures::executor::block_on(async {
        let db = Db::builder(dir.path()).open().await.unwrap();
        // Larger than the largest chunk.
        db.put("key", vec![1; VALUE_BYTES]).await.unwrap();
        let asked = allocated_bytes(async {
            assert!(db.contains_key("key").await.unwrap());
            assert_eq!(db.value_len("key").await.unwrap(), Some(VALUE_BYTES as u64));
            assert!(db.last_seqno("key").await.unwrap().is_some());
        });
        let asked = asked.await;
        assert!(asked < 1 << 10, "{asked} bytes for three questions about one key");
        let scanned = allocated_bytes(async {
            let mut scan = db.scan(..).keys_only();
            let chunk = scan.next_chunk().await.unwrap().unwrap();
            assert_eq!((chunk.len(), chunk.value_len(0)), (1, VALUE_BYTES));
            let mut scan = db.scan(..).keys_only();
            assert_eq!(scan.next_entry().await.unwrap().unwrap().0, b"key");
        });
        let scanned = scanned.await;
        assert!(scanned < 64 << 10, "{scanned} bytes for one key");
        assert_eq!(db.get("key").await.unwrap().unwrap(), vec![1; VALUE_BYTES]);
        let mut scan = db.scan(..);
        assert_eq!(scan.next_entry().await.unwrap().unwrap().1, vec![1; VALUE_BYTES]);
        db.close().await.unwrap();
    });
}
