//! Engines of this process that are still on their way out.
//!
//! A dropped database stops without waiting, so its threads may hold the directory's lock for some
//! moments more. Opening the same directory again in the same process waits for them, instead of
//! failing as if somebody else had it.

use crate::kernel::reply::{Answer, Reply, reply};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Leavers = HashMap<PathBuf, Vec<(u64, Answer<()>)>>;

static LEAVING: Mutex<Option<Leavers>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn lock() -> MutexGuard<'static, Option<Leavers>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine's entry: says where it lives, and later that it is leaving.
#[derive(Debug)]
pub(super) struct Departure {
    dir: PathBuf,
}

/// Held by an engine on its way out; dropped when the lock is free. Takes its entry with it.
#[derive(Debug)]
pub(super) struct Leaving {
    dir: PathBuf,
    id: u64,
    _done: Reply<()>,
}

/// Waits until no engine of this process is leaving `dir`.
pub(super) async fn arrive(dir: &Path) -> Departure {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let leaving = lock().as_mut().and_then(|map| map.remove(&dir)).unwrap_or_default();
    for (_, answer) in leaving {
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
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        lock().get_or_insert_default().entry(self.dir.clone()).or_default().push((id, answer));
        Leaving { dir: self.dir.clone(), id, _done: reply }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut map = lock();
        // Who has just arrived has taken it already.
        if let Some(map) = map.as_mut()
            && let Some(leavers) = map.get_mut(&self.dir)
        {
            leavers.retain(|(id, _)| *id != self.id);
            if leavers.is_empty() {
                map.remove(&self.dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::FutureExt;

    /// Planted: `Leaving` without a `Drop`.
    #[test]
    fn b14_who_has_left_leaves_no_entry_behind() {
        let dir = Path::new("/departures/of/this/test");
        let listed = || lock().as_ref().and_then(|map| map.get(dir)).map_or(0, Vec::len);
        let departure = block_on(arrive(dir));
        let (first, second) = (departure.leave(), departure.leave());
        assert_eq!(listed(), 2);
        drop(first);
        assert_eq!(listed(), 1);
        let mut arrival = Box::pin(arrive(dir));
        assert!(arrival.as_mut().now_or_never().is_none(), "one is still there");
        drop(second);
        assert_eq!(block_on(arrival).dir, dir);
        assert_eq!(listed(), 0);
        drop(departure.leave());
        assert!(lock().as_ref().is_none_or(|map| !map.contains_key(dir)));
    }
}
