//! Excised spans: their exact bounds in every place where keys may be (memory, L0, levels), and
//! what remains of the tables. The disk and the clock are the simulator's.

use crate::harness::{Simulated, check};
use crate::kit::oracle::Map;
use crate::kit::settings;
use futures::StreamExt;
use sluicedb::{Compression, Db, IngestPlan, OnEmpty, Options, Outcome, WriteBatch};
use sluicedb_storage::version::SliceMeta;
use sluicedb_storage::vfs::{Fault, OperationKind, Vfs};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;

fn key(n: usize) -> Vec<u8> {
    format!("k{n:04}").into_bytes()
}

/// Puts keys of even numbers, so that there is a gap behind each key, and brings them into `state`.
async fn fill(db: &Db, map: &mut Map, numbers: Range<usize>, value: u8, state: &str) {
    for n in numbers.step_by(2) {
        db.put(key(n), vec![value; 200]).await.unwrap();
        map.insert(key(n), vec![value; 200]);
    }
    match state {
        "memory" => {}
        "l0" => db.flush().await.unwrap(),
        "level" => db.compact().await.unwrap(),
        _ => panic!("no such state: {state}"),
    }
}

fn cut(map: &mut Map, span: &Range<Vec<u8>>) {
    map.retain(|key, _| !span.contains(key));
}

/// Every way to read agrees with `map`, also about the keys that are not in it.
async fn agree(db: &Db, map: &Map) -> sluicedb::Result<()> {
    check(db, map).await?;
    let gone: Vec<_> = (0..400).map(key).filter(|key| !map.contains_key(key)).collect();
    for (key, value) in gone.iter().zip(db.multi_get(&gone).await?) {
        assert_eq!((db.get(key).await?, value), (None, None), "{}", key.escape_ascii());
        assert!(!db.contains_key(key).await?);
    }
    Ok(())
}

/// Checks that all reads agree with `map` now, after a kill, and after a flush and a full
/// compaction.
fn agrees(home: &Simulated, db: Db, map: &Map) {
    home.run(agree(&db, map)).unwrap();
    agrees_after_a_restart(home, map);
    home.run(async {
        db.flush().await.unwrap();
        agree(&db, map).await.unwrap();
        db.compact().await.unwrap();
        agree(&db, map).await.unwrap();
        db.close().await.unwrap();
    });
    drop(db);
    agrees_after_a_restart(home, map);
}

fn agrees_after_a_restart(home: &Simulated, map: &Map) {
    let reborn = home.reborn(home.disk.kill_clone());
    let db = reborn.open();
    reborn.run(agree(&db, map)).unwrap();
    reborn.simulator.kill();
}

/// The slices of these tests' keys in the manifest. A change
/// reaches the manifest with the next edit, so this makes one.
fn slices(home: &Simulated, db: &Db, map: &mut Map) -> Vec<SliceMeta> {
    home.run(db.put("~", "an edit")).unwrap();
    map.insert(b"~".to_vec(), b"an edit".to_vec());
    home.run(db.flush()).unwrap();
    let all = home.image().slices.into_values();
    all.filter(|slice| slice.min_key()[..] != *b"~").collect()
}

/// Nothing is compacted because of L0 or after a rest, and table sizes follow their entries.
fn options() -> Options {
    let mut options = settings::tiny();
    (options.l0_trigger_tables, options.l0_tables_max) = (100, 200);
    options.rest_after_ms = 0;
    options.memtable_bytes = Some(128 << 10);
    options.table_bytes_max = 1 << 20;
    options.compression = Compression::None;
    options.l0_compression = Compression::None;
    options
}

