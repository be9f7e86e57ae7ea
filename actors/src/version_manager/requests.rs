//! How others ask the version manager for room.

use super::message::VersionMessage;
use crate::failure::Scope;
use crate::range_owner::message::Requests;
use sluicedb_kernel::mailbox::Mailbox;
use sluicedb_storage::version::RangeId;

/// Tells the version manager that somebody lacks room: waits for it, or needs so many bytes.
pub fn ask_for_room(versions: &Mailbox<VersionMessage>, scope: Scope, bytes: u64) {
    if let Ok(permit) = versions.try_reserve(1) {
        // Closed: the wait ends with the engine.
        let _ = permit.send(VersionMessage::Relieve { scope, bytes });
    }
    // Full: there are messages, and after each the manager looks at who waits.
}

impl Requests for Mailbox<VersionMessage> {
    fn seal(&self, range: RangeId, memtable: u64) -> bool {
        let Ok(permit) = self.try_reserve(1) else { return false };
        // Closed: the engine is ending and nothing needs sealing any more.
        let _ = permit.send(VersionMessage::Seal { range, memtable });
        true
    }

    fn somebody_waits(&self) {
        ask_for_room(self, Scope::Local, 0);
    }
}
