//! Small databases stay small: the space of the log and the reserve, when it is given back, and a
//! crash or a full disk in the middle of that.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Options};
use sluicedb_storage::vfs::{CrashKind, MemVfs, OperationKind, Vfs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const FIRST_SEGMENT: u64 = 512 * KIB;

struct Scene {
    disk: MemVfs,
    simulator: Simulator,
    dir: PathBuf,
    options: Options,
    /// The lengths of the segments, in the order of their creation.
    made: Arc<Mutex<Vec<u64>>>,
    expected: Map,
}

impl Scene {
    fn new(options: Options) -> Self {
        let (disk, simulator) = (MemVfs::new(), Simulator::new(1));
        let made: Arc<Mutex<Vec<u64>>> = Arc::default();
        let lengths = Arc::clone(&made);
        disk.on_operation(move |_, operation| {
            let is_segment = operation.path.extension().is_some_and(|end| end == "spare");
            if operation.kind == OperationKind::Allocate && is_segment {
                lengths.lock().unwrap().push(operation.offset);
            }
        });
        Self { disk, simulator, dir: fresh_dir(), options, made, expected: Map::new() }
    }

    fn open_on(&self, disk: &MemVfs, simulator: &Simulator) -> sluicedb::Result<Db> {
        let builder = Db::builder(&self.dir).options(self.options.clone());
        simulator.run(builder.vfs(shared(disk)).runtime(simulator.handle()).open())
    }

    fn open(&self) -> Db {
        let db = self.open_on(&self.disk, &self.simulator).unwrap();
        self.simulator.settle();
        db
    }

    fn put(&mut self, db: &Db, n: u32, bytes: usize) {
        let (key, value) = (format!("key{n:06}").into_bytes(), vec![n as u8; bytes]);
        self.simulator.run(db.put(&key, &value)).unwrap();
        self.expected.insert(key, value);
    }

    /// Rests long enough for all work that an idle database does.
    fn rest(&self) {
        for _ in 0..6 {
            self.simulator.advance(Duration::from_secs(61));
            self.simulator.settle();
        }
    }

    /// The files with this ending.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let names = self.disk.list(&self.dir).unwrap();
        let names = names.into_iter().filter(|name| name.ends_with(end));
        names.map(|name| self.dir.join(name)).collect()
    }

    /// The total length of the files with this ending.
    fn bytes(&self, end: &str) -> u64 {
        self.files(end).iter().map(|path| self.disk.len(path).unwrap()).sum()
    }

    /// Checks that the disk left by a crash opens and has everything.
    fn survives(&self, disk: &MemVfs, what: &str) {
        let simulator = Simulator::new(2);
        let db = self.open_on(disk, &simulator).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(simulator.run(content(&db)).unwrap(), self.expected, "{what}");
        simulator.kill();
    }
}

/// Planted: a first segment as large as the others; a reserve of a fixed size.
#[test]
fn a_fresh_database_takes_less_than_a_mebibyte() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    assert!(scene.disk.used_bytes() <= MIB, "{}", scene.disk.used_bytes());
    for n in 0..200 {
        scene.put(&db, n, 100);
    }
    scene.simulator.settle();
    assert!(db.stats().space_reserve_bytes > 0);
    assert!(scene.disk.used_bytes() <= MIB, "{}", scene.disk.used_bytes());
    scene.rest();
    assert_eq!(db.stats().seals, 0, "nothing would be gained");
    scene.simulator.run(db.close()).unwrap();
    assert!(scene.disk.used_bytes() <= 160 * KIB, "{}", scene.disk.used_bytes());
    scene.survives(&scene.disk.kill_clone(), "closed");
}

/// Planted: a log that keeps its spares, the segments for recycling, or its large segment; a flush
/// that is not reported to the log.
#[test]
fn segments_grow_with_what_is_written_and_an_idle_log_shrinks() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    for n in 0..1_500 {
        scene.put(&db, n, 10_000);
    }
    scene.simulator.settle();
    let made = scene.made.lock().unwrap().clone();
    assert_eq!(made[0], FIRST_SEGMENT);
    assert!(made.iter().any(|&bytes| bytes >= 8 * MIB), "{made:?}");
    assert!(made.windows(2).all(|pair| pair[1] >= pair[0] && pair[1] <= 8 * pair[0]), "{made:?}");
    assert!(scene.bytes(".wal") > 15 * MIB);
    assert_eq!(db.stats().seals, 0, "the memtable is larger");
    scene.rest();
    // The range was idle, so its data is in tables, and the log begins anew.
    let stats = db.stats();
    assert_eq!((stats.seals_idle, stats.active_bytes), (1, 0), "{stats:?}");
    assert_eq!((scene.bytes(".wal"), scene.bytes(".spare")), (FIRST_SEGMENT, 0));
    let tables = scene.bytes(".sst");
    let reserve = stats.space_reserve_bytes;
    assert!(reserve <= tables / 24, "{reserve} bytes for {tables} of tables");
    scene.survives(&scene.disk.kill_clone(), "at rest");
    // A long rest causes no work, and the next burst is like the first one.
    let operations = scene.disk.operations();
    scene.rest();
    assert_eq!(scene.disk.operations(), operations);
    scene.made.lock().unwrap().clear();
    for n in 0..400 {
        scene.put(&db, n, 10_000);
    }
    let made = scene.made.lock().unwrap().clone();
    assert!(made[0] <= 2 * FIRST_SEGMENT && made.last() > Some(&MIB), "{made:?}");
    scene.simulator.run(db.close()).unwrap();
    assert_eq!((scene.bytes(".wal"), scene.bytes(".spare")), (8 * KIB, 0));
    scene.survives(&scene.disk.kill_clone(), "closed");
}

