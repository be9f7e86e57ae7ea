//! Models of the memtable's publication, checked by loom in every order it can find.
//!
//! Method: small tables are filled first, then a writer thread makes one step of each kind (a child
//! added, a node grown, a prefix split, a version prepended) beside readers. loom knows which
//! stores a reader may see late; it also reports an entry whose plain bytes are read without having
//! been published (`touched` in the entry's header stands for them). Each test names the bug that
//! was planted once to see it fail.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release -p sluicedb-storage --test loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use loom::thread;
use sluicedb_storage::iter::Cursor;
use sluicedb_storage::key::{Kind, Seqno};
use sluicedb_storage::memtable::{Memtable, MemtableWriter, memtable};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Explores `test` completely, and fails if there was nothing to explore.
///
/// In every test the writer is the first thread and the readers are spawned: loom remembers only
/// the last access to an object, so a thread that loads a slot and then stores to it hides the race
/// with a reader that went before (seen here: one order instead of dozens, and planted bugs that
/// pass). A reader's load is compared with the last store, which nothing hides.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    let orders = orders.load(Ordering::Relaxed);
    assert!(orders > 3, "loom tried only {orders} orders");
}

/// A table with these keys at 1, 2, ...; every value is its key.
fn filled(keys: &[&[u8]]) -> (Arc<Memtable>, MemtableWriter) {
    let (table, mut writer) = memtable(0);
    for (seqno, key) in (1..).zip(keys) {
        writer.insert(key, Seqno(seqno), Kind::Put, key);
    }
    (table, writer)
}

/// Sequence number and value (`None` for a tombstone) of what a lookup finds.
fn value(table: &Memtable, key: &[u8], upto: Seqno) -> Option<(u64, Option<Vec<u8>>)> {
    let pin = table.pin();
    let version = pin.get(key, upto).version?;
    Some((version.seqno().0, version.value(usize::MAX).unwrap().map(|value| value.to_vec())))
}

/// The value must be the key's own; says whether it was found.
fn found(table: &Memtable, key: &[u8]) -> bool {
    value(table, key, Seqno::MAX).is_some_and(|(_, value)| {
        assert_eq!(value.as_deref(), Some(key));
        true
    })
}

/// Everything a cursor shows, forward.
fn walk(table: &Arc<Memtable>, upto: Seqno) -> Vec<Vec<u8>> {
    let mut cursor = table.cursor(upto);
    cursor.seek_first().unwrap();
    let mut keys = Vec::new();
    while cursor.valid() {
        keys.push(cursor.key().to_vec());
        cursor.next().unwrap();
    }
    keys
}

fn spawn<T: 'static>(
    table: &Arc<Memtable>,
    read: impl FnOnce(&Arc<Memtable>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let table = Arc::clone(table);
    thread::spawn(move || read(&table))
}

/// Runs one insert beside `read` and a look at the new key on either side of it; in the end all
/// keys must be there.
fn insert_beside(before: &'static [&'static [u8]], new: &'static [u8], read: fn(&Arc<Memtable>)) {
    model(move || {
        let (table, mut writer) = filled(before);
        let reader = spawn(&table, move |table| {
            let first = found(table, new);
            read(table);
            assert!(found(table, new) || !first, "an entry was there and is gone");
        });
        writer.insert(new, Seqno(before.len() as u64 + 1), Kind::Put, new);
        reader.join().unwrap();
        for key in before {
            assert!(found(&table, key));
        }
        assert!(found(&table, new));
    });
}

/// Planted: `Link::publish` with Relaxed instead of Release, and `Link::load` with Relaxed instead
/// of Acquire.
#[test]
fn an_entry_is_there_whole_or_not_at_all() {
    insert_beside(&[], b"a", |_| ());
}

/// Planted: `meet` that publishes the new node before it hangs the older entry into it.
#[test]
fn the_second_key_turns_an_entry_into_a_node() {
    insert_beside(&[b"ab"], b"ac", |table| {
        assert!(found(table, b"ab"));
    });
}

/// Planted: free slots whose key byte is zero instead of the first child's. A reader that has
/// loaded the old word of key bytes and then the new child takes it for the child under zero, and
/// shows "k7" before "k1".
#[test]
fn a_child_is_added_to_a_node_with_room() {
    insert_beside(&[b"k1", b"k2"], b"k7", |table| {
        assert!(found(table, b"k1"));
        let mut cursor = table.cursor(Seqno::MAX);
        cursor.seek(b"k\0").unwrap();
        assert_eq!(cursor.key(), b"k1");
        cursor.next().unwrap();
        assert_eq!(cursor.key(), b"k2");
    });
}

