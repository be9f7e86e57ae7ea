//! An actor panics: every waiter is answered, nobody hangs, nothing is lost.

use crate::harness::{Home, Simulated, block_on, fill};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::settings;
use sluicedb::{Db, Durability, ErrorKind, HealthState, WriteOptions};
use sluicedb_storage::vfs::{MemVfs, OperationKind};

/// The disk panics under the actor that does this operation. It stands for any broken rule.
fn breaking(home: &Simulated, kind: OperationKind, name: &'static str) {
    home.disk.on_operation(move |_, operation| {
        let file = operation.path.file_name().unwrap_or_default().to_string_lossy();
        assert!(operation.kind != kind || !file.contains(name), "planted: {kind:?} of {file}");
    });
}

#[test]
fn a_panicking_actor_stops_the_engine_and_leaves_nobody_waiting() {
    let synced = WriteOptions::durability(Durability::Synced);
    let breaks = [
        ("flush worker", OperationKind::Create, ".tmp"),
        ("wal writer", OperationKind::Sync, ".spare"),
        ("log keeper", OperationKind::Create, ".spare"),
        ("version manager", OperationKind::Write, "MANIFEST"),
    ];
    for (actor, kind, name) in breaks {
        let home = Simulated::new(1);
        let db = home.open();
        let mut expected = home.run(fill(&db, 5, 20));
        home.simulator.settle();
        breaking(&home, kind, name);
        let mut health = db.health();
        // Some write fails in the end, whichever actor broke.
        let mut failed = None;
        for n in 0..400 {
            let key = format!("more{n:03}").into_bytes();
            match home.run(db.put_with(&key, vec![1; 500], synced)) {
                Ok(_) => drop(expected.insert(key, vec![1; 500])),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let failed = failed.unwrap_or_else(|| panic!("the {actor} broke and nobody noticed"));
        assert_eq!(failed.kind(), ErrorKind::Internal, "{actor}: {failed:?}");
        assert!(failed.to_string().contains("planted"), "{failed}");
        assert!(failed.to_string().contains(actor), "{failed} should name the {actor}");
        assert!(matches!(health.state(), HealthState::Failed(_)), "{:?}", health.state());
        for error in [
            home.run(db.put("a", "1")).unwrap_err(),
            home.run(db.flush()).unwrap_err(),
            home.run(db.compact()).unwrap_err(),
            home.run(db.close()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Internal, "{actor}: {error:?}");
        }
        // Reads continue. After a reopen every acknowledged write is found.
        let found = home.run(content(&db)).unwrap();
        assert!(expected.iter().all(|(key, value)| found.get(key) == Some(value)), "{actor}");
        drop(db);
        home.simulator.settle();
        home.disk.clear_hook();
        let db = home.open();
        let found = home.run(content(&db)).unwrap();
        assert!(expected.iter().all(|(key, value)| found.get(key) == Some(value)), "{actor}");
    }
}

/// The same with real threads: the panic must kill neither the process nor the caller.
#[test]
fn a_panic_on_an_engine_thread_stays_there() {
    let disk = MemVfs::new();
    let builder = Db::builder(fresh_dir()).options(settings::tiny()).vfs(shared(&disk));
    let db = block_on(builder.open()).unwrap();
    block_on(fill(&db, 20, 20));
    disk.on_operation(|_, operation| {
        let file = operation.path.file_name().unwrap_or_default().to_string_lossy();
        assert!(!file.ends_with(".tmp"), "planted");
    });
    let error = block_on(db.flush()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert_eq!(block_on(content(&db)).unwrap().len(), 20);
    assert!(block_on(db.close()).is_err());
    disk.clear_hook();
    let home = Home::new();
    block_on(home.open().put("another", "database")).unwrap();
}
