//! Reading: what is visible at one instant, across memory and tables.
//!
//! Readers load a `Superversion` through one pointer (INVARIANT(one-pointer)). It has an entry for
//! each range, with everything that a reader must know of it. A `View` is a superversion and a
//! sequence number. It always shows the newest entry at or below that number, whatever is flushed
//! or compacted meanwhile.
//!
//! Layers are asked newest first, and the first answer wins (INVARIANT(newest-layer-first)): the
//! active memtable, the sealed ones, then the layers of the tables. A table has only the newest
//! entry of a key. So it may be published only when everything in it is visible. The version
//! manager waits for that.
//!
//! INVARIANT(no-block-on-executor): with `ReadTier::Memory` nothing here waits for the disk. A cold
//! block is `Error::WouldBlock`, and the caller repeats the read on a thread that may wait.

mod batch;
mod cut_out;
mod fences;
mod get;
mod memtable_slice;
mod own_writes;
mod range_walk;
mod scan;
mod source;
#[cfg(test)]
mod tests;
mod want;
mod whole;

pub use batch::{ScanBatch, ScanBatchBuilder};
pub use get::{ReadAt, look_up};
pub use want::{Exists, LastSeqno, Value, ValueLen, Want};

pub use cut_out::CutOut;
pub use memtable_slice::{MemtableSlice, MemtableSliceCursor};
pub use own_writes::{Own, OwnWrites, OwnWritesCursor};
pub use scan::{Advanced, ScanCursor, ScanSpec};
pub use whole::{Stack, Worth};

use crate::error::{Error, Result};
use crate::key::{Seqno, Span};
use crate::keyspace::{KeyspaceId, no_keyspace};
use crate::memtable::Memtable;
use crate::points::ReadPoint;
use crate::table::ReadTier;
use crate::version::{Keyspaces, ObsoleteFiles, RangeId, RangeVersion, Run, Version};
use fences::Fences;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// One range, as readers and writers find it. `O` is its owner; nothing here uses it.
#[derive(Clone)]
pub struct RangeEntry<O> {
    /// The memtable that takes writes.
    pub active: Arc<Memtable>,
    /// Memtables that wait for a flush, newest first. After a split they have keys of other ranges
    /// as well. What is outside the span does not belong to this range.
    pub sealed: Vec<MemtableSlice>,
    /// Tables that came in from outside while there were older memtables, newest first. They are
    /// among the range's tables as well. Until these memtables are flushed, readers look for them
    /// here.
    pub pending: Vec<PendingRun>,
    /// What is on disk, and which keys the range has.
    pub stable: Arc<RangeVersion>,
    /// Its only writer.
    pub owner: O,
}

/// Tables that are newer than some memtables and older than others.
#[derive(Clone, Debug)]
pub struct PendingRun {
    /// The largest id of a memtable that is older.
    pub behind: u64,
    /// The number of the change that brought them in.
    pub seqno: Seqno,
    /// The tables.
    pub run: Run,
}

impl PendingRun {
    /// Is it in front of memtables, of which `oldest` is the id of the oldest one that is not
    /// flushed?
    pub fn is_in_front_of(&self, oldest: Option<u64>) -> bool {
        oldest.is_some_and(|oldest| oldest <= self.behind)
    }
}

/// One layer in front of a range's tables.
#[derive(Clone, Copy, Debug)]
pub enum InFront<'a> {
    /// The memtable that takes writes.
    Active(&'a Arc<Memtable>),
    /// One that waits for its flush.
    Sealed(&'a MemtableSlice),
    /// Tables that came in from outside.
    Tables(&'a Run),
}

impl<O> RangeEntry<O> {
    /// A range with an empty memtable.
    pub fn new(active: Arc<Memtable>, stable: Arc<RangeVersion>, owner: O) -> Self {
        Self { active, sealed: Vec::new(), pending: Vec::new(), stable, owner }
    }

    /// The range's name.
    pub fn id(&self) -> RangeId {
        self.stable.id
    }

    /// The keys routed to it.
    #[inline]
    pub fn span(&self) -> &Span {
        &self.stable.span
    }

    /// All memtables, newest first.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.sealed.iter().map(MemtableSlice::table))
    }

    /// Everything in front of the range's tables, newest first (one-layer-order).
    /// INVARIANT(ahead-waits): tables ahead of memory have their place among memtables.
    pub fn in_front(&self) -> impl Iterator<Item = InFront<'_>> {
        let mut pending = self.pending.iter().peekable();
        let mut sealed = self.sealed.iter().peekable();
        let behind_active = std::iter::from_fn(move || {
            let is_next = |pending: &&PendingRun| {
                sealed.peek().is_none_or(|memtable| memtable.id() <= pending.behind)
            };
            match pending.next_if(is_next) {
                Some(pending) => Some(InFront::Tables(&pending.run)),
                None => sealed.next().map(InFront::Sealed),
            }
        });
        std::iter::once(InFront::Active(&self.active)).chain(behind_active)
    }
}

