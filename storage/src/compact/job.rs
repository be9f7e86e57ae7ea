//! A job: which slices go to which place, and how.

use super::why::Why;
use crate::error::Result;
use crate::key::Span;
use crate::version::{
    KeyspaceOptions, Landed, Place, RangeId, RangeVersion, Shards, Slice, SliceMeta, VersionEdit,
};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// The slices that a job takes from one place: newest first in a tier, in key order in a level.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The place.
    pub place: Place,
    /// At least one slice.
    pub slices: Vec<Slice>,
}

/// How a job has to do with landings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestMode {
    /// It merges or moves what is in no landing, or all there is.
    None,
    /// It merges a landing into its level.
    Drain,
    /// It merges a landing into itself. The level is not touched, and no tombstone goes.
    Keep,
}

/// What becomes of a job's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobTask {
    /// They are merged, and written anew into the output's place.
    Merge,
    /// Nothing overlaps: they go there as they are.
    Move,
    /// They go into the landing of the output's level as they are, each into its shard; who lies in
    /// several is cut.
    Land,
    /// They stay in their landings, which are divided anew.
    Reshard,
}

/// One compaction. Holds its slices, so their files stay while it runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The range.
    pub range: RangeId,
    /// What its keyspace does in another way than the database.
    pub own: Arc<KeyspaceOptions>,
    /// What goes in, newest place first. The last one may be the output's place itself.
    pub inputs: Vec<Inputs>,
    /// Where the result goes; of several shards the last one.
    pub output: Place,
    /// How.
    pub task: JobTask,
    /// Of outputs in a landing: when they came there, as far as that counts.
    pub landed: Option<Landed>,
    /// The bounds between the shards of the range.
    pub shards: Shards,
    /// Slices of the level below the output that overlap the job: where outputs are cut.
    pub grandparents: Vec<Slice>,
    /// Why it was chosen.
    pub why: Why,
    /// Only keys in here go in.
    within: Option<Span>,
    /// What is cut, as the version knows it, and what stays of it.
    cut: Vec<(Place, Slice)>,
    left: Vec<(Place, SliceMeta)>,
    /// Per layer after the output: overlapping slices, sorted. Older entries of a key can only be
    /// there, because everything else that is older is an input.
    older: Vec<Vec<Slice>>,
    span: Span,
}

impl Job {
    /// A merge of `inputs`, which must not be empty.
    pub(super) fn new(range: &RangeVersion, inputs: Vec<Inputs>, output: Place) -> Self {
        Self::inside(range, inputs, output, Span::all())
    }

    /// A merge of what lies in `span` of `inputs`, of which none is empty there, as far as their
    /// bounds tell. Those that reach beyond are cut first, and what is outside stays.
    pub(super) fn inside(
        range: &RangeVersion,
        inputs: Vec<Inputs>,
        output: Place,
        span: Span,
    ) -> Self {
        let closed = is_closed(range, &inputs, output, &span);
        debug_assert!(closed, "INVARIANT(oldest-closed): {inputs:?}");
        let mut job = Self::merging(range, inputs, output);
        job.span = job.span.intersection(&span);
        job.within = (span != Span::all()).then_some(span);
        job
    }

    fn merging(range: &RangeVersion, inputs: Vec<Inputs>, output: Place) -> Self {
        let (min, max) = bounds(&inputs).expect("a job has an input");
        let span = Span::from_bounds(Bound::Included(&min), Bound::Included(&max));
        let after = range.layers.iter().filter(|layer| layer.place > output);
        let older = after
            .map(|layer| layer.run.slices()[layer.run.overlapping(&min, &max)].to_vec())
            .collect();
        let grandparents = range.overlapping(Place::Main(output.level() + 1), &min, &max);
        let slices = inputs.iter().flat_map(|inputs| &inputs.slices);
        let oldest = slices.filter_map(|slice| slice.landed).min();
        Self {
            range: range.id,
            own: Arc::clone(&range.own),
            landed: oldest.filter(|_| output.is_tier()),
            inputs,
            output,
            task: JobTask::Merge,
            shards: range.shards.clone(),
            grandparents,
            why: Why::default(),
            within: None,
            cut: Vec::new(),
            left: Vec::new(),
            older,
            span,
        }
    }

    /// The slices of one place go into the landing of `level` at `at_ms`.
    pub(super) fn landing(range: &RangeVersion, inputs: Inputs, level: u8, at_ms: u64) -> Self {
        let inputs = vec![inputs];
        let closed = is_closed(range, &inputs, Place::Landing(level, 0), &Span::all());
        debug_assert!(closed, "INVARIANT(oldest-closed): {inputs:?}");
        let last = Place::Landing(level, range.shards.count() as u16 - 1);
        let mut job = Self::merging(range, inputs, last);
        job.task = JobTask::Land;
        job.landed = Some(Landed { epoch: range.newest_landed(level) + 1, at_ms });
        job
    }

