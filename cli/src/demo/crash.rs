//! The unclean stop. A child process writes, reports every acknowledgement over a pipe, and is
//! killed meanwhile. What it reported must exist after the next open.
//!
//! Each task of the child writes batches `{ <n>: value(n), head: n }` for n = 0, 1, 2... Let m be
//! the last acknowledged n. Then after the kill all of 0..=m exist with their values; what exists
//! beyond m follows without a gap; and head is exactly the last one. (Batches are whole or absent,
//! and in order.)

use super::args::{ChildArgs, DemoArgs};
use super::work::Tally;
use crate::outcome::{Failure, Result};
use crate::random::{Random, mix};
use crate::store::{self, Durable};
use crate::text::escape;
use sluicedb::{Db, WriteBatch};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Time between the first acknowledgement and the kill in the first round. Each round adds as much.
const KILL_AFTER: Duration = Duration::from_millis(300);
/// Longest wait for a child's first acknowledgement. The child first recovers the database.
const START_MAX: Duration = Duration::from_secs(60);

/// The child: writes until it is killed.
pub async fn child(args: ChildArgs) -> Result {
    let db = store::open(&args.path, store::options(Some(args.memory)), false).await?;
    let mut tasks = JoinSet::new();
    for task in 0..args.tasks {
        tasks.spawn(write(db.clone(), args.round, task));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Failure::failed(format!("a writer stopped: {error}")))??;
    }
    Ok(())
}

async fn write(db: Db, round: u32, task: u16) -> Result {
    // Every other task waits for the disk. kill -9 must not matter to either kind.
    let durable = if task.is_multiple_of(2) { Durable::Buffered } else { Durable::Synced };
    let mut n = 0;
    loop {
        let mut batch = WriteBatch::new();
        batch.put(key(round, task, n), value(round, task, n));
        batch.put(head(round, task), n.to_string());
        db.write_with(batch, durable.write_options()).await?;
        // One write call per line, so a line is in the pipe as a whole or not at all.
        let line = format!("{task} {n}\n");
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Failure::stdout(&error))?;
        drop(out);
        n += 1;
    }
}

fn key(round: u32, task: u16, n: u64) -> String {
    format!("crash/{round}/{task:03}/{n:010}")
}

fn head(round: u32, task: u16) -> String {
    format!("crash-head/{round}/{task:03}")
}

fn value(round: u32, task: u16, n: u64) -> Vec<u8> {
    let mut random = Random::new(mix(u64::from(round) << 48 | u64::from(task) << 32 | n));
    // Mostly small, sometimes several blocks.
    let len = if n.is_multiple_of(64) { 20_000 } else { 20 + random.below(400) };
    let mut value = vec![0; len as usize];
    random.fill(&mut value);
    value
}

/// What the child had reported when it was killed: for each task the last acknowledged n.
pub type Acks = Vec<Option<u64>>;

