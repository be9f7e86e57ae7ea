//! Goal: opens that are interrupted again and again leave nothing that adds up, and remove nothing
//! that somebody may still need.
//! Method: every open ends just before its manifest counts. The next one finds what that leaves.

use super::*;
use crate::recover::leftovers::Leftovers;
use crate::vfs::chance::Chance;
use std::sync::Mutex;

/// A log with much in it, and little else.
fn much() -> (MemVfs, Model) {
    let mem = disk();
    let (mut life, mut chance) = (Life::start(&mem), Chance(18));
    for n in 0..1000 {
        let value: Vec<_> = (0..400).map(|_| chance.below(256) as u8).collect();
        let mut batch = WriteBatch::new();
        batch.put(format!("much{n:04}"), value);
        life.write(&batch);
        if n % 100 == 99 {
            life.sync();
        }
    }
    (mem, life.model)
}

fn with_budget(mem: &MemVfs, replay_bytes_max: usize) -> Result<Recovered> {
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    open_directory(&vfs, &dir(), &RecoverOptions { replay_bytes_max, ..options() })
}

/// Planted: tables of earlier opens stay until an open has succeeded; manifests do.
#[test]
fn interrupted_opens_need_no_more_space_than_one() {
    let (mem, model) = much();
    let log_bytes = mem.used_bytes();
    for budget in [1 << 30, 40 << 10] {
        let whole = mem.kill_clone();
        let made = with_budget(&whole, budget).unwrap();
        let tables = made.version.slices().map(|(_, _, slice)| slice.meta().table.file_bytes);
        let tables: u64 = tables.map(|bytes| bytes.next_multiple_of(4096)).sum();
        assert!(tables > 300 << 10, "{tables} bytes");
        for kind in [None, Some(CrashKind::DropUnsynced)] {
            let mut disk = mem.kill_clone();
            let mut used = Vec::new();
            for attempt in 0..3 {
                disk.set_capacity(Some(log_bytes + tables * 3 / 2));
                let image = Arc::new(Mutex::new(None));
                let taken = Arc::clone(&image);
                disk.on_operation(move |disk, operation| {
                    let renamed = operation.path.file_name().and_then(|name| name.to_str());
                    let is_temp =
                        |name| FileKind::parse(name) == Some(FileKind::Temp(FileNumber(0)));
                    if operation.kind == OperationKind::Rename && renamed.is_some_and(is_temp) {
                        let image =
                            kind.map_or_else(|| disk.kill_clone(), |kind| disk.crash_clone(kind));
                        *taken.lock().unwrap() = Some(image);
                    }
                });
                with_budget(&disk, budget)
                    .unwrap_or_else(|e| panic!("{budget}, {kind:?}, attempt {attempt}: {e}"));
                disk.clear_hook();
                let image = image.lock().unwrap().take();
                disk = image.expect("CURRENT was swapped");
                used.push(disk.used_bytes());
            }
            assert!(used.iter().all(|bytes| *bytes <= used[0]), "{budget}, {kind:?}: {used:?}");
            let recovered = with_budget(&disk, budget).unwrap();
            assert_eq!(content(&recovered), model);
            assert!(!recovered.report.files_removed.is_empty());
            cuts::assert_only_live_files(&disk, &recovered);
        }
    }
}

/// Planted: leftovers are removed at the first table, whatever follows in the log.
#[test]
fn a_log_that_is_damaged_behind_the_first_table_leaves_leftovers_alone() {
    let (mem, model) = much();
    let left = ["009998.sst", "009999.tmp", "MANIFEST-009997"];
    for name in left {
        mem.create(&dir().join(name)).unwrap().write_all_at(&[7; 100], 0).unwrap();
    }
    let budget = 40 << 10;
    let report = with_budget(&mem.kill_clone(), budget).unwrap().report;
    assert!(report.tables_written > 3, "{report:?}");
    assert!(left.iter().all(|name| report.files_removed.iter().any(|gone| gone == name)));
    let names = mem.list(&dir()).unwrap();
    let mut wals: Vec<_> = names.iter().filter(|name| is_wal(name)).collect();
    wals.sort();
    // In the middle: what follows confirms it.
    damage(&mem, wals[wals.len() / 2], 9000);
    let before = snapshot(&mem);
    let error = with_budget(&mem, budget).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(snapshot(&mem), before);
    damage(&mem, wals[wals.len() / 2], 9000);
    assert_eq!(content(&with_budget(&mem, budget).unwrap()), model);
}

