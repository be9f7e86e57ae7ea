//! A job: which slices move or merge into which place.

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
    /// The place of the slices.
    pub place: Place,
    /// At least one slice.
    pub slices: Vec<Slice>,
}

/// The job's relation to landings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandingMode {
    /// The job is not a merge, or its first input is not in a landing.
    None,
    /// The job merges a landing into its level.
    Drain,
    /// The job merges a landing into itself. It leaves the level alone and drops no tombstone.
    Keep,
}

/// What a job does with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobTask {
    /// It merges them, and writes the result to the output's place.
    Merge,
    /// It moves them to the output's place as they are, because nothing overlaps.
    Move,
    /// It moves them to the landing of the output's level, each to its shard. A slice that spans
    /// several shards is cut.
    Land,
    /// It leaves them in their landings and divides these at new shard bounds.
    Reshard,
}

/// One compaction. It holds its slices, so their files stay while it runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The range that it works on.
    pub range: RangeId,
    /// The options in which the range's keyspace differs from the database.
    pub own: Arc<KeyspaceOptions>,
    /// The inputs, newest place first. The last one may be in the output's place.
    pub inputs: Vec<Inputs>,
    /// The place of the result; if there are several shards, the last one.
    pub output: Place,
    /// What is done with the inputs.
    pub task: JobTask,
    /// For outputs in a landing: the epoch and time that they get.
    pub landed: Option<Landed>,
    /// The bounds between the shards of the range; for `JobTask::Reshard` the new ones.
    pub shards: Shards,
    /// Slices of the level below the output that overlap the job. They decide where outputs are
    /// cut.
    pub grandparents: Vec<Slice>,
    /// Why the job was chosen.
    pub why: Why,
    /// If set, only these keys are merged, and `cut` must run first.
    within: Option<Span>,
    /// After `cut`: the slices that were cut, as the version knows them, and their parts outside
    /// `within`.
    cut: Vec<(Place, Slice)>,
    left: Vec<(Place, SliceMeta)>,
    /// For each layer after the output, the slices that overlap the job, sorted. Only they can have
    /// older entries of a key, because everything else that is older is an input.
    older: Vec<Vec<Slice>>,
    span: Span,
}

impl Job {
    /// A merge of `inputs`, which must not be empty.
    pub(super) fn new(range: &RangeVersion, inputs: Vec<Inputs>, output: Place) -> Self {
        Self::inside(range, inputs, output, Span::all())
    }

    /// A merge of the part of `inputs` inside `span`. By their bounds, each input has a part there.
    /// `cut` must run before the merge: it cuts the slices that reach beyond `span`, and leaves
    /// their other parts where they are.
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

    /// A job that moves slices of one place to the landing of `level` at the time `at_ms`.
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

    /// A job that divides the range's landings, which are `inputs`, at the bounds of `shards`.
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

    /// Turns the job into a move: its inputs overlap nothing in the output's place.
    pub(super) fn moved(self) -> Self {
        Self { task: JobTask::Move, ..self }
    }

    /// The job with this reason.
    pub(super) fn because(mut self, why: Why) -> Self {
        self.why = why;
        self
    }

    /// Its relation to landings.
    pub fn mode(&self) -> LandingMode {
        let first = self.inputs.first().map(|inputs| inputs.place);
        match (&self.task, first, self.output) {
            (JobTask::Merge, _, Place::Landing(..)) => LandingMode::Keep,
            (JobTask::Merge, Some(Place::Landing(..)), _) => LandingMode::Drain,
            _ => LandingMode::None,
        }
    }

    /// Does it write nothing but the manifest?
    pub fn is_metadata_only(&self) -> bool {
        self.task != JobTask::Merge
    }

    /// All input slices with their places.
    pub fn slices(&self) -> impl Iterator<Item = (Place, &Slice)> {
        self.inputs.iter().flat_map(|i| i.slices.iter().map(move |slice| (i.place, slice)))
    }

    /// The newest place that it takes slices from.
    pub fn input_place(&self) -> Place {
        self.inputs.first().map_or(self.output, |inputs| inputs.place)
    }

