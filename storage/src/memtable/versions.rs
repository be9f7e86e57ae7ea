//! Several versions of one key: a list of links, newest first.
//!
//! A key with one version hangs in the tree by itself. An overwrite puts a `Versions` in its place,
//! which leads to the new entry and to what was there; when the older one has died the new entry
//! takes the place by itself. A link remembers what has died around it: older versions than the one it
//! leads to (*cut below*), or versions between the one in front of it and that one (*cut before*). A
//! reader at a number that is not held (`ReadPoints`) and that comes past a cut must look again at a
//! newer number, because what it was looking for may be among the dead.

use super::node::{Link, Slot, Target};
use crate::buffer::EntryAt;
use crate::key::Seqno;
use crate::sync::atomic::{AtomicPtr, Ordering};
use std::ptr::{self, NonNull};

/// A version and the next older ones.
#[repr(C)]
pub(super) struct Versions {
    /// An entry.
    pub(super) newest: Slot,
    /// An entry, or a further `Versions`.
    pub(super) older: Slot,
    /// The link in front of this one; null where the place in the tree leads here. For the writer
    /// alone, who finds what leads to a link without walking down to it: lists may be long.
    above: AtomicPtr<Versions>,
}

impl Versions {
    /// The first of its key, not published yet.
    pub(super) fn of(newest: Link, older: Link) -> Self {
        let versions = Self {
            newest: Slot::new(ptr::null_mut()),
            older: Slot::new(ptr::null_mut()),
            above: AtomicPtr::new(ptr::null_mut()),
        };
        newest.publish(&versions.newest);
        older.publish(&versions.older);
        versions
    }

    /// What leads here, if it is another link.
    #[inline(always)]
    pub(super) fn above(&self) -> Option<NonNull<Self>> {
        NonNull::new(self.above.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn hang_below(&self, above: Option<NonNull<Self>>) {
        let above = above.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.above.store(above, Ordering::Relaxed);
    }
}

/// What a search for a version found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// The newest version at or below the number, if there is one.
    pub(super) version: Option<EntryAt<'a>>,
    /// Versions above the one found, and not above the number, may have been there once.
    pub(super) passed_cut: bool,
}

impl Found<'_> {
    pub(super) const NOTHING: Self = Self { version: None, passed_cut: false };
}

/// The newest version of the key that `link` leads to.
///
/// # Safety
/// `link` was loaded from a place of one key in a tree whose memory outlives `'a`.
#[inline(always)]
pub(super) unsafe fn newest<'a>(link: Link) -> Option<EntryAt<'a>> {
    // SAFETY: the caller's promise is the same.
    match unsafe { link.target() } {
        Target::Entry(entry) => Some(entry),
        Target::Versions(versions) => {
            // SAFETY: as above; `newest` leads to an entry.
            unsafe { Link::load(&versions.newest).entry() }
        }
        Target::Empty | Target::Node(_) => None,
    }
}

/// The newest version at or below `upto` of the key that `link` leads to.
///
/// # Safety
/// As for `newest`.
#[inline(always)]
pub(super) unsafe fn at_or_below<'a>(mut link: Link, upto: Seqno) -> Found<'a> {
    let mut passed_cut = false;
    loop {
        // SAFETY: the caller's promise is the same.
        match unsafe { link.target::<'a>() } {
            Target::Entry(entry) => {
                if entry.seqno() <= upto {
                    return Found { version: Some(entry), passed_cut };
                }
                return Found { version: None, passed_cut: passed_cut || link.is_cut_below() };
            }
            Target::Versions(versions) => {
                let newest = Link::load(&versions.newest);
                // SAFETY: as above; `newest` leads to an entry.
                let entry = unsafe { newest.entry() }.expect("a version leads to an entry");
                if entry.seqno() <= upto {
                    return Found { version: Some(entry), passed_cut };
                }
                link = Link::load(&versions.older);
                passed_cut |= link.is_cut_before();
            }
            Target::Empty | Target::Node(_) => return Found::NOTHING,
        }
    }
}
