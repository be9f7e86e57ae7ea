//! What several benchmarks use.

/// A key of 16 bytes for each number, spread over the key space, the same in every run.
pub fn key(index: u64) -> [u8; 16] {
    let mut bits = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(bits ^ (bits >> 29)).to_be_bytes());
    key[8..].copy_from_slice(&index.to_le_bytes());
    key
}

/// splitmix64: a bijection, the same in every run.
pub fn mixed(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
