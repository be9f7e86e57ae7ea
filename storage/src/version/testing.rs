//! Versions without files, for tests of structure and policy.

use super::{Graveyard, L0, Level, RangeId, RangeVersion, TableHandle, Version};
use crate::filename::FileNumber;
use crate::key::{Seqno, Span};
use crate::table::TableMeta;
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
    }
}

/// An unopened table whose sequence numbers follow from its number.
pub(crate) fn handle(number: u64, min: &[u8], max: &[u8], bytes: u64) -> Arc<TableHandle> {
    TableHandle::unopened(meta(number, min, max, bytes), Graveyard::new())
}

pub(crate) fn handle_at(
    number: u64,
    min: &[u8],
    max: &[u8],
    bytes: u64,
    seqnos: RangeInclusive<u64>,
) -> Arc<TableHandle> {
    let mut meta = meta(number, min, max, bytes);
    (meta.min_seqno, meta.max_seqno) = (Seqno(*seqnos.start()), Seqno(*seqnos.end()));
    TableHandle::unopened(meta, Graveyard::new())
}

/// One range over everything, no tables.
pub(crate) fn empty_version(graveyard: Arc<Graveyard>) -> Version {
    Version::new(vec![Arc::new(RangeVersion::empty(RangeId::FIRST, Span::all()))], graveyard)
}

/// One range over everything.
pub(crate) fn version_of(l0: Vec<Arc<TableHandle>>, levels: Vec<Vec<Arc<TableHandle>>>) -> Version {
    let mut range = RangeVersion::empty(RangeId::FIRST, Span::all());
    range.l0 = L0::new(l0);
    range.levels = levels.into_iter().map(Level::new).collect();
    Version::new(vec![Arc::new(range)], Graveyard::new())
}
