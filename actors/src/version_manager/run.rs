//! The version manager's loop, and its checks between messages.

use super::VersionManager;
use super::change::Wanted;
use super::message::{Shortage, VersionMessage};
use crate::failure::Failure;
use crate::failure::space::reserve_wanted;
use futures::FutureExt;
use std::pin::pin;

impl VersionManager {
    /// The loop.
    pub async fn run(mut self) {
        self.count_tables();
        self.look_after_reserve();
        while let Some(message) = self.next_message().await {
            match message {
                VersionMessage::Install(install) => self.install(install).await,
                VersionMessage::Seal { range, memtable } => {
                    if self.active_id(range) == Some(memtable) {
                        self.seal_if_due(range);
                    }
                }
                VersionMessage::Relieve(Shortage::Range { range, bytes }) => {
                    self.relieve_range(range, bytes);
                }
                VersionMessage::Relieve(Shortage::Engine { bytes }) => self.relieve_if_short(bytes),
                VersionMessage::Flush { reply } => self.flush_all(reply),
                VersionMessage::FlushFailed { range, memtables, failure } => {
                    self.waiters.failed(&memtables, &failure);
                    if self.topology.superversion.load().range(range).is_some() {
                        self.failing.insert(range);
                    }
                }
                VersionMessage::Change { change, reply } => {
                    self.changes.push_back(Wanted::new(change, reply));
                }
                VersionMessage::KeepNumbers { reply } => reply.send(self.keep_numbers()),
                // The checks after every message do what these ask for.
                VersionMessage::LogGrown
                | VersionMessage::DeleteObsolete
                | VersionMessage::Relieve(Shortage::Waited) => {}
                VersionMessage::Close { reply } => {
                    let settled = self.settle().await.map_err(|failed| failed.failure);
                    let result = settled.and_then(|()| self.close());
                    self.delete_obsolete();
                    reply.send(result);
                    break;
                }
            }
            self.look_after_changes().await;
            self.delete_obsolete();
            self.look_after_waiters();
            self.look_after_memtables();
            self.look_after_manifest();
            self.look_after_reserve();
            self.accounts.board.look();
            self.due.ranges.set();
        }
        self.waiters.fail(&Failure::Closed);
        self.refuse_changes(&Failure::Closed);
    }

    /// The next message. The alarm, and the start of the reserve's use, count as a `LogGrown`.
    async fn next_message(&mut self) -> Option<VersionMessage> {
        let mut alarm = pin!(self.environment.until(self.seal_policy.alarm).fuse());
        futures::select_biased! {
            message = self.inbox.recv().fuse() => message,
            () = self.failures.reserve_due.wait().fuse() => Some(VersionMessage::LogGrown),
            () = alarm => Some(VersionMessage::LogGrown),
        }
    }

    fn look_after_reserve(&mut self) {
        let (max, memory) =
            (self.environment.config.space_reserve_bytes, self.accounts.global.used());
        let wanted = reserve_wanted(max, memory, self.table_bytes);
        let now = self.environment.now();
        let free = || self.environment.vfs.free_bytes(self.environment.dir());
        if let Some(at) = self.failures.keep_reserve(wanted, &mut self.reserve, now, free) {
            self.seal_policy.look_again(at);
        }
    }
}
