//! The keeper in an engine whose actors the test runs one by one.

use super::FIRST_SEGMENT_BYTES;
use crate::config::EngineConfig;
use crate::engine::Engine;
use crate::failure::{Failure, Party};
use crate::log_writer::message::Durability;
use crate::runtime::Environment;
use crate::testing::{Stepped, config};
use crate::version_manager::message::Change;
use bytes::Bytes;
use sluicedb_storage::Error;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::vfs::MemVfs;
use sluicedb_storage::vfs::fault::ENOSPC;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

const KEEPER: &str = "sluice-log";

/// A new database whose actors the test runs.
fn opened(config: EngineConfig) -> (Stepped, Engine) {
    let runtime = Stepped::new();
    let opening = Engine::open(config, Arc::new(MemVfs::new()), Arc::new(runtime.clone()));
    let engine = runtime.run("nobody", opening).expect("an empty directory opens");
    (runtime, engine)
}

/// As `opened`, with memory for many segments of log.
fn roomy(dir: &str) -> (Stepped, Engine) {
    let mut config = config(dir, 1);
    (config.write_buffer_bytes, config.memtable_bytes) = (64 << 20, Some(32 << 20));
    opened(config)
}

fn first_seqno(engine: &Engine) -> Seqno {
    engine.parts.wal.with_log(|log| log.segments.current_first_seqno()).expect("it runs")
}

/// Writes until the log leaves its segment.
fn leave_segment(runtime: &Stepped, engine: &Engine) {
    let first = first_seqno(engine);
    while first_seqno(engine) == first {
        let mut batch = WriteBatch::new();
        batch.put("key", vec![7; 200 << 10]);
        let payload = batch.take_encoded().into();
        let submitted = engine.write_path().submit_owned(payload, 1, Durability::Buffered);
        submitted.expect("there is room");
        runtime.run_all_but(&[]);
    }
}

/// Asks for a flush, and does not wait for it: whoever waits would sync the rest.
fn flush(runtime: &Stepped, engine: &Engine) {
    let mut asked = Box::pin(engine.flush());
    assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(asked);
    runtime.run_all_but(&[]);
    assert_eq!(engine.parts.accounts.global.used(), 0, "all is in tables");
}

/// Goal: a change that finds the segment full after a rest gets the next one. A record of a change
/// is as short as can be, so one of these changes is the first to find no room.
///
/// Planted: the keeper gives the spare back before the version manager has had time to come.
#[test]
fn a_segment_that_a_change_waits_for_is_not_given_back() {
    let mut config = config("/change-after-rest", 1);
    config.compaction.rest_after_ms = 1;
    let (runtime, engine) = opened(config);
    let mut batch = WriteBatch::new();
    batch.put("key", vec![7; FIRST_SEGMENT_BYTES as usize - (6 << 10)]);
    let payload = batch.take_encoded().into();
    engine.write_path().submit_owned(payload, 1, Durability::Buffered).expect("there is room");
    let segments = || engine.parts.wal.with_log(|log| log.segments.current_first_seqno());
    let (first, mut changes) = (segments().expect("it runs"), 0);
    while segments().expect("it runs") == first {
        for again in [false, true] {
            runtime.advance(Duration::from_secs(1));
            runtime.poll(KEEPER);
            runtime.run_all_but(&[]);
            let (keyspace, at) = (KeyspaceId::DEFAULT, Bytes::from_static(b"m"));
            let change =
                if again { Change::Merge { keyspace, at } } else { Change::Split { keyspace, at } };
            runtime.run("nobody", engine.change(change)).expect("the disk works");
            changes += 1;
        }
        assert!(changes < 400, "they are in the log");
    }
    assert!(changes > 10, "the segment was nearly full");
}

/// Planted: a list that only grows.
#[test]
fn who_gives_up_a_cleanup_and_asks_again_and_again_is_not_remembered() {
    let (_runtime, engine) = opened(config("/gives-up-a-cleanup", 1));
    let wal = &engine.parts.wal;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        let mut gives_up = Box::pin(wal.collect());
        assert!(gives_up.as_mut().poll(&mut context).is_pending(), "the keeper does not run");
    }
    let waiting = wal.take_collecting().len();
    assert!(waiting <= 8, "{waiting} wait, and nobody asks");
}

/// Goal: nobody asks for a sync, so the segments that the log leaves are not synced. When all is in
/// tables they are given up without one, and what they hold counts as durable.
///
/// Planted: `raise_floor` wakes nobody; the syncer gives nothing up; it syncs whatever was left.
#[test]
fn what_is_in_tables_is_given_up_without_a_sync() {
    let (runtime, engine) = roomy("/put-off");
    let wal = &engine.parts.wal;
    runtime.run_all_but(&[]);
    let (syncs, durable) = (|| wal.counts.log_syncs.get(), || wal.durable.synced());
    leave_segment(&runtime, &engine);
    let before = (syncs(), durable());
    assert!(durable() > Seqno::ZERO, "whether anybody will ask was not known yet");
    (0..2).for_each(|_| leave_segment(&runtime, &engine));
    assert!(wal.counts.log_retained_bytes.get() > 0);
    assert_eq!((syncs(), durable()), before);
    flush(&runtime, &engine);
    assert_eq!(wal.counts.log_retained_bytes.get(), 0);
    assert_eq!((syncs(), durable().next()), (before.0, first_seqno(&engine)));
}

/// Planted: nobody wakes the keeper; it keeps them as long as it does not rest.
#[test]
fn a8f_what_is_kept_for_recycling_is_for_a_full_disk() {
    let (runtime, engine) = roomy("/kept-on-a-full-disk");
    let Environment { vfs, config, .. } = &*engine.parts.environment;
    let files = || {
        let names = vfs.list(&config.dir).expect("it is there").into_iter();
        names
            .filter(|name| {
                matches!(FileKind::parse(name), Some(FileKind::Wal(_) | FileKind::Spare(_)))
            })
            .count()
    };
    (0..6).for_each(|_| leave_segment(&runtime, &engine));
    flush(&runtime, &engine);
    let kept = files();
    assert!(kept > 4, "{kept} files");
    let full = std::io::Error::from_raw_os_error(ENOSPC);
    let full = Failure::storage(Error::io("write", &config.dir, full));
    engine.parts.failures.degrade(Party::Flush, full);
    runtime.run_all_but(&[]);
    // The current one, two spares, and one that the next spare will be made of.
    assert!(files() <= 4, "{} of {kept} files are left", files());
}
