//! The last 128 bytes of a table: its sections and its identity.
//!
//! ```text
//!   0 properties offset u64, length u64     72 db_id 16 bytes
//!  16 index      offset u64, length u64     88 file number u64
//!  32 filter     offset u64, length u64     96 features a reader must know u64
//!  48 file length u64                      104 features a reader may ignore u64
//!  56 unique_id 16 bytes                   112 reserved u16 = 0, format version u16
//!                                          116 crc u32 of bytes 0..116
//!                                          120 magic
//! ```

use super::options::TableId;
use super::trailer::FEATURES_KNOWN;
use crate::codec::{Decoder, crc};
use crate::error::{Error, Result};
use crate::filename::FileNumber;
use std::path::Path;

/// Bytes of the footer.
pub(super) const FOOTER_BYTES: usize = 128;
const CRC_AT: usize = 116;
const MAGIC: [u8; 8] = *b"SLUICTBL";
const FORMAT_VERSION: u16 = 1;

/// The place of a section in the file. A length of 0 means that there is no such section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Handle {
    pub(super) fn end(self) -> u64 {
        self.offset + self.length
    }
}

/// The footer's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) properties: Handle,
    pub(super) index: Handle,
    pub(super) filter: Handle,
    pub(super) file_bytes: u64,
    pub(super) id: TableId,
    pub(super) features: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for handle in [self.properties, self.index, self.filter] {
            out.extend_from_slice(&handle.offset.to_le_bytes());
            out.extend_from_slice(&handle.length.to_le_bytes());
        }
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        out.extend_from_slice(&self.id.unique_id());
        out.extend_from_slice(&self.id.db_id);
        out.extend_from_slice(&self.id.number.0.to_le_bytes());
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&0_u64.to_le_bytes());
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&crc(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.try_into().expect("the fields add up to the footer")
    }

    /// Decodes the footer of the file at `path`, which has `file_bytes` bytes and must be table
    /// `id`, if that is known. Checks that the sections fill the file up to the footer, in the
    /// order filter, index, properties.
    pub(super) fn decode(
        bytes: &[u8; FOOTER_BYTES],
        path: &Path,
        file_bytes: u64,
        id: Option<&TableId>,
    ) -> Result<Self> {
        let at = file_bytes - FOOTER_BYTES as u64;
        let corrupt = |what: String| Err(Error::corrupt(path, at, what));
        if bytes[120..] != MAGIC {
            return corrupt("file does not end like a table (bad magic)".to_owned());
        }
        let mut tail = Decoder::new(&bytes[CRC_AT - 2..]);
        let mut tail = || Some((tail.u16()?, tail.u32()?));
        let (version, stored) = tail().expect("the footer has 14 bytes there");
        let computed = crc(&bytes[..CRC_AT]);
        if computed != stored {
            return corrupt(format!(
                "footer checksum is {computed:#010x}, expected {stored:#010x}"
            ));
        }
        let unsupported = |what: String| Err(Error::Unsupported { path: path.to_owned(), what });
        if version != FORMAT_VERSION {
            return unsupported(format!(
                "table format version {version}, this build reads {FORMAT_VERSION}"
            ));
        }
        let Some((footer, unique_id, stated_bytes)) = Self::fields(bytes) else {
            return corrupt("footer is cut short".to_owned());
        };
        let unknown = footer.features & !FEATURES_KNOWN;
        if unknown != 0 {
            return unsupported(format!(
                "table needs features {unknown:#x}, this build has {FEATURES_KNOWN:#x}"
            ));
        }
        let expected = id.unwrap_or(&footer.id);
        if footer.id != *expected || unique_id != expected.unique_id() {
            return corrupt(format!(
                "file is table {} of another database or place, expected table {}",
                footer.id.number, expected.number
            ));
        }
        if stated_bytes != file_bytes {
            return corrupt(format!("file has {file_bytes} bytes, expected {stated_bytes}"));
        }
        let Footer { filter, index, properties, .. } = footer;
        let end = |h: Handle| h.offset.checked_add(h.length);
        let in_order = end(filter) == Some(index.offset)
            && end(index) == Some(properties.offset)
            && end(properties) == Some(at);
        if !in_order || index.length == 0 || properties.length == 0 {
            return corrupt("sections do not fill the file".to_owned());
        }
        Ok(footer)
    }

    fn fields(bytes: &[u8]) -> Option<(Self, [u8; 16], u64)> {
        let mut reader = Decoder::new(bytes);
        let mut handles = [Handle::default(); 3];
        for handle in &mut handles {
            *handle = Handle { offset: reader.u64()?, length: reader.u64()? };
        }
        let [properties, index, filter] = handles;
        let file_bytes = reader.u64()?;
        let unique_id = reader.take(16)?.try_into().ok()?;
        let db_id = reader.take(16)?.try_into().ok()?;
        let id = TableId { db_id, number: FileNumber(reader.u64()?) };
        let features = reader.u64()?;
        Some((Self { properties, index, filter, file_bytes, id, features }, unique_id, file_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extremes::extremes_with_crc;

    fn footer() -> (Footer, TableId) {
        let id = TableId { db_id: [7; 16], number: FileNumber(12) };
        let footer = Footer {
            filter: Handle { offset: 1000, length: 100 },
            index: Handle { offset: 1100, length: 50 },
            properties: Handle { offset: 1150, length: 30 },
            file_bytes: 1180 + FOOTER_BYTES as u64,
            id,
            features: 1,
        };
        (footer, id)
    }

    #[test]
    fn a_footer_survives_a_round_trip() {
        let (footer, id) = footer();
        let again = Footer::decode(&footer.encode(), Path::new("t"), footer.file_bytes, Some(&id));
        assert_eq!(again.unwrap(), footer);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (footer, id) = footer();
        for at in 0..FOOTER_BYTES {
            let mut bytes = footer.encode();
            bytes[at] ^= 0x40;
            let error =
                Footer::decode(&bytes, Path::new("t"), footer.file_bytes, Some(&id)).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{at}: {error}");
        }
    }

    #[test]
    fn strangers_are_refused_with_a_reason() {
        let (footer, id) = footer();
        let path = Path::new("t");
        let other = TableId { number: FileNumber(13), ..id };
        let error =
            Footer::decode(&footer.encode(), path, footer.file_bytes, Some(&other)).unwrap_err();
        assert!(error.to_string().contains("expected table 000013"), "{error}");
        let error =
            Footer::decode(&footer.encode(), path, footer.file_bytes + 1, Some(&id)).unwrap_err();
        assert!(error.to_string().contains("expected 1308"), "{error}");
        let alien = Footer { features: 1 << 40, ..footer };
        let error =
            Footer::decode(&alien.encode(), path, footer.file_bytes, Some(&id)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let hole = Footer { index: Handle { offset: 1101, length: 49 }, ..footer };
        let error = Footer::decode(&hole.encode(), path, footer.file_bytes, Some(&id)).unwrap_err();
        assert!(error.to_string().contains("fill the file"), "{error}");
    }

    /// Planted: handles are added without an overflow check.
    #[test]
    fn c4_made_up_numbers_are_refused_or_harmless() {
        let (footer, id) = footer();
        extremes_with_crc(&footer.encode(), CRC_AT, |bytes| {
            let bytes = bytes.try_into().expect("as long as it was");
            let decoded = Footer::decode(bytes, Path::new("t"), footer.file_bytes, Some(&id));
            if let Ok(decoded) = decoded {
                assert_eq!(Footer { features: footer.features, ..decoded }, footer);
            }
        });
    }
}
