//! The databases of this process that are being opened or closed.
//!
//! A dropped database stops without waiting, so its threads may hold the directory's lock a little
//! longer. An open of the same directory in the same process waits for them, instead of failing as
//! if another process had it. Each open also waits for opens that began before it: what they open
//! may be dropped at once if nobody wants it any more.

use sluicedb_kernel::sync;
use sluicedb_kernel::watch::Watch;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

type Entries = HashMap<PathBuf, Vec<Entry>>;

static REGISTRY: Mutex<Option<Entries>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn lock() -> MutexGuard<'static, Option<Entries>> {
    sync::lock(&REGISTRY)
}

struct Entry {
    id: u64,
    is_closing: bool,
    /// Set after the entry was removed.
    gone: Watch<()>,
}

/// Knows an engine's directory. Registers later that the engine is being closed.
#[derive(Debug)]
pub(super) struct Exit {
    dir: PathBuf,
}

/// Held while an engine is being opened or closed. Dropped once it is open, or its lock is free.
/// The drop removes the entry.
#[derive(Debug)]
pub(super) struct Registration {
    dir: PathBuf,
    id: u64,
    gone: Watch<()>,
}

/// Waits until no engine of this process is being closed in `dir`, and no earlier one is being
/// opened. The caller holds the returned value until this engine is open and has been handed over
/// or dropped.
pub(super) async fn register_opening(dir: &Path) -> Registration {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let arrival = Registration::new(&dir, false);
    loop {
        let first = {
            let map = lock();
            let mut entries = map.as_ref().and_then(|map| map.get(&dir)).into_iter().flatten();
            let first = entries.find(|entry| entry.is_closing || entry.id < arrival.id);
            first.map(|entry| entry.gone.watcher())
        };
        let Some(mut first) = first else { return arrival };
        first.changed().await;
    }
}

impl Registration {
    fn new(dir: &Path, is_closing: bool) -> Self {
        let gone = Watch::new(());
        let mut map = lock();
        // Taken under the lock, so that earlier entries have smaller ids.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { id, is_closing, gone: gone.clone() };
        map.get_or_insert_default().entry(dir.to_owned()).or_default().push(entry);
        Self { dir: dir.to_owned(), id, gone }
    }

    /// The exit for the same directory.
    pub(super) fn exit(&self) -> Exit {
        Exit { dir: self.dir.clone() }
    }
}

impl Exit {
    /// Registers that the engine begins to close. Release the directory's lock before dropping the
    /// returned value.
    pub(super) fn register_closing(&self) -> Registration {
        Registration::new(&self.dir, true)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        {
            let mut map = lock();
            if let Some(map) = map.as_mut()
                && let Some(entries) = map.get_mut(&self.dir)
            {
                entries.retain(|entry| entry.id != self.id);
                if entries.is_empty() {
                    map.remove(&self.dir);
                }
            }
        }
        self.gone.set(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::future::FutureExt;

    fn listed(dir: &Path) -> usize {
        lock().as_ref().and_then(|map| map.get(dir)).map_or(0, Vec::len)
    }

    /// Planted: `Registration` without a `Drop`.
    #[test]
    fn b14_who_has_left_leaves_no_entry_behind() {
        let dir = Path::new("/departures/of/this/test");
        let departure = block_on(register_opening(dir)).exit();
        assert_eq!(listed(dir), 0);
        let (first, second) = (departure.register_closing(), departure.register_closing());
        assert_eq!(listed(dir), 2);
        drop(first);
        let mut arrival = Box::pin(register_opening(dir));
        assert!(arrival.as_mut().now_or_never().is_none(), "one is still there");
        assert_eq!(listed(dir), 2);
        drop(second);
        assert_eq!(block_on(arrival).dir, dir);
        drop(departure.register_closing());
        assert!(lock().as_ref().is_none_or(|map| !map.contains_key(dir)));
    }

    /// Planted: an arrival removes the entries of those who leave.
    #[test]
    fn everybody_who_arrives_waits_for_who_is_closing_and_for_who_came_before() {
        let dir = Path::new("/arrivals/of/this/test");
        let leaving = block_on(register_opening(dir)).exit().register_closing();
        let [mut first, mut second, mut third] = [(); 3].map(|()| Box::pin(register_opening(dir)));
        for arrival in [&mut first, &mut second, &mut third] {
            assert!(arrival.as_mut().now_or_never().is_none(), "one is leaving");
        }
        drop(second);
        drop(leaving);
        assert!(third.as_mut().now_or_never().is_none(), "another one came before");
        let first = first.now_or_never().expect("nobody is in the way");
        // Nobody wanted it, so it closes as soon as it is open.
        let leaving = first.exit().register_closing();
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "what came before is leaving");
        drop(leaving);
        drop(third.now_or_never().expect("all have passed"));
        assert_eq!(listed(dir), 0);
    }
}
