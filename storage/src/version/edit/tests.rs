use super::super::testing::slice;
use super::super::{Landed, TablePart};
use super::*;
use crate::keyspace::KeyspaceId;
use crate::limits::LEVELS_MAX;
use crate::table::{KeySketch, TableMeta};
use proptest::prelude::*;
use std::sync::Arc;

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn plain_edits() -> impl Strategy<Value = VersionEdit> {
    let id = || (0..=RANGE_ID_MAX).prop_map(RangeId);
    let place = || {
        let level = || 1..=LEVELS_MAX as u8;
        let landing = (level(), 0..SHARDS_MAX as u16);
        prop_oneof![
            Just(Place::L0),
            landing.prop_map(|(level, shard)| Place::Landing(level, shard)),
            level().prop_map(Place::Main),
        ]
    };
    let number = || (0..=FILE_NUMBER_MAX).prop_map(FileNumber);
    let seqno = || (0..=SEQNO_ON_DISK_MAX).prop_map(Seqno);
    let keyspace = || (1..=RANGE_ID_MAX).prop_map(KeyspaceId);
    let range = || {
        let keyspace = prop_oneof![Just(KeyspaceId::DEFAULT), keyspace()];
        let span = (key(), proptest::option::of(key())).prop_map(|(lo, hi)| Span { lo, hi });
        (id(), keyspace, span, 1_usize..6).prop_map(|(id, keyspace, span, count)| {
            let shards = Shards::of(&span, count);
            let keyspace = KeyspaceId(keyspace.0.min(id.0));
            NewRange { id, keyspace, span, shards }
        })
    };
    let name = (number(), key()).prop_map(|(table, min_key)| SliceName { table, min_key });
    let table = (any::<[u64; 5]>(), any::<[u8; 16]>(), key(), key(), seqno(), seqno());
    let table =
        table.prop_map(|(n, unique_id, min_key, max_key, min_seqno, max_seqno)| TableMeta {
            number: FileNumber(n[0] % FILE_NUMBER_MAX),
            unique_id,
            file_bytes: n[1],
            raw_bytes: n[2],
            entries: n[3],
            tombstones: n[4],
            min_key,
            max_key,
            min_seqno,
            max_seqno,
            created_at_ms: n[0] ^ n[1],
            keys: KeySketch::default(),
        });
    let part = (key(), key(), any::<[u64; 3]>()).prop_map(|(min_key, max_key, n)| {
        Arc::new(TablePart { min_key, max_key, file_bytes: n[0], entries: n[1], tombstones: n[2] })
    });
    let landed = any::<[u64; 2]>().prop_map(|[epoch, at_ms]| Landed { epoch, at_ms });
    let some_seqno = proptest::option::of(seqno());
    let slice = (table, proptest::option::of(part), some_seqno, proptest::option::of(landed));
    let slice = slice.prop_map(|(table, part, seqno, landed)| SliceMeta {
        table: Arc::new(table),
        part,
        seqno,
        landed,
    });
    let some = |n| 0..n;
    let change = || any::<u64>().prop_map(ChangeId);
    let counters = (
        proptest::option::of(number()),
        proptest::option::of(number()),
        proptest::option::of(seqno()),
        any::<bool>(),
        proptest::option::of(number()),
        proptest::option::of(seqno()),
    );
    (
        proptest::collection::vec(id(), some(3)),
        proptest::collection::vec(range(), some(3)),
        proptest::collection::vec((id(), place(), name), some(4)),
        proptest::collection::vec((id(), place(), slice), some(4)),
        proptest::collection::vec((id(), seqno()), some(3)),
        counters,
        proptest::collection::vec((change(), seqno()), some(3)),
        proptest::collection::vec(change(), some(3)),
        proptest::collection::vec(range(), some(3)),
        proptest::collection::vec((range(), seqno()), some(3)),
        proptest::collection::vec((keyspace(), "[a-z]{0,9}"), some(3)).prop_map(|named| {
            let options = Arc::new(KeyspaceOptions { shards: Some(3), ..Default::default() });
            let named = named.into_iter().map(|(id, name): (_, String)| {
                (id, Keyspace { name: name.into(), options: Arc::clone(&options) })
            });
            named.collect()
        }),
        proptest::collection::vec(keyspace(), some(3)),
    )
        .prop_map(|t| VersionEdit {
            ranges_removed: t.0,
            ranges_added: t.1,
            deleted: t.2,
            added: t.3,
            flushed: t.4,
            log_floor: t.5.0,
            next_file_number: t.5.1,
            last_seqno: t.5.2,
            clean_close: t.5.3,
            newest_segment: t.5.4,
            log_synced: t.5.5,
            log_unbegun: t.5.5,
            settled: t.6,
            abandoned: t.7,
            shards_moved: t.8.into_iter().map(|range| (range.id, range.shards)).collect(),
            excised: apart(&t.9),
            masked: t
                .9
                .into_iter()
                .filter(|(range, _)| !range.span.is_empty())
                .map(|(range, seqno)| (of(&range), seqno))
                .collect(),
            keyspaces_set: t.10,
            keyspaces_removed: t.11,
            prepared: Vec::new(),
        })
}