/// Starts a child, lets it write, kills it (SIGKILL: no destructor, no flush), and returns what it
/// had reported. The database must be closed here.
pub async fn kill_a_writer(path: &Path, args: &DemoArgs, round: u32) -> Result<Acks> {
    let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    let mut child = Command::new(program)
        .arg("demo-child")
        .arg(path)
        .args(["--round", &round.to_string()])
        .args(["--tasks", &args.tasks.to_string()])
        .args(["--memory", &args.memory.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("the child process", &error))?;
    let pipe = child.stdout.take().expect("stdout was asked to be piped");
    let tasks = usize::from(args.tasks);
    let (started, first_ack) = mpsc::channel();
    let reader = std::thread::spawn(move || read_acks(BufReader::new(pipe), tasks, &started));
    // Not on an executor thread: this waits for another process.
    let wait = KILL_AFTER * (round + 1);
    let killer = tokio::task::spawn_blocking(move || {
        let seen = first_ack.recv_timeout(START_MAX).is_ok();
        if seen {
            std::thread::sleep(wait);
        }
        let killed = child.kill();
        (seen, killed, child.wait())
    });
    let (seen, killed, ended) =
        killer.await.map_err(|error| Failure::failed(format!("the killer stopped: {error}")))?;
    let acks = reader.join().map_err(|_| Failure::failed("the reader of acks stopped"))?;
    killed.map_err(|error| Failure::io("killing the child", &error))?;
    let ended = ended.map_err(|error| Failure::io("the child process", &error))?;
    if !seen || ended.code().is_some() {
        return Err(Failure::failed(format!("the child ended by itself: {ended}")));
    }
    Ok(acks)
}

fn read_acks(pipe: impl BufRead, tasks: usize, started: &mpsc::Sender<()>) -> Acks {
    let mut acks: Acks = vec![None; tasks];
    for line in pipe.lines() {
        // A last line without its end was cut by the kill and acknowledges nothing. `lines` would
        // return it, but a number in it would be a prefix of the true one: smaller, hence still
        // true.
        let Ok(line) = line else { break };
        let Some((task, n)) = line.split_once(' ') else { continue };
        if let (Ok(task), Ok(n)) = (task.parse::<usize>(), n.parse()) {
            acks[task] = Some(n);
            // Only the first message is waited for. Later ones find no receiver, which is fine.
            let _ = started.send(());
        }
    }
    acks
}

/// Checks that everything acknowledged exists, without gaps and whole, and that nothing was
/// invented. Returns how many acknowledged batches were checked.
pub async fn check(db: &Db, round: u32, acks: &Acks, tally: &mut Tally) -> Result<u64> {
    let mut acknowledged = 0;
    for (task, &acked) in acks.iter().enumerate() {
        let task = task as u16;
        acknowledged += acked.map_or(0, |n| n + 1);
        let mut scan = db.scan_prefix(format!("crash/{round}/{task:03}/"));
        let mut next = 0;
        while let Some(batch) = scan.next_chunk().await? {
            for (found, content) in batch.iter() {
                tally.entries += 1;
                tally.bytes += content.len() as u64;
                if found != key(round, task, next).as_bytes() {
                    let wanted = key(round, task, next);
                    tally.mismatch(format!(
                        "after the kill: {wanted} is missing, {} follows",
                        escape(found)
                    ));
                }
                if content != value(round, task, next) {
                    tally.mismatch(format!("after the kill: {} has another value", escape(found)));
                }
                next += 1;
            }
        }
        let last = next.checked_sub(1);
        if last < acked {
            tally.mismatch(format!(
                "after the kill: task {task} had {acked:?} acknowledged, only {last:?} is there"
            ));
        }
        let head = db.get(head(round, task)).await?;
        let head = head.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<u64>().ok());
        if head != last {
            tally.mismatch(format!(
                "after the kill: task {task}: a batch is there by halves, \
                 head {head:?}, last {last:?}"
            ));
        }
    }
    Ok(acknowledged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_read_up_to_the_cut() {
        let (started, first) = mpsc::channel();
        let acks = read_acks(&b"0 0\n1 0\n0 1\n0 2"[..], 3, &started);
        assert_eq!(acks, [Some(2), Some(0), None]);
        assert!(first.try_recv().is_ok());
    }

    /// Goal: the check after a kill notices what it is there for.
    /// Method: make the states that a broken engine would leave behind.
    #[tokio::test]
    async fn lost_halved_and_invented_writes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let db = store::open(&dir.path().join("db"), store::options(None), true).await.unwrap();
        let mismatches = async |acks: &Acks| {
            let mut tally = Tally::default();
            check(&db, 0, acks, &mut tally).await.unwrap();
            tally.mismatches
        };
        for n in 0..5 {
            db.put(key(0, 0, n), value(0, 0, n)).await.unwrap();
        }
        db.put(head(0, 0), "4").await.unwrap();
        assert_eq!(mismatches(&vec![Some(4)]).await, 0);
        assert_eq!(mismatches(&vec![Some(2)]).await, 0, "more than acknowledged is fine");
        assert!(mismatches(&vec![Some(5)]).await > 0, "an acknowledged batch is lost");
        db.put(head(0, 0), "3").await.unwrap();
        assert!(mismatches(&vec![Some(3)]).await > 0, "a batch by halves");
        db.put(head(0, 0), "4").await.unwrap();
        db.put(key(0, 0, 1), "stale").await.unwrap();
        assert!(mismatches(&vec![Some(4)]).await > 0, "another value");
        db.delete(key(0, 0, 1)).await.unwrap();
        assert!(mismatches(&vec![Some(4)]).await > 0, "a gap");
        db.close().await.unwrap();
    }

    #[test]
    fn values_tell_their_place() {
        assert_eq!(value(1, 2, 3), value(1, 2, 3));
        assert_ne!(value(1, 2, 3), value(1, 2, 4));
        assert_ne!(value(1, 2, 3), value(2, 2, 3));
        assert_eq!(value(0, 0, 64).len(), 20_000);
    }
}
