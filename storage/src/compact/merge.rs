//! Runs a job: merges the inputs and writes durable outputs, but installs nothing.
//!
//! The work is divided into slices, so that the caller can yield, pause or stop between them.
//! Entries are counted on both sides: a job that would lose or invent an entry fails instead of
//! returning.

use super::job::Job;
use super::options::CompactionOptions;
use super::sink::TableSink;
use crate::error::{Error, Result};
use crate::iter::{ConcatCursor, Cursor, MergeCursor};
use crate::key::Kind;
use crate::table::{CursorOptions, ReadTier, TableMeta};
use crate::version::{RunParts, ShardCuts, Slice, runs_of};

/// The most entries of one slice of work. On the fast path that takes a millisecond or two.
const SLICE_ENTRIES: u64 = 4096;
/// A slice of work ends with the entry that makes its keys and values reach this many bytes.
const SLICE_BYTES: u64 = 512 << 10;
/// How far a compaction reads ahead, in bytes.
const READAHEAD_BYTES: usize = 256 << 10;

/// The result of a finished job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOutcome {
    /// The durable output tables, for `Job::outputs`.
    pub added: Vec<TableMeta>,
    /// The number of entries in all inputs.
    pub entries_in: u64,
    /// The number of entries that a newer input superseded.
    pub superseded: u64,
    /// The number of tombstones that were dropped, because they had nothing left to hide.
    pub tombstones_dropped: u64,
    /// The number of entries in all outputs.
    pub entries_out: u64,
}

/// A running job. If it is dropped before `finish`, it removes its outputs.
#[derive(Debug)]
pub struct Merge<'a> {
    job: &'a Job,
    cursor: MergeCursor<ConcatCursor<RunParts>>,
    cut: GrandparentCut<'a>,
    /// Outputs are cut at shard bounds, so that merges of two shards never touch the same table.
    shards: ShardCuts<'a>,
    sink: TableSink<'a>,
    table_bytes_max: u64,
    begun: bool,
    /// Entries that no newer one superseded.
    walked: u64,
    tombstones_dropped: u64,
}

impl<'a> Merge<'a> {
    /// A merge of `job`, which must not be metadata-only. Reads nothing yet.
    pub fn new(job: &'a Job, options: &CompactionOptions, sink: TableSink<'a>) -> Self {
        assert!(!job.is_metadata_only(), "that is an edit, not a merge");
        Self {
            job,
            cursor: MergeCursor::new(sources(job)),
            cut: GrandparentCut::new(job, options),
            // With one table per level, outputs are not cut at shard bounds.
            shards: if options.table_bytes_max == u64::MAX {
                ShardCuts::default()
            } else {
                job.shards.cuts()
            },
            sink,
            table_bytes_max: options.table_bytes_max,
            begun: false,
            walked: 0,
            tombstones_dropped: 0,
        }
    }

    /// Merges one slice of work: up to `SLICE_ENTRIES` and `SLICE_BYTES`, ending at most one
    /// output. Returns whether there is more. Blocks on the disk.
    ///
    /// # Errors
    /// As reading the inputs and writing the outputs. After an error, drop the merge.
    pub fn step(&mut self) -> Result<bool> {
        if !self.begun {
            self.begun = true;
            self.cursor.seek_first()?;
        }
        let (mut bytes, mut ended_output) = (0, false);
        let entries_max = self.entries_in() + SLICE_ENTRIES;
        while self.cursor.valid() {
            if ended_output || bytes >= SLICE_BYTES || self.entries_in() >= entries_max {
                return Ok(true);
            }
            let (key, kind, value) = (self.cursor.key(), self.cursor.kind(), self.cursor.value());
            bytes += (key.len() + value.len()) as u64;
            if kind == Kind::Delete && self.job.may_drop_tombstone(key) {
                self.tombstones_dropped += 1;
            } else {
                let (overlaps, other_shard) = (self.cut.passes(key), self.shards.passes(key));
                if overlaps || other_shard || self.sink.table_bytes() >= self.table_bytes_max {
                    self.sink.cut()?;
                    self.cut.overlap = 0;
                    ended_output = true;
                }
                self.sink.add(key, self.cursor.seqno(), kind, value)?;
            }
            self.cursor.next()?;
            self.walked += 1;
        }
        Ok(false)
    }

