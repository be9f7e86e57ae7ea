use crate::harness::{Home, block_on};
use futures::FutureExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An environment variable of the child process, which has one idle database.
const IDLE: &str = "SLUICE_TEST_IDLE";

#[test]
#[cfg(debug_assertions)]
fn p27_a_forked_child_is_told_not_to_use_the_database() {
    let home = Home::new();
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    type Use = fn(&sluicedb::Db);
    let uses: [Use; 4] = [
        |db| drop(db.get("a").now_or_never()),
        |db| drop(db.put("a", "2").now_or_never()),
        |db| drop(db.snapshot()),
        |db| drop(db.scan(..)),
    ];
    for (number, each) in uses.into_iter().enumerate() {
        let child = db.clone();
        let mut command = Command::new("true");
        // SAFETY: the code between fork and exec allocates, which glibc allows in a forked child,
        // and takes no lock that another thread of the parent could hold.
        unsafe {
            command.pre_exec(move || {
                each(&child);
                Ok(())
            });
        }
        // std lets a panic between fork and exec abort the child.
        let status = command.status().unwrap();
        assert_eq!(status.signal(), Some(6), "use {number}");
    }
    assert_eq!(block_on(db.get("a")).unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn p27_a_program_started_beside_the_database_inherits_no_file_of_it() {
    let home = Home::new();
    let db = home.open();
    block_on(db.put("a", "1")).unwrap();
    block_on(db.flush()).unwrap();
    assert_eq!(block_on(db.get("a")).unwrap().as_deref(), Some(&b"1"[..]));
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let files = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let files = files.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let ours: Vec<_> = files.filter(|path| path.starts_with(home.path())).collect();
    block_on(db.close()).unwrap();
    drop(db);
    let reopened = block_on(home.builder().open());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ours.is_empty(), "inherited: {ours:?}");
    assert!(reopened.is_ok(), "{:?}", reopened.err());
}

/// How often each thread of the engine in this process gave up its processor.
#[cfg(target_os = "linux")]
fn switches() -> std::collections::BTreeMap<String, u64> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let count = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        let count = count.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum();
        Some((format!("{} {}", name.trim(), path.display()), count))
    };
    let all = threads.filter_map(|thread| of(thread.unwrap().path()));
    all.filter(|(name, _)| name.starts_with("sluice")).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn child_that_is_idle() {
    let Ok(dir) = std::env::var(IDLE) else { return };
    let db = block_on(sluicedb::Db::builder(dir).open()).unwrap();
    block_on(async {
        for n in 0..1_000_u32 {
            db.put((n % 100).to_be_bytes(), [7; 100]).await.unwrap();
        }
        db.sync().await.unwrap();
    });
    let mut before = switches();
    // The engine finishes its remaining work first.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(1_200));
        let after = switches();
        assert!(after.len() >= 8 && after.keys().any(|name| name.contains("timer")), "{after:?}");
        if before == after {
            return;
        }
        before = after;
    }
    panic!("somebody is awake: {before:?}, {:?}", switches());
}

/// Planted: a timer thread that looks at its list five times a second.
#[test]
#[cfg(target_os = "linux")]
fn b11_no_thread_of_an_idle_database_wakes() {
    let home = Home::new();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::child_that_is_idle", "--nocapture"])
        .env(IDLE, home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
