//! The range planner: sees to it that ranges part when they have become too large or too hot, and
//! become one again when they have shrunk and cooled down.
//!
//! Owns:      what it remembers of the ranges: how hot each is, and when it was split, merged or
//!            tried last.
//! Receives:  the signal that something has happened (`TablesDue::ranges`), from the version
//!            manager.
//! Sends:     Change to the version manager.
//! Publishes: how hot each range is (`OverlaySizes::show_heat`).
//! Stops:     when the engine has stopped.
//!
//! Nobody waits for it, and no writer or reader does anything for it: it reads counters that are
//! kept anyway, once in a while (`period`), and not at all while nothing happens. Where a range is
//! split it finds out by a look at what is there: tables, or for a hot range the keys in its
//! memtables.

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

/// Between two looks, at most.
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(10);
/// Between two looks, at least.
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(10);

/// A look comes four times in each cooldown, and every ten seconds at least.
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
    /// Attempts at either that came to nothing.
    pub range_tries_failed: Counter,
}

/// The actor. Driven by a thread of its own: it opens tables.
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
    /// What was visible at the last look and at the one before: what came since is recent.
    visible: [Seqno; 2],
    looked: Instant,
    /// When to look again although nothing has happened.
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

    /// What it counts.
    pub fn counts(&self) -> Arc<RangeCounts> {
        Arc::clone(&self.counts)
    }
}
