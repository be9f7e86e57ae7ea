//! A write for which there was no room: it waits, or is told why waiting cannot help.

use super::pending::Submitted;
use super::queued::{Taken, charges, owners};
use super::{Rejected, Routed, WaitLimit, Write, WritePath};
use crate::admission::gate::Overloaded;
use crate::admission::waits::{Stopwatch, WaitPlace};
use crate::failure::{Failure, Scope, WriteFailure};
use crate::range_owner::Superversion;
use crate::range_owner::message::is_heavy;
use crate::range_owner::route::Part;
use crate::runtime::pool::NotRun;
use crate::version_manager::ask_for_room;
use crate::version_manager::message::Shortage;
use bytes::Bytes;
use futures::future::{Either, pending, select};
use sluicedb_kernel::semaphore::Refused;
use sluicedb_storage::batch::memory_bytes;
use sluicedb_storage::version::RangeId;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Why a write that waited for room was not sent.
pub(super) enum NotSent {
    /// A range whose room it needed is gone.
    Gone,
    Failed(WriteFailure),
}

impl From<WriteFailure> for NotSent {
    fn from(failure: WriteFailure) -> Self {
        Self::Failed(failure)
    }
}

impl WritePath {
    /// What follows from the refusal of `write`, which is routed by `superversion`.
    pub(super) fn refused(
        &self,
        superversion: &Superversion,
        write: Write,
        refused: Overloaded,
    ) -> Result<Submitted, Rejected> {
        match refused.why {
            Refused::Full => {
                if let Some(shortage) = shortage(superversion, &write, refused.scope) {
                    ask_for_room(&self.versions, shortage);
                }
                Ok(Submitted::NotAdmitted(write, refused.scope))
            }
            Refused::TooLarge | Refused::Closed => {
                let failure = self.never(&write, refused);
                Err(write.rejected(failure))
            }
        }
    }

    /// The failure for a refusal that waiting cannot change.
    fn never(&self, write: &Write, refused: Overloaded) -> WriteFailure {
        WriteFailure::not_applied(match refused.why {
            Refused::TooLarge => Failure::storage(sluicedb_storage::Error::invalid(format!(
                "the batch needs {} bytes of write buffer, more than there is",
                memory_bytes(write.payload.len(), write.operations)
            ))),
            Refused::Full | Refused::Closed => self.failures.why_stopped(),
        })
    }

    /// What a refusal, by the routes of `epoch`, means for a write that asked for a place or
    /// waited.
    pub(super) fn not_sent(&self, write: &Write, epoch: u64, refused: Overloaded) -> NotSent {
        if self.is_gone(refused, epoch) { NotSent::Gone } else { self.never(write, refused).into() }
    }

    /// Resolves once the write is in the log, or queued for it in its final order.
    ///
    /// # Errors
    /// `Overloaded` if there is no room and no `limit`, or no room until the deadline; as
    /// `submit`. Nothing has happened then.
    ///
    /// # Cancellation
    /// If it is dropped, nothing has happened.
    pub async fn admitted(
        &self,
        submitted: Submitted,
        limit: WaitLimit,
    ) -> Result<Submitted, Rejected> {
        let submitted = match submitted {
            Submitted::NotRouted(write) => self.route_and_submit(write, limit).await?,
            submitted => submitted,
        };
        match submitted {
            Submitted::NotAdmitted(write, scope) if limit == WaitLimit::Never => {
                let failure = self.overloaded(&write, scope);
                Err(write.rejected(failure))
            }
            Submitted::NotAdmitted(write, _) => self.admit_and_submit(write, limit).await,
            submitted => Ok(submitted),
        }
    }

    /// The error for `write`, which was not admitted and must not wait.
    fn overloaded(&self, write: &Write, scope: Scope) -> WriteFailure {
        if let Some(failure) = self.failures.refusal(false, |range| self.touches(write, range)) {
            return WriteFailure::not_applied(failure);
        }
        self.too_much(scope, Duration::ZERO)
    }

    fn too_much(&self, scope: Scope, waited: Duration) -> WriteFailure {
        match scope {
            Scope::Local => self.accounts.overloaded_local.add(1),
            Scope::Global => self.accounts.overloaded_global.add(1),
        }
        WriteFailure::not_applied(Failure::Overloaded { scope, waited })
    }

    /// Has an engine thread find the ranges that `write` touches, then sends the write if there is
    /// room. As in `submit`, a deadline that has already passed does not fail the write.
    ///
    /// # Errors
    /// `Overloaded` if no thread has routed it by the deadline, or if the queue has no place; as
    /// `submit`.
    ///
    /// # Cancellation
    /// If it is dropped, nothing has happened.
    pub(super) async fn route_and_submit(
        &self,
        mut write: Write,
        limit: WaitLimit,
    ) -> Result<Submitted, Rejected> {
        loop {
            match self.found_route(&write, limit).await {
                Ok(routed) => write.route = Some(routed),
                Err(failure) => return Err(write.rejected(failure)),
            }
            match self.try_send(&self.topology.superversion.load_full(), write)? {
                // The routes have changed meanwhile.
                Submitted::NotRouted(again) => write = again,
                submitted => return Ok(submitted),
            }
        }
    }

