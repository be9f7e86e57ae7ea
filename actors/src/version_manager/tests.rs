//! Tests that run an engine's actors one by one and hold some of them back.
//!
//! Long because all of them share one way to hold an engine.

use super::message::{Change, VersionMessage};
use crate::bulk_worker::message::{Content, ExternalFile};
use crate::engine::Engine;
use crate::failure::backoff::LASTING;
use crate::failure::{Failure, Outcome, Party, WriteFailure};
use crate::log_writer::message::Durability;
use crate::runtime::ThreadRuntime;
use crate::testing::{Stepped, config};
use crate::write::Submitted;
use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use sluicedb_kernel::combining::preempt;
use sluicedb_storage::Error;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::{Kind, Seqno, Span};
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::limits::RANGE_ID_AT_OPEN_MAX;
use sluicedb_storage::recover::{RecoverOptions, directory, open_directory};
use sluicedb_storage::side_by_side::OneByOne;
use sluicedb_storage::table::{BlockCache, ReadTier, TableOptions};
use sluicedb_storage::version::{NewRange, RangeId, Shards, TableLimits, VersionEdit};
use sluicedb_storage::vfs::fault::ENOSPC;
use sluicedb_storage::vfs::{Fault, FaultVfs, MemVfs, OperationKind, Vfs};
use sluicedb_storage::view::{RangeEntry, Value};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

mod installs;

const FLUSH: &str = "sluice-flush";

fn put(engine: &Engine, key: [u8; 2]) {
    let mut batch = WriteBatch::new();
    batch.put(key, "value");
    let put = engine.write_path().submit(batch.encoded(), 1, Durability::Buffered);
    assert!(matches!(put, Ok(Submitted::Done(_))), "no writer waits: {put:?}");
}

