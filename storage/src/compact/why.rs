//! Why a job was chosen: the numbers that were compared.

use std::fmt;

/// What was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Slices go down a level as they are: nothing overlaps.
    Move,
    /// Slices go into a landing as they are: to merge them now would rewrite too much.
    Land,
    /// A landing is merged into itself: a read would look into too many runs.
    Keep,
    /// A landing is merged into its level: what is rewritten is worth it.
    Drain,
    /// What waits in front of a level is merged into it, because nothing is written to the range.
    Rest,
    /// Slices are merged into the next level at once.
    #[default]
    Merge,
    /// Tables that are full of tombstones, or have old ones, are merged.
    Tombstones,
    /// A slice that uses little of its file is written anew, and the file goes.
    Shrink,
    /// The landings are divided at other keys, because the data does not spread.
    Reshard,
    /// Somebody asked for it.
    Order,
}

impl Choice {
    /// Its name, as statistics show it.
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
            Self::Order => "order",
        }
    }
}

/// A choice, and what it was based on. Numbers that the choice does not depend on are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Why {
    /// What was chosen.
    pub choice: Choice,
    /// How urgent it is; due from 1.0 on.
    pub score: f64,
    /// Bytes that go down, or are merged in their landing.
    pub bytes: u64,
    /// Bytes of the level that they go to which they overlap: what a merge rewrites for them.
    pub target_bytes: u64,
    /// Runs that they are in.
    pub runs: usize,
    /// About which share of their entries newer ones hide.
    pub superseded: f64,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { choice, score, bytes, target_bytes, runs, superseded } = self;
        write!(f, "{}: score {score:.2}, {bytes} bytes in {runs} runs", choice.name())?;
        write!(f, " over {target_bytes}, {:.0} % superseded", superseded * 100.0)
    }
}
