//! Turns for each kind of compaction, so that none starves.
//!
//! The most urgent job runs first, but each kind has a limited number of turns per round. A new
//! round begins when every kind that has a job due has used up its turns. The fuller the landings,
//! the more turns they get.

/// A kind of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoundKind {
    /// L0 into the next level.
    L0,
    /// A landing into itself.
    Keep,
    /// A landing into its level.
    Drain,
    /// A level into the next one.
    Regular,
}

/// From this score on, landings count as full.
const FULL: f64 = 6.0;
/// From this score on, landings count as half full.
const HALF: f64 = 3.0;

/// The turns that are left in this round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    left: [u8; 4],
}

impl Rounds {
    /// Does this kind have a turn left?
    pub(super) fn has(&self, kind: RoundKind) -> bool {
        self.left[kind as usize] > 0
    }

    /// Uses up a turn of this kind.
    pub(super) fn take(&mut self, kind: RoundKind) {
        let left = &mut self.left[kind as usize];
        *left = left.saturating_sub(1);
    }

    /// Begins a new round. `landing_score` is the score of the most urgent landing.
    pub(super) fn begin(&mut self, landing_score: f64) {
        // In the order of `RoundKind`: L0, keep, drain, regular.
        self.left = if landing_score >= FULL {
            [2, 3, 3, 1]
        } else if landing_score >= HALF {
            [2, 2, 2, 2]
        } else {
            [2, 1, 1, 3]
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t000_16_every_kind_has_a_turn_in_every_round() {
        for score in [0.0, 1.0, 2.9, 3.0, 5.9, 6.0, f64::MAX] {
            let mut rounds = Rounds::default();
            assert!(!rounds.has(RoundKind::Regular), "none has begun");
            rounds.begin(score);
            for kind in [RoundKind::L0, RoundKind::Keep, RoundKind::Drain, RoundKind::Regular] {
                let mut turns = 0;
                while rounds.has(kind) {
                    rounds.take(kind);
                    turns += 1;
                }
                assert!((1..=3).contains(&turns), "{kind:?} at {score}: {turns}");
            }
        }
    }
}
