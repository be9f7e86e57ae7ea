//! One record of the log: its header, its checksum, its part of the rolling digest.
//!
//! The caller computes the payload's checksum outside the writer's combining lock. The record's
//! checksum covers the payload's checksum and the header, so only 24 bytes are checksummed under
//! the lock. The payload's checksum comes first. Otherwise eight header bytes could be followed by
//! the checksum of eight equal payload bytes, and if all of these turned into zeros together, the
//! result would be the same. A record is valid at one offset of one segment of one database, and
//! nowhere else.
//!
//! Pure functions over bytes: no file, no state.

use super::LogIdentity;
use crate::change::ChangeId;
use crate::codec::{Decoder, crc, crc_seeded};
use crate::filename::FileNumber;
use crate::key::Seqno;

/// `codec::crc` of an empty payload.
pub(super) const PAYLOAD_CRC_NONE: u32 = 0;
/// Length of a record's header in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 24;
/// Every record starts at a multiple of this.
pub(super) const ALIGN: u64 = 8;

/// Record types. 0 is never valid, so zeros mark the end. A reader must stop with an error at a
/// valid record whose type it does not know.
pub(super) mod kind {
    /// The operations of one batch.
    pub(in crate::wal) const BATCH: u8 = 1;
    /// The last record of a log that was closed in order.
    pub(in crate::wal) const CLOSE_MARK: u8 = 2;
    /// No payload: it only confirms, by its `synced_to`. Its sequence number is the next one to be
    /// stamped.
    pub(in crate::wal) const WATERMARK: u8 = 3;
    /// The first record of a segment: what it continues.
    pub(in crate::wal) const BEGIN: u8 = 4;
    /// The last record of a segment: the segment that continues it.
    pub(in crate::wal) const CONTINUED: u8 = 5;
    /// A change of routes or contents that took effect here: its id.
    pub(in crate::wal) const CHANGE: u8 = 6;
}

/// A decoded header that no checksum has verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Length of the payload in bytes.
    pub(super) len: u32,
    /// The offset in this segment that was known to be durable when the record was encoded; a
    /// multiple of 8.
    pub(super) synced_to: u64,
    /// One of `kind`.
    pub(super) kind: u8,
    /// Bits that change the meaning of the record. None is defined yet.
    pub(super) flags: u8,
    pub(super) first_seqno: Seqno,
}

/// The part of every checksum that is the same in a whole segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordSeed {
    base: u32,
    number_lo: u16,
}

impl RecordSeed {
    pub(super) fn new(identity: &LogIdentity, number: FileNumber) -> Self {
        let base = crc_seeded(crc(&identity.db_id), &number.0.to_le_bytes());
        Self { base, number_lo: number.0 as u16 }
    }

    /// The seed for a record at `offset`. Multiplication by an odd number maps different offsets to
    /// different seeds, and different seeds give equal bytes different checksums. So a record that
    /// was copied within its segment never passes.
    #[inline]
    fn at(self, offset: u64) -> u32 {
        debug_assert!(offset.is_multiple_of(ALIGN));
        self.base ^ ((offset / ALIGN) as u32).wrapping_mul(0x9E37_79B1)
    }
}

/// Bytes that a record with a payload of `payload_len` bytes takes in a segment.
#[inline]
pub(super) const fn record_bytes(payload_len: usize) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_len as u64).next_multiple_of(ALIGN)
}

/// Encodes a header for `offset`. Also returns the record's checksum, for the digest.
#[inline]
pub(super) fn encode(
    seed: RecordSeed,
    offset: u64,
    header: &RecordHeader,
    payload_crc: u32,
) -> ([u8; RECORD_HEADER_BYTES], u32) {
    let mut bytes = [0_u8; RECORD_HEADER_BYTES];
    bytes[4..8].copy_from_slice(&header.len.to_le_bytes());
    bytes[8..12].copy_from_slice(&((header.synced_to / ALIGN) as u32).to_le_bytes());
    bytes[12..14].copy_from_slice(&seed.number_lo.to_le_bytes());
    bytes[14] = header.kind;
    bytes[15] = header.flags;
    bytes[16..24].copy_from_slice(&header.first_seqno.0.to_le_bytes());
    let crc = checksum(seed, offset, &bytes, payload_crc);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    (bytes, crc)
}

/// The checksum of the record at `offset` whose header is `bytes`.
#[inline]
fn checksum(
    seed: RecordSeed,
    offset: u64,
    bytes: &[u8; RECORD_HEADER_BYTES],
    payload_crc: u32,
) -> u32 {
    let mut covered = [0_u8; RECORD_HEADER_BYTES];
    covered[..4].copy_from_slice(&payload_crc.to_le_bytes());
    covered[4..].copy_from_slice(&bytes[4..]);
    crc_seeded(seed.at(offset), &covered)
}

