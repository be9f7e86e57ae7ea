//! The header page of a segment: who it is and what it continues.
//!
//! ```text
//!    0  magic "SLUICEWL"
//!    8  format u16 | zeros to 16
//!   16  incompat u64 | ro_compat u64 | compat u64      feature bits
//!   40  db_id 16 bytes
//!   56  log number u64
//!   64  first_seqno u64
//!   72  segment length u64
//!   80  predecessor kind u8 (1 barrier, 2 follows) | zeros to 88
//!   88  number u64 | final_length u64 | synced_length u64 | last_seqno u64 | digest u64
//!  128  zeros
//! 4092  crc u32 over bytes 0..4092
//! ```
//! The checksum is not seeded: the page itself says whose it is, so that a file of another database
//! can be named as such. Magic, format and checksum keep their places in every future format.

use super::{Link, LogIdentity, Predecessor};
use crate::codec::{Reader, crc};
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use crate::key::Seqno;
use std::path::Path;

/// Length of the header page; the first record starts here.
pub(super) const HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"SLUICEWL";
const FORMAT: u16 = 1;
/// Features that a reader must know. None yet.
const INCOMPAT_KNOWN: u64 = 0;
/// Features that a writer must know. None yet; and replaying always leads to writing.
const RO_COMPAT_KNOWN: u64 = 0;
const CRC_AT: usize = HEADER_BYTES - 4;
const BARRIER: u8 = 1;
const FOLLOWS: u8 = 2;

/// What a segment's header page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: LogIdentity,
    pub(super) number: FileNumber,
    pub(super) first_seqno: Seqno,
    /// Length of the file.
    pub(super) bytes: u64,
    pub(super) predecessor: Predecessor,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.resize(16, 0);
        for features in [0_u64, 0, 0] {
            page.extend_from_slice(&features.to_le_bytes());
        }
        page.extend_from_slice(&self.identity.db_id);
        for field in [self.number.0, self.first_seqno.0, self.bytes] {
            page.extend_from_slice(&field.to_le_bytes());
        }
        match self.predecessor {
            Predecessor::Barrier => page.push(BARRIER),
            Predecessor::Follows(link) => {
                page.push(FOLLOWS);
                page.resize(88, 0);
                let Link { number, final_length, synced_length, last_seqno, digest } = link;
                for field in [number.0, final_length, synced_length, last_seqno.0, digest] {
                    page.extend_from_slice(&field.to_le_bytes());
                }
            }
        }
        page.resize(CRC_AT, 0);
        let crc = crc(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(page.len(), HEADER_BYTES, "the page is full");
        page
    }

    /// Reads the page of the segment `number` at `path`. `None`: there is no valid header, because
    /// none was ever written (a spare), or not entirely, or because it is damaged.
    ///
    /// # Errors
    /// `Unsupported` for an intact page of another format; `Corrupt` for an intact page that belongs
    /// elsewhere.
    pub(super) fn decode(
        page: &[u8],
        path: &Path,
        identity: &LogIdentity,
        number: FileNumber,
    ) -> Result<Option<Self>> {
        let (Some(body), Some(stored)) = (page.get(..CRC_AT), page.get(CRC_AT..HEADER_BYTES))
        else {
            return Ok(None);
        };
        if body[..8] != MAGIC || crc(body).to_le_bytes() != stored {
            return Ok(None);
        }
        let unsupported = |what: String| Err(Error::Unsupported { path: path.to_owned(), what });
        let format = u16::from_le_bytes([body[8], body[9]]);
        if format != FORMAT {
            return unsupported(format!(
                "the log segment has format {format}; this build reads format {FORMAT}"
            ));
        }
        let Some(fields) = Fields::read(body) else {
            return Err(Error::corrupt(path, 80, "the header page has no valid predecessor"));
        };
        let unknown = fields.incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return unsupported(format!("the log segment needs unknown features {unknown:#x}"));
        }
        let unknown = fields.ro_compat & !RO_COMPAT_KNOWN;
        if unknown != 0 {
            return unsupported(format!(
                "writing beside this log segment needs unknown features {unknown:#x}"
            ));
        }
        let header = fields.header;
        if header.identity != *identity {
            return Err(Error::corrupt(path, 40, "the log segment belongs to another database"));
        }
        if header.number != number {
            let what = format!(
                "the log segment says it is number {}, its name says {number}",
                header.number
            );
            return Err(Error::corrupt(path, 56, what));
        }
        Ok(Some(header))
    }
}