/// Goal: changes that follow each other faster than the disk do not fill memory with sealed
/// memtables. They wait for flushes. Writers do not wait for them.
///
/// Planted: a change that does not ask for room; a change that goes first in the queue of seals.
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
    // The range that is written to is split again and again.
    let split = |n: u8| {
        engine.change(Change::Split {
            keyspace: KeyspaceId::DEFAULT,
            at: Bytes::from(vec![0, 200 - n]),
        })
    };
    let mut last = Box::pin(split(0));
    let mut changes = 0;
    for n in 0..10 {
        put(&engine, [0, n]);
        if last.as_mut().poll(&mut context).is_ready() {
            changes += 1;
            last = Box::pin(split(n + 1));
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

/// Goal: a flush that began before its range split serves both parts, and each memtable is flushed
/// once.
///
/// Planted: the whole table goes to the left part (its rule is broken, and the engine stops); a
/// range keeps the memtable (it is flushed again).
#[test]
fn t002_10_a_flush_under_way_is_cut_where_its_range_has_parted() {
    for splits in [1, 3] {
        let (runtime, disk) = (Stepped::new(), MemVfs::new());
        let mut config = config(&format!("/flush-and-split/{splits}"), 1);
        config.sealed_memtables_max = 8;
        let opening = Engine::open(config, Arc::new(disk.clone()), Arc::new(runtime.clone()));
        let engine = runtime.run(FLUSH, opening).expect("an empty directory opens");
        for n in 0..100 {
            put(&engine, [n, n]);
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut flush = Box::pin(engine.flush());
        assert!(flush.as_mut().poll(&mut context).is_pending());
        runtime.run_all_but(&[FLUSH]);
        // The range splits after the tables are written and before they are installed.
        let split = |n: u8| {
            engine.change(Change::Split {
                keyspace: KeyspaceId::DEFAULT,
                at: Bytes::from(vec![20 * (n + 1)]),
            })
        };
        let mut changes: Vec<_> = (0..splits).map(|n| Box::pin(split(n))).collect();
        for split in &mut changes {
            assert!(split.as_mut().poll(&mut context).is_pending());
        }
        runtime.run_all_but(&["sluice-version"]);
        runtime.run_all_but(&[]);
        for split in changes {
            assert!(runtime.run("nobody", split).expect("the disk works").is_some());
        }
        runtime.run("nobody", flush).expect("the disk works");
        let now = engine.superversion();
        assert_eq!(now.ranges.len(), usize::from(splits) + 1);
        assert!(now.ranges.iter().all(|range| range.sealed.is_empty()));
        let slices = || now.ranges.iter().flat_map(|range| range.stable.layers.slices());
        assert!(slices().count() > 1 && slices().all(|(_, slice)| slice.part.is_some()));
        for n in 0..100 {
            let value = engine
                .look_up::<Value>(KeyspaceId::DEFAULT, &[n, n], ReadTier::Disk)
                .expect("the disk works");
            assert_eq!(value.as_deref(), Some(&b"value"[..]), "{n}");
        }
        assert_eq!(engine.parts.accounts.global.used(), 0, "each charge is given back once");
        assert_eq!(engine.counters().versions.flushes.get(), 1);
    }
}

fn span(lo: [u8; 2], hi: [u8; 2]) -> KeyspaceSpan {
    let (lo, hi) = (Bytes::copy_from_slice(&lo), Some(Bytes::copy_from_slice(&hi)));
    KeyspaceSpan::of_default(Span { lo, hi })
}

/// An engine with `ranges` ranges and a queue of one sealed memtable, on `disk`. Its flush worker
/// is held.
fn held(runtime: &Stepped, disk: Arc<dyn Vfs>, dir: &str, ranges: u8) -> Engine {
    let mut config = config(dir, ranges);
    config.sealed_memtables_max = 1;
    let opening = Engine::open(config, disk, Arc::new(runtime.clone()));
    runtime.run(FLUSH, opening).expect("an empty directory opens")
}

/// Polls `future`, and lets every actor that is not held run, for several rounds.
fn follow<T>(
    runtime: &Stepped,
    held: &[&str],
    future: &mut (impl Future<Output = T> + Unpin),
) -> Poll<T> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..4 {
        if let Poll::Ready(result) = future.poll_unpin(&mut context) {
            return Poll::Ready(result);
        }
        runtime.run_all_but(held);
    }
    Poll::Pending
}

/// Excises spans that hold nothing. That seals what is in memory all the same.
fn fill_queue(runtime: &Stepped, engine: &Engine, range: u8) {
    for n in 0..3 {
        put(engine, [range, n]);
        let nothing = span([range, 0xFE], [range, 0xFF]);
        let excise = engine.replace(vec![nothing], Content::Nothing);
        runtime.run(FLUSH, excise).expect("there is room");
    }
}

fn tables(disk: &MemVfs, dir: &str) -> usize {
    let names = disk.list(dir.as_ref()).expect("the disk works");
    let is_table = |name: &&String| Path::new(name).extension().is_some_and(|end| end == "sst");
    names.iter().filter(is_table).count()
}

/// Goal: a change that waits for a flush knows the tables that the flush made.
///
/// Planted: a change is prepared before it waits.
#[test]
fn prepared_for_what_is_what_a_flush_brings_meanwhile_is_cut_out_too() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = held(&runtime, Arc::new(disk), "/waits", 1);
    put(&engine, [0, 0]);
    fill_queue(&runtime, &engine, 0);
    let all = span([0, 0], [0, 0xF0]);
    let mut excise = Box::pin(engine.replace(vec![all], Content::Nothing));
    assert!(follow(&runtime, &[FLUSH], &mut excise).is_pending(), "the queue is full");
    assert!(follow(&runtime, &[], &mut excise).is_ready());
    for n in 0..3 {
        assert_eq!(
            engine
                .look_up::<Value>(KeyspaceId::DEFAULT, &[0, n], ReadTier::Disk)
                .expect("the disk works"),
            None,
            "{n}"
        );
    }
}

/// Goal: the parts of a range are flushed as far as the range was when it split, not when the split
/// was requested. What a change recorded of a range that is gone blocks no edit.
///
/// Planted: a change is prepared before it waits; outcomes name ranges that are gone.
#[test]
fn prepared_for_what_is_a_range_parts_as_it_is_then() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = held(&runtime, Arc::new(disk), "/parts", 2);
    for n in 0..3 {
        put(&engine, [0, n]);
        let all = vec![span([0, 0], [1, 0])];
        runtime.run(FLUSH, engine.replace(all, Content::Nothing)).expect("the disk works");
    }
    let before = engine.superversion();
    assert_eq!(before.ranges[0].sealed.len(), 3);
    let mut excise =
        Box::pin(engine.replace(vec![KeyspaceSpan::of_default(Span::all())], Content::Nothing));
    let at = |bytes: [u8; 2]| Bytes::copy_from_slice(&bytes);
    let mut split =
        Box::pin(engine.change(Change::Split { keyspace: KeyspaceId::DEFAULT, at: at([0, 100]) }));
    assert!(follow(&runtime, &[FLUSH], &mut excise).is_pending(), "the queue is full");
    assert!(follow(&runtime, &[FLUSH], &mut split).is_pending());
    // The other range does not have to wait.
    let other = engine.change(Change::Split { keyspace: KeyspaceId::DEFAULT, at: at([1, 100]) });
    assert!(runtime.run(FLUSH, other).expect("the disk works").is_some());
    assert!(follow(&runtime, &[], &mut excise).is_ready());
    assert!(follow(&runtime, &[], &mut split).is_ready());
    let now = engine.superversion();
    assert_eq!(now.ranges.len(), 4);
    let newest = before.ranges[0].sealed[0].last_seqno().expect("it has an entry");
    assert!(now.ranges.iter().take(2).all(|range| range.stable.flushed_seqno >= newest));
    put(&engine, [0, 1]);
    runtime.run("nobody", engine.flush()).expect("every edit is taken");
}