    /// The landings of the range, which have `inputs`, are divided at the bounds of `shards`.
    pub(super) fn resharding(range: &RangeVersion, inputs: Vec<Inputs>, shards: Shards) -> Self {
        let output = inputs.last().map_or(Place::Landing(1, 0), |inputs| inputs.place);
        Self {
            range: range.id,
            own: Arc::clone(&range.own),
            inputs,
            output,
            task: JobTask::Reshard,
            landed: None,
            shards,
            grandparents: Vec::new(),
            why: Why::default(),
            within: None,
            cut: Vec::new(),
            left: Vec::new(),
            older: Vec::new(),
            span: range.span.clone(),
        }
    }

    /// The inputs, which overlap nothing, go there as they are.
    pub(super) fn moved(self) -> Self {
        Self { task: JobTask::Move, ..self }
    }

    /// For the reasons given.
    pub(super) fn because(mut self, why: Why) -> Self {
        self.why = why;
        self
    }

    /// What it has to do with landings.
    pub fn mode(&self) -> IngestMode {
        let first = self.inputs.first().map(|inputs| inputs.place);
        match (&self.task, first, self.output) {
            (JobTask::Merge, _, Place::Landing(..)) => IngestMode::Keep,
            (JobTask::Merge, Some(Place::Landing(..)), _) => IngestMode::Drain,
            _ => IngestMode::None,
        }
    }

    /// Is nothing written but the manifest?
    pub fn is_metadata_only(&self) -> bool {
        self.task != JobTask::Merge
    }

    /// All input slices with their places.
    pub fn slices(&self) -> impl Iterator<Item = (Place, &Slice)> {
        self.inputs.iter().flat_map(|i| i.slices.iter().map(move |slice| (i.place, slice)))
    }

    /// The first place that the job takes from.
    pub fn input_place(&self) -> Place {
        self.inputs.first().map_or(self.output, |inputs| inputs.place)
    }

