//! The range planner: it has ranges split that are too large or too hot, and has neighbours merged
//! that have shrunk and cooled down.
//!
//! Owns:      what it remembers of the ranges: how hot each is, and when it was split, merged or
//!            tried last.
//! Receives:  the signal that something has happened (`TablesDue::ranges`), from the version
//!            manager.
//! Sends:     Change to the version manager.
//! Publishes: how hot each range is (`OverlaySizes::show_heat`).
//! Stops:     when the engine has stopped.
//!
//! Nobody waits for it, and no writer or reader works for it. It reads counters that exist anyway,
//! once per `period`, and not at all while nothing happens. The split key comes from what is there:
//! the range's tables, or the keys in its memtables if it is hot.

mod recent;
mod run;
mod state;

use crate::admission::Accounts;
use crate::config::RangePolicy;
use crate::counter::Counter;
use crate::failure::Failures;
use crate::range_owner::Topology;
use crate::runtime::Environment;
use crate::version_manager::TablesDue;
use crate::version_manager::message::VersionMessage;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::key::Seqno;
use state::History;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time between two looks.
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(10);
/// The shortest time between two looks.
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(10);

/// The time between two looks: a quarter of the cooldown, within the limits.
fn period(policy: &RangePolicy) -> Duration {
    (policy.cooldown / 4).clamp(LOOK_PERIOD_MIN, LOOK_PERIOD_MAX)
}

/// Counts since the database was opened.
#[derive(Debug, Default)]
pub struct RangeCounts {
    /// Ranges split because of their bytes.
    pub splits_bytes: Counter,
    /// Ranges split because of their entries.
    pub splits_entries: Counter,
    /// Ranges split because of their heat.
    pub splits_heat: Counter,
    /// Pairs of ranges merged.
    pub merges_cold: Counter,
    /// Splits and merges that were ordered and did not happen.
    pub range_tries_failed: Counter,
}

/// The actor. A thread of its own drives it, because it opens tables.
#[derive(Debug)]
pub struct RangePlanner {
    environment: Arc<Environment>,
    failures: Arc<Failures>,
    accounts: Arc<Accounts>,
    topology: Arc<Topology>,
    due: Arc<TablesDue>,
    versions: Mailbox<VersionMessage>,
    counts: Arc<RangeCounts>,
    history: History,
    /// What was visible at the last look and at the one before. Later entries are recent.
    visible: [Seqno; 2],
    looked: Instant,
    /// When to look again even if nothing happens.
    alarm: Option<Instant>,
}

impl RangePlanner {
    /// A planner of the ranges that `topology` shows.
    pub fn new(
        environment: Arc<Environment>,
        accounts: Arc<Accounts>,
        topology: Arc<Topology>,
        due: Arc<TablesDue>,
        versions: Mailbox<VersionMessage>,
    ) -> Self {
        Self {
            failures: Arc::clone(&topology.failures),
            visible: [topology.visible(); 2],
            looked: environment.now(),
            environment,
            accounts,
            topology,
            due,
            versions,
            counts: Arc::default(),
            history: History::default(),
            alarm: None,
        }
    }

    /// Its counters.
    pub fn counts(&self) -> Arc<RangeCounts> {
        Arc::clone(&self.counts)
    }
}
