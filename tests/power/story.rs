//! The cells of the matrix, the batches, and the record of the acknowledgements.

use crate::kit::chance::Chance;
use crate::kit::oracle::Change;
use crate::kit::settings;
use sluicedb::{Durability, Options};
use std::fmt::{self, Display};
use std::str::FromStr;

/// The writers of a life, whether they write this time or not.
pub const TASKS: usize = 16;
const SLOTS: usize = 150;
/// One letter in each of four ranges.
const LETTERS: [char; 4] = ['b', 'h', 'p', 'v'];

/// The durability of the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityMix {
    Synced,
    Buffered,
    Mixed,
}

/// One way of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub tasks: usize,
    pub durability: DurabilityMix,
    pub mapped: bool,
    /// Log segments of 64 KiB, or of 1 MiB.
    pub small: bool,
    pub ranges: usize,
}

/// A fast writer reports only every so many of its acknowledged buffered batches. It reports all
/// others.
pub const SAID_EVERY: u64 = 64;

impl Cell {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for number in 0..48 {
            all.push(Self {
                tasks: [TASKS, 1][number % 2],
                mapped: number / 2 % 2 == 0,
                durability: [DurabilityMix::Buffered, DurabilityMix::Mixed, DurabilityMix::Synced]
                    [number / 4 % 3],
                small: number / 12 % 2 == 0,
                ranges: [LETTERS.len(), 1][number / 24],
            });
        }
        all
    }

    /// Whether its name has all of these words.
    pub fn has(self, words: &str) -> bool {
        let name = self.to_string();
        words.split(',').all(|word| name.split('-').any(|own| own == word.trim()))
    }

    /// Options so small that tables and segments are made and deleted all the time, or, with a
    /// large memtable, so that many segments are needed.
    pub fn options(self, chance: &mut Chance) -> Options {
        let mut options = settings::tiny();
        options.memtable_bytes = Some(chance.pick(&[16 << 10, 256 << 10, 16 << 20]));
        options.write_buffer_bytes = Some(64 << 20);
        options.memory_budget_bytes = 128 << 20;
        options.table_bytes_max = 64 << 10;
        options.commits_in_flight_max = 1024;
        options.log_segment_bytes = if self.small { 64 << 10 } else { 1 << 20 };
        options.log_retained_bytes_max = Some(64 << 20);
        options.log_mapped = self.mapped;
        if self.ranges > 1 {
            options.initial_split_keys = [b"f", b"m", b"t"].map(|key| key.to_vec()).into();
        }
        options
    }

    /// The durability of a batch.
    pub fn durability(self, chance: &mut Chance) -> Durability {
        match self.durability {
            DurabilityMix::Synced => Durability::Synced,
            DurabilityMix::Mixed if chance.one_in(8) => Durability::Synced,
            DurabilityMix::Buffered | DurabilityMix::Mixed => Durability::Buffered,
        }
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = if self.tasks == 1 { "1task" } else { "16tasks" };
        let durability = match self.durability {
            DurabilityMix::Synced => "synced",
            DurabilityMix::Buffered => "buffered",
            DurabilityMix::Mixed => "mixed",
        };
        let mapped = if self.mapped { "mapped" } else { "unmapped" };
        let size = if self.small { "small" } else { "large" };
        let ranges = if self.ranges == 1 { "1range" } else { "4ranges" };
        write!(f, "{tasks}-{durability}-{mapped}-{size}-{ranges}")
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|cell| cell.to_string() == name);
        found.ok_or_else(|| format!("no cell is called {name}"))
    }
}

/// All facts about one cut that the disk does not hold.
#[derive(Clone, Debug)]
pub struct Setup {
    pub cell: Cell,
    /// Decides the content of all batches of a life, and the options.
    pub seed: u64,
    /// Whether the writer reports every acknowledgement.
    pub says_all: bool,
    /// The number of batches of each task before this cut.
    pub first: Vec<u64>,
}

impl Setup {
    pub fn options(&self) -> Options {
        self.cell.options(&mut Chance::new(self.seed))
    }
}

impl Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<_> = self.first.iter().map(u64::to_string).collect();
        write!(f, "{} {} {} {}", self.cell, self.seed, self.says_all, first.join(","))
    }
}

impl FromStr for Setup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let [cell, seed, says_all, first] = words[..] else {
            return Err(format!("not a setup: {text}"));
        };
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        let first = first.split(',').map(number).collect::<Result<_, _>>()?;
        let says_all = says_all == "true";
        Ok(Self { cell: cell.parse()?, seed: number(seed)?, says_all, first })
    }
}

/// The task whose keys have this shape.
pub fn task_of(key: &[u8]) -> Option<usize> {
    std::str::from_utf8(key.get(2..4)?).ok()?.parse().ok()
}

/// The key that holds a task's number of batches.
pub fn mark_of(task: usize) -> Vec<u8> {
    format!("{}/{task:02}/mark", LETTERS[task % LETTERS.len()]).into_bytes()
}

/// The changes of batch `number` of a task: keys of its own in all ranges, and its mark. In every
/// other life there is hardly more than the mark, so that very many batches meet at the log: the
/// log then leaves a segment at any moment, the rare ones included.
pub fn changes(seed: u64, task: usize, number: u64) -> Vec<Change> {
    let mut chance = Chance::new(seed ^ (task as u64) << 56 ^ number << 8);
    let mut changes = Vec::new();
    let light = seed.is_multiple_of(2);
    let count = if light { usize::from(chance.one_in(4)) } else { chance.between(1, 5) };
    for _ in 0..count {
        let letter = chance.pick(&LETTERS);
        let key = format!("{letter}/{task:02}/{:03}", chance.below(SLOTS)).into_bytes();
        if chance.one_in(6) {
            changes.push(Change::Delete(key));
            continue;
        }
        let len =
            if chance.one_in(20) { chance.between(1000, 8000) } else { chance.between(0, 400) };
        let mut value = format!("{number} ").into_bytes();
        value.extend(chance.bytes(len));
        changes.push(Change::Put(key, value));
    }
    changes.push(Change::Put(mark_of(task), (number + 1).to_string().into_bytes()));
    changes
}

/// The writer's reports, in the order of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A batch was acknowledged, as `Synced` or not. Reported before the task begins another one.
    Acked { task: usize, number: u64, synced: bool },
    /// `Db::sync` is about to be called.
    SyncBegun,
    /// It returned.
    SyncDone,
    /// Reported by the rig: the power is cut now. A later report may be true of a disk that was
    /// already cut off: the kernel lets a last sync of reserved blocks succeed without them.
    Cut,
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acked { task, number, synced: false } => write!(f, "acked {task} {number}"),
            Self::Acked { task, number, synced: true } => write!(f, "synced {task} {number}"),
            Self::SyncBegun => write!(f, "sync begun"),
            Self::SyncDone => write!(f, "sync done"),
            Self::Cut => write!(f, "cut"),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let what = || format!("not an event: {line}");
        match words[..] {
            ["sync", "begun"] => Ok(Self::SyncBegun),
            ["sync", "done"] => Ok(Self::SyncDone),
            ["cut"] => Ok(Self::Cut),
            [kind @ ("acked" | "synced"), task, number] => Ok(Self::Acked {
                task: task.parse().map_err(|_| what())?,
                number: number.parse().map_err(|_| what())?,
                synced: kind == "synced",
            }),
            _ => Err(what()),
        }
    }
}
