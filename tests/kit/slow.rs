//! A real disk slowed down in real time.

use sluicedb_storage::vfs::{Clock, DiskVfs, Speed, ThrottleControl, ThrottledVfs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The real clock.
#[derive(Debug)]
struct RealTime(Instant);

impl Clock for RealTime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, at: Duration) {
        std::thread::sleep(at.saturating_sub(self.now()));
    }
}

/// The machine's own disk, at `bytes_per_second`. A sync costs as much as 16 KiB. Up to 5 ms that a
/// thread oversleeps are credited to it.
pub fn slow_disk(bytes_per_second: u64) -> (Arc<ThrottledVfs>, ThrottleControl) {
    let burst_bytes = bytes_per_second / 200;
    let speed = Speed { bytes_per_second, sync_bytes: 16 << 10, burst_bytes };
    let clock = Arc::new(RealTime(Instant::now()));
    let vfs = Arc::new(ThrottledVfs::new(Arc::new(DiskVfs::new()), speed, clock));
    let control = vfs.control();
    (vfs, control)
}
