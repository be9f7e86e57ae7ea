//! What keeps the engine's parties from working, for now or for good, and what follows for others.
//!
//! Guarantees: a party's trouble is shown (`health`) from its failure to its next success. A write
//! whose room cannot come is refused with the reason instead of waiting. Three table syncs that
//! fail in a row end the engine. The first failure is the one that everybody is told.
//!
//! Does not: decide when something is tried again. Each party keeps its own pauses, which
//! `Attempts::ask` cuts short. It does not know who waits for what either: its [`Listener`] does.

use super::attempts::Attempts;
use super::damage::Damage;
use super::{Concern, Failure, Party};
use crate::failure::health::{Down, Health, State};
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_kernel::reply::{Answer, Reply, reply};
use sluicedb_kernel::signal::Signal;
use sluicedb_storage::reserve::SpaceReserve;
use sluicedb_storage::version::RangeId;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Told of changes at once. Called on any thread; must not wait.
pub trait Listener: Send + Sync {
    /// A party cannot work any more, or can again.
    fn changed(&self);
    /// The engine has failed or was closed. Nobody must go on waiting for it.
    fn stopped(&self);
}

/// Which parties cannot work, and whether the engine goes on. There is one per engine.
pub struct Failures {
    /// The first failure, and the parties that cannot work for now.
    pub health: Health<Concern, Failure>,
    /// Counts of jobs that fail.
    pub attempts: Attempts,
    /// Space set aside for a full disk.
    pub reserve: SpaceReserve,
    /// The reserve was released. Wakes the version manager, which looks for room.
    pub reserve_due: Signal,
    /// Tables that were found damaged.
    pub damage: Arc<Damage>,
    listener: OnceLock<Box<dyn Listener>>,
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Concern {
    /// Does this concern make a write fail that needs room in the ranges of `touches`? A compaction
    /// trouble does not: it matters only where it keeps a flush from running, and then the flush
    /// has a trouble. A full disk concerns every range. While the reserve is in use, flushes go on
    /// in it and make room.
    fn stops_writes(&self, failure: &Failure, touches: impl Fn(RangeId) -> bool) -> bool {
        let goes_on = matches!(self.party, Party::Compaction | Party::Reserve);
        !goes_on && (failure.is_no_space() || self.range.is_none_or(touches))
    }
}

impl Health<Concern, Failure> {
    /// Why the engine has stopped, if it has.
    pub fn stopped_by(&self) -> Option<Failure> {
        match self.check() {
            Ok(()) => None,
            Err(Down::Failed(failure)) => Some(failure),
            Err(Down::Closed(failure)) => Some(failure.unwrap_or(Failure::Closed)),
        }
    }

    /// The reason, for callers who have just learnt that something stopped.
    pub fn why_stopped(&self) -> Failure {
        self.stopped_by().unwrap_or(Failure::Closed)
    }
}

impl Failures {
    /// No failure so far.
    pub fn new(reserve: SpaceReserve) -> Self {
        Self {
            health: Health::new(),
            attempts: Attempts::default(),
            reserve,
            reserve_due: Signal::new(),
            damage: Arc::default(),
            listener: OnceLock::new(),
        }
    }

    /// Installs the listener. There is one.
    pub fn tell(&self, listener: Box<dyn Listener>) {
        assert!(self.listener.set(listener).is_ok(), "there is one listener");
    }

    /// Has the engine failed or been closed?
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.health.check().is_err()
    }

    /// Is the engine neither failed nor closed?
    ///
    /// # Errors
    /// Why it has stopped.
    pub fn check(&self) -> Result<(), Failure> {
        self.stopped_by().map_or(Ok(()), Err)
    }

    /// Why the engine has stopped, if it has.
    pub fn stopped_by(&self) -> Option<Failure> {
        self.health.stopped_by()
    }

    /// The reason, for callers who have just learnt that something stopped.
    pub fn why_stopped(&self) -> Failure {
        self.health.why_stopped()
    }

    /// Stops the engine for good because of `failure`: no further write or acknowledgement; reads
    /// go on. The first failure is the one that everybody is told.
    pub fn fail(&self, failure: Failure) {
        if self.health.fail(failure) {
            self.tell_stopped();
        }
    }

    /// Ends the engine.
    pub fn shut(&self) {
        self.health.close();
        self.tell_stopped();
    }

    fn tell_stopped(&self) {
        if let Some(listener) = self.listener.get() {
            listener.stopped();
        }
        self.reserve_due.set();
    }

    fn tell_changed(&self) {
        if let Some(listener) = self.listener.get() {
            listener.changed();
        }
    }

    /// Asks an actor and waits for its answer. Waits for a place in its mailbox first.
    ///
    /// # Errors
    /// The actor's own error; why the engine has stopped, if the actor does not answer any more.
    pub async fn ask<M, T, E: From<Failure>>(
        &self,
        actor: &Mailbox<M>,
        question: impl FnOnce(Reply<Result<T, E>>) -> M,
    ) -> Result<T, E> {
        let asked = self.begin_to_ask(actor, question).await?;
        self.answered(asked).await
    }

