//! Bytes that are appended by one owner, and only read afterwards.
//!
//! An area may ask for huge pages. The first touch of so much memory, and accesses all over it,
//! take several times as long with small ones. But then all of it is resident from the first byte
//! on.

use super::chunk::Chunk;
use super::class::ChunkClass;

/// A fixed piece of memory, filled from its start.
pub(crate) struct Area {
    chunk: Chunk,
    used: usize,
}

impl std::fmt::Debug for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Area").field("used", &self.used).finish_non_exhaustive()
    }
}

impl Area {
    /// An empty area with room for at least `bytes`, which are more than none. `dense`: with huge
    /// pages, if it is large.
    pub(crate) fn with_room(bytes: usize, dense: bool) -> Self {
        let class = ChunkClass::ALL.into_iter().find(|class| class.bytes() >= bytes);
        let of = if dense { Chunk::dense } else { Chunk::of };
        Self { chunk: class.map_or_else(|| Chunk::plain(bytes), of), used: 0 }
    }

    /// Appends `bytes`, and returns their offset; `None` if there is no room for them.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let offset = self.used;
        if bytes.len() > self.chunk.bytes() - offset {
            return None;
        }
        // SAFETY: the chunk is longer than what is used, or as long.
        let to = unsafe { self.chunk.start().add(offset) };
        // SAFETY: there is room, which is exclusively ours (`&mut`), so `bytes` are elsewhere.
        unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.used += bytes.len();
        Some(offset)
    }

    /// What was appended.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes were written, and nobody writes them again while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.chunk.start().as_ptr(), self.used) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_and_what_does_not_fit_changes_nothing() {
        for wanted in [1, 64 << 10, (64 << 10) + 1, 2 << 20, (2 << 20) + 1] {
            let mut area = Area::with_room(wanted, true);
            let room = area.chunk.bytes();
            assert!(room >= wanted);
            let (mut model, mut seed) = (Vec::new(), wanted);
            loop {
                seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(9);
                let piece = vec![seed as u8; (seed >> 33) % (1 + room / 3)];
                match area.push(&piece) {
                    Some(offset) => assert_eq!(offset, model.len()),
                    None => break assert!(model.len() + piece.len() > room),
                }
                model.extend_from_slice(&piece);
            }
            assert_eq!(area.bytes(), model);
            let rest = vec![7; room - model.len()];
            assert_eq!(area.push(&rest), Some(model.len()), "it is filled to its end");
            assert_eq!((area.push(&[]), area.push(&[1])), (Some(room), None));
        }
    }
}
