//! A change of the tree, and its bytes.
//!
//! ```text
//! edit  := field*
//! field := tag varint | length varint | payload
//! ```
//! A reader that does not know a tag refuses the manifest when the tag is odd ("must understand")
//! and steps over the field when it is even. Fields are written in the order of their tags.

use super::{ChangeId, Part, Place, RangeId, RangeVersion, Shards, SliceMeta, SliceName};
use crate::codec::{Reader, put_length_prefixed, put_varint};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::limits::{FILE_NUMBER_MAX, KEY_BYTES_MAX, RANGE_ID_MAX, SEQNO_ON_DISK_MAX, SHARDS_MAX};
use crate::table::TableMeta;
use bytes::Bytes;
use std::sync::Arc;

const RANGE_REMOVED: u64 = 1;
const RANGE_ADDED: u64 = 3;
const SLICE_DELETED: u64 = 5;
const SLICE_ADDED: u64 = 7;
const FLUSHED: u64 = 9;
const LOG_FLOOR: u64 = 11;
const NEXT_FILE_NUMBER: u64 = 13;
const LAST_SEQNO: u64 = 15;
const CLEAN_CLOSE: u64 = 17;
const NEWEST_SEGMENT: u64 = 19;
const PREPARED: u64 = 21;
const SETTLED: u64 = 23;
const ABANDONED: u64 = 25;

/// A slice is a part of its table.
const IS_PART: u8 = 1;
/// A slice's entries have another sequence number than its table says.
const HAS_SEQNO: u8 = 2;

/// A range that begins to route keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRange {
    /// Its name.
    pub id: RangeId,
    /// The keys routed to it.
    pub span: Span,
    /// Where its flushes cut their tables.
    pub shards: Shards,
}

impl NewRange {
    /// The range, without tables.
    pub(super) fn into_empty(self) -> RangeVersion {
        RangeVersion::empty(self.id, self.span, self.shards)
    }
}

/// One change of the tree: durable as a whole or not at all. Empty fields change nothing.
///
/// Deletions come before additions, so that a slice can move by being deleted and added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    /// Ranges that no longer route keys; their slices must have been deleted.
    pub ranges_removed: Vec<RangeId>,
    /// New ranges.
    pub ranges_added: Vec<NewRange>,
    /// Slices that leave their place.
    pub deleted: Vec<(RangeId, Place, SliceName)>,
    /// Slices that get a place.
    pub added: Vec<(RangeId, Place, SliceMeta)>,
    /// Up to where the entries of a range are in its tables from now on.
    pub flushed: Vec<(RangeId, Seqno)>,
    /// The lowest log segment that recovery needs from now on.
    pub log_floor: Option<FileNumber>,
    /// A number above every file number in use.
    pub next_file_number: Option<FileNumber>,
    /// The highest sequence number known to be stamped.
    pub last_seqno: Option<Seqno>,
    /// Everything is in tables and nothing follows; any later edit takes it back.
    pub clean_close: bool,
    /// The newest log segment in use; its file is there for as long as the log floor is not above it.
    pub newest_segment: Option<FileNumber>,
    /// Changes that will happen if the log stamps them, with what they do then.
    pub prepared: Vec<(ChangeId, VersionEdit)>,
    /// Prepared changes that the log has stamped: they have happened.
    pub settled: Vec<ChangeId>,
    /// Prepared changes that the log never stamped: they never happen.
    pub abandoned: Vec<ChangeId>,
}

/// Why the bytes of an edit were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditError {
    /// They contradict the format at this offset.
    Malformed { at: usize, what: &'static str },
    /// They have a field that this build must understand and does not.
    Unknown { tag: u64 },
}

