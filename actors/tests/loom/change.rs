//! A change of routes, as the version manager makes it, against readers and writers.
//!
//! The kernel is the real one. A toy log stamps. One toy range has all keys, and the change
//! replaces it: the new range begins with what the old one had. A "memtable" counts the entries of
//! each number.
//!
//! Long because the models share the toy log and range in it.

use super::poll_once;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use sluicedb_kernel::combining::Spent;
use sluicedb_kernel::combining::{CombiningMailbox, Handler, Hooks, TURN_BYTES_MAX, Turn};
use sluicedb_kernel::mailbox::{Capacity, Permit};
use sluicedb_kernel::published::Published;
use sluicedb_kernel::semaphore::{Refused, Semaphore, SemaphorePermit};
use sluicedb_kernel::sequencer::Slot;
use sluicedb_kernel::sequencer::{CommitGuard, Sequencer};
use sluicedb_kernel::signal::Signal;
use sluicedb_kernel::sync::block_on;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::points::{Holder, ReadPoint, ReadPoints};

/// Numbers from 1 to 3.
pub(crate) struct Memtable([AtomicU64; 4]);

impl Memtable {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self([(); 4].map(|()| AtomicU64::new(0))))
    }

    pub(crate) fn has(&self, seqno: u64) -> u64 {
        self.0[seqno as usize].load(Ordering::Relaxed)
    }
}

pub(crate) struct Range {
    pub(crate) seat: CombiningMailbox<Owner>,
    pub(crate) local: Semaphore,
}

pub(crate) struct Owner {
    pub(crate) active: Arc<Memtable>,
    pub(crate) charge: u64,
    last: u64,
}

pub(crate) struct Apply {
    seqno: u64,
    ticket: CommitGuard,
}

impl Owner {
    fn apply(&mut self, seqno: u64) {
        assert!(seqno > self.last, "in the order of the log");
        self.last = seqno;
        self.active.0[seqno as usize].fetch_add(1, Ordering::Relaxed);
        self.charge += 1;
    }
}

impl Handler for Owner {
    type Message = Apply;

    fn handle(&mut self, Apply { seqno, ticket }: Apply, turn: &mut Turn) {
        self.apply(seqno);
        turn.defer(move |_| {
            ticket.finish();
        });
    }

    fn weight(_: &Apply) -> usize {
        1
    }
}

fn hooks() -> Hooks {
    Hooks { kick: Box::new(|| panic!("a kick")), on_panic: Box::new(|words| panic!("{words}")) }
}

impl Range {
    fn new(active: &Arc<Memtable>, capacity: Capacity) -> Arc<Self> {
        let owner = Owner { active: active.clone(), charge: 0, last: 0 };
        let local = Semaphore::new(capacity.bytes);
        Arc::new(Self { seat: CombiningMailbox::new(owner, capacity, hooks()), local })
    }
}

pub(crate) struct Superversion {
    pub(crate) epoch: u64,
    /// The number of the change, which has no entry.
    pub(crate) born: u64,
    pub(crate) range: Arc<Range>,
    /// Newest first.
    pub(crate) memtables: Vec<Arc<Memtable>>,
    /// The number of a table that replaces all memtables but the newest.
    pub(crate) came: Option<u64>,
}

impl Superversion {
    /// A reader at `upto` finds each number up to `all` in one place, and none in two.
    fn check(&self, all: u64, upto: u64) {
        for seqno in 1..=3 {
            let places: u64 = self.memtables.iter().map(|memtable| memtable.has(seqno)).sum();
            assert!(places <= 1, "entry {seqno} is there twice");
            if seqno <= all && seqno != self.born {
                assert!(seqno <= upto && places == 1, "{seqno} of {all} is missed at {upto}");
            }
        }
    }
}

pub(crate) struct Shared {
    pub(crate) superversion: Published<Superversion>,
    pub(crate) commits: Sequencer,
}

pub(crate) struct Log {
    shared: Arc<Shared>,
    epoch: u64,
    last: u64,
}

pub(crate) struct Commit {
    epoch: u64,
    range: Arc<Range>,
    permit: Permit<Apply>,
    local: SemaphorePermit,
    slot: Slot,
}

impl Log {
    pub(crate) fn stamp(&mut self, slot: Slot) -> (u64, CommitGuard) {
        self.last += 1;
        (self.last, self.shared.commits.open(slot, self.last, 1))
    }
}

impl Handler for Log {
    type Message = Commit;