    /// The number of entries that were read so far.
    pub fn entries_in(&self) -> u64 {
        self.walked + self.cursor.superseded()
    }

    /// The estimated number of bytes that were written so far.
    pub fn bytes_out(&self) -> u64 {
        self.sink.total_bytes()
    }

    /// Ends the last output and makes all outputs durable. Call it after the last slice of work.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt` if the inputs had another number of entries than their metadata says; else as
    /// `TableSink::finish`.
    pub fn finish(self) -> Result<MergeOutcome> {
        assert!(self.begun && !self.cursor.valid(), "there is more to merge");
        let (entries_in, superseded) = (self.entries_in(), self.cursor.superseded());
        if let Some(expected) = self.job.input_entries()
            && entries_in != expected
        {
            // An output that misses entries must never be installed.
            let what = format!("the inputs have {entries_in} entries, not {expected}");
            let (_, slice) = self.job.slices().next().expect("a job has an input");
            let name = crate::filename::FileKind::Table(slice.number()).name();
            return Err(Error::corrupt(std::path::Path::new(&name), 0, what));
        }
        let added = self.sink.finish()?;
        let tombstones_dropped = self.tombstones_dropped;
        let entries_out: u64 = added.iter().map(|meta| meta.entries).sum();
        assert_eq!(
            entries_in - superseded - tombstones_dropped,
            entries_out,
            "entries in minus dropped are entries out"
        );
        Ok(MergeOutcome { added, entries_in, superseded, tombstones_dropped, entries_out })
    }
}

/// One cursor per run, newest first. They bypass the block cache, so that a compaction evicts
/// nothing from it.
fn sources(job: &Job) -> Vec<ConcatCursor<RunParts>> {
    let options =
        CursorOptions { tier: ReadTier::Disk, fill_cache: false, readahead_bytes: READAHEAD_BYTES };
    let runs = job.inputs.iter().flat_map(|inputs| runs_of(inputs.place, inputs.slices.clone()));
    runs.map(|run| ConcatCursor::new(RunParts::new(run, options))).collect()
}

/// Ends an output before it overlaps too much of the level below. Otherwise the later compaction of
/// that output would have to rewrite all of it.
#[derive(Debug)]
struct GrandparentCut<'a> {
    slices: &'a [Slice],
    passed: usize,
    overlap: u64,
    overlap_max: u64,
}

impl<'a> GrandparentCut<'a> {
    fn new(job: &'a Job, options: &CompactionOptions) -> Self {
        let overlap_max = options.overlap_bytes_max();
        Self { slices: &job.grandparents, passed: 0, overlap: 0, overlap_max }
    }

