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
    /// An empty area with room for `bytes`, which are more than none.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self { chunk: Chunk::plain(bytes), used: 0 }
    }

    /// An empty area as large as the largest chunks, with huge pages if possible.
    pub(crate) fn dense() -> Self {
        Self { chunk: Chunk::dense(ChunkClass::Large), used: 0 }
    }

    /// How many bytes are left for what is appended.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.chunk.bytes() - self.used
    }

    /// Appends `bytes`, and returns their offset; `None` if there is no room for them.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let offset = self.used;
        if bytes.len() > self.room() {
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
        let sizes = [700, 64 << 10, (2 << 20) + 1];
        for mut area in sizes.into_iter().map(Area::with_room).chain([Area::dense()]) {
            let room = area.room();
            assert!(sizes.contains(&room) || room == ChunkClass::Large.bytes());
            let (mut model, mut seed) = (Vec::new(), room);
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
