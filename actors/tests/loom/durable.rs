use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;
use sluicedb_actors::kernel::{Reply, Seat, Signal, reply};

/// The log behind its seat, as group commit uses it.
#[derive(Default)]
struct Log {
    appended: u64,
    asks: Vec<(u64, Reply<()>)>,
}

struct Shared {
    seat: Seat<Log>,
    wanted: Signal,
    durable: AtomicU64,
    /// What the disk has; only the syncing thread writes it.
    synced: AtomicU64,
    stop: AtomicBool,
}

/// Group commit of two writers: whoever is answered finds `durable` at or above its entry, and
/// `durable` never tells more than the disk has.
/// Catches: storing `durable` before the sync; taking the group's end after the sync instead of
/// before it (an entry appended during the sync is acknowledged unsynced).
#[test]
fn durable_never_overstates() {
    loom::model(|| {
        let shared = Arc::new(Shared {
            seat: Seat::new(Log::default()),
            wanted: Signal::new(),
            durable: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let syncing = shared.clone();
        let syncer = thread::spawn(move || {
            loop {
                let last = syncing.stop.load(Ordering::Acquire);
                let (upto, asks) = {
                    let mut log = syncing.seat.enter_blocking().unwrap();
                    (log.appended, std::mem::take(&mut log.asks))
                };
                syncing.synced.store(upto, Ordering::Relaxed);
                syncing.durable.store(upto, Ordering::Release);
                for (seqno, reply) in asks {
                    assert!(seqno <= upto);
                    reply.send(());
                }
                if last {
                    break;
                }
                syncing.wanted.wait_blocking();
            }
        });
        let (reply, answer) = reply();
        let seqno = {
            let mut log = shared.seat.enter_blocking().unwrap();
            log.appended += 1;
            let seqno = log.appended;
            log.asks.push((seqno, reply));
            seqno
        };
        shared.wanted.set();
        let durable = shared.durable.load(Ordering::Acquire);
        assert!(shared.synced.load(Ordering::Relaxed) >= durable);
        answer.wait_blocking().unwrap();
        assert!(shared.durable.load(Ordering::Acquire) >= seqno);
        shared.stop.store(true, Ordering::Release);
        shared.wanted.set();
        syncer.join().unwrap();
    });
}
