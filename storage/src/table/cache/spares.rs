//! Memory of blocks that have left, for the next ones. To free some and to get as much for each
//! block would take longer than to read it from the system's cache.

use super::shard::OVERHEAD_BYTES;
use std::sync::Arc;

/// Memory is used again for a block that leaves at most this part of it empty.
const EMPTY_PART: usize = 8;
/// As many as leave at once when room is made. It bounds what one caller frees, and looks through.
const SPARES_MAX: usize = 4;

/// See the module. One per shard, under its lock.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<Arc<[u8]>>,
    bytes: u64,
}

impl Spares {
    /// What they are charged with: as much as the blocks that they will be.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps `buffer` if there is `room` for it, and there are few. Or else returns it.
    pub(super) fn add(&mut self, buffer: Arc<[u8]>, room: u64) -> Option<Arc<[u8]>> {
        let bytes = buffer.len() as u64 + OVERHEAD_BYTES;
        if bytes > room || self.buffers.len() == SPARES_MAX {
            return Some(buffer);
        }
        self.bytes += bytes;
        self.buffers.push(buffer);
        None
    }

    /// One for a block of `bytes`, if there is one. Somebody else may still have it.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Arc<[u8]>> {
        let fits = |buffer: &Arc<[u8]>| {
            let empty = buffer.len().checked_sub(bytes);
            empty.is_some_and(|empty| empty <= buffer.len() / EMPTY_PART)
        };
        let at = self.buffers.iter().position(fits)?;
        let buffer = self.buffers.swap_remove(at);
        self.bytes -= buffer.len() as u64 + OVERHEAD_BYTES;
        Some(buffer)
    }

    /// Takes all of them.
    pub(super) fn clear(&mut self) -> Vec<Arc<[u8]>> {
        self.bytes = 0;
        std::mem::take(&mut self.buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: memory that is smaller; memory of which most stays empty; room that is not asked
    /// for; a charge that stays; any number of them.
    #[test]
    fn a_spare_is_given_to_a_block_that_is_about_as_large() {
        let (mut spares, buffer) = (Spares::default(), Arc::<[u8]>::from([0; 4096]));
        let charge = 4096 + OVERHEAD_BYTES;
        assert!(spares.add(Arc::clone(&buffer), charge - 1).is_some(), "there is no room");
        assert!(spares.add(Arc::clone(&buffer), charge).is_none());
        assert_eq!(spares.bytes(), charge);
        assert!(spares.take(4097).is_none() && spares.take(4096 * 7 / 8 - 1).is_none());
        assert!(spares.take(4096 * 7 / 8).is_some_and(|spare| Arc::ptr_eq(&spare, &buffer)));
        assert_eq!(spares.bytes(), 0);
        assert!(spares.take(4096).is_none(), "it is taken");
        for _ in 0..SPARES_MAX {
            assert!(spares.add(Arc::clone(&buffer), u64::MAX).is_none());
        }
        assert!(spares.add(buffer, u64::MAX).is_some(), "they are few");
        assert_eq!((spares.clear().len(), spares.bytes()), (SPARES_MAX, 0));
    }
}
