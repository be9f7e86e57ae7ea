//! The two records that chain segments. The first record of a segment describes its predecessor;
//! the last record names its successor.
//!
//! ```text
//! begin      payload: none (the log begins here), or 40 bytes about the segment before:
//!            number u64 | final_length u64 | synced_length u64 | last_seqno u64 | digest u64
//! continued  payload: number u64 of the next segment
//! ```
//! The file and the name of the next segment are durable before `continued` can be written. So a
//! log whose last file is missing shows that by itself.

use super::{Link, Predecessor};
use crate::codec::Decoder;
use crate::filename::FileNumber;
use crate::key::Seqno;

/// Length of the longest payload of a begin record.
pub(super) const BEGIN_PAYLOAD_BYTES_MAX: usize = 40;
/// Length of the payload of a `continued` record.
pub(super) const CONTINUED_BYTES: usize = 8;

/// The payload of a begin record.
pub(super) fn encode_begin(predecessor: Predecessor) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Predecessor::Follows(link) = predecessor {
        let Link { number, final_length, synced_length, last_seqno, digest } = link;
        for field in [number.0, final_length, synced_length, last_seqno.0, digest] {
            payload.extend_from_slice(&field.to_le_bytes());
        }
    }
    payload
}

/// Decodes the payload of a begin record of segment `number`; `None` if it is not valid there.
pub(super) fn decode_begin(payload: &[u8], number: FileNumber) -> Option<Predecessor> {
    if payload.is_empty() {
        return Some(Predecessor::Barrier);
    }
    let mut reader = Decoder::new(payload);
    let link = Link {
        number: FileNumber(reader.u64()?),
        final_length: reader.u64()?,
        synced_length: reader.u64()?,
        last_seqno: Seqno(reader.u64()?),
        digest: reader.u64()?,
    };
    (reader.is_empty() && link.number < number).then_some(Predecessor::Follows(link))
}

/// Decodes the payload of a `continued` record of segment `number`; `None` if it is not valid
/// there.
pub(super) fn decode_continued(payload: &[u8], number: FileNumber) -> Option<FileNumber> {
    let next = FileNumber(u64::from_le_bytes(payload.try_into().ok()?));
    (next > number).then_some(next)
}
