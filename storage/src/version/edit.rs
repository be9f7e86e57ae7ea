//! A change of the tree, and its bytes.
//!
//! ```text
//! edit  := field*
//! field := tag varint | length varint | payload
//! ```
//! A reader that does not know a tag refuses the manifest when the tag is odd ("must understand")
//! and steps over the field when it is even. Fields are written in the order of their tags.

use super::RangeId;
use crate::codec::{Reader, put_length_prefixed, put_varint};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::limits::{FILE_NUMBER_MAX, KEY_BYTES_MAX, LEVELS_MAX, SEQNO_ON_DISK_MAX};
use crate::table::TableMeta;
use bytes::Bytes;

const RANGE_REMOVED: u64 = 1;
const RANGE_ADDED: u64 = 3;
const TABLE_DELETED: u64 = 5;
const TABLE_ADDED: u64 = 7;
const FLUSHED: u64 = 9;
const LOG_FLOOR: u64 = 11;
const NEXT_FILE_NUMBER: u64 = 13;
const LAST_SEQNO: u64 = 15;
const CLEAN_CLOSE: u64 = 17;
const NEWEST_SEGMENT: u64 = 19;

/// One change of the tree: durable as a whole or not at all. Empty fields change nothing.
///
/// Deletions come before additions, so that a table can move by being deleted and added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    /// Ranges that no longer route keys; their tables must have been deleted or moved.
    pub ranges_removed: Vec<RangeId>,
    /// New ranges and their spans.
    pub ranges_added: Vec<(RangeId, Span)>,
    /// Tables that leave a level.
    pub deleted: Vec<(RangeId, u8, FileNumber)>,
    /// Tables that join a level.
    pub added: Vec<(RangeId, u8, TableMeta)>,
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
        for (range, span) in &self.ranges_added {
            put(RANGE_ADDED, &|f| {
                put_varint(f, u64::from(range.0));
                put_length_prefixed(f, &span.lo);
                f.push(u8::from(span.hi.is_some()));
                if let Some(hi) = &span.hi {
                    put_length_prefixed(f, hi);
                }
            });
        }
        for (range, level, number) in &self.deleted {
            put(TABLE_DELETED, &|f| {
                put_varint(f, u64::from(range.0));
                f.push(*level);
                put_varint(f, number.0);
            });
        }
        for (range, level, meta) in &self.added {
            put(TABLE_ADDED, &|f| {
                put_varint(f, u64::from(range.0));
                f.push(*level);
                put_meta(f, meta);
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
    }

    /// Reads what `encode` wrote. Allocates no more than a small multiple of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EditError> {
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
                TABLE_DELETED => edit.read_deleted(&mut field).err_name("table deletion"),
                TABLE_ADDED => edit.read_added(&mut field).err_name("table"),
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
        let range = read_range(field)?;
        let lo = read_bound(field)?;
        let hi = match field.u8()? {
            0 => None,
            1 => Some(read_bound(field)?),
            _ => return None,
        };
        self.ranges_added.push((range, Span { lo, hi }));
        Some(())
    }

    fn read_deleted(&mut self, field: &mut Reader<'_>) -> Option<()> {
        let (range, level) = (read_range(field)?, read_level(field)?);
        self.deleted.push((range, level, read_number(field)?));
        Some(())
    }

    fn read_added(&mut self, field: &mut Reader<'_>) -> Option<()> {
        let (range, level) = (read_range(field)?, read_level(field)?);
        self.added.push((range, level, read_meta(field)?));
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
    u32::try_from(field.varint()?).ok().map(RangeId)
}

fn read_level(field: &mut Reader<'_>) -> Option<u8> {
    field.u8().filter(|level| usize::from(*level) <= LEVELS_MAX)
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
    use super::super::testing::meta;
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn edits() -> impl Strategy<Value = VersionEdit> {
        let id = || any::<u32>().prop_map(RangeId);
        let level = || 0_u8..=LEVELS_MAX as u8;
        let number = || (0..=FILE_NUMBER_MAX).prop_map(FileNumber);
        let seqno = || (0..=SEQNO_ON_DISK_MAX).prop_map(Seqno);
        let span = (key(), proptest::option::of(key())).prop_map(|(lo, hi)| Span { lo, hi });
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
        let some = |n| 0..n;
        (
            proptest::collection::vec(id(), some(3)),
            proptest::collection::vec((id(), span), some(3)),
            proptest::collection::vec((id(), level(), number()), some(4)),
            proptest::collection::vec((id(), level(), table), some(4)),
            proptest::collection::vec((id(), seqno()), some(3)),
            proptest::option::of(number()),
            proptest::option::of(number()),
            proptest::option::of(seqno()),
            any::<bool>(),
            proptest::option::of(number()),
        )
            .prop_map(|t| VersionEdit {
                ranges_removed: t.0,
                ranges_added: t.1,
                deleted: t.2,
                added: t.3,
                flushed: t.4,
                log_floor: t.5,
                next_file_number: t.6,
                last_seqno: t.7,
                clean_close: t.8,
                newest_segment: t.9,
            })
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
    fn unknown_fields_are_refused_when_odd_and_skipped_when_even() {
        let edit = VersionEdit {
            added: vec![(RangeId(1), 0, meta(7, b"a", b"b", 100))],
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
