//! Admission: the door in front of the log.
//!
//! Guarantees (admission-before-log): who holds an [`Admission`] holds its bytes in every range account
//! it touches and in the global account. Range accounts are taken first, in ascending range order, the
//! global one last, so who waits for a range holds no global bytes and nobody waits in a circle.
//! Dropping the future or the admission gives everything back.
//!
//! Does not: measure time. Who sets a deadline drops the future and asks [`Admit::waiting_for`] first.

use super::credits::{Account, Credits, Lease, Take};
use super::room::Refused;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Which account an admission waits for or was refused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The account of one range.
    Local,
    /// The account of the whole engine.
    Global,
}

/// Not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {} account said: {why}", match scope { Scope::Local => "range's", Scope::Global => "global" })]
pub struct Overloaded {
    /// Whose account refused.
    pub scope: Scope,
    /// `Full` may pass, `TooLarge` and `Closed` will not.
    pub why: Refused,
}

/// What one range is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Claim<H> {
    /// Ranges are asked in ascending order of this number.
    pub range: u32,
    /// The account of the range.
    pub account: H,
    /// Bytes.
    pub bytes: u64,
}

/// Bytes in the local accounts and in the global one; given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped admission gives its bytes back"]
pub struct Admission<H: Deref<Target = Account> = Credits> {
    /// Of the only, or first, range.
    pub local: Lease<H>,
    /// Of the other ranges, ascending.
    pub more: Vec<Lease<H>>,
    /// The sum, in the account of the engine.
    pub global: Lease<H>,
}

/// The global account and the order in which accounts are asked.
#[derive(Clone, Debug)]
pub struct Gate {
    global: Credits,
}

impl Gate {
    /// A gate in front of `global`.
    pub fn new(global: Credits) -> Self {
        Self { global }
    }

    /// The account of the whole engine.
    pub fn global(&self) -> &Credits {
        &self.global
    }

    /// Admits `bytes` to one range if both accounts have them now.
    pub fn try_admit(&self, local: &Credits, bytes: u64) -> Result<Admission, Overloaded> {
        let (local_raw, global_raw) = self.try_both(local, bytes)?;
        let local = local.remember(local_raw.forget_into());
        let global = self.global.remember(global_raw.forget_into());
        Ok(Admission { local, more: Vec::new(), global })
    }

    /// As [`Gate::try_admit`], borrowed: two compare-and-swaps in all.
    #[inline]
    pub fn try_admit_ref<'a>(
        &'a self,
        local: &'a Account,
        bytes: u64,
    ) -> Result<Admission<&'a Account>, Overloaded> {
        let (local, global) = self.try_both(local, bytes)?;
        Ok(Admission { local, more: Vec::new(), global })
    }

    #[inline]
    fn try_both<'a>(
        &'a self,
        local: &'a Account,
        bytes: u64,
    ) -> Result<(Lease<&'a Account>, Lease<&'a Account>), Overloaded> {
        let local =
            local.try_take_ref(bytes).map_err(|why| Overloaded { scope: Scope::Local, why })?;
        let global = self
            .global
            .try_take_ref(bytes)
            .map_err(|why| Overloaded { scope: Scope::Global, why })?;
        Ok((local, global))
    }

    /// Admits to several ranges if all accounts have the bytes now.
    pub fn try_admit_many<H>(
        &self,
        global: H,
        claims: Vec<Claim<H>>,
    ) -> Result<Admission<H>, Overloaded>
    where
        H: Deref<Target = Account> + Clone + Unpin,
    {
        let mut admit = Admit::new(global, claims);
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut admit).poll(&mut context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(Overloaded { scope: admit.waiting_for(), why: Refused::Full }),
        }
    }

    /// Admits `bytes` to one range, waiting for its account first and for the global one then.
    ///
    /// # Cancellation
    /// Dropped at any point, everything is given back and the next in line is woken.
    pub fn admit(&self, local: &Credits, bytes: u64) -> Admit {
        Admit::one(self.global.clone(), local.clone(), bytes)
    }

    /// As [`Gate::admit`], borrowed.
    #[inline]
    pub fn admit_ref<'a>(&'a self, local: &'a Account, bytes: u64) -> Admit<&'a Account> {
        Admit::one(&*self.global, local, bytes)
    }

    /// Admits to several ranges; asserts that they ascend and that there is at least one.
    pub fn admit_many(&self, claims: Vec<Claim<Credits>>) -> Admit {
        Admit::new(self.global.clone(), claims)
    }

    /// As [`Gate::admit_many`], borrowed.
    pub fn admit_many_ref<'a>(&'a self, claims: Vec<Claim<&'a Account>>) -> Admit<&'a Account> {
        Admit::new(&*self.global, claims)
    }
}

impl<H: Deref<Target = Account>> Admission<H> {
    /// Bytes admitted, over all ranges.
    pub fn bytes(&self) -> u64 {
        self.global.bytes()
    }

    /// Ends the admission without giving anything back: memtables account for the bytes from now on,
    /// each releasing its share in its range's account and in the global one.
    #[inline]
    pub fn forget_into(self) -> u64 {
        self.local.forget_into();
        for lease in self.more {
            lease.forget_into();
        }
        self.global.forget_into()
    }
}

/// Waits at the gate; see [`Gate::admit`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Admit<H: Deref<Target = Account> = Credits> {
    /// The account being asked; declared first, so a dropped future leaves the line, then gives back.
    asking: Take<H>,
    scope: Scope,
    first: Option<Lease<H>>,
    more: Vec<Lease<H>>,
    /// What is still to be asked, last one next.
    rest: Vec<Claim<H>>,
    global: Option<H>,
    bytes: u64,
}