    /// The span of keys that it touches.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Bytes of all inputs: what the job reads, and about the most that it writes.
    pub fn input_bytes(&self) -> u64 {
        self.slices().fold(0, |sum, (_, slice)| sum.saturating_add(slice.file_bytes()))
    }

    /// Since when the oldest table with tombstones among the inputs has had them, in milliseconds
    /// since 1970. `None` if no input has any, or if that is not known.
    pub fn tombstones_since_ms(&self) -> Option<u64> {
        let dead = self.slices().filter(|(_, slice)| slice.may_have_tombstones());
        dead.map(|(_, slice)| slice.table.created_at_ms).filter(|made| *made > 0).min()
    }

    /// Entries of all inputs. An estimate if there are parts of tables.
    pub fn entries_about(&self) -> u64 {
        self.slices().fold(0, |sum, (_, slice)| sum.saturating_add(slice.entries()))
    }

    /// Entries of all inputs; `None` if one is a part of a table, whose entries are only estimated.
    pub fn input_entries(&self) -> Option<u64> {
        self.slices().try_fold(0_u64, |sum, (_, slice)| {
            slice.part.is_none().then(|| sum.saturating_add(slice.entries()))
        })
    }

    /// Do the outputs lie above tables with the same keys?
    pub fn lies_above(&self) -> bool {
        self.older.iter().any(|slices| !slices.is_empty())
    }

    /// May a tombstone of `key` be dropped? Yes if no entry older than the job can have this key.
    /// Never in a landing, because the job has not read the level behind it
    /// (INVARIANT(keep-keeps-tombstones)). Costs a binary search per layer after the output.
    pub fn may_drop_tombstone(&self, key: &[u8]) -> bool {
        !self.output.is_tier()
            && self.older.iter().all(|slices| {
                let at = slices.partition_point(|slice| slice.max_key() < key);
                slices.get(at).is_none_or(|slice| slice.min_key() > key)
            })
    }

    /// Cuts the inputs that reach beyond the job's span. Must be called before the job runs. It may
    /// turn out that a landing has no key in the span. Then the job has no inputs left, and its
    /// edit only records the cuts. Blocks on the disk.
    ///
    /// # Errors
    /// As `Slice::cut`. The job is unchanged then.
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

    /// The new places of the inputs of a job that writes no table. Each input is one or more
    /// pieces. Blocks on the disk if a slice must be cut.
    ///
    /// INVARIANT(landing-in-its-shard): slices that land are cut at the shard bounds.
    ///
    /// # Errors
    /// As `Slice::cut`.
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

    /// The places of the tables that a merge has written.
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

    /// The slices that the job removes from the tree, as they were when it was planned. The caller
    /// compares them with the current version: a slice with the same name but other keys is not the
    /// one that was merged.
    pub fn gone(&self) -> impl Iterator<Item = (Place, &Slice)> {
        let cut = |place: Place, slice: &Slice| {
            let same = |(at, whole): &&(Place, Slice)| *at == place && is_of(slice, whole);
            self.cut.iter().any(|entry| same(&entry))
        };
        let whole = self.slices().filter(move |(place, slice)| !cut(*place, slice));
        whole.chain(self.cut.iter().map(|(place, slice)| (*place, slice)))
    }
}

/// The smallest and the largest key of the inputs; `None` if there is no slice.
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

/// Is the job closed (INVARIANT(oldest-closed))? No slice that stays above the output may be older
/// than an input that it overlaps, or reads would find it before newer entries. If the output's
/// place is a tier, each slice that stays there must be newer than all inputs that it overlaps, or
/// older than all of them, and must have landed at another time than all inputs from there, so that
/// the output has an age. Only keys in `span` count.
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
            let epoch = slice.landed.map(|landed| landed.epoch);
            let taken = inputs.iter().filter(|inputs| inputs.place == output);
            let mut taken = taken.flat_map(|inputs| &inputs.slices);
            let mut newer = overlapped.map(|(_, input)| slice.age() > input.age());
            let first = newer.next();
            return newer.all(|newer| Some(newer) == first)
                && taken.all(|input| input.landed.map(|landed| landed.epoch) != epoch);
        }
        overlapped.all(|(from, input)| place < from || (place == from && slice.age() > input.age()))
    })
}
