//! The environment of an engine: its directory on a disk, threads, time, and its configuration.

use super::Runtime;
use crate::config::EngineConfig;
use crate::failure::Failures;
use sluicedb_storage::Error;
use sluicedb_storage::vfs::Vfs;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module. Nothing in it changes after the start.
pub struct Environment {
    /// Capacities and thresholds.
    pub config: EngineConfig,
    /// Threads and time.
    pub runtime: Arc<dyn Runtime>,
    /// The disk.
    pub vfs: Arc<dyn Vfs>,
    /// The database's identity, part of every checksum.
    pub db_id: [u8; 16],
}

impl Environment {
    /// The database directory.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// The time of day, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.runtime.unix_ms()
    }

    /// Waits until `at`; for ever if that is `None`.
    pub async fn until(&self, at: Option<Instant>) {
        match at {
            Some(at) => self.runtime.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for this long. Returns false if the engine has stopped by then.
    pub async fn pause(&self, pause: Duration, failures: &Failures) -> bool {
        let sleep = self.runtime.sleep_until(self.now() + pause);
        let down = std::pin::pin!(failures.health.until_down());
        futures::future::select(sleep, down).await;
        !failures.is_stopped()
    }

    /// The error for a thread that could not be started.
    pub fn no_thread(&self, error: std::io::Error) -> Error {
        Error::io("start a thread for", self.dir(), error)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}
