//! Overload is a value: a fast writer is paced by awaiting, or told so when it will not wait.

use sluicedb::{Db, Durability, ErrorKind, Result, WriteOptions};

const MIB: u64 = 1 << 20;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let builder = Db::builder(dir.path()).memory_budget(8 * MIB);
    let db = builder.durability(Durability::Buffered).open().await?;

    // `put` waits while 4 MiB of write buffer are full; the executor's threads stay free.
    for index in 0..20_000_u64 {
        db.put(index.to_be_bytes(), [7; 1000]).await?;
    }
    let stats = db.stats();
    println!(
        "20 MB through 4 MiB of buffer: {} flushes, {} waits, {} ms waited",
        stats.flushes,
        stats.waits_local + stats.waits_global,
        (stats.wait_micros_local + stats.wait_micros_global) / 1000,
    );

    // Told not to wait, it is refused: shed load, or answer 503.
    let no_wait = WriteOptions::new().no_wait();
    let (mut accepted, mut refused) = (0, 0);
    for index in 0..20_000_u64 {
        match db.put_with(index.to_be_bytes(), [8; 1000], no_wait).await {
            Ok(_) => accepted += 1,
            Err(error) if error.kind() == ErrorKind::Overloaded => refused += 1,
            Err(error) => return Err(error),
        }
    }
    println!("without waiting: {accepted} accepted, {refused} refused");
    db.close().await
}
