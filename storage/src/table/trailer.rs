//! The trailer behind every block: codec, raw length and a checksum that is valid only in this
//! place.
//!
//! ```text
//! | payload, perhaps compressed | codec u8 | raw_len u32 | crc u32 |
//! ```
//!
//! The checksum covers payload, codec and raw length. It is seeded with the file's unique id and
//! the block's offset, so a block of another file, or from another offset of this one, never
//! passes.
//!
//! A *section* (filter, index, properties) is a byte string that is divided into pieces of at most
//! `PIECE_BYTES`. Each piece is stored uncompressed, with its own trailer.

use super::options::Compression;
use crate::codec::{Decoder, crc_seeded};
use std::fmt::Display;
use std::sync::Arc;

/// Bytes of a trailer.
pub(super) const TRAILER_BYTES: usize = 1 + 4 + 4;
/// The longest block that may be compressed. It limits what a reader allocates because of a block's
/// claim.
pub(super) const INFLATED_BYTES_MAX: usize = 32 << 20;
/// Payload bytes of each piece of a section, except the last one, which has 1 to this many.
pub(super) const PIECE_BYTES: usize = 8 << 20;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;

/// Feature bits that a reader must know, one per codec that is actually used.
pub(super) const FEATURE_LZ4: u64 = 1;
/// See `FEATURE_LZ4`.
pub(super) const FEATURE_ZSTD: u64 = 2;
/// The feature bits that this build can read.
pub(super) const FEATURES_KNOWN: u64 =
    FEATURE_LZ4 | if cfg!(feature = "zstd") { FEATURE_ZSTD } else { 0 };

/// The part of the checksums' seed that depends on the file only.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChecksumSeed(u32);

impl ChecksumSeed {
    /// The seed of the file with this id.
    pub(super) fn new(unique_id: &[u8; 16]) -> Self {
        Self(crc_seeded(0, unique_id))
    }

    #[inline]
    fn at(self, offset: u64) -> u32 {
        crc_seeded(self.0, &offset.to_le_bytes())
    }
}

