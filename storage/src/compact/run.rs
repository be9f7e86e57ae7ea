//! A job, executed: inputs merged, outputs written and durable, nothing installed.
//!
//! Entries are counted on both sides; a job that would lose or invent one fails instead of returning.

use super::job::Job;
use super::options::CompactionOptions;
use super::sink::TableSink;
use crate::error::{Error, Result};
use crate::iter::{ConcatCursor, Cursor, MergeCursor};
use crate::key::Kind;
use crate::table::{CursorOptions, TableMeta, Wait};
use crate::version::{RunParts, Slice, runs_of};

/// The hook is called once per this many entries.
pub const HOOK_EVERY: u64 = 1024;
/// Compaction reads ahead this far, in bytes.
const READAHEAD_BYTES: usize = 256 << 10;

/// What a hook learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries that were read.
    pub entries_in: u64,
    /// Bytes that were written, about.
    pub bytes_out: u64,
}

/// What a hook decides. It may pace the job by taking its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Remove the outputs and return without a result.
    Stop,
}

/// What a finished job made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The output tables, durable, for `Job::edit`.
    pub added: Vec<TableMeta>,
    /// Entries of all inputs.
    pub entries_in: u64,
    /// Entries that a newer input hid.
    pub superseded: u64,
    /// Tombstones that had nothing left to hide.
    pub tombstones_dropped: u64,
    /// Entries of all outputs.
    pub entries_out: u64,
}

/// Runs `job`. `Ok(None)` when `hook` said stop; then, and after an error, the outputs are removed.
/// A move needs no run: `Outcome` would be empty. Blocks on the disk.
pub fn run(
    job: &Job,
    options: &CompactionOptions,
    mut sink: TableSink<'_>,
    hook: &mut dyn FnMut(Progress) -> Control,
) -> Result<Option<Outcome>> {
    assert!(!job.is_move, "a move is an edit, not a merge");
    let mut cursor = MergeCursor::new(sources(job));
    let mut cut = GrandparentCut::new(job, options);
    let (mut walked, mut tombstones_dropped) = (0, 0);
    cursor.seek_first()?;
    while cursor.valid() {
        let key = cursor.key();
        if cursor.kind() == Kind::Delete && job.may_drop_tombstone(key) {
            tombstones_dropped += 1;
        } else {
            if cut.passes(key) || sink.table_bytes() >= options.table_bytes_max {
                sink.cut()?;
            }
            sink.add(key, cursor.seqno(), cursor.kind(), cursor.value())?;
        }
        cursor.next()?;
        walked += 1;
        if walked % HOOK_EVERY == 0 {
            let progress = Progress {
                entries_in: walked + cursor.superseded(),
                bytes_out: sink.total_bytes(),
            };
            if hook(progress) == Control::Stop {
                return Ok(None);
            }
        }
    }
    let superseded = cursor.superseded();
    let entries_in = walked + superseded;
    if let Some(expected) = job.input_entries()
        && entries_in != expected
    {
        // No output that misses entries is ever installed.
        let what = format!("the inputs have {entries_in} entries, not {expected}");
        let (_, slice) = job.slices().next().expect("a job has an input");
        let name = crate::filename::FileKind::Table(slice.number()).name();
        return Err(Error::corrupt(std::path::Path::new(&name), 0, what));
    }
    let added = sink.finish()?;
    let entries_out: u64 = added.iter().map(|meta| meta.entries).sum();
    assert_eq!(
        entries_in - superseded - tombstones_dropped,
        entries_out,
        "entries in minus dropped are entries out"
    );
    Ok(Some(Outcome { added, entries_in, superseded, tombstones_dropped, entries_out }))
}

/// One cursor per run, newest first. Blocks read by compaction do not
/// push others out of the cache.
fn sources(job: &Job) -> Vec<ConcatCursor<RunParts>> {
    let options =
        CursorOptions { wait: Wait::Allowed, fill_cache: false, readahead_bytes: READAHEAD_BYTES };
    let runs = job.inputs.iter().flat_map(|inputs| runs_of(inputs.place, inputs.slices.clone()));
    runs.map(|run| ConcatCursor::new(RunParts::new(run, options))).collect()
}

/// Ends an output before it overlaps too much of the level below, or its own compaction would later
/// drag all of that along.
struct GrandparentCut<'a> {
    slices: &'a [Slice],
    passed: usize,
    overlap: u64,
    overlap_max: u64,
}

impl<'a> GrandparentCut<'a> {
    fn new(job: &'a Job, options: &CompactionOptions) -> Self {
        let overlap_max = options.grandparent_bytes_max();
        Self { slices: &job.grandparents, passed: 0, overlap: 0, overlap_max }
    }

    /// Goes on to `key`; must the output end before it?
    #[inline]
    fn passes(&mut self, key: &[u8]) -> bool {
        while let Some(slice) = self.slices.get(self.passed)
            && slice.max_key() < key
        {
            self.overlap = self.overlap.saturating_add(slice.file_bytes());
            self.passed += 1;
        }
        let cut = self.overlap > self.overlap_max;
        if cut {
            self.overlap = 0;
        }
        cut
    }
}
