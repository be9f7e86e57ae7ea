//! A job: which tables are merged into which level, and what others may not touch meanwhile.

use crate::key::Seqno;
use crate::table::TableMeta;
use crate::version::{RangeId, RangeVersion, TableHandle, VersionEdit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables that a job takes from one level, in the level's order (L0: newest first).
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The level.
    pub level: u8,
    /// At least one table.
    pub tables: Vec<Arc<TableHandle>>,
}

/// One compaction. Holds its tables, so their files stay while it runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The range.
    pub range: RangeId,
    /// What goes in, newest level first. The last one may be the output level itself.
    pub inputs: Vec<Inputs>,
    /// Where the result goes.
    pub output_level: u8,
    /// Nothing overlaps: hand the tables down as they are.
    pub is_move: bool,
    /// Tables of the level below the output that overlap the job: where outputs are cut.
    pub grandparents: Vec<Arc<TableHandle>>,
    /// Per level below the output: overlapping tables, sorted. Older entries of a key can only be
    /// there, because everything else that is older is an input.
    deeper: Vec<Vec<Arc<TableHandle>>>,
    min_key: Bytes,
    max_key: Bytes,
}

impl Job {
    /// A job over `inputs`, which must not be empty.
    pub(super) fn new(range: &RangeVersion, inputs: Vec<Inputs>, output_level: u8) -> Self {
        let metas = || inputs.iter().flat_map(|i| i.tables.iter().map(|table| table.meta()));
        let min_key = metas().map(|m| &m.min_key).min().expect("a job has an input").clone();
        let max_key = metas().map(|m| &m.max_key).max().expect("a job has an input").clone();
        let below = output_level + 1..=range.levels.len() as u8;
        let deeper: Vec<_> =
            below.map(|level| range.overlapping(level, &min_key, &max_key)).collect();
        let grandparents = deeper.first().cloned().unwrap_or_default();
        let is_move = false;
        Self {
            range: range.id,
            inputs,
            output_level,
            is_move,
            grandparents,
            deeper,
            min_key,
            max_key,
        }
    }

    /// All input tables with their levels.
    pub fn tables(&self) -> impl Iterator<Item = (u8, &Arc<TableHandle>)> {
        self.inputs.iter().flat_map(|i| i.tables.iter().map(move |table| (i.level, table)))
    }

    /// The shallowest level that the job takes from.
    pub fn input_level(&self) -> u8 {
        self.inputs.first().expect("a job has an input").level
    }

    /// Smallest and largest key of the inputs.
    pub fn bounds(&self) -> (&Bytes, &Bytes) {
        (&self.min_key, &self.max_key)
    }

    /// Bytes of all input files: what the job reads, and at most about what it writes.
    pub fn input_bytes(&self) -> u64 {
        self.tables().fold(0, |sum, (_, table)| sum.saturating_add(table.meta().file_bytes))
    }

    /// Entries of all inputs.
    pub fn input_entries(&self) -> u64 {
        self.tables().fold(0, |sum, (_, table)| sum.saturating_add(table.meta().entries))
    }

    /// May a tombstone of `key` be dropped: can no entry older than the job have this key? Costs a
    /// binary search per deeper level.
    pub fn may_drop_tombstone(&self, key: &[u8]) -> bool {
        self.deeper.iter().all(|tables| {
            let at = tables.partition_point(|table| table.meta().max_key < key);
            tables.get(at).is_none_or(|table| table.meta().min_key > key)
        })
    }

    /// The edit that replaces the inputs by `added` (for a move: by themselves).
    pub fn edit(&self, added: Vec<TableMeta>) -> VersionEdit {
        let deleted =
            self.tables().map(|(level, table)| (self.range, level, table.number())).collect();
        let added = if self.is_move {
            assert!(added.is_empty(), "a move writes nothing");
            self.tables().map(|(_, table)| table.meta().clone()).collect()
        } else {
            added
        };
        let added = added.into_iter().map(|meta| (self.range, self.output_level, meta)).collect();
        VersionEdit { deleted, added, ..VersionEdit::default() }
    }

    /// The highest sequence number in the inputs.
    pub fn max_seqno(&self) -> Seqno {
        self.tables().map(|(_, table)| table.meta().max_seqno).max().unwrap_or_default()
    }
}

/// What running jobs hold, and where the round-robin picks of each level continue.
///
/// Two jobs of a range may run at once only if they share no level or no key: then neither changes
/// what the other planned with, and what a job saw below its output can only sink further.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    held: Vec<Claim>,
    next_id: u64,
    cursors: BTreeMap<(RangeId, u8), Bytes>,
}

#[derive(Clone, Debug)]
struct Claim {
    id: u64,
    range: RangeId,
    levels: (u8, u8),
    min_key: Bytes,
    max_key: Bytes,
}

/// The handle of a claim; give it back to `Claims::release`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim that is not released blocks its tables for ever"]
pub struct ClaimId(u64);

impl Claims {
    /// Nothing runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Could `job` run beside everything that is claimed?
    pub fn admits(&self, job: &Job) -> bool {
        !self.held.iter().any(|claim| {
            claim.range == job.range
                && claim.levels.0 <= job.output_level
                && job.input_level() <= claim.levels.1
                && claim.min_key <= job.max_key
                && job.min_key <= claim.max_key
        })
    }

    /// Records that `job` runs.
    pub fn claim(&mut self, job: &Job) -> ClaimId {
        debug_assert!(self.admits(job), "picked jobs are admitted");
        let id = self.next_id;
        self.next_id += 1;
        self.held.push(Claim {
            id,
            range: job.range,
            levels: (job.input_level(), job.output_level),
            min_key: job.min_key.clone(),
            max_key: job.max_key.clone(),
        });
        if let Some(first) = job.inputs.first()
            && first.level > 0
            && let Some(last) = first.tables.last()
        {
            self.cursors.insert((job.range, first.level), last.meta().max_key.clone());
        }
        ClaimId(id)
    }

    /// The job is over: installed, failed or cancelled.
    #[allow(clippy::needless_pass_by_value, reason = "a claim is given back, not lent")]
    pub fn release(&mut self, claim: ClaimId) {
        self.held.retain(|held| held.id != claim.0);
    }

    /// How many jobs run.
    pub fn running(&self) -> usize {
        self.held.len()
    }

    /// Does a job of this range run that touches this level?
    pub fn touches(&self, range: RangeId, level: u8) -> bool {
        self.held
            .iter()
            .any(|claim| claim.range == range && (claim.levels.0..=claim.levels.1).contains(&level))
    }

    /// Where the next pick of a level continues: after this key.
    pub(super) fn cursor(&self, range: RangeId, level: u8) -> Option<&Bytes> {
        self.cursors.get(&(range, level))
    }
}
