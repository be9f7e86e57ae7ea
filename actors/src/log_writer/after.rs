//! The work that a turn of the log leaves behind.

use super::LogDue;
use super::message::{Commit, Committed};
use crate::failure::{Failure, WriteFailure};
use crate::range_owner::RangeOwner;
use sluicedb_kernel::combining::Spent;
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::key::Seqno;
use std::sync::Arc;

/// The work to do after the seat is free. Nobody wakes anyone or touches another seat under the
/// log's seat.
#[derive(Debug, Default)]
pub struct AfterTurn {
    /// Owners of ranges that got a message.
    pub(super) deliver: Vec<Arc<RangeOwner>>,
    /// Numbers that were allotted, with who waits for them.
    pub(super) stamped: Vec<(Reply<Seqno>, Seqno)>,
    pub(super) answers: Vec<(Reply<Committed>, Committed)>,
    /// Commits that were refused. Dropping them gives back their room.
    pub(super) refused: Vec<(Commit, Failure)>,
    /// Must the syncer run?
    pub(super) log_due: bool,
    /// Must the keeper run?
    pub(super) keeper_due: bool,
}

impl AfterTurn {
    /// Applies the entries, as many as belong to one turn; an engine thread applies the others.
    /// Then it answers callers.
    pub fn run(self, due: &LogDue, spent: &mut Spent) {
        if self.log_due {
            due.sync.set();
        }
        if self.keeper_due {
            due.keeping.set();
        }
        for owner in self.deliver {
            owner.seat.settle(spent);
        }
        for (reply, seqno) in self.stamped {
            reply.send(seqno);
        }
        for (reply, committed) in self.answers {
            reply.send(committed);
        }
        for (commit, failure) in self.refused {
            commit.reply.send(Err(WriteFailure::not_applied(failure)));
        }
    }
}