/// Planted: `grow` that publishes the larger node before the children are copied into it.
#[test]
fn a_full_node_is_replaced_by_a_larger_one() {
    insert_beside(&[b"k1", b"k4", b"k2", b"k3"], b"k0", |table| {
        assert!(found(table, b"k3"));
        assert!(found(table, b"k4"));
    });
}

/// Planted: `split_prefix` that publishes the upper node before it hangs the lower one into it.
#[test]
fn a_prefix_is_split_above_a_node() {
    insert_beside(&[b"abcd1", b"abcd2"], b"abx", |table| {
        assert!(found(table, b"abcd1"));
        assert!(found(table, b"abcd2"));
    });
}

/// Planted: as above; here the new entry ends at the fork and hangs in the upper node itself.
#[test]
fn a_key_ends_inside_a_prefix() {
    insert_beside(&[b"abcd1", b"abcd2"], b"ab", |table| {
        assert!(found(table, b"abcd1"));
        assert!(found(table, b"abcd2"));
    });
}

/// Planted: `Link::publish` with Relaxed instead of Release.
#[test]
fn older_versions_stay_reachable_behind_newer_ones() {
    model(|| {
        let (table, mut writer) = memtable(0);
        writer.insert(b"k", Seqno(1), Kind::Put, b"one");
        let reader = spawn(&table, |table| {
            let at = |upto| value(table, b"k", upto);
            let first = at(Seqno::MAX).unwrap().0;
            let second = at(Seqno::MAX).unwrap().0;
            assert!(first <= second, "a newer version was there and is gone");
            assert_eq!(at(Seqno(1)), Some((1, Some(b"one".to_vec()))));
        });
        writer.insert(b"k", Seqno(2), Kind::Put, b"two");
        writer.insert(b"k", Seqno(3), Kind::Delete, b"");
        reader.join().unwrap();
        assert_eq!(value(&table, b"k", Seqno(2)), Some((2, Some(b"two".to_vec()))));
        assert_eq!(value(&table, b"k", Seqno::MAX), Some((3, None)));
    });
}

/// Planted: `last_seqno` stored before the tree is changed; `last_seqno` stored with Relaxed.
#[test]
fn who_knows_the_number_finds_the_entry() {
    model(|| {
        let keys: [&[u8]; 4] = [b"k1", b"k2", b"k3", b"k4"];
        let (table, mut writer) = filled(&keys[..2]);
        let reader = spawn(&table, move |table| {
            let known = table.last_seqno().unwrap();
            for key in &keys[..known.0 as usize] {
                assert!(found(table, key), "{key:?} is missing at {known}");
            }
        });
        writer.insert(keys[2], Seqno(3), Kind::Put, keys[2]);
        writer.insert(keys[3], Seqno(4), Kind::Put, keys[3]);
        reader.join().unwrap();
    });
}

/// Planted: `grow` that takes the children out of the node it replaces (instead of freezing it).
#[test]
fn a_cursor_is_exact_beside_the_writer() {
    model(|| {
        let (table, mut writer) = filled(&[b"k1", b"k4", b"k2", b"k3"]);
        let reader = spawn(&table, |table| {
            assert_eq!(walk(table, Seqno(4)), [b"k1", b"k2", b"k3", b"k4"]);
        });
        writer.insert(b"k0", Seqno(5), Kind::Put, b"grows");
        writer.insert(b"k2", Seqno(6), Kind::Delete, b"");
        reader.join().unwrap();
        assert_eq!(walk(&table, Seqno(4)), [b"k1", b"k2", b"k3", b"k4"]);
        assert_eq!(walk(&table, Seqno(5)).len(), 5);
    });
}

/// Two readers that hand on what they know: what one saw, the other one finds.
///
/// Planted: `Link::publish` with Relaxed instead of Release.
#[test]
fn what_one_reader_saw_another_one_finds() {
    model(|| {
        let (table, mut writer) = filled(&[b"k1"]);
        let second = spawn(&table, |table| {
            let first = spawn(table, |table| found(table, b"k2"));
            let mine = found(table, b"k2");
            if first.join().unwrap() || mine {
                assert!(found(table, b"k2"));
            }
            assert!(found(table, b"k1"));
        });
        writer.insert(b"k2", Seqno(2), Kind::Put, b"k2");
        second.join().unwrap();
    });
}