/// Planted: spares that are kept until a range is idle; one that is made for the next small write.
#[test]
fn spares_go_when_writers_pause_and_come_with_more_than_a_little() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    for n in 0..1_500 {
        scene.put(&db, n, 10_000);
    }
    scene.simulator.run(db.flush()).unwrap();
    for n in 0..600 {
        scene.put(&db, n, 10_000);
        scene.simulator.settle();
    }
    let segments = |scene: &Scene| scene.files(".wal").len();
    assert!(segments(&scene) > 2, "the current one, and some for later");
    let pause = |scene: &Scene| {
        scene.simulator.advance(Duration::from_millis(5_001));
        scene.simulator.settle();
    };
    // The engine looks only from time to time: the first pause finds that something was written.
    pause(&scene);
    pause(&scene);
    let retained = db.stats().log_retained_bytes;
    assert_eq!((segments(&scene), retained), (1, 0), "the current one is left");
    scene.survives(&scene.disk.kill_clone(), "in a pause");
    let made = scene.made.lock().unwrap().len();
    for n in 0..10 {
        scene.put(&db, n, 1_000);
        pause(&scene);
    }
    assert_eq!(scene.made.lock().unwrap().len(), made, "a little is written");
    for n in 0..1_000 {
        scene.put(&db, n, 10_000);
    }
    assert!(scene.made.lock().unwrap().len() > made);
    scene.simulator.run(db.close()).unwrap();
    scene.survives(&scene.disk.kill_clone(), "closed");
}

/// Planted: growth that does not look at the clock.
#[test]
fn slow_writers_get_small_segments() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    for n in 0..800 {
        scene.put(&db, n, 10_000);
        scene.simulator.advance(Duration::from_millis(100));
        scene.simulator.settle();
    }
    let made = scene.made.lock().unwrap().clone();
    assert!(made.len() >= 12 && made.iter().all(|&bytes| bytes <= MIB), "{made:?}");
}

/// Planted: a log that rests only when nothing at all is written.
#[test]
fn a_log_that_is_hardly_written_to_keeps_nothing_ready() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    for n in 0..1_500 {
        scene.put(&db, n, 10_000);
    }
    assert!(scene.bytes(".wal") > 16 * MIB);
    for n in 0..60 {
        scene.put(&db, n, 100);
        scene.simulator.advance(Duration::from_secs(10));
        scene.simulator.settle();
    }
    // A memtable pins the remaining segments. Its flush frees them.
    let stats = db.stats();
    let (files, needed) = (scene.bytes(".wal"), stats.log_retained_bytes + FIRST_SEGMENT);
    assert_eq!((files, scene.bytes(".spare")), (needed, 0), "{stats:?}");
    scene.simulator.run(db.flush()).unwrap();
    assert_eq!(scene.bytes(".wal"), FIRST_SEGMENT);
    scene.survives(&scene.disk.kill_clone(), "hardly written to");
}

/// The data was flushed before the idle time: no flush reports that the large segment is not
/// needed.
#[test]
fn an_idle_log_shrinks_though_everything_is_in_tables() {
    let mut scene = Scene::new(Options::default());
    let db = scene.open();
    for n in 0..500 {
        scene.put(&db, n, 10_000);
    }
    scene.simulator.run(db.flush()).unwrap();
    assert!(scene.bytes(".wal") > MIB);
    scene.rest();
    assert_eq!((scene.bytes(".wal"), scene.bytes(".spare")), (FIRST_SEGMENT, 0));
    assert_eq!(db.stats().seals_idle, 0);
    scene.survives(&scene.disk.kill_clone(), "at rest");
}

