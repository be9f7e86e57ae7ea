//! Chunk sizes, and when a buffer changes them, as in go-cmap (ADR 0009).
//!
//! A small buffer uses small chunks and wastes little memory; a large one uses large chunks and
//! allocates rarely. The preference `P` decides: 0 prefers small chunks, 1 always takes the
//! largest. A buffer leaves class `i` upward when it has more than `ceil(2 x (1 - P) x C[i + 1])`
//! live bytes. It comes back when it has less than that times `downgrade_ratio`, so it cannot
//! oscillate.

/// The size of a buffer's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkClass {
    /// 64 KiB.
    #[default]
    Small = 0,
    /// 512 KiB.
    Medium = 1,
    /// 2 MiB.
    Large = 2,
}

/// A class is worth the copying if a full buffer has so many of its chunks.
const CHUNKS_WORTH_IT: usize = 2;

impl ChunkClass {
    /// All classes, ascending.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Bytes of a chunk: a power of two, which is also its alignment.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Small => 64 << 10,
            Self::Medium => 512 << 10,
            Self::Large => 2 << 20,
        }
    }

    /// The largest class for a buffer that is full at `bytes`. Larger chunks would be half empty,
    /// and what is copied into them is soon dropped.
    pub(crate) fn largest_for(bytes: usize) -> Self {
        let worth_it = |class: &Self| class.bytes() * CHUNKS_WORTH_IT <= bytes;
        Self::ALL.into_iter().rfind(worth_it).unwrap_or_default()
    }

    pub(super) fn is_largest(self) -> bool {
        self.larger().is_none()
    }

    fn larger(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    fn smaller(self) -> Option<Self> {
        Self::ALL.get((self as usize).wrapping_sub(1)).copied()
    }
}

/// When a buffer is compacted, and in what steps.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferOptions {
    /// `P`: 0 prefers small chunks, 1 always takes the largest.
    pub preference: f64,
    /// A class is left downward below its upward threshold times this.
    pub downgrade_ratio: f64,
    /// The part of the bytes that must be dead before a compaction starts.
    pub dead_ratio: f64,
    /// The part of a chunk's bytes that must be dead as well.
    pub dead_chunk_ratio: f64,
    /// The most bytes that one step copies.
    pub step_bytes: usize,
    /// The most dead entries that one step passes.
    pub step_dead_max: usize,
}

impl Default for BufferOptions {
    fn default() -> Self {
        Self {
            preference: 0.75,
            downgrade_ratio: 0.5,
            dead_ratio: 0.3,
            dead_chunk_ratio: 0.5,
            step_bytes: 64 << 10,
            step_dead_max: 10,
        }
    }
}

impl BufferOptions {
    /// The live bytes above which a buffer leaves `class` for the next larger one; `None` for the
    /// largest.
    pub(super) fn upgrade_above(&self, class: ChunkClass) -> Option<u64> {
        let next = class.larger()?;
        Some((2.0 * (1.0 - self.preference) * next.bytes() as f64).ceil() as u64)
    }

    /// The live bytes below which a buffer leaves `class` for the next smaller one; `None` for the
    /// smallest.
    pub(super) fn downgrade_below(&self, class: ChunkClass) -> Option<u64> {
        let threshold = self.upgrade_above(class.smaller()?)?;
        Some((threshold as f64 * self.downgrade_ratio) as u64)
    }

    /// The class for a buffer that has class `now` and this many live bytes.
    pub(super) fn wanted(&self, now: ChunkClass, live_bytes: u64) -> ChunkClass {
        let mut class = now;
        while self.upgrade_above(class).is_some_and(|above| live_bytes > above) {
            class = class.larger().expect("a class with an upward threshold has a larger one");
        }
        if class != now {
            return class;
        }
        while self.downgrade_below(class).is_some_and(|below| live_bytes < below) {
            class = class.smaller().expect("a class with a downward threshold has a smaller one");
        }
        class
    }

    /// Is so much dead that copying the rest pays?
    pub(super) fn is_worth_it(&self, class: ChunkClass, live: u64, dead: u64, padded: u64) -> bool {
        // Padding of an earlier merge does not count: it must not start the next compaction by
        // itself.
        let real = (dead - padded) as f64;
        dead as f64 >= self.dead_chunk_ratio * class.bytes() as f64
            && real > 0.0
            && real >= self.dead_ratio * (live + dead) as f64
    }
}
