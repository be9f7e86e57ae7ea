//! The ranges that exist, and how far writes to them are visible: everything that a reader loads.

use super::RangeOwner;
use crate::admission::Accounts;
use crate::failure::Failures;
use sluicedb_kernel::published::Published;
use sluicedb_kernel::sequencer::Sequencer;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::view;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// One range, with its owner.
pub type RangeEntry = view::RangeEntry<Arc<RangeOwner>>;
/// What readers and writers load with one pointer (INVARIANT(one-pointer)): what can be read, and
/// who owns each range. Only the version manager stores it.
pub type Superversion = view::Superversion<Arc<RangeOwner>>;

/// See the module.
#[derive(Debug)]
pub struct Topology {
    /// The current superversion.
    pub superversion: Published<Superversion>,
    /// Tracks each commit from stamped to visible.
    pub commits: Sequencer,
    /// Says why nothing becomes visible any more, if the engine has stopped.
    pub failures: Arc<Failures>,
}

impl Topology {
    /// The last sequence number that readers may see.
    #[inline]
    pub fn visible(&self) -> Seqno {
        Seqno(self.commits.visible())
    }

    /// Refuses new writes. Admitted writes go on.
    pub fn close_admission(&self, accounts: &Accounts) {
        // The global account is closed first, because `follow_closing` reads it.
        accounts.global.close();
        // Pairs with the fence in `follow_closing`: whoever runs second sees what the first did.
        fence(Ordering::SeqCst);
        self.close_ranges();
    }

    /// Closes new ranges that were published after admission was closed.
    pub fn follow_closing(&self, accounts: &Accounts) {
        fence(Ordering::SeqCst);
        if accounts.global.is_closed() {
            self.close_ranges();
        }
    }

    fn close_ranges(&self) {
        for range in &self.superversion.load_full().ranges {
            range.owner.local.close();
        }
    }
}
