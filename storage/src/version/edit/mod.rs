//! A version edit, and its encoding.
//!
//! ```text
//! edit  := field*
//! field := tag varint | length varint | payload
//! ```
//! A reader that does not know a tag refuses the manifest if the tag is odd ("must understand"),
//! and skips the field if it is even. Fields are written in the order of their tags; a reader
//! accepts any order.
//!
//! Long because what writes a field and what reads it belong together, and there are many fields.

mod slice;
#[cfg(test)]
mod tests;

use super::keyspace_options::OptionsError;
use super::keyspaces::KEYSPACE_NAME_BYTES_MAX;
use super::{
    ChangeId, Keyspace, KeyspaceOptions, Keyspaces, Place, RangeId, RangeVersion, Shards,
    SliceMeta, SliceName,
};
use crate::codec::{Decoder, put_length_prefixed, put_varint};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::limits::{FILE_NUMBER_MAX, KEY_BYTES_MAX, RANGE_ID_MAX, SEQNO_ON_DISK_MAX, SHARDS_MAX};
use bytes::Bytes;
use slice::{put_slice, read_slice};
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
const LOG_SYNCED: u64 = 20;
const PREPARED: u64 = 21;
const LOG_UNBEGUN: u64 = 22;
const SETTLED: u64 = 23;
const ABANDONED: u64 = 25;
const SHARDS_MOVED: u64 = 27;
const SETTLED_AT: u64 = 29;
const EXCISED: u64 = 31;
const MASKED: u64 = 33;
const KEYSPACE_SET: u64 = 35;
const KEYSPACE_REMOVED: u64 = 37;

/// A new range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRange {
    /// Its identity.
    pub id: RangeId,
    /// The keyspace of its keys.
    pub keyspace: KeyspaceId,
    /// The keys routed to it.
    pub span: Span,
    /// The bounds between its shards.
    pub shards: Shards,
}

impl NewRange {
    /// The range, without tables.
    pub(super) fn into_empty(self, keyspaces: &Keyspaces) -> RangeVersion {
        let Self { id, keyspace, span, shards } = self;
        let own = Arc::clone(keyspaces.options(keyspace));
        RangeVersion { keyspace, own, ..RangeVersion::empty(id, span, shards) }
    }
}

/// One change of the tree. It is durable as a whole or not at all. Empty fields change nothing.
///
/// Deletions apply before additions, so a slice moves by being deleted and added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionEdit {
    /// Ranges that no longer exist. The edit must delete all their slices.
    pub ranges_removed: Vec<RangeId>,
    /// New ranges.
    pub ranges_added: Vec<NewRange>,
    /// Slices that are removed from their place.
    pub deleted: Vec<(RangeId, Place, SliceName)>,
    /// Slices that are added to a place.
    pub added: Vec<(RangeId, Place, SliceMeta)>,
    /// All entries of the range up to this number are in its tables from now on.
    pub flushed: Vec<(RangeId, Seqno)>,
    /// The lowest log segment that recovery needs from now on.
    pub log_floor: Option<FileNumber>,
    /// Above every file number in use.
    pub next_file_number: Option<FileNumber>,
    /// The largest sequence number known to be stamped.
    pub last_seqno: Option<Seqno>,
    /// A clean close: everything is in tables and the log is not needed. Any later edit revokes it.
    pub clean_close: bool,
    /// The newest log segment in use. Its file exists as long as the log floor is not above it.
    pub newest_segment: Option<FileNumber>,
    /// The log is durable up to this number. It may be left out, and skipped by who does not know
    /// it; so may the next field. Nothing else may.
    pub log_synced: Option<Seqno>,
    /// The first number in the segment of `log_floor`, if its beginning may be missing after a
    /// power cut: unless the log is durable up to this number. Counts only together with
    /// `log_floor`.
    pub log_unbegun: Option<Seqno>,
    /// Changes, each with the edit that takes effect if the log stamps it.
    pub prepared: Vec<(ChangeId, VersionEdit)>,
    /// Prepared changes that the log has stamped with this number, so they have happened.
    pub settled: Vec<(ChangeId, Seqno)>,
    /// Prepared changes that the log never stamped. They never happen.
    pub abandoned: Vec<ChangeId>,
    /// Ranges whose shard bounds move.
    pub shards_moved: Vec<(RangeId, Shards)>,
    /// Spans that a prepared change excises. Entries in memory and in the log are excised as well:
    /// they are masked when the change has a number. The spans are ascending, disjoint and not
    /// empty.
    pub excised: Vec<KeyspaceSpan>,
    /// Log entries of these spans with sequence numbers below the given one are excised.
    pub masked: Vec<(KeyspaceSpan, Seqno)>,
    /// New keyspaces, whose ranges must be added by the same edit; or existing keyspaces with the
    /// same name and new options.
    pub keyspaces_set: Vec<(KeyspaceId, Keyspace)>,
    /// Keyspaces that are dropped. The edit must remove all their ranges.
    pub keyspaces_removed: Vec<KeyspaceId>,
}

