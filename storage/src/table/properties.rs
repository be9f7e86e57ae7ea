//! The properties of a table: the metadata that the manifest repeats, and how the table was
//! written.
//!
//! ```text
//! section payload   any number of: varint tag | varint length | bytes
//! ```
//!
//! Numbers are little-endian `u64`s; a sketch is its registers. A reader skips tags that it does
//! not know. Every tag occurs at most once. Tags 1 to 10 are required; old tables lack 11 and 12.
//! Tags from 32 on are notes for people.

use super::options::{Compression, TableOptions};
use super::sketch::KeySketch;
use crate::codec::{Decoder, put_length_prefixed, put_varint};
use crate::filename::FileNumber;
use crate::key::Seqno;
use crate::limits::KEY_BYTES_MAX;
use bytes::Bytes;
use std::fmt;

/// The metadata of a table, which is known without opening it. The manifest records one per live
/// table.
#[derive(Clone, PartialEq, Eq)]
pub struct TableMeta {
    /// The file number.
    pub number: FileNumber,
    /// 16 bytes that no other table has (`TableId::unique_id`).
    pub unique_id: [u8; 16],
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Bytes of all keys and values.
    pub raw_bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// The number of tombstones.
    pub tombstones: u64,
    /// The first key.
    pub min_key: Bytes,
    /// The last key.
    pub max_key: Bytes,
    /// The smallest sequence number of an entry.
    pub min_seqno: Seqno,
    /// The largest sequence number of an entry.
    pub max_seqno: Seqno,
    /// The creation time, in milliseconds since 1970; 0 if unknown. A table with tombstones has
    /// that of the oldest table that they may come from, so that they grow old though they are
    /// merged.
    pub created_at_ms: u64,
    /// A sketch of the keys, which estimates how many of them other tables share; empty if unknown.
    pub keys: KeySketch,
}

/// Keys are the user's, and appear in no message: only their lengths.
impl fmt::Debug for TableMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableMeta")
            .field("number", &self.number)
            .field("file_bytes", &self.file_bytes)
            .field("raw_bytes", &self.raw_bytes)
            .field("entries", &self.entries)
            .field("tombstones", &self.tombstones)
            .field("min_key", &format_args!("{} bytes", self.min_key.len()))
            .field("max_key", &format_args!("{} bytes", self.max_key.len()))
            .field("min_seqno", &self.min_seqno)
            .field("max_seqno", &self.max_seqno)
            .field("created_at_ms", &self.created_at_ms)
            .finish_non_exhaustive()
    }
}

impl TableMeta {
    /// The names of the fields in which `other` differs.
    pub(super) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let same = [
            ("number", self.number == other.number),
            ("unique_id", self.unique_id == other.unique_id),
            ("file_bytes", self.file_bytes == other.file_bytes),
            ("raw_bytes", self.raw_bytes == other.raw_bytes),
            ("entries", self.entries == other.entries),
            ("tombstones", self.tombstones == other.tombstones),
            ("min_key", self.min_key == other.min_key),
            ("max_key", self.max_key == other.max_key),
            ("min_seqno", self.min_seqno == other.min_seqno),
            ("max_seqno", self.max_seqno == other.max_seqno),
            ("created_at_ms", self.created_at_ms == other.created_at_ms),
            ("keys", self.keys == other.keys),
        ];
        same.into_iter().filter_map(|(name, same)| (!same).then_some(name)).collect()
    }
}

const NUMBER: u64 = 1;
const UNIQUE_ID: u64 = 2;
const RAW_BYTES: u64 = 3;
const ENTRIES: u64 = 4;
const TOMBSTONES: u64 = 5;
const MIN_KEY: u64 = 6;
const MAX_KEY: u64 = 7;
const MIN_SEQNO: u64 = 8;
const MAX_SEQNO: u64 = 9;
const DATA_BLOCKS: u64 = 10;
const CREATED_AT: u64 = 11;
const KEYS: u64 = 12;
/// The end of the tags that are read. Older tables lack the last two.
const READ_END: u64 = 13;
const BLOCK_BYTES: u64 = 32;
const RESTART_INTERVAL: u64 = 33;
const FILTER_BITS_PER_KEY: u64 = 34;
const COMPRESSION: u64 = 35;
const COMPARATOR: u64 = 36;
const CREATOR: u64 = 37;

/// To be changed with what the builder writes, so that files can be told apart.
const CREATOR_NAME: &[u8] = b"sluicedb table builder 2";

/// Encodes the section's payload of a table with `meta` and `data_blocks`, written with `options`.
pub(super) fn encode(meta: &TableMeta, data_blocks: u64, options: &TableOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |tag, bytes: &[u8]| {
        put_varint(&mut out, tag);
        put_length_prefixed(&mut out, bytes);
    };
    put(NUMBER, &meta.number.0.to_le_bytes());
    put(UNIQUE_ID, &meta.unique_id);
    put(RAW_BYTES, &meta.raw_bytes.to_le_bytes());
    put(ENTRIES, &meta.entries.to_le_bytes());
    put(TOMBSTONES, &meta.tombstones.to_le_bytes());
    put(MIN_KEY, &meta.min_key);
    put(MAX_KEY, &meta.max_key);
    put(MIN_SEQNO, &meta.min_seqno.0.to_le_bytes());
    put(MAX_SEQNO, &meta.max_seqno.0.to_le_bytes());
    put(DATA_BLOCKS, &data_blocks.to_le_bytes());
    put(CREATED_AT, &meta.created_at_ms.to_le_bytes());
    put(KEYS, meta.keys.encode());
    put(BLOCK_BYTES, &(options.block_bytes as u64).to_le_bytes());
    put(RESTART_INTERVAL, &(options.restart_interval as u64).to_le_bytes());
    put(FILTER_BITS_PER_KEY, &(options.filter_bits_per_key as u64).to_le_bytes());
    let compression = match options.compression {
        Compression::None => "none".to_owned(),
        Compression::Lz4 => "lz4".to_owned(),
        #[cfg(feature = "zstd")]
        Compression::Zstd(level) => format!("zstd {level}"),
    };
    put(COMPRESSION, compression.as_bytes());
    put(COMPARATOR, b"bytewise");
    put(CREATOR, CREATOR_NAME);
    out
}

