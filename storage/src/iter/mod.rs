//! Cursors: one way to walk entries, wherever they lie.

use crate::error::Result;
use crate::key::{Kind, Seqno};

pub mod concat;
pub mod merge;
#[cfg(test)]
pub(crate) mod model;

pub use concat::{ConcatCursor, SortedParts};
pub use merge::MergeCursor;

/// A position in a sorted sequence of entries, each user key at most once.
///
/// A cursor that has gone past very many keys which it does not show may *rest* on such a key, so
/// that whoever drives it can let others run: it then shows a delete at `Seqno::ZERO`, the number
/// of no entry. That is what is true of the key there, and of two cursors with the key the one that
/// has an entry wins.
///
/// After a positioning call either `valid()` is true and the accessors describe the current entry,
/// or the cursor stands past one of the ends. After an error the cursor is not valid; a new seek
/// makes it usable again. `Error::WouldBlock` is returned only by cursors that were opened so.
///
/// `next` and `prev` may be mixed freely. Calling an accessor, `next` or `prev` while not valid is
/// a broken rule of the caller and panics.
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
