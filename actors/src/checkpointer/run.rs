//! The checkpointer's loop: put tables in place, keep their numbers, publish.

use super::Checkpointer;
use super::message::CheckpointOrder;
use crate::admission::RangeBudget;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::version_manager::message::VersionMessage;
use sluicedb_storage::checkpoint::{Counts, Draft, Origin, fill};
use sluicedb_storage::version::Image;

impl Checkpointer {
    /// The loop.
    pub async fn run(mut self) {
        while let Some(order) = self.inbox.recv().await {
            let began = self.environment.now();
            let made = self.make(&order).await;
            let counts = &self.counts;
            match &made {
                Ok(made) => {
                    let took = self.environment.now().saturating_duration_since(began);
                    counts.checkpoints.add(1);
                    counts.checkpoint_bytes_linked.add(made.linked.bytes);
                    counts.checkpoint_bytes_copied.add(made.copied.bytes);
                    counts.checkpoint_bytes_written.add(made.written.bytes);
                    counts.checkpoint_micros.add(took.as_micros() as u64);
                }
                Err(failure) => {
                    counts.checkpoints_failed.add(1);
                    tracing::warn!(dir = %order.dir.display(), %failure, "no checkpoint was made");
                }
            }
            let CheckpointOrder { view, reply, .. } = order;
            // Dropped before the reply, so that nothing is held for this order when the caller goes
            // on.
            drop(view);
            reply.send(made);
        }
    }

    async fn make(&self, order: &CheckpointOrder) -> Result<Counts, Failure> {
        let (draft, image) = self.prepare(order)?;
        // INVARIANT(never-reuse-a-file-number): this holds across a crash, which would otherwise
        // forget numbers that only the checkpoint uses. The next incremental checkpoint could not
        // tell the tables of one from those of the other.
        self.failures.ask(&self.versions, |reply| VersionMessage::KeepNumbers { reply }).await?;
        Ok(draft.publish(image)?)
    }

    /// Does everything except publish the checkpoint.
    fn prepare(&self, order: &CheckpointOrder) -> Result<(Draft, Image), Failure> {
        let CheckpointOrder { view, dir, mode, shown, reply } = order;
        self.failures.check()?;
        let environment = &self.environment;
        let config = &environment.config;
        let ranges = view.superversion.ranges.len();
        let origin = Origin {
            vfs: &environment.vfs,
            dir: environment.dir(),
            db_id: environment.db_id,
            view,
            table: config.l0_table.clone(),
            created_at_ms: environment.unix_ms(),
            shard_cut_bytes_min: RangeBudget::of(config, ranges).shard_cut_bytes_min(),
            next_number: &|| self.files.numbers.take(),
        };
        let private = !config.allow_shared_directory;
        let mut told = |counts: &Counts| {
            let Counts { done_bytes, total_bytes, .. } = *counts;
            shown.set(Progress { done_bytes, total_bytes, is_over: false });
            !reply.is_abandoned() && !self.failures.is_stopped()
        };
        let made = (|| {
            let mut draft = Draft::begin(origin.vfs, dir, origin.db_id, *mode, private)?;
            let image = fill(&mut draft, &origin, &mut told)?;
            Ok(image.map(|image| (draft, image)))
        })();
        let made = made.inspect_err(|error| self.files.give_up_descriptors(error))?;
        // A dropped reply means that nobody reads the error.
        made.ok_or_else(|| self.failures.why_stopped())
    }
}
