//! Versions without files, for tests of structure and policy.

use super::{
    ObsoleteFiles, Place, RangeId, RangeVersion, Shards, Slice, SliceMeta, TableHandle, TablePart,
    Version,
};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::table::{KeySketch, TableMeta};
use bytes::Bytes;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(crate) fn meta(number: u64, min: &[u8], max: &[u8], bytes: u64) -> TableMeta {
    TableMeta {
        number: FileNumber(number),
        unique_id: [number as u8; 16],
        file_bytes: bytes,
        raw_bytes: bytes,
        entries: bytes.div_ceil(100).max(1),
        tombstones: 0,
        min_key: Bytes::copy_from_slice(min),
        max_key: Bytes::copy_from_slice(max),
        min_seqno: Seqno(number * 10),
        max_seqno: Seqno(number * 10 + 9),
        created_at_ms: 0,
        keys: KeySketch::default(),
    }
}

/// A whole unopened table. Its sequence numbers are derived from its number.
pub(crate) fn slice(number: u64, min: &[u8], max: &[u8], bytes: u64) -> Slice {
    slice_of(meta(number, min, max, bytes))
}

pub(crate) fn slice_at(
    number: u64,
    min: &[u8],
    max: &[u8],
    bytes: u64,
    seqnos: RangeInclusive<u64>,
) -> Slice {
    let mut meta = meta(number, min, max, bytes);
    (meta.min_seqno, meta.max_seqno) = (Seqno(*seqnos.start()), Seqno(*seqnos.end()));
    slice_of(meta)
}

fn slice_of(meta: TableMeta) -> Slice {
    Slice::whole(&TableHandle::unopened(Arc::new(meta), ObsoleteFiles::new()))
}

/// A part of an unopened table, from `min` to `max`.
pub(crate) fn part_of(handle: &Arc<TableHandle>, min: &[u8], max: &[u8]) -> Slice {
    let table = Arc::clone(handle.meta());
    let part = TablePart {
        min_key: Bytes::copy_from_slice(min),
        max_key: Bytes::copy_from_slice(max),
        file_bytes: table.file_bytes / 2,
        entries: table.entries.div_ceil(2),
        tombstones: table.tombstones / 2,
    };
    let meta = SliceMeta { table, part: Some(Arc::new(part)), seqno: None, landed: None };
    Slice::new(meta, Arc::clone(handle))
}

/// One range over everything, without tables.
pub(crate) fn empty_version(obsolete_files: Arc<ObsoleteFiles>) -> Version {
    let range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
    Version::new(vec![Arc::new(range)], obsolete_files)
}

/// One range over everything.
pub(crate) fn version_of(l0: Vec<Slice>, levels: Vec<Vec<Slice>>) -> Version {
    let mut range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
    range.layers = range.layers.with(Place::L0, l0);
    for (slices, level) in levels.into_iter().zip(1..) {
        range.layers = range.layers.with(Place::Main(level), slices);
    }
    Version::new(vec![Arc::new(range)], ObsoleteFiles::new())
}
