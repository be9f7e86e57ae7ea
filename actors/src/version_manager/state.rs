//! Pure decisions of the version manager.

use super::message::Flushed;
use crate::failure::Failure;
use crate::kernel::reply::Reply;
use sluicedb_storage::view::Overlay;
use std::collections::HashSet;

/// The overlays without the memtables that were flushed.
pub(super) fn without(overlays: &[Overlay], flushed: Option<&Flushed>) -> Vec<Overlay> {
    let mut overlays = overlays.to_vec();
    if let Some(flushed) = flushed
        && let Some(overlay) = overlays.iter_mut().find(|overlay| overlay.range == flushed.range)
    {
        overlay.sealed.retain(|table| !flushed.memtables.contains(&table.id()));
    }
    overlays
}

/// A caller of `flush`: the memtables it still waits for, and its reply.
type FlushWaiter = (HashSet<u64>, Reply<Result<(), Failure>>);

/// The callers of `flush`.
#[derive(Debug, Default)]
pub(super) struct FlushWaiters(Vec<FlushWaiter>);

impl FlushWaiters {
    /// Answers `reply` once all of `memtables` are published.
    pub(super) fn wait(&mut self, memtables: HashSet<u64>, reply: Reply<Result<(), Failure>>) {
        if memtables.is_empty() {
            reply.send(Ok(()));
        } else {
            self.0.push((memtables, reply));
        }
    }

    /// These memtables are published.
    pub(super) fn published(&mut self, memtables: &[u64]) {
        for (waiting, _) in &mut self.0 {
            waiting.retain(|id| !memtables.contains(id));
        }
        for (_, reply) in self.0.extract_if(.., |(waiting, _)| waiting.is_empty()) {
            reply.send(Ok(()));
        }
    }

    /// Flushing fails: nobody waits for it to come right.
    pub(super) fn fail(&mut self, failure: &Failure) {
        for (_, reply) in self.0.drain(..) {
            reply.send(Err(failure.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::reply::reply;

    #[test]
    fn a_flush_is_answered_after_its_last_memtable() {
        let mut waiters = FlushWaiters::default();
        let (first, mut first_answer) = reply();
        let (second, mut second_answer) = reply();
        waiters.wait(HashSet::from([1, 2]), first);
        waiters.wait(HashSet::from([2]), second);
        waiters.published(&[2]);
        assert!(first_answer.try_take().is_none());
        assert!(matches!(second_answer.try_take(), Some(Ok(Ok(())))));
        waiters.published(&[1]);
        assert!(matches!(first_answer.try_take(), Some(Ok(Ok(())))));
    }

    #[test]
    fn a_flush_of_nothing_is_answered_at_once() {
        let mut waiters = FlushWaiters::default();
        let (reply, mut answer) = reply();
        waiters.wait(HashSet::new(), reply);
        assert!(matches!(answer.try_take(), Some(Ok(Ok(())))));
    }
}
