//! Tables of which a view shows all there is: they can be copied without a look at their entries.

use super::{InFront, MemtableSliceCursor, RangeEntry, View};
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Seqno, Span};
use crate::keyspace::KeyspaceId;
use crate::version::{Run, Slice};

impl View {
    /// The tables that have, between their first and last keys, exactly what the view has there in
    /// `keyspace`, all of it in `span`, and of at least `bytes_min` bytes. In key order.
    ///
    /// Such a table is used as a whole and has no tombstone; and no other layer, in memory or on
    /// disk, has a key between its first and its last one. A table has no key twice, and nothing
    /// that is newer than a view that has it: so each of its entries is what a scan shows.
    ///
    /// # Errors
    /// What a walk over memory finds.
    /// INVARIANT(adopted-as-written).
    pub fn whole_tables(
        &self,
        keyspace: KeyspaceId,
        span: &Span,
        bytes_min: u64,
    ) -> Result<Vec<Slice>> {
        let mut whole = Vec::new();
        for range in &self.superversion.ranges {
            if range.stable.keyspace != keyspace || range.span().intersection(span).is_empty() {
                continue;
            }
            let runs: Vec<&Run> =
                tables_in_front(range).chain(range.stable.layers.runs()).collect();
            for (at, run) in runs.iter().enumerate() {
                for slice in run.slices().iter() {
                    let (min, max) = (slice.min_key(), slice.max_key());
                    debug_assert!(
                        slice.max_seqno() <= self.upto,
                        "it shows nothing above the view"
                    );
                    let fits = slice.part.is_none()
                        && slice.tombstones() == 0
                        && slice.file_bytes() >= bytes_min
                        && span.contains(min)
                        && span.contains(max);
                    let mut others = runs.iter().enumerate().filter(|(other, _)| *other != at);
                    if fits
                        && others.all(|(_, run)| run.overlapping(min, max).is_empty())
                        && !is_in_memory(range, min, max, self.upto)?
                    {
                        whole.push(slice.clone());
                    }
                }
            }
        }
        whole.sort_by(|a, b| a.min_key().cmp(b.min_key()));
        Ok(whole)
    }
}

fn tables_in_front<O>(range: &RangeEntry<O>) -> impl Iterator<Item = &Run> {
    range.in_front().filter_map(|layer| match layer {
        InFront::Tables(run) => Some(run),
        InFront::Active(_) | InFront::Sealed(_) => None,
    })
}

/// Has a memtable of the range anything in the closed interval `[min, max]`?
fn is_in_memory<O>(range: &RangeEntry<O>, min: &[u8], max: &[u8], upto: Seqno) -> Result<bool> {
    for layer in range.in_front() {
        let mut cursor = match layer {
            InFront::Active(memtable) => MemtableSliceCursor::whole(memtable.cursor(upto)),
            InFront::Sealed(memtable) => memtable.cursor(upto),
            InFront::Tables(_) => continue,
        };
        cursor.seek(min)?;
        if cursor.valid() && cursor.key() <= max {
            return Ok(true);
        }
    }
    Ok(false)
}
