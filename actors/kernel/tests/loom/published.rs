use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sluicedb_kernel::published::Published;

/// A version whose files are deleted with its last reference.
struct Version {
    number: usize,
    deleted: Arc<AtomicUsize>,
}

impl Drop for Version {
    fn drop(&mut self) {
        self.deleted.fetch_add(1, Ordering::AcqRel);
    }
}

/// A reader's version is alive while the reader holds it. Versions never go back. A load after the
/// store gets the newest one. (Production loads through arc-swap; this checks our use of the cell.)
/// Catches: a `store` that keeps the old version.
#[test]
fn swapped_under_two_readers() {
    loom::model(|| {
        let deleted = Arc::new(AtomicUsize::new(0));
        let version = |number| Arc::new(Version { number, deleted: deleted.clone() });
        let cell = Arc::new(Published::new(version(0)));
        let readers = [(); 2].map(|()| {
            let (cell, deleted) = (cell.clone(), deleted.clone());
            thread::spawn(move || {
                let held = cell.load_full();
                assert!(deleted.load(Ordering::Acquire) <= held.number, "held, so not deleted");
                assert!(cell.load().number >= held.number);
            })
        });
        cell.store(version(1));
        assert_eq!(cell.load().number, 1);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(deleted.load(Ordering::Acquire), 1);
    });
}