/// Goal: files of which nothing is left are deleted, without another event.
///
/// Planted: a table that was cut out entirely at its install is not dropped; outcomes wait for the
/// next edit.
#[test]
fn files_of_which_nothing_is_left_go() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let engine = held(&runtime, Arc::new(disk.clone()), "/goes", 1);
    put(&engine, [0, 0]);
    let mut flush = Box::pin(engine.flush());
    assert!(follow(&runtime, &[FLUSH], &mut flush).is_pending());
    let mut excise =
        Box::pin(engine.replace(vec![KeyspaceSpan::of_default(Span::all())], Content::Nothing));
    assert!(follow(&runtime, &[FLUSH, "sluice-version"], &mut excise).is_pending());
    runtime.run_all_but(&["sluice-version"]);
    assert_eq!(tables(&disk, "/goes"), 1, "it waits for its install, behind the excision");
    assert!(follow(&runtime, &[], &mut flush).is_ready());
    assert!(follow(&runtime, &[], &mut excise).is_ready());
    assert_eq!(tables(&disk, "/goes"), 0, "all of it was cut out before it was installed");
    put(&engine, [0, 0]);
    runtime.run("nobody", engine.flush()).expect("the disk works");
    assert_eq!(tables(&disk, "/goes"), 1);
    runtime
        .run(
            "nobody",
            engine.replace(vec![KeyspaceSpan::of_default(Span::all())], Content::Nothing),
        )
        .expect("the disk works");
    runtime.run_all_but(&[]);
    assert_eq!(tables(&disk, "/goes"), 0, "all of it was cut out");
}

