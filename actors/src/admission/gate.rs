//! Admission: what a write passes before the log.
//!
//! Guarantees (admission-before-log): whoever holds an [`Admission`] holds its bytes in every range
//! account that it touches, and in the global account. Everything is taken at once. A write that
//! lacks room in one account waits in that account's line and holds nothing in any account. So a
//! future that is never polled again keeps no room from anybody, and no cycle of waiters can form.
//! Range accounts are asked first, in ascending order, the global account last.
//!
//! Progress: a write at the head of one line takes from the *ranges* without queueing again, if
//! they have room. If one has none, the write goes to that range's line. A write never overtakes
//! those who wait for the global account. So a write that is turned away has met an account that
//! others have just filled, and a large write at the head of the global line is not overtaken for
//! ever.
//!
//! Liveness, beyond that of the accounts: bytes come back without anybody's poll. A memtable at
//! half of its account is sealed; a smaller one is sealed when somebody waits for the engine's
//! account.
//!
//! Does not: measure time. Whoever has a deadline drops the future.

use crate::failure::Scope;
use sluicedb_kernel::semaphore::{Refused, Semaphore, SemaphorePermit};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {} account said: {why}", match scope {
    Scope::Local => "range's",
    Scope::Global => "global",
})]
pub struct Overloaded {
    /// Whose account refused.
    pub scope: Scope,
    /// `Full` may pass. `TooLarge` and `Closed` will not.
    pub why: Refused,
}

/// What a write asks of one range.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Ranges are asked in ascending order of this number.
    pub range: u32,
    /// The account of the range.
    pub account: Semaphore,
    /// Bytes of the global account.
    pub bytes: u64,
    /// Bytes of the range's account. Fewer than `bytes` if the write is large: see
    /// `RangeBudget::local_charge`.
    pub local_bytes: u64,
}

/// Bytes in the local accounts and in the global one. Dropping it gives them back.
///
/// INVARIANT(admission-before-log): a commit is sent with one of these, or made under an
/// [`AdmissionToOne`].
#[derive(Debug)]
#[must_use = "a dropped admission gives its bytes back"]
pub struct Admission {
    /// The bytes in the only, or first, range.
    pub local: SemaphorePermit,
    /// The bytes in the other ranges, ascending.
    pub more: Vec<SemaphorePermit>,
    /// The sum of the charges, in the engine's account.
    pub global: SemaphorePermit,
}

/// As an [`Admission`], to one range, for a caller that writes at once. Touches no reference count.
#[derive(Debug)]
#[must_use = "a dropped admission gives its bytes back"]
pub struct AdmissionToOne<'a> {
    local: &'a Semaphore,
    local_bytes: u64,
    global: &'a Semaphore,
    bytes: u64,
}

/// The global account, and the order in which accounts are asked.
#[derive(Clone, Debug)]
pub struct Gate {
    global: Semaphore,
}

impl Gate {
    /// A gate before the account `global`.
    pub fn new(global: Semaphore) -> Self {
        Self { global }
    }

    /// The account of the whole engine.
    pub fn global(&self) -> &Semaphore {
        &self.global
    }

    /// Admits to one range if both accounts have room now: `local_bytes` of the range's account and
    /// `bytes` of the global one. Costs two compare-and-swaps.
    ///
    /// # Errors
    /// The account that has no room, and why.
    #[inline]
    pub fn try_admit_to_one<'a>(
        &'a self,
        local: &'a Semaphore,
        local_bytes: u64,
        bytes: u64,
    ) -> Result<AdmissionToOne<'a>, Overloaded> {
        local.try_take(local_bytes).map_err(|why| {
            if never_fits(&self.global, bytes) {
                Overloaded { scope: Scope::Global, why: Refused::TooLarge }
            } else {
                Overloaded { scope: Scope::Local, why }
            }
        })?;
        if let Err(why) = self.global.try_take(bytes) {
            local.release(local_bytes);
            return Err(Overloaded { scope: Scope::Global, why });
        }
        Ok(AdmissionToOne { local, local_bytes, global: &self.global, bytes })
    }

    /// Admits to several ranges if all accounts have room now. Asserts as [`Gate::admit_many`].
    pub fn try_admit_many(&self, charges: Vec<Charge>) -> Result<Admission, Overloaded> {
        let mut admit = self.admit_many(charges);
        admit.try_the_rest(None).map_err(|(at, why)| Overloaded { scope: admit.scope_of(at), why })
    }

    /// Admits to all ranges. Waits for their accounts and for the global one. Asserts that there is
    /// at least one range and that the ranges ascend.
    ///
    /// # Cancellation
    /// If it is dropped, everything is given back and the next waiter is woken.
    pub fn admit_many(&self, charges: Vec<Charge>) -> Admit {
        Admit::new(self.global.clone(), charges)
    }
}

/// A write that can never fit is refused at once, even while its range, which is asked first, is
/// full.
fn never_fits(global: &Semaphore, bytes: u64) -> bool {
    bytes > global.limit()
}