    fn handle(&mut self, mut commit: Commit, turn: &mut Turn) {
        if commit.epoch != self.epoch {
            // As in `stale.rs`: takes room in the new range, whether or not there is any.
            let superversion = self.shared.superversion.load();
            let range = superversion.range.clone();
            let (permit, local) = (range.seat.reserve_anyway(1), range.local.acquire_anyway(1));
            commit = Commit { epoch: superversion.epoch, range, permit, local, ..commit };
            assert_eq!(commit.epoch, self.epoch, "the newest routes are those that count");
        }
        let Commit { range, permit, local, slot, .. } = commit;
        let (seqno, ticket) = self.stamp(slot);
        local.forget();
        assert!(permit.send(Apply { seqno, ticket }).is_ok());
        turn.defer(move |spent| range.seat.settle(spent));
    }

    fn weight(_: &Commit) -> usize {
        1
    }
}

pub(crate) struct Toy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: CombiningMailbox<Log>,
    pub(crate) points: std::sync::Arc<ReadPoints>,
}

pub(crate) const TWO: Capacity = Capacity { messages: 2, bytes: 2 };

impl Toy {
    /// One range with this much room.
    pub(crate) fn new(capacity: Capacity) -> Arc<Self> {
        let active = Memtable::new();
        let range = Range::new(&active, capacity);
        let memtables = vec![active];
        let first = Superversion { epoch: 0, born: 0, range, memtables, came: None };
        let superversion = Published::new(Arc::new(first));
        let shared = Arc::new(Shared { superversion, commits: Sequencer::new(0, 4) });
        let log = Log { shared: shared.clone(), epoch: 0, last: 0 };
        let log = CombiningMailbox::new(log, TWO, hooks());
        Arc::new(Self { shared, log, points: ReadPoints::new() })
    }

    pub(crate) fn visible(&self) -> u64 {
        self.shared.commits.visible()
    }

    /// A commit that is admitted by the current routes.
    pub(crate) fn admit(&self) -> Commit {
        let superversion = self.shared.superversion.load();
        let range = superversion.range.clone();
        let (permit, local) =
            (range.seat.try_reserve(1).unwrap(), range.local.try_acquire(1).unwrap());
        let slot = self.shared.commits.try_reserve().unwrap();
        Commit { epoch: superversion.epoch, range, permit, local, slot }
    }

    pub(crate) fn send(&self, commit: Commit) {
        self.log.send(self.log.try_reserve(1).unwrap(), commit);
    }

    /// As `WritePath::try_seats`: runs both turns, or sends the commit. Returns false if the caller
    /// must try again by the new routes.
    pub(crate) fn put(&self, commit: Commit) -> bool {
        let Commit { epoch, range, permit, local, slot } = commit;
        if let Some(mut log) = self.log.try_enter_idle()
            && let Some(mut owner) = range.seat.try_enter_idle()
        {
            let turn = log.attempt(|log| (log.epoch == epoch).then(|| log.stamp(slot)));
            let Some((seqno, ticket)) = turn.unwrap() else {
                drop(log);
                return false;
            };
            log.release();
            owner.attempt(|owner| owner.apply(seqno)).unwrap();
            owner.release();
            local.forget();
            ticket.finish();
            range.seat.settle(&mut Spent::default());
            self.log.settle(&mut Spent::default());
            return true;
        }
        self.send(Commit { epoch, range, permit, local, slot });
        true
    }

    /// As `VersionManager::turn`.
    fn change(&self) {
        let shared = &self.shared;
        let current = shared.superversion.load_full();
        let slot = shared.commits.try_reserve().unwrap();
        let active = Memtable::new();
        let fresh = Range::new(&active, TWO);
        let ticket = self.log.run_last(|log| {
            current.range.seat.run_last(|_| ()).unwrap();
            let (born, ticket) = log.stamp(slot);
            let charge = current.range.seat.run_last(|owner| {
                owner.active = Memtable::new();
                std::mem::take(&mut owner.charge)
            });
            current.range.local.release(charge.unwrap());
            let mut memtables = current.memtables.clone();
            memtables.insert(0, active);
            let epoch = current.epoch + 1;
            let next = Superversion { epoch, born, range: fresh, memtables, came: None };
            shared.superversion.store(Arc::new(next));
            log.epoch = epoch;
            ticket
        });
        ticket.unwrap().finish();
        current.range.local.close();
        current.range.seat.close();
    }

    /// As `Engine::get`.
    fn get(&self) {
        let acknowledged = self.visible();
        let superversion = self.shared.superversion.load();
        let upto = self.visible().max(superversion.born);
        superversion.check(acknowledged.max(superversion.born), upto);
    }

    /// As `Engine::view`.
    fn view(&self) -> ReadPoint {
        loop {
            let before = self.shared.superversion.load_full();
            let visible = || Seqno(self.visible().max(before.born));
            let point = self.points.hold(Holder::Scan, 0, visible);
            let after = self.shared.superversion.load();
            if Arc::ptr_eq(&before, &after) {
                assert!(point.seqno().0 >= before.born, "the view shows the change");
                before.check(point.seqno().0, point.seqno().0);
                return point;
            }
        }
    }