impl<O> fmt::Debug for RangeEntry<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeEntry")
            .field("active", &self.active.id())
            .field("sealed", &self.sealed.iter().map(|table| table.id()).collect::<Vec<_>>())
            .field("stable", &self.stable)
            .finish_non_exhaustive()
    }
}

/// Sets the tables of `ranges` to those of `version`, which has the same ranges.
pub fn put_behind<'a, O: 'a>(
    ranges: impl ExactSizeIterator<Item = &'a mut RangeEntry<O>>,
    version: &Version,
) {
    assert_eq!(ranges.len(), version.ranges().len(), "the same ranges");
    for (range, stable) in ranges.zip(version.ranges()) {
        assert_eq!(range.id(), stable.id, "the same ranges, in key order");
        range.stable = Arc::clone(stable);
    }
}

/// For the id of each sealed memtable, the positions of the ranges that have it.
pub type Holders = HashMap<u64, Vec<usize>>;

/// Everything that readers and writers need, in one allocation behind one pointer.
#[derive(Clone, Debug)]
pub struct Superversion<O> {
    /// Rises with every swap.
    pub number: u64,
    /// Rises with every change of the routes.
    pub epoch: u64,
    /// The number of the last change in it. Everything up to that number was applied, in every
    /// range, before this was published (INVARIANT(born-is-applied)).
    pub born: Seqno,
    /// By keyspace and key; the spans of a keyspace cover all keys. They stay as they are.
    pub ranges: Vec<RangeEntry<O>>,
    /// All keyspaces.
    pub keyspaces: Arc<Keyspaces>,
    /// Of `ranges`.
    fences: Fences,
    /// Is there one range, and can nobody name another keyspace than the default one?
    is_one: bool,
    /// What views hold. It may long outlive the owners.
    without_owners: OnceLock<Arc<Superversion<()>>>,
}

impl<O> Superversion<O> {
    /// The superversion of these ranges.
    pub fn new(
        number: u64,
        epoch: u64,
        born: Seqno,
        keyspaces: Arc<Keyspaces>,
        ranges: Vec<RangeEntry<O>>,
    ) -> Self {
        let is_one = ranges.len() == 1 && keyspaces.only_default();
        let (fences, without_owners) = (Fences::of(&ranges), OnceLock::new());
        Self { number, epoch, born, ranges, keyspaces, fences, is_one, without_owners }
    }

    /// Is there only one range, so that every key is routed to it?
    #[inline]
    pub fn is_one(&self) -> bool {
        self.is_one
    }

    /// The same without its owners, for those who only read. Made once, by the first who asks.
    pub fn without_owners(&self) -> &Arc<Superversion<()>> {
        self.without_owners.get_or_init(|| {
            let entry = |range: &RangeEntry<O>| RangeEntry {
                active: Arc::clone(&range.active),
                sealed: range.sealed.clone(),
                pending: range.pending.clone(),
                stable: Arc::clone(&range.stable),
                owner: (),
            };
            let ranges = self.ranges.iter().map(entry).collect();
            let keyspaces = Arc::clone(&self.keyspaces);
            Arc::new(Superversion::new(self.number, self.epoch, self.born, keyspaces, ranges))
        })
    }