/// Readers pin, writer unlinks, turns twice, and uses the memory again: never under a reader.
/// Planted: `Limbo`'s rule with one turn only; `pin` without its fence; `turn` without its fence.
#[test]
fn grace_is_over_only_when_the_readers_are_gone() {
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use sluicedb_storage::buffer::Grace;
    struct World {
        grace: Grace,
        /// Which of the two cells is reachable.
        reachable: AtomicUsize,
        cells: [UnsafeCell<u32>; 2],
    }
    // SAFETY: who touches a cell when is what the model is about.
    unsafe impl Sync for World {}
    model(|| {
        let world = Arc::new(World {
            grace: Grace::default(),
            reachable: AtomicUsize::new(0),
            cells: [UnsafeCell::new(7), UnsafeCell::new(7)],
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || {
                    let pin = world.grace.pin();
                    let at = world.reachable.load(Ordering::Acquire);
                    // SAFETY: checked by loom.
                    world.cells[at].with(|cell| assert_eq!(unsafe { *cell }, 7));
                    world.grace.unpin(pin);
                })
            })
            .collect();
        world.reachable.store(1, Ordering::Release);
        let turned = (0..3).filter(|_| world.grace.turn()).count();
        if turned >= 2 {
            // Unreachable, and both phases were empty since: nobody looks at it any more.
            // SAFETY: checked by loom.
            world.cells[0].with_mut(|cell| unsafe { *cell = 8 });
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Scans begin while a version is overwritten: what each of them needs is there.
fn scans_beside_an_overwrite(scans: usize) {
    use loom::sync::atomic::{AtomicU64, Ordering};
    use sluicedb_storage::buffer::BufferOptions;
    use sluicedb_storage::memtable::{MemtableOptions, Reclaim, memtable_with};
    use sluicedb_storage::points::{Holder, ReadPoints};
    model(move || {
        let points = ReadPoints::new();
        let options = BufferOptions::default();
        let reclaim = Some(Reclaim { points: Arc::clone(&points), options });
        let (table, mut writer) =
            memtable_with(0, MemtableOptions { reclaim, ..MemtableOptions::default() });
        writer.insert(b"k", Seqno(1), Kind::Put, b"one");
        let visible = Arc::new(AtomicU64::new(1));
        let readers: Vec<_> = (0..scans)
            .map(|_| {
                let (table, points, visible) =
                    (Arc::clone(&table), Arc::clone(&points), Arc::clone(&visible));
                thread::spawn(move || {
                    let visible = || Seqno(visible.load(Ordering::Acquire));
                    let point = points.hold(Holder::Scan, 0, visible);
                    let found = value(&table, b"k", point.seqno());
                    let want = if point.seqno() == Seqno(1) { "one" } else { "two" };
                    assert_eq!(found.and_then(|(_, value)| value), Some(want.as_bytes().to_vec()));
                })
            })
            .collect();
        writer.insert(b"k", Seqno(2), Kind::Put, b"two");
        visible.store(2, Ordering::Release);
        writer.reclaim(Seqno(2), 1, true);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// Planted: `hold` that reads `visible` before it says so; `reach` without its fence.
#[test]
fn a_point_is_held_before_what_it_needs_can_die() {
    scans_beside_an_overwrite(1);
}

/// Two scans have their points in a stripe each. Planted: `reach` that looks at the first stripe
/// alone, and one that looks before its fence.
#[test]
fn a_point_in_any_stripe_is_held_before_what_it_needs_can_die() {
    scans_beside_an_overwrite(2);
}

/// A lookup at the newest instant beside two overwrites that are retired at once: it finds a value,
/// or is told to look again when more is visible. Planted: `retire` that does not cut.
#[test]
fn a_lookup_without_a_point_is_told_when_it_came_too_late() {
    use loom::sync::atomic::{AtomicU64, Ordering};
    use sluicedb_storage::buffer::BufferOptions;
    use sluicedb_storage::memtable::{MemtableOptions, Reclaim, memtable_with};
    use sluicedb_storage::points::ReadPoints;
    model(|| {
        let reclaim =
            Some(Reclaim { points: ReadPoints::new(), options: BufferOptions::default() });
        let (table, mut writer) =
            memtable_with(0, MemtableOptions { reclaim, ..MemtableOptions::default() });
        writer.insert(b"k", Seqno(1), Kind::Put, b"1");
        let visible = Arc::new(AtomicU64::new(1));
        let reader = {
            let (table, visible) = (Arc::clone(&table), Arc::clone(&visible));
            thread::spawn(move || {
                let upto = visible.load(Ordering::Acquire);
                let pin = table.pin();
                let found = pin.get(b"k", Seqno(upto));
                match found.version {
                    Some(version) if !found.passed_cut => {
                        assert_eq!(version.seqno().0, upto);
                        assert_eq!(version.value(usize::MAX).unwrap().unwrap(), upto.to_string());
                    }
                    _ => {
                        assert!(found.passed_cut, "the key was there all the time");
                        assert!(visible.load(Ordering::Acquire) > upto);
                    }
                }
            })
        };
        for seqno in 2..=3_u64 {
            writer.insert(b"k", Seqno(seqno), Kind::Put, seqno.to_string().as_bytes());
            visible.store(seqno, Ordering::Release);
            writer.reclaim(Seqno(seqno), 1, true);
        }
        reader.join().unwrap();
    });
}