/// Why the bytes of an edit are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EditError {
    /// They violate the format at this offset.
    Malformed { at: usize, what: &'static str },
    /// They have what this build does not know but must understand: a phrase for "an edit has ...".
    Unsupported { what: String },
}

impl VersionEdit {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Does it change the set of ranges or keyspaces, or options of a keyspace?
    pub fn changes_routes(&self) -> bool {
        !(self.ranges_removed.is_empty() && self.ranges_added.is_empty())
            || self.changes_keyspaces()
    }

    /// Does it change the set of keyspaces, or options of one?
    pub(super) fn changes_keyspaces(&self) -> bool {
        !(self.keyspaces_set.is_empty() && self.keyspaces_removed.is_empty())
    }

    /// Appends the encoding.
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
        if let Some(seqno) = self.log_synced {
            put(LOG_SYNCED, &|f| put_varint(f, seqno.0));
        }
        for (id, edit) in &self.prepared {
            put(PREPARED, &|f| {
                put_varint(f, id.0);
                edit.encode(f);
            });
        }
        if let Some(seqno) = self.log_unbegun {
            put(LOG_UNBEGUN, &|f| put_varint(f, seqno.0));
        }
        for id in &self.abandoned {
            put(ABANDONED, &|f| put_varint(f, id.0));
        }
        for (range, shards) in &self.shards_moved {
            put(SHARDS_MOVED, &|f| {
                put_varint(f, u64::from(range.0));
                put_shards(f, shards);
            });
        }
        for (id, seqno) in &self.settled {
            put(SETTLED_AT, &|f| {
                put_varint(f, id.0);
                put_varint(f, seqno.0);
            });
        }
        for KeyspaceSpan { keyspace, span } in &self.excised {
            put(EXCISED, &|f| {
                put_span(f, span);
                put_keyspace(f, *keyspace);
            });
        }
        for (KeyspaceSpan { keyspace, span }, seqno) in &self.masked {
            put(MASKED, &|f| {
                put_span(f, span);
                put_varint(f, seqno.0);
                put_keyspace(f, *keyspace);
            });
        }
        for (id, Keyspace { name, options }) in &self.keyspaces_set {
            put(KEYSPACE_SET, &|f| {
                put_varint(f, u64::from(id.0));
                put_length_prefixed(f, name.as_bytes());
                options.encode(f);
            });
        }
        for id in &self.keyspaces_removed {
            put(KEYSPACE_REMOVED, &|f| put_varint(f, u64::from(id.0)));
        }
    }

    /// Reads what `encode` wrote. Allocates no more than a small multiple of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EditError> {
        Self::decode_within(bytes, false)
    }

    /// `decode`. If `is_prepared`, the edit belongs to a change and must not prepare another.
    fn decode_within(bytes: &[u8], is_prepared: bool) -> Result<Self, EditError> {
        let mut edit = Self::default();
        let mut reader = Decoder::new(bytes);
        while !reader.is_empty() {
            let at = reader.position();
            let malformed = |what| EditError::Malformed { at, what };
            let tag = reader.varint().ok_or(malformed("cut field tag"))?;
            let payload = reader.length_prefixed().ok_or(malformed("field runs over the end"))?;
            let mut field = Decoder::new(payload);
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
                LOG_SYNCED => {
                    edit.log_synced = read_seqno(&mut field);
                    edit.log_synced.map(drop).err_name("synced seqno")
                }
                LOG_UNBEGUN => {
                    edit.log_unbegun = read_seqno(&mut field);
                    edit.log_unbegun.map(drop).err_name("first seqno of the log")
                }
                PREPARED if !is_prepared => {
                    let id = ChangeId(field.varint().ok_or(malformed("prepared change"))?);
                    let start = reader.position() - field.remaining();
                    let inner = field.take(field.remaining()).unwrap_or_default();
                    let inner = Self::decode_within(inner, true).map_err(|error| match error {
                        EditError::Malformed { at, what } => {
                            EditError::Malformed { at: start + at, what }
                        }
                        unsupported @ EditError::Unsupported { .. } => unsupported,
                    })?;
                    edit.prepared.push((id, inner));
                    Ok(())
                }
                // Only changes of routes were settled by this tag, and those do not need their
                // number.
                SETTLED if !is_prepared => {
                    let id = field.varint().map(ChangeId);
                    id.map(|id| edit.settled.push((id, Seqno::ZERO))).err_name("settled change")
                }
                SETTLED_AT if !is_prepared => {
                    edit.read_settled_at(&mut field).err_name("settled change")
                }
                EXCISED => edit.read_excised(&mut field).err_name("excised span"),
                MASKED if !is_prepared => edit.read_masked(&mut field).err_name("mask"),
                ABANDONED if !is_prepared => {
                    let id = field.varint().map(ChangeId);
                    id.map(|id| edit.abandoned.push(id)).err_name("abandoned change")
                }
                SHARDS_MOVED => edit.read_shards_moved(&mut field).err_name("shard bounds"),
                KEYSPACE_SET => match edit.read_keyspace_set(&mut field) {
                    Err(OptionsError::Unsupported(what)) => {
                        let what = format!("a keyspace with {what}");
                        return Err(EditError::Unsupported { what });
                    }
                    read => read.ok().err_name("keyspace"),
                },
                KEYSPACE_REMOVED => {
                    let id = read_keyspace_id(&mut field);
                    id.map(|id| edit.keyspaces_removed.push(id)).err_name("keyspace removal")
                }
                PREPARED | SETTLED | SETTLED_AT | ABANDONED | MASKED => {
                    Err("a change inside a change")
                }
                odd if odd % 2 == 1 => {
                    let what = format!("field {tag}, which this build does not know");
                    return Err(EditError::Unsupported { what });
                }
                _ => continue,
            };
            what.map_err(malformed)?;
            if !field.is_empty() {
                return Err(malformed("bytes after the end of a field"));
            }
        }
        Ok(edit)
    }

    fn read_range_removed(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        self.ranges_removed.push(read_range(field)?);
        Some(())
    }

    fn read_range_added(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        let id = read_range(field)?;
        let span = read_span(field)?;
        let shards = read_shards(field, &span)?;
        // A keyspace has the number of its first range. So a new keyspace never gets a number
        // again.
        let keyspace = read_keyspace(field).filter(|keyspace| keyspace.0 <= id.0)?;
        self.ranges_added.push(NewRange { id, keyspace, span, shards });
        Some(())
    }

    fn read_keyspace_set(&mut self, field: &mut Decoder<'_>) -> Result<(), OptionsError> {
        let id = read_keyspace_id(field).ok_or(OptionsError::Malformed)?;
        let name = field.length_prefixed().filter(|name| name.len() <= KEYSPACE_NAME_BYTES_MAX);
        let name =
            name.and_then(|name| std::str::from_utf8(name).ok()).ok_or(OptionsError::Malformed)?;
        let options = Arc::new(KeyspaceOptions::decode(field)?);
        self.keyspaces_set.push((id, Keyspace { name: name.into(), options }));
        Ok(())
    }

    fn read_settled_at(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        self.settled.push((ChangeId(field.varint()?), read_seqno(field)?));
        Some(())
    }

    /// The spans must ascend: tables are cut at their ends in one pass.
    fn read_excised(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        let span = read_span(field).filter(|span| !span.is_empty())?;
        let keyspace = read_keyspace(field)?;
        let comes_after = |last: &KeyspaceSpan| {
            last.keyspace < keyspace
                || last.keyspace == keyspace
                    && last.span.hi.as_ref().is_some_and(|hi| *hi <= span.lo)
        };
        let is_next = self.excised.last().is_none_or(comes_after);
        is_next.then(|| self.excised.push(KeyspaceSpan { keyspace, span }))
    }

    fn read_masked(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        let span = read_span(field).filter(|span| !span.is_empty())?;
        let seqno = read_seqno(field)?;
        self.masked.push((KeyspaceSpan { keyspace: read_keyspace(field)?, span }, seqno));
        Some(())
    }

    fn read_shards_moved(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        // Applying the edit checks that the bounds lie in the range.
        self.shards_moved.push((read_range(field)?, read_shards(field, &Span::all())?));
        Some(())
    }

    fn read_deleted(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        let (range, place) = (read_range(field)?, Place::read(field)?);
        let name = SliceName { table: read_number(field)?, min_key: read_bound(field)? };
        self.deleted.push((range, place, name));
        Some(())
    }

    fn read_added(&mut self, field: &mut Decoder<'_>) -> Option<()> {
        let (range, place) = (read_range(field)?, Place::read(field)?);
        self.added.push((range, place, read_slice(field)?));
        Some(())
    }

    fn read_flushed(&mut self, field: &mut Decoder<'_>) -> Option<()> {
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

fn read_range(field: &mut Decoder<'_>) -> Option<RangeId> {
    let id = u32::try_from(field.varint()?).ok()?;
    (id <= RANGE_ID_MAX).then_some(RangeId(id))
}

/// Must be the last part of a field: the default keyspace is written as no byte.
fn put_keyspace(out: &mut Vec<u8>, keyspace: KeyspaceId) {
    if !keyspace.is_default() {
        put_varint(out, u64::from(keyspace.0));
    }
}

fn read_keyspace(field: &mut Decoder<'_>) -> Option<KeyspaceId> {
    if field.is_empty() { Some(KeyspaceId::DEFAULT) } else { read_keyspace_id(field) }
}

/// The number of a named keyspace. It is the number of its first range.
fn read_keyspace_id(field: &mut Decoder<'_>) -> Option<KeyspaceId> {
    read_range(field).map(|range| KeyspaceId(range.0)).filter(|id| !id.is_default())
}

fn read_seqno(field: &mut Decoder<'_>) -> Option<Seqno> {
    field.varint().filter(|seqno| *seqno <= SEQNO_ON_DISK_MAX).map(Seqno)
}

fn read_number(field: &mut Decoder<'_>) -> Option<FileNumber> {
    field.varint().filter(|number| *number <= FILE_NUMBER_MAX).map(FileNumber)
}

fn read_bound(field: &mut Decoder<'_>) -> Option<Bytes> {
    let key = field.length_prefixed()?;
    // A bound may be the successor of the longest key, which is one byte longer.
    (key.len() <= KEY_BYTES_MAX + 1).then(|| Bytes::copy_from_slice(key))
}

fn put_range(out: &mut Vec<u8>, range: &NewRange) {
    put_varint(out, u64::from(range.id.0));
    put_span(out, &range.span);
    put_shards(out, &range.shards);
    put_keyspace(out, range.keyspace);
}

fn put_span(out: &mut Vec<u8>, span: &Span) {
    put_length_prefixed(out, &span.lo);
    out.push(u8::from(span.hi.is_some()));
    if let Some(hi) = &span.hi {
        put_length_prefixed(out, hi);
    }
}

fn read_span(field: &mut Decoder<'_>) -> Option<Span> {
    let lo = read_bound(field)?;
    let hi = match field.u8()? {
        0 => None,
        1 => Some(read_bound(field)?),
        _ => return None,
    };
    Some(Span { lo, hi })
}

fn put_shards(out: &mut Vec<u8>, shards: &Shards) {
    put_varint(out, shards.bounds().len() as u64);
    for bound in shards.bounds() {
        put_length_prefixed(out, bound);
    }
}

fn read_shards(field: &mut Decoder<'_>, span: &Span) -> Option<Shards> {
    let count = field.varint().filter(|count| *count < SHARDS_MAX as u64)?;
    let bounds = (0..count).map(|_| read_bound(field)).collect::<Option<Vec<_>>>()?;
    Shards::at(span, bounds)
}