/// Why a stored block cannot be used.
#[derive(Debug)]
pub(super) enum Flaw {
    /// The bytes are wrong.
    Corrupt(String),
    /// The bytes are valid, but this build lacks the codec.
    Unsupported(&'static str),
    /// The bytes may be valid, but their contents do not fit into memory.
    OutOfMemory,
}

/// The payload of a block.
#[derive(Debug)]
pub(super) enum OpenedBlock {
    /// It was stored uncompressed: the first so many bytes of the block.
    Raw(usize),
    /// It was compressed. This has what it inflates to, and how long that is.
    Inflated(Arc<[u8]>, usize),
}

/// Appends a block to `out`: `raw`, compressed if that pays, and its trailer. The block begins at
/// `offset` of the file. Returns the feature bits that a reader needs.
pub(super) fn put_block(
    out: &mut Vec<u8>,
    raw: &[u8],
    compression: Compression,
    seed: ChecksumSeed,
    offset: u64,
) -> u64 {
    let start = out.len();
    let codec = if raw.len() <= INFLATED_BYTES_MAX { compress(out, raw, compression) } else { RAW };
    if codec == RAW {
        out.truncate(start);
        out.extend_from_slice(raw);
    }
    put_trailer(out, start, codec, raw.len(), seed, offset);
    match codec {
        LZ4 => FEATURE_LZ4,
        ZSTD => FEATURE_ZSTD,
        _ => 0,
    }
}

/// Appends the trailer of an uncompressed block, which `out` has from `start` on. The block begins
/// at `offset` of the file.
pub(super) fn end_block(out: &mut Vec<u8>, start: usize, seed: ChecksumSeed, offset: u64) {
    put_trailer(out, start, RAW, out.len() - start, seed, offset);
}

fn put_trailer(
    out: &mut Vec<u8>,
    start: usize,
    codec: u8,
    raw: usize,
    seed: ChecksumSeed,
    offset: u64,
) {
    out.push(codec);
    let raw_len = u32::try_from(raw).expect("limits keep an entry below 4 GiB");
    out.extend_from_slice(&raw_len.to_le_bytes());
    let crc = crc_seeded(seed.at(offset), &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Appends the compressed form of `raw`. Returns `RAW` if it is not compressed, or not small
/// enough.
fn compress(out: &mut Vec<u8>, raw: &[u8], compression: Compression) -> u8 {
    let start = out.len();
    let worth = raw.len() - raw.len() / 8;
    match compression {
        Compression::None => RAW,
        Compression::Lz4 => {
            out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            match lz4_flex::block::compress_into(raw, &mut out[start..]) {
                Ok(length) if length < worth => {
                    out.truncate(start + length);
                    LZ4
                }
                _ => RAW,
            }
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd(level) => {
            out.resize(start + worth, 0);
            match zstd::bulk::compress_to_buffer(raw, &mut out[start..], level) {
                Ok(length) if length < worth => {
                    out.truncate(start + length);
                    ZSTD
                }
                _ => RAW,
            }
        }
    }
}

/// How long the block says that it is when it is not compressed. Nothing is checked.
pub(super) fn raw_bytes(stored: &[u8]) -> usize {
    let payload_len = stored.len().checked_sub(TRAILER_BYTES);
    // The codec is the first byte of the trailer.
    payload_len.and_then(|at| Decoder::new(&stored[at + 1..]).u32()).unwrap_or(0) as usize
}

/// Checks the checksum of `stored`, which was read at `offset`. Returns the payload, and the bytes
/// of codec and raw length.
pub(super) fn check_bytes(
    stored: &[u8],
    seed: ChecksumSeed,
    offset: u64,
) -> Result<(&[u8], &[u8]), Flaw> {
    let Some(payload_len) = stored.len().checked_sub(TRAILER_BYTES) else {
        let what = format!("block of {} bytes is too short", stored.len());
        return Err(Flaw::Corrupt(what));
    };
    let (covered, crc) = stored.split_at(payload_len + 5);
    let computed = crc_seeded(seed.at(offset), covered);
    let crc = Decoder::new(crc).u32().expect("the trailer has four bytes behind the fields");
    if computed != crc {
        let what = format!("block checksum is {computed:#010x}, expected {crc:#010x}");
        return Err(Flaw::Corrupt(what));
    }
    Ok(covered.split_at(payload_len))
}

/// Checks the trailer of `stored`, which was read at `offset`, and decompresses the payload if
/// needed: into memory of at least so many bytes, from `buffer`.
pub(super) fn check_trailer(
    stored: &[u8],
    seed: ChecksumSeed,
    offset: u64,
    buffer: impl FnOnce(usize) -> Arc<[u8]>,
) -> Result<OpenedBlock, Flaw> {
    let corrupt = |what: String| Err(Flaw::Corrupt(what));
    let (payload, fields) = check_bytes(stored, seed, offset)?;
    let payload_len = payload.len();
    let codec = fields[0];
    let raw_len = Decoder::new(&fields[1..]).u32().expect("four bytes are left") as usize;
    match codec {
        RAW if raw_len == payload_len => Ok(OpenedBlock::Raw(payload_len)),
        RAW => corrupt(format!("block has {payload_len} bytes, expected {raw_len}")),
        LZ4 | ZSTD if raw_len > INFLATED_BYTES_MAX => {
            corrupt(format!("compressed block claims {raw_len} bytes"))
        }
        LZ4 => inflated(buffer(raw_len), raw_len, |into| {
            lz4_flex::block::decompress_into(payload, into)
        }),
        #[cfg(feature = "zstd")]
        ZSTD => inflated(buffer(raw_len), raw_len, |into| {
            zstd::bulk::decompress_to_buffer(payload, into)
        }),
        #[cfg(not(feature = "zstd"))]
        ZSTD => Err(Flaw::Unsupported("block is zstd, but the feature zstd is off in this build")),
        _ => Err(Flaw::Unsupported("block has a codec that this build does not know")),
    }
}

/// What `inflate` puts into the first `raw_len` bytes of `raw`; it returns how many it has put.
fn inflated<E: Display>(
    mut raw: Arc<[u8]>,
    raw_len: usize,
    inflate: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<OpenedBlock, Flaw> {
    match inflate(&mut unshared(&mut raw)[..raw_len]) {
        Ok(length) if length == raw_len => Ok(OpenedBlock::Inflated(raw, length)),
        Ok(length) => Err(Flaw::Corrupt(format!("block inflates to {length}, expected {raw_len}"))),
        Err(error) => Err(Flaw::Corrupt(format!("block does not inflate: {error}"))),
    }
}

/// Shared memory for a block, in one allocation, with the reference count next to the first bytes.
pub(super) fn zeroed(length: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, length).collect()
}

/// Write access to a buffer that nobody shares yet.
pub(super) fn unshared(buffer: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::get_mut(buffer).expect("nobody else has a buffer that is being filled")
}

/// Appends the pieces of a section that begins at `offset` of the file.
pub(super) fn put_section(out: &mut Vec<u8>, payload: &[u8], seed: ChecksumSeed, offset: u64) {
    assert!(!payload.is_empty(), "a section has at least its header");
    let start = out.len();
    for piece in payload.chunks(PIECE_BYTES) {
        let at = offset + (out.len() - start) as u64;
        put_block(out, piece, Compression::None, seed, at);
    }
}

/// Checks a stored piece of a section, which was read at `offset`, and appends what it holds.
pub(super) fn append_piece(
    payload: &mut Vec<u8>,
    stored: &[u8],
    seed: ChecksumSeed,
    offset: u64,
) -> Result<(), Flaw> {
    match check_trailer(stored, seed, offset, zeroed)? {
        OpenedBlock::Raw(length) => {
            payload.try_reserve(length).map_err(|_| Flaw::OutOfMemory)?;
            payload.extend_from_slice(&stored[..length]);
            Ok(())
        }
        OpenedBlock::Inflated(..) => Err(Flaw::Corrupt("section piece is compressed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(stored: &[u8], seed: ChecksumSeed, offset: u64) -> Option<Vec<u8>> {
        // Memory that was used before is longer, and is not empty.
        let used = |bytes: usize| std::iter::repeat_n(0xEE, bytes + 100).collect();
        match check_trailer(stored, seed, offset, used) {
            Ok(OpenedBlock::Raw(length)) => Some(stored[..length].to_vec()),
            Ok(OpenedBlock::Inflated(raw, length)) => Some(raw[..length].to_vec()),
            Err(_) => None,
        }
    }

    fn compressions() -> Vec<Compression> {
        vec![
            Compression::None,
            Compression::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd(3),
        ]
    }

    #[test]
    fn blocks_open_only_in_their_place() {
        let (here, elsewhere) = (ChecksumSeed::new(&[1; 16]), ChecksumSeed::new(&[2; 16]));
        for compression in compressions() {
            for raw in [vec![7; 4000], (0..=255).collect::<Vec<u8>>(), vec![]] {
                let mut stored = b"before".to_vec();
                put_block(&mut stored, &raw, compression, here, 42);
                let stored = &stored[6..];
                assert_eq!(open(stored, here, 42), Some(raw), "{compression:?}");
                assert_eq!(open(stored, here, 43), None);
                assert_eq!(open(stored, elsewhere, 42), None);
            }
        }
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let seed = ChecksumSeed::new(&[1; 16]);
        for compression in compressions() {
            let mut stored = Vec::new();
            put_block(&mut stored, &b"abcabcab".repeat(40), compression, seed, 0);
            for at in 0..stored.len() * 8 {
                let mut changed = stored.clone();
                changed[at / 8] ^= 1 << (at % 8);
                assert_eq!(open(&changed, seed, 0), None, "bit {at}");
            }
            for cut in 0..stored.len() {
                assert_eq!(open(&stored[..cut], seed, 0), None, "cut {cut}");
            }
        }
    }

    #[test]
    fn only_blocks_that_shrink_by_an_eighth_are_compressed() {
        let seed = ChecksumSeed::new(&[1; 16]);
        let mut noise = Vec::new();
        for i in 0..500_u64 {
            noise.extend(crate::codec::hash64(&i.to_le_bytes()).to_le_bytes());
        }
        for compression in compressions() {
            let mut stored = Vec::new();
            assert_eq!(put_block(&mut stored, &noise, compression, seed, 0), 0);
            assert_eq!(stored.len(), noise.len() + TRAILER_BYTES);
        }
        let mut stored = Vec::new();
        assert_eq!(put_block(&mut stored, &[0; 4096], Compression::Lz4, seed, 0), FEATURE_LZ4);
        assert!(stored.len() < 200);
    }

    #[test]
    fn a_lying_raw_length_allocates_nothing_and_is_refused() {
        let seed = ChecksumSeed::new(&[1; 16]);
        for (codec, raw_len) in [(RAW, 5_u32), (LZ4, u32::MAX), (LZ4, 5), (ZSTD, u32::MAX), (9, 4)]
        {
            let mut stored = vec![1, 2, 3, 4, codec];
            stored.extend(raw_len.to_le_bytes());
            let crc = crc_seeded(seed.at(0), &stored);
            stored.extend(crc.to_le_bytes());
            assert!(check_trailer(&stored, seed, 0, zeroed).is_err(), "{codec} {raw_len}");
        }
    }

    #[test]
    fn sections_of_any_length_survive_a_round_trip() {
        let seed = ChecksumSeed::new(&[1; 16]);
        for length in [1, 100, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES] {
            let payload = vec![3; length];
            let mut stored = Vec::new();
            put_section(&mut stored, &payload, seed, 1000);
            let pieces = length.div_ceil(PIECE_BYTES);
            assert_eq!(stored.len(), length + pieces * TRAILER_BYTES);
            let (mut opened, mut at) = (Vec::new(), 1000);
            for piece in stored.chunks(PIECE_BYTES + TRAILER_BYTES) {
                assert!(append_piece(&mut opened, piece, seed, at + 1).is_err());
                append_piece(&mut opened, piece, seed, at).unwrap();
                at += piece.len() as u64;
            }
            assert_eq!(opened, payload);
        }
    }
}
