use super::*;
use crate::version::Landed;
use crate::version::testing::slice;

fn routes(split_keys: &[Bytes]) -> Version {
    let image = Image::of_new_database(FileNumber(1), split_keys, 4);
    let none = |_: &Arc<TableMeta>| -> Result<_, Conflict> { unreachable!("there are no tables") };
    image.to_version(ObsoleteFiles::new(), none).unwrap()
}

/// Planted: the largest epoch of 64 bits is accepted; the next one would wrap.
#[test]
fn c7_a_landing_cannot_have_had_more_tables_than_there_were() {
    let found = |epoch| {
        let mut image = Image::of_new_database(FileNumber(9), &[], 1);
        (image.last_seqno, image.next_file_number) = (Seqno(99), FileNumber(9));
        let landed = Some(Landed { epoch, at_ms: 5 });
        let slice = SliceMeta { landed, ..slice(1, b"a", b"b", 10).meta().clone() };
        let range = RangeId::FIRST;
        image.ranges.get_mut(&range).unwrap().flushed = Seqno(99);
        image.slices.insert((range, Place::Landing(1, 0), slice.name()), slice);
        image.contradictions().len()
    };
    for (epoch, want) in
        [(1, 0), (COUNTERS_AT_OPEN_MAX, 0), (COUNTERS_AT_OPEN_MAX + 1, 1), (u64::MAX, 1)]
    {
        assert_eq!(found(epoch), want, "{epoch}");
    }
}

/// One range per key, whose span contains the key. At a boundary, the range that starts there.
#[test]
fn t002_12_routes_have_no_gap_and_no_overlap_and_are_found_at_each_boundary() {
    for count in [0_u16, 1, 2, 3, 7, 255] {
        let split_keys: Vec<Bytes> =
            (1..=count).map(|n| Bytes::copy_from_slice(&(n * 200).to_be_bytes())).collect();
        let version = routes(&split_keys);
        super::super::check::ranges_cover_everything(&version).unwrap();
        let ranges = version.ranges();
        assert_eq!(ranges.len(), usize::from(count) + 1);
        assert!(ranges[0].span.lo.is_empty(), "the first range begins before every key");
        assert_eq!(ranges[ranges.len() - 1].span.hi, None, "the last one takes all above");
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].span.hi.as_ref(), Some(&pair[1].span.lo));
            assert!(pair[0].id < pair[1].id);
        }
        let mut probes = vec![Bytes::from_static(b"\0"), Bytes::from_static(&[0xFF; 9])];
        for key in &split_keys {
            let (mut below, mut above) = (key.to_vec(), key.to_vec());
            let number = u16::from_be_bytes([key[0], key[1]]) - 1;
            below[..2].copy_from_slice(&number.to_be_bytes());
            below.push(0xFF);
            above.push(0);
            probes.extend([Bytes::from(below), key.clone(), Bytes::from(above)]);
        }
        for key in probes {
            let inside: Vec<_> =
                (0..ranges.len()).filter(|at| ranges[*at].span.contains(&key)).collect();
            let found = version.route_index(KeyspaceId::DEFAULT, &key);
            assert_eq!(inside, [found.unwrap()], "{key:?} of {count}");
        }
    }
}

#[test]
fn a_manifest_of_many_ranges_is_read_back() {
    let split_keys: Vec<Bytes> = (1..=255_u8).map(|n| Bytes::from(vec![n; 1000])).collect();
    let image = Image::of_new_database(FileNumber(2), &split_keys, 4);
    let mut copy = Image::default();
    copy.apply(&image.to_edit()).unwrap();
    assert_eq!(copy, image);
}

/// The edit that replaces the only range by one with a new identity and the same slices.
fn renaming(image: &Image, to: u32) -> VersionEdit {
    let (id, range) = image.ranges.first_key_value().unwrap();
    let slices = || image.slices.iter();
    VersionEdit {
        ranges_removed: vec![*id],
        ranges_added: vec![range.as_new(RangeId(to))],
        deleted: slices().map(|(key, _)| key.clone()).collect(),
        added: slices().map(|((_, p, _), s)| (RangeId(to), *p, s.clone())).collect(),
        flushed: vec![(RangeId(to), range.flushed)],
        ..VersionEdit::default()
    }
}

#[test]
fn a_prepared_change_happens_when_it_is_settled_and_never_when_it_is_abandoned() {
    let mut image = Image::of_new_database(FileNumber(9), &[], 4);
    let slice = super::super::testing::slice(3, b"a", b"c", 10).meta().clone();
    let filled = VersionEdit {
        added: vec![(RangeId(1), Place::Main(1), slice)],
        flushed: vec![(RangeId(1), Seqno(39))],
        last_seqno: Some(Seqno(50)),
        ..VersionEdit::default()
    };
    image.apply(&filled).unwrap();
    let id = ChangeId(5);
    let prepared = vec![(id, renaming(&image, 2))];
    let prepare = VersionEdit { prepared, ..VersionEdit::default() };
    let settle = VersionEdit { settled: vec![(id, Seqno(1))], ..VersionEdit::default() };
    let abandon = VersionEdit { abandoned: vec![id], ..VersionEdit::default() };
    for edit in [&settle, &abandon] {
        let refused = image.clone().apply(edit).unwrap_err();
        assert_eq!(refused.rule, "prepared-needs-its-record");
    }
    let before = image.clone();
    image.apply(&prepare).unwrap();
    assert_eq!((&image.ranges, &image.slices), (&before.ranges, &before.slices));
    let mut again = Image::default();
    again.apply(&image.to_edit()).unwrap();
    assert_eq!(again, image, "a snapshot keeps what is prepared");
    assert!(image.clone().apply(&prepare).is_err(), "twice");

    let mut never = image.clone();
    never.apply(&abandon).unwrap();
    assert_eq!(never, before);
    image.apply(&settle).unwrap();
    assert!(image.prepared.is_empty());
    assert_eq!(image.ranges.keys().collect::<Vec<_>>(), [&RangeId(2)]);
    assert_eq!(image.ranges[&RangeId(2)].flushed, Seqno(39));
    assert!(image.slices.keys().all(|(range, _, _)| *range == RangeId(2)));
}

#[test]
fn a_change_that_cannot_be_applied_is_refused_as_a_whole() {
    let mut image = Image::of_new_database(FileNumber(9), &[], 4);
    let id = ChangeId(5);
    let prepared = vec![(id, renaming(&image, 2))];
    image.apply(&VersionEdit { prepared, ..VersionEdit::default() }).unwrap();
    let edit = renaming(&image, 3);
    image.apply(&edit).unwrap();
    let before = image.clone();
    let settle = VersionEdit { settled: vec![(id, Seqno(1))], ..VersionEdit::default() };
    assert_eq!(image.apply(&settle).unwrap_err().rule, "ranges-cover-everything");
    assert_eq!(image, before);
}
