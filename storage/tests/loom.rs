//! Models of the memtable's publication, checked by loom in every order it can find.
//!
//! Method: small tables are filled first, then a writer thread makes one step of each kind (a child
//! added, a node grown, a prefix split, a version prepended) beside readers. loom knows which stores
//! a reader may see late; it also reports an entry whose plain bytes are read without having been
//! published (`touched` in the entry's header stands for them). Each test names the bug that was
//! planted once to see it fail.
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
/// In every test the writer is the first thread and the readers are spawned: loom remembers only the
/// last access to an object, so a thread that loads a slot and then stores to it hides the race with a
/// reader that went before (seen here: one order instead of dozens, and planted bugs that pass).
/// A reader's load is compared with the last store, which nothing hides.
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

/// The value must be the key's own; says whether it was found.
fn found(table: &Memtable, key: &[u8]) -> bool {
    table.get(key, Seqno::MAX).is_some_and(|entry| {
        assert_eq!((entry.key, entry.value), (key, key));
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

/// Runs one insert beside `read` and a look at the new key on either side of it; in the end all keys
/// must be there.
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

/// Planted: `Link::publish` with Relaxed instead of Release, and `Link::load` with Relaxed instead of
/// Acquire.
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

/// Planted: free slots whose key byte is zero instead of the first child's. A reader that has loaded
/// the old word of key bytes and then the new child takes it for the child under zero, and shows
/// "k7" before "k1".
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
            let at =
                |upto| table.get(b"k", upto).map(|entry| (entry.seqno.0, entry.value.to_vec()));
            let first = at(Seqno::MAX).unwrap().0;
            let second = at(Seqno::MAX).unwrap().0;
            assert!(first <= second, "a newer version was there and is gone");
            assert_eq!(at(Seqno(1)), Some((1, b"one".to_vec())));
        });
        writer.insert(b"k", Seqno(2), Kind::Put, b"two");
        writer.insert(b"k", Seqno(3), Kind::Delete, b"");
        reader.join().unwrap();
        assert_eq!(table.get(b"k", Seqno(2)).unwrap().value, b"two");
        assert_eq!(table.get(b"k", Seqno::MAX).unwrap().kind, Kind::Delete);
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
