//! Goal: an open takes few descriptors, whatever the length of the log.
//! Method: count the open files at each read and each change of the disk.

use super::*;
use crate::vfs::OverlayVfs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More than any step of an open has at once.
const OPEN_MAX: u64 = 8;

/// Runs `work` on a disk with the contents of `mem`, and returns the most files that were open at
/// once.
fn open_at_once(mem: &MemVfs, work: impl FnOnce(Arc<dyn Vfs>)) -> u64 {
    let mem = mem.kill_clone();
    let faulty = FaultVfs::over_mem(&mem);
    let control = faulty.control();
    let (closed, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = {
        let (closed, most) = (Arc::clone(&closed), Arc::clone(&most));
        move || {
            let opened = control.count(OperationKind::Open) + control.count(OperationKind::Create);
            most.fetch_max(opened.saturating_sub(closed.load(Relaxed)), Relaxed);
        }
    };
    let count = Arc::new(count);
    let counts = Arc::clone(&count);
    mem.on_read(move |_| counts());
    mem.on_operation(move |_, _| count());
    mem.on_close(move |_| _ = closed.fetch_add(1, Relaxed));
    work(Arc::new(faulty));
    most.load(Relaxed)
}

/// Planted: the segments keep their files open until the replay ends.
#[test]
fn b8_a_log_of_more_segments_than_files_may_be_open_is_replayed_and_checked() {
    let mem = disk();
    let mut life = Life::with(&mem, 8 << 10);
    for round in 0..4 {
        life.fill(round, 300);
        life.sync();
    }
    let segments = mem.list(&dir()).unwrap().iter().filter(|name| is_wal(name)).count();
    assert!(segments >= 100, "{segments} segments");
    let model = life.model;
    let mut recovered = None;
    let opened = open_at_once(&mem, |vfs| {
        recovered = Some(open_directory(&vfs, &dir(), &options()).unwrap());
    });
    let recovered = recovered.expect("it was opened");
    assert_eq!(recovered.report.log.as_ref().unwrap().segments.len(), segments);
    assert_eq!(content(&recovered), model);
    let read = open_at_once(&mem, |vfs| {
        let overlay = OverlayVfs::new(vfs, &dir(), 64 << 20).unwrap();
        let overlay: Arc<dyn Vfs> = Arc::new(overlay);
        drop(read_directory(&overlay, &dir(), &options()).unwrap());
    });
    let verified = open_at_once(&mem, |vfs| {
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        assert!(summary.is_sound(), "{:?}", summary.findings);
    });
    // Damage in the oldest segment: each segment is inspected on its own.
    let hurt = mem.kill_clone();
    let names = hurt.list(&dir()).unwrap();
    let oldest = names.iter().filter(|name| is_wal(name)).min().unwrap();
    damage(&hurt, oldest, 6000);
    let inspected = open_at_once(&hurt, |vfs| {
        assert!(open_directory(&vfs, &dir(), &options()).is_err());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        assert!(!summary.is_sound());
    });
    let most = [opened, read, verified, inspected];
    assert!(most.iter().all(|most| (1..=OPEN_MAX).contains(most)), "{most:?} files at once");
}
