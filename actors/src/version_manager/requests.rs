//! How others ask the version manager for room.

use super::message::{Shortage, VersionMessage};
use crate::range_owner::message::Requests;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::version::RangeId;

/// Tells the version manager that somebody lacks room.
pub fn ask_for_room(versions: &Mailbox<VersionMessage>, shortage: Shortage) {
    if let Ok(permit) = versions.try_reserve(1) {
        // If the mailbox is closed, the wait ends with the engine.
        let _ = permit.send(VersionMessage::Relieve(shortage));
    }
    // If the mailbox is full, the manager looks at who waits after each of its messages anyway.
    // Whoever does not wait asks again when it tries again.
}

impl Requests for Mailbox<VersionMessage> {
    fn seal(&self, range: RangeId, memtable: u64) -> bool {
        let Ok(permit) = self.try_reserve(1) else { return false };
        // If the mailbox is closed, the engine is stopping and nothing needs a seal.
        let _ = permit.send(VersionMessage::Seal { range, memtable });
        true
    }

    fn somebody_waits(&self) {
        ask_for_room(self, Shortage::Waited);
    }
}
