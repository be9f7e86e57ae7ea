//! Walks a table's entries in either direction.
//!
//! A cursor holds one block. Once it has crossed two block borders in a row without meeting the
//! cache it reads ahead: one large read for many consecutive blocks, into a buffer that it uses
//! again.

use super::block::{Block, BlockCursor, Broken};
use super::reader::{ReadTier, Table, check_short};
use super::trailer::{unshared, zeroed};
use crate::error::Result;
use crate::give_way;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno};
use bytes::Bytes;
use std::sync::Arc;

/// Blocks that must miss the cache in a row before a cursor reads ahead.
const MISSES_BEFORE_READAHEAD: u32 = 2;
/// What the first large read of a run takes, in bytes; each further one doubles it.
const READAHEAD_FIRST_BYTES: usize = 32 << 10;

/// How a cursor treats blocks that are not in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorOptions {
    /// May it wait for the disk? If not, any step may return `Error::WouldBlock`.
    pub tier: ReadTier,
    /// Does it put blocks it had to read into the cache?
    pub fill_cache: bool,
    /// The most it reads at once when it moves steadily, in bytes (64 to 256 KiB is sensible); 0
    /// reads block by block.
    pub readahead_bytes: usize,
}

impl Default for CursorOptions {
    fn default() -> Self {
        Self { tier: ReadTier::Disk, fill_cache: true, readahead_bytes: 128 << 10 }
    }
}

/// A position in a table; see `Table::cursor`.
#[derive(Debug)]
pub struct TableCursor {
    position: BlockCursor,
    valid: bool,
    /// The block that `position` holds.
    current: Option<usize>,
    table: Arc<Table>,
    how: CursorOptions,
    /// Blocks in a row that were neighbours of their predecessor and not in the cache.
    misses: u32,
    window_bytes: usize,
    window: Window,
}

/// A part of the file that was read ahead.
#[derive(Debug, Default)]
struct Window {
    offset: u64,
    /// How much of `buffer` was read.
    length: usize,
    buffer: Option<Arc<[u8]>>,
}

impl Window {
    /// Where the file's bytes from `offset` are, if all of them are here.
    #[inline]
    fn find(&self, offset: u64, length: usize) -> Option<(Arc<[u8]>, usize)> {
        let at = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let inside = at.checked_add(length)? <= self.length;
        inside.then(|| self.buffer.clone()).flatten().map(|buffer| (buffer, at))
    }

