//! A commit that was admitted by routes which have changed since.
//!
//! It is found out when it is to be stamped, by one comparison, and nothing of it is in the log then
//! (INVARIANT(stamped-by-its-routes)). It keeps its turn and its place in the order: it was admitted, its bytes are
//! in the engine's account, so it is routed again on the spot, and gets room in the new ranges whether or
//! not there is any. What comes on top of their limits so is bounded by the commits that may be in flight.
//!
//! Rejected: to send it back to its caller, who may not poll any more, or to admit it anew from an
//! engine thread, which would let later writes of the same caller pass it.

use super::message::{Commit, Target};
use crate::range_owner::Superversion;
use crate::range_owner::route::Route;
use std::sync::Arc;

/// `commit`, admitted by the routes of `superversion`. Decodes the batch, as far as routing needs it.
#[cold]
pub(super) fn route_again(commit: Commit, superversion: &Superversion) -> Commit {
    let route = Route::of(superversion, &commit.payload, commit.operations);
    let targets = route.parts().iter().map(|part| {
        let owner = Arc::clone(&superversion.ranges[part.range as usize].owner);
        let permit = owner.seat.reserve_anyway(part.bytes as u64);
        let local = owner.local.take_anyway(owner.budget.local_charge(part.charge()));
        Target { owner, permit, local }
    });
    let (targets, epoch) = (targets.collect(), superversion.epoch);
    // The room in the former ranges is given back here.
    Commit { route: Arc::new(route), targets, epoch, ..commit }
}