impl VersionEdit {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut field = Vec::new();
        let mut put = |tag: u64, fill: &dyn Fn(&mut Vec<u8>)| {
            field.clear();
            fill(&mut field);
            put_varint(out, tag);
            put_length_prefixed(out, &field);
        };
        for range in &self.ranges_removed {
            put(RANGE_REMOVED, &|f| put_varint(f, u64::from(range.0)));
        }
        for range in &self.ranges_added {
            put(RANGE_ADDED, &|f| put_range(f, range));
        }
        for (range, place, name) in &self.deleted {
            put(SLICE_DELETED, &|f| {
                put_varint(f, u64::from(range.0));
                place.put(f);
                put_varint(f, name.table.0);
                put_length_prefixed(f, &name.min_key);
            });
        }
        for (range, place, slice) in &self.added {
            put(SLICE_ADDED, &|f| {
                put_varint(f, u64::from(range.0));
                place.put(f);
                put_slice(f, slice);
            });
        }
        for (range, seqno) in &self.flushed {
            put(FLUSHED, &|f| {
                put_varint(f, u64::from(range.0));
                put_varint(f, seqno.0);
            });
        }
        if let Some(number) = self.log_floor {
            put(LOG_FLOOR, &|f| put_varint(f, number.0));
        }
        if let Some(number) = self.next_file_number {
            put(NEXT_FILE_NUMBER, &|f| put_varint(f, number.0));
        }
        if let Some(seqno) = self.last_seqno {
            put(LAST_SEQNO, &|f| put_varint(f, seqno.0));
        }
        if self.clean_close {
            put(CLEAN_CLOSE, &|_| {});
        }
        if let Some(number) = self.newest_segment {
            put(NEWEST_SEGMENT, &|f| put_varint(f, number.0));
        }
        for (id, edit) in &self.prepared {
            put(PREPARED, &|f| {
                put_varint(f, id.0);
                edit.encode(f);
            });
        }
        for id in &self.settled {
            put(SETTLED, &|f| put_varint(f, id.0));
        }
        for id in &self.abandoned {
            put(ABANDONED, &|f| put_varint(f, id.0));
        }
    }

    /// Reads what `encode` wrote. Allocates no more than a small multiple of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EditError> {
        Self::decode_within(bytes, false)
    }

    /// `decode`; what is prepared prepares nothing itself.
    fn decode_within(bytes: &[u8], is_prepared: bool) -> Result<Self, EditError> {
        let mut edit = Self::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let at = reader.position();
            let malformed = |what| EditError::Malformed { at, what };
            let tag = reader.varint().ok_or(malformed("cut field tag"))?;
            let payload = reader.length_prefixed().ok_or(malformed("field runs over the end"))?;
            let mut field = Reader::new(payload);
            let what = match tag {
                RANGE_REMOVED => edit.read_range_removed(&mut field).err_name("range removal"),
                RANGE_ADDED => edit.read_range_added(&mut field).err_name("range"),
                SLICE_DELETED => edit.read_deleted(&mut field).err_name("slice deletion"),
                SLICE_ADDED => edit.read_added(&mut field).err_name("slice"),
                FLUSHED => edit.read_flushed(&mut field).err_name("flushed seqno"),
                LOG_FLOOR => {
                    edit.log_floor = read_number(&mut field);
                    edit.log_floor.map(drop).err_name("log floor")
                }
                NEXT_FILE_NUMBER => {
                    edit.next_file_number = read_number(&mut field);
                    edit.next_file_number.map(drop).err_name("next file number")
                }
                LAST_SEQNO => {
                    edit.last_seqno = read_seqno(&mut field);
                    edit.last_seqno.map(drop).err_name("last seqno")
                }
                CLEAN_CLOSE => {
                    edit.clean_close = true;
                    Ok(())
                }
                NEWEST_SEGMENT => {
                    edit.newest_segment = read_number(&mut field);
                    edit.newest_segment.map(drop).err_name("newest log segment")
                }
                PREPARED if !is_prepared => {
                    let id = ChangeId(field.varint().ok_or(malformed("prepared change"))?);
                    let start = reader.position() - field.remaining();
                    let inner = field.take(field.remaining()).unwrap_or_default();
                    let inner = Self::decode_within(inner, true).map_err(|error| match error {
                        EditError::Malformed { at, what } => {
                            EditError::Malformed { at: start + at, what }
                        }
                        unknown @ EditError::Unknown { .. } => unknown,
                    })?;
                    edit.prepared.push((id, inner));
                    Ok(())
                }
                SETTLED if !is_prepared => {
                    let id = field.varint().map(ChangeId);
                    id.map(|id| edit.settled.push(id)).err_name("settled change")
                }
                ABANDONED if !is_prepared => {
                    let id = field.varint().map(ChangeId);
                    id.map(|id| edit.abandoned.push(id)).err_name("abandoned change")
                }
                PREPARED | SETTLED | ABANDONED => Err("a change inside a change"),
                odd if odd % 2 == 1 => return Err(EditError::Unknown { tag }),
                _ => continue,
            };
            what.map_err(malformed)?;
            if !field.is_empty() {
                return Err(malformed("bytes after the end of a field"));
            }
        }
        Ok(edit)
    }

    fn read_range_removed(&mut self, field: &mut Reader<'_>) -> Option<()> {
        self.ranges_removed.push(read_range(field)?);
        Some(())
    }

    fn read_range_added(&mut self, field: &mut Reader<'_>) -> Option<()> {
        let id = read_range(field)?;
        let lo = read_bound(field)?;
        let hi = match field.u8()? {
            0 => None,
            1 => Some(read_bound(field)?),
            _ => return None,
        };
        let span = Span { lo, hi };
        let count = field.varint().filter(|count| *count < SHARDS_MAX as u64)?;
        let bounds = (0..count).map(|_| read_bound(field)).collect::<Option<Vec<_>>>()?;
        let shards = Shards::at(&span, bounds)?;
        self.ranges_added.push(NewRange { id, span, shards });
        Some(())
    }

    fn read_deleted(&mut self, field: &mut Reader<'_>) -> Option<()> {
        let (range, place) = (read_range(field)?, Place::read(field)?);
        let name = SliceName { table: read_number(field)?, min_key: read_bound(field)? };
        self.deleted.push((range, place, name));
        Some(())
    }

    fn read_added(&mut self, field: &mut Reader<'_>) -> Option<()> {
        let (range, place) = (read_range(field)?, Place::read(field)?);
        self.added.push((range, place, read_slice(field)?));
        Some(())
    }

    fn read_flushed(&mut self, field: &mut Reader<'_>) -> Option<()> {
        self.flushed.push((read_range(field)?, read_seqno(field)?));
        Some(())
    }
}

