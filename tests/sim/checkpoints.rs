//! A crash, or a failing disk, at every operation of a checkpoint, beside writes.
//!
//! Whatever happens, the database has all acknowledged writes. The checkpoint's directory is not
//! recognized as a database, or holds one instant between the call and the end, with whole batches
//! only. A checkpoint that replaces an older one leaves the older one until then.

use crate::kit::chance::Chance;
use crate::kit::disk::{collect, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, ErrorKind, Options, ReadOnlyDb, Result, WriteBatch};
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::fault::{EIO, ENOSPC};
use sluicedb_storage::vfs::{CrashKind, Fault, FaultVfs, MemVfs, Vfs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Batches before the checkpoint, and beside it.
const BEFORE: usize = 24;
const BESIDE: usize = 12;

/// How a checkpoint is made.
#[derive(Clone, Copy, Debug)]
struct How {
    seed: u64,
    incremental: bool,
    links: bool,
}

impl How {
    fn all() -> [Self; 4] {
        let how = |seed, incremental, links| Self { seed, incremental, links };
        [how(2, false, true), how(3, false, false), how(4, true, true), how(5, true, false)]
    }
}

/// A database beside which a checkpoint is made.
struct Scene {
    disk: MemVfs,
    vfs: Arc<FaultVfs>,
    simulator: Simulator,
    dir: PathBuf,
    to: PathBuf,
    options: Options,
    /// The content after each batch.
    contents: Vec<Map>,
    /// Batches that were acknowledged as durable, and that may be in the log.
    acknowledged: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    /// What the older checkpoint holds.
    older: Option<usize>,
}

fn options() -> Options {
    let mut options = settings::tiny();
    options.initial_split_keys = vec![b"m".to_vec()];
    options.durability = sluicedb::Durability::Synced;
    options.memtable_bytes = Some(8 << 10);
    options
}

/// One batch: both ranges, something overwritten, something deleted.
fn batch(number: usize) -> (WriteBatch, impl Fn(&mut Map)) {
    let (left, right) = (format!("a{:02}", number % 17), format!("z{:02}", number % 13));
    let (gone, value) = (format!("a{:02}", (number + 5) % 17), format!("{number:0200}"));
    let mut batch = WriteBatch::new();
    batch.delete(&gone);
    batch.put(&left, &value);
    batch.put(&right, &value);
    batch.put("mark", number.to_string());
    let apply = move |map: &mut Map| {
        map.remove(gone.as_bytes());
        for key in [&left, &right] {
            map.insert(key.clone().into_bytes(), value.clone().into_bytes());
        }
        map.insert(b"mark".to_vec(), number.to_string().into_bytes());
    };
    (batch, apply)
}

impl Scene {
    fn new(how: How) -> (Self, Db) {
        let disk = MemVfs::new();
        disk.set_can_link(how.links);
        let vfs = Arc::new(FaultVfs::over_mem(&disk));
        let simulator = if how.seed.is_multiple_of(2) {
            Simulator::new(how.seed)
        } else {
            Simulator::preempting(how.seed)
        };
        let root = Path::new("/").join(fresh_dir().file_name().expect("it has a name"));
        let (dir, to) = (root.join("db"), root.join("copy"));
        let mut contents = vec![Map::new()];
        for number in 1..=BEFORE + BESIDE {
            let mut next = contents[number - 1].clone();
            batch(number).1(&mut next);
            contents.push(next);
        }
        let (acknowledged, begun) = (Arc::default(), Arc::default());
        let mut scene = Self {
            disk,
            vfs,
            simulator,
            dir,
            to,
            options: options(),
            contents,
            acknowledged,
            begun,
            older: None,
        };
        let db = scene.simulator.run(scene.builder().open()).unwrap();
        scene.simulator.run(async {
            for number in 1..=BEFORE {
                scene.write(&db, number).await.unwrap();
                if number == BEFORE / 3 {
                    db.flush().await.unwrap();
                }
                if number == BEFORE / 2 && how.incremental {
                    db.checkpoint(&scene.to).await.unwrap();
                    db.compact().await.unwrap();
                }
                if number == BEFORE * 2 / 3 {
                    db.flush().await.unwrap();
                }
            }
        });
        scene.older = how.incremental.then_some(BEFORE / 2);
        (scene, db)
    }

    fn builder(&self) -> sluicedb::Builder {
        let builder = Db::builder(&self.dir).options(self.options.clone());
        builder.vfs(self.vfs.clone()).runtime(self.simulator.handle())
    }

    async fn write(&self, db: &Db, number: usize) -> Result<()> {
        self.begun.store(number, Ordering::SeqCst);
        db.write(batch(number).0).await?;
        self.acknowledged.store(number, Ordering::SeqCst);
        Ok(())
    }

    /// The checkpoint, beside writes.
    fn make(&self, db: &Db, how: How) -> (Result<()>, Result<()>) {
        self.simulator.run(async {
            let checkpoint = db.checkpoint(&self.to);
            let checkpoint = if how.incremental { checkpoint.incremental() } else { checkpoint };
            let writes = async {
                for number in BEFORE + 1..=BEFORE + BESIDE {
                    self.write(db, number).await?;
                }
                Ok(())
            };
            let (made, written) = futures::join!(checkpoint.into_future(), writes);
            (made.map(|_| ()), written)
        })
    }

    /// The number of the batch up to which `map` shows all batches.
    fn number_of(&self, map: &Map) -> std::result::Result<usize, String> {
        let mark = map.get(&b"mark"[..]).map_or("0", |mark| std::str::from_utf8(mark).unwrap());
        let number = mark.parse().unwrap();
        if self.contents[number] == *map { Ok(number) } else { Err(format!("not as of {number}")) }
    }

    /// The content of the copy on `disk`; `None` if it is not recognized as a database.
    fn copy_on(&self, disk: &MemVfs) -> std::result::Result<Option<usize>, String> {
        let simulator = Simulator::new(9);
        let builder = ReadOnlyDb::builder(&self.to).options(self.options.clone());
        let opened = builder.vfs(shared(disk)).runtime(simulator.handle()).open_read_only();
        let db = match simulator.run(opened) {
            Ok(db) => db,
            Err(error) if matches!(error.kind(), ErrorKind::Exists | ErrorKind::Corrupt) => {
                // `CURRENT` is published when all that it needs is there.
                if disk.len(&self.to.join("CURRENT")).is_ok() {
                    return Err(format!("CURRENT is there, and yet: {error:?}"));
                }
                let builder = Db::builder(&self.to).create_if_missing(false);
                let builder = builder.options(self.options.clone()).vfs(shared(disk));
                let opened = simulator.run(builder.runtime(simulator.handle()).open());
                simulator.kill();
                return match opened {
                    Ok(_) => Err("it opens for writing, and not for reading".to_owned()),
                    Err(_) => Ok(None),
                };
            }
            Err(error) => return Err(format!("{error:?}")),
        };
        let found = simulator.run(collect(db.scan(..))).map_err(|error| error.to_string())?;
        let number = self.number_of(&found.into_iter().collect())?;
        drop(db);
        simulator.kill();
        let summary = verify_directory(&shared(disk), &self.to, &mut |_, _| {}).unwrap();
        if summary.is_sound() { Ok(Some(number)) } else { Err(format!("{:?}", summary.findings)) }
    }

    /// The content of the database on `disk`.
    fn database_on(&self, disk: &MemVfs) -> std::result::Result<usize, String> {
        let simulator = Simulator::new(8);
        let builder = Db::builder(&self.dir).options(self.options.clone());
        let opened = simulator.run(builder.vfs(shared(disk)).runtime(simulator.handle()).open());
        let db = opened.map_err(|error| format!("the database does not open: {error:?}"))?;
        let found = simulator.run(collect(db.scan(..))).map_err(|error| error.to_string())?;
        simulator.kill();
        drop(db);
        self.number_of(&found.into_iter().collect())
    }
}

struct Image {
    operation: String,
    disk: MemVfs,
    acknowledged: usize,
    begun: usize,
}

#[test]
fn a_crash_at_any_operation_of_a_checkpoint_leaves_all_or_nothing_of_it() {
    let (mut nothing, mut whole, mut old) = (0, 0, 0);
    for how in How::all() {
        let (scene, db) = Scene::new(how);
        let images: Arc<Mutex<Vec<Image>>> = Arc::default();
        let (taken, acknowledged, begun) =
            (Arc::clone(&images), Arc::clone(&scene.acknowledged), Arc::clone(&scene.begun));
        scene.disk.on_operation(move |disk, operation| {
            taken.lock().unwrap().push(Image {
                operation: format!("{operation:?}"),
                disk: disk.kill_clone(),
                acknowledged: acknowledged.load(Ordering::SeqCst),
                begun: begun.load(Ordering::SeqCst),
            });
        });
        let (made, written) = scene.make(&db, how);
        made.unwrap();
        written.unwrap();
        scene.disk.clear_hook();
        // The checkpoint is durable when the call returns.
        let end = scene.copy_on(&scene.disk.crash_clone(CrashKind::DropUnsynced)).unwrap();
        assert!(end.is_some_and(|number| number >= BEFORE), "{end:?} {how:?}");
        scene.simulator.kill();
        drop(db);
        let mut chance = Chance::new(how.seed);
        let images = std::mem::take(&mut *images.lock().unwrap());
        for (index, image) in images.iter().enumerate() {
            let kinds = CrashKind::each(chance.next());
            let mut disks = vec![("killed".to_owned(), image.disk.kill_clone())];
            for step in 0..2 {
                let kind = kinds[(index * 2 + step) % kinds.len()];
                disks.push((format!("{kind:?}"), image.disk.crash_clone(kind)));
            }
            for (crash, disk) in disks {
                let context = || format!("{how:?}, {crash} before {}", image.operation);
                let copy = scene.copy_on(&disk).unwrap_or_else(|e| panic!("{e}: {}", context()));
                match (copy, scene.older) {
                    (None, None) => nothing += 1,
                    (Some(number), Some(older)) if number == older => old += 1,
                    (Some(number), _) if (BEFORE..=image.begun).contains(&number) => whole += 1,
                    other => panic!("{other:?}: {}", context()),
                }
                let found =
                    scene.database_on(&disk).unwrap_or_else(|e| panic!("{e}: {}", context()));
                let fits = (image.acknowledged..=image.begun).contains(&found);
                assert!(fits, "{found} of {}: {}", image.acknowledged, context());
            }
        }
    }
    eprintln!("nothing {nothing}, whole {whole}, old {old}");
    assert!(nothing > 200 && whole > 20 && old > 200, "{nothing}, {whole}, {old}");
}

/// Planted: `Draft` without `Drop`; `publish` that reports success before the manifest is
/// published.
#[test]
fn a_fault_at_any_operation_of_a_checkpoint_harms_nothing() {
    let (mut failed, mut made_it, mut unharmed) = (0, 0, 0);
    for how in How::all() {
        let (scene, db) = Scene::new(how);
        let control = scene.vfs.control();
        let before = control.count_all();
        let (made, _) = scene.make(&db, how);
        made.unwrap();
        let operations = control.count_all() - before;
        scene.simulator.kill();
        drop(db);
        for k in (0..operations).filter(|k| operations < 300 || k % 2 == 0) {
            let wrong = [(EIO, false), (ENOSPC, false), (EIO, true), (ENOSPC, true)];
            let (errno, for_ever) = wrong[(k % 4) as usize];
            let context = format!("{how:?}, errno {errno} for ever {for_ever} from {k} on");
            let (scene, db) = Scene::new(how);
            let fault = Fault::any().errno(errno).after(k);
            scene.vfs.control().arm(if for_ever { fault.sticky() } else { fault });
            let (made, written) = scene.make(&db, how);
            let acknowledged = scene.acknowledged.load(Ordering::SeqCst);
            // Writers do not notice what happens in the checkpoint's directory alone.
            let fired = scene.vfs.control().fired();
            if fired.iter().all(|operation| operation.path.starts_with(&scene.to)) {
                assert!(written.is_ok(), "{written:?}, {fired:?}: {context}");
                unharmed += u64::from(!fired.is_empty());
            }
            scene.vfs.control().disarm();
            let copy = scene.copy_on(&scene.disk).unwrap_or_else(|e| panic!("{e}: {context}"));
            match (&made, copy, scene.older) {
                (Ok(()), Some(number), _) if number >= BEFORE => made_it += 1,
                (Err(_), None, None) => failed += 1,
                (Err(_), Some(number), Some(older)) if number == older => failed += 1,
                // The last step may or may not have happened, or cannot be undone. The checkpoint
                // is whole then.
                (Err(_), Some(number), Some(_)) if number >= BEFORE => failed += 1,
                (Err(_), Some(number), None) if number >= BEFORE && for_ever => failed += 1,
                other => panic!("{other:?}: {context}"),
            }
            if let Err(error) = &made {
                let kinds = [ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Closed];
                assert!(kinds.contains(&error.kind()), "{error:?}: {context}");
                let left = scene.disk.list(&scene.to).unwrap_or_default();
                let clean = left.is_empty() || for_ever || how.incremental || left == ["LOCK"];
                assert!(clean, "{left:?} left after {error:?}: {context}");
            }
            scene.simulator.kill();
            drop(db);
            let found = scene
                .database_on(&scene.disk.kill_clone())
                .unwrap_or_else(|e| panic!("{e}: {context}"));
            assert!(found >= acknowledged, "{found} of {acknowledged}: {context}");
        }
    }
    eprintln!("failed {failed}, made all the same {made_it}, unharmed writers {unharmed}");
    assert!(failed > 100 && made_it > 20 && unharmed > 20, "{failed}, {made_it}, {unharmed}");
}
