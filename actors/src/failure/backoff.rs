//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
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
    /// The pause after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        self.after_failure_at_most(LONGEST)
    }

    /// As `after_failure`, and no longer than `longest`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.after_failure().as_millis()).collect();
        assert_eq!(pauses[..4], [50, 100, 200, 400]);
        assert_eq!(pauses[9..], [25_600, 30_000, 30_000]);
        assert_eq!(backoff.after_failure_at_most(LONGEST_NO_SPACE), LONGEST_NO_SPACE);
        assert_eq!(backoff.after_failure_at_most(LONGEST_NO_SPACE), LONGEST_NO_SPACE);
        backoff.reset();
        assert_eq!(backoff.after_failure(), FIRST);
    }
}