/// Planted: a span that includes its end; a table that is cut although it ends where the span
/// begins; remainders on one side only.
#[test]
fn t004_09_a_key_at_the_start_of_a_span_goes_and_one_at_its_end_stays() {
    let mut options = options();
    options.table_bytes_max = 4 << 10;
    let home = Simulated::with(49, options);
    let db = home.open();
    let mut all = Map::new();
    home.run(fill(&db, &mut all, 0..200, 1, "level"));
    home.simulator.settle();
    let mut tables: Vec<_> = home.image().slices.into_values().collect();
    tables.sort_by(|a, b| a.min_key().cmp(b.min_key()));
    assert!(tables.len() > 3 && tables.iter().all(|table| table.part.is_none()), "{tables:?}");
    let (first, second) = (&tables[1], &tables[2]);
    let inside = |n: usize| {
        let (from, to) = (first.min_key().to_vec(), first.max_key().to_vec());
        all.keys().filter(|key| from < **key && **key < to).nth(n).unwrap().clone()
    };
    let behind = |key: &[u8]| [key, &[0]].concat();
    let (whole, one) = (tables.len(), first.number());
    // The span, the number of slices left, and the number of slices of the observed table.
    let cases = [
        ("from one key to another", inside(2)..inside(4), whole + 1, 2),
        ("one key", inside(3)..behind(&inside(3)), whole + 1, 2),
        (
            "a table, and no other",
            first.min_key().to_vec()..second.min_key().to_vec(),
            whole - 1,
            0,
        ),
        ("up to the last key of a table", inside(9)..first.max_key().to_vec(), whole + 1, 2),
        ("a gap parts a table and takes nothing", behind(&inside(3))..inside(4), whole + 1, 2),
        ("a gap between tables", behind(first.max_key())..second.min_key().to_vec(), whole, 1),
        ("everything", Vec::new()..vec![0xFF; 9], 0, 0),
        ("behind everything", b"l".to_vec()..b"m".to_vec(), whole, 1),
    ];
    for (name, span, left, of_table) in cases {
        let home = home.reborn(home.disk.kill_clone());
        let (db, mut map) = (home.open(), all.clone());
        home.run(db.excise(span.clone())).unwrap();
        cut(&mut map, &span);
        let slices = slices(&home, &db, &mut map);
        let there = slices.iter().filter(|slice| slice.number() == one).count();
        assert_eq!((slices.len(), there), (left, of_table), "{name}: {slices:?}");
        agrees(&home, db, &map);
    }
    // The same bounds hold for keys in memory and in L0.
    for state in ["memory", "l0"] {
        for span in
            [key(20)..key(40), key(19)..key(41), key(20)..behind(&key(20)), key(21)..key(22)]
        {
            let home = Simulated::new(50);
            let (db, mut map) = (home.open(), Map::new());
            home.run(fill(&db, &mut map, 0..60, 1, state));
            home.run(db.excise(span.clone())).unwrap();
            cut(&mut map, &span);
            agrees(&home, db, &map);
        }
    }
}

