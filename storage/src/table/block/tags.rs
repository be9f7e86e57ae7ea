//! Searches the tag column: which entries of a block may have a key, without reading the entries.

use super::Broken;

const LOW: u64 = 0x0101_0101_0101_0101;
const LOW_SEVEN: u64 = 0x7F7F_7F7F_7F7F_7F7F;

/// Calls `check` with the index of each entry whose tag is `tag`, in order, until it returns true.
///
/// `tail` starts with `count` tags. In all but tiny blocks at least 7 more bytes follow, so that
/// the last tags can be loaded like the others.
#[inline]
pub(super) fn search(
    tail: &[u8],
    count: u32,
    tag: u8,
    mut check: impl FnMut(u32) -> Result<bool, Broken>,
) -> Result<bool, Broken> {
    let pattern = u64::from(tag) * LOW;
    let mut base = 0;
    while base < count {
        let word = super::load_u64(tail, base as usize);
        let mut hits = zero_bytes(word ^ pattern);
        if count - base < 8 {
            hits &= (1 << (8 * (count - base))) - 1;
        }
        while hits != 0 {
            if check(base + hits.trailing_zeros() / 8)? {
                return Ok(true);
            }
            hits &= hits - 1;
        }
        base += 8;
    }
    Ok(false)
}

/// The top bit of each byte that is zero, and no other bit.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    !(((word & LOW_SEVEN) + LOW_SEVEN) | word | LOW_SEVEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_equal_tag_is_offered_and_no_other() {
        let mut tail: Vec<u8> = (0..100_u32).map(|i| (i * 37 % 11) as u8).collect();
        tail.extend([3; 5]);
        for count in 0..=100_u32 {
            for tag in [0, 3, 10, 11, 255] {
                let mut seen = Vec::new();
                let found = search(&tail, count, tag, |i| {
                    seen.push(i);
                    Ok(false)
                });
                let expected: Vec<u32> = (0..count).filter(|&i| tail[i as usize] == tag).collect();
                assert_eq!((found, seen), (Ok(false), expected), "count {count}, tag {tag}");
            }
        }
    }

    #[test]
    fn the_search_ends_with_the_first_yes() {
        let tail = [7; 40];
        let mut calls = 0;
        let found = search(&tail, 20, 7, |i| {
            calls += 1;
            Ok(i == 9)
        });
        assert_eq!((found, calls), (Ok(true), 10));
    }
}
