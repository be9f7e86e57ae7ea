//! Several writers, one log thread, and a crash at disk operations. The writers and the thread are
//! preempted wherever they hold no seat, and before each disk operation.

use crate::kit::chance::{Chance, Replay, replayed, seeds};
use crate::kit::disk::{content, fresh_dir, shared};
use crate::kit::oracle::Map;
use crate::kit::settings;
use crate::kit::simulator::Simulator;
use sluicedb::{Db, Durability, WriteOptions};
use sluicedb_kernel::combining::preempt;
use sluicedb_storage::vfs::{CrashKind, MemVfs};
use std::sync::{Arc, Mutex};

const WRITERS: usize = 4;
/// Of each writer.
const WRITES: usize = 14;

/// For each writer, a number of its writes.
type Counts = [usize; WRITERS];

#[derive(Clone, Debug, Default)]
struct Story {
    /// Per writer and write: the writes that were acknowledged when it began, and so precede it in
    /// the log.
    begun: [Vec<Counts>; WRITERS],
    acked: Counts,
    synced: Counts,
    synced_writes: u64,
}

struct Image {
    at: String,
    disk: MemVfs,
    story: Story,
}

#[derive(Debug, Default)]
struct Tally {
    states: usize,
    preemptions: u64,
    /// Acknowledged as synced.
    synced_writes: u64,
    syncs: u64,
    segments: u64,
}

fn key(writer: usize, number: usize) -> Vec<u8> {
    format!("{writer}/{number:04}").into_bytes()
}

/// One writer: its writes one after another, each with a durability of its own.
async fn write(db: Db, writer: usize, mut chance: Chance, story: Arc<Mutex<Story>>) {
    for number in 0..WRITES {
        {
            let mut story = story.lock().unwrap();
            let acked = story.acked;
            story.begun[writer].push(acked);
        }
        let durability =
            chance.pick(&[Durability::Buffered, Durability::Buffered, Durability::Synced]);
        let value = chance.bytes(2_000 + 500 * chance.clone().below(20));
        let options = WriteOptions::durability(durability);
        db.put_with(key(writer, number), value, options).await.unwrap();
        let mut story = story.lock().unwrap();
        story.acked[writer] = number + 1;
        if durability == Durability::Synced {
            // A sync covers everything before it, of whichever writer.
            let before = story.begun[writer][number];
            for (synced, before) in story.synced.iter_mut().zip(before) {
                *synced = before.max(*synced);
            }
            story.synced[writer] = number + 1;
            story.synced_writes += 1;
        }
    }
}

/// Judges the content after a crash.
fn judge(found: &Map, story: &Story, least: Counts) -> Result<(), String> {
    let mut present = Counts::default();
    for (writer, count) in present.iter_mut().enumerate() {
        let begun = story.begun[writer].len();
        *count = (0..begun).take_while(|&number| found.contains_key(&key(writer, number))).count();
    }
    if found.len() != present.iter().sum::<usize>() {
        return Err(format!("{} entries, but {present:?} without gaps", found.len()));
    }
    for (writer, &count) in present.iter().enumerate() {
        if count < least[writer] {
            return Err(format!("{present:?} are left, {least:?} were promised"));
        }
        if let Some(last) = count.checked_sub(1) {
            let before = story.begun[writer][last];
            if before.iter().zip(&present).any(|(before, present)| before > present) {
                return Err(format!("{present:?} are left; {writer}/{last} came after {before:?}"));
            }
        }
    }
    Ok(())
}

fn record(seed: u64, mapped: bool, tally: &mut Tally) -> (Vec<Image>, std::path::PathBuf) {
    let vfs = MemVfs::new();
    let simulator = Simulator::preempting(seed);
    let story: Arc<Mutex<Story>> = Arc::default();
    let images: Arc<Mutex<Vec<Image>>> = Arc::default();
    let dir = fresh_dir();
    let mut chance = Chance::new(seed);
    let builder = Db::builder(&dir).options(options(mapped));
    let db = simulator.run(builder.vfs(shared(&vfs)).runtime(simulator.handle()).open()).unwrap();

    let every = chance.between(2, 5) as u64;
    let (taken, seen) = (Arc::clone(&images), Arc::clone(&story));
    vfs.on_operation(move |disk, operation| {
        if operation.number % every == 0 {
            let (at, story) = (format!("{operation:?}"), seen.lock().unwrap().clone());
            taken.lock().unwrap().push(Image { at, disk: disk.kill_clone(), story });
        }
        preempt::point();
    });
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (chance, story) = (Chance::new(chance.next()), Arc::clone(&story));
            let body = write(db.clone(), writer, chance, story);
            simulator.handle().spawn("writer", Box::pin(body)).unwrap()
        })
        .collect();
    simulator.run(async {
        for task in tasks {
            task.join().await;
        }
    });
    assert_eq!(story.lock().unwrap().acked, [WRITES; WRITERS], "every writer ended well");
    let stats = db.stats();
    tally.synced_writes += story.lock().unwrap().synced_writes;
    tally.preemptions += simulator.preemptions();
    tally.syncs += stats.log_syncs;
    tally.segments += stats.log_segments;
    vfs.clear_hook();
    simulator.kill();
    drop(db);
    let images = std::mem::take(&mut *images.lock().unwrap());
    (images, dir)
}

/// Memtables so large that nothing is flushed: a crash leaves the content of the log.
fn options(mapped: bool) -> sluicedb::Options {
    let mut options = settings::tiny();
    options.memtable_bytes = Some(512 << 10);
    options.log_mapped = mapped;
    options
}

/// Goal: group commit with the real code. An acknowledged write survives the crash of its
/// durability, with everything before it, at any interleaving that the seats allow.
/// Planted: a log thread that asks in one visit of the seat whether the log has left a segment and
/// takes the group in another; a sync of the last group's segments only (a former bug); a sync that
/// is answered up to what was appended when it ended.
#[test]
fn d1_several_writers_under_one_sync_keep_every_promise() {
    let test = "d1_several_writers_under_one_sync_keep_every_promise";
    let mut tally = Tally::default();
    for seed in seeds(0xD1, 32) {
        let _replay = Replay { binary: "sim", test, seed };
        let mapped = seed % 4 == 0;
        let (images, dir) = record(seed, mapped, &mut tally);
        let mut chance = Chance::new(!seed);
        for (index, image) in images.iter().enumerate() {
            let random = chance.pick(&CrashKind::each(chance.clone().next()));
            for kind in [None, Some(CrashKind::DropUnsynced), Some(random)] {
                tally.states += 1;
                let (disk, least) = match kind {
                    None => (image.disk.kill_clone(), image.story.acked),
                    Some(kind) => (image.disk.crash_clone(kind), image.story.synced),
                };
                let what = format!("image {index}, {kind:?} before {}", image.at);
                let simulator = Simulator::new(seed);
                let builder = Db::builder(&dir).options(options(mapped));
                let builder = builder.vfs(shared(&disk)).runtime(simulator.handle());
                let db = simulator.run(builder.open());
                let db = db.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                let found = simulator.run(content(&db)).unwrap();
                judge(&found, &image.story, least).unwrap_or_else(|why| panic!("{what}: {why}"));
                simulator.kill();
                drop(db);
            }
        }
    }
    eprintln!("{tally:?}");
    if replayed().is_none() {
        assert!(tally.states > 2_000 && tally.segments > 100, "{tally:?}");
        assert!(tally.syncs < tally.synced_writes + tally.segments, "several under one: {tally:?}");
        assert!(!cfg!(debug_assertions) || tally.preemptions > 1_000, "{tally:?}");
    }
}
