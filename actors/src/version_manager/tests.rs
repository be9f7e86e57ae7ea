//! An engine whose actors the test runs, while it holds some of them.

use super::message::Change;
use crate::engine::Engine;
use crate::log_writer::message::Level;
use crate::testing::{Stepped, config};
use crate::write::Submitted;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::vfs::MemVfs;
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
