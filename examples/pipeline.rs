//! Pipelining: fix the order of many batches first, wait for their durability afterwards.

use sluicedb::{Db, Result, WriteBatch};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).await?;

    let mut tickets = Vec::new();
    for order in 0..1000_u32 {
        let mut batch = WriteBatch::new();
        batch.put(order.to_be_bytes(), "an order");
        // In the final order of writes when this returns; durable when the ticket resolves.
        tickets.push(db.submit(batch).await?);
    }
    for ticket in tickets {
        ticket.await?;
    }
    println!("1000 durable batches took {} syncs of the log", db.stats().log_syncs);
    db.close().await
}