trait ErrName {
    fn err_name(self, what: &'static str) -> Result<(), &'static str>;
}

impl ErrName for Option<()> {
    fn err_name(self, what: &'static str) -> Result<(), &'static str> {
        self.ok_or(what)
    }
}

fn read_range(field: &mut Reader<'_>) -> Option<RangeId> {
    let id = u32::try_from(field.varint()?).ok()?;
    (id <= RANGE_ID_MAX).then_some(RangeId(id))
}

fn read_seqno(field: &mut Reader<'_>) -> Option<Seqno> {
    field.varint().filter(|seqno| *seqno <= SEQNO_ON_DISK_MAX).map(Seqno)
}

fn read_number(field: &mut Reader<'_>) -> Option<FileNumber> {
    field.varint().filter(|number| *number <= FILE_NUMBER_MAX).map(FileNumber)
}

fn read_bound(field: &mut Reader<'_>) -> Option<Bytes> {
    let key = field.length_prefixed()?;
    // A bound may be the successor of the longest key, which is one byte longer.
    (key.len() <= KEY_BYTES_MAX + 1).then(|| Bytes::copy_from_slice(key))
}

fn put_range(out: &mut Vec<u8>, range: &NewRange) {
    put_varint(out, u64::from(range.id.0));
    put_length_prefixed(out, &range.span.lo);
    out.push(u8::from(range.span.hi.is_some()));
    if let Some(hi) = &range.span.hi {
        put_length_prefixed(out, hi);
    }
    put_varint(out, range.shards.bounds().len() as u64);
    for bound in range.shards.bounds() {
        put_length_prefixed(out, bound);
    }
}

fn put_slice(out: &mut Vec<u8>, slice: &SliceMeta) {
    put_meta(out, &slice.table);
    let is_part = if slice.part.is_some() { IS_PART } else { 0 };
    let has_seqno = if slice.seqno.is_some() { HAS_SEQNO } else { 0 };
    out.push(is_part | has_seqno);
    if let Some(part) = &slice.part {
        put_length_prefixed(out, &part.min_key);
        put_length_prefixed(out, &part.max_key);
        put_varint(out, part.file_bytes);
        put_varint(out, part.entries);
        put_varint(out, part.tombstones);
    }
    if let Some(seqno) = slice.seqno {
        put_varint(out, seqno.0);
    }
}

fn read_slice(field: &mut Reader<'_>) -> Option<SliceMeta> {
    let table = Arc::new(read_meta(field)?);
    let flags = field.u8().filter(|flags| flags & !(IS_PART | HAS_SEQNO) == 0)?;
    let mut slice = SliceMeta { table, part: None, seqno: None };
    if flags & IS_PART != 0 {
        slice.part = Some(Arc::new(Part {
            min_key: read_bound(field)?,
            max_key: read_bound(field)?,
            file_bytes: field.varint()?,
            entries: field.varint()?,
            tombstones: field.varint()?,
        }));
    }
    if flags & HAS_SEQNO != 0 {
        slice.seqno = Some(read_seqno(field)?);
    }
    Some(slice)
}

fn put_meta(out: &mut Vec<u8>, meta: &TableMeta) {
    put_varint(out, meta.number.0);
    out.extend_from_slice(&meta.unique_id);
    put_varint(out, meta.file_bytes);
    put_varint(out, meta.raw_bytes);
    put_varint(out, meta.entries);
    put_varint(out, meta.tombstones);
    put_length_prefixed(out, &meta.min_key);
    put_length_prefixed(out, &meta.max_key);
    put_varint(out, meta.min_seqno.0);
    put_varint(out, meta.max_seqno.0);
}

fn read_meta(field: &mut Reader<'_>) -> Option<TableMeta> {
    Some(TableMeta {
        number: read_number(field)?,
        unique_id: field.take(16)?.try_into().ok()?,
        file_bytes: field.varint()?,
        raw_bytes: field.varint()?,
        entries: field.varint()?,
        tombstones: field.varint()?,
        min_key: read_bound(field)?,
        max_key: read_bound(field)?,
        min_seqno: read_seqno(field)?,
        max_seqno: read_seqno(field)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::slice;
    use super::*;
    use crate::limits::LEVELS_MAX;
    use proptest::prelude::*;

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
        let range = (id(), key(), proptest::option::of(key()), 1_usize..6).prop_map(
            |(id, lo, hi, count)| {
                let span = Span { lo, hi };
                let shards = Shards::of(&span, count);
                NewRange { id, span, shards }
            },
        );
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
            });
        let part = (key(), key(), any::<[u64; 3]>()).prop_map(|(min_key, max_key, n)| {
            Arc::new(Part { min_key, max_key, file_bytes: n[0], entries: n[1], tombstones: n[2] })
        });
        let slice = (table, proptest::option::of(part), proptest::option::of(seqno()));
        let slice = slice.prop_map(|(table, part, seqno)| SliceMeta {
            table: Arc::new(table),
            part,
            seqno,
        });
        let some = |n| 0..n;
        let change = || any::<u64>().prop_map(ChangeId);
        let counters = (
            proptest::option::of(number()),
            proptest::option::of(number()),
            proptest::option::of(seqno()),
            any::<bool>(),
            proptest::option::of(number()),
        );
        (
            proptest::collection::vec(id(), some(3)),
            proptest::collection::vec(range, some(3)),
            proptest::collection::vec((id(), place(), name), some(4)),
            proptest::collection::vec((id(), place(), slice), some(4)),
            proptest::collection::vec((id(), seqno()), some(3)),
            counters,
            proptest::collection::vec(change(), some(3)),
            proptest::collection::vec(change(), some(3)),
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
                settled: t.6,
                abandoned: t.7,
                prepared: Vec::new(),
            })
    }

