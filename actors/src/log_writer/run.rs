//! The log writer's turn: the work on one commit under the seat, and the work after it.

use super::LogDue;
use super::after::AfterTurn;
use super::message::Commit;
use super::state::{LogState, Way};
use crate::group_commit::durable::Durable;
use crate::range_owner::Topology;
use crate::range_owner::message::is_heavy;
use sluicedb_kernel::combining::{Handler, Turn};
use std::sync::Arc;

/// The state behind the log's seat.
#[derive(Debug)]
pub struct LogActor {
    /// The log.
    pub state: LogState,
    durable: Arc<Durable>,
    topology: Arc<Topology>,
    due: Arc<LogDue>,
}

impl LogActor {
    pub(super) fn new(
        state: LogState,
        durable: Arc<Durable>,
        topology: Arc<Topology>,
        due: Arc<LogDue>,
    ) -> Self {
        Self { state, durable, topology, due }
    }
}

impl Handler for LogActor {
    type Message = Commit;

    fn handle(&mut self, message: Commit, turn: &mut Turn) {
        let mut after = AfterTurn::default();
        self.state.commit(message, Way::of(&self.topology, &self.durable), &mut after);
        let due = Arc::clone(&self.due);
        turn.defer(move |spent| after.run(&due, spent));
    }

    fn weight(message: &Commit) -> usize {
        message.payload.len()
    }

    fn is_heavy(message: &Commit) -> bool {
        is_heavy(message.payload.len(), message.operations)
    }
}