    /// The end state: this many numbers were allotted, and each entry is where the routes of its
    /// stamp say.
    fn check(&self, last: u64) {
        assert_eq!(self.visible(), last);
        let superversion = self.shared.superversion.load();
        superversion.check(last, last);
        for seqno in 1..superversion.born {
            assert_eq!(superversion.memtables[0].has(seqno), 0, "{seqno} came before");
        }
        for seqno in superversion.born + 1..=last {
            assert_eq!(superversion.memtables[0].has(seqno), 1, "{seqno} came after");
        }
    }
}

fn get_against_a_change(inline: bool) {
    loom::model(move || {
        let toy = Toy::new(TWO);
        let (writes, reads) = (toy.clone(), toy.clone());
        let commit = toy.admit();
        let writer = thread::spawn(move || {
            if !inline {
                writes.send(commit);
            } else if !writes.put(commit) {
                assert!(writes.put(writes.admit()), "there is one change");
            }
        });
        let reader = thread::spawn(move || reads.get());
        toy.change();
        writer.join().unwrap();
        reader.join().unwrap();
        toy.check(2);
    });
}

/// A queued write is on its way, in any state, when the change happens, and a reader looks
/// meanwhile. Catches: a publication before the range's mailbox is drained; a read at `visible`
/// alone in a superversion that is born later; a `born` that is one too high.
#[test]
fn a_get_finds_what_came_before_a_change() {
    get_against_a_change(false);
}

/// As above, with a write that its caller applies after it has freed the log's seat.
#[test]
fn a_get_finds_what_was_put_inline_before_a_change() {
    get_against_a_change(true);
}

/// The point may be above what is visible, but never above what the pinned superversion has.
/// Catches: no second look at the superversion (the pinned one lacks something visible); a point at
/// `visible` alone.
#[test]
fn a_view_has_everything_up_to_its_point_whatever_the_routes() {
    loom::model(|| {
        let toy = Toy::new(TWO);
        let (writes, reads) = (toy.clone(), toy.clone());
        let commit = toy.admit();
        let writer = thread::spawn(move || {
            if !writes.put(commit) {
                assert!(writes.put(writes.admit()), "there is one change");
            }
        });
        let reader = thread::spawn(move || reads.view());
        toy.change();
        writer.join().unwrap();
        drop(reader.join().unwrap());
        toy.check(2);
        assert!(toy.points.is_empty());
    });
}

/// A view of the new superversion is held at its birth, which is not visible yet, when a view of
/// the old one takes a point below it.
/// Catches: points that are kept in the order in which they were taken (the wrong one is given
/// back).
#[test]
fn views_before_and_after_a_change_hold_their_points() {
    loom::model(|| {
        let toy = Toy::new(TWO);
        let readers = [(); 2].map(|()| {
            let reads = toy.clone();
            thread::spawn(move || reads.view())
        });
        toy.change();
        for reader in readers {
            drop(reader.join().unwrap());
        }
        assert!(toy.points.is_empty());
    });
}

/// As `WritePath::admit_and_submit`: waits by the newest routes.
pub(crate) fn put_patiently(toy: &Toy) {
    let mut before = None;
    loop {
        let superversion = toy.shared.superversion.load_full();
        let (epoch, range) = (superversion.epoch, superversion.range.clone());
        assert!(
            before.replace(epoch) != Some(epoch),
            "told that the range has gone, and it is there"
        );
        let local = match block_on(range.local.acquire(1)) {
            Ok(local) => local,
            Err(refused) => {
                assert_eq!(refused, Refused::Closed);
                continue;
            }
        };
        match range.seat.try_reserve(1) {
            Ok(permit) => {
                let slot = toy.shared.commits.try_reserve().unwrap();
                return toy.send(Commit { epoch, range, permit, local, slot });
            }
            Err(Refused::Full) => {
                drop(local);
                assert_eq!(block_on(range.seat.reserve(1)).map(drop), Err(Refused::Closed));
            }
            Err(refused) => assert_eq!(refused, Refused::Closed),
        }
    }
}

/// A writer waits for bytes of the old range, or for a place in its mailbox, and neither comes
/// back. Catches: accounts that are not closed (deadlock); accounts that are closed before the
/// publication (the woken writer finds the old range again).
#[test]
fn who_waits_for_a_range_that_goes_is_woken() {
    for (bytes_full, messages_full) in [(true, false), (false, true)] {
        loom::model(move || {
            let toy = Toy::new(Capacity { messages: 1, bytes: 2 });
            let old = toy.shared.superversion.load_full();
            // Never given back, so only the change can wake those who wait.
            let bytes = bytes_full.then(|| old.range.local.try_acquire(2).unwrap());
            let place = messages_full.then(|| old.range.seat.try_reserve(1).unwrap());
            let waits = toy.clone();
            let writer = thread::spawn(move || put_patiently(&waits));
            toy.change();
            writer.join().unwrap();
            toy.check(2);
            drop((bytes, place));
            assert_eq!((old.range.local.used(), old.range.local.is_short()), (0, false));
        });
    }
}