/// Goal: what a power cut undoes of the manifest finds its tables.
/// Method: the last edit gives up tables, and the process is killed before the edit is synced. The
/// power goes at each operation of the next open.
///
/// Planted: the manifest is not synced before leftovers are removed.
#[test]
fn what_an_unsynced_edit_has_given_up_is_there_after_a_power_cut() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 100);
    life.sync();
    life.flush();
    life.fill(1, 100);
    life.sync();
    let deleted = life.recovered.manifest.image().slices.keys().cloned().collect();
    let edit = VersionEdit { deleted, ..VersionEdit::default() };
    life.recovered.manifest.append_unsynced(&edit).unwrap();
    let dead = mem.kill_clone();
    let images = dead.record_images(1);
    let recovered = open(&dead).unwrap();
    dead.clear_hook();
    assert!(recovered.report.files_removed.iter().any(|name| is_table(name)));
    for (at, (operation, image)) in images.take().into_iter().enumerate() {
        for kind in CrashKind::each(at as u64) {
            let opened = open(&image.crash_clone(kind));
            opened.unwrap_or_else(|e| panic!("after {operation:?}, {kind:?}: {e}"));
        }
    }
}

/// Planted: only what is in the manifest's tables is kept.
#[test]
fn what_a_prepared_change_brings_is_no_leftover() {
    let (mem, _) = sample();
    let recovered = open(&mem).unwrap();
    let number = recovered.manifest.number();
    let mut image = recovered.manifest.image().clone();
    let mut names = mem.list(&dir()).unwrap();
    // The log that was replayed is one.
    names.retain(|name| !is_wal(name));
    let judge = || panic!("nothing is to be removed");
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let none = |image: &Image| {
        let mut left = Leftovers::among(&names, number, image, &judge);
        left.remove(&vfs, &dir(), &OneByOne).unwrap();
        assert!(left.into_removed().is_empty());
    };
    none(&image);
    let slices = std::mem::take(&mut image.slices);
    let name = |slice: &SliceMeta| FileKind::Table(slice.number()).name();
    let tables: BTreeSet<_> = slices.values().map(name).collect();
    assert!(tables.len() > 2);
    let brings = |((range, place, _), slice)| (range, place, slice);
    let added = slices.into_iter().map(brings).collect();
    image.prepared.insert(ChangeId(1), VersionEdit { added, ..VersionEdit::default() });
    none(&image);
    image.prepared.clear();
    let sound = || Ok(());
    let mut left = Leftovers::among(&names, number, &image, &sound);
    left.remove(&vfs, &dir(), &OneByOne).unwrap();
    assert_eq!(left.into_removed(), tables.into_iter().collect::<Vec<_>>());
}

/// Planted: tables stay unless there was no space for the manifest.
#[test]
fn an_open_that_cannot_write_its_manifest_leaves_no_table() {
    let (mem, model) = sample();
    let before = snapshot(&mem);
    let steps = [OperationKind::Create, OperationKind::Write, OperationKind::Sync];
    for (kind, errno) in steps.into_iter().flat_map(|kind| [(kind, 5), (kind, 28)]) {
        let disk = mem.kill_clone();
        let faulty = FaultVfs::over_mem(&disk);
        let control = faulty.control();
        control.arm(Fault::of(kind).named("MANIFEST").errno(errno));
        let vfs: Arc<dyn Vfs> = Arc::new(faulty);
        open_directory(&vfs, &dir(), &options()).map(drop).unwrap_err();
        assert_eq!(control.fired().len(), 1);
        assert_eq!(snapshot(&disk), before, "{kind:?} {errno}");
        assert_eq!(content(&open(&disk).unwrap()), model);
    }
    // Nobody knows whether `CURRENT` was replaced.
    let disk = mem.kill_clone();
    let faulty = FaultVfs::over_mem(&disk);
    faulty.control().arm(Fault::of(OperationKind::Rename).named("CURRENT").errno(5));
    let vfs: Arc<dyn Vfs> = Arc::new(faulty);
    open_directory(&vfs, &dir(), &options()).map(drop).unwrap_err();
    let tables = |files: &BTreeMap<String, Vec<u8>>| files.keys().filter(|n| is_table(n)).count();
    assert!(tables(&snapshot(&disk)) > tables(&before));
    assert_eq!(content(&open(&disk).unwrap()), model);
}

/// Planted: what is left over goes only before a table.
#[test]
fn interrupted_opens_that_write_no_table_leave_one_manifest() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 60);
    let model = life.model.clone();
    life.close();
    let mut disk = mem;
    for attempt in 0..4 {
        let image = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&image);
        disk.on_operation(move |disk, operation| {
            if operation.kind == OperationKind::Rename {
                *taken.lock().unwrap() = Some(disk.kill_clone());
            }
        });
        let recovered = open(&disk).unwrap();
        disk.clear_hook();
        assert_eq!(recovered.report.tables_written, 0);
        disk = image.lock().unwrap().take().expect("CURRENT was swapped");
        let names = disk.list(&dir()).unwrap();
        let manifests = names.iter().filter(|name| name.starts_with("MANIFEST")).count();
        assert_eq!(manifests, 2, "attempt {attempt}: {names:?}");
    }
    assert_eq!(content(&open(&disk).unwrap()), model);
}
