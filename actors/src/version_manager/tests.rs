//! An engine whose actors the test runs, while it holds some of them.

use super::message::Change;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::log_writer::message::Level;
use crate::runtime::ThreadRuntime;
use crate::testing::{Stepped, config};
use crate::write::Submitted;
use futures::executor::block_on;
use sluicedb_storage::Error;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::key::Span;
use sluicedb_storage::limits::RANGE_ID_AT_OPEN_MAX;
use sluicedb_storage::recover::{RecoverOptions, home, open_directory};
use sluicedb_storage::table::{BlockCache, TableOptions};
use sluicedb_storage::version::{NewRange, RangeId, Shards, TableLimits, VersionEdit};
use sluicedb_storage::vfs::{MemVfs, Vfs};
use std::sync::Arc;
use std::task::{Context, Waker};

const FLUSH: &str = "sluice-flush";

fn put(engine: &Engine, key: [u8; 2]) {
    let mut batch = WriteBatch::new();
    batch.put(key, "value");
    let put = engine.write_path().submit(batch.encoded(), 1, Level::Buffered);
    assert!(matches!(put, Ok(Submitted::Done(_))), "no writer waits: {put:?}");
}

/// Goal: changes that follow each other faster than the disk do not fill the memory with sealed memtables.
/// They wait for flushes; writers do not wait for them.
///
/// Planted: a change that does not ask; one that goes first in the queue of seals.
#[test]
fn changes_wait_for_flushes_and_writers_do_not_wait_for_them() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let sealed_max = 1;
    let mut config = config("/changes-wait", 2);
    config.sealed_memtables_max = sealed_max;
    let opening = Engine::open(config, Arc::new(disk), Arc::new(runtime.clone()));
    let engine = runtime.run(FLUSH, opening).expect("an empty directory opens");
    let sealed = || engine.superversion().ranges.iter().map(|range| range.sealed.len()).max();
    let mut context = Context::from_waker(Waker::noop());
    let mut last = Box::pin(engine.change(Change::NewNames));
    let mut changes = 0;
    for n in 0..10 {
        put(&engine, [0, n]);
        if last.as_mut().poll(&mut context).is_ready() {
            changes += 1;
            last = Box::pin(engine.change(Change::NewNames));
        }
        assert!(last.as_mut().poll(&mut context).is_pending());
        runtime.run_all_but(&[FLUSH]);
    }
    // One in flush, one that may wait, and the one that a change may seal.
    assert_eq!((changes, sealed()), (3, Some(sealed_max + 2)));
    assert!(last.as_mut().poll(&mut context).is_pending());
    put(&engine, [1, 1]);
    runtime.run_all_but(&[]);
    assert!(last.as_mut().poll(&mut context).is_ready(), "there is room");
    runtime.run_all_but(&[]);
    assert_eq!(sealed(), Some(0));
}

/// The only range of a new database gets this id.
fn name_the_range(vfs: &Arc<dyn Vfs>, dir: &str, id: u32) {
    let options = RecoverOptions {
        create_if_missing: true,
        fresh_id: [7; 16],
        split_keys: Vec::new(),
        replay_bytes_max: 1 << 20,
        table: TableOptions::default(),
        shard_cut_bytes_min: 0,
        shards: 1,
        tables: TableLimits {
            open_max: 8,
            memory_bytes_max: 1 << 20,
            blocks: BlockCache::new(1 << 20),
        },
        keep_segments: 0,
    };
    home::make(vfs, dir.as_ref()).expect("the disk works");
    let mut recovered = open_directory(vfs, dir.as_ref(), &options).expect("it is made");
    let edit = VersionEdit {
        ranges_removed: vec![RangeId::FIRST],
        ranges_added: vec![NewRange { id: RangeId(id), span: Span::all(), shards: Shards::one() }],
        ..VersionEdit::default()
    };
    recovered.manifest.append(&edit).expect("the disk works");
}

/// Goal: no change gives out an id that the next open refuses. Planted: ids without an end (the database does
/// not open again).
#[test]
fn c4_a_change_that_would_need_an_id_beyond_the_last_is_refused() {
    let dir = "/last-range-id";
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    name_the_range(&vfs, dir, RANGE_ID_AT_OPEN_MAX - 1);
    let open = || block_on(Engine::open(config(dir, 1), vfs.clone(), ThreadRuntime::new()));
    let engine = open().expect("it can be gone on from");
    block_on(engine.change(Change::NewNames)).expect("one id is left");
    for _ in 0..2 {
        let before = engine.superversion();
        let refused = block_on(engine.change(Change::NewNames));
        let Err(Failure::Storage(error)) = refused else { panic!("{refused:?}") };
        assert!(matches!(*error, Error::Invalid { .. }), "{error}");
        assert_eq!(engine.superversion().number, before.number, "nothing has happened");
    }
    put(&engine, [0, 1]);
    block_on(engine.change(Change::Nothing)).expect("it needs no id");
    block_on(engine.close()).expect("the disk works");
    drop(engine);
    let engine = open().expect("the last id can be gone on from");
    assert_eq!(engine.superversion().ranges[0].id(), RangeId(RANGE_ID_AT_OPEN_MAX));
    block_on(engine.close()).expect("the disk works");
}
