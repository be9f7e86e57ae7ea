//! A change of contents, as the version manager makes it, against readers and writers.
//!
//! The kernel is the real one; log and range are those of `change`. All writes are to one key. The
//! change gives the key a value of its own: a table whose entry has the change's number. The
//! memtable is sealed behind it and loses the key. The range stays.

use crate::change::{Memtable, Superversion, TWO, Toy, put_patiently};
use loom::sync::Arc;
use loom::thread;
use sluicedb_kernel::mailbox::Capacity;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::points::Holder;

impl Superversion {
    /// The number of the key's newest value up to `upto`. 0 if there is none.
    fn read(&self, upto: u64) -> u64 {
        // What the table replaces in older memtables has been cut out of them.
        let shown = if self.came.is_some() { 1 } else { self.memtables.len() };
        let of_memtables = (1..=upto.min(3))
            .rev()
            .find(|seqno| self.memtables[..shown].iter().any(|memtable| memtable.has(*seqno) > 0));
        of_memtables.max(self.came.filter(|came| *came <= upto)).unwrap_or(0)
    }
}

impl Toy {
    /// As `VersionManager::turn` with `step_back`.
    fn replace(&self) {
        let shared = &self.shared;
        let current = shared.superversion.load_full();
        let slot = shared.commits.try_reserve().unwrap();
        let active = Memtable::new();
        let turned = self.log.run_last(|log| {
            current.range.seat.run_last(|_| ()).unwrap();
            let (born, ticket) = log.stamp(slot);
            let fresh = active.clone();
            let released = current.range.seat.run_last(|owner| {
                owner.active = fresh;
                std::mem::take(&mut owner.charge)
            });
            let mut memtables = current.memtables.clone();
            memtables.insert(0, active);
            let (epoch, range) = (current.epoch, current.range.clone());
            let next = Superversion { epoch, born, range, memtables, came: Some(born) };
            shared.superversion.store(Arc::new(next));
            (ticket, released.unwrap())
        });
        let (ticket, released) = turned.unwrap();
        ticket.finish();
        // This wakes whoever waits.
        current.range.local.release(released);
    }

    /// As `Engine::get`.
    fn newest(&self) -> u64 {
        let acknowledged = self.visible();
        let superversion = self.shared.superversion.load();
        let upto = self.visible().max(superversion.born);
        let found = superversion.read(upto);
        assert!(found >= acknowledged, "{found} is older than {acknowledged}");
        found
    }
}

/// The end state: the key has the value of the last number.
fn check(toy: &Toy, last: u64) {
    assert_eq!(toy.visible(), last);
    assert_eq!(toy.newest(), last);
}

fn replaced(inline: bool, read: impl Fn(&Toy) + Clone + Send + Sync + 'static) {
    loom::model(move || {
        let toy = Toy::new(TWO);
        assert!(toy.put(toy.admit()));
        let (writes, reads, read) = (toy.clone(), toy.clone(), read.clone());
        let commit = toy.admit();
        let writer = thread::spawn(move || {
            if inline {
                assert!(writes.put(commit), "the routes stay");
            } else {
                writes.send(commit);
            }
        });
        let reader = thread::spawn(move || read(&reads));
        toy.replace();
        writer.join().unwrap();
        reader.join().unwrap();
        check(&toy, 3);
        assert!(toy.points.is_empty());
    });
}

fn gets(toy: &Toy) {
    let first = toy.newest();
    let second = toy.newest();
    assert!(1 <= first && first <= second, "{second} after {first}");
}

/// Each of two lookups finds the old value, the new one, or a later one, and the second finds none
/// older than the first. Catches: `born` that is not published (the new value is not visible yet,
/// and the old one is cut out, so nothing is found); a memtable that is sealed only after the log's
/// seat is free (a later write is in the one that is cut).
#[test]
fn a_get_beside_a_replacement_finds_the_old_value_or_the_new_one() {
    replaced(false, gets);
}

/// As above, with a write that its caller applies after it has freed the log's seat.
/// Catches: the same.
#[test]
fn a_get_beside_a_replacement_and_an_inline_write_finds_one_of_them() {
    replaced(true, gets);
}

fn view(toy: &Toy) {
    // As `Engine::view`.
    let (pinned, point) = loop {
        let before = toy.shared.superversion.load_full();
        let acknowledged = toy.visible();
        let upto = || Seqno(toy.visible().max(before.born));
        let point = toy.points.hold(Holder::Scan, 0, upto);
        let after = toy.shared.superversion.load();
        if Arc::ptr_eq(&before, &after) {
            assert!(before.read(point.seqno().0) >= acknowledged);
            break (before, point);
        }
    };
    let first = pinned.read(point.seqno().0);
    // Other threads go on.
    let newest = toy.newest();
    assert!(1 <= first && first <= newest, "{newest} after {first}");
    assert_eq!(pinned.read(point.seqno().0), first, "a view does not change");
}

/// A view shows the old content or the new one, and shows the same again later. Catches: `born`
/// that is not published; a view that takes its point at `visible` alone; no second look at the
/// superversion.
#[test]
fn a_view_beside_a_replacement_shows_one_content_for_ever() {
    replaced(false, view);
}

/// The range has no room, and no flush makes any. The change seals what is there, so there is room
/// again, and the waiter goes on in the range, which stays. Catches: the charge of the sealed
/// memtable is not given back (deadlock).
#[test]
fn who_waits_for_room_goes_on_when_a_replacement_seals_what_there_is() {
    loom::model(|| {
        let toy = Toy::new(Capacity { messages: 2, bytes: 1 });
        assert!(toy.put(toy.admit()));
        let waits = toy.clone();
        let writer = thread::spawn(move || put_patiently(&waits));
        toy.replace();
        writer.join().unwrap();
        check(&toy, 3);
        let superversion = toy.shared.superversion.load_full();
        assert_eq!(superversion.memtables[0].has(3), 1, "it came after the change");
        assert!(!superversion.range.local.is_short());
    });
}
