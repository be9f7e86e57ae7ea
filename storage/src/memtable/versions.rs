//! Several versions of one key: a list of links, newest first.
//!
//! A key with one version is in the tree directly. An overwrite puts a `Versions` in its place,
//! which leads to the new entry and to what was there before. When the older version is retired,
//! the new entry takes the place again.
//!
//! A link records what was retired around it: versions older than its target (*cut below*), or
//! versions between its holder and its target (*cut before*). A reader at a number without a held
//! `ReadPoint` may pass such a cut. Then it must look again at a newer number, because the version
//! that it looked for may be gone.
//!
//! INVARIANT(short-lists): a reader follows few links, however often its key was written after its
//! number. If versions are retired, a list has few links more than there are held read points. If
//! they are not, links also lead far down, as in a random-access stack (Myers, 1983): the list is
//! divided into runs of `2^rank - 1` links, each made of two equal halves that are runs again, and
//! a link leads behind the run that it heads. So the way down is logarithmic, and a new link costs
//! a look at two others.

use super::link::{LinkTarget, NodeLink, NodeSlot};
use crate::buffer::{ADDRESS_BITS, EntryAt};
use crate::key::Seqno;
use crate::sync::atomic::{AtomicPtr, Ordering};
use std::ptr::{self, NonNull};

/// A version and the next older ones.
#[repr(C)]
pub(super) struct Versions {
    /// An entry.
    pub(super) newest: NodeSlot,
    /// An entry, or another `Versions`.
    pub(super) older: NodeSlot,
    /// If versions are retired: the link in front of this one; null if the place in the tree leads
    /// here. Only the writer uses it, to find what leads to a link without walking down to it. If
    /// they are not: the link behind the run that this one heads, with the run's rank, which is not
    /// 0, above the address.
    beside: AtomicPtr<Versions>,
}

impl Versions {
    /// The first link of its key, not published yet.
    pub(super) fn of(newest: NodeLink, older: NodeLink) -> Self {
        let versions = Self {
            newest: NodeSlot::new(ptr::null_mut()),
            older: NodeSlot::new(ptr::null_mut()),
            beside: AtomicPtr::new(ptr::null_mut()),
        };
        newest.publish(&versions.newest);
        older.publish(&versions.older);
        versions
    }

    /// The link that leads here; `None` if the place in the tree does.
    #[inline(always)]
    pub(super) fn above(&self) -> Option<NonNull<Self>> {
        NonNull::new(self.beside.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn hang_below(&self, above: Option<NonNull<Self>>) {
        let above = above.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.beside.store(above, Ordering::Relaxed);
    }

    /// Makes the link lead far, over `below`, which is the next one in the list.
    ///
    /// # Safety
    /// It must not be published yet, and no link of the list may ever be retired.
    pub(super) unsafe fn lead_over(&self, below: Option<&Self>) {
        let (rank, behind) = match below.map(|below| (below, below.run())) {
            None => (1, None),
            Some((below, (rank, behind))) => {
                // SAFETY: links of such lists live as long as their arena.
                let behind = behind.map(|behind| unsafe { behind.as_ref() });
                match behind.map(Self::run) {
                    Some((equal, behind)) if equal == rank => (rank + 1, behind),
                    _ => (1, Some(NonNull::from(below))),
                }
            }
        };
        let behind = behind.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.beside.store(behind.map_addr(|at| at | rank << ADDRESS_BITS), Ordering::Relaxed);
    }

    /// The rank of the run that this link heads, and the link behind the run. The rank is 0 if
    /// links do not lead far.
    #[inline(always)]
    fn run(&self) -> (usize, Option<NonNull<Self>>) {
        let beside = self.beside.load(Ordering::Relaxed);
        let address = beside.map_addr(|at| at & ((1 << ADDRESS_BITS) - 1));
        (beside.addr() >> ADDRESS_BITS, NonNull::new(address))
    }

    /// The link behind the run, if it is newer than `upto` as well.
    ///
    /// # Safety
    /// The memory of the tree must outlive `'a`.
    #[inline(always)]
    unsafe fn far_above<'a>(&self, upto: Seqno) -> Option<&'a Self> {
        let (rank, Some(behind)) = self.run() else { return None };
        if rank == 0 {
            return None;
        }
        // SAFETY: links of such lists live as long as their arena, which the caller guarantees.
        let behind = unsafe { behind.as_ref() };
        // SAFETY: as above; `newest` leads to an entry.
        let entry =
            unsafe { NodeLink::load(&behind.newest).entry() }.expect("a version is an entry");
        (entry.seqno() > upto).then_some(behind)
    }
}

/// The result of a search for a version.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundVersion<'a> {
    /// The newest version at or below the number, if there is one.
    pub(super) version: Option<EntryAt<'a>>,
    /// There may have been versions between the one found and the number, which were retired.
    pub(super) passed_cut: bool,
}

impl FoundVersion<'_> {
    pub(super) const NOTHING: Self = Self { version: None, passed_cut: false };
}

/// The newest version of the key that `link` leads to.
///
/// # Safety
/// `link` must be loaded from a place of one key in a tree whose memory outlives `'a`.
#[inline(always)]
pub(super) unsafe fn newest<'a>(link: NodeLink) -> Option<EntryAt<'a>> {
    // SAFETY: the caller's guarantee is the same.
    match unsafe { link.target() } {
        LinkTarget::Entry(entry) => Some(entry),
        LinkTarget::Versions(versions) => {
            // SAFETY: as above; `newest` leads to an entry.
            unsafe { NodeLink::load(&versions.newest).entry() }
        }
        LinkTarget::Empty | LinkTarget::Node(_) => None,
    }
}

/// The newest version at or below `upto` of the key that `link` leads to.
///
/// # Safety
/// As for `newest`.
#[inline(always)]
pub(super) unsafe fn at_or_below<'a>(mut link: NodeLink, upto: Seqno) -> FoundVersion<'a> {
    let mut passed_cut = false;
    loop {
        // SAFETY: the caller's guarantee is the same.
        match unsafe { link.target::<'a>() } {
            LinkTarget::Entry(entry) => {
                if entry.seqno() <= upto {
                    return FoundVersion { version: Some(entry), passed_cut };
                }
                return FoundVersion {
                    version: None,
                    passed_cut: passed_cut || link.is_cut_below(),
                };
            }
            LinkTarget::Versions(versions) => {
                let newest = NodeLink::load(&versions.newest);
                // SAFETY: as above; `newest` leads to an entry.
                let entry = unsafe { newest.entry() }.expect("a version leads to an entry");
                if entry.seqno() <= upto {
                    return FoundVersion { version: Some(entry), passed_cut };
                }
                // SAFETY: as above. In lists whose links lead far, nothing is ever cut.
                if let Some(far) = unsafe { versions.far_above(upto) } {
                    link = NodeLink::to_versions(NonNull::from(far));
                    continue;
                }
                link = NodeLink::load(&versions.older);
                passed_cut |= link.is_cut_before();
            }
            LinkTarget::Empty | LinkTarget::Node(_) => return FoundVersion::NOTHING,
        }
    }
}
