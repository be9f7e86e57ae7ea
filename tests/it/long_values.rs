use crate::harness::Simulated;
use crate::kit::disk::collect;
use crate::kit::settings;
use futures::TryStreamExt;
use sluicedb::Compression;
use sluicedb_storage::vfs::OperationKind;

/// Values so long that only read threads read them, and no cache: each batch has one of them.
///
/// Planted: the layers are closed after each batch.
#[test]
fn long_values_are_read_once_however_many_layers_have_some() {
    const LAYERS: usize = 6;
    const ENTRIES: usize = 36;
    let mut options = settings::tiny();
    options.write_buffer_bytes = Some(16 << 20);
    options.memtable_bytes = Some(4 << 20);
    options.cache_bytes = Some(0);
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options.l0_trigger_tables = 1000;
    options.l0_tables_max = 2000;
    let home = Simulated::with(5, options);
    let db = home.open();
    let value = |n: usize| vec![n as u8; (300 << 10) + n];
    for layer in 0..LAYERS {
        home.run(async {
            for n in (layer..ENTRIES).step_by(LAYERS) {
                db.put([n as u8], value(n)).await.unwrap();
            }
            db.flush().await.unwrap();
        });
    }
    assert_eq!(db.stats().read_runs_max as usize, LAYERS);
    for reverse in [false, true] {
        let scan = || if reverse { db.scan(..).rev() } else { db.scan(..) };
        let before = home.faults.count(OperationKind::Read);
        let found = home.run(collect(scan())).unwrap();
        let reads = home.faults.count(OperationKind::Read) - before;
        println!("{reads} reads");
        assert!(reads < 3 * ENTRIES as u64, "{reads} reads for {ENTRIES} entries");
        let mut wanted: Vec<_> = (0..ENTRIES).map(|n| (vec![n as u8], value(n))).collect();
        if reverse {
            wanted.reverse();
        }
        assert!(found == wanted, "{reverse}");
        // It turns round, is sent elsewhere, and ends at its limit while the next value is on its
        // way.
        home.run(async {
            let mut scan = scan().limit(3);
            for _ in 0..2 {
                scan.try_next().await.unwrap().unwrap();
            }
            let (key, _) = scan.next_entry().await.unwrap().unwrap();
            assert_eq!(key, wanted[2].0);
            assert!(scan.next_chunk().await.unwrap().is_none());
            let mut scan = db.scan(..);
            scan.try_next().await.unwrap().unwrap();
            scan.seek([7]);
            assert_eq!(scan.try_next().await.unwrap().unwrap().0[..], [7]);
            scan.seek([2]);
            assert_eq!(scan.next_entry().await.unwrap().unwrap().0, [2]);
        });
    }
}

/// A value in memory that takes long to copy is copied by a read thread, as one in a table is. Who
/// asks for less than the value is answered at once.
///
/// Planted: a copy of any length on the caller's thread.
#[test]
fn long_values_in_memory_are_copied_by_a_read_thread() {
    let mut options = settings::tiny();
    options.memory_budget_bytes = 64 << 20;
    options.write_buffer_bytes = Some(32 << 20);
    options.memtable_bytes = Some(16 << 20);
    let home = Simulated::with(6, options);
    let db = home.open();
    let lengths = [256 << 10, (256 << 10) + 1, 5 << 20];
    for (key, length) in (0_u8..).zip(lengths) {
        home.run(db.put([key], vec![key; length])).unwrap();
    }
    home.simulator.settle();
    let snapshot = db.snapshot();
    for (key, length) in (0_u8..).zip(lengths) {
        for is_held in [false, true] {
            let before = db.stats().cold_reads;
            let get =
                async { if is_held { snapshot.get([key]).await } else { db.get([key]).await } };
            assert!(home.run(get).unwrap().unwrap() == vec![key; length]);
            assert_eq!(db.stats().cold_reads - before, u64::from(length > 256 << 10), "{length}");
            assert_eq!(home.run(db.value_len([key])).unwrap(), Some(length as u64));
            assert!(home.run(db.contains_key([key])).unwrap());
            assert_eq!(db.stats().cold_reads - before, u64::from(length > 256 << 10), "{length}");
        }
    }
    assert_eq!(home.run(db.multi_get(&[[0], [1], [2]])).unwrap().iter().flatten().count(), 3);
}
