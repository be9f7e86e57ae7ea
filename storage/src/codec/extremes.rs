//! Extreme numbers, for tests of decoders.
//!
//! Tests are compiled with overflow checks. A decoder that adds or multiplies a number before it
//! has compared it with a limit panics here, and would continue with a wrong number in a release
//! build.

use super::{Decoder, put_varint};

const NUMBERS: [u64; 6] =
    [u64::MAX, u64::MAX - 7, u64::MAX >> 1, 1 << 63, 1 << 56, u32::MAX as u64];

/// Calls `each` with copies of `bytes` in which one number is extreme: at every offset, with every
/// width, and as a varint wherever one may start.
pub(crate) fn extremes(bytes: &[u8], mut each: impl FnMut(Vec<u8>)) {
    for at in 0..bytes.len() {
        for number in NUMBERS {
            for width in [1, 2, 4, 8] {
                let mut made_up = bytes.to_vec();
                let Some(cell) = made_up.get_mut(at..at + width) else { continue };
                cell.copy_from_slice(&number.to_le_bytes()[..width]);
                each(made_up);
            }
            let mut reader = Decoder::new(&bytes[at..]);
            if reader.varint().is_some() {
                let mut made_up = bytes[..at].to_vec();
                put_varint(&mut made_up, number);
                made_up.extend_from_slice(&bytes[at + reader.position()..]);
                each(made_up);
            }
        }
    }
}

/// As `extremes`, for bytes with a checksum over everything before it, which is recomputed.
pub(crate) fn extremes_with_crc(bytes: &[u8], crc_at: usize, mut each: impl FnMut(&[u8])) {
    extremes(&bytes[..crc_at], |mut made_up| {
        if made_up.len() == crc_at {
            let sum = super::crc(&made_up);
            made_up.extend_from_slice(&sum.to_le_bytes());
            made_up.extend_from_slice(&bytes[crc_at + 4..]);
            each(&made_up);
        }
    });
}
