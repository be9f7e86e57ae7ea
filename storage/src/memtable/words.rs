//! Key bytes, compared eight at a time.

/// A one in every byte.
pub(super) const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;

/// Marks the bytes of `word` that equal `byte`. Marks above the lowest one may be false.
#[inline(always)]
pub(super) fn matches_8(word: u64, byte: u8) -> u64 {
    let differs = word ^ (LOW_BITS * u64::from(byte));
    differs.wrapping_sub(LOW_BITS) & !differs & HIGH_BITS
}

/// The same for four bytes.
#[inline(always)]
pub(super) fn matches_4(word: u32, byte: u8) -> u32 {
    const LOW: u32 = LOW_BITS as u32;
    let differs = word ^ (LOW * u32::from(byte));
    differs.wrapping_sub(LOW) & !differs & (LOW << 7)
}

/// The first eight bytes, the first one lowest, padded with zeros.
#[inline(always)]
pub(super) fn first_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// How many bytes two slices have in common at their start.
pub(super) fn agreement(left: &[u8], right: &[u8]) -> usize {
    let mut done = 0;
    for (left, right) in left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0) {
        let differs = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differs != 0 {
            return done + (differs.trailing_zeros() / 8) as usize;
        }
        done += 8;
    }
    done + left[done..].iter().zip(&right[done..]).take_while(|(left, right)| left == right).count()
}
