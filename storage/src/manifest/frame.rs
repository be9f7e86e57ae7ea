//! The manifest's header and records: encoding, and parsing that trusts nothing.

use super::FORMAT_VERSION;
use crate::codec::{Decoder, PrefixCrcs, crc, crc_between, crc_seeded};
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use std::path::Path;

pub(super) const HEADER_BYTES: usize = 72;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const HEADER_CRC_AT: usize = 68;
const MAGIC: [u8; 8] = *b"SLUICEMF";
/// Features that change the meaning of bytes. None exists yet.
const INCOMPATIBLE_KNOWN: u64 = 0;
/// Features that a writer must maintain. None exists yet.
const READ_ONLY_KNOWN: u64 = 0;

/// The manifest that a record belongs to: part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) db_id: [u8; 16],
    pub(super) number: FileNumber,
}

impl Identity {
    fn seed(&self, offset: u64) -> u32 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.db_id);
        bytes[16..24].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[24..].copy_from_slice(&offset.to_le_bytes());
        crc(&bytes)
    }
}

pub(super) fn encode_header(identity: &Identity) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[40..56].copy_from_slice(&identity.db_id);
    out[56..64].copy_from_slice(&identity.number.0.to_le_bytes());
    let sum = crc(&out[..HEADER_CRC_AT]);
    out[HEADER_CRC_AT..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Decodes the header of the manifest `number`. Returns its identity, and whether this build may
/// write to it.
pub(super) fn decode_header(
    path: &Path,
    number: FileNumber,
    bytes: &[u8],
) -> Result<(Identity, bool)> {
    let cut = || Error::corrupt(path, bytes.len() as u64, "the file ends within its header");
    let header = bytes.get(..HEADER_BYTES).ok_or_else(cut)?;
    if header[..8] != MAGIC {
        return Err(Error::corrupt(path, 0, "expected the magic of a manifest, found other bytes"));
    }
    let found = crc(&header[..HEADER_CRC_AT]);
    if Decoder::new(&header[HEADER_CRC_AT..]).u32() != Some(found) {
        let what = format!("header checksum mismatch: computed {found:#010x}");
        return Err(Error::corrupt(path, HEADER_CRC_AT as u64, what));
    }
    let word = |at: usize| Decoder::new(&header[at..]).u64().expect("inside the header");
    let format = u16::from_le_bytes([header[8], header[9]]);
    let unsupported = |what| Err(Error::Unsupported { path: path.to_owned(), what });
    if format != FORMAT_VERSION {
        let what = format!("format version {format}, this build knows {FORMAT_VERSION}");
        return unsupported(what);
    }
    let unknown = word(16) & !INCOMPATIBLE_KNOWN;
    if unknown != 0 {
        return unsupported(format!("needs features {unknown:#x}, which this build does not have"));
    }
    let db_id = header[40..56].try_into().expect("16 bytes");
    if word(56) != number.0 {
        let what = format!("expected manifest {number}, found {}", FileNumber(word(56)));
        return Err(Error::corrupt(path, 56, what));
    }
    Ok((Identity { db_id, number }, word(24) & !READ_ONLY_KNOWN == 0))
}

/// The type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordType {
    Snapshot = 1,
    Edit = 2,
}

/// Appends a record at file offset `offset`.
pub(super) fn encode_record(
    out: &mut Vec<u8>,
    identity: &Identity,
    offset: u64,
    record_type: RecordType,
    synced_to: u64,
    payload: &[u8],
) -> Result<()> {
    let Ok(length) = u32::try_from(payload.len()) else {
        return Err(Error::invalid(format!("an edit of {} bytes is too large", payload.len())));
    };
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[record_type as u8, 0, 0, 0]);
    out.extend_from_slice(&(identity.number.0 as u32).to_le_bytes());
    out.extend_from_slice(&synced_to.to_le_bytes());
    out.extend_from_slice(payload);
    let sum = crc_seeded(identity.seed(offset), &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// A record with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: u8,
    pub(super) synced_to: u64,
    pub(super) payload: &'a [u8],
    /// The offset after it.
    pub(super) end: u64,
}

/// Parses the record at `offset` of the whole file `bytes`. The error says why there is none.
pub(super) fn parse_record<'a>(
    identity: &Identity,
    bytes: &'a [u8],
    offset: usize,
) -> Result<Record<'a>, &'static str> {
    let mut reader = Decoder::new(bytes.get(offset..).unwrap_or(&[]));
    let header = (reader.u32(), reader.u32(), reader.u32(), reader.u32(), reader.u64());
    let (Some(want), Some(length), Some(kind), Some(number), Some(synced_to)) = header else {
        return Err("the file ends within a record header");
    };
    let Some(payload) = reader.take(length as usize) else {
        return Err("a record runs over the end of the file");
    };
    let end = offset + RECORD_HEADER_BYTES + payload.len();
    if crc_seeded(identity.seed(offset as u64), &bytes[offset + 4..end]) != want {
        return Err("record checksum mismatch");
    }
    let reserved = kind >> 8 != 0 || number != identity.number.0 as u32;
    if reserved || synced_to > offset as u64 {
        return Err("record header contradicts itself");
    }
    Ok(Record { kind: kind as u8, synced_to, payload, end: end as u64 })
}

/// The offset of a valid record after `offset` that says the file was durable beyond `offset`.
///
/// A torn edit may have keys that look like many long records. So each candidate costs the same,
/// whatever length it claims.
pub(super) fn find_witness(identity: &Identity, bytes: &[u8], offset: usize) -> Option<usize> {
    let number = (identity.number.0 as u32).to_le_bytes();
    let last = bytes.len().checked_sub(RECORD_HEADER_BYTES)?;
    let mut prefixes = None;
    (offset + 1..=last).find(|&at| {
        let header = &bytes[at..at + RECORD_HEADER_BYTES];
        if !matches!(header[8..12], [1 | 2, 0, 0, 0]) || header[12..16] != number {
            return false;
        }
        let mut reader = Decoder::new(header);
        let fields = (reader.u32(), reader.u32(), reader.u64(), reader.u64());
        let (Some(want), Some(length), Some(_), Some(synced_to)) = fields else { return false };
        let end = at + RECORD_HEADER_BYTES + length as usize;
        if end > bytes.len() || synced_to <= offset as u64 || synced_to > at as u64 {
            return false;
        }
        let prefixes = prefixes.get_or_insert_with(|| {
            let mut prefixes = PrefixCrcs::new(bytes.len() as u64);
            prefixes.append(bytes);
            prefixes
        });
        let upto = |end: usize| {
            let mark = prefixes.mark_before(end as u64) as usize;
            prefixes.upto(end as u64, &bytes[mark..end])
        };
        let covered = at + 4;
        let seed = identity.seed(at as u64);
        crc_between(seed, upto(covered), upto(end), (end - covered) as u64) == want
    })
}
