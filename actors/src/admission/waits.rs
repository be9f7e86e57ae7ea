//! What waiting for room costs: how often, how long, where, and how often in vain.

use crate::range_owner::RangeOwner;
use crate::shared::{Counters, Shared};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use crate::kernel::gate::Scope;

/// Counts of one place where writers wait.
#[derive(Debug, Default)]
pub struct WaitCounts {
    waits: AtomicU64,
    micros: AtomicU64,
}

impl WaitCounts {
    /// How often a write began to wait here.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Time waited here in all, in microseconds. A wait is added when it ends.
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
}

/// Where a write waits.
#[derive(Clone)]
pub(crate) enum Place {
    /// For a range: its account, or its mailbox.
    Range(Arc<RangeOwner>),
    /// For the engine: its account, the log, the commits in flight.
    Engine,
}

impl Place {
    fn scope(&self) -> Scope {
        match self {
            Self::Range(_) => Scope::Local,
            Self::Engine => Scope::Global,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range(mine), Self::Range(other)) => mine.id == other.id,
            (Self::Engine, Self::Engine) => true,
            (Self::Range(_), Self::Engine) | (Self::Engine, Self::Range(_)) => false,
        }
    }
}

/// Times one write's waiting, place by place; also when the write's future is dropped.
pub(crate) struct Stopwatch<'a> {
    shared: &'a Shared,
    started: Instant,
    /// Where it waits, and since when.
    at: Option<(Place, Instant)>,
}

impl fmt::Debug for Stopwatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopwatch").field("started", &self.started).finish_non_exhaustive()
    }
}

impl<'a> Stopwatch<'a> {
    pub(crate) fn start(shared: &'a Shared) -> Self {
        Self { shared, started: shared.runtime.now(), at: None }
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.shared.runtime.now().saturating_duration_since(self.started)
    }

    /// Whose room is missing, or was.
    pub(crate) fn scope(&self) -> Scope {
        self.at.as_ref().map_or(Scope::Global, |(place, _)| place.scope())
    }

    /// The write was not served at `place` and is in line there.
    pub(crate) fn waits_at(&mut self, place: Place) {
        if self.at.as_ref().is_some_and(|(at, _)| at.is(&place)) {
            return;
        }
        self.settle();
        let counters = &self.shared.counters;
        match &place {
            Place::Range(owner) => {
                Counters::add(&counters.local.waits, 1);
                Counters::add(&owner.waits.waits, 1);
            }
            Place::Engine => Counters::add(&counters.global.waits, 1),
        }
        self.at = Some((place, self.shared.runtime.now()));
        // It may have been the next to wait that nobody expected.
        self.shared.show_pressure();
    }

    /// Waits for `work`, which is done at `place`.
    pub(crate) async fn during<F: Future>(&mut self, place: Place, work: F) -> F::Output {
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

    /// As `during`, for work that moves on from place to place.
    pub(crate) async fn along<F: Future + Unpin>(
        &mut self,
        mut work: F,
        place: impl Fn(&F) -> Place,
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
        let Some((place, since)) = self.at.take() else { return };
        let waited = self.shared.runtime.now().saturating_duration_since(since);
        let micros = waited.as_micros() as u64;
        let counters = &self.shared.counters;
        match place {
            Place::Range(owner) => {
                Counters::add(&counters.local.micros, micros);
                Counters::add(&owner.waits.micros, micros);
            }
            Place::Engine => Counters::add(&counters.global.micros, micros),
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}