    /// The keys that it touches.
    pub fn span(&self) -> &Span {
        &self.span
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

    /// May a tombstone of `key` be dropped: can no entry older than the job have this key? Never in
    /// a landing, before a level that nobody looked into (INVARIANT(keep-keeps-tombstones)). Costs
    /// a binary search per layer after the output.
    pub fn may_drop_tombstone(&self, key: &[u8]) -> bool {
        !self.output.is_tier()
            && self.older.iter().all(|slices| {
                let at = slices.partition_point(|slice| slice.max_key() < key);
                slices.get(at).is_none_or(|slice| slice.min_key() > key)
            })
    }

    /// Cuts the inputs that reach beyond the job's keys. Blocks on the disk. Without this the job
    /// cannot be run. Afterwards a landing may have nothing in there: then no input is left, and
    /// the edit only records the cuts.
    ///
    /// # Errors
    /// As `Slice::cut`. The job is as it was then.
    pub fn cut(&mut self) -> Result<()> {
        let Some(span) = &self.within else { return Ok(()) };
        let ends: Vec<_> = std::iter::once(&span.lo).chain(&span.hi).cloned().collect();
        let (mut inputs, mut cut, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for Inputs { place, slices } in &self.inputs {
            let mut inside = Vec::new();
            for slice in slices {
                let pieces = slice.cut(&ends)?;
                if pieces.len() > 1 {
                    cut.push((*place, slice.clone()));
                }
                for piece in pieces {
                    if span.contains(piece.min_key()) {
                        inside.push(piece);
                    } else {
                        left.push((*place, piece.meta().clone()));
                    }
                }
            }
            if !inside.is_empty() {
                inputs.push(Inputs { place: *place, slices: inside });
            }
        }
        if !inputs.iter().any(|inputs| inputs.place.is_tier()) {
            inputs.clear();
        }
        (self.inputs, self.cut, self.left, self.within) = (inputs, cut, left, None);
        Ok(())
    }

    /// Where the inputs go that are not written anew, each in as many pieces as it takes. Blocks on
    /// the disk where one has to be cut.
    ///
    /// # Errors
    /// As `Slice::cut`.
    /// INVARIANT(landing-in-its-shard): what lands is cut at the bounds.
    pub fn pieces(&self) -> Result<Vec<(Place, SliceMeta)>> {
        let mut pieces = Vec::new();
        for (place, slice) in self.slices() {
            let parts = match self.task {
                JobTask::Merge => unreachable!("a merge writes its outputs"),
                JobTask::Move => vec![slice.clone()],
                JobTask::Land | JobTask::Reshard => slice.cut(self.shards.bounds())?,
            };
            for part in parts {
                let mut meta = part.meta().clone();
                let shard = || self.shards.index(part.min_key()) as u16;
                let to = match self.task {
                    JobTask::Reshard => Place::Landing(place.level(), shard()),
                    JobTask::Land => Place::Landing(self.output.level(), shard()),
                    JobTask::Move | JobTask::Merge => self.output,
                };
                if self.task != JobTask::Reshard {
                    meta.landed = self.landed;
                }
                pieces.push((to, meta));
            }
        }
        Ok(pieces)
    }

    /// Where the tables go that a merge has written.
    pub fn outputs(&self, tables: &[SliceMeta]) -> Vec<(Place, SliceMeta)> {
        let landed = |table: &SliceMeta| SliceMeta { landed: self.landed, ..table.clone() };
        tables.iter().map(|table| (self.output, landed(table))).collect()
    }

    /// The edit that replaces the inputs by `added`.
    pub fn edit(&self, added: Vec<(Place, SliceMeta)>) -> VersionEdit {
        let range = self.range;
        let gone = self.gone();
        let deleted = gone.map(|(place, slice)| (range, place, slice.name())).collect();
        let added = added.into_iter().chain(self.left.iter().cloned());
        let added = added.map(|(place, slice)| (range, place, slice)).collect();
        let moved = (self.task == JobTask::Reshard).then(|| (range, self.shards.clone()));
        let shards_moved = moved.into_iter().collect();
        VersionEdit { deleted, added, shards_moved, ..VersionEdit::default() }
    }

    /// The slices that it takes out of the tree, as they were when it began. One of the same name
    /// that has other keys by now is not what was merged.
    pub fn gone(&self) -> impl Iterator<Item = (Place, &Slice)> {
        let cut = |place: Place, slice: &Slice| {
            let same = |(at, whole): &&(Place, Slice)| *at == place && is_of(slice, whole);
            self.cut.iter().any(|entry| same(&entry))
        };
        let whole = self.slices().filter(move |(place, slice)| !cut(*place, slice));
        whole.chain(self.cut.iter().map(|(place, slice)| (*place, slice)))
    }
}

/// The smallest and the largest key of what goes in; `None` if nothing does.
pub(super) fn bounds(inputs: &[Inputs]) -> Option<(Bytes, Bytes)> {
    let slices = || inputs.iter().flat_map(|inputs| &inputs.slices);
    let min = slices().map(|slice| slice.min_key()).min()?;
    let max = slices().map(|slice| slice.max_key()).max()?;
    Some((min.clone(), max.clone()))
}

/// Is `piece` cut out of `whole`?
fn is_of(piece: &Slice, whole: &Slice) -> bool {
    piece.number() == whole.number() && whole.overlaps(piece.min_key(), piece.max_key())
}

/// Does nothing stay behind above the output that is older than an input, and would be read instead
/// of what went down (INVARIANT(oldest-closed))? What stays in the output's place, if that is a
/// tier, is newer than all inputs or older than all, where it overlaps them: so the output has an
/// age. Only keys in `span` count.
fn is_closed(range: &RangeVersion, inputs: &[Inputs], output: Place, span: &Span) -> bool {
    let taken = |place: Place, slice: &Slice| {
        inputs.iter().any(|inputs| {
            inputs.place == place && inputs.slices.iter().any(|taken| taken.name() == slice.name())
        })
    };
    let overlapped = |slice: &Slice| {
        let (min, max) = (slice.min_key().clone(), slice.max_key().clone());
        let inputs = inputs.iter().flat_map(|i| i.slices.iter().map(|input| (i.place, input)));
        inputs.filter(move |(_, input)| {
            let (first, last) = (input.min_key().max(&min), input.max_key().min(&max));
            first <= last && span.overlaps_closed(first, last)
        })
    };
    let stays = range.layers.slices().filter(|(place, slice)| {
        (*place < output || (*place == output && output.is_tier())) && !taken(*place, slice)
    });
    let mut stays = stays.map(|(place, slice)| (place, slice, overlapped(slice)));
    stays.all(|(place, slice, mut overlapped)| {
        if place == output {
            let mut newer = overlapped.map(|(_, input)| slice.age() > input.age());
            let first = newer.next();
            return newer.all(|newer| Some(newer) == first);
        }
        overlapped.all(|(from, input)| place < from || (place == from && slice.age() > input.age()))
    })
}
