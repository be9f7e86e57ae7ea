//! What the histories have exercised. A test that never met a compaction proves nothing about
//! compactions: each of these must have happened often enough.

use std::collections::BTreeMap;

/// Something that must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Flush,
    Compaction,
    /// Tables in the first level below L0.
    LevelOne,
    /// Tables deeper than that.
    LevelTwo,
    TrivialMove,
    TombstonesDropped,
    LogRotation,
    LogRecycledOrRemoved,
    NewManifest,
    TableDeleted,
    CleanReopen,
    ReplayingReopen,
    TornReopen,
    PowerCut,
    SnapshotAcrossCompaction,
    IteratorAcrossFlush,
    ColdRead,
    CacheHit,
    WaitForRoom,
    /// Tables in more than one range.
    ManyRanges,
    Split,
    Merge,
    /// Spans were cut out; tables came in over what was there, and in its place.
    DeleteRange,
    Ingest,
    Replace,
    ReplaceFrom,
    BatchOfRange,
    Checkpoint,
    KeyspaceMade,
    KeyspaceDropped,
    AcrossKeyspaces,
    ReplaceFromAnotherKeyspace,
    /// Ranges were split, or merged, and no caller asked for it.
    SplitByItself,
    SplitForHeat,
    MergeByItself,
    /// An open found a change in the log that the manifest waited for.
    ChangeReplayed,
    /// Tables came into a landing, were merged in it, and into its level; its shards were divided
    /// anew.
    Land,
    Keep,
    Drain,
    Reshard,
    /// An open found tables in a landing.
    LandedReopen,
}

impl Event {
    const ALL: [Self; 41] = [
        Self::Flush,
        Self::Compaction,
        Self::LevelOne,
        Self::LevelTwo,
        Self::TrivialMove,
        Self::TombstonesDropped,
        Self::LogRotation,
        Self::LogRecycledOrRemoved,
        Self::NewManifest,
        Self::TableDeleted,
        Self::CleanReopen,
        Self::ReplayingReopen,
        Self::TornReopen,
        Self::PowerCut,
        Self::SnapshotAcrossCompaction,
        Self::IteratorAcrossFlush,
        Self::ColdRead,
        Self::CacheHit,
        Self::WaitForRoom,
        Self::ManyRanges,
        Self::Split,
        Self::Merge,
        Self::DeleteRange,
        Self::Ingest,
        Self::Replace,
        Self::ReplaceFrom,
        Self::BatchOfRange,
        Self::Checkpoint,
        Self::KeyspaceMade,
        Self::KeyspaceDropped,
        Self::AcrossKeyspaces,
        Self::ReplaceFromAnotherKeyspace,
        Self::SplitByItself,
        Self::SplitForHeat,
        Self::MergeByItself,
        Self::ChangeReplayed,
        Self::Land,
        Self::Keep,
        Self::Drain,
        Self::Reshard,
        Self::LandedReopen,
    ];

    /// How often a full run has to meet it.
    fn least(self) -> u64 {
        match self {
            // Needs a write buffer that is full: the histories are too short for many.
            Self::WaitForRoom => 0,
            Self::LogRotation => 200,
            Self::SplitForHeat
            | Self::KeyspaceDropped
            | Self::ReplaceFromAnotherKeyspace
            | Self::MergeByItself
            | Self::TornReopen
            | Self::LogRecycledOrRemoved
            | Self::ChangeReplayed => 30,
            _ => 100,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<Event, u64>,
}

impl Tally {
    pub fn add(&mut self, event: Event, times: u64) {
        *self.counts.entry(event).or_default() += times;
    }

    pub fn merge(&mut self, other: &Self) {
        for (event, times) in &other.counts {
            self.add(*event, *times);
        }
    }

    pub fn count(&self, event: Event) -> u64 {
        self.counts.get(&event).copied().unwrap_or(0)
    }

    /// Panics when something was met too rarely.
    pub fn demand_all(&self) {
        let rare: Vec<_> =
            Event::ALL.iter().filter(|event| self.count(**event) < event.least()).collect();
        assert!(rare.is_empty(), "met too rarely: {rare:?} in {self:#?}");
    }
}
