use loom::thread;
use sluicedb_kernel::sync::block_on;
use sluicedb_kernel::watch::Watch;

/// A watcher misses no change.
/// Catches: a watcher that compares editions outside the lock (deadlock).
#[test]
fn a_watched_value_changes() {
    loom::model(|| {
        let watch = Watch::new(0);
        let mut watcher = watch.watcher();
        let mut other = watch.watcher();
        let setter = thread::spawn(move || {
            watch.set(1);
            watch.set(2);
        });
        let second = thread::spawn(move || while block_on(other.changed()) < 2 {});
        while block_on(watcher.changed()) < 2 {}
        setter.join().unwrap();
        second.join().unwrap();
        assert_eq!(watcher.get(), 2);
    });
}
