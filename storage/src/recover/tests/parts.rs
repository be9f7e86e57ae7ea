//! Tables are written side by side, and nothing depends on who is first.

use super::*;
use crate::side_by_side::Piece;
use std::thread;

/// Runs each piece on a thread of its own, and starts the last one first.
#[derive(Debug)]
struct AllAtOnce;

impl SideBySide for AllAtOnce {
    fn run(&self, pieces: Vec<Piece<'_>>) {
        thread::scope(|scope| pieces.into_iter().rev().for_each(|piece| drop(scope.spawn(piece))));
    }
}

/// Three ranges with much in the log, whose tables are cut at shard bounds.
fn several() -> (MemVfs, Model) {
    let mem = disk();
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let split_keys = vec![Bytes::from("key0200"), Bytes::from("key0400")];
    drop(open_directory(&vfs, &dir(), &RecoverOptions { split_keys, ..options() }).unwrap());
    let mut life = Life::start(&mem);
    life.fill(0, 600);
    life.sync();
    (mem, life.model)
}

fn open_with(vfs: &Arc<dyn Vfs>, side_by_side: Arc<dyn SideBySide>) -> Result<Recovered> {
    let options = RecoverOptions {
        replay_bytes_max: 1 << 30,
        shard_cut_bytes_min: 0,
        side_by_side,
        ..options()
    };
    open_directory(vfs, &dir(), &options)
}

/// Planted: a table has its number from the moment at which it is begun; tables are added as they
/// are finished.
#[test]
fn the_tables_are_the_same_whoever_is_first() {
    let (mem, model) = several();
    let (in_turn, at_once) = (mem.kill_clone(), mem.kill_clone());
    let vfs = |mem: &MemVfs| Arc::new(mem.clone()) as Arc<dyn Vfs>;
    let first = open_with(&vfs(&in_turn), Arc::new(OneByOne)).unwrap();
    assert!(first.report.tables_written > 3, "{:?}", first.report);
    let again = open_with(&vfs(&at_once), Arc::new(AllAtOnce)).unwrap();
    assert_eq!((content(&first), content(&again)), (model.clone(), model));
    assert_eq!(first.report, again.report);
    assert_eq!(snapshot(&in_turn), snapshot(&at_once), "all files have the same bytes");
}

/// Planted: tables that were written beside one that failed stay; so do those whose names could
/// not be made durable.
#[test]
fn what_was_written_beside_a_table_that_failed_goes_with_it() {
    let (mem, model) = several();
    let before = snapshot(&mem);
    let mut failed = 0;
    let faults = [
        (OperationKind::Create, ".tmp", 12),
        (OperationKind::Write, ".tmp", 12),
        (OperationKind::Sync, ".tmp", 12),
        // The second one is that of the tables' names.
        (OperationKind::SyncDir, "db", 2),
    ];
    for (kind, name, operations) in faults {
        for after in 0..operations {
            for side_by_side in [Arc::new(OneByOne) as Arc<dyn SideBySide>, Arc::new(AllAtOnce)] {
                let disk = mem.kill_clone();
                let faulty = FaultVfs::over_mem(&disk);
                faulty.control().arm(Fault::of(kind).named(name).after(after).errno(28));
                let vfs: Arc<dyn Vfs> = Arc::new(faulty);
                let opened = open_with(&vfs, side_by_side);
                match opened {
                    Ok(recovered) => assert_eq!(content(&recovered), model),
                    Err(error) => {
                        assert!(error.is_no_space(), "{kind:?} {after}: {error}");
                        assert_eq!(snapshot(&disk), before, "{kind:?} {after}");
                        failed += 1;
                    }
                }
                assert_eq!(content(&open(&disk).unwrap()), model);
            }
        }
    }
    assert!(failed > 24, "{failed}");
}
