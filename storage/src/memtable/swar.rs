//! Several key bytes at a time in one integer (SWAR: SIMD within a register).

/// A one in every byte.
pub(super) const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;

/// Marks the bytes of `word` that equal `byte`. Marks above the lowest one may be false.
#[inline(always)]
pub(super) fn matches_8(word: u64, byte: u8) -> u64 {
    let differs = word ^ (LOW_BITS * u64::from(byte));
    differs.wrapping_sub(LOW_BITS) & !differs & HIGH_BITS
}

/// As `matches_8`, for four bytes.
#[inline(always)]
pub(super) fn matches_4(word: u32, byte: u8) -> u32 {
    const LOW: u32 = LOW_BITS as u32;
    let differs = word ^ (LOW * u32::from(byte));
    differs.wrapping_sub(LOW) & !differs & (LOW << 7)
}

/// The first eight bytes as a little-endian number, padded with zeros.
#[inline(always)]
pub(super) fn first_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
