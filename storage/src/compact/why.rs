//! Why a job was chosen: the numbers that the choice compared.

use std::fmt;

/// The kind of choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Slices move to the next level as they are, because nothing overlaps.
    Move,
    /// Slices move to a landing as they are, because a merge would rewrite too much now.
    Land,
    /// A landing is merged into itself, because a read would search too many runs.
    Keep,
    /// A landing is merged into its level, because enough has landed to pay for the rewrite.
    Drain,
    /// The tables in front of a level are merged into it, because the range is idle.
    Rest,
    /// Slices are merged into the next level without landing first.
    #[default]
    Merge,
    /// A table with many or old tombstones is merged.
    Tombstones,
    /// A slice that uses little of its file is rewritten, so that the file can be deleted.
    Shrink,
    /// The shard bounds move, because the data is spread unevenly.
    Reshard,
    /// A caller asked for it.
    Manual,
}

impl Choice {
    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Land => "land",
            Self::Keep => "keep",
            Self::Drain => "drain",
            Self::Rest => "rest",
            Self::Merge => "merge",
            Self::Tombstones => "tombstones",
            Self::Shrink => "shrink",
            Self::Reshard => "reshard",
            Self::Manual => "manual",
        }
    }
}

/// A choice and the numbers behind it. Numbers that did not matter to the choice are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Why {
    /// What was chosen.
    pub choice: Choice,
    /// Its urgency; due from 1.0 on.
    pub score: f64,
    /// Bytes of the input slices.
    pub bytes: u64,
    /// Bytes that they overlap in the target level: what a merge rewrites for them.
    pub target_bytes: u64,
    /// The number of runs that they form.
    pub runs: usize,
    /// The estimated share of their entries that newer ones of them supersede.
    pub superseded: f64,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { choice, score, bytes, target_bytes, runs, superseded } = self;
        write!(f, "{}: score {score:.2}, {bytes} bytes in {runs} runs", choice.name())?;
        write!(f, " over {target_bytes}, {:.0} % superseded", superseded * 100.0)
    }
}
