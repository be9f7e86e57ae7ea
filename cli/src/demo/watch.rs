//! Looks at the actors' mailboxes from time to time and remembers how full they have been.

use sluicedb::Db;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Often enough to see queues, seldom enough not to matter.
const PERIOD: Duration = Duration::from_millis(5);

/// The fullest that each mailbox was seen.
#[derive(Clone, Debug, Default)]
pub struct Peaks(Arc<Mutex<BTreeMap<String, usize>>>);

impl Peaks {
    /// Watches until the watch is ended.
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

    /// The fullest that `actor`'s mailbox was seen.
    pub fn of(&self, actor: &str) -> usize {
        self.0.lock().expect("nobody panics while holding it").get(actor).copied().unwrap_or(0)
    }
}

/// A watch that goes on.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Ends it, and returns when its handle to the database is gone.
    pub async fn end(self) {
        self.0.abort();
        // It ends as cancelled, which is what was asked for.
        let _ = self.0.await;
    }
}