    /// A buffer for `length` bytes: the old one if it is large enough and nobody has a part of it.
    fn recycle(&mut self, length: usize) -> Arc<[u8]> {
        self.length = 0;
        match self.buffer.take() {
            Some(buffer) if buffer.len() >= length && Arc::strong_count(&buffer) == 1 => buffer,
            _ => zeroed(length.next_power_of_two()),
        }
    }
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, how: CursorOptions) -> Self {
        Self {
            position: BlockCursor::new(),
            valid: false,
            current: None,
            table,
            how,
            misses: 0,
            window_bytes: 0,
            window: Window::default(),
        }
    }

    /// The current value as `Bytes`, by the same rule as `Found::value`.
    pub fn value_bytes(&self) -> Bytes {
        assert!(self.valid, "the cursor stands on no entry");
        self.position.value_bytes()
    }

    /// Takes the outcome of a step inside block `i`.
    #[inline]
    fn inside(&mut self, i: usize, outcome: Result<bool, Broken>) -> Result<bool> {
        match outcome {
            Ok(inside) => {
                self.current = Some(i);
                self.valid = inside;
                Ok(inside)
            }
            Err(broken) => {
                self.forget();
                Err(self.table.broken(i, broken))
            }
        }
    }

    fn forget(&mut self) {
        self.valid = false;
        self.current = None;
        self.position.clear();
    }

    /// Moves to the first entry of block `i`, or past the end if there is no such block.
    fn enter_first(&mut self, i: usize) -> Result<()> {
        if i >= self.table.index().len() {
            self.valid = false;
            return Ok(());
        }
        let block = self.load(i)?;
        let outcome = self.position.enter_first(block).map(|()| true);
        self.inside(i, outcome).map(|_| ())
    }

    /// Moves to the last entry of block `i - 1`, or before the beginning if `i` is 0.
    fn enter_last_before(&mut self, i: usize) -> Result<()> {
        let Some(i) = i.checked_sub(1) else {
            self.valid = false;
            return Ok(());
        };
        let block = self.load(i)?;
        let outcome = self.position.enter_last(block).map(|()| true);
        self.inside(i, outcome).map(|_| ())
    }

    /// Block `i`: the current one, one read ahead, a cached one, or one read now.
    fn load(&mut self, i: usize) -> Result<Block> {
        give_way::now_and_then();
        self.valid = false;
        if self.current == Some(i)
            && let Some(block) = self.position.take_block()
        {
            return Ok(block);
        }
        let before = self.current.take();
        // The window can only be used again when no block points into it.
        self.position.clear();
        let (offset, length) = self.table.index().place(i);
        if let Some((buffer, at)) = self.window.find(offset, length) {
            return self.open_ahead(i, buffer, at);
        }
        if let Some(block) = self.table.cached(i) {
            self.misses = 0;
            return Ok(block);
        }
        let forward = before.is_some_and(|before| before + 1 == i);
        let backward = before.is_some_and(|before| before == i + 1);
        self.misses = if forward || backward { self.misses + 1 } else { 0 };
        if self.misses <= MISSES_BEFORE_READAHEAD {
            self.window_bytes = READAHEAD_FIRST_BYTES;
        } else if self.read_ahead(i, forward)?
            && let Some((buffer, at)) = self.window.find(offset, length)
        {
            self.table.missed();
            return self.open_ahead(i, buffer, at);
        }
        self.table.fetch(i, self.how.tier, self.how.fill_cache)
    }

    /// Opens block `i` out of the window. What goes into the cache is a copy: a slice would keep
    /// the whole window alive.
    fn open_ahead(&self, i: usize, buffer: Arc<[u8]>, at: usize) -> Result<Block> {
        if self.how.tier == ReadTier::Memory {
            check_short(&buffer[at..at + self.table.index().place(i).1])?;
        }
        let block = self.table.open_block(i, buffer, at, false)?;
        if self.how.fill_cache {
            self.table.cache(i, block.detached());
        }
        Ok(block)
    }

    /// Reads block `i` and as many behind it (or before it) as fit the window; false if that is not
    /// worth it or would wait where waiting is not allowed.
    fn read_ahead(&mut self, i: usize, forward: bool) -> Result<bool> {
        let size = self.window_bytes.min(self.how.readahead_bytes);
        let index = self.table.index();
        let (offset, length) = index.place(i);
        let (start, end) = if forward {
            let last = index.blocks_ending_by(offset + size as u64).max(i + 1) - 1;
            let (last_offset, last_length) = index.place(last);
            (offset, last_offset + last_length as u64)
        } else {
            let end = offset + length as u64;
            let first = index.blocks_starting_before(end.saturating_sub(size as u64)).min(i);
            (index.place(first).0, end)
        };
        let wanted = (end - start) as usize;
        if wanted == length {
            return Ok(false);
        }
        self.window_bytes = self.window_bytes.saturating_mul(2);
        let mut buffer = self.window.recycle(wanted);
        let target = &mut unshared(&mut buffer)[..wanted];
        match self.how.tier {
            ReadTier::Disk => self.table.read_into(target, start)?,
            ReadTier::Memory => {
                if !self.table.try_read(target, start)? {
                    self.misses = 0;
                    return Ok(false);
                }
            }
        }
        self.window = Window { offset: start, length: wanted, buffer: Some(buffer) };
        Ok(true)
    }
}

impl Cursor for TableCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn key(&self) -> &[u8] {
        assert!(self.valid, "the cursor stands on no entry");
        self.position.key()
    }

    #[inline]
    fn seqno(&self) -> Seqno {
        assert!(self.valid, "the cursor stands on no entry");
        self.position.seqno()
    }

    #[inline]
    fn kind(&self) -> Kind {
        assert!(self.valid, "the cursor stands on no entry");
        self.position.kind()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        assert!(self.valid, "the cursor stands on no entry");
        self.position.value()
    }

    fn seek_first(&mut self) -> Result<()> {
        self.enter_first(0)
    }

    fn seek_last(&mut self) -> Result<()> {
        self.enter_last_before(self.table.index().len())
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let i = self.table.index().lower_bound(key);
        if i == self.table.index().len() {
            self.valid = false;
            return Ok(());
        }
        let block = self.load(i)?;
        let outcome = self.position.enter_at(block, key);
        if self.inside(i, outcome)? {
            return Ok(());
        }
        // The key lies between the block's last key and its separator.
        self.enter_first(i + 1)
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        let i = self.table.index().lower_bound(key);
        if i == self.table.index().len() {
            return self.enter_last_before(i);
        }
        let block = self.load(i)?;
        let outcome = self.position.enter_before(block, key);
        if self.inside(i, outcome)? {
            return Ok(());
        }
        self.enter_last_before(i)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.valid, "the cursor stands on no entry");
        match self.position.next() {
            Ok(true) => Ok(()),
            outcome => self.leave(outcome, true),
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid, "the cursor stands on no entry");
        match self.position.prev() {
            Ok(true) => Ok(()),
            outcome => self.leave(outcome, false),
        }
    }
}

impl TableCursor {
    /// A step did not stay in the current block.
    #[cold]
    fn leave(&mut self, outcome: Result<bool, Broken>, forward: bool) -> Result<()> {
        let i = self.current.expect("a valid cursor has a block");
        self.inside(i, outcome)?;
        if forward { self.enter_first(i + 1) } else { self.enter_last_before(i) }
    }
}
