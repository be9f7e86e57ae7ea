use crate::harness::{Home, Simulated, block_on};
use crate::kit::disk::content;
use futures::stream::{FuturesUnordered, StreamExt};
use sluicedb::{Db, Durability, Ticket, WriteBatch, WriteOptions};

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
                // Awaited from the last to the first: each knows its own answer.
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
        // Behind all of them in the order of writes.
        db.put("fence", "1").await.unwrap();
        assert_eq!(content(&db).await.unwrap().len(), 201);
    });
    // Dropped with the database right after them.
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
