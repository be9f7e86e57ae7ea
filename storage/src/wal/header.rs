//! The header page of a segment. It says which file this is.
//!
//! ```text
//!    0  magic "SLUICEWL"
//!    8  format u16 | zeros to 16
//!   16  incompat u64 | ro_compat u64 | compat u64      feature bits
//!   40  db_id 16 bytes
//!   56  log number u64                 that of the file's first life
//!   64  segment length u64
//!   72  zeros
//! 4092  crc u32 over bytes 0..4092
//! ```
//! The page is durable before the file gets its first `.wal` name, and is never written again. So a
//! `.wal` file without a valid page is damaged. A recycled file keeps its page, and its name has a
//! higher number. Which number its records belong to, their checksums say.
//!
//! The checksum is not seeded, because the page names its database: so the error for a file of
//! another database can say so. Magic, format and checksum keep their offsets in every future
//! format.

use super::LogIdentity;
use crate::codec::{Decoder, crc};
use crate::error::{Error, Result};
use crate::filename::{FileKind, FileNumber};
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;

/// Length of the header page; the first record starts here.
pub(super) const HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"SLUICEWL";
const FORMAT: u16 = 1;
/// Features that a reader must know. None yet.
const INCOMPAT_KNOWN: u64 = 0;
/// Features that a writer must know. None yet. A replay always leads to writing.
const RO_COMPAT_KNOWN: u64 = 0;
const CRC_AT: usize = HEADER_BYTES - 4;

/// The contents of a segment's header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: LogIdentity,
    /// The number of the file's first life: no higher than that in its name.
    pub(super) number: FileNumber,
    /// Length of the file.
    pub(super) bytes: u64,
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
        for field in [self.number.0, self.bytes] {
            page.extend_from_slice(&field.to_le_bytes());
        }
        page.resize(CRC_AT, 0);
        let crc = crc(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page
    }

    /// Decodes the page of the segment `number` at `path`.
    ///
    /// # Errors
    /// `Unsupported` for a valid page of another format or with unknown features. `Corrupt` for any
    /// other page than the one that was written for this segment.
    pub(super) fn decode(
        page: &[u8],
        path: &Path,
        identity: &LogIdentity,
        number: FileNumber,
    ) -> Result<Self> {
        let (Some(body), Some(stored)) = (page.get(..CRC_AT), page.get(CRC_AT..HEADER_BYTES))
        else {
            // The length was durable before the file got this name.
            let what = "the file ends within its header page";
            return Err(Error::corrupt(path, page.len() as u64, what));
        };
        if body[..8] != MAGIC || crc(body).to_le_bytes() != stored {
            let what = "the log segment has no valid header page";
            return Err(Error::corrupt(path, 0, what));
        }
        let unsupported = |what: String| Err(Error::Unsupported { path: path.to_owned(), what });
        let format = u16::from_le_bytes([body[8], body[9]]);
        if format != FORMAT {
            return unsupported(format!(
                "the log segment has format {format}; this build reads format {FORMAT}"
            ));
        }
        let (incompat, ro_compat, header) = read(body).expect("the page is long enough");
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return unsupported(format!("the log segment needs unknown features {unknown:#x}"));
        }
        let unknown = ro_compat & !RO_COMPAT_KNOWN;
        if unknown != 0 {
            return unsupported(format!(
                "writing beside this log segment needs unknown features {unknown:#x}"
            ));
        }
        if header.identity != *identity {
            return Err(Error::corrupt(path, 40, "the log segment belongs to another database"));
        }
        if header.number > number {
            let what = format!(
                "the log segment says it is number {}, its name says {number}",
                header.number
            );
            return Err(Error::corrupt(path, 56, what));
        }
        Ok(header)
    }
}

/// The id of the database that the segment `number` in `dir` claims to belong to; `None` without a
/// valid header page. Blocks on the disk.
pub fn claimed_id(vfs: &Arc<dyn Vfs>, dir: &Path, number: FileNumber) -> Option<[u8; 16]> {
    let mut page = [0; HEADER_BYTES];
    let read_bytes = vfs.open(&FileKind::Wal(number).path(dir)).ok()?.read_at(&mut page, 0).ok()?;
    let valid = read_bytes == HEADER_BYTES
        && page[..8] == MAGIC
        && crc(&page[..CRC_AT]).to_le_bytes() == page[CRC_AT..];
    valid.then(|| read(&page)).flatten().map(|(_, _, header)| header.identity.db_id)
}

/// Returns the feature bits and the header.
fn read(body: &[u8]) -> Option<(u64, u64, SegmentHeader)> {
    let mut reader = Decoder::new(body);
    reader.take(16)?;
    let (incompat, ro_compat, _compat) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let identity = LogIdentity { db_id: *reader.take(16)?.first_chunk()? };
    let (number, bytes) = (FileNumber(reader.u64()?), reader.u64()?);
    Some((incompat, ro_compat, SegmentHeader { identity, number, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extremes::extremes_with_crc;

    fn sample() -> SegmentHeader {
        let identity = LogIdentity { db_id: [5; 16] };
        SegmentHeader { identity, number: FileNumber(8), bytes: 1 << 20 }
    }

    fn decode(page: &[u8]) -> Result<SegmentHeader> {
        let identity = LogIdentity { db_id: [5; 16] };
        SegmentHeader::decode(page, Path::new("000008.wal"), &identity, FileNumber(8))
    }

    /// A page with `change` applied and the checksum recomputed.
    fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut page = sample().encode();
        change(&mut page);
        let crc = crc(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    #[test]
    fn a_page_survives_a_round_trip() {
        assert_eq!(decode(&sample().encode()).unwrap(), sample());
    }

    #[test]
    fn every_bit_of_the_page_counts() {
        let page = sample().encode();
        assert_eq!(page.len(), HEADER_BYTES);
        for bit in 0..page.len() * 8 {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = decode(&flipped).unwrap_err();
            assert!(matches!(refused, Error::Corrupt { offset: 0, .. }), "bit {bit}: {refused}");
        }
        assert!(decode(&[0; HEADER_BYTES]).is_err());
        assert!(matches!(decode(&page[..4095]), Err(Error::Corrupt { offset: 4095, .. })));
    }

    #[test]
    fn intact_pages_of_others_are_named() {
        let future = decode(&changed(|p| p[8] = 2)).unwrap_err();
        assert!(matches!(future, Error::Unsupported { .. }), "{future}");
        for byte in [16, 24] {
            let feature = decode(&changed(|p| p[byte] = 1)).unwrap_err();
            assert!(matches!(feature, Error::Unsupported { .. }), "{feature}");
        }
        assert!(decode(&changed(|p| p[32] = 1)).is_ok(), "compat bits are harmless");
        let foreign = decode(&changed(|p| p[40] = 6)).unwrap_err();
        assert!(foreign.to_string().contains("another database"), "{foreign}");
        assert!(decode(&changed(|p| p[56] = 7)).is_ok(), "recycled");
        let misplaced = decode(&changed(|p| p[56] = 9)).unwrap_err();
        assert!(misplaced.to_string().contains("number 000009"), "{misplaced}");
    }

    #[test]
    fn c4_made_up_numbers_are_refused_or_harmless() {
        let page = sample().encode();
        // Everything after the fields is zero.
        let fields = &page[..128];
        extremes_with_crc(&[fields, &[0; 4]].concat(), fields.len(), |bytes| {
            let page = changed(|page| page[..128].copy_from_slice(&bytes[..128]));
            assert!(decode(&page).is_err() || decode(&page).is_ok_and(|is| is.number.0 <= 8));
        });
    }
}
