//! Turns for each kind of compaction, so that none starves.
//!
//! The most urgent job goes first, but in one round each kind has only so many turns. When those
//! that have something due have used theirs up, a new round begins. The more waits in landings, the
//! more turns they have.

/// A kind of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// L0 goes down.
    L0,
    /// A landing is merged into itself.
    Keep,
    /// A landing is merged into its level.
    Drain,
    /// A level goes into the next one.
    Regular,
}

/// Landings are full from this score on.
const FULL: f64 = 6.0;
/// And half full from this one on.
const HALF: f64 = 3.0;

/// Turns that are left in this round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    left: [u8; 4],
}

impl Rounds {
    /// Has this kind a turn left?
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.left[kind as usize] > 0
    }

    /// It takes one.
    pub(super) fn take(&mut self, kind: Kind) {
        let left = &mut self.left[kind as usize];
        *left = left.saturating_sub(1);
    }

    /// A new round, for landings of which the most urgent has this score.
    pub(super) fn begin(&mut self, landing_score: f64) {
        // L0, keep, drain, regular.
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
            assert!(!rounds.has(Kind::Regular), "none has begun");
            rounds.begin(score);
            for kind in [Kind::L0, Kind::Keep, Kind::Drain, Kind::Regular] {
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
