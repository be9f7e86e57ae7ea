//! Counts of what the histories have exercised. A test without a compaction proves nothing about
//! compactions, so each of these must have happened often enough.

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
    /// Spans were deleted; tables were ingested over the content, and in its place.
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
    /// Ranges were split, or merged, without a caller's order.
    SplitByItself,
    SplitForHeat,
    MergeByItself,
    /// An open found a change in the log that the manifest lacked.
    ChangeReplayed,
    /// Tables landed, were merged in the landing, and were merged into its level; its shards were
    /// divided anew.
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

    /// How often a full run must see it.
    fn least(self) -> u64 {
        match self {
            // This needs a full write buffer: the histories are too short for many.
            Self::WaitForRoom => 0,
            Self::LogRotation => 200,
            // Met 30 to 120 times. How often depends on when engine threads run.
            Self::SplitForHeat
            | Self::KeyspaceDropped
            | Self::ReplaceFromAnotherKeyspace
            | Self::MergeByItself
            | Self::TornReopen
            | Self::LogRecycledOrRemoved
            | Self::ChangeReplayed => 10,
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

    /// Panics when an event was too rare.
    pub fn demand_all(&self) {
        let rare: Vec<_> =
            Event::ALL.iter().filter(|event| self.count(**event) < event.least()).collect();
        assert!(rare.is_empty(), "met too rarely: {rare:?} in {self:#?}");
    }
}
