//! What a turn of the log leaves to do.

use super::LogDue;
use super::message::{Commit, Committed};
use crate::failure::{Failure, WriteFailure};
use crate::range_owner::RangeOwner;
use sluicedb_kernel::combining::Spent;
use sluicedb_kernel::reply::Reply;
use sluicedb_storage::key::Seqno;
use std::sync::Arc;

/// What is done after the seat is released: wakers and other seats are never touched under it.
#[derive(Debug, Default)]
pub struct AfterTurn {
    /// Whose mailboxes got something.
    pub(super) deliver: Vec<Arc<RangeOwner>>,
    /// Numbers that were given out.
    pub(super) stamped: Vec<(Reply<Seqno>, Seqno)>,
    pub(super) answers: Vec<(Reply<Committed>, Committed)>,
    /// With the room that they give back.
    pub(super) refused: Vec<(Commit, Failure)>,
    /// The syncer has something to do.
    pub(super) log_due: bool,
    /// The keeper has.
    pub(super) keeper_due: bool,
}

impl AfterTurn {
    /// Does it: first the entries are applied, as many as belong to one turn, the others by an
    /// engine thread; then callers are told.
    pub fn run(self, due: &LogDue, spent: &mut Spent) {
        if self.log_due {
            due.sync.set();
        }
        if self.keeper_due {
            due.keeping.set();
        }
        for owner in self.deliver {
            owner.seat.deliver_within(spent);
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