struct Fields {
    incompat: u64,
    ro_compat: u64,
    header: SegmentHeader,
}

impl Fields {
    fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        reader.take(16)?;
        let (incompat, ro_compat, _compat) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let db_id = *reader.take(16)?.first_chunk()?;
        let number = FileNumber(reader.u64()?);
        let first_seqno = Seqno(reader.u64()?);
        let bytes = reader.u64()?;
        let kind = reader.take(8)?[0];
        let link = Link {
            number: FileNumber(reader.u64()?),
            final_length: reader.u64()?,
            synced_length: reader.u64()?,
            last_seqno: Seqno(reader.u64()?),
            digest: reader.u64()?,
        };
        let predecessor = match kind {
            BARRIER => Predecessor::Barrier,
            FOLLOWS if link.number < number => Predecessor::Follows(link),
            _ => return None,
        };
        let identity = LogIdentity { db_id };
        let header = SegmentHeader { identity, number, first_seqno, bytes, predecessor };
        Some(Self { incompat, ro_compat, header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            identity: LogIdentity { db_id: [5; 16] },
            number: FileNumber(8),
            first_seqno: Seqno(101),
            bytes: 1 << 20,
            predecessor: Predecessor::Follows(Link {
                number: FileNumber(6),
                final_length: 9000,
                synced_length: 8000,
                last_seqno: Seqno(100),
                digest: 77,
            }),
        }
    }

    fn decode(page: &[u8]) -> Result<Option<SegmentHeader>> {
        let identity = LogIdentity { db_id: [5; 16] };
        SegmentHeader::decode(page, Path::new("000008.wal"), &identity, FileNumber(8))
    }

    /// A page with `change` made and the checksum made to agree.
    fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut page = sample().encode();
        change(&mut page);
        let crc = crc(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    #[test]
    fn a_page_survives_a_round_trip() {
        assert_eq!(decode(&sample().encode()).unwrap(), Some(sample()));
        let first = SegmentHeader { predecessor: Predecessor::Barrier, ..sample() };
        assert_eq!(decode(&first.encode()).unwrap(), Some(first));
    }

    #[test]
    fn every_bit_of_the_page_counts() {
        let page = sample().encode();
        for bit in 0..page.len() * 8 {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).unwrap().is_none(), "bit {bit}");
        }
        assert!(decode(&[0; HEADER_BYTES]).unwrap().is_none());
        assert!(decode(&page[..4095]).unwrap().is_none());
    }

    #[test]
    fn intact_pages_of_others_are_named() {
        let future = decode(&changed(|p| p[8] = 2)).unwrap_err();
        assert!(matches!(future, Error::Unsupported { .. }), "{future}");
        for byte in [16, 24] {
            let feature = decode(&changed(|p| p[byte] = 1)).unwrap_err();
            assert!(matches!(feature, Error::Unsupported { .. }), "{feature}");
        }
        assert!(decode(&changed(|p| p[32] = 1)).unwrap().is_some(), "compat bits are harmless");
        let foreign = decode(&changed(|p| p[40] = 6)).unwrap_err();
        assert!(foreign.to_string().contains("another database"), "{foreign}");
        let misplaced = decode(&changed(|p| p[56] = 9)).unwrap_err();
        assert!(misplaced.to_string().contains("number 000009"), "{misplaced}");
        let kind = decode(&changed(|p| p[80] = 0)).unwrap_err();
        assert!(matches!(kind, Error::Corrupt { offset: 80, .. }), "{kind}");
    }
}
