//! A commit that was admitted by routes which have changed since.
//!
//! It is found out when it is to be stamped, by one comparison, and nothing of it is in the log
//! then (INVARIANT(stamped-by-its-routes)). It keeps its turn and its place in the order: it was
//! admitted, its bytes are in the engine's account, so it is routed again on the spot, and gets
//! room in the new ranges whether or not there is any. What comes on top of their limits so is
//! bounded by the commits that may be in flight.
//!
//! Rejected: to send it back to its caller, who may not poll any more, or to admit it anew from an
//! engine thread, which would let later writes of the same caller pass it.

use super::message::{Commit, Target};
use crate::failure::Failure;
use crate::range_owner::Superversion;
use crate::range_owner::route::Route;
use std::sync::Arc;

/// Has `commit` admitted by the routes of `superversion`. Decodes the batch, as far as routing
/// needs it.
///
/// # Errors
/// That a keyspace of it has been dropped: it is as it was.
#[cold]
pub(super) fn route_again(commit: &mut Commit, superversion: &Superversion) -> Result<(), Failure> {
    let route = Route::of(superversion, &commit.payload, commit.operations)?;
    let targets = route.parts().iter().map(|part| {
        let owner = Arc::clone(&superversion.ranges[part.range as usize].owner);
        let permit = owner.seat.reserve_anyway(part.bytes as u64);
        let local = owner.local.acquire_anyway(owner.budget.local_charge(part.charge()));
        Target { owner, permit, local }
    });
    // The room in the former ranges is given back here.
    commit.targets = targets.collect();
    (commit.route, commit.epoch) = (Arc::new(route), superversion.epoch);
    Ok(())
}
