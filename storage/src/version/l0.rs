//! L0: what flushes brought, newest first, and how deep a reader has to look.

use super::handle::TableHandle;
use super::level::Level;
use std::ops::Deref;
use std::sync::Arc;

/// The tables of L0, newest first, and the sorted runs that they form. Derefs to the tables. Cheap to
/// clone.
///
/// A flush cut at shard bounds brings several tables that do not overlap: together they are one run,
/// and cost a reader or a merge what one table costs. So it is the number of runs that triggers a
/// compaction and makes flushes wait, not the number of files.
#[derive(Clone, Debug, Default)]
pub struct L0 {
    tables: Arc<[Arc<TableHandle>]>,
    runs: Arc<[Level]>,
}

impl L0 {
    /// Of tables that are sorted newest first (`check` proves it). Neighbours in age that do not
    /// overlap share a run, so that every run is newer throughout than the next, wherever the two
    /// overlap.
    pub fn new(tables: Vec<Arc<TableHandle>>) -> Self {
        let mut runs: Vec<Vec<Arc<TableHandle>>> = Vec::new();
        for table in &tables {
            match runs.last_mut().and_then(|run| Some((place_in(run, table)?, run))) {
                Some((at, run)) => run.insert(at, Arc::clone(table)),
                None => runs.push(vec![Arc::clone(table)]),
            }
        }
        Self { tables: tables.into(), runs: runs.into_iter().map(Level::new).collect() }
    }

    /// The runs, newest first: a key is in at most one table of each.
    #[inline]
    pub fn runs(&self) -> &[Level] {
        &self.runs
    }

    /// How many runs there are: places where a read may have to look.
    pub fn depth(&self) -> usize {
        self.runs.len()
    }
}

impl Deref for L0 {
    type Target = [Arc<TableHandle>];

    fn deref(&self) -> &Self::Target {
        &self.tables
    }
}

/// Where `table` belongs in a sorted run; `None` if it overlaps a table of it.
fn place_in(run: &[Arc<TableHandle>], table: &TableHandle) -> Option<usize> {
    let meta = table.meta();
    let at = run.partition_point(|other| other.meta().max_key < meta.min_key);
    run.get(at).is_none_or(|next| meta.max_key < next.meta().min_key).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::super::testing::handle;
    use super::*;

    fn runs(l0: &L0) -> Vec<Vec<u64>> {
        let numbers = |run: &Level| run.tables().iter().map(|table| table.number().0).collect();
        l0.runs().iter().map(numbers).collect()
    }

    #[test]
    fn pieces_of_one_flush_are_one_run() {
        let l0 = L0::new(vec![
            handle(9, b"m", b"z", 1),
            handle(8, b"a", b"c", 1),
            handle(7, b"x", b"y", 1),
            handle(6, b"d", b"f", 1),
        ]);
        assert_eq!(l0.len(), 4);
        assert_eq!(runs(&l0), [vec![8, 9], vec![6, 7]]);
        assert_eq!(l0.depth(), 2);
    }

    #[test]
    fn an_older_table_never_gets_before_a_newer_one_that_it_overlaps() {
        // 7 overlaps 8, 6 overlaps neither: it may not go around 7 into the first run, or a table
        // that comes between them in age would be passed.
        let l0 = L0::new(vec![
            handle(8, b"a", b"f", 1),
            handle(7, b"b", b"c", 1),
            handle(6, b"x", b"z", 1),
        ]);
        assert_eq!(runs(&l0), [vec![8], vec![7, 6]]);
        assert_eq!(L0::default().depth(), 0);
    }
}
