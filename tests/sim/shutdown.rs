//! A close, or a drop, in the middle of each job.

use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::{Simulator, pause};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use sluicedb::{Db, ErrorKind, IngestPlan, OnEmpty, Result, Snapshot};
use sluicedb_storage::external::ExternalWriter;
use sluicedb_storage::key::Kind;
use sluicedb_storage::table::TableOptions;
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::MemVfs;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const JOBS: [&str; 9] = [
    "flush",
    "compact",
    "checkpoint",
    "ingest",
    "replace",
    "replace from",
    "excise",
    "split",
    "merge",
];

struct Scene {
    disk: MemVfs,
    dir: PathBuf,
    copy: PathBuf,
    table: PathBuf,
    simulator: Simulator,
}

fn entries(prefix: &str, value: &str) -> Map {
    (0..60).map(|n| (format!("{prefix}{n:03}").into(), value.repeat(20).into())).collect()
}

impl Scene {
    fn new(seed: u64) -> Self {
        let disk = MemVfs::new();
        let root = Path::new("/").join(fresh_dir().file_name().expect("it has a name"));
        let (dir, copy, table) = (root.join("db"), root.join("copy"), root.join("table"));
        shared(&disk).create_dir_all(&root).unwrap();
        let mut writer =
            ExternalWriter::create(&shared(&disk), &table, [7; 8], TableOptions::default())
                .unwrap();
        for (key, value) in entries("c", "came") {
            writer.add(&key, Kind::Put, &value).unwrap();
        }
        writer.finish().unwrap();
        Self { disk, dir, copy, table, simulator: Simulator::new(seed) }
    }

    fn open(&self, disk: &MemVfs, simulator: &Simulator) -> Db {
        let mut options = settings::tiny();
        options.initial_split_keys = vec![b"m".to_vec()];
        let builder = Db::builder(&self.dir).options(options).vfs(shared(disk));
        simulator.run(builder.runtime(simulator.handle()).open()).unwrap()
    }

    /// Fills a level, L0 and memory. Returns the content, and a snapshot from before the writes in
    /// memory.
    fn fill(&self, db: &Db) -> (Map, Snapshot) {
        let mut map = Map::new();
        let write = |map: &mut Map, prefix: &str, value: &str| {
            for (key, value) in entries(prefix, value) {
                self.simulator.run(db.put(&key, &value)).unwrap();
                map.insert(key, value);
            }
        };
        for prefix in ["a", "c", "x"] {
            write(&mut map, prefix, "level");
        }
        self.simulator.run(db.compact()).unwrap();
        write(&mut map, "a", "table");
        self.simulator.run(db.flush()).unwrap();
        let snapshot = db.snapshot();
        write(&mut map, "c", "memory");
        write(&mut map, "x", "memory");
        (map, snapshot)
    }

    /// The job, and the content after it.
    fn job<'a>(
        &'a self,
        db: &'a Db,
        job: &str,
        before: &Map,
        then: Option<&'a Snapshot>,
    ) -> (LocalBoxFuture<'a, Result<()>>, Map) {
        let mut after = before.clone();
        let future = match job {
            "flush" => db.flush().boxed_local(),
            "compact" => db.compact().boxed_local(),
            "checkpoint" => {
                db.checkpoint(&self.copy).into_future().map(|made| made.map(drop)).boxed_local()
            }
            "ingest" => {
                after.extend(entries("c", "came"));
                db.ingest([&self.table]).map(|came| came.map(drop)).boxed_local()
            }
            "replace" => {
                after.retain(|key, _| !(b'b'..b'y').contains(&key[0]));
                after.extend(entries("c", "came"));
                let plan = IngestPlan::new().replace("b".."y", [&self.table]);
                db.ingest_and_excise(plan).map(|came| came.map(drop)).boxed_local()
            }
            "replace from" => {
                after.extend(entries("c", "level"));
                let then = then.expect("it is the source");
                let replaced = db.replace_from(then, ["c".."d"], OnEmpty::Refuse);
                replaced.map(|done| done.map(drop)).boxed_local()
            }
            "excise" => {
                after.retain(|key, _| !(b'b'..b'y').contains(&key[0]));
                db.excise("b".."y").boxed_local()
            }
            "split" => db.split_at("c030").map(|split| split.map(drop)).boxed_local(),
            "merge" => db.merge_at("m").map(|merged| merged.map(drop)).boxed_local(),
            _ => panic!("no such job: {job}"),
        };
        (future, after)
    }

    /// Files of the directory that the manifest does not name.
    fn strays(&self, disk: &MemVfs, ending: &str) -> Vec<String> {
        let verified = verify_directory(&shared(disk), &self.dir, &mut |_, _| {}).unwrap();
        assert!(verified.is_sound(), "{:?}", verified.findings);
        verified.strays.into_iter().filter(|name| name.ends_with(ending)).collect()
    }
}

