//! How soon a range may be sealed by force again.

use std::time::{Duration, Instant};

/// The shortest pause. It allows at most a hundred small memtables of one range in a second.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest pause. After it, what pins the log or holds memory is released, however slow the
/// disk is.
const LONGEST: Duration = Duration::from_secs(5);

/// Spaces out seals of one range that are not due to its size. After such a memtable is published,
/// the range is left alone for as long as its flushes take on average. So these flushes use at most
/// about half of the flush worker's time. The slower the disk, the more entries each of them has:
/// tiny memtables never make a slow disk slower.
#[derive(Debug, Default)]
pub(super) struct Cooldown {
    /// The smoothed duration of a flush. `None` before the first one.
    average: Option<Duration>,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Never,
    /// Sealed then, and not yet published.
    Sealed(Instant),
    /// Published. Over from then on.
    CoolFrom(Instant),
}

impl Cooldown {
    /// May the range be sealed by force? INVARIANT(log-bounded): a range rests no longer than its
    /// flush takes.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Never => true,
            Phase::Sealed(_) => false,
            Phase::CoolFrom(at) => at <= now,
        }
    }

    /// When it may be sealed. `None` if it may be sealed now, or if that depends on a flush.
    pub(super) fn ends(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::CoolFrom(at) if at > now => Some(at),
            _ => None,
        }
    }

    /// The range is sealed by force.
    pub(super) fn sealed(&mut self, now: Instant) {
        if let (Phase::CoolFrom(at), Some(average)) = (&self.phase, &mut self.average) {
            // Each quiet period as long as the average counts as a flush that took no time. The
            // loop is short: the average shrinks to the shortest pause.
            let mut calm = now.saturating_duration_since(*at);
            while *average > SHORTEST && calm >= *average {
                calm -= *average;
                *average = smoothed(*average, Duration::ZERO);
            }
        }
        self.phase = Phase::Sealed(now);
    }

    /// The sealed memtables of the range are published.
    pub(super) fn published(&mut self, now: Instant) {
        if let Phase::Sealed(since) = self.phase {
            let took = now.saturating_duration_since(since);
            let average = smoothed(self.average.unwrap_or(took), took);
            self.average = Some(average);
            self.phase = Phase::CoolFrom(now + average);
        }
    }
}

/// A moving average of three parts of the old value and one of the new, within the limits. The
/// whole sum is divided. Dividing only the new value would let the average grow without bound.
fn smoothed(before: Duration, observed: Duration) -> Duration {
    ((before * 3 + observed) / 4).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Runtime, ThreadRuntime};

    /// Seals by force, with a flush that takes `took`. Returns the pause until the next forced
    /// seal.
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
        let (mut cooldown, mut now) = (Cooldown::default(), ThreadRuntime::new(&[]).now());
        let slow = Duration::from_secs(60);
        for _ in 0..20 {
            let pause = force(&mut cooldown, &mut now, slow);
            assert!(pause <= LONGEST, "{pause:?}");
        }
        assert_eq!(force(&mut cooldown, &mut now, slow), LONGEST);
        // One step, computed by hand: (3 * 5000 + 200) / 4.
        let fast = Duration::from_millis(200);
        assert_eq!(force(&mut cooldown, &mut now, fast), Duration::from_millis(3_800));
        // Fast flushes: rounding does not keep the pause above the minimum, and it never falls
        // below.
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
        let (mut cooldown, mut now) = (Cooldown::default(), ThreadRuntime::new(&[]).now());
        assert_eq!(force(&mut cooldown, &mut now, LONGEST), LONGEST);
        now += Duration::from_secs(600);
        assert_eq!(force(&mut cooldown, &mut now, Duration::ZERO), SHORTEST);
    }
}
