//! Cursors: one way to walk over entries, wherever they are.

use crate::error::Result;
use crate::key::{Kind, Seqno};

pub mod concat;
mod heads;
pub mod merge;
#[cfg(test)]
pub(crate) mod model;

pub use concat::{ConcatCursor, SortedParts};
pub use merge::MergeCursor;

/// A position in a sorted sequence of entries, each user key at most once.
///
/// A cursor may *rest* after it has passed very many keys that it does not show, so that its caller
/// can let others run. It then stands on such a key, and shows a delete at `Seqno::ZERO`, a number
/// that no entry has. In a merge it loses to every entry of the key.
///
/// After a positioning call either `valid()` is true and the accessors describe the current entry,
/// or the cursor stands past one of the ends. After an error the cursor is not valid. A new seek
/// makes it usable again. Only cursors that were opened with `ReadTier::Memory` return
/// `Error::WouldBlock`.
///
/// `next` and `prev` may be mixed freely. Accessors, `next` and `prev` panic if the cursor is not
/// valid.
pub trait Cursor: Send {
    /// Does the cursor stand on an entry?
    fn valid(&self) -> bool;
    /// The current user key.
    fn key(&self) -> &[u8];
    /// The current entry's sequence number.
    fn seqno(&self) -> Seqno;
    /// Put or delete.
    fn kind(&self) -> Kind;
    /// The current value; empty for a delete.
    fn value(&self) -> &[u8];
    /// The length of the current value. Overridden where the value is put together only for who
    /// asks for it, and where another cursor answers.
    fn value_len(&self) -> usize {
        self.value().len()
    }
    /// Moves to the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// Moves to the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// Moves to the first entry whose key is at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<()>;
    /// Moves to the last entry whose key is strictly before `key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// Moves one entry forward.
    fn next(&mut self) -> Result<()>;
    /// Moves one entry back.
    fn prev(&mut self) -> Result<()>;
}

impl<C: Cursor + ?Sized> Cursor for Box<C> {
    fn valid(&self) -> bool {
        (**self).valid()
    }
    fn key(&self) -> &[u8] {
        (**self).key()
    }
    fn seqno(&self) -> Seqno {
        (**self).seqno()
    }
    fn kind(&self) -> Kind {
        (**self).kind()
    }
    fn value(&self) -> &[u8] {
        (**self).value()
    }
    fn value_len(&self) -> usize {
        (**self).value_len()
    }
    fn seek_first(&mut self) -> Result<()> {
        (**self).seek_first()
    }
    fn seek_last(&mut self) -> Result<()> {
        (**self).seek_last()
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        (**self).seek(key)
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        (**self).seek_before(key)
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
}
