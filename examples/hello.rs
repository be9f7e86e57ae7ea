//! The first ten lines: open, write, read, scan, close.

use futures::TryStreamExt;
use sluicedb::{Db, Result};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("hello.db")).await?;

    db.put("user:1", "Ada").await?;
    db.put("user:2", "Grace").await?;
    println!("user:1 is {:?}", db.get("user:1").await?);

    let mut users = db.scan_prefix("user:");
    while let Some((key, value)) = users.try_next().await? {
        println!("{key:?} = {value:?}");
    }
    db.close().await
}