/// A crash at every disk operation while a log shrinks, leaves a segment, and is closed.
///
/// Planted: the large segment removed before the manifest records that it is not needed; a segment
/// that is used before its name is durable.
#[test]
fn a_crash_while_an_idle_log_shrinks_loses_nothing() {
    let mut states = 0;
    for closes in [false, true] {
        let mut options = Options::default();
        options.initial_split_keys = vec![b"key000100".to_vec()];
        let mut scene = Scene::new(options);
        let db = scene.open();
        for n in 0..250 {
            scene.put(&db, n, 10_000);
        }
        scene.simulator.settle();
        let images = scene.disk.record_images(1);
        if closes {
            scene.simulator.run(db.close()).unwrap();
        } else {
            scene.rest();
            assert_eq!((scene.bytes(".wal"), db.stats().seals_idle), (FIRST_SEGMENT, 2));
        }
        scene.disk.clear_hook();
        let images = images.take();
        assert!(images.len() > 20, "{} images", images.len());
        for (at, (operation, image)) in images.into_iter().enumerate() {
            let what = format!("before {operation:?}, closes: {closes}");
            scene.survives(&image.kill_clone(), &what);
            for kind in CrashKind::each(at as u64) {
                scene.survives(&image.crash_clone(kind), &format!("{what}, {kind:?}"));
                states += 1;
            }
        }
    }
    assert!(states > 300, "{states}");
}

/// The reserve of a small database is small. Without other space it is enough to open the database,
/// to delete, to flush, to close, and to open it again.
///
/// Planted: a first segment that is as large as the reserve.
#[test]
fn a_small_reserve_is_enough_for_deletes_flush_and_close() {
    for puts in [1_u32, 200, 3_000] {
        let mut scene = Scene::new(Options::default());
        let db = scene.open();
        for n in 0..puts {
            scene.put(&db, n, 1_000);
        }
        scene.simulator.run(db.close()).unwrap();
        drop(db);
        scene.simulator.settle();
        scene.disk.set_capacity(Some(scene.disk.used_bytes()));
        for n in 0..3 {
            let db = scene.open();
            for n in (n * 60..n * 60 + 60).filter(|n| *n < puts) {
                let key = format!("key{n:06}").into_bytes();
                scene.simulator.run(db.delete(&key)).unwrap();
                scene.expected.remove(&key);
            }
            assert_eq!(scene.simulator.run(content(&db)).unwrap(), scene.expected);
            if n == 0 {
                scene.simulator.run(db.flush()).unwrap();
            }
            scene.simulator.run(db.close()).unwrap();
            drop(db);
            scene.simulator.settle();
        }
        scene.disk.set_capacity(None);
        let db = scene.open();
        scene.put(&db, 1, 1_000);
        scene.simulator.advance(Duration::from_secs(1));
        scene.simulator.settle();
        assert!(db.stats().space_reserve_bytes >= 64 * KIB, "it is set aside anew");
        scene.simulator.run(db.close()).unwrap();
        scene.survives(&scene.disk.kill_clone(), "closed");
    }
}

/// Without space for a last segment the log ends in its present one.
#[test]
fn a_database_closes_without_room_for_a_last_segment() {
    let mut options = Options::default();
    options.space_reserve_bytes = Some(0);
    let mut scene = Scene::new(options);
    let db = scene.open();
    for n in 0..20 {
        scene.put(&db, n, 1_000);
    }
    scene.simulator.run(db.flush()).unwrap();
    scene.disk.set_capacity(Some(scene.disk.used_bytes() + 4096));
    scene.simulator.run(db.close()).unwrap();
    assert_eq!(scene.bytes(".wal"), FIRST_SEGMENT);
    scene.disk.set_capacity(None);
    scene.survives(&scene.disk.kill_clone(), "closed");
}

/// The log that was replayed is large, what it comes to is small. Planted: only the reserve goes.
#[test]
fn a8f_an_open_that_finds_no_space_gives_up_the_old_log_before_the_reserve() {
    let (disk, simulator, dir) = (MemVfs::new(), Simulator::new(1), fresh_dir());
    let mut options = settings::tiny();
    (options.memtable_bytes, options.log_segment_bytes) = (Some(512 << 10), 256 << 10);
    let open = || {
        let builder = Db::builder(&dir).options(options.clone());
        builder.vfs(shared(&disk)).runtime(simulator.handle()).open()
    };
    let db = simulator.run(open()).unwrap();
    for n in 0..15 {
        simulator.run(db.put("a", vec![n; 3_000])).unwrap();
    }
    simulator.settle();
    let reserve = db.stats().space_reserve_bytes;
    assert!(reserve > 0);
    drop(db);
    simulator.settle();
    let log: Vec<_> = disk.list(&dir).unwrap();
    let log: Vec<_> = log.into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert_eq!(log.len(), 1, "{log:?}");
    // Enough for a table and a manifest, too little for the smallest segment.
    disk.set_capacity(Some(disk.used_bytes() + (14 << 10)));
    let db = simulator.run(open()).unwrap();
    assert_eq!(db.stats().space_reserve_bytes, reserve);
    assert!(db.health().state().is_running(), "{:?}", db.health().state());
    assert!(disk.len(&dir.join(&log[0])).is_err());
    assert_eq!(simulator.run(db.get("a")).unwrap().as_deref(), Some(&[14; 3_000][..]));
    disk.set_capacity(None);
    simulator.run(db.close()).unwrap();
}
