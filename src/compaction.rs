//! Compactions that callers ask for: what, how far, and how one looks on.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::progress::ProgressWatch;
use futures::future::BoxFuture;
use sluicedb_actors::compaction_planner::message::{Progress, ProgressWatch as Shows};
use sluicedb_storage::compact::Order;
use sluicedb_storage::key::Span;
use sluicedb_storage::limits::LEVELS_MAX;
use std::future::IntoFuture;
use std::sync::Arc;

/// A compaction that was asked for with [`Db::compact_range`]. Await it to have it done.
///
/// # Errors
/// As [`Db::compact`]; `Invalid` for a level that there is not.
///
/// # Cancellation
/// Dropped, the merge that is under way stops and changes nothing. What was merged before stays so.
#[must_use = "nothing is compacted before it is awaited"]
pub struct Compaction {
    db: Db,
    span: Span,
    level: Option<u8>,
    shown: Shown,
}

/// Whoever has this wants the compaction. The watches see the end when it is dropped.
struct Shown(Arc<Shows>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.update(|progress| Some(Progress { is_over: true, ..*progress }));
    }
}

impl Compaction {
    pub(crate) fn new(db: Db, span: Span) -> Self {
        let shown = Shown(Arc::new(Shows::new(Progress::default())));
        Self { db, span, level: None, shown }
    }

    /// Merge into this level, 1 to 7, and leave alone what lies below it. Without it: into the
    /// deepest level that has some of the keys, where tombstones have nothing left to hide and go.
    pub fn to_level(mut self, level: u8) -> Self {
        self.level = Some(level);
        self
    }

    /// A watch on how far it has come. Any number of them; none keeps it going.
    pub fn progress(&self) -> ProgressWatch {
        ProgressWatch::of_compaction(self.shown.0.watcher())
    }

    async fn run(self) -> Result<()> {
        let Self { db, span, level, shown } = self;
        if let Some(level) = level
            && !(1..=LEVELS_MAX).contains(&usize::from(level))
        {
            let what = format!("level is {level}; it must be 1..={LEVELS_MAX}");
            return Err(Error::invalid(what));
        }
        if span.is_empty() {
            return Ok(());
        }
        db.check_keyspace()?;
        let order = Order { level, ..Order::whole(db.keyspace_id(), span) };
        Ok(db.engine().compact(order, &shown.0).await?)
    }
}

impl IntoFuture for Compaction {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl std::fmt::Debug for Compaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compaction")
            .field("span", &self.span)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}
