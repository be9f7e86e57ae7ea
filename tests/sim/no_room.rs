//! A disk that runs out of space as btrfs or a quota does: at an overwrite, at a rename, at a sync.
//!
//! Wherever that happens: a typed error that names a file, no hang, no acknowledged write lost.
//! With space the database opens again and continues.

use crate::faults::{driver, read_and_close, roomy, survives, workload};
use crate::history::is_fitting;
use crate::kit::chance::{Replay, cases_factor, replayed};
use crate::kit::disk::shared;
use sluicedb::ErrorKind;
use sluicedb_storage::vfs::{FailedSync, MemVfs, SpaceUse};

/// One run on a disk that from operation `moment` on has space for `spare` more bytes. Returns
/// whether anything failed for want of space.
fn one_run(
    space: SpaceUse,
    failed: FailedSync,
    moment: u64,
    spare: u64,
    seed: u64,
) -> Result<bool, String> {
    let mem = MemVfs::new();
    mem.set_space_use(space);
    mem.set_failed_sync(failed);
    mem.on_operation(move |disk, operation| {
        if operation.number == moment {
            disk.set_capacity(Some(disk.used_bytes() + spare));
        }
    });
    let mut options = roomy();
    options.log_mapped = false;
    let mut driver = driver(shared(&mem), options, seed);
    // A sync that found no space has lost the written data.
    driver.lossy = space == SpaceUse::Delayed;
    let db = driver.run(&workload());
    let failures = driver.history.failures();
    if let Some(failure) = failures.iter().find(|failure| !is_fitting(failure)) {
        return Err(format!("an unfitting failure: {failure:?}"));
    }
    if let Some(db) = db {
        read_and_close(&driver, &db)?;
    }
    mem.clear_hook();
    survives(&driver, &mem, seed)?;
    Ok(failures.iter().any(|failure| failure.kind() == ErrorKind::NoSpace))
}

#[test]
fn d6_space_may_run_out_wherever_a_file_system_finds_out() {
    let test = "d6_space_may_run_out_wherever_a_file_system_finds_out";
    let ways = [
        (SpaceUse::InPlace, FailedSync::KeepsNew),
        (SpaceUse::CopyOnWrite, FailedSync::RevertsToOld),
        (SpaceUse::Delayed, FailedSync::KeepsNew),
        (SpaceUse::Delayed, FailedSync::RevertsToOld),
    ];
    let step = (40 / cases_factor() as u64).max(1);
    let (mut failed, mut too_few) = (Vec::new(), false);
    for (index, (space, sync)) in ways.into_iter().enumerate() {
        let (mut runs, mut met) = (0, 0);
        for moment in (5 + index as u64..300).step_by(step as usize) {
            for pages in [0, 1, 2, 5, 12, 30] {
                let seed = (moment << 16 | pages << 8) + index as u64;
                if replayed().is_some_and(|only| only != seed) {
                    continue;
                }
                let _replay = Replay { binary: "sim", test, seed };
                runs += 1;
                match one_run(space, sync, moment, pages * 4096, seed) {
                    Ok(hit) => met += u64::from(hit),
                    Err(what) => failed.push(format!(
                        "SLUICE_SEED={seed} {space:?} {sync:?}, {pages} pages from {moment} on: \
                         {what}"
                    )),
                }
            }
        }
        eprintln!("{space:?} {sync:?}: {runs} runs, {met} of them met the end of the space");
        too_few |= met * 4 < runs && replayed().is_none();
    }
    let shown: Vec<_> = failed.iter().take(12).map(String::as_str).collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), shown.join("\n"));
    assert!(!too_few, "most runs never met the end of the space");
}
