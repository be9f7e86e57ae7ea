//! What the operating system says about this process: memory and processor time.

use crate::Result;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Processor time of all threads so far.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// The most memory that was resident since [`forget_peak`], pages of mapped files included.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Memory that is resident now and that no file is behind.
pub fn anonymous_bytes() -> Option<u64> {
    status("RssAnon:")
}

/// From here on [`peak_bytes`] counts anew.
///
/// # Errors
/// The kernel does not know how.
pub fn forget_peak() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// A line of `/proc/self/status` that has kB.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}