/// The remainder of a table keeps its sequence numbers: it is older than later writes, and they
/// hide it.
///
/// Planted: remainders that get the sequence number of the change (an older value reappears).
#[test]
fn t004_10_what_is_left_of_a_table_keeps_its_sequence_numbers() {
    let home = Simulated::with(410, options());
    let (db, mut map) = (home.open(), Map::new());
    home.run(fill(&db, &mut map, 0..120, 1, "level"));
    // Newer values of the same keys, in a table above and in memory.
    home.run(fill(&db, &mut map, 0..120, 2, "l0"));
    home.run(fill(&db, &mut map, 100..120, 3, "memory"));
    home.run(db.delete(key(10))).unwrap();
    map.remove(&key(10));
    let before = map.clone();
    let snapshot = db.snapshot();
    let mut scan = snapshot.scan(..);
    let first = home.run(scan.next()).unwrap().unwrap();
    let numbers = |slices: &[SliceMeta]| {
        let of = |slice: &SliceMeta| (slice.number(), slice.min_seqno(), slice.max_seqno());
        slices.iter().map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let were = numbers(&slices(&home, &db, &mut map));
    let span = key(40)..key(80);
    home.run(db.excise(span.clone())).unwrap();
    cut(&mut map, &span);
    let are = slices(&home, &db, &mut map);
    assert!(are.iter().filter(|slice| slice.part.is_some()).count() >= 4, "two are cut: {are:?}");
    assert_eq!(numbers(&are), were);
    home.run(fill(&db, &mut map, 70..76, 4, "memory"));
    home.run(check(&db, &map)).unwrap();
    // A snapshot or scan from before the change sees the old content, in order, also when it was
    // half-way.
    let mut rest = vec![(first.0.to_vec(), first.1.to_vec())];
    while let Some(entry) = home.run(scan.next()) {
        let (key, value) = entry.unwrap();
        rest.push((key.to_vec(), value.to_vec()));
    }
    assert!(rest.iter().map(|(key, _)| key).is_sorted() && rest.into_iter().eq(before));
    drop((scan, snapshot));
    agrees(&home, db, &map);
}

/// Planted: a file that is deleted with the first of its slices; a file that is never deleted; a
/// count of slices that starts anew with each open.
#[test]
fn t004_11_a_file_goes_with_the_last_of_the_three_slices_that_share_it() {
    for reopened in [false, true] {
        let mut home = Simulated::with(411, options());
        let (mut db, mut map) = (home.open(), Map::new());
        // In L0, where a file with a small remainder is not rewritten.
        home.run(fill(&db, &mut map, 0..200, 1, "l0"));
        let tables = home.tables();
        assert_eq!(tables.len(), 1);
        let is_there = |home: &Simulated| home.tables().contains(&tables[0]);
        let mut slices = Vec::new();
        let spans = [
            key(50)..key(60),
            key(120)..key(150),
            Vec::new()..key(55),
            key(60)..key(120),
            key(149)..key(900),
        ];
        for (at, span) in spans.into_iter().enumerate() {
            home.run(db.excise(span.clone())).unwrap();
            cut(&mut map, &span);
            home.simulator.settle();
            assert_eq!(is_there(&home), at < 4, "after {at}");
            if reopened {
                home.run(db.close()).unwrap();
                drop(db);
                home = home.reborn(home.disk.kill_clone());
                db = home.open();
                slices.push(home.image().slices.len());
            }
            home.run(check(&db, &map)).unwrap();
        }
        assert!(map.is_empty() && (!reopened || slices == [2, 3, 2, 1, 0]), "{slices:?}");
        home.run(db.close()).unwrap();
    }
}

/// A range delete equals an excision. A delete that reaches across the end of an earlier excision
/// removes the keys outside it; inside nothing is left. Later writes stay.
///
/// Planted: a delete that stops at the earlier excision; one that hides later writes.
#[test]
fn t004_20_a_range_is_deleted_across_the_end_of_what_was_cut_out() {
    for state in ["memory", "l0", "level"] {
        for (cut_out, deleted) in
            [(20..60, 40..80), (40..80, 20..60), (20..80, 40..60), (40..60, 20..80)]
        {
            let mut options = settings::tiny();
            options.sealed_memtables_max = 10;
            let home = Simulated::with(420, options);
            let (db, mut map) = (home.open(), Map::new());
            home.run(fill(&db, &mut map, 0..100, 1, state));
            if state == "memory" {
                // The flush fails, so the keys stay in memory.
                home.faults.arm(Fault::of(OperationKind::Create).named(".tmp").sticky());
                home.faults.arm(Fault::of(OperationKind::Create).named(".sst").sticky());
            }
            let (cut_out, deleted) =
                (key(cut_out.start)..key(cut_out.end), key(deleted.start)..key(deleted.end));
            home.run(db.excise(cut_out.clone())).unwrap();
            cut(&mut map, &cut_out);
            home.run(fill(&db, &mut map, 50..56, 2, "memory"));
            home.run(db.delete_range(deleted.clone())).unwrap();
            cut(&mut map, &deleted);
            home.run(agree(&db, &map)).unwrap();
            home.faults.disarm();
            // Another range delete, inside a batch that puts keys of the span afterwards.
            let mut batch = WriteBatch::new();
            batch.delete_range(deleted.clone()).put(key(44), "after").put(key(70), "after");
            home.run(db.write(batch)).unwrap();
            cut(&mut map, &deleted);
            for n in [44, 70] {
                map.insert(key(n), b"after".to_vec());
            }
            agrees(&home, db, &map);
        }
    }
}

/// Planted: a view that pins no point; a scan that reads the newest superversion.
#[test]
fn x_06_a_snapshot_outlives_a_cut_and_the_overwriting_of_what_was_beside_it() {
    let mut options = settings::tiny();
    options.write_buffer_bytes = Some(4 << 20);
    options.memory_budget_bytes = 8 << 20;
    options.memtable_bytes = Some(256 << 10);
    let home = Simulated::with(6, options);
    let (db, mut map) = (home.open(), Map::new());
    home.run(fill(&db, &mut map, 0..60, 1, "memory"));
    home.run(fill(&db, &mut map, 0..60, 2, "memory"));
    let (snapshot, before) = (db.snapshot(), map.clone());
    let mut scan = db.scan(..);
    let first = home.run(scan.next()).unwrap().unwrap();
    let span = key(20)..key(40);
    home.run(db.excise(span.clone())).unwrap();
    cut(&mut map, &span);
    for round in 0..60 {
        home.run(fill(&db, &mut map, 0..60, round, "memory"));
        home.simulator.settle();
    }
    let buffer = db.stats().ranges[0].buffer;
    assert!(buffer.compactions > 0 && db.stats().flushes < 2, "overwritten in memory: {buffer:?}");
    home.run(check(&db, &map)).unwrap();
    for (key, value) in &before {
        assert_eq!(home.run(snapshot.get(key)).unwrap().as_deref(), Some(&value[..]));
    }
    let mut shown = vec![(first.0.to_vec(), first.1.to_vec())];
    while let Some(entry) = home.run(scan.next()) {
        let (key, value) = entry.unwrap();
        shown.push((key.to_vec(), value.to_vec()));
    }
    assert!(shown.into_iter().eq(before), "the scan goes on at its instant");
    drop((snapshot, scan));
    agrees(&home, db, &map);
}

/// The reported sizes of slices never exceed those of their file, whatever is excised, and are
/// exact again after a full rewrite.
///
/// Planted: remainders that have the whole file's size; a share that is subtracted twice.
#[test]
fn x_15_the_parts_of_a_table_are_never_larger_than_it_nor_less_than_nothing() {
    let home = Simulated::with(15, options());
    let (db, mut map) = (home.open(), Map::new());
    home.run(fill(&db, &mut map, 0..400, 1, "level"));
    let (whole, entries) = (db.stats().table_bytes, db.stats().table_entries);
    let mut last = (whole, entries);
    for n in [7, 200, 390, 100, 300, 4, 12, 250, 198, 30] {
        let span = key(n)..key(n + 9);
        home.run(db.excise(span.clone())).unwrap();
        cut(&mut map, &span);
        let slices = slices(&home, &db, &mut map);
        let mut of_files = BTreeMap::<_, (u64, u64)>::new();
        for slice in &slices {
            assert!(slice.file_bytes() > 0 && slice.entries() > 0, "{slice:?}");
            let file = of_files.entry(slice.number()).or_default();
            *file = (file.0 + slice.file_bytes(), file.1 + slice.entries());
            let whole = &slice.table;
            assert!(file.0 <= whole.file_bytes && file.1 <= whole.entries, "{file:?}: {slices:?}");
        }
        let now = of_files.values().fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
        assert!(now.0 <= last.0 && now.1 <= last.1, "{now:?} after {last:?}");
        let all: Vec<_> = home.image().slices.into_values().collect();
        let sum = |of: fn(&SliceMeta) -> u64| all.iter().map(of).sum::<u64>();
        let (stats, shown) = (db.stats(), (sum(SliceMeta::file_bytes), sum(SliceMeta::entries)));
        assert_eq!((stats.table_bytes, stats.table_entries), shown);
        assert!(stats.table_file_bytes >= stats.table_bytes, "{stats:?}");
        last = now;
    }
    home.run(db.compact()).unwrap();
    home.simulator.settle();
    let files: u64 =
        home.tables().iter().map(|name| home.disk.len(&home.dir.join(name)).unwrap()).sum();
    let stats = db.stats();
    assert_eq!((stats.table_bytes, stats.table_file_bytes), (files, files));
    assert_eq!(stats.table_entries as usize, map.len());
    agrees(&home, db, &map);
}

/// No key is larger than the largest one, so a span that contains it has no end.
///
/// Planted: an inclusive end that is replaced by the key in front of it.
#[test]
fn x_17_the_largest_key_is_cut_out_by_a_span_without_an_end() {
    let largest = vec![0xFF; 65_535];
    let home = Simulated::new(17);
    let (db, mut map) = (home.open(), Map::new());
    for key in [b"a".to_vec(), vec![0xFF; 65_534], largest.clone()] {
        home.run(db.put(&key, "v")).unwrap();
        map.insert(key, b"v".to_vec());
    }
    home.run(db.excise(vec![0xFF; 65_534]..largest.clone())).unwrap();
    map.remove(&vec![0xFF; 65_534]);
    home.run(check(&db, &map)).unwrap();
    assert_eq!(home.run(db.get(&largest)).unwrap().as_deref(), Some(&b"v"[..]), "the end stays");
    // A table with the largest key replaces a span that includes it, and is removed again.
    let new = Map::from([(largest.clone(), b"new".to_vec())]);
    let table = home.outside("largest", new.iter().map(|(key, value)| (key, Some(value))));
    let plan = IngestPlan::new().replace(b"b".to_vec()..=largest.clone(), [table]);
    assert_eq!(home.run(db.ingest_and_excise(plan)).unwrap(), 1);
    map.extend(new);
    home.run(check(&db, &map)).unwrap();
    home.run(db.excise(largest.clone()..)).unwrap();
    map.remove(&largest);
    agrees(&home, db, &map);
}

/// Planted: an empty value that is taken for a delete, in memory or in a table.
#[test]
fn x_18_an_empty_value_is_no_delete_in_any_place() {
    let source = Simulated::new(18);
    let home = Simulated::with(19, source.options.clone());
    let (from, db) = (source.open(), home.open());
    let empty =
        [("a", "memory"), ("b", "l0"), ("c", "level"), ("d", "ingested"), ("e", "replaced")];
    let look = |db: &Db, there: usize, when: &str| {
        for (prefix, state) in &empty[..there] {
            let (emptied, deleted) = (format!("{prefix}/empty"), format!("{prefix}/deleted"));
            let shown = format!("{state}, {when}");
            assert_eq!(home.run(db.get(&emptied)).unwrap().as_deref(), Some(&b""[..]), "{shown}");
            assert!(home.run(db.contains_key(&emptied)).unwrap(), "{shown}");
            assert_eq!(home.run(db.get(&deleted)).unwrap(), None, "{shown}");
            assert!(!home.run(db.contains_key(&deleted)).unwrap(), "{shown}");
        }
        let found = home.run(crate::kit::disk::content(db)).unwrap();
        assert_eq!(found.len(), there, "{when}: {found:?}");
    };
    let write = |home: &Simulated, db: &Db, prefix: &str| {
        for (name, value) in [("empty", "full"), ("deleted", "full"), ("empty", "")] {
            home.run(db.put(format!("{prefix}/{name}"), value)).unwrap();
        }
        home.run(db.delete(format!("{prefix}/deleted"))).unwrap();
    };
    write(&home, &db, "c");
    home.run(db.compact()).unwrap();
    write(&home, &db, "b");
    home.run(db.flush()).unwrap();
    write(&home, &db, "a");
    look(&db, 3, "written");
    home.run(db.put("d/deleted", "hidden by a delete that comes in")).unwrap();
    let (emptied, deleted) = (b"d/empty".to_vec(), b"d/deleted".to_vec());
    let table = home.outside("d", [(&deleted, None), (&emptied, Some(&Vec::new()))]);
    assert_eq!(home.run(db.ingest([table])).unwrap(), 2);
    look(&db, 4, "ingested");
    home.run(db.put("e/deleted", "not in the source")).unwrap();
    write(&source, &from, "e");
    home.run(db.replace_from(&from.snapshot(), ["e".."f"], OnEmpty::Refuse)).unwrap();
    look(&db, 5, "replaced");
    let reborn = home.reborn(home.disk.kill_clone());
    let again = reborn.open();
    assert_eq!(reborn.run(crate::kit::disk::content(&again)).unwrap().len(), 5, "replayed");
    home.run(db.flush()).unwrap();
    look(&db, 5, "flushed");
    home.run(db.compact()).unwrap();
    look(&db, 5, "merged");
    source.run(from.close()).unwrap();
    home.run(db.close()).unwrap();
}

/// Goal: the error of a change says whether the change is in force. It may be when its record could
/// not be written or synced.
///
/// Planted: the outcome is lost between the log and the caller, and is always `NotApplied`.
#[test]
fn the_error_of_a_change_says_what_became_of_it() {
    // The log's current segment has this ending.
    let write = Fault::of(OperationKind::Write).named(".spare").error(ErrorKind::StorageFull);
    let sync = Fault::of(OperationKind::Sync).named(".spare");
    for (fault, outcome) in [(write, Outcome::Applied), (sync, Outcome::Unknown)] {
        for in_batch in [false, true] {
            let home = Simulated::new(31);
            let (db, mut map) = (home.open(), Map::new());
            home.run(fill(&db, &mut map, 0..30, 1, "l0"));
            home.faults.arm(fault.clone().sticky());
            let error = if in_batch {
                let mut batch = WriteBatch::new();
                batch.delete_range(key(10)..key(20)).put(key(15), "after");
                home.run(db.write(batch)).unwrap_err()
            } else {
                home.run(db.excise(key(10)..key(20))).unwrap_err()
            };
            assert!(!home.faults.fired().is_empty(), "{outcome:?} {in_batch}");
            assert_eq!(error.outcome(), outcome, "{in_batch}: {error:?}");
            assert_eq!(home.run(db.get(key(12))).unwrap(), None, "it is in force");
        }
    }
}
