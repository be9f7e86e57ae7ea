//! Power cuts on a real kernel. An ext4 on a loop device is shut down without its journal in the
//! middle of writes. The remaining database has to open and to keep every promise.
//!
//! It mounts file systems, so it does nothing unless it is asked to, and nothing without the
//! permission:
//!
//! ```sh
//! SLUICE_POWER_CUTS=30 cargo test --test power          # as root
//! SLUICE_POWER_ONLY=16tasks,unmapped,small ...          # only cuts of such writers
//! SLUICE_POWER_SEED=7 ...                               # other choices than last time
//! SLUICE_POWER_REPLAY=target/power/cut-12.img ...       # judge a kept image once more
//! ```
//!
//! Time belongs to the kernel, and with it the state of the disk at the cut: a seed repeats the
//! choices, not the cut. So the image of a failed cut is kept together with the acknowledgements,
//! and can be judged again as often as needed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, print and look at files"
)]

// The image, the mount, the cut.
#[cfg(target_os = "linux")]
mod disk;
// What a cut may leave.
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
#[path = "../kit/mod.rs"]
mod kit;
// The loop over the cuts.
#[cfg(target_os = "linux")]
mod rig;
// The writers, their options, and their batches.
#[cfg(target_os = "linux")]
mod story;
// The process that writes when the power is cut.
#[cfg(target_os = "linux")]
mod writer;

fn main() -> std::process::ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return std::process::ExitCode::SUCCESS;
    }
    #[cfg(target_os = "linux")]
    return rig::run();
    #[cfg(not(target_os = "linux"))]
    {
        println!("power: skipped: there is no ext4 here");
        std::process::ExitCode::SUCCESS
    }
}
