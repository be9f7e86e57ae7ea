use crate::home::{Home, block_on};
use futures::FutureExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

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
        // SAFETY: what runs between fork and exec allocates, which glibc allows in a forked child,
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
