//! The planner's loop: when to look, and how an order becomes a change of routes.

use super::recent::recent_keys;
use super::state::{Order, RangeLimits, Seen, SplitCause};
use super::{RangePlanner, period};
use crate::config::RangePolicy;
use crate::failure::Failure;
use crate::range_owner::{RangeEntry, Superversion};
use crate::version_manager::flushed_together;
use crate::version_manager::message::{Change, VersionMessage};
use bytes::Bytes;
use futures::future::select;
use sluicedb_storage::key::Seqno;
use sluicedb_storage::keyspace::KeyspaceId;
use sluicedb_storage::version::{SliceMeta, median_of};
use std::pin::pin;

impl RangePlanner {
    /// The loop.
    pub async fn run(mut self) {
        loop {
            self.look().await;
            self.until_due().await;
            if self.failures.is_stopped() {
                return;
            }
        }
    }

    /// Waits for the alarm or for something to happen, and until a period has passed since the last
    /// look.
    async fn until_due(&mut self) {
        let next = self.looked + period(&self.environment.config.ranges);
        let (alarm, environment, due) = (self.alarm, &self.environment, &self.due.ranges);
        let time = async move {
            select(pin!(due.wait()), pin!(environment.until(alarm))).await;
            environment.until(Some(next)).await;
        };
        select(pin!(time), pin!(self.failures.health.until_down())).await;
    }

    async fn look(&mut self) {
        let now = self.environment.now();
        let policy = &self.environment.config.ranges;
        let superversion = self.topology.superversion.load_full();
        let seen = seen(&superversion, policy);
        let decision = self.history.look(&seen, policy, now);
        for RangeEntry { owner, .. } in &superversion.ranges {
            let heat = self.history.heat(owner.id);
            if owner.sizes.batches_per_second() != heat {
                owner.sizes.show_heat(heat);
            }
        }
        // Its memtables and tables may be flushed and compacted away while the orders are carried
        // out.
        drop(superversion);
        let since = self.visible[1];
        self.visible = [self.topology.visible(), self.visible[0]];
        self.looked = now;
        self.alarm = decision.again;
        if self.history.is_warm() || !decision.orders.is_empty() {
            self.alarm = Some(now);
        }
        for order in decision.orders {
            // Ranges stay as they are while a party cannot work, or while the database is being
            // closed.
            if !self.failures.health.is_running() || self.accounts.global.is_closed() {
                return;
            }
            self.carry_out(order, since).await;
        }
    }

    async fn carry_out(&mut self, order: Order, since: Seqno) {
        let done = match self.bound_for(order, since) {
            Some((keyspace, at)) => self.change(order, keyspace, at).await,
            None => Ok(false),
        };
        let (policy, now) = (&self.environment.config.ranges, self.environment.now());
        match done {
            Ok(true) => return,
            Ok(false) => tracing::debug!(?order, "there is no such change to be made"),
            Err(failure) => tracing::warn!(?order, %failure, "ranges stay as they are"),
        }
        self.counts.range_tries_failed.add(1);
        self.history.failed(order, policy, now);
    }

    /// The key where the order's ranges meet or should meet. Blocks on the disk.
    fn bound_for(&self, order: Order, since: Seqno) -> Option<(KeyspaceId, Bytes)> {
        let superversion = self.topology.superversion.load_full();
        let (Order::Split { range, .. } | Order::Merge { left: range, .. }) = order;
        let range = superversion.range(range)?;
        let at = match order {
            Order::Split { cause, .. } => match cause {
                SplitCause::Bytes => range.stable.median(SliceMeta::file_bytes),
                SplitCause::Entries => range.stable.median(SliceMeta::entries),
                SplitCause::Heat => {
                    let keys = recent_keys(range, since).expect("memory cannot fail");
                    median_of(keys, range.span())
                }
            },
            Order::Merge { .. } => range.span().hi.clone(),
        };
        Some((range.stable.keyspace, at?))
    }

    /// Has the order's change been made?
    async fn change(
        &mut self,
        order: Order,
        keyspace: KeyspaceId,
        at: Bytes,
    ) -> Result<bool, Failure> {
        let change = match order {
            Order::Split { .. } => Change::Split { keyspace, at: at.clone() },
            Order::Merge { .. } => Change::Merge { keyspace, at: at.clone() },
        };
        let message = |reply| VersionMessage::Change { change, reply };
        let changed = self.failures.ask(&self.versions, message).await;
        if changed.map_err(|failed| failed.failure)?.is_none() {
            return Ok(false);
        }
        let counts = &self.counts;
        match order {
            Order::Merge { .. } => counts.merges_cold.add(1),
            Order::Split { range, cause } => {
                match cause {
                    SplitCause::Bytes => counts.splits_bytes.add(1),
                    SplitCause::Entries => counts.splits_entries.add(1),
                    SplitCause::Heat => counts.splits_heat.add(1),
                }
                // A caller may have changed the routes since. Then these are not its parts, which
                // does no harm.
                let superversion = self.topology.superversion.load();
                if let Some(right) = superversion.route_index(keyspace, &at)
                    && let [.., left, right] = &superversion.ranges[..=right]
                {
                    let now = self.environment.now();
                    self.history.parted(range, [left.id(), right.id()], cause, now);
                }
            }
        }
        Ok(true)
    }
}

/// What the decision needs of all ranges, in key order.
fn seen(superversion: &Superversion, policy: &RangePolicy) -> Vec<Seen> {
    let ranges = &superversion.ranges;
    let nexts = ranges.iter().skip(1).map(Some).chain([None]);
    let one = |(range, next): (&RangeEntry, Option<&RangeEntry>)| Seen {
        id: range.id(),
        limits: RangeLimits::of(policy, &range.stable.own),
        is_first: range.span().lo.is_empty(),
        bytes: range.stable.bytes(),
        entries: range.stable.entries(),
        batches: range.owner.sizes.batches(),
        joins_next: policy.merges
            && next.is_some_and(|next| flushed_together([range, next]).is_some()),
    };
    ranges.iter().zip(nexts).map(one).collect()
}
