//! The process that writes when the power is cut.

use crate::kit::chance::Chance;
use crate::kit::oracle::batch;
use crate::story::{Event, SAID_EVERY, Setup, changes};
use sluicedb::{Db, Durability, WriteOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// An environment variable of the process: the setup and the directory, separated by a line end.
pub const TASK: &str = "SLUICE_TEST_POWER_WRITER";
/// The beginning of a line that reports a failure.
pub const FAILED: &str = "failed ";

/// Writes a line in one piece: the pipe has all of it or none.
fn say(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).is_ok() && out.flush().is_ok()
}

/// Writes until it is killed, until nobody listens, or until a write fails.
pub fn run(task: &str) -> ExitCode {
    let (setup, dir) = task.split_once('\n').expect("a setup and a directory");
    let setup: Setup = setup.parse().expect("the rig made it");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(write(&setup, Path::new(dir)));
    if let Err(error) = result {
        say(&format!("{FAILED}{error}").replace('\n', " "));
    }
    ExitCode::SUCCESS
}

async fn write(setup: &Setup, dir: &Path) -> sluicedb::Result<()> {
    let db = Db::builder(dir).options(setup.options()).open().await?;
    let mut tasks = Vec::new();
    for task in 0..setup.cell.tasks {
        tasks.push(tokio::spawn(one_task(db.clone(), setup.clone(), task)));
    }
    for task in tasks {
        task.await.expect("a writer does not panic")?;
    }
    Ok(())
}

async fn one_task(db: Db, setup: Setup, task: usize) -> sluicedb::Result<()> {
    let mut chance = Chance::new(setup.seed ^ setup.first[task] ^ (task as u64) << 32);
    for number in setup.first[task].. {
        let batch = batch(&changes(setup.seed, task, number));
        let durability = setup.cell.durability(&mut chance);
        let synced = durability == Durability::Synced;
        db.write_with(batch, WriteOptions::durability(durability)).await?;
        let said = setup.says_all || synced || number % SAID_EVERY == 0;
        if said && !say(&Event::Acked { task, number, synced }.to_string()) {
            return Ok(());
        }
        if task == 0 && chance.one_in(400) {
            say(&Event::SyncBegun.to_string());
            db.sync().await?;
            say(&Event::SyncDone.to_string());
        }
    }
    Ok(())
}
