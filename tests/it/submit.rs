use crate::harness::{Home, Simulated, block_on};
use crate::kit::disk::content;
use crate::kit::settings::NO_WAIT;
use futures::stream::{FuturesUnordered, StreamExt};
use sluicedb::{Db, Durability, Error, ErrorKind, Outcome, Ticket, WriteBatch, WriteOptions};
use sluicedb_actors::runtime::Runtime;
use sluicedb_storage::vfs::{Fault, OperationKind};
use std::time::Duration;

fn one(key: &str, value: impl AsRef<[u8]>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, value);
    batch
}

fn is_pipelined(tickets: &[u64]) {
    assert!(tickets.windows(2).all(|pair| pair[1] == pair[0] + 1), "{tickets:?}");
}

#[test]
fn hundreds_in_flight_keep_their_order() {
    for durability in [Durability::Buffered, Durability::Synced] {
        for seed in 0..4 {
            let mut options = crate::kit::settings::tiny();
            options.commits_in_flight_max = 1024;
            let home = Simulated::with(seed, options);
            let db = home.open();
            let how = WriteOptions::durability(durability);
            home.run(async {
                let mut tickets: Vec<Ticket> = Vec::new();
                for n in 0..500_u32 {
                    tickets.push(db.submit_with(one("last", n.to_be_bytes()), how).await.unwrap());
                }
                // The tickets are awaited from the last to the first: each has its own answer.
                let mut seqnos = Vec::new();
                for ticket in tickets.into_iter().rev() {
                    seqnos.push(ticket.await.unwrap());
                }
                seqnos.reverse();
                is_pipelined(&seqnos);
                let last = db.get("last").await.unwrap().unwrap();
                assert_eq!(last[..], 499_u32.to_be_bytes());
                assert_eq!(db.stats().visible_seqno, *seqnos.last().unwrap());
                if durability == Durability::Synced {
                    assert!(db.durable_seqno() >= *seqnos.last().unwrap());
                }
            });
        }
    }
}

#[test]
fn tickets_resolve_on_a_real_disk_and_share_syncs() {
    let home = Home::new();
    let db = home.open();
    let before = db.stats().log_syncs;
    block_on(async {
        let mut tickets = FuturesUnordered::new();
        for n in 0..300_u32 {
            let how = WriteOptions::durability(Durability::Synced);
            let key = format!("key{n:03}");
            tickets.push(db.submit_with(one(&key, "v"), how).await.unwrap());
        }
        let mut seqnos = Vec::new();
        while let Some(seqno) = tickets.next().await {
            seqnos.push(seqno.unwrap());
        }
        seqnos.sort_unstable();
        is_pipelined(&seqnos);
    });
    let syncs = db.stats().log_syncs - before;
    assert!(syncs < 300, "{syncs} syncs for 300 commits submitted together");
    drop(db);
    assert_eq!(block_on(content(&home.open())).unwrap().len(), 300);
}

#[test]
fn a_dropped_ticket_does_not_take_its_write_back() {
    let home = Home::new();
    let db = home.open();
    block_on(async {
        for n in 0..200 {
            drop(db.submit(one(&format!("key{n:03}"), "v")).await.unwrap());
        }
        // This write follows all of them in the order of writes.
        db.put("fence", "1").await.unwrap();
        assert_eq!(content(&db).await.unwrap().len(), 201);
    });
    // The tickets are dropped, and the database right after them.
    for n in 200..260 {
        drop(block_on(db.submit(one(&format!("key{n:03}"), "v"))).unwrap());
    }
    block_on(db.close()).unwrap();
    assert_eq!(block_on(content(&home.open())).unwrap().len(), 261);
}

#[test]
fn what_is_submitted_is_in_the_order_even_before_it_is_awaited() {
    let home = Simulated::new(9);
    let db: Db = home.open();
    home.run(async {
        let first = db.submit(one("k", "first")).await.unwrap();
        let second = db.submit(one("k", "second")).await.unwrap();
        let third = db.put("k", "third");
        third.await.unwrap();
        assert_eq!(db.get("k").await.unwrap().as_deref(), Some(&b"third"[..]));
        assert!(first.await.unwrap() < second.await.unwrap());
        assert_eq!(db.get("k").await.unwrap().as_deref(), Some(&b"third"[..]));
    });
}

/// Goal: a ticket has two stages, and names the sequence number that the write returns.
///
/// Planted: `visible` that waits for the acknowledgement.
#[test]
fn a_write_is_visible_before_the_disk_has_it() {
    // Each path of a write: inline, queued behind a taken seat, and across ranges.
    for split_keys in [&[][..], &[vec![64], vec![128], vec![192]]] {
        let mut options = crate::kit::settings::tiny();
        options.initial_split_keys = split_keys.to_vec();
        let home = Simulated::with(11, options);
        let db = home.open();
        let synced = WriteOptions::durability(Durability::Synced);
        let mut batch = WriteBatch::new();
        for byte in 0..=255_u8 {
            batch.put([byte], "v");
        }
        home.faults.arm(Fault::of(OperationKind::Sync).sticky());
        let mut ticket = home.run(db.submit_with(batch, synced)).unwrap();
        let seqno = home.run(ticket.visible()).unwrap();
        assert_eq!(home.run(content(&db)).unwrap().len(), 256);
        assert!(db.durable_seqno() < seqno, "nothing was synced");
        assert_eq!(home.run(ticket.visible()).unwrap(), seqno, "and it may be asked again");
        let error = home.run(ticket.durable()).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    }
}