/// Goal: tables that come in while nothing can be flushed are bounded in number.
///
/// Planted: only the sealed memtables are checked for room.
#[test]
fn tables_ahead_of_memory_wait_as_others_do() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    let engine = held(&runtime, Arc::clone(&vfs), "/ahead", 1);
    let path = Path::new("/outside.table");
    let options = TableOptions::default();
    let table = ExternalWriter::create(&vfs, path, [7; 8], options);
    let mut table = table.expect("the disk works");
    table.add(&[0, 0], Kind::Put, b"came").expect("the disk works");
    table.finish().expect("the disk works");
    let ingest = || {
        let file =
            ExternalFile { path: path.to_owned(), keyspace: KeyspaceId::DEFAULT, within: None };
        Box::pin(engine.replace(Vec::new(), Content::Tables(vec![file])))
    };
    put(&engine, [0, 0]);
    let most = engine.config().l0_tables_max;
    for n in 0..most {
        assert!(follow(&runtime, &[FLUSH], &mut ingest()).is_ready(), "{n} of {most}");
    }
    let mut one_more = ingest();
    assert!(follow(&runtime, &[FLUSH], &mut one_more).is_pending());
    assert!(follow(&runtime, &[], &mut one_more).is_ready(), "there is room after the flush");
}

/// Goal: what a replacement brings is found from the moment in which what it cuts out is not.
/// Before the replacement a write is applied and not yet visible: its caller is stopped between the
/// two.
///
/// Planted: a superversion that is published without its number (neither the old value nor the new
/// one is found).
#[test]
fn born_is_applied_what_came_is_read_before_the_write_in_front_of_it_is_visible() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    let engine = Rc::new(held(&runtime, Arc::clone(&vfs), "/born", 1));
    let path = Path::new("/outside.table");
    let mut table = ExternalWriter::create(&vfs, path, [7; 8], TableOptions::default())
        .expect("the disk works");
    table.add(&[0, 0], Kind::Put, b"came").expect("the disk works");
    table.finish().expect("the disk works");
    put(&engine, [0, 0]);
    let within = span([0, 0], [0, 9]);
    let within_table = within.span.clone();
    let file = ExternalFile {
        path: path.to_owned(),
        keyspace: KeyspaceId::DEFAULT,
        within: Some(within_table),
    };
    let mut replaced = Box::pin(engine.replace(vec![within], Content::Tables(vec![file])));
    let waits = ["sluice-version", FLUSH];
    assert!(follow(&runtime, &waits, &mut replaced).is_pending(), "its tables are written");
    // What was read while the writer was stopped. A panic in the hook would be a panic in its turn.
    let read = Rc::new(RefCell::new(None));
    let hook = {
        let (engine, runtime, read) = (Rc::clone(&engine), runtime.clone(), Rc::clone(&read));
        move || {
            let is_applied = engine.superversion().ranges[0].active.entries() == 2;
            let is_visible = engine.visible() == Seqno(2);
            if !is_applied || is_visible || read.borrow().is_some() {
                return;
            }
            *read.borrow_mut() = Some((0, Ok(None)));
            runtime.run_all_but(&[FLUSH]);
            let found = engine.look_up::<Value>(KeyspaceId::DEFAULT, &[0, 0], ReadTier::Disk);
            *read.borrow_mut() = Some((engine.superversion().number, found));
        }
    };
    let before = engine.superversion().number;
    let former = preempt::install(Some(Rc::new(hook)));
    let mut batch = WriteBatch::new();
    batch.put([9, 9], "beside");
    let written = engine.write_path().submit(batch.encoded(), 1, Durability::Buffered);
    preempt::install(former);
    assert!(written.is_ok(), "{written:?}");
    let (number, found) = read.borrow_mut().take().expect("it was stopped where it was to be");
    assert!(number > before, "the change has had its turn");
    assert_eq!(found.expect("the disk works").as_deref(), Some(&b"came"[..]));
    assert!(follow(&runtime, &[], &mut replaced).is_ready());
}

