//! One entry in the arena: a header, then the key's bytes, then the value's.
//!
//! ```text
//! previous: ptr | seqno << 8 | kind: u64 | value_len: u32 | key_len: u16 | pad | key | value
//! ```
//!
//! Guarantees: once published, nothing of an entry ever changes; `previous` leads to the next older
//! version of the same key, so a chain is ordered from newest to oldest.
//!
//! It does not know where it hangs in the tree.

use crate::key::{EntryRef, Kind, Seqno};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

/// Entries start on a multiple of this, which leaves three bits of their address for tags.
pub(super) const ENTRY_ALIGN: usize = 8;

/// The header of an entry. Key and value follow it in memory.
#[repr(C, align(8))]
pub(super) struct Entry {
    /// The next older version of this key, or null.
    previous: *const Entry,
    /// `seqno << 8 | kind`.
    stamp: u64,
    value_len: u32,
    key_len: u16,
    /// Tells loom when the plain bytes are written and read; it cannot see them by itself.
    #[cfg(loom)]
    touched: loom::cell::UnsafeCell<()>,
}

#[cfg(all(not(loom), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Entry>() == 24);
const _: () = assert!(align_of::<Entry>() == ENTRY_ALIGN);

impl Entry {
    /// Bytes that an entry takes in the arena.
    #[inline(always)]
    pub(super) fn bytes(key_len: usize, value_len: usize) -> usize {
        (size_of::<Self>() + key_len + value_len).next_multiple_of(ENTRY_ALIGN)
    }
}

/// A pointer to an entry in an arena that lives at least as long as `'a`.
///
/// Not a reference to `Entry`: it must also reach the bytes behind the header.
#[derive(Clone, Copy)]
pub(super) struct EntryAt<'a> {
    at: NonNull<Entry>,
    arena: PhantomData<&'a [u8]>,
}

impl<'a> EntryAt<'a> {
    /// Writes an entry without older versions.
    ///
    /// # Safety
    /// `at` must be 8-byte aligned and start `Entry::bytes(..)` bytes that nobody else uses and
    /// that live as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn write(
        at: NonNull<u8>,
        key: &[u8],
        seqno: Seqno,
        kind: Kind,
        value: &[u8],
    ) -> Self {
        let header = at.cast::<Entry>();
        let written = Entry {
            previous: ptr::null(),
            stamp: seqno.0 << 8 | kind as u64,
            value_len: value.len() as u32,
            key_len: key.len() as u16,
            #[cfg(loom)]
            touched: loom::cell::UnsafeCell::new(()),
        };
        // SAFETY: aligned, and the caller gave us room for a header and the bytes.
        unsafe { header.write(written) };
        // SAFETY: the header is followed by room for the key.
        let key_at = unsafe { at.add(size_of::<Entry>()) };
        // SAFETY: that room belongs to us alone, so it overlaps no slice of the caller.
        unsafe { ptr::copy_nonoverlapping(key.as_ptr(), key_at.as_ptr(), key.len()) };
        // SAFETY: the key is followed by room for the value.
        let value_at = unsafe { key_at.add(key.len()) };
        // SAFETY: as for the key.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), value_at.as_ptr(), value.len()) };
        let entry = Self { at: header, arena: PhantomData };
        #[cfg(loom)]
        entry.header().touched.with_mut(|_| ());
        entry
    }

    /// The entry behind a pointer that came out of `as_ptr`.
    ///
    /// # Safety
    /// `at` must come from `as_ptr`, its entry must have been published to this thread (or written
    /// by it), and the arena must outlive `'a`.
    #[inline(always)]
    pub(super) unsafe fn from_ptr(at: NonNull<Entry>) -> Self {
        let entry = Self { at, arena: PhantomData };
        #[cfg(loom)]
        entry.header().touched.with(|_| ());
        entry
    }

    /// The pointer, for storing.
    #[inline(always)]
    pub(super) fn as_ptr(self) -> NonNull<Entry> {
        self.at
    }

    /// Links the older versions of the key to this entry.
    ///
    /// # Safety
    /// This entry must not have been published yet, and `older` must be in the same arena.
    #[inline(always)]
    pub(super) unsafe fn set_previous(self, older: EntryAt<'a>) {
        let header = self.at.as_ptr();
        // SAFETY: points at the header that `write` made.
        let field = unsafe { &raw mut (*header).previous };
        // SAFETY: unpublished, so nobody else reads the field, and no reference to the header is
        // alive.
        unsafe { field.write(older.at.as_ptr()) }
    }

    #[inline(always)]
    fn header(self) -> &'a Entry {
        // SAFETY: whoever made this `EntryAt` vouched that a header was written here and lives as
        // long as `'a`; after publication it never changes.
        unsafe { self.at.as_ref() }
    }

    /// The next older version of the same key.
    #[inline(always)]
    pub(super) fn previous(self) -> Option<Self> {
        let older = NonNull::new(self.header().previous.cast_mut())?;
        // SAFETY: set before this entry was published, to an entry of the same arena that was
        // published earlier; whoever sees this one sees that one.
        Some(unsafe { Self::from_ptr(older) })
    }

    /// The newest version at or below `upto`, this entry included.
    #[inline(always)]
    pub(super) fn newest(self, upto: Seqno) -> Option<Self> {
        let mut version = self;
        while version.seqno() > upto {
            version = version.previous()?;
        }
        Some(version)
    }

    /// When it was written.
    #[inline(always)]
    pub(super) fn seqno(self) -> Seqno {
        Seqno(self.header().stamp >> 8)
    }

    /// Put or delete.
    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        if self.header().stamp as u8 == Kind::Put as u8 { Kind::Put } else { Kind::Delete }
    }

    #[inline(always)]
    fn bytes_at(self) -> *const u8 {
        let start = self.at.as_ptr().cast_const().cast::<u8>();
        // SAFETY: the bytes follow the header in the same chunk.
        unsafe { start.add(size_of::<Entry>()) }
    }

    /// The user's key.
    #[inline(always)]
    pub(super) fn key(self) -> &'a [u8] {
        // SAFETY: `key_len` bytes follow the header; they are immutable and live as long as `'a`.
        unsafe { slice::from_raw_parts(self.bytes_at(), usize::from(self.header().key_len)) }
    }

    /// The user's value.
    #[inline(always)]
    pub(super) fn value(self) -> &'a [u8] {
        let header = self.header();
        // SAFETY: the value follows the key in the same chunk.
        let at = unsafe { self.bytes_at().add(usize::from(header.key_len)) };
        // SAFETY: `value_len` bytes follow; they are immutable and live as long as `'a`.
        unsafe { slice::from_raw_parts(at, header.value_len as usize) }
    }

    /// Everything, as the rest of the engine sees it.
    #[inline(always)]
    pub(super) fn as_entry_ref(self) -> EntryRef<'a> {
        EntryRef { key: self.key(), seqno: self.seqno(), kind: self.kind(), value: self.value() }
    }
}
