//! What the planner chose lately, and why. For diagnostics.

use sluicedb_kernel::sync::lock;
use sluicedb_storage::compact::{Job, Why};
use sluicedb_storage::version::{Place, RangeId};
use std::collections::VecDeque;
use std::sync::Mutex;

/// How many choices are kept.
const KEPT: usize = 64;

/// One choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The range of the job.
    pub range: RangeId,
    /// The place of its inputs.
    pub from: Place,
    /// The place of its outputs; the last one if there are several shards.
    pub to: Place,
    /// The rule that chose it, and the numbers that were compared.
    pub why: Why,
}

/// The last choices of the planner, oldest first.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<VecDeque<Decision>>);

impl Decisions {
    /// Notes that `job` was chosen.
    pub(super) fn note(&self, job: &Job, at_ms: u64) {
        let (from, to) = (job.input_place(), job.output);
        let mut kept = lock(&self.0);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Decision { at_ms, range: job.range, from, to, why: job.why });
    }

    /// The choices that are kept, oldest first.
    pub fn list(&self) -> Vec<Decision> {
        lock(&self.0).iter().copied().collect()
    }
}
