//! The encoding of a slice and of its table's metadata.

use super::super::{Landed, SliceMeta, TablePart};
use super::{read_bound, read_number, read_seqno};
use crate::codec::{Decoder, put_length_prefixed, put_varint};
use crate::table::{KeySketch, TableMeta};
use std::sync::Arc;

/// The slice is a part of its table.
const IS_PART: u8 = 1;
/// The slice's entries have another sequence number than its table records.
const HAS_SEQNO: u8 = 2;
/// The slice is in a landing.
const HAS_LANDED: u8 = 4;

pub(super) fn put_slice(out: &mut Vec<u8>, slice: &SliceMeta) {
    put_meta(out, &slice.table);
    let is_part = if slice.part.is_some() { IS_PART } else { 0 };
    let has_seqno = if slice.seqno.is_some() { HAS_SEQNO } else { 0 };
    let has_landed = if slice.landed.is_some() { HAS_LANDED } else { 0 };
    out.push(is_part | has_seqno | has_landed);
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
    if let Some(Landed { epoch, at_ms }) = slice.landed {
        put_varint(out, epoch);
        put_varint(out, at_ms);
    }
}

pub(super) fn read_slice(field: &mut Decoder<'_>) -> Option<SliceMeta> {
    let table = Arc::new(read_meta(field)?);
    let known = IS_PART | HAS_SEQNO | HAS_LANDED;
    let flags = field.u8().filter(|flags| flags & !known == 0)?;
    let mut slice = SliceMeta { table, part: None, seqno: None, landed: None };
    if flags & IS_PART != 0 {
        slice.part = Some(Arc::new(TablePart {
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
    if flags & HAS_LANDED != 0 {
        slice.landed = Some(Landed { epoch: field.varint()?, at_ms: field.varint()? });
    }
    Some(slice)
}

pub(super) fn put_meta(out: &mut Vec<u8>, meta: &TableMeta) {
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
    put_varint(out, meta.created_at_ms);
    out.extend_from_slice(meta.keys.encode());
}

pub(super) fn read_meta(field: &mut Decoder<'_>) -> Option<TableMeta> {
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
        created_at_ms: field.varint()?,
        keys: KeySketch::decode(field.take(KeySketch::ENCODED_BYTES)?)?,
    })
}