/// Writes by routes that change meanwhile. The commits have room by the old routes.
fn puts_against_a_change(queues: bool, inline: bool, preemptions_max: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions_max);
    model.check(move || {
        let toy = Toy::new(TWO);
        let old = toy.shared.superversion.load_full();
        let queuer = queues.then(|| {
            let (toy, commit) = (toy.clone(), toy.admit());
            thread::spawn(move || toy.send(commit))
        });
        let writer = inline.then(|| {
            let (toy, commit) = (toy.clone(), toy.admit());
            thread::spawn(move || {
                if !toy.put(commit) {
                    assert!(toy.put(toy.admit()), "found out twice, and there is one change");
                }
            })
        });
        toy.change();
        for thread in queuer.into_iter().chain(writer) {
            thread.join().unwrap();
        }
        toy.check(1 + u64::from(queues) + u64::from(inline));
        assert_eq!(old.range.local.used(), 0, "what it had went with the change");
        assert!(old.range.seat.is_empty());
    });
}

/// The write is sent with room by the old routes, and stamped before or after the change.
/// Catches: no comparison of epochs where it is stamped; an epoch that is set in a turn before the
/// one that publishes. (Within one turn nobody can tell which of the two comes first.)
#[test]
fn a_queued_write_lands_where_the_routes_of_its_number_say() {
    puts_against_a_change(true, false, 2);
}

/// A caller's own write that took room by the old routes.
/// Catches: no comparison of epochs in its turn; an epoch that is set in a turn before the one that
/// publishes.
#[test]
fn an_inline_write_lands_where_the_routes_of_its_number_say() {
    puts_against_a_change(false, true, 2);
}

/// Both at once. One preemption less than elsewhere, because three threads go through two seats
/// each.
/// Catches: the same as the two before.
#[test]
fn two_writes_and_a_change_have_one_order() {
    puts_against_a_change(true, true, 1);
}

/// Adds up what it handles. A message of 10 fills a turn.
struct Count(u64);

impl Handler for Count {
    type Message = u64;

    fn handle(&mut self, add: u64, _: &mut Turn) {
        self.0 += add;
    }

    fn weight(add: &u64) -> usize {
        if *add == 10 { TURN_BYTES_MAX } else { 1 }
    }
}

fn counted(mailbox: &CombiningMailbox<Count>) -> Option<u64> {
    mailbox.try_enter_idle()?.attempt(|count| count.0)
}

fn counting() -> (Arc<CombiningMailbox<Count>>, Arc<Signal>) {
    let kicked = Arc::new(Signal::new());
    let kick = kicked.clone();
    let hooks = Hooks { kick: Box::new(move || kick.set()), ..hooks() };
    let capacity = Capacity { messages: 3, bytes: 3 };
    (Arc::new(CombiningMailbox::new(Count(0), capacity, hooks)), kicked)
}

/// What this thread has sent is handled first, even if another thread is inside a send.
/// Catches: a drain that ends at the limits of a turn; a count that is raised after the push,
/// outside the queue's lock (the drain handles the other message in place of ours, and ends).
#[test]
fn run_last_comes_after_everything_that_was_sent() {
    loom::model(|| {
        let (mailbox, kicked) = counting();
        let permit = mailbox.try_reserve(1).unwrap();
        let sender = thread::spawn(move || permit.send(1).is_ok());
        for _ in 0..2 {
            assert!(mailbox.try_reserve(1).unwrap().send(10).is_ok());
        }
        let seen = mailbox.run_last(|count| count.0).unwrap();
        assert!(seen >= 20, "{seen} handled");
        assert!(sender.join().unwrap());
        assert!(poll_once(&mut kicked.wait()).is_pending(), "it left nothing over");
        mailbox.settle(&mut Spent::default());
        assert_eq!((counted(&mailbox), mailbox.len()), (Some(21), 0));
    });
}

/// Two senders find the seat taken, or not: both messages are handled once all have returned.
/// Catches: no look at the queue after the seat was freed.
#[test]
fn run_last_leaves_no_message_behind() {
    loom::model(|| {
        let (mailbox, _) = counting();
        let senders = [(); 2].map(|()| {
            let (mailbox, permit) = (mailbox.clone(), mailbox.try_reserve(1).unwrap());
            thread::spawn(move || mailbox.send(permit, 1))
        });
        mailbox.run_last(|count| count.0).unwrap();
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(mailbox.len(), 0);
        assert_eq!(counted(&mailbox), Some(2));
    });
}