    /// As `plain_edits`, some of them with what they prepare.
    fn edits() -> impl Strategy<Value = VersionEdit> {
        let prepared = plain_edits().prop_map(|mut edit| {
            edit.settled.clear();
            edit.abandoned.clear();
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
        fn a_cut_edit_is_malformed_or_an_edit_of_fewer_fields(edit in edits(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            edit.encode(&mut bytes);
            prop_assume!(!bytes.is_empty());
            let cut = cut.index(bytes.len());
            prop_assert_ne!(VersionEdit::decode(&bytes[..cut]), Ok(edit));
        }
    }

    #[test]
    fn what_is_prepared_prepares_nothing_itself() {
        let inner = VersionEdit { settled: vec![ChangeId(1)], ..VersionEdit::default() };
        let edit = VersionEdit { prepared: vec![(ChangeId(2), inner)], ..VersionEdit::default() };
        let mut bytes = Vec::new();
        edit.encode(&mut bytes);
        let refused = VersionEdit::decode(&bytes).unwrap_err();
        assert!(matches!(refused, EditError::Malformed { at: 3, .. }), "{refused:?}");
    }

    /// Planted: no limit for one of them.
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
        let numbers: [(Make, u64); 13] = [
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
            (|n| VersionEdit { flushed: vec![(RangeId(1), Seqno(n))], ..empty() }, SEQNO),
            (|n| added(|_| (), Some(Seqno(n))), SEQNO),
            (|n| added(|table| table.min_seqno = Seqno(n), None), SEQNO),
            (|n| added(|table| table.max_seqno = Seqno(n), None), SEQNO),
            (|n| VersionEdit { ranges_removed: vec![RangeId(n as u32)], ..empty() }, RANGE),
            (|n| VersionEdit { flushed: vec![(RangeId(n as u32), Seqno(1))], ..empty() }, RANGE),
            (
                |n| {
                    let (span, shards) = (Span::all(), Shards::one());
                    let range = NewRange { id: RangeId(n as u32), span, shards };
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
        assert_eq!(VersionEdit::decode(&bytes), Err(EditError::Unknown { tag: 101 }));
    }
}
