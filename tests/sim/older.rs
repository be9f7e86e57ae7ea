//! One file is put back from an earlier day, or loses its end. The database is refused, or keeps
//! every promise.
//!
//! There is one exception (P16 in `docs/promises.md`): nothing says that the newest log file goes
//! on behind what the manifest knows. What is shown then is still a prefix, with whole batches.

use crate::crash::{Image, Recording, Tally, look, open, record};
use crate::history::{judge, steps};
use crate::kit::chance::{Chance, Replay, replayed, seeds};
use crate::kit::disk::shared;
use crate::kit::settings;
use sluicedb_storage::verify::verify_directory;
use sluicedb_storage::vfs::{MemVfs, Vfs};
use std::path::Path;

/// What became of the states.
#[derive(Debug, Default)]
struct Outcomes {
    refused: u64,
    /// Opened, and some table could not be read.
    unreadable: u64,
    kept: u64,
    /// A prefix that lacks acknowledged writes.
    cut: u64,
}

fn bytes(disk: &MemVfs, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

fn put(disk: &MemVfs, path: &Path, bytes: &[u8]) {
    let file = disk.open_rw(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// The files of a database in `dir` that hold something.
fn files(disk: &MemVfs, dir: &Path) -> Vec<String> {
    let mut names = disk.list(dir).unwrap_or_default();
    names.retain(|name| name != "LOCK" && name != "RESERVE" && !name.ends_with(".spare"));
    names.sort();
    names
}

/// A file as it was in an earlier image, if it was another one.
fn older(recording: &Recording, at: usize, chance: &mut Chance) -> Option<(String, Vec<u8>)> {
    let (dir, images) = (&recording.dir, &recording.images);
    let before = &images[chance.below(at)].disk;
    let differs = |name: &String| {
        let path = dir.join(name);
        let then = bytes(before, &path)?;
        (bytes(&images[at].disk, &path)? != then).then(|| (name.clone(), then))
    };
    let mut all: Vec<_> = files(before, dir).iter().filter_map(differs).collect();
    let which = chance.below(all.len().max(1));
    (!all.is_empty()).then(|| all.swap_remove(which))
}

/// A file whose end is zeros.
fn zeroed(image: &Image, dir: &Path, chance: &mut Chance) -> Option<(String, Vec<u8>)> {
    let names = files(&image.disk, dir);
    let name = (!names.is_empty()).then(|| chance.pick(&names))?;
    let mut all = bytes(&image.disk, &dir.join(&name))?;
    let end = all.iter().rposition(|byte| *byte != 0)?;
    let from = chance.below(end + 1);
    all[from..].fill(0);
    Some((name, all))
}

fn check(
    recording: &Recording,
    at: usize,
    (name, contents): &(String, Vec<u8>),
    seed: u64,
    outcomes: &mut Outcomes,
) -> Result<(), String> {
    let Recording { dir, options, .. } = recording;
    let image = &recording.images[at];
    let disk = image.disk.kill_clone();
    put(&disk, &dir.join(name), contents);
    let sound = verify_directory(&shared(&disk), dir, &mut |_, _| {}).unwrap().is_sound();
    let (simulator, db) = match open(&disk, dir, options, seed) {
        Ok(opened) => opened,
        Err(_) if !sound => {
            outcomes.refused += 1;
            return Ok(());
        }
        Err(what) => return Err(format!("verify finds nothing, yet it {what}")),
    };
    let found = look(&simulator, &db);
    simulator.kill();
    drop(db);
    match found {
        Err(_) if !sound => {
            outcomes.unreadable += 1;
            Ok(())
        }
        Err(what) => Err(format!("verify finds nothing, yet it {what}")),
        Ok(found) => {
            let promised = image.promises.buffered;
            let least = if name.ends_with(".wal") { 0 } else { promised };
            let count = judge(&recording.contents, &found, least, image.promises.submitted)?;
            *if count < promised { &mut outcomes.cut } else { &mut outcomes.kept } += 1;
            Ok(())
        }
    }
}

/// Planted: edits do not say how far the log was synced; a log without a beginning is empty.
#[test]
fn a_file_of_an_earlier_day_is_refused_or_every_promise_is_kept() {
    let mut outcomes = Outcomes::default();
    for seed in seeds(51_000, 16) {
        let test = "a_file_of_an_earlier_day_is_refused_or_every_promise_is_kept";
        let _replay = Replay { binary: "sim", test, seed };
        let mut chance = Chance::new(seed);
        let mut options = settings::drawn(&mut chance);
        if seed % 4 > 0 {
            options.initial_split_keys = vec![b"cold/1400".to_vec(), b"hot/".to_vec()];
        }
        let steps = steps(&mut chance, 60, seed % 3 == 0);
        let recording = record(seed, &steps, options, 7, &mut Tally::default());
        for at in 1..recording.images.len() {
            let changed = if chance.one_in(2) {
                older(&recording, at, &mut chance)
            } else {
                zeroed(&recording.images[at], &recording.dir, &mut chance)
            };
            let Some(changed) = changed else { continue };
            let result = check(&recording, at, &changed, chance.next(), &mut outcomes);
            if let Err(what) = result {
                let operation = &recording.images[at].operation;
                panic!("{} at image {at}, before {operation}: {what}", changed.0);
            }
        }
    }
    eprintln!("{outcomes:?}");
    if replayed().is_none() {
        let Outcomes { refused, kept, .. } = outcomes;
        assert!(refused >= 300 && kept >= 100, "{outcomes:?}");
    }
}