impl AdmissionToOne<'_> {
    /// Ends the admission and gives nothing back. From now on the memtable holds the bytes, and
    /// releases them in both accounts.
    #[inline]
    pub fn forget(mut self) {
        (self.local_bytes, self.bytes) = (0, 0);
    }
}

impl Drop for AdmissionToOne<'_> {
    #[inline]
    fn drop(&mut self) {
        self.local.release(self.local_bytes);
        self.global.release(self.bytes);
    }
}

/// A place in an account's line.
type Acquire = Pin<Box<dyn Future<Output = Result<SemaphorePermit, Refused>> + Send>>;

/// The future of [`Gate::admit_many`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Admit {
    /// The line that it waits in: the position of the account among `charges`, or one past the last
    /// for the global account. It holds nothing meanwhile.
    asking: Option<(usize, Acquire)>,
    charges: Vec<Charge>,
    global: Semaphore,
    bytes: u64,
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admit").field("waits_for", &self.waiting_range()).finish_non_exhaustive()
    }
}

impl Admit {
    fn new(global: Semaphore, charges: Vec<Charge>) -> Self {
        assert!(!charges.is_empty(), "an admission is for at least one range");
        assert!(
            charges.is_sorted_by(|a, b| a.range < b.range),
            "ranges are asked in ascending order"
        );
        let bytes = charges.iter().map(|charge| charge.bytes).fold(0, u64::saturating_add);
        Self { asking: None, charges, global, bytes }
    }

    /// The position among the charges of the range whose account this future waits for. `None`
    /// while it waits for the global account, or not at all.
    pub fn waiting_range(&self) -> Option<usize> {
        self.asking.as_ref().map(|(at, _)| *at).filter(|at| *at < self.charges.len())
    }

    fn scope_of(&self, at: usize) -> Scope {
        if at < self.charges.len() { Scope::Local } else { Scope::Global }
    }

    fn account(&self, at: usize) -> (&Semaphore, u64) {
        match self.charges.get(at) {
            Some(charge) => (&charge.account, charge.local_bytes),
            None => (&self.global, self.bytes),
        }
    }

    /// Takes from every account without waiting. `turn` is the permit that it waited for, if any.
    ///
    /// INVARIANT(nothing-held-while-waiting): if one account refuses, everything is given back and
    /// that account's position is returned.
    fn try_the_rest(
        &mut self,
        mut turn: Option<(usize, SemaphorePermit)>,
    ) -> Result<Admission, (usize, Refused)> {
        let stood_in_line = turn.is_some();
        if never_fits(&self.global, self.bytes) {
            return Err((self.charges.len(), Refused::TooLarge));
        }
        let mut take = |at: usize| {
            if let Some((_, permit)) = turn.take_if(|(had, _)| *had == at) {
                return Ok(permit);
            }
            let (account, bytes) = self.account(at);
            let passing = stood_in_line && at < self.charges.len();
            let taken = if passing {
                account.try_acquire_passing(bytes)
            } else {
                account.try_acquire(bytes)
            };
            taken.map_err(|why| (at, why))
        };
        let local = take(0)?;
        let mut more = Vec::with_capacity(self.charges.len() - 1);
        for at in 1..self.charges.len() {
            more.push(take(at)?);
        }
        let global = take(self.charges.len())?;
        Ok(Admission { local, more, global })
    }
}

