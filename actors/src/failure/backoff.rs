//! How long to wait before something that failed is tried again.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause on a full disk. Writers wait for it to be noticed that there is room again.
pub(crate) const LONGEST_NO_SPACE: Duration = Duration::from_millis(500);

/// A failure counts as lasting from this pause on: it has been retried for about as long.
pub(crate) const LASTING: Duration = Duration::from_secs(1);

/// Pauses that double with each failure. Its owner waits with `Environment::pause`, or keeps a
/// deadline.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause after one more failure, no longer than `longest`.
    pub fn after_failure_at_most(&mut self, longest: Duration) -> Duration {
        let pause = self.next.min(longest);
        self.next = (pause * 2).min(longest);
        pause
    }

    /// Has nothing failed since the last success?
    pub fn is_fresh(&self) -> bool {
        self.next == FIRST
    }

    /// The job succeeded. The next failure is a first one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// When something that failed is tried again. Its owner keeps it until the next success.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    backoff: Backoff,
    at: Instant,
}

impl Retry {
    /// Nothing has failed yet, so it may be tried `now`.
    pub fn fresh(now: Instant) -> Self {
        Self { backoff: Backoff::default(), at: now }
    }

    /// It failed `now`, and is tried again after a pause, at most `longest`. Returns the pause.
    pub fn failed(&mut self, now: Instant, longest: Duration) -> Duration {
        let pause = self.backoff.after_failure_at_most(longest);
        self.at = now + pause;
        pause
    }

    /// Somebody has asked for it: it may be tried `now`. What fails then is no first failure.
    pub fn try_now(&mut self, now: Instant) {
        self.at = now;
    }

    /// Is it too early to try it `now`?
    pub fn waits(&self, now: Instant) -> bool {
        self.at > now
    }

    /// When it may be tried, or might have been.
    pub fn at(&self) -> Instant {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> =
            (0..12).map(|_| backoff.after_failure_at_most(LONGEST).as_millis()).collect();
        assert_eq!(pauses[..4], [50, 100, 200, 400]);
        assert_eq!(pauses[9..], [25_600, 30_000, 30_000]);
        assert_eq!(backoff.after_failure_at_most(LONGEST_NO_SPACE), LONGEST_NO_SPACE);
        assert_eq!(backoff.after_failure_at_most(LONGEST_NO_SPACE), LONGEST_NO_SPACE);
        backoff.reset();
        assert_eq!(backoff.after_failure_at_most(LONGEST), FIRST);
    }

    /// Planted: a pause that begins anew when somebody asks.
    #[test]
    fn a_retry_waits_for_its_pause_unless_somebody_asks() {
        let now = ThreadRuntime::new(&[]).now();
        let mut retry = Retry::fresh(now);
        assert!(!retry.waits(now));
        assert_eq!((retry.failed(now, LONGEST), retry.at()), (FIRST, now + FIRST));
        assert!(retry.waits(now) && !retry.waits(now + FIRST));
        let now = now + FIRST;
        assert_eq!((retry.failed(now, LONGEST), retry.at()), (2 * FIRST, now + 2 * FIRST));
        retry.try_now(now);
        assert!(!retry.waits(now));
        assert_eq!(retry.failed(now, LONGEST), 4 * FIRST);
        assert_eq!((retry.failed(now, 3 * FIRST), retry.at()), (3 * FIRST, now + 3 * FIRST));
    }
}