    async fn found_route(&self, write: &Write, limit: WaitLimit) -> Result<Routed, WriteFailure> {
        let find = self.find_route(write.operations);
        let routed = self.work_elsewhere(write.payload.clone(), find, limit).await;
        routed.map_err(|(_, failure)| failure)?
    }

    /// Has an engine thread do `work` on `input`, because it is too heavy for this thread. With
    /// `Never`, and with a deadline that has passed, it takes a place in the threads' queue that is
    /// free now, and then waits for the work. Before a deadline it waits for a place and for the
    /// thread. The queue keeps no input of a caller who has given up.
    ///
    /// # Errors
    /// `Overloaded` if there is no place, or if the work has not begun by the deadline; the reason
    /// why the engine has stopped. With the input.
    ///
    /// # Cancellation
    /// If it is dropped before the work begins, nothing has happened.
    pub async fn work_elsewhere<I, T>(
        &self,
        input: I,
        work: impl FnOnce(&I) -> T + Send + 'static,
        limit: WaitLimit,
    ) -> Result<T, (I, WriteFailure)>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let began = self.environment.now();
        let mut waits = true;
        let done = match limit {
            WaitLimit::Forever => self.reads.run_on(input, work, pending()).await,
            WaitLimit::Until(deadline) if deadline > began => {
                let late = self.environment.runtime.sleep_until(deadline);
                self.reads.run_on(input, work, late).await
            }
            WaitLimit::Until(_) | WaitLimit::Never => {
                waits = false;
                self.reads.try_run_on(input, work).await
            }
        };
        done.map_err(|(input, why)| {
            let failure = match why {
                NotRun::GivenUp(()) if waits => {
                    let waited = self.environment.now().saturating_duration_since(began);
                    self.too_much(Scope::Global, waited)
                }
                NotRun::GivenUp(()) => self.too_much(Scope::Global, Duration::ZERO),
                NotRun::Failed(failure) => WriteFailure::not_applied(failure),
            };
            (input, failure)
        })
    }

    /// The routing of a payload, for an engine thread. It loads the superversion when it runs and
    /// does not hold one before: see `admit_and_send`.
    fn find_route(
        &self,
        operations: u32,
    ) -> impl FnOnce(&Bytes) -> Result<Routed, WriteFailure> + Send + 'static {
        let topology = Arc::clone(&self.topology);
        move |payload| Routed::of(&topology.superversion.load_full(), payload, operations)
    }

    /// Waits for room, then sends.
    ///
    /// # Errors
    /// `Overloaded` at the deadline. The reason why the room cannot become free, such as `NoSpace`
    /// while the disk is full. The reason why the engine has stopped. Nothing has happened then.
    ///
    /// # Cancellation
    /// If it is dropped, nothing has happened. Room that it was already granted goes to the next
    /// waiter.
    pub(super) async fn admit_and_submit(
        &self,
        mut write: Write,
        limit: WaitLimit,
    ) -> Result<Submitted, Rejected> {
        let mut stopwatch = Stopwatch::start(&self.accounts, &self.environment);
        loop {
            let sent = {
                let admit = pin!(self.admit_and_send(&write, &mut stopwatch));
                let give_up = pin!(self.give_up(&write, limit));
                match select(admit, give_up).await {
                    Either::Left((sent, _)) => Either::Left(sent),
                    Either::Right((why, _)) => Either::Right(why),
                }
            };
            match sent {
                Either::Left(Ok(submitted)) => return Ok(submitted),
                Either::Left(Err(NotSent::Gone)) => {}
                Either::Left(Err(NotSent::Failed(failure))) => return Err(write.rejected(failure)),
                Either::Right(why) => return Err(write.rejected(self.given_up(why, &stopwatch))),
            }
            // The routes have changed. The new ones say whose room the write waits for.
            let superversion = self.topology.superversion.load_full();
            let heavy = is_heavy(write.payload.len(), write.operations);
            let routed = if heavy && !superversion.is_one() {
                drop(superversion);
                let find = self.find_route(write.operations);
                let give_up = self.give_up(&write, limit);
                match self.reads.run_on(write.payload.clone(), find, give_up).await {
                    Ok(routed) => routed,
                    Err((_, NotRun::GivenUp(why))) => Err(self.given_up(why, &stopwatch)),
                    Err((_, NotRun::Failed(why))) => Err(WriteFailure::not_applied(why)),
                }
            } else {
                Routed::of(&superversion, &write.payload, write.operations)
            };
            match routed {
                Ok(routed) => write.route = Some(routed),
                Err(failure) => return Err(write.rejected(failure)),
            }
        }
    }

    /// The writer's error for what `give_up` resolved to.
    fn given_up(&self, why: Option<Failure>, stopwatch: &Stopwatch<'_>) -> WriteFailure {
        match why {
            Some(failure) => WriteFailure::not_applied(failure),
            None => self.too_much(stopwatch.scope(), stopwatch.elapsed()),
        }
    }

    /// Waits for one account or queue that has no room.
    ///
    /// INVARIANT(nothing-held-while-waiting): meanwhile it holds nothing of any other, because this
    /// future may never be polled again. It does not hold the superversion either: that would keep
    /// flushed memtables in memory although their bytes are back in the accounts. It waits for
    /// bytes first, since places in queues become free within one turn of an actor.
    async fn admit_and_send(
        &self,
        write: &Write,
        stopwatch: &mut Stopwatch<'_>,
    ) -> Result<Submitted, NotSent> {
        let routed = write.route.as_ref().expect("a write is routed before it waits for room");
        let (owners, charges) = {
            let superversion = self.topology.superversion.load_full();
            if routed.epoch != superversion.epoch {
                return Err(NotSent::Gone);
            }
            (owners(&superversion, &routed.route), charges(&superversion, &routed.route))
        };
        let bytes = write.payload.len() as u64;
        let stopped = |_| WriteFailure::not_applied(self.failures.why_stopped());
        loop {
            let admit = self.gate.admit_many(charges.clone());
            let admitted = stopwatch.along(admit, |admit| match admit.waiting_range() {
                Some(at) => owners[at].place(routed.route.parts()[at].range),
                None => WaitPlace::Engine,
            });
            let admission = match admitted.await {
                Ok(admission) => admission,
                Err(refused) => return Err(self.not_sent(write, routed.epoch, refused)),
            };
            let taken = match self.try_places(&owners, &routed.route, bytes) {
                Ok(places) => {
                    return Ok(self.send(write.clone(), routed.clone(), admission, places));
                }
                Err((taken, Refused::Full)) => taken,
                Err((taken, why)) => {
                    return Err(self.not_sent(
                        write,
                        routed.epoch,
                        Overloaded { scope: taken.scope(), why },
                    ));
                }
            };
            drop(admission);
            match taken {
                Taken::Commits => {
                    let place = self.commits.reserve();
                    drop(stopwatch.during(WaitPlace::Engine, place).await.map_err(stopped)?);
                }
                Taken::Log => {
                    let place = self.wal.seat.reserve(bytes);
                    drop(stopwatch.during(WaitPlace::Engine, place).await.map_err(stopped)?);
                }
                Taken::Range(at) => {
                    let part = &routed.route.parts()[at];
                    let owner = Arc::clone(&owners[at]);
                    let place = owner.seat.reserve(part.bytes as u64);
                    let at = owner.place(part.range);
                    if let Err(why) = stopwatch.during(at, place).await {
                        return Err(self.not_sent(
                            write,
                            routed.epoch,
                            Overloaded { scope: Scope::Local, why },
                        ));
                    }
                }
            }
        }
    }

    /// Resolves when waiting makes no sense any more: at the deadline (`None`), or with the reason
    /// why the room cannot become free: the disk is full, or the range cannot be flushed.
    async fn give_up(&self, write: &Write, limit: WaitLimit) -> Option<Failure> {
        let for_ever = matches!(limit, WaitLimit::Forever);
        let touches = |range| self.touches(write, range);
        let refused = pin!(self.failures.until_refused(for_ever, touches));
        match limit {
            WaitLimit::Never => None,
            WaitLimit::Forever => Some(refused.await),
            WaitLimit::Until(deadline) => {
                let sleep = self.environment.runtime.sleep_until(deadline);
                match select(refused, sleep).await {
                    Either::Left((failure, _)) => Some(failure),
                    Either::Right(((), _)) => None,
                }
            }
        }
    }

    /// Does the write need room in this range?
    fn touches(&self, write: &Write, range: RangeId) -> bool {
        let Some(Routed { epoch, route }) = &write.route else { return true };
        let superversion = self.topology.superversion.load();
        let is_in = |part: &Part| superversion.ranges[part.range as usize].id() == range;
        // A write by old routes needs room in other ranges. It is about to find that out.
        *epoch == superversion.epoch && route.parts().iter().any(is_in)
    }
}

/// Whose room `write` lacks that was refused. `None` if the range has it by now, or gives it to
/// those who wait in line.
fn shortage(superversion: &Superversion, write: &Write, scope: Scope) -> Option<Shortage> {
    if scope == Scope::Global {
        let bytes = memory_bytes(write.payload.len(), write.operations);
        return Some(Shortage::Engine { bytes });
    }
    let parts = write.route.iter().flat_map(|routed| routed.route.parts());
    let mut short = parts.filter_map(|part| {
        let owner = &superversion.ranges[part.range as usize].owner;
        let bytes = owner.budget.local_charge(part.charge());
        let lacks = owner.local.used() + bytes > owner.local.limit();
        lacks.then_some(Shortage::Range { range: owner.id, bytes })
    });
    short.next()
}
