//! The ranges that there are, and how far writes to them are visible: all that a reader loads.

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
/// who owns each range of it. Stored by the version manager alone.
pub type Superversion = view::Superversion<Arc<RangeOwner>>;

/// See the module.
#[derive(Debug)]
pub struct Topology {
    /// What can be read and who owns what.
    pub superversion: Published<Superversion>,
    /// From stamped to visible.
    pub commits: Sequencer,
    /// Why nothing more becomes visible, if nothing does.
    pub failures: Arc<Failures>,
}

impl Topology {
    /// The last sequence number that readers may see.
    #[inline]
    pub fn visible(&self) -> Seqno {
        Seqno(self.commits.visible())
    }

    /// Refuses new writes; what was admitted goes on.
    pub fn close_admission(&self, accounts: &Accounts) {
        // First, for `follow_closing`.
        accounts.global.close();
        // With the one below: whoever is second sees what the first has done.
        fence(Ordering::SeqCst);
        self.close_ranges();
    }

    /// Ranges were published that are new: are they too late?
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
