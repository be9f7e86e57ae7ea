//! What waiting for room costs: how often, how long, and where writers wait.

use super::Accounts;
use super::pressure::{At, Stall};
use crate::counter::Counter;
use crate::failure::Scope;
use crate::runtime::Environment;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// Counts of one place where writers wait.
#[derive(Debug, Default)]
pub struct WaitCounts {
    waits: Counter,
    micros: Counter,
}

impl WaitCounts {
    /// How often a write began to wait here.
    pub fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// Total time waited here, in microseconds. A wait is added when it ends.
    pub fn micros(&self) -> u64 {
        self.micros.get()
    }
}

/// Where a write waits.
#[derive(Clone)]
pub(crate) enum WaitPlace {
    /// For a range: its account, or its mailbox.
    Range(At, Arc<WaitCounts>),
    /// For the engine: its account, the log, the commits in flight.
    Engine,
}

impl WaitPlace {
    fn scope(&self) -> Scope {
        match self {
            Self::Range(..) => Scope::Local,
            Self::Engine => Scope::Global,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range(mine, _), Self::Range(other, _)) => mine.id == other.id,
            (Self::Engine, Self::Engine) => true,
            (Self::Range(..), Self::Engine) | (Self::Engine, Self::Range(..)) => false,
        }
    }
}

/// Times the wait of one write, place by place. A dropped wait counts as well.
pub(crate) struct Stopwatch<'a> {
    accounts: &'a Accounts,
    environment: &'a Environment,
    started: Instant,
    /// Where the write waits, what for, and since when.
    at: Option<(WaitPlace, Stall, Instant)>,
}

impl fmt::Debug for Stopwatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopwatch").field("started", &self.started).finish_non_exhaustive()
    }
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(accounts: &'a Accounts, environment: &'a Environment) -> Self {
        Self { accounts, environment, started: environment.now(), at: None }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.environment.now().saturating_duration_since(self.started)
    }

    /// Whose room is or was missing.
    pub(crate) fn scope(&self) -> Scope {
        self.at.as_ref().map_or(Scope::Global, |(place, ..)| place.scope())
    }

    /// The write begins to wait at `place`.
    pub(crate) fn waits_at(&mut self, place: WaitPlace) {
        if self.at.as_ref().is_some_and(|(at, ..)| at.is(&place)) {
            return;
        }
        self.settle();
        let range = match &place {
            WaitPlace::Range(at, range) => {
                self.accounts.local_waits.waits.add(1);
                range.waits.add(1);
                Some(*at)
            }
            WaitPlace::Engine => {
                self.accounts.global_waits.waits.add(1);
                None
            }
        };
        // The cause is looked up now, because it is gone when the wait is over. Pressure may have
        // risen to 1.0, and this tells watchers.
        let stall = self.accounts.board.stall(range);
        self.accounts.stalls[stall as usize].waits.add(1);
        self.at = Some((place, stall, self.environment.now()));
    }

    /// Waits for `work` at `place`.
    pub(crate) async fn during<F: Future>(&mut self, place: WaitPlace, work: F) -> F::Output {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            if polled.is_pending() {
                self.waits_at(place.clone());
            }
            polled
        })
        .await
    }

    /// As `during`, for work that moves from place to place.
    pub(crate) async fn along<F: Future + Unpin>(
        &mut self,
        mut work: F,
        place: impl Fn(&F) -> WaitPlace,
    ) -> F::Output {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut work).poll(context);
            if polled.is_pending() {
                self.waits_at(place(&work));
            }
            polled
        })
        .await
    }

    fn settle(&mut self) {
        let Some((place, stall, since)) = self.at.take() else { return };
        let waited = self.environment.now().saturating_duration_since(since);
        let micros = waited.as_micros() as u64;
        self.accounts.stalls[stall as usize].micros.add(micros);
        match place {
            WaitPlace::Range(_, range) => {
                self.accounts.local_waits.micros.add(micros);
                range.micros.add(micros);
            }
            WaitPlace::Engine => self.accounts.global_waits.micros.add(micros),
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}
