//! kill -9 of a real process on a real disk: the page cache survives, so no write that was
//! acknowledged as `Buffered` may be missing.

use crate::kit::disk::content;
use crate::kit::oracle::Map;
use crate::kit::settings;
use sluicedb::{Db, Durability, WriteBatch, WriteOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// An environment variable of the child process: the directory, and the number of its first batch.
const CHILD: &str = "SLUICE_TEST_KILL";
const ROUNDS: u64 = 12;

fn batch(number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(format!("key{:03}", number % 200), format!("{number} {}", "x".repeat(120)));
    batch.put(format!("twin{:03}", number % 200), format!("{number} {}", "x".repeat(120)));
    if number % 7 == 3 {
        batch.delete(format!("key{:03}", (number + 5) % 200));
        batch.delete(format!("twin{:03}", (number + 5) % 200));
    }
    batch.put("mark", number.to_string());
    batch
}

/// The content after the batches below `count`.
fn after(count: u64) -> Map {
    let mut map = Map::new();
    for number in 0..count {
        for operation in batch(number).points() {
            match operation.kind {
                sluicedb_storage::key::Kind::Put => {
                    map.insert(operation.key.to_vec(), operation.value.to_vec());
                }
                sluicedb_storage::key::Kind::Delete => {
                    map.remove(operation.key);
                }
            }
        }
    }
    map
}

/// The child: writes for ever, and reports each acknowledged batch.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (first, dir) = task.split_once(' ').expect("a number and a directory");
    let first: u64 = first.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = Db::builder(dir).options(settings::tiny()).open().await.unwrap();
        let mut out = std::io::stdout();
        for number in first.. {
            let level = if number % 50 == 49 { Durability::Synced } else { Durability::Buffered };
            db.write_with(batch(number), WriteOptions::durability(level)).await.unwrap();
            // One write call, so that the pipe has the whole line or none of it.
            if out.write_all(format!("acked {number}\n").as_bytes()).is_err()
                || out.flush().is_err()
            {
                return;
            }
        }
    });
}

fn kill_after(dir: &Path, first: u64, lines: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_that_writes_until_it_is_killed", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(CHILD, format!("{first} {}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut last = None;
    let mut seen = 0;
    let mut killed = false;
    // It reads on after the kill: a line in the pipe is an acknowledgement too.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        if let Some(number) = line.split_once("acked ").and_then(|(_, n)| n.trim().parse().ok()) {
            last = Some(number);
            seen += 1;
        }
        if seen >= lines && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed, "the child ended by itself: {status}");
    last
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("db");
    let mut count = 0;
    for round in 0..ROUNDS {
        let lines = 1 + (round * round * 17) % 300;
        let last = kill_after(&dir, count, lines).expect("at least one batch");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        count = runtime.block_on(async {
            let db = Db::builder(&dir).options(settings::tiny()).open().await.unwrap();
            let found = content(&db).await.unwrap();
            let mark = std::str::from_utf8(&found[&b"mark"[..]]).unwrap().parse::<u64>().unwrap();
            assert!(
                mark >= last,
                "round {round}: {last} was acknowledged, {mark} is the last found"
            );
            let expected = after(mark + 1);
            assert_eq!(crate::kit::oracle::difference(&expected, &found), None, "round {round}");
            db.close().await.unwrap();
            mark + 1
        });
    }
    let findings = crate::kit::disk::verify(&dir).unwrap();
    assert!(findings.is_sound(), "{findings:?}");
}
