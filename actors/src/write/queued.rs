//! A write that is sent: it reserves a place in every queue on its way, then goes into the log
//! writer's mailbox.

use super::pending::{Number, Pending, Stage, Submitted};
use super::waiting::NotSent;
use super::{Rejected, Routed, Write, WritePath};
use crate::admission::gate::{Admission, Charge, Overloaded};
use crate::failure::Scope;
use crate::log_writer::message::{Commit, Committed, Target};
use crate::range_owner::message::{Apply, is_heavy};
use crate::range_owner::route::{Part, Route};
use crate::range_owner::{RangeOwner, Superversion};
use sluicedb_kernel::mailbox::Permit;
use sluicedb_kernel::reply::{Answer, reply};
use sluicedb_kernel::semaphore::Refused;
use sluicedb_kernel::sequencer::Slot;
use std::sync::Arc;

/// A reserved place for one write in every queue on its way.
pub(super) struct Places {
    slot: Slot,
    wal: Permit<Commit>,
    ranges: Vec<(Arc<RangeOwner>, Permit<Apply>)>,
}

/// The queue that had no place.
pub(super) enum Taken {
    Commits,
    Log,
    /// The mailbox of the range at this position of the route.
    Range(usize),
}

impl Taken {
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Commits | Self::Log => Scope::Global,
            Self::Range(_) => Scope::Local,
        }
    }
}

/// How sending a write by the routes of one superversion ended.
enum Sent {
    Submitted(Submitted),
    /// The routes have changed since the write was routed.
    Stale(Write),
}

impl WritePath {
    /// Sends the write to the log writer if every queue has room right now. If the routes have
    /// changed since the write was routed, it is routed again: nobody is told `Overloaded` because
    /// a range is gone.
    pub(super) fn try_send(
        &self,
        superversion: &Superversion,
        write: Write,
    ) -> Result<Submitted, Rejected> {
        let mut sent = self.try_send_by(superversion, write)?;
        loop {
            let mut write = match sent {
                Sent::Submitted(submitted) => return Ok(submitted),
                Sent::Stale(write) => write,
            };
            let superversion = self.topology.superversion.load_full();
            let (bytes, operations) = (&write.payload, write.operations);
            let here = superversion.is_one() || !is_heavy(bytes.len(), operations);
            write.route = match here.then(|| Routed::of(&superversion, bytes, operations)) {
                Some(Err(failure)) => return Err(write.rejected(failure)),
                Some(Ok(routed)) => Some(routed),
                None => None,
            };
            sent = self.try_send_by(&superversion, write)?;
        }
    }

    fn try_send_by(&self, superversion: &Superversion, write: Write) -> Result<Sent, Rejected> {
        let Some(Routed { epoch, route }) = &write.route else {
            return Ok(Sent::Submitted(Submitted::NotRouted(write)));
        };
        if *epoch != superversion.epoch {
            return Ok(Sent::Stale(write));
        }
        let admission = match self.gate.try_admit_many(charges(superversion, route)) {
            Ok(admission) => admission,
            Err(refused) if self.is_gone(refused, *epoch) => return Ok(Sent::Stale(write)),
            Err(refused) => {
                return self.refused(superversion, write, refused).map(Sent::Submitted);
            }
        };
        let owners = owners(superversion, route);
        match self.try_places(&owners, route, write.payload.len() as u64) {
            Ok(places) => {
                let routed = Routed { epoch: *epoch, route: Arc::clone(route) };
                Ok(Sent::Submitted(self.send(write, routed, admission, places)))
            }
            Err((taken, Refused::Full)) => {
                Ok(Sent::Submitted(Submitted::NotAdmitted(write, taken.scope())))
            }
            Err((taken, why)) => {
                match self.not_sent(&write, *epoch, Overloaded { scope: taken.scope(), why }) {
                    NotSent::Gone => Ok(Sent::Stale(write)),
                    NotSent::Failed(failure) => Err(write.rejected(failure)),
                }
            }
        }
    }

    /// Takes a place in the sequencer and one in every mailbox on the way, if all are free right
    /// now. INVARIANT(admission-before-log): all places, or none of them.
    pub(super) fn try_places(
        &self,
        owners: &[Arc<RangeOwner>],
        route: &Route,
        bytes: u64,
    ) -> Result<Places, (Taken, Refused)> {
        let slot = self.commits.try_reserve().map_err(|why| (Taken::Commits, why))?;
        let wal = self.wal.seat.try_reserve(bytes).map_err(|why| (Taken::Log, why))?;
        let mut ranges = Vec::with_capacity(route.parts().len());
        for (at, (part, owner)) in route.parts().iter().zip(owners).enumerate() {
            let owner = Arc::clone(owner);
            match owner.seat.try_reserve(part.bytes as u64) {
                Ok(permit) => ranges.push((owner, permit)),
                Err(why) => return Err((Taken::Range(at), why)),
            }
        }
        Ok(Places { slot, wal, ranges })
    }

    /// When this returns, the write is in the log writer's mailbox or already stamped.
    pub(super) fn send(
        &self,
        write: Write,
        routed: Routed,
        admission: Admission,
        places: Places,
    ) -> Submitted {
        let Routed { epoch, route } = routed;
        let Admission { local, more, global } = admission;
        let targets = std::iter::once(local).chain(more).zip(places.ranges);
        let targets = targets.map(|(local, (owner, permit))| Target { owner, permit, local });
        let Write { payload, payload_crc, operations, durability, in_stages, .. } = write;
        let (stamped, number) = match in_stages.then(reply) {
            Some((stamped, number)) => (Some(stamped), Number::Coming(number)),
            None => (None, Number::Unknown),
        };
        let (reply, answer) = reply();
        let payload_crc = (!is_heavy(payload.len(), operations)).then_some(payload_crc);
        let (targets, slot) = (targets.collect(), places.slot);
        let commit = Commit {
            payload,
            payload_crc,
            operations,
            durability,
            epoch,
            route,
            targets,
            global,
            slot,
            stamped,
            reply,
        };
        self.wal.seat.send(places.wal, commit);
        self.waiting(answer, number)
    }

    pub(super) fn waiting(&self, answer: Answer<Committed>, number: Number) -> Submitted {
        let stage = Stage::Answer(answer, self.commits.clone());
        Submitted::Waiting(Pending { stage, number, health: self.failures.health.clone() })
    }
}

/// The owners of the touched ranges, in route order.
pub(super) fn owners(superversion: &Superversion, route: &Route) -> Vec<Arc<RangeOwner>> {
    let owner = |part: &Part| Arc::clone(&superversion.ranges[part.range as usize].owner);
    route.parts().iter().map(owner).collect()
}

/// The charge on each touched range's account, in route order.
pub(super) fn charges(superversion: &Superversion, route: &Route) -> Vec<Charge> {
    let charge = |part: &Part| {
        let owner = &superversion.ranges[part.range as usize].owner;
        let bytes = part.charge();
        let (account, local_bytes) = (owner.local.clone(), owner.budget.local_charge(bytes));
        Charge { range: part.range, account, bytes, local_bytes }
    };
    route.parts().iter().map(charge).collect()
}
