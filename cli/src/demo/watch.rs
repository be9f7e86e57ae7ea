//! Looks at the actors' mailboxes periodically, and remembers the largest length of each.

use sluicedb::Db;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Often enough to see queues, rarely enough not to matter.
const PERIOD: Duration = Duration::from_millis(5);

/// The largest length seen of each mailbox.
#[derive(Clone, Debug, Default)]
pub struct Peaks(Arc<Mutex<BTreeMap<String, usize>>>);

impl Peaks {
    /// Watches until the returned watch is ended.
    pub fn watch(&self, db: &Db) -> Watch {
        let (peaks, db) = (self.clone(), db.clone());
        Watch(tokio::spawn(async move {
            loop {
                peaks.look(&db);
                tokio::time::sleep(PERIOD).await;
            }
        }))
    }

    fn look(&self, db: &Db) {
        let mut peaks = self.0.lock().expect("nobody panics while holding it");
        for actor in db.stats().actors {
            let peak = peaks.entry(actor.name).or_default();
            *peak = (*peak).max(actor.mailbox_len);
        }
    }

    /// The largest length seen of `actor`'s mailbox.
    pub fn of(&self, actor: &str) -> usize {
        self.0.lock().expect("nobody panics while holding it").get(actor).copied().unwrap_or(0)
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Ends it. Returns once its handle on the database is dropped.
    pub async fn end(self) {
        self.0.abort();
        // It ends as cancelled, which is what was requested.
        let _ = self.0.await;
    }
}