#[test]
fn every_stage_and_every_write_says_the_number_of_the_write() {
    let home = Simulated::new(12);
    let db = home.open();
    home.run(async {
        let first = db.put("a", "1").await.unwrap();
        assert_eq!(db.delete("a").await.unwrap(), first + 1);
        let mut three = WriteBatch::new();
        three.put("a", "1").put("b", "2").delete("c");
        assert_eq!(db.write(three).await.unwrap(), first + 4, "of its last operation");
        assert_eq!(db.snapshot().seqno(), first + 4);
        assert_eq!(db.write(WriteBatch::new()).await.unwrap(), first + 4, "nothing was written");
        let synced = WriteOptions::durability(Durability::Synced);
        assert_eq!(db.put_with("large", vec![1; 9000], synced).await.unwrap(), first + 5);
        assert!(db.durable_seqno() >= first + 5);

        for options in [WriteOptions::durability(Durability::Buffered), synced] {
            let mut ticket = db.submit_with(one("k", "v"), options).await.unwrap();
            let seqno = ticket.visible().await.unwrap();
            assert!(db.contains_key("k").await.unwrap());
            assert_eq!((&mut ticket).await.unwrap(), seqno);
            assert_eq!(ticket.durable().await.unwrap(), seqno);
            assert!(db.durable_seqno() >= seqno, "{options:?}");
        }
    });
}

/// Planted: a ticket that keeps the engine.
#[test]
fn a_ticket_keeps_no_database_and_knows_what_became_of_its_write() {
    let home = Simulated::new(13);
    let buffered = WriteOptions::durability(Durability::Buffered);
    let db = home.open();
    let closed = home.run(db.submit_with(one("a", "1"), buffered)).unwrap();
    home.run(db.close()).unwrap();
    let db = home.open();
    let dropped = home.run(db.submit_with(one("b", "2"), buffered)).unwrap();
    drop(db);
    home.simulator.settle();
    let db = home.open();
    assert_eq!(home.run(content(&db)).unwrap().len(), 2);
    home.run(closed.durable()).unwrap();
    let error = home.run(dropped.durable()).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::Unknown));
}

/// Goal: a refused batch is returned unchanged, whatever refused it.
#[test]
fn a_refused_batch_comes_back() {
    let home = Simulated::new(14);
    let db = home.open();
    let given_back = |error: &mut Error| error.take_batch().expect("it comes back");
    let mut bad = WriteBatch::new();
    bad.put("fine", "1").put("", "2");
    for submit in [false, true] {
        let refused = if submit {
            home.run(db.submit(bad.clone())).map(drop)
        } else {
            home.run(db.write(bad.clone())).map(drop)
        };
        let mut error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.clone().take_batch().is_none(), "a clone has none");
        assert_eq!(given_back(&mut error), bad);
        assert!(error.take_batch().is_none());
    }
    let mut huge = WriteBatch::new();
    huge.put("huge", vec![0; 200_000]).put("more", vec![1; 200_000]).put("most", vec![2; 200_000]);
    let mut error = home.run(db.write(huge.clone())).unwrap_err();
    assert_eq!((error.kind(), given_back(&mut error)), (ErrorKind::Invalid, huge));
    assert!(home.run(db.put("", "v")).unwrap_err().take_batch().is_none(), "no batch, none back");

    // No room: with and without waiting, for few operations and for many.
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
    while home.run(db.put_with("fill", vec![0; 4096], NO_WAIT)).is_ok() {
        home.run(db.put("other", vec![0; 100])).ok();
        home.simulator.settle();
    }
    let many = || {
        let mut batch = WriteBatch::new();
        for n in 0..5_000_u32 {
            batch.put(n.to_be_bytes(), "v");
        }
        batch
    };
    let deadline = home.simulator.now() + Duration::from_secs(1);
    for options in [NO_WAIT, WriteOptions::new().by(deadline)] {
        for batch in [one("late", vec![0; 9000]), many()] {
            let mut error = home.run(db.write_with(batch.clone(), options)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
            assert_eq!(given_back(&mut error), batch);
        }
    }
    home.run(db.close()).ok();
    let mut error = home.run(db.write(one("k", "v"))).unwrap_err();
    assert_eq!((error.kind(), given_back(&mut error)), (ErrorKind::Closed, one("k", "v")));
}

/// An operation that named no keyspace is bound to the keyspace of the handle that refused the
/// batch, whichever handle writes it afterwards.
#[test]
fn a_batch_that_comes_back_stays_in_its_keyspace() {
    let home = Simulated::new(15);
    let db = home.open();
    let other = home.run(db.keyspace("other")).unwrap();
    home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
    home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
    let mut batch = one("k", "v");
    batch.put_in(&db, "of default", "w");
    let mut refused = None;
    while refused.is_none() {
        home.run(other.put_with("fill", vec![0; 4096], NO_WAIT)).ok();
        refused = home.run(other.write_with(batch.clone(), NO_WAIT)).err();
    }
    home.faults.disarm();
    home.simulator.settle();
    let batch = refused.and_then(|mut error| error.take_batch()).unwrap();
    home.run(db.write(batch)).unwrap();
    assert_eq!(home.run(other.get("k")).unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(home.run(db.get("of default")).unwrap().as_deref(), Some(&b"w"[..]));
    assert!(!home.run(db.contains_key("k")).unwrap());
}