/// Goal: `close` ends whatever job is under way. The job happens, or its caller is told that it
/// does not. No temporary file is left, nothing is half done, and the next open finds every
/// acknowledged write. A dropped database is like a crashed one.
///
/// Planted: a close that flushes nothing; unfinished tables that are not removed.
#[test]
fn x_20_the_end_may_come_in_the_middle_of_every_job() {
    let (mut in_the_middle, mut told) = (BTreeMap::<_, u32>::new(), 0);
    for (at, job) in JOBS.into_iter().enumerate() {
        for polls in [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 40, 80, 160, 320, 640] {
            for closes in [true, false] {
                let scene = Scene::new(polls * 100 + at as u64);
                let db = scene.open(&scene.disk, &scene.simulator);
                let (before, then) = scene.fill(&db);
                let then = (job == "replace from").then_some(then);
                let shown = format!("{job}, after {polls} polls, closes: {closes}");
                let (future, after) = scene.job(&db, job, &before, then.as_ref());
                let is_over = Cell::new(false);
                let future = future.inspect(|_| is_over.set(true)).boxed_local();
                let end = async {
                    for _ in 0..polls {
                        pause().await;
                    }
                    *in_the_middle.entry((job, closes)).or_default() += u32::from(!is_over.get());
                    if closes { db.close().await } else { Ok(()) }
                };
                let mut done = None;
                if closes {
                    let (ended, closed) = scene.simulator.run(futures::future::join(future, end));
                    closed.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
                    if let Err(error) = &ended {
                        assert_eq!(error.kind(), ErrorKind::Closed, "{shown}: {error:?}");
                    }
                    told += u32::from(ended.is_err());
                    done = Some(ended.is_ok());
                } else {
                    drop(scene.simulator.run(futures::future::select(future, end.boxed_local())));
                }
                scene.simulator.kill();
                drop((then, db));
                let disk = scene.disk.kill_clone();
                if closes {
                    // The next open removes tables that were still being written.
                    assert_eq!(scene.strays(&disk, ".tmp"), Vec::<String>::new(), "{shown}");
                }
                let simulator = Simulator::new(polls);
                let db = scene.open(&disk, &simulator);
                let found = simulator.run(content(&db)).unwrap();
                assert!(found == after || found == before, "{shown}: a part of it");
                assert!(done != Some(true) || found == after, "{shown}: it was acknowledged");
                if closes {
                    assert_eq!(db.stats().recovered_entries, 0, "{shown}: all was flushed");
                }
                simulator.settle();
                let strays = [".tmp", ".sst"].map(|end| scene.strays(&disk.kill_clone(), end));
                assert_eq!(strays, [Vec::<String>::new(), Vec::new()], "{shown}");
                simulator.run(db.close()).unwrap();
                simulator.kill();
            }
        }
    }
    eprintln!("{in_the_middle:?}; told that it is closed: {told}");
    let rarest = in_the_middle.values().min();
    assert!(in_the_middle.len() == 2 * JOBS.len() && rarest >= Some(&2) && told >= 10);
}
