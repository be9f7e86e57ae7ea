//! A batch is all or nothing, and readers see it at once or not at all.

use sluicedb::{Db, Result, WriteBatch};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).await?;
    db.put("account:a", "100").await?;
    db.put("account:b", "0").await?;

    let before = db.snapshot();
    let mut transfer = WriteBatch::new();
    transfer.put("account:a", "70").put("account:b", "30").delete("pending:1");
    db.write(transfer).await?;

    // The snapshot still shows the moment before; the database shows both sides of the transfer.
    println!("before: {:?}", before.multi_get(&["account:a", "account:b"]).await?);
    println!("after:  {:?}", db.multi_get(&["account:a", "account:b"]).await?);
    db.close().await
}