    /// Index of the range that `key` of `keyspace` is routed to; none if there is no such keyspace.
    #[inline]
    pub fn route_index(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<usize> {
        if self.is_one && keyspace.is_default() {
            return Some(0);
        }
        self.fences.route_index(&self.ranges, keyspace, key)
    }

    /// The range that `key` of `keyspace` is routed to; none if there is no such keyspace.
    #[inline]
    pub fn route(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&RangeEntry<O>> {
        self.route_index(keyspace, key).map(|at| &self.ranges[at])
    }

    /// The range with this name.
    pub fn range(&self, id: RangeId) -> Option<&RangeEntry<O>> {
        self.ranges.iter().find(|range| range.id() == id)
    }

    /// The ranges that have each sealed memtable. After a split, new ranges share those of the old.
    pub fn holders(&self) -> Holders {
        let mut holders = Holders::new();
        for (at, entry) in self.ranges.iter().enumerate() {
            for table in &entry.sealed {
                holders.entry(table.id()).or_default().push(at);
            }
        }
        holders
    }

    /// What is on disk of all ranges, to be planned with or edited.
    pub fn version(&self, obsolete_files: &Arc<ObsoleteFiles>) -> Version {
        let ranges = self.ranges.iter().map(|range| Arc::clone(&range.stable));
        Version::new(ranges.collect(), Arc::clone(obsolete_files))
            .with_keyspaces(Arc::clone(&self.keyspaces))
    }
}

/// One instant of the database. It holds memtables and files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    /// The memtables and tables.
    pub superversion: Arc<Superversion<()>>,
    /// Entries above it are not seen.
    pub upto: Seqno,
    /// Keeps memtables from retiring what the view shows.
    _point: Option<Arc<ReadPoint>>,
    /// Writes that lie over it.
    own: Option<Arc<OwnWrites>>,
}

impl View {
    /// `superversion` as of `upto`, for memtables that retire nothing. Load the superversion first
    /// and `visible` after it.
    pub fn new(superversion: Arc<Superversion<()>>, upto: Seqno) -> Self {
        let upto = upto.max(superversion.born);
        Self { superversion, upto, _point: None, own: None }
    }

    /// `superversion` as of a point at or above its birth, which is held as long as the view.
    pub fn at(superversion: Arc<Superversion<()>>, point: ReadPoint) -> Self {
        assert!(point.seqno() >= superversion.born, "the point keeps all that the view shows");
        let upto = point.seqno();
        Self { superversion, upto, _point: Some(Arc::new(point)), own: None }
    }

    /// The same with `own` over it, in place of writes that are over it already.
    ///
    /// # Errors
    /// One of their keyspaces is not there.
    pub fn with(&self, own: OwnWrites) -> Result<Self> {
        let keyspaces = &self.superversion.keyspaces;
        if own.keyspaces().any(|keyspace| !keyspaces.has(keyspace)) {
            let what = "the batch writes to a keyspace that the snapshot does not have";
            return Err(Error::invalid(what));
        }
        Ok(Self { own: Some(Arc::new(own)), ..self.clone() })
    }

    /// What the writes over it do to a key; `None` if they do not touch it.
    #[inline]
    fn own(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<Own<'_>> {
        self.own.as_ref()?.get(keyspace, key)
    }

    /// The range of a key. `None` if the keyspace did not exist yet: it is read as empty.
    fn route(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<&RangeEntry<()>>> {
        let range = self.superversion.route(keyspace, key);
        match range {
            None if self.superversion.keyspaces.has_gone(keyspace) => Err(no_keyspace()),
            range => Ok(range),
        }
    }

    fn read_at(&self) -> ReadAt<fn() -> Seqno> {
        ReadAt::Held(self.upto)
    }

    /// What `W` wants to know of `key` of `keyspace`.
    ///
    /// # Errors
    /// As [`look_up`]; `Invalid` if the keyspace was dropped.
    pub fn look_up<W: Want>(
        &self,
        keyspace: KeyspaceId,
        key: &[u8],
        tier: ReadTier,
    ) -> Result<W::Answer> {
        if let Some(own) = self.own(keyspace, key) {
            return Ok(W::of_own(own.value()));
        }
        let Some(range) = self.route(keyspace, key)? else { return Ok(W::Answer::default()) };
        look_up::<W, _, _>(range, self.superversion.born, key, &self.read_at(), tier)
    }

    /// A walk over the entries of a span.
    pub fn cursor(&self, spec: ScanSpec, tier: ReadTier) -> ScanCursor {
        ScanCursor::new(self.clone(), spec, tier)
    }
}
