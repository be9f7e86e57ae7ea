//! How soon a range may be sealed by force again.

use std::time::{Duration, Instant};

/// The shortest pause: a hundred small memtables of one range in a second, at most.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest pause: what pins the log or holds the memory is let go after that, however slow the
/// disk is.
const LONGEST: Duration = Duration::from_secs(5);

/// Keeps seals of one range that are not due to its size apart: after such a memtable is published
/// the range is left alone for as long as flushing one takes on average. So these flushes take at
/// most about half of the flush worker's time, and the slower the disk is, the more entries each of
/// them brings: no storm of tiny memtables makes a slow disk slower.
#[derive(Debug, Default)]
pub struct Cooldown {
    /// What a flush took, smoothed; `None` before the first one.
    average: Option<Duration>,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Never,
    /// Sealed then, and not yet published.
    Sealed(Instant),
    /// Published; cool from then on.
    CoolFrom(Instant),
}

impl Cooldown {
    /// May the range be sealed by force?
    /// INVARIANT(log-bounded): a range rests no longer than its flush takes.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Never => true,
            Phase::Sealed(_) => false,
            Phase::CoolFrom(at) => at <= now,
        }
    }

    /// When it may be; `None` if it may be now, or if that depends on a flush.
    pub fn ends(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::CoolFrom(at) if at > now => Some(at),
            _ => None,
        }
    }

    /// The range is sealed by force.
    pub fn sealed(&mut self, now: Instant) {
        if let (Phase::CoolFrom(at), Some(average)) = (&self.phase, &mut self.average) {
            // Each stretch of calm as long as the average counts as a flush that took no time. Ends
            // soon: the average shrinks to the shortest pause.
            let mut calm = now.saturating_duration_since(*at);
            while *average > SHORTEST && calm >= *average {
                calm -= *average;
                *average = smoothed(*average, Duration::ZERO);
            }
        }
        self.phase = Phase::Sealed(now);
    }

    /// What the range has sealed is published.
    pub fn published(&mut self, now: Instant) {
        if let Phase::Sealed(since) = self.phase {
            let took = now.saturating_duration_since(since);
            let average = smoothed(self.average.unwrap_or(took), took);
            self.average = Some(average);
            self.phase = Phase::CoolFrom(now + average);
        }
    }
}

/// A moving average: three parts of what was, one of what was seen, within the limits. The whole
/// sum is divided; dividing only what was seen would let the average grow without end.
fn smoothed(before: Duration, observed: Duration) -> Duration {
    ((before * 3 + observed) / 4).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};

    /// A forced seal whose flush takes so long; returns when the next one may be.
    fn force(cooldown: &mut Cooldown, now: &mut Instant, took: Duration) -> Duration {
        assert!(cooldown.is_over(*now));
        cooldown.sealed(*now);
        assert!(!cooldown.is_over(*now + LONGEST * 10), "not while it is being flushed");
        *now += took;
        cooldown.published(*now);
        let ends = cooldown.ends(*now).expect("it cools down");
        let pause = ends - *now;
        assert!(!cooldown.is_over(*now + pause / 2) && cooldown.is_over(ends));
        *now = ends;
        pause
    }

    #[test]
    fn t002_18_the_cooldown_follows_a_slow_disk_and_returns_to_its_minimum() {
        let (mut cooldown, mut now) = (Cooldown::default(), ThreadRuntime::new().now());
        let slow = Duration::from_secs(60);
        for _ in 0..20 {
            let pause = force(&mut cooldown, &mut now, slow);
            assert!(pause <= LONGEST, "{pause:?}");
        }
        assert_eq!(force(&mut cooldown, &mut now, slow), LONGEST);
        // One step, by hand: (3 * 5000 + 200) / 4.
        let fast = Duration::from_millis(200);
        assert_eq!(force(&mut cooldown, &mut now, fast), Duration::from_millis(3_800));
        // The calm: no rounding keeps it above the minimum, and it never falls below.
        let pauses: Vec<_> =
            (0..40).map(|_| force(&mut cooldown, &mut now, Duration::from_micros(1))).collect();
        assert!(pauses.is_sorted_by(|a, b| a >= b), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&SHORTEST));
    }

    #[test]
    fn t002_18_an_average_moves_by_a_quarter() {
        let ms = Duration::from_millis;
        assert_eq!(smoothed(ms(100), ms(100)), ms(100));
        assert_eq!(smoothed(ms(100), ms(500)), ms(200));
        assert_eq!(smoothed(ms(500), ms(100)), ms(400));
        assert_eq!(smoothed(LONGEST, Duration::from_secs(3_600)), LONGEST);
        assert_eq!(smoothed(SHORTEST, Duration::ZERO), SHORTEST);
    }

    #[test]
    fn t002_18_time_without_forced_seals_is_calm_too() {
        let (mut cooldown, mut now) = (Cooldown::default(), ThreadRuntime::new().now());
        assert_eq!(force(&mut cooldown, &mut now, LONGEST), LONGEST);
        now += Duration::from_secs(600);
        assert_eq!(force(&mut cooldown, &mut now, Duration::ZERO), SHORTEST);
    }
}