impl Future for Admit {
    type Output = Result<Admission, Overloaded>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let turn = match &mut this.asking {
                None => None,
                Some((at, acquire)) => match acquire.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(permit)) => Some((*at, permit)),
                    Poll::Ready(Err(why)) => {
                        let at = *at;
                        let scope = this.scope_of(at);
                        return Poll::Ready(Err(Overloaded { scope, why }));
                    }
                },
            };
            this.asking = None;
            match this.try_the_rest(turn) {
                Ok(admission) => return Poll::Ready(Ok(admission)),
                Err((at, Refused::Full)) => {
                    let (account, bytes) = this.account(at);
                    this.asking = Some((at, Box::pin(account.acquire(bytes))));
                }
                Err((at, why)) => {
                    return Poll::Ready(Err(Overloaded { scope: this.scope_of(at), why }));
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    fn admit(gate: &Gate, local: &Semaphore, bytes: u64) -> Admit {
        gate.admit_many(vec![charge(0, local, bytes)])
    }

    fn charge(range: u32, account: &Semaphore, bytes: u64) -> Charge {
        Charge { range, account: account.clone(), bytes, local_bytes: bytes }
    }

    #[test]
    fn the_range_is_asked_first_and_named() {
        let gate = Gate::new(Semaphore::new(10));
        let local = Semaphore::new(6);
        let admission = gate.try_admit_to_one(&local, 6, 6).expect("both have room");
        let refused = gate.try_admit_to_one(&local, 1, 1).expect_err("the range is full");
        assert_eq!(refused, Overloaded { scope: Scope::Local, why: Refused::Full });
        let refused = gate.try_admit_to_one(&Semaphore::new(6), 5, 5).map(|_| ());
        assert_eq!(refused, Err(Overloaded { scope: Scope::Global, why: Refused::Full }));
        drop(admission);
        assert_eq!((local.used(), gate.global().used()), (0, 0));
    }

    #[test]
    fn who_waits_holds_nothing_anywhere() {
        let gate = Gate::new(Semaphore::new(10));
        let local = Semaphore::new(4);
        let held = local.try_acquire(4).expect("there is room");
        let mut admit = admit(&gate, &local, 3);
        assert!(poll(&mut admit).is_pending());
        assert_eq!(admit.waiting_range(), Some(0));
        assert_eq!(gate.global().used(), 0);
        let hog = gate.global().try_acquire(8).expect("there is room");
        drop(held);
        assert!(poll(&mut admit).is_pending());
        assert_eq!(admit.waiting_range(), None);
        assert_eq!(
            (local.used(), local.is_short()),
            (0, false),
            "others may have the range's room"
        );
        let taken = local.try_acquire(2).expect("there is room");
        drop(hog);
        assert!(poll(&mut admit).is_pending());
        assert_eq!((admit.waiting_range(), gate.global().used()), (Some(0), 0));
        drop(taken);
        let Poll::Ready(Ok(admission)) = poll(&mut admit) else { panic!("both have room") };
        assert_eq!((local.used(), gate.global().used()), (3, 3));
        drop(admission);
    }

    #[test]
    fn who_stood_in_the_global_line_needs_no_second_place_in_the_ranges() {
        let gate = Gate::new(Semaphore::new(10));
        let local = Semaphore::new(4);
        let hog = gate.global().try_acquire(10).expect("there is room");
        let mut early = admit(&gate, &local, 1);
        assert!(poll(&mut early).is_pending());
        let held = local.try_acquire(2).expect("there is room");
        let mut late = admit(&gate, &local, 4);
        assert!(poll(&mut late).is_pending(), "needs more of the range than is left");
        drop(hog);
        assert!(poll(&mut early).is_ready(), "there is room for one, whoever waits for four");
        drop(held);
        assert!(poll(&mut late).is_ready());
    }

    /// Planted: `try_the_rest` and `try_admit_to_one` ask only the range.
    #[test]
    fn what_never_fits_is_refused_at_once_also_while_its_range_is_full() {
        let gate = Gate::new(Semaphore::new(10));
        let local = Semaphore::new(4);
        let _full = local.try_acquire(4).expect("there is room");
        let never = Overloaded { scope: Scope::Global, why: Refused::TooLarge };
        assert_eq!(gate.try_admit_to_one(&local, 2, 11).map(|_| ()), Err(never));
        let charge = || Charge { range: 0, account: local.clone(), bytes: 11, local_bytes: 2 };
        assert_eq!(gate.try_admit_many(vec![charge()]).map(|_| ()), Err(never));
        let Poll::Ready(answer) = poll(&mut gate.admit_many(vec![charge()])) else {
            panic!("it would wait for ever");
        };
        assert_eq!(answer.map(|_| ()), Err(never));
        assert_eq!(gate.global().used(), 0);
    }

    #[test]
    fn a_large_write_may_count_as_less_in_its_range() {
        let gate = Gate::new(Semaphore::new(10));
        let local = Semaphore::new(4);
        let large = Charge { range: 0, account: local.clone(), bytes: 9, local_bytes: 2 };
        let admission = gate.try_admit_many(vec![large]).expect("both have room");
        assert_eq!((local.used(), gate.global().used()), (2, 9));
        drop(admission);
    }

    #[test]
    fn dropping_gives_everything_back() {
        let gate = Gate::new(Semaphore::new(10));
        let locals = [Semaphore::new(4), Semaphore::new(4), Semaphore::new(4)];
        let charges =
            |n: u64| (0..3).map(|at| charge(at, &locals[at as usize], n)).collect::<Vec<_>>();
        let held = locals[1].try_acquire(4).expect("there is room");
        let mut admit = gate.admit_many(charges(3));
        assert!(poll(&mut admit).is_pending());
        assert_eq!(admit.waiting_range(), Some(1));
        assert_eq!((locals[0].used(), locals[2].used()), (0, 0), "nothing is held meanwhile");
        drop(admit);
        assert!(!locals[1].is_short());
        drop(held);
        let admission = gate.try_admit_many(charges(3)).expect("all fit");
        assert_eq!((gate.global().used(), admission.more.len()), (9, 2));
        let refused = gate.try_admit_many(charges(1)).expect_err("3 > 1");
        assert_eq!(refused.scope, Scope::Global);
        assert_eq!(locals.iter().map(Semaphore::used).sum::<u64>(), 9);
    }

    #[test]
    #[should_panic(expected = "ascending")]
    fn ranges_out_of_order_are_a_bug() {
        let gate = Gate::new(Semaphore::new(10));
        let one = Semaphore::new(1);
        let _admit = gate.admit_many(vec![charge(2, &one, 1), charge(1, &one, 1)]);
    }
}
