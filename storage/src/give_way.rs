//! Background threads give way: they offer their core to others a few thousand times a second.
//!
//! A scheduler lets a thread run for several milliseconds before it looks who else is there (on
//! Linux until the next tick, 4 ms with 250 Hz). Where flushes and merges keep all cores busy, a
//! thread of the host's runtime would wait that long for each of them. A lower priority does not
//! help: it changes how much of the time a thread gets, and not how finely the time is cut.
//!
//! Guarantees: a thread that never called [`from_now_on`] never yields here. So code that also runs
//! on the host's threads may call [`now_and_then`]. Does not: sleep, or wait for anybody.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a thread works between two offers. A shorter time made heartbeats no more punctual.
const PIECE: Duration = Duration::from_micros(500);

thread_local! {
    /// When this thread last gave way; `None` where it does not.
    static GAVE_WAY: Cell<Option<Instant>> = const { Cell::new(None) };
}

#[expect(clippy::disallowed_methods, reason = "decides when a thread yields, and nothing else")]
fn now() -> Instant {
    Instant::now()
}

/// From now on this thread gives way.
pub fn from_now_on() {
    GAVE_WAY.set(Some(now()));
}

/// Gives way if the last time was a while ago. Costs about 30 ns: call it every ten microseconds of
/// work or so.
#[inline]
pub fn now_and_then() {
    if let Some(last) = GAVE_WAY.get() {
        since(last);
    }
}

fn since(last: Instant) {
    if now().saturating_duration_since(last) >= PIECE {
        std::thread::yield_now();
        GAVE_WAY.set(Some(now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: a thread of the host yields; a background thread never does, or each time.
    #[test]
    fn only_a_thread_that_said_so_gives_way_and_only_now_and_then() {
        now_and_then();
        assert_eq!(GAVE_WAY.get(), None);
        let long_ago = now().checked_sub(PIECE).expect("the clock has run for a while");
        GAVE_WAY.set(Some(long_ago));
        now_and_then();
        let gave_way = GAVE_WAY.get().expect("it goes on giving way");
        assert!(gave_way >= long_ago + PIECE);
        let ahead = now() + Duration::from_secs(3600);
        GAVE_WAY.set(Some(ahead));
        now_and_then();
        assert_eq!(GAVE_WAY.get(), Some(ahead));
    }
}
