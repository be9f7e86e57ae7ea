//! What was chosen lately, and why: for people who ask.

use sluicedb_kernel::sync::lock;
use sluicedb_storage::compact::{Job, Why};
use sluicedb_storage::version::{Place, RangeId};
use std::collections::VecDeque;
use std::sync::Mutex;

/// So many are remembered.
const KEPT: usize = 64;

/// One choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Of which range.
    pub range: RangeId,
    /// Where its tables were.
    pub from: Place,
    /// Where they go; of several shards the last one.
    pub to: Place,
    /// What was chosen, and the numbers that were compared.
    pub why: Why,
}

/// The last choices of the planner, oldest first.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<VecDeque<Decision>>);

impl Decisions {
    /// `job` was chosen.
    pub(super) fn note(&self, job: &Job, at_ms: u64) {
        let (from, to) = (job.input_place(), job.output);
        let mut kept = lock(&self.0);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Decision { at_ms, range: job.range, from, to, why: job.why });
    }

    /// What there is, oldest first.
    pub fn list(&self) -> Vec<Decision> {
        lock(&self.0).iter().copied().collect()
    }
}