fn of(range: &NewRange) -> KeyspaceSpan {
    KeyspaceSpan { keyspace: range.keyspace, span: range.span.clone() }
}

/// The spans of the ranges, united where they touch.
fn apart(ranges: &[(NewRange, Seqno)]) -> Vec<KeyspaceSpan> {
    let full = ranges.iter().filter(|(range, _)| !range.span.is_empty());
    KeyspaceSpan::united(full.map(|(range, _)| of(range)).collect())
}

/// As `plain_edits`, some with prepared changes.
fn edits() -> impl Strategy<Value = VersionEdit> {
    let prepared = plain_edits().prop_map(|mut edit| {
        edit.settled.clear();
        edit.abandoned.clear();
        edit.masked.clear();
        edit
    });
    let prepared = (any::<u64>().prop_map(ChangeId), prepared);
    (plain_edits(), proptest::collection::vec(prepared, 0..3))
        .prop_map(|(edit, prepared)| VersionEdit { prepared, ..edit })
}

proptest! {
    #[test]
    fn edits_survive_a_round_trip(edit in edits()) {
        let mut bytes = Vec::new();
        edit.encode(&mut bytes);
        prop_assert_eq!(VersionEdit::decode(&bytes), Ok(edit));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = VersionEdit::decode(&bytes);
    }

    #[test]
    fn a_cut_edit_is_malformed_or_an_edit_of_fewer_fields(
        edit in edits(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        edit.encode(&mut bytes);
        prop_assume!(!bytes.is_empty());
        let cut = cut.index(bytes.len());
        prop_assert_ne!(VersionEdit::decode(&bytes[..cut]), Ok(edit));
    }
}

#[test]
fn what_is_prepared_prepares_nothing_itself() {
    let inner = VersionEdit { settled: vec![(ChangeId(1), Seqno(1))], ..VersionEdit::default() };
    let edit = VersionEdit { prepared: vec![(ChangeId(2), inner)], ..VersionEdit::default() };
    let mut bytes = Vec::new();
    edit.encode(&mut bytes);
    let refused = VersionEdit::decode(&bytes).unwrap_err();
    assert!(matches!(refused, EditError::Malformed { at: 3, .. }), "{refused:?}");
}

/// Planted: one of the numbers has no limit.
#[test]
fn c4_every_number_that_is_counted_on_from_has_a_limit() {
    type Make = fn(u64) -> VersionEdit;
    const FILE: u64 = FILE_NUMBER_MAX;
    const SEQNO: u64 = SEQNO_ON_DISK_MAX;
    const RANGE: u64 = RANGE_ID_MAX as u64;
    fn added(change: impl FnOnce(&mut TableMeta), seqno: Option<Seqno>) -> VersionEdit {
        let mut meta = slice(7, b"a", b"b", 100).meta().clone();
        change(Arc::make_mut(&mut meta.table));
        meta.seqno = seqno;
        let added = vec![(RangeId(1), Place::L0, meta)];
        VersionEdit { added, ..VersionEdit::default() }
    }
    fn empty() -> VersionEdit {
        VersionEdit::default()
    }
    let numbers: [(Make, u64); 15] = [
        (|n| VersionEdit { log_floor: Some(FileNumber(n)), ..empty() }, FILE),
        (|n| VersionEdit { next_file_number: Some(FileNumber(n)), ..empty() }, FILE),
        (|n| VersionEdit { newest_segment: Some(FileNumber(n)), ..empty() }, FILE),
        (|n| added(|table| table.number = FileNumber(n), None), FILE),
        (
            |n| {
                let name = SliceName { table: FileNumber(n), min_key: Bytes::new() };
                VersionEdit { deleted: vec![(RangeId(1), Place::L0, name)], ..empty() }
            },
            FILE,
        ),
        (|n| VersionEdit { last_seqno: Some(Seqno(n)), ..empty() }, SEQNO),
        (|n| VersionEdit { log_synced: Some(Seqno(n)), ..empty() }, SEQNO),
        (|n| VersionEdit { log_unbegun: Some(Seqno(n)), ..empty() }, SEQNO),
        (|n| VersionEdit { flushed: vec![(RangeId(1), Seqno(n))], ..empty() }, SEQNO),
        (|n| added(|_| (), Some(Seqno(n))), SEQNO),
        (|n| added(|table| table.min_seqno = Seqno(n), None), SEQNO),
        (|n| added(|table| table.max_seqno = Seqno(n), None), SEQNO),
        (|n| VersionEdit { ranges_removed: vec![RangeId(n as u32)], ..empty() }, RANGE),
        (|n| VersionEdit { flushed: vec![(RangeId(n as u32), Seqno(1))], ..empty() }, RANGE),
        (
            |n| {
                let (span, shards) = (Span::all(), Shards::one());
                let range =
                    NewRange { id: RangeId(n as u32), keyspace: KeyspaceId::DEFAULT, span, shards };
                VersionEdit { ranges_added: vec![range], ..empty() }
            },
            RANGE,
        ),
    ];
    for (at, (make, max)) in numbers.into_iter().enumerate() {
        for number in [max, max + 1, u64::MAX] {
            let mut bytes = Vec::new();
            make(number).encode(&mut bytes);
            let decoded = VersionEdit::decode(&bytes);
            assert_eq!(decoded.is_ok(), number == max, "number {at}, {number}: {decoded:?}");
        }
    }
}

#[test]
fn unknown_fields_are_refused_when_odd_and_skipped_when_even() {
    let edit = VersionEdit {
        added: vec![(RangeId(1), Place::L0, slice(7, b"a", b"b", 100).meta().clone())],
        ..VersionEdit::default()
    };
    let mut bytes = Vec::new();
    put_varint(&mut bytes, 100);
    put_length_prefixed(&mut bytes, b"from the future");
    edit.encode(&mut bytes);
    assert_eq!(VersionEdit::decode(&bytes), Ok(edit));
    put_varint(&mut bytes, 101);
    put_length_prefixed(&mut bytes, b"must understand");
    let Err(EditError::Unsupported { what }) = VersionEdit::decode(&bytes) else { panic!() };
    assert!(what.starts_with("field 101, "), "{what}");
}

/// Planted: an option of a later version taken for damage.
#[test]
fn an_option_of_a_later_build_is_no_damage() {
    let options = Arc::new(KeyspaceOptions { shards: Some(4), ..KeyspaceOptions::default() });
    let keyspace = Keyspace { name: "own".into(), options };
    let set =
        VersionEdit { keyspaces_set: vec![(KeyspaceId(7), keyspace)], ..VersionEdit::default() };
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    // The last two are the tag and the value of the only option.
    let end = bytes.len() - 2;
    for (option, named) in [([10, 1], "a keyspace with option 10, "), ([1, 99], "compression 99, ")]
    {
        bytes[end..].copy_from_slice(&option);
        let Err(EditError::Unsupported { what }) = VersionEdit::decode(&bytes) else { panic!() };
        assert!(what.contains(named), "{what}");
    }
    bytes[end..].copy_from_slice(&[3, 0]);
    assert!(matches!(VersionEdit::decode(&bytes), Err(EditError::Malformed { .. })));
}
