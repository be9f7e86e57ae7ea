//! A commit that was admitted by routes which have changed since.
//!
//! The log's turn finds this out by one comparison before it stamps the commit, so nothing of the
//! commit is in the log yet (INVARIANT(stamped-by-its-routes)). The commit keeps its place in the
//! order. It was admitted, and its bytes are in the engine's account, so it is routed again on the
//! spot: it gets room in the new ranges even if they are full. The excess over their limits is
//! bounded by the commits that may be in flight.
//!
//! Two alternatives were rejected. The commit could go back to its caller, but the caller may never
//! poll again. An engine thread could admit it anew, but then later writes of the same caller would
//! overtake it.

use super::message::{Commit, Target};
use crate::failure::Failure;
use crate::range_owner::Superversion;
use crate::range_owner::route::Route;
use std::sync::Arc;

/// Routes `commit` by the routes of `superversion` and takes room in their ranges, full or not.
/// Decodes as much of the batch as routing needs.
///
/// # Errors
/// One of its keyspaces has been dropped. The commit is unchanged then.
#[cold]
pub(super) fn route_again(commit: &mut Commit, superversion: &Superversion) -> Result<(), Failure> {
    let route = Route::of(superversion, &commit.payload, commit.operations)?;
    let targets = route.parts().iter().map(|part| {
        let owner = Arc::clone(&superversion.ranges[part.range as usize].owner);
        let permit = owner.seat.reserve_anyway(part.bytes as u64);
        let local = owner.local.acquire_anyway(owner.budget.local_charge(part.charge()));
        Target { owner, permit, local }
    });
    // This gives back the room in the former ranges.
    commit.targets = targets.collect();
    (commit.route, commit.epoch) = (Arc::new(route), superversion.epoch);
    Ok(())
}