    /// Advances to `key`. Returns whether the output must end before it.
    #[inline]
    fn passes(&mut self, key: &[u8]) -> bool {
        while let Some(slice) = self.slices.get(self.passed)
            && slice.max_key() < key
        {
            self.overlap = self.overlap.saturating_add(slice.file_bytes());
            self.passed += 1;
        }
        self.overlap >= self.overlap_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::{Claims, ManualCompaction, ManualStep};
    use crate::filename::FileNumber;
    use crate::key::{Seqno, Span};
    use crate::table::{BlockCache, TableOptions};
    use crate::version::testing::slice;
    use crate::version::{Place, RangeId, RangeVersion, Shards, TableCache, TableLimits, Version};
    use crate::vfs::{MemVfs, Vfs};
    use std::path::Path;
    use std::sync::Arc;

    const ENTRIES: u32 = 10_000;

    /// The number of entries in each slice of a merge of `runs` runs with the same keys, and the
    /// outcome. Its output overlaps `below`.
    fn slices(
        runs: u64,
        value_bytes: usize,
        table_bytes_max: u64,
        below: Vec<Slice>,
    ) -> (Vec<u64>, MergeOutcome) {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let dir = Path::new("/db");
        vfs.create_dir_all(dir).unwrap();
        let mut numbers = 1..;
        let mut sink = || {
            let number = FileNumber(numbers.next().expect("endless"));
            let mut last = number.0 << 32;
            TableSink::new(&vfs, dir, [7; 16], TableOptions::default(), move || {
                last += 1;
                FileNumber(last)
            })
        };
        let blocks = BlockCache::new(0);
        let limits = TableLimits { open_max: 8, memory_bytes_max: 1 << 20, blocks };
        let tables = TableCache::new(&vfs, dir, [7; 16], limits);
        let runs = (0..runs).map(|run| {
            let mut sink = sink();
            for n in 0..ENTRIES {
                let value = vec![run as u8; value_bytes];
                sink.add(&n.to_be_bytes(), Seqno(run + 1), Kind::Put, &value).unwrap();
            }
            let meta = sink.finish().unwrap().remove(0);
            Slice::whole(&tables.handle(Arc::new(meta)))
        });
        let mut runs: Vec<_> = runs.collect();
        runs.reverse();
        let mut range = RangeVersion::empty(RangeId::FIRST, Span::all(), Shards::one());
        range.layers = range.layers.with(Place::L0, runs);
        let version = Version::new(vec![Arc::new(range)], Arc::clone(tables.obsolete_files()));
        let ManualStep::Job(mut job) =
            ManualCompaction::whole(crate::keyspace::KeyspaceId::DEFAULT, Span::all())
                .step(&version, &Claims::new())
        else {
            panic!("no job")
        };
        job.grandparents = below;
        let options = CompactionOptions { table_bytes_max, ..CompactionOptions::default() };
        let mut merge = Merge::new(&job, &options, sink());
        let (mut slices, mut before) = (Vec::new(), 0);
        loop {
            let more = merge.step().unwrap();
            slices.push(merge.entries_in() - before);
            before = merge.entries_in();
            if !more {
                return (slices, merge.finish().unwrap());
            }
        }
    }

    /// Planted: slices without a limit of entries, of bytes, of outputs; superseded entries do not
    /// count.
    #[test]
    fn a_slice_is_bounded_in_entries_in_bytes_and_in_outputs() {
        let entries = u64::from(ENTRIES);
        let (by_entries, outcome) = slices(1, 10, u64::MAX, vec![]);
        assert_eq!(by_entries, [SLICE_ENTRIES, SLICE_ENTRIES, entries - 2 * SLICE_ENTRIES]);
        assert_eq!((outcome.entries_in, outcome.entries_out), (entries, entries));

        let (by_bytes, _) = slices(1, 1020, u64::MAX, vec![]);
        let most = SLICE_BYTES / 1024;
        assert_eq!(by_bytes.iter().max(), Some(&most));
        assert_eq!(by_bytes.len() as u64, entries.div_ceil(most));

        let (by_outputs, outcome) = slices(1, 10, 20_000, vec![]);
        assert!(outcome.added.len() > 5, "{}", outcome.added.len());
        assert_eq!(by_outputs.len(), outcome.added.len());

        let (hidden, outcome) = slices(3, 10, u64::MAX, vec![]);
        assert!(hidden.iter().all(|slice| *slice < SLICE_ENTRIES + 3), "{hidden:?}");
        assert_eq!(hidden.iter().sum::<u64>(), 3 * entries);
        assert_eq!((outcome.superseded, outcome.entries_out), (2 * entries, entries));
    }

    /// Planted: no cut; the overlap is counted on after a cut of any kind; after one by size.
    #[test]
    fn an_output_ends_when_it_overlaps_what_one_drain_may_rewrite() {
        let below = |count: u32, bytes: u64| {
            let keys = ENTRIES / count;
            let (min, max) = (|n: u32| n * keys, |n: u32| (n + 1) * keys - 1);
            let one = |n: u32| {
                slice(u64::from(n) + 1, &min(n).to_be_bytes(), &max(n).to_be_bytes(), bytes)
            };
            (0..count).map(one).collect()
        };
        let outputs = |count, bytes| slices(1, 10, bytes, below(count, bytes)).1.added.len();
        let mib = 1 << 20;
        assert_eq!([4, 5, 8, 20].map(|count| outputs(count, mib)), [1, 2, 2, 5]);
        // A table of this size overlaps three of twenty and a half.
        let by_size = slices(1, 10, 30_000, vec![]).1.added.len();
        assert_eq!((by_size, outputs(20, 30_000)), (7, 7));
    }
}