/// Decodes a section's payload into the table's metadata and its number of data blocks.
/// `file_bytes` comes from the footer. The error says what is wrong.
pub(super) fn decode(payload: &[u8], file_bytes: u64) -> Result<(TableMeta, u64), String> {
    let mut found: [Option<&[u8]>; READ_END as usize] = [None; _];
    let mut reader = Decoder::new(payload);
    while !reader.is_empty() {
        let mut record = || Some((reader.varint()?, reader.length_prefixed()?));
        let (tag, bytes) = record().ok_or("properties are cut short")?;
        if let Some(cell) = usize::try_from(tag).ok().and_then(|tag| found.get_mut(tag))
            && cell.replace(bytes).is_some()
        {
            return Err(format!("property {tag} occurs twice"));
        }
    }
    let bytes = |tag: u64| found[tag as usize].ok_or_else(|| format!("property {tag} is missing"));
    let number = |tag| {
        let bytes = <[u8; 8]>::try_from(bytes(tag)?);
        bytes.map(u64::from_le_bytes).map_err(|_| format!("property {tag} is not a number"))
    };
    let meta = TableMeta {
        number: FileNumber(number(NUMBER)?),
        unique_id: bytes(UNIQUE_ID)?.try_into().map_err(|_| "unique id is not 16 bytes")?,
        file_bytes,
        raw_bytes: number(RAW_BYTES)?,
        entries: number(ENTRIES)?,
        tombstones: number(TOMBSTONES)?,
        min_key: Bytes::copy_from_slice(bytes(MIN_KEY)?),
        max_key: Bytes::copy_from_slice(bytes(MAX_KEY)?),
        min_seqno: Seqno(number(MIN_SEQNO)?),
        max_seqno: Seqno(number(MAX_SEQNO)?),
        created_at_ms: if found[CREATED_AT as usize].is_some() { number(CREATED_AT)? } else { 0 },
        keys: match found[KEYS as usize] {
            Some(bytes) => {
                KeySketch::decode(bytes).ok_or("the sketch of the keys is impossible")?
            }
            None => KeySketch::default(),
        },
    };
    let has_key_length = |key: &[u8]| !key.is_empty() && key.len() <= KEY_BYTES_MAX;
    if !has_key_length(&meta.min_key) || !has_key_length(&meta.max_key) {
        return Err("properties name an impossible key".to_owned());
    }
    if meta.min_key > meta.max_key || meta.min_seqno > meta.max_seqno || meta.max_seqno > Seqno::MAX
    {
        return Err("properties contradict each other".to_owned());
    }
    Ok((meta, number(DATA_BLOCKS)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::extremes::extremes;

    fn meta() -> TableMeta {
        let mut keys = KeySketch::default();
        (0..10_u8).for_each(|key| keys.add(crate::codec::hash64(&[key])));
        TableMeta {
            number: FileNumber(5),
            unique_id: [9; 16],
            file_bytes: 4711,
            raw_bytes: 1000,
            entries: 10,
            tombstones: 1,
            min_key: Bytes::from_static(b"a"),
            max_key: Bytes::from_static(b"z"),
            min_seqno: Seqno(3),
            max_seqno: Seqno(12),
            created_at_ms: 1_790_000_000_000,
            keys,
        }
    }

    #[test]
    fn properties_survive_a_round_trip_and_unknown_ones_are_skipped() {
        let mut payload = encode(&meta(), 7, &TableOptions::default());
        assert_eq!(decode(&payload, 4711), Ok((meta(), 7)));
        put_varint(&mut payload, 1 << 40);
        put_length_prefixed(&mut payload, b"from the future");
        assert_eq!(decode(&payload, 4711), Ok((meta(), 7)));
    }

    #[test]
    fn missing_doubled_and_absurd_properties_are_refused() {
        let payload = encode(&meta(), 7, &TableOptions::default());
        assert!(decode(&[], 1).unwrap_err().contains("missing"));
        assert!(decode(&[&payload[..], &payload[..]].concat(), 1).unwrap_err().contains("twice"));
        assert!(decode(&payload[..payload.len() - 1], 1).unwrap_err().contains("cut short"));
        let backwards = TableMeta { min_key: Bytes::from_static(b"zz"), ..meta() };
        let payload = encode(&backwards, 7, &TableOptions::default());
        assert!(decode(&payload, 1).unwrap_err().contains("contradict"));
    }

    #[test]
    fn c4_made_up_numbers_are_refused_or_harmless() {
        extremes(&encode(&meta(), 7, &TableOptions::default()), |payload| {
            if let Ok((meta, _)) = decode(&payload, 4711) {
                assert!(meta.max_seqno <= Seqno::MAX && meta.min_key <= meta.max_key);
            }
        });
    }
}