opaque_debug!("Admit", [H: Deref<Target = Account>] Admit<H>);

impl Admit {
    /// Parks this thread until admitted. For engine threads only.
    pub fn wait_blocking(self) -> Result<Admission, Overloaded> {
        super::sync::block_on(self)
    }
}

impl<H: Deref<Target = Account>> Admit<H> {
    fn one(global: H, local: H, bytes: u64) -> Self {
        Self {
            asking: Take::new(local, bytes),
            scope: Scope::Local,
            first: None,
            more: Vec::new(),
            rest: Vec::new(),
            global: Some(global),
            bytes,
        }
    }

    fn new(global: H, mut claims: Vec<Claim<H>>) -> Self {
        assert!(!claims.is_empty(), "an admission is for at least one range");
        assert!(
            claims.is_sorted_by(|a, b| a.range < b.range),
            "ranges are asked in ascending order"
        );
        let bytes = claims.iter().map(|claim| claim.bytes).fold(0, u64::saturating_add);
        claims.reverse();
        let first = claims.pop().expect("checked above");
        let mut admit = Self::one(global, first.account, first.bytes);
        admit.more.reserve_exact(claims.len());
        admit.rest = claims;
        admit.bytes = bytes;
        admit
    }

    /// Whose account this future waits for.
    pub fn waiting_for(&self) -> Scope {
        self.scope
    }
}

impl<H: Deref<Target = Account> + Unpin> Future for Admit<H> {
    type Output = Result<Admission<H>, Overloaded>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let lease = match Pin::new(&mut this.asking).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(lease)) => lease,
                Poll::Ready(Err(why)) => {
                    // Nothing stays taken while the caller looks at the refusal.
                    this.first = None;
                    this.more.clear();
                    return Poll::Ready(Err(Overloaded { scope: this.scope, why }));
                }
            };
            if this.scope == Scope::Global {
                let local = this.first.take().expect("ranges were asked before the global account");
                let more = std::mem::take(&mut this.more);
                return Poll::Ready(Ok(Admission { local, more, global: lease }));
            }
            if this.first.is_none() {
                this.first = Some(lease);
            } else {
                this.more.push(lease);
            }
            if let Some(claim) = this.rest.pop() {
                this.asking = Take::new(claim.account, claim.bytes);
            } else {
                let global = this.global.take().expect("the global account is asked once");
                this.asking = Take::new(global, this.bytes);
                this.scope = Scope::Global;
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

    #[test]
    fn the_range_is_asked_first_and_named() {
        let gate = Gate::new(Credits::new(10));
        let local = Credits::new(6);
        let admission = gate.try_admit(&local, 6).expect("both have room");
        let refused = gate.try_admit(&local, 1).expect_err("the range is full");
        assert_eq!(refused, Overloaded { scope: Scope::Local, why: Refused::Full });
        let refused = gate.try_admit(&Credits::new(6), 5).expect_err("the engine is full");
        assert_eq!(refused, Overloaded { scope: Scope::Global, why: Refused::Full });
        drop(admission);
        assert_eq!((local.used(), gate.global().used()), (0, 0));
    }

    #[test]
    fn who_waits_for_a_range_holds_no_global_bytes() {
        let gate = Gate::new(Credits::new(10));
        let local = Credits::new(4);
        let held = local.try_take(4).expect("there is room");
        let mut admit = gate.admit_ref(&local, 3);
        assert!(poll(&mut admit).is_pending());
        assert_eq!((admit.waiting_for(), gate.global().used()), (Scope::Local, 0));
        let hog = gate.global().try_take(8).expect("there is room");
        drop(held);
        assert!(poll(&mut admit).is_pending());
        assert_eq!((admit.waiting_for(), local.used()), (Scope::Global, 3));
        drop(hog);
        let Poll::Ready(Ok(admission)) = poll(&mut admit) else { panic!("both have room") };
        assert_eq!(admission.forget_into(), 3);
        assert_eq!((local.used(), gate.global().used()), (3, 3));
    }

    #[test]
    fn dropping_gives_everything_back() {
        let gate = Gate::new(Credits::new(10));
        let locals = [Credits::new(4), Credits::new(4), Credits::new(4)];
        let claims = |n: u64| {
            let claim =
                |range: u32| Claim { range, account: locals[range as usize].clone(), bytes: n };
            (0..3).map(claim).collect::<Vec<_>>()
        };
        let held = locals[1].try_take(4).expect("there is room");
        let mut admit = gate.admit_many(claims(3));
        assert!(poll(&mut admit).is_pending());
        assert_eq!((locals[0].used(), locals[2].used()), (3, 0));
        drop(admit);
        assert_eq!(locals[0].used(), 0);
        drop(held);
        let admission = gate.try_admit_many(gate.global().clone(), claims(3)).expect("all fit");
        assert_eq!((admission.bytes(), admission.more.len()), (9, 2));
        let refused = gate.try_admit_many(gate.global().clone(), claims(1)).expect_err("3 > 1");
        assert_eq!(refused.scope, Scope::Global);
        assert_eq!(locals.iter().map(|local| local.used()).sum::<u64>(), 9);
    }

    #[test]
    #[should_panic(expected = "ascending")]
    fn ranges_out_of_order_are_a_bug() {
        let gate = Gate::new(Credits::new(10));
        let claim = |range| Claim { range, account: Credits::new(1), bytes: 1 };
        let _admit = gate.admit_many(vec![claim(2), claim(1)]);
    }
}
