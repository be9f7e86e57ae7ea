//! Goal: no log file with acknowledged writes can go missing or be exchanged unnoticed.
//! Method: files of killed, cut off and cleanly closed databases are removed, exchanged and put
//! back.

use super::*;

/// A database that was opened and then took batches for several segments, all synced.
fn three_segments(mem: &MemVfs) -> Life {
    let mut life = Life::start(mem);
    life.fill(0, 600);
    life.sync();
    assert!(wals(mem).len() >= 3, "{:?}", wals(mem));
    life
}

/// The names of the log's files, ascending.
fn wals(mem: &MemVfs) -> Vec<String> {
    let mut names = mem.list(&dir()).unwrap();
    names.retain(|name| is_wal(name));
    names.sort();
    names
}

fn refused(mem: &MemVfs, context: &str) -> Error {
    let before = snapshot(mem);
    let error = open(mem).map(|found| content(&found).len()).expect_err(context);
    assert!(matches!(error, Error::Corrupt { .. } | Error::Missing { .. }), "{context}: {error}");
    assert_eq!(snapshot(mem), before, "{context}: a refused open changes nothing");
    let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
    let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
    assert!(!summary.is_sound(), "{context}: verify says ok");
    error
}

#[test]
fn a3_no_segment_of_a_killed_database_can_go_missing() {
    let mem = disk();
    let life = three_segments(&mem);
    drop(life);
    for name in wals(&mem) {
        let hurt = mem.kill_clone();
        hurt.remove(&dir().join(&name)).unwrap();
        let error = refused(&hurt, &name);
        assert!(error.to_string().contains(&name), "{name}: {error}");
    }
}

#[test]
fn a3_the_only_segment_cannot_go_missing() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 3);
    life.sync();
    drop(life);
    let [name] = &wals(&mem)[..] else { panic!("{:?}", wals(&mem)) };
    mem.remove(&dir().join(name)).unwrap();
    assert!(refused(&mem, name).to_string().contains(name));
}

#[test]
fn a3_an_older_manifest_put_back_is_refused() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 40);
    life.sync();
    let old = snapshot(&mem);
    drop(life);
    // The next open makes tables of the log and begins a new one.
    let mut life = Life::start(&mem);
    life.fill(1, 10);
    life.sync();
    drop(life);
    for (name, bytes) in old.iter().filter(|(name, _)| !is_wal(name)) {
        let _ = mem.remove(&dir().join(name));
        mem.create(&dir().join(name)).unwrap().write_all_at(bytes, 0).unwrap();
    }
    refused(&mem, "an older manifest");
}

#[test]
fn a3_another_file_in_place_of_the_newest_segment_is_refused() {
    let mem = disk();
    let life = three_segments(&mem);
    let newest = wals(&mem).pop().unwrap();
    let identity = LogIdentity { db_id: life.recovered.db_id };
    let number = FileNumber(life.next_number);
    drop(prepare_spare(&life.vfs, &dir(), &identity, number, SEGMENT_BYTES, false).unwrap());
    drop(life);
    let spare = snapshot(&mem)[&FileKind::Wal(number).name()].clone();
    let path = dir().join(&newest);
    for bytes in [spare, vec![0; SEGMENT_BYTES as usize], Vec::new()] {
        let hurt = mem.kill_clone();
        hurt.remove(&path).unwrap();
        hurt.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        let error = refused(&hurt, "another file");
        assert!(error.to_string().contains(&newest), "{error}");
    }
    mem.remove(&path).unwrap();
    mem.create_dir_all(&path).unwrap();
    assert!(refused(&mem, "a directory").to_string().contains(&newest));
}

#[test]
fn a3_after_a_clean_close_the_log_is_there_to_its_mark() {
    let mem = disk();
    let mut life = three_segments(&mem);
    life.flush();
    life.trim();
    life.close();
    let newest = wals(&mem).pop().unwrap();
    let path = dir().join(&newest);
    let gone = mem.kill_clone();
    gone.remove(&path).unwrap();
    assert!(refused(&gone, "gone").to_string().contains(&newest));
    // The last record. Nothing confirms it but the manifest.
    let file = mem.open(&path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    let cut = mem.kill_clone();
    damage(&cut, &newest, end as u64);
    assert!(refused(&cut, "no mark").to_string().contains(&newest));
    open(&mem).unwrap();
}

/// Rotations into new and recycled segments, with a rising floor: whatever a power cut leaves can
/// be opened, and has everything that was synced.
#[test]
fn a3_a_power_cut_anywhere_while_the_log_rotates_is_no_damage() {
    let mem = disk();
    let mut life = Life::with(&mem, 8192);
    let images = mem.record_images(1);
    let mut states = vec![life.model.clone()];
    let (mut synced, mut opened, mut rotations) = (0, 0, 0);
    for n in 0..70 {
        let number = life.log.number();
        for k in 0..3 {
            life.fill(3 * n + k, 1);
            states.push(life.model.clone());
        }
        rotations += usize::from(life.log.number() != number);
        let before = synced;
        match n % 9 {
            2 | 5 => life.sync(),
            8 => {
                life.sync();
                life.flush();
                life.trim();
            }
            _ => {}
        }
        if matches!(n % 9, 2 | 5 | 8) {
            synced = states.len() - 1;
        }
        for (at, (operation, image)) in images.take().into_iter().enumerate() {
            let kind = CrashKind::each(u64::from(n) * 100 + at as u64)[(at + n as usize) % 8];
            let context = format!("round {n}, before {operation:?}, {kind:?}");
            let left = image.crash_clone(kind);
            let recovered = open(&left).unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = content(&recovered);
            let prefix = states.iter().rposition(|state| *state == found);
            assert!(prefix.is_some_and(|at| at >= before), "{context}: {prefix:?}, {before}");
            opened += 1;
        }
    }
    assert!(rotations > 5 && opened > 150, "{rotations} rotations, {opened} opens");
}