    /// As `ask`, but leaves the waiting for the answer to `answered`.
    ///
    /// # Errors
    /// Why the engine has stopped.
    pub async fn begin_to_ask<M, T, E: From<Failure>>(
        &self,
        actor: &Mailbox<M>,
        question: impl FnOnce(Reply<Result<T, E>>) -> M,
    ) -> Result<Answer<Result<T, E>>, E> {
        let stopped = || E::from(self.why_stopped());
        let permit = actor.reserve(1).await.map_err(|_| stopped())?;
        let (reply, answer) = reply();
        permit.send(question(reply)).map_err(|_| stopped())?;
        Ok(answer)
    }

    /// The answer to what was asked; see `ask`.
    ///
    /// # Errors
    /// As `ask`.
    pub async fn answered<T, E: From<Failure>>(
        &self,
        answer: Answer<Result<T, E>>,
    ) -> Result<T, E> {
        answer.await.unwrap_or_else(|_| Err(E::from(self.why_stopped())))
    }

    /// A party cannot work for now. Writes whose room depends on it are refused.
    pub fn degrade(&self, concern: impl Into<Concern>, failure: Failure) {
        self.health.degrade(concern.into(), failure);
        self.tell_changed();
    }

    /// The party has worked: withdraws its cause.
    pub fn recover(&self, concern: impl Into<Concern>) {
        if self.health.recover(&concern.into()) {
            self.tell_changed();
        }
    }

    fn troubles(&self) -> Vec<(Concern, Failure)> {
        if self.health.is_running() {
            return Vec::new();
        }
        match self.health.state() {
            State::Degraded(causes) => causes,
            State::Running | State::Failed(_) | State::Closed(_) => Vec::new(),
        }
    }

    /// Why `party` cannot work for `range`, if it cannot.
    pub fn trouble(&self, party: Party, range: RangeId) -> Option<Failure> {
        let concerns =
            |concern: &Concern| concern.party == party && concern.range.is_none_or(|r| r == range);
        self.troubles().into_iter().find(|(c, _)| concerns(c)).map(|(_, failure)| failure)
    }

    /// The trouble of exactly this party and range.
    pub fn trouble_of(&self, concern: impl Into<Concern>) -> Option<Failure> {
        let concern = concern.into();
        let mut troubles = self.troubles().into_iter();
        troubles.find(|(other, _)| *other == concern).map(|(_, failure)| failure)
    }

    /// Has a party found the disk full, and not succeeded since?
    pub fn is_disk_full(&self) -> bool {
        self.troubles().iter().any(|(_, failure)| failure.is_no_space())
    }

    /// Why a write that finds no room fails instead of waiting, if it does. A write that would wait
    /// `for_ever` fails for any trouble. A write with a deadline, or without patience, fails only
    /// for a trouble that does not pass by itself: a full disk or damage.
    pub fn refusal(&self, for_ever: bool, touches: impl Fn(RangeId) -> bool) -> Option<Failure> {
        let mut troubles = self.troubles().into_iter();
        let stops = troubles.find(|(concern, failure)| {
            let matters = for_ever || failure.is_no_space() || failure.is_damage();
            matters && concern.stops_writes(failure, &touches)
        });
        stops.map(|(_, failure)| failure)
    }

    /// Resolves once there is such a reason.
    pub async fn until_refused(
        &self,
        for_ever: bool,
        touches: impl Fn(RangeId) -> bool,
    ) -> Failure {
        let mut watcher = self.health.watcher();
        loop {
            if let Some(failure) = self.refusal(for_ever, &touches) {
                return failure;
            }
            watcher.changed().await;
        }
    }

    /// A job that writes tables has failed. Has that ended the engine? The job's source still
    /// exists, so it can be repeated, but not for ever on a device that loses what it is given.
    pub fn job_failed(&self, failure: &Failure) -> bool {
        let ends = self.attempts.was_one_too_many(failure);
        if ends {
            self.fail(failure.clone());
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicedb_storage::Error;
    use std::path::Path;

    #[test]
    fn a7_a_trouble_stops_those_who_need_what_it_keeps_from_coming() {
        let path = Path::new("/db/000007.sst");
        let damage = Failure::storage(Error::corrupt(path, 3, "planted"));
        let full = std::io::Error::from_raw_os_error(28);
        let full = Failure::storage(Error::io("write", path, full));
        let touches = |range| range == RangeId(1);
        for (concern, failure, stops) in [
            (Party::Flush.of(RangeId(1)), &damage, true),
            (Party::Flush.of(RangeId(2)), &damage, false),
            (Party::Flush.into(), &damage, true),
            (Party::Flush.of(RangeId(2)), &full, true),
            (Party::Compaction.of(RangeId(1)), &damage, false),
            (Party::Compaction.into(), &full, false),
            (Party::Log.into(), &full, true),
            (Party::Manifest.into(), &full, true),
        ] {
            assert_eq!(concern.stops_writes(failure, touches), stops, "{concern:?} {failure}");
        }
    }
}
