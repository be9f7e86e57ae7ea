//! Changes in the log, and what the manifest knows of them.

use super::*;

/// What is done to a disk, and its name.
type Harm<'a> = (&'a str, &'a dyn Fn(&MemVfs));

/// A keyspace was made, and has entries. Its edit is the manifest's last record. Returns the disk
/// and the name of the manifest.
fn with_a_new_keyspace() -> (MemVfs, String) {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 60);
    life.sync();
    life.flush();
    let keyspace = KeyspaceId(2);
    let new = NewRange { id: RangeId(2), keyspace, span: Span::all(), shards: Shards::one() };
    let called = Keyspace { name: "k".into(), options: Arc::default() };
    let made = VersionEdit {
        ranges_added: vec![new],
        keyspaces_set: vec![(keyspace, called)],
        ..VersionEdit::default()
    };
    let id = life.prepare(made);
    life.change(id);
    let mut batch = WriteBatch::new();
    batch.put_in(KeyspaceRef::new(1, keyspace), "a", "1");
    life.write(&batch);
    life.sync();
    let name = FileKind::Manifest(life.recovered.manifest.number()).name();
    (mem.kill_clone(), name)
}

/// Planted: a change that the manifest does not know counts as settled.
#[test]
fn change_is_known_or_the_manifest_has_lost_it() {
    let (mem, manifest) = with_a_new_keyspace();
    let recovered = open(&mem.kill_clone()).unwrap();
    assert!(recovered.version.keyspaces().has(KeyspaceId(2)));
    assert_eq!((recovered.report.changes_replayed, recovered.report.entries_skipped), (1, 60 * 5));
    let length = snapshot(&mem)[&manifest].len() as u64;
    let harms: [Harm<'_>; 2] = [
        ("a flipped bit", &|hurt| damage(hurt, &manifest, length - 3)),
        ("a cut", &|hurt| {
            let file = hurt.open_rw(&dir().join(&manifest)).unwrap();
            file.set_len(length - 3).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let hurt = mem.kill_clone();
        harm(&hurt);
        let before = snapshot(&hurt);
        let error = open(&hurt).expect_err(name);
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
        assert!(error.to_string().contains(&manifest), "{name}: {error}");
        assert_eq!(snapshot(&hurt), before, "{name}");
        let vfs: Arc<dyn Vfs> = Arc::new(hurt.clone());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        let named = summary.findings.iter().any(|finding| finding.file.ends_with(&manifest));
        assert!(named, "{name}: {:?}", summary.findings);
    }
}

/// Planted: the tables of each prepared change must be there.
#[test]
fn a_change_that_was_refused_needs_no_tables() {
    for has_record in [false, true] {
        let mem = disk();
        let mut life = Life::start(&mem);
        life.fill(0, 60);
        life.sync();
        life.flush();
        let image = life.recovered.manifest.image();
        let ((_, place, _), slice) = image.slices.iter().next().unwrap();
        // It brings a table that nothing else names, and that has been removed.
        let mut table = (*slice.table).clone();
        table.number = FileNumber(life.next_number);
        let added = vec![(RangeId::FIRST, *place, SliceMeta::whole(table))];
        life.next_number += 1;
        let id = life.prepare(VersionEdit { added, ..VersionEdit::default() });
        if has_record {
            life.change(id);
        }
        life.sync();
        let vfs: Arc<dyn Vfs> = Arc::new(mem.clone());
        let summary = verify_directory(&vfs, &dir(), &mut |_, _| {}).unwrap();
        assert_eq!(summary.is_sound(), !has_record, "{:?}", summary.findings);
        assert_eq!(open(&mem).is_ok(), !has_record);
    }
}

/// Planted: tables that are made from the log have no time.
#[test]
fn tables_from_the_log_are_as_old_as_the_open() {
    let mem = disk();
    let mut life = Life::start(&mem);
    life.fill(0, 60);
    life.sync();
    let recovered = open(&mem).unwrap();
    let ages: BTreeSet<_> =
        recovered.version.slices().map(|(_, _, slice)| slice.meta().table.created_at_ms).collect();
    assert_eq!(ages, BTreeSet::from([options().now_ms]));
}
