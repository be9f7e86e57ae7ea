//! Watching health, and an orderly end: stop taking work, then close.

use sluicedb::{Db, HealthState, Result};

#[tokio::main]
#[allow(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).await?;

    let mut health = db.health();
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the application's task, not the engine's"
    )]
    let watcher = tokio::spawn(async move {
        loop {
            match health.changed().await {
                HealthState::Closed(_) => break println!("closed"),
                // Alert: writes fail until somebody makes room, or for good.
                state => println!("health: {state:?}"),
            }
        }
    });

    db.put("last", "words").await?;
    db.close().await?;
    watcher.await.expect("the watcher does not panic");

    let again = Db::open(dir.path()).await?;
    println!("still there: {:?}", again.get("last").await?);
    again.close().await
}
