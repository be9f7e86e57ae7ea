//! Who is told at once when somebody cannot work any more, or when the engine has stopped.

use super::Parts;
use crate::admission::Accounts;
use crate::admission::pressure::{Gauges, Pressure};
use crate::failure::Listener;
use crate::kernel::commit::CommitQueue;
use crate::log_writer::LogDue;
use crate::range_owner::{Memory, Topology};
use crate::version_manager::TablesDue;
use std::sync::{Arc, Weak};

/// Closes what is waited for, and wakes those who wait.
struct Told {
    accounts: Arc<Accounts>,
    commits: CommitQueue,
    /// Knows the failures, which know this.
    topology: Weak<Topology>,
    log: Arc<LogDue>,
    tables: Arc<TablesDue>,
    memory: Arc<Memory>,
}

/// From here on a trouble changes the pressure, and nobody waits for an engine that has stopped.
pub(super) fn listen(parts: &Parts, tables: &Arc<TablesDue>) {
    let topology = Arc::downgrade(&parts.topology);
    let environment = Arc::clone(&parts.environment);
    let (global, log) = (parts.accounts.global.clone(), Arc::clone(&parts.wal.counts));
    let measured = Weak::clone(&topology);
    parts.accounts.board.measure_with(move || {
        let Some(topology) = measured.upgrade() else { return Pressure::default() };
        let gauges = Gauges {
            config: &environment.config,
            global: &global,
            disk_full: topology.failures.is_disk_full(),
            log_retained_bytes: log.log_retained_bytes.get(),
        };
        gauges.pressure(&topology.superversion.load_full())
    });
    parts.failures.tell(Box::new(Told {
        accounts: Arc::clone(&parts.accounts),
        commits: parts.topology.commits.clone(),
        topology,
        log: Arc::clone(&parts.wal.due),
        tables: Arc::clone(tables),
        memory: Arc::clone(&parts.memory),
    }));
}

impl Listener for Told {
    fn changed(&self) {
        self.accounts.board.look();
    }

    fn stopped(&self) {
        // Nobody is in a topology that is gone.
        if let Some(topology) = self.topology.upgrade() {
            topology.close_admission(&self.accounts);
        }
        self.commits.fail();
        self.accounts.board.end();
        for signal in [
            &self.tables.compaction,
            &self.tables.flush,
            &self.log.keeping,
            &self.log.sync,
            &self.memory.reclaim_due,
            &self.memory.upkeep_due,
        ] {
            signal.set();
        }
    }
}