/// Goal: a change that would wait for a flush that fails is told why. Changes of other ranges go
/// on.
///
/// Planted: a change that waits.
#[test]
fn a_change_waits_for_no_flush_that_fails() {
    let (runtime, disk) = (Stepped::new(), FaultVfs::over_mem(&MemVfs::new()));
    let control = disk.control();
    let engine = held(&runtime, Arc::new(disk), "/fails", 2);
    fill_queue(&runtime, &engine, 0);
    control.arm(Fault::of(OperationKind::Create).named(".tmp").sticky().errno(ENOSPC));
    let mut excise = Box::pin(engine.replace(vec![span([0, 0], [0, 9])], Content::Nothing));
    let Poll::Ready(Err(failure)) = follow(&runtime, &[], &mut excise) else { panic!("it waits") };
    assert!(failure.failure.is_no_space(), "{failure:?}");
    assert_eq!(failure.outcome, Outcome::NotApplied);
    let at = Bytes::from_static(&[1, 1]);
    assert!(
        runtime
            .run("nobody", engine.change(Change::Split { keyspace: KeyspaceId::DEFAULT, at }))
            .expect("memory")
            .is_some()
    );
}

/// Goal: ranges that share a memtable are flushed together. If that fails for long, those who wait
/// for any of them are told why.
///
/// Planted: only the range that is due has failed.
#[test]
fn a_flush_that_fails_has_failed_for_all_ranges_that_share_the_memtable() {
    let (runtime, disk) = (Stepped::new(), FaultVfs::over_mem(&MemVfs::new()));
    let control = disk.control();
    let engine = held(&runtime, Arc::new(disk), "/fails-for-all", 1);
    put(&engine, [0, 0]);
    put(&engine, [9, 0]);
    let at = Bytes::from_static(&[5]);
    let split = engine.change(Change::Split { keyspace: KeyspaceId::DEFAULT, at });
    runtime.run(FLUSH, split).expect("memory");
    let superversion = engine.superversion();
    let ranges: Vec<_> = superversion.ranges.iter().map(RangeEntry::id).collect();
    assert_eq!(ranges.len(), 2);
    control.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
    for _ in 0..8 {
        runtime.poll(FLUSH);
        runtime.run_all_but(&[]);
        runtime.advance(LASTING * 2);
    }
    let troubles = || ranges.iter().filter_map(|range| trouble(&engine, *range)).count();
    assert_eq!(troubles(), 2);
    let split = |n| Change::Split { keyspace: KeyspaceId::DEFAULT, at: Bytes::from(vec![n]) };
    let mut written = 0;
    for n in [2, 7] {
        // The queue of each range has one place for a change.
        put(&engine, [n, 0]);
        let mut first = Box::pin(engine.change(split(n)));
        let Poll::Ready(outcome) = follow(&runtime, &[], &mut first) else { panic!("it waits") };
        written += usize::from(outcome.is_ok());
    }
    assert_eq!(written, 2, "there was room for one each");
    control.disarm();
    runtime.advance(LASTING * 60);
    runtime.poll(FLUSH);
    runtime.run("nobody", engine.flush()).expect("the disk works");
    assert_eq!(troubles(), 0);
}

fn trouble(engine: &Engine, range: RangeId) -> Option<Failure> {
    engine.parts.failures.trouble_of(Party::Flush.of(range))
}

/// Makes a database whose only range has this id.
fn name_the_range(vfs: &Arc<dyn Vfs>, dir: &str, id: u32) {
    let options = RecoverOptions {
        create_if_missing: true,
        fresh_id: [7; 16],
        split_keys: Vec::new(),
        replay_bytes_max: 1 << 20,
        table: TableOptions::default(),
        now_ms: 0,
        shard_cut_bytes_min: 0,
        shards: 1,
        tables: TableLimits {
            open_max: 8,
            memory_bytes_max: 1 << 20,
            blocks: BlockCache::new(1 << 20),
        },
        side_by_side: Arc::new(OneByOne),
    };
    directory::make(vfs, dir.as_ref()).expect("the disk works");
    let mut recovered = open_directory(vfs, dir.as_ref(), &options).expect("it is made");
    let edit = VersionEdit {
        ranges_removed: vec![RangeId::FIRST],
        ranges_added: vec![NewRange {
            id: RangeId(id),
            keyspace: KeyspaceId::DEFAULT,
            span: Span::all(),
            shards: Shards::one(),
        }],
        ..VersionEdit::default()
    };
    recovered.manifest.append(&edit).expect("the disk works");
}

