//! Who is told at once when a party cannot work any more, or when the engine has stopped.

use super::Parts;
use crate::admission::Accounts;
use crate::admission::pressure::{At, Gauges, Meter, Pressure, Stall};
use crate::failure::Listener;
use crate::log_writer::{LogCounts, LogDue};
use crate::range_owner::{Memory, Topology};
use crate::runtime::Environment;
use crate::version_manager::TablesDue;
use sluicedb_kernel::semaphore::Semaphore;
use sluicedb_kernel::sequencer::Sequencer;
use std::sync::{Arc, Weak};

/// Closes the accounts and wakes those who wait.
struct Told {
    accounts: Arc<Accounts>,
    commits: Sequencer,
    /// A weak reference, because the topology holds the failures, which hold this.
    topology: Weak<Topology>,
    log: Arc<LogDue>,
    tables: Arc<TablesDue>,
    memory: Arc<Memory>,
}

/// Finds what the pressure is computed from.
struct Measured {
    topology: Weak<Topology>,
    environment: Arc<Environment>,
    global: Semaphore,
    log: Arc<LogCounts>,
}

impl Measured {
    fn gauges(&self, topology: &Topology) -> Gauges<'_> {
        Gauges {
            config: &self.environment.config,
            global: &self.global,
            disk_full: topology.failures.is_disk_full(),
            log_retained_bytes: self.log.log_retained_bytes.get(),
        }
    }
}

impl Meter for Measured {
    fn pressure(&self) -> Pressure {
        let Some(topology) = self.topology.upgrade() else { return Pressure::default() };
        self.gauges(&topology).pressure(&topology.superversion.load_full())
    }

    fn stall(&self, range: Option<At>, l0_is_full: bool) -> Stall {
        let Some(topology) = self.topology.upgrade() else { return Stall::Queue };
        self.gauges(&topology).stall(&topology.superversion.load_full(), range, l0_is_full)
    }
}

/// Installs the meter and the listener. From here on a trouble changes the pressure, and nobody
/// waits for a stopped engine.
pub(super) fn listen(parts: &Parts, tables: &Arc<TablesDue>) {
    let topology = Arc::downgrade(&parts.topology);
    let environment = Arc::clone(&parts.environment);
    let global = parts.accounts.global.clone();
    let log = Arc::clone(&parts.wal.counts);
    let measured = Weak::clone(&topology);
    parts.accounts.board.measure_with(Box::new(Measured {
        topology: measured,
        environment,
        global,
        log,
    }));
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
        // The keeper has segments to give back if the disk is full.
        self.log.keeping.set();
    }

    fn stopped(&self) {
        // If the topology is gone, nobody waits in it.
        if let Some(topology) = self.topology.upgrade() {
            topology.close_admission(&self.accounts);
        }
        self.commits.fail();
        self.accounts.board.end();
        for signal in [
            &self.tables.compaction,
            &self.tables.flush,
            &self.tables.ranges,
            &self.log.keeping,
            &self.log.sync,
            &self.memory.reclaim_due,
            &self.memory.restock_due,
        ] {
            signal.set();
        }
    }
}
