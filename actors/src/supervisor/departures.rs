//! Engines of this process that are still on their way out.
//!
//! A dropped database stops without waiting, so its threads may hold the directory's lock for some
//! moments more. Opening the same directory again in the same process waits for them, instead of
//! failing as if somebody else had it.

use crate::kernel::reply::{Answer, Reply, reply};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static LEAVING: Mutex<Option<HashMap<PathBuf, Vec<Answer<()>>>>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<HashMap<PathBuf, Vec<Answer<()>>>>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine's entry: says where it lives, and later that it is leaving.
#[derive(Debug)]
pub(super) struct Departure {
    dir: PathBuf,
}

/// Held by an engine on its way out; dropped when the lock is free.
#[derive(Debug)]
pub(super) struct Leaving {
    _done: Reply<()>,
}

/// Waits until no engine of this process is leaving `dir`.
pub(super) async fn arrive(dir: &Path) -> Departure {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let leaving = lock().as_mut().and_then(|map| map.remove(&dir)).unwrap_or_default();
    for answer in leaving {
        // Resolves as lost when the engine has gone; nothing is ever sent.
        let _ = answer.await;
    }
    Departure { dir }
}

impl Departure {
    /// The engine begins to leave. The directory's lock must be released before the returned value
    /// is dropped.
    pub(super) fn leave(&self) -> Leaving {
        let (reply, answer) = reply();
        lock().get_or_insert_default().entry(self.dir.clone()).or_default().push(answer);
        Leaving { _done: reply }
    }
}