/// Goal: no change gives out an id that the next open refuses. Planted: ids without an end (the
/// database does not open again).
#[test]
fn c4_a_change_that_would_need_an_id_beyond_the_last_is_refused() {
    let dir = "/last-range-id";
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    name_the_range(&vfs, dir, RANGE_ID_AT_OPEN_MAX - 2);
    let open = || block_on(Engine::open(config(dir, 1), vfs.clone(), ThreadRuntime::new(&[])));
    let engine = open().expect("it can be gone on from");
    let split = |at: &'static [u8]| Change::Split {
        keyspace: KeyspaceId::DEFAULT,
        at: Bytes::from_static(at),
    };
    block_on(engine.change(split(b"m"))).expect("two ids are left");
    for change in
        [split(b"s"), Change::Merge { keyspace: KeyspaceId::DEFAULT, at: Bytes::from_static(b"m") }]
    {
        let before = engine.superversion();
        let refused = block_on(engine.change(change));
        let Err(WriteFailure { failure: Failure::Storage(error), outcome }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(outcome, Outcome::NotApplied);
        assert!(matches!(*error, Error::Invalid { .. }), "{error}");
        assert_eq!(engine.superversion().number, before.number, "nothing has happened");
    }
    put(&engine, [0, 1]);
    assert!(matches!(block_on(engine.change(split(b"m"))), Ok(None)), "it needs no id");
    block_on(engine.close()).expect("the disk works");
    drop(engine);
    let engine = open().expect("the last id can be gone on from");
    assert_eq!(engine.superversion().ranges[1].id(), RangeId(RANGE_ID_AT_OPEN_MAX));
    block_on(engine.close()).expect("the disk works");
}

/// Goal: ranges are not merged while "flushed up to here" means different things in them.
///
/// Planted: the larger of the two numbers is taken (the open skips what only the log has).
#[test]
fn a_merge_waits_until_nothing_in_memory_is_older_than_a_table() {
    let (runtime, disk) = (Stepped::new(), MemVfs::new());
    let opening = Engine::open(config("/cold", 2), Arc::new(disk), Arc::new(runtime.clone()));
    let engine = runtime.run(FLUSH, opening).expect("an empty directory opens");
    let merge = || {
        let at = Bytes::from_static(&[1]);
        runtime
            .run("nobody", engine.change(Change::Merge { keyspace: KeyspaceId::DEFAULT, at }))
            .expect("the disk works")
    };
    // The first write stays in memory, and is older than what the second range has in tables.
    put(&engine, [0, 1]);
    put(&engine, [1, 1]);
    engine.parts.topology.superversion.load_full().ranges[1].owner.with_state(|state| {
        state.seal_soon();
    });
    let second = engine.superversion().ranges[1].id();
    let active = engine.superversion().ranges[1].active.id();
    let seal = VersionMessage::Seal { range: second, memtable: active };
    let permit = engine.parts.versions.try_reserve(1).expect("there is room");
    permit.send(seal).expect("it is open");
    runtime.run_all_but(&[]);
    let flushed = |at: usize| engine.superversion().ranges[at].stable.flushed_seqno.0;
    assert_eq!((flushed(0), flushed(1)), (0, 2));
    assert_eq!(merge(), None);
    runtime.run("nobody", engine.flush()).expect("the disk works");
    assert!(merge().is_some());
    put(&engine, [1, 2]);
    let now = engine.superversion();
    assert_eq!((now.ranges.len(), flushed(0)), (1, 2));
}
