//! Rotation and flush against a reader: the order of publish, use, freeze and forget.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use sluicedb_kernel::published::Published;

/// A toy superversion. A "memtable" is one cell with the newest entry, 0 while empty.
struct Layers {
    active: Arc<AtomicU64>,
    sealed: Option<Arc<AtomicU64>>,
    table: u64,
}

struct Range {
    published: Published<Layers>,
    visible: AtomicU64,
}

impl Range {
    /// A range with an empty memtable, and the memtable that will replace it.
    fn new() -> (Arc<Self>, Arc<AtomicU64>, Arc<AtomicU64>) {
        let (old, fresh) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let published = Published::new(layers(&old, None, 0));
        (Arc::new(Self { published, visible: AtomicU64::new(0) }), old, fresh)
    }

    fn put(&self, memtable: &AtomicU64, seqno: u64) {
        memtable.store(seqno, Ordering::Relaxed);
        self.visible.store(seqno, Ordering::Release);
    }

    /// The engine's order of reads: one load of the published pointer, then `visible`; then the
    /// layers, newest first. Entries above `visible` do not count.
    fn get(&self) -> u64 {
        let layers = self.published.load_full();
        let visible = self.visible.load(Ordering::Acquire);
        layers.newest(visible)
    }

    /// A snapshot, as `Engine::view` takes it: the pointer and `visible` of one instant.
    fn pin(&self) -> (Arc<Layers>, u64) {
        loop {
            let before = self.published.load_full();
            let upto = self.visible.load(Ordering::Acquire);
            if Arc::ptr_eq(&before, &self.published.load_full()) {
                return (before, upto);
            }
        }
    }

    /// Two puts, with a rotation between them and a flush at the end.
    fn live(&self, old: &Arc<AtomicU64>, fresh: &Arc<AtomicU64>) {
        self.put(old, 1);
        self.published.store(layers(fresh, Some(old), 0));
        self.put(fresh, 2);
        self.published.store(layers(fresh, None, old.load(Ordering::Relaxed)));
    }
}

impl Layers {
    fn newest(&self, visible: u64) -> u64 {
        let layers = self;
        let memtables = [Some(&layers.active), layers.sealed.as_ref()];
        for memtable in memtables.into_iter().flatten() {
            let entry = memtable.load(Ordering::Relaxed);
            if entry != 0 && entry <= visible {
                return entry;
            }
        }
        layers.table
    }

    /// How many layers hold the entry.
    fn places_of(&self, seqno: u64) -> usize {
        let memtables = [Some(&self.active), self.sealed.as_ref()].into_iter().flatten();
        let entries = memtables.map(|memtable| memtable.load(Ordering::Relaxed));
        entries.chain([self.table]).filter(|entry| *entry == seqno).count()
    }
}

fn layers(active: &Arc<AtomicU64>, sealed: Option<&Arc<AtomicU64>>, table: u64) -> Arc<Layers> {
    let (active, sealed) = (Arc::clone(active), sealed.map(Arc::clone));
    Arc::new(Layers { active, sealed, table })
}

/// Goal: an acknowledged put is found at every moment while its memtable is replaced, sealed,
/// written as a table and forgotten.
/// Method: the version manager and the owner are one thread, as they are for one range (the manager
/// enters the owner's seat), and a reader runs beside them. What was visible before the read began
/// must be found. Catches: writing to the new memtable before it is published
/// (published-before-used); removing the sealed memtable in a swap before the one that adds its
/// table (publish-before-forget).
#[test]
fn get_finds_the_entry_through_seal_and_flush() {
    loom::model(|| {
        let (range, old, fresh) = Range::new();
        let reader = {
            let range = Arc::clone(&range);
            thread::spawn(move || {
                let acknowledged = range.visible.load(Ordering::Acquire);
                let found = range.get();
                assert!(found >= acknowledged, "{acknowledged} was acknowledged, {found} found");
            })
        };
        range.live(&old, &fresh);
        reader.join().unwrap();
    });
}

/// Goal: a snapshot shows everything up to its number, each entry once, however the memtables
/// rotate meanwhile.
/// Method: a reader pins while the other thread runs; each entry up to the pinned number must be in
/// exactly one of the pinned layers.
/// Catches: pinning without a second look at the pointer (the pair is of two instants then); a
/// table that is added while its memtable is still there.
#[test]
fn a_pinned_view_has_everything_up_to_its_number() {
    loom::model(|| {
        let (range, old, fresh) = Range::new();
        let reader = {
            let range = Arc::clone(&range);
            thread::spawn(move || {
                let (pinned, upto) = range.pin();
                assert_eq!(pinned.newest(upto), upto);
                for seqno in 1..=upto {
                    assert_eq!(pinned.places_of(seqno), 1, "entry {seqno} at {upto}");
                }
            })
        };
        range.live(&old, &fresh);
        reader.join().unwrap();
    });
}
