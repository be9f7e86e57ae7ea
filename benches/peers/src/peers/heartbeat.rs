//! A task that wants to run every millisecond on the runtime of the clients, and notes how late it
//! is. That is what the rest of a service feels of its storage.

use hdrhistogram::Histogram;
use sluicedb_bench_peers::histogram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const PERIOD: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Histogram<u64>>>);

impl Heartbeat {
    /// Starts it on the current runtime. It beats until the runtime ends.
    pub fn start() -> Self {
        let heartbeat = Self(Arc::new(Mutex::new(histogram(3))));
        let noted = heartbeat.clone();
        tokio::spawn(async move {
            loop {
                let due = Instant::now() + PERIOD;
                sleep_until(due).await;
                noted.with(|late| late.saturating_record(due.elapsed().as_nanos() as u64));
            }
        });
        heartbeat
    }

    fn with<T>(&self, act: impl FnOnce(&mut Histogram<u64>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn reset(&self) {
        self.with(Histogram::reset);
    }

    /// How late it was since it was reset, in nanoseconds. Waits for the beat that is under way, so
    /// that its lateness is not lost.
    pub async fn lateness(&self) -> Histogram<u64> {
        let beats = self.with(|late| late.len());
        while self.with(|late| late.len()) == beats {
            tokio::time::sleep(PERIOD).await;
        }
        self.with(|late| late.clone())
    }
}
