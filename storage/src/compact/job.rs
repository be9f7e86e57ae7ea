//! A job: which slices are merged into which place.

use crate::version::{Place, RangeId, RangeVersion, Slice, SliceMeta, VersionEdit};
use bytes::Bytes;

/// The slices that a job takes from one place: newest first in a tier, in key order in a level.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The place.
    pub place: Place,
    /// At least one slice.
    pub slices: Vec<Slice>,
}

/// One compaction. Holds its slices, so their files stay while it runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The range.
    pub range: RangeId,
    /// What goes in, newest place first. The last one may be the output's place itself.
    pub inputs: Vec<Inputs>,
    /// Where the result goes.
    pub output: Place,
    /// Nothing overlaps: hand the slices down as they are.
    pub is_move: bool,
    /// Slices of the level below the output that overlap the job: where outputs are cut.
    pub grandparents: Vec<Slice>,
    /// Per layer after the output: overlapping slices, sorted. Older entries of a key can only be
    /// there, because everything else that is older is an input.
    older: Vec<Vec<Slice>>,
    min_key: Bytes,
    max_key: Bytes,
}

impl Job {
    /// A job over `inputs`, which must not be empty.
    pub(super) fn new(range: &RangeVersion, inputs: Vec<Inputs>, output: Place) -> Self {
        let slices = || inputs.iter().flat_map(|inputs| &inputs.slices);
        let min_key = slices().map(|s| s.min_key()).min().expect("a job has an input").clone();
        let max_key = slices().map(|s| s.max_key()).max().expect("a job has an input").clone();
        let after = range.layers.iter().filter(|layer| layer.place > output);
        let older = after
            .map(|layer| layer.run.slices()[layer.run.overlapping(&min_key, &max_key)].to_vec())
            .collect();
        let below = Place::Main(output.level() + 1);
        let grandparents = range.overlapping(below, &min_key, &max_key);
        let (range, is_move) = (range.id, false);
        Self { range, inputs, output, is_move, grandparents, older, min_key, max_key }
    }

    /// All input slices with their places.
    pub fn slices(&self) -> impl Iterator<Item = (Place, &Slice)> {
        self.inputs.iter().flat_map(|i| i.slices.iter().map(move |slice| (i.place, slice)))
    }

    /// The first place that the job takes from.
    pub fn input_place(&self) -> Place {
        self.inputs.first().expect("a job has an input").place
    }

    /// Smallest and largest key of the inputs.
    pub fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.min_key, &self.max_key)
    }

    /// Bytes of all inputs: what the job reads, and at most about what it writes.
    pub fn input_bytes(&self) -> u64 {
        self.slices().fold(0, |sum, (_, slice)| sum.saturating_add(slice.file_bytes()))
    }

    /// Entries of all inputs; of parts of tables about.
    pub fn entries_about(&self) -> u64 {
        self.slices().fold(0, |sum, (_, slice)| sum.saturating_add(slice.entries()))
    }

    /// Entries of all inputs, if that is known exactly: of a part of a table it is not.
    pub fn input_entries(&self) -> Option<u64> {
        self.slices().try_fold(0_u64, |sum, (_, slice)| {
            slice.part.is_none().then(|| sum.saturating_add(slice.entries()))
        })
    }

    /// May a tombstone of `key` be dropped: can no entry older than the job have this key? Costs a
    /// binary search per layer after the output.
    pub fn may_drop_tombstone(&self, key: &[u8]) -> bool {
        self.older.iter().all(|slices| {
            let at = slices.partition_point(|slice| slice.max_key() < key);
            slices.get(at).is_none_or(|slice| slice.min_key() > key)
        })
    }

    /// The edit that replaces the inputs by `added` (for a move: by themselves).
    pub fn edit(&self, added: Vec<SliceMeta>) -> VersionEdit {
        let deleted =
            self.slices().map(|(place, slice)| (self.range, place, slice.name())).collect();
        let added = if self.is_move {
            assert!(added.is_empty(), "a move writes nothing");
            self.slices().map(|(_, slice)| slice.meta().clone()).collect()
        } else {
            added
        };
        let added = added.into_iter().map(|slice| (self.range, self.output, slice)).collect();
        VersionEdit { deleted, added, ..VersionEdit::default() }
    }
}
