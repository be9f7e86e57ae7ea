//! An index that cannot disagree with what it is about: two keyspaces, one batch, one snapshot.

use futures::TryStreamExt;
use sluicedb::{Db, KeyspaceOptions, Result, WriteBatch};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).await?;
    // Scanned by prefix and never asked for a single key: it needs no filter.
    let options = KeyspaceOptions { filter_bits_per_key: Some(0), ..KeyspaceOptions::default() };
    let by_town = db.keyspace_with("by town", options).await?;

    for (user, town) in [("ada", "London"), ("grace", "New York"), ("alan", "London")] {
        let mut batch = WriteBatch::new();
        batch.put(user, town).put_in(&by_town, format!("{town}/{user}"), "");
        db.write(batch).await?;
    }
    // Ada moves. A reader sees her in one town, whenever it looks.
    let before = db.snapshot();
    let mut batch = WriteBatch::new();
    batch.put("ada", "Turin").delete_in(&by_town, "London/ada").put_in(&by_town, "Turin/ada", "");
    db.write(batch).await?;

    for (when, index) in [("before", before.of(&by_town)?), ("now", by_town.snapshot())] {
        let there: Vec<_> = index.scan_prefix("London/").keys_only().try_collect().await?;
        println!("{when}: {} in London", there.len());
    }
    // The index goes at once, however much it has.
    db.drop_keyspace("by town").await?;
    println!("left: {:?}", db.keyspaces());
    db.close().await
}