/// Decodes a header that may belong to this segment: it has the segment's number and is not zero
/// fill. The caller must still `verify` it.
#[inline]
pub(super) fn decode(seed: RecordSeed, bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<RecordHeader> {
    let mut reader = Decoder::new(&bytes[4..]);
    let len = reader.u32()?;
    let synced_to = u64::from(reader.u32()?) * ALIGN;
    let number_lo = reader.u16()?;
    let kind = reader.u8()?;
    let flags = reader.u8()?;
    let first_seqno = Seqno(reader.u64()?);
    (number_lo == seed.number_lo && kind != 0).then_some(RecordHeader {
        len,
        synced_to,
        kind,
        flags,
        first_seqno,
    })
}

/// Verifies that `bytes`, the whole record with padding, was encoded for `offset`. Returns the
/// record's checksum if so.
pub(super) fn verify(seed: RecordSeed, offset: u64, len: usize, bytes: &[u8]) -> Option<u32> {
    let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
    let (payload, padding) = bytes.get(RECORD_HEADER_BYTES..)?.split_at_checked(len)?;
    verify_header(seed, offset, header, crc(payload)).filter(|_| is_padding(padding))
}

/// Verifies that `header` was encoded for `offset` with a payload that has this checksum. Returns
/// the record's checksum if so.
pub(super) fn verify_header(
    seed: RecordSeed,
    offset: u64,
    header: &[u8; RECORD_HEADER_BYTES],
    payload_crc: u32,
) -> Option<u32> {
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (checksum(seed, offset, header, payload_crc) == stored).then_some(stored)
}

/// Is this valid padding after a payload?
pub(super) fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Length of the payload of a change.
pub const CHANGE_BYTES: usize = 8;

/// The payload of a change.
pub(super) fn encode_change(id: ChangeId) -> [u8; CHANGE_BYTES] {
    id.0.to_le_bytes()
}

/// Decodes the payload of a change; `None` if its length is wrong.
pub(super) fn decode_change(payload: &[u8]) -> Option<ChangeId> {
    Some(ChangeId(u64::from_le_bytes(payload.try_into().ok()?)))
}

/// The rolling digest of a segment after one more record.
#[inline]
pub(super) fn roll(digest: u64, record_crc: u32) -> u64 {
    (digest ^ u64::from(record_crc)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The rolling digest of a segment without records.
pub(super) const DIGEST_START: u64 = 0x51_0CE0_6106;

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: LogIdentity = LogIdentity { db_id: [7; 16] };

    fn sample() -> RecordHeader {
        RecordHeader { len: 5, synced_to: 4096, kind: kind::BATCH, flags: 0, first_seqno: Seqno(9) }
    }

    fn record(seed: RecordSeed, offset: u64) -> Vec<u8> {
        let (head, _) = encode(seed, offset, &sample(), crc(b"hello"));
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(b"hello\0\0\0");
        bytes
    }

    #[test]
    fn a_record_is_valid_only_where_it_was_encoded() {
        let seed = RecordSeed::new(&IDENTITY, FileNumber(3));
        let bytes = record(seed, 8192);
        assert_eq!(decode(seed, bytes.first_chunk().unwrap()), Some(sample()));
        assert!(verify(seed, 8192, 5, &bytes).is_some());
        for offset in (4096..16384).step_by(8).filter(|&o| o != 8192) {
            assert_eq!(verify(seed, offset, 5, &bytes), None, "offset {offset}");
        }
        let other_log = RecordSeed::new(&IDENTITY, FileNumber(3 + (1 << 16)));
        assert_eq!(verify(other_log, 8192, 5, &bytes), None);
        let other_db = RecordSeed::new(&LogIdentity { db_id: [8; 16] }, FileNumber(3));
        assert_eq!(verify(other_db, 8192, 5, &bytes), None);
    }

    /// Found by the sweep of power cuts, when the payload's checksum came last: a `continued`
    /// record that named segment 2 and had sequence number 2, torn at its number, was valid with
    /// zeros for both.
    #[test]
    fn a_payload_that_is_the_records_own_number_does_not_hide_that_both_are_torn() {
        let seed = RecordSeed::new(&IDENTITY, FileNumber(3));
        for number in [1_u64, 2, 255, 256, 1 << 24, (1 << 40) + 7] {
            for kind in [kind::CONTINUED, kind::CHANGE] {
                let payload = number.to_le_bytes();
                let first_seqno = Seqno(number);
                let header = RecordHeader { len: 8, synced_to: 0, kind, flags: 0, first_seqno };
                let (head, _) = encode(seed, 4152, &header, crc(&payload));
                let whole = [head.as_slice(), &payload].concat();
                assert!(verify(seed, 4152, 8, &whole).is_some());
                for torn in (0..whole.len()).filter(|&at| whole[at..].iter().any(|&b| b != 0)) {
                    let mut bytes = whole.clone();
                    bytes[torn..].fill(0);
                    assert_eq!(verify(seed, 4152, 8, &bytes), None, "{number} torn at {torn}");
                }
            }
        }
    }

    #[test]
    fn every_bit_counts() {
        let seed = RecordSeed::new(&IDENTITY, FileNumber(3));
        let bytes = record(seed, 4096);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let accepted = decode(seed, flipped.first_chunk().unwrap())
                .is_some_and(|h| verify(seed, 4096, h.len as usize, &flipped).is_some());
            assert!(!accepted, "bit {bit}");
        }
    }
}
