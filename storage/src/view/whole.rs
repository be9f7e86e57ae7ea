//! Tables of which a view shows every entry. They can be taken over without a look at their
//! entries.

use super::cut_out::CutOut;
use super::{InFront, RangeEntry, View};
use crate::compact::superseded;
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Seqno, Span};
use crate::keyspace::KeyspaceId;
use crate::table::KeySketch;
use crate::version::Slice;
use bytes::Bytes;
use std::cmp::Reverse;

/// The largest share of hidden entries in a stack. With more, a stack is not worth its space.
const HIDDEN_MAX: f64 = 0.25;

/// Tables that overlap. Together they have exactly what a view has between the first and the last
/// of their keys.
#[derive(Clone, Debug)]
pub struct Stack {
    /// In key order, each with the number of its layer. Of two tables with a common key, the one
    /// with the larger number is newer.
    slices: Vec<(usize, Slice)>,
    /// The largest of their keys.
    max_key: Bytes,
}

impl Stack {
    /// Its tables in key order, each with the number of its layer, from 0. Of two tables with a
    /// common key, the one with the larger number is newer.
    pub fn slices(&self) -> impl Iterator<Item = (usize, &Slice)> {
        self.slices.iter().map(|(layer, slice)| (*layer, slice))
    }

    /// The first key.
    pub fn min_key(&self) -> &Bytes {
        self.slices[0].1.min_key()
    }

    /// The last key.
    pub fn max_key(&self) -> &Bytes {
        &self.max_key
    }

    /// Do its tables not overlap?
    pub fn is_flat(&self) -> bool {
        self.slices.len() == 1
    }

    fn with(&mut self, layer: usize, slice: Slice) {
        if slice.max_key() > &self.max_key {
            self.max_key = slice.max_key().clone();
        }
        self.slices.push((layer, slice));
    }

    /// Numbers the layers again, from 0, without gaps.
    fn renumber(&mut self) {
        let mut layers: Vec<_> = self.slices.iter().map(|(layer, _)| *layer).collect();
        layers.sort_unstable();
        layers.dedup();
        for (layer, _) in &mut self.slices {
            *layer = layers.partition_point(|other| other < layer);
        }
    }

    /// How many layers it has.
    fn layers(&self) -> usize {
        self.slices.iter().map(|(layer, _)| layer + 1).max().unwrap_or(0)
    }

    /// About the share of its entries that newer ones hide; all of them, if that is not known.
    fn hidden(&self) -> f64 {
        if !self.is_flat() && self.slices().any(|(_, s)| s.table.keys == KeySketch::default()) {
            return 1.0;
        }
        let mut newest_first: Vec<_> = self.slices().collect();
        newest_first.sort_by_key(|(layer, _)| Reverse(*layer));
        let slices: Vec<_> = newest_first.into_iter().map(|(_, slice)| slice.clone()).collect();
        superseded(&slices)
    }
}

/// Which tables are worth taking over.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    /// The least bytes on average.
    pub bytes_min: u64,
    /// The most tables over any key.
    pub layers_max: usize,
    /// The most bytes of tables that overlap. One job merges them.
    pub stack_bytes_max: u64,
}

impl View {
    /// The tables that have, between their first and last keys, exactly what the view has there in
    /// `keyspace` (INVARIANT(adopted-as-written)). All of them lie in `span`. They come as stacks,
    /// in key order.
    ///
    /// There are none if a batch lies over the view. Such a table is used as a whole, and has no
    /// tombstone. No layer in memory, and no other table, has a key between the first and the last
    /// key of its stack. A table has no key twice, and nothing that is newer than a view of it. So
    /// a scan shows each of its entries, or another table of the stack hides it.
    ///
    /// # Errors
    /// Those of a walk over memory.
    pub fn stacks(&self, keyspace: KeyspaceId, span: &Span, worth: Worth) -> Result<Vec<Stack>> {
        let mut stacks = Vec::new();
        if self.own.is_some() {
            return Ok(stacks);
        }
        for range in &self.superversion.ranges {
            if range.stable.keyspace != keyspace || range.span().intersection(span).is_empty() {
                continue;
            }
            // Tables in front of memory are in L0 as well.
            let layers = range.stable.layers.runs().iter().rev().enumerate();
            let mut slices: Vec<_> = layers
                .flat_map(|(layer, run)| run.slices().iter().map(move |slice| (layer, slice)))
                .filter(|(_, slice)| span.overlaps_closed(slice.min_key(), slice.max_key()))
                .collect();
            slices.sort_by(|(_, a), (_, b)| a.min_key().cmp(b.min_key()));
            let mut found: Vec<Stack> = Vec::new();
            for (layer, slice) in slices {
                match found.last_mut() {
                    Some(stack) if slice.min_key() <= stack.max_key() => {
                        stack.with(layer, slice.clone());
                    }
                    _ => found.push(Stack {
                        slices: vec![(layer, slice.clone())],
                        max_key: slice.max_key().clone(),
                    }),
                }
            }
            for mut stack in found {
                stack.renumber();
                if self.is_whole(&stack, span)
                    && worth.has(&stack)
                    && !is_in_memory(range, stack.min_key(), stack.max_key(), self.upto)?
                {
                    stacks.push(stack);
                }
            }
        }
        stacks.sort_by(|a, b| a.min_key().cmp(b.min_key()));
        Ok(stacks)
    }

    /// Does the view show every entry of these tables, except those that they hide from each other?
    fn is_whole(&self, stack: &Stack, span: &Span) -> bool {
        stack.slices().all(|(_, slice)| {
            debug_assert!(slice.max_seqno() <= self.upto, "it shows nothing above the view");
            slice.part.is_none()
                && slice.tombstones() == 0
                && span.contains(slice.min_key())
                && span.contains(slice.max_key())
        })
    }
}

impl Worth {
    fn has(&self, stack: &Stack) -> bool {
        let bytes = stack.slices().fold(0_u64, |sum, (_, s)| sum.saturating_add(s.file_bytes()));
        let bytes_max = if stack.is_flat() { u64::MAX } else { self.stack_bytes_max };
        bytes / stack.slices.len() as u64 >= self.bytes_min
            && bytes <= bytes_max
            && stack.layers() <= self.layers_max
            && stack.hidden() <= HIDDEN_MAX
    }
}

/// Does a memtable of the range have a key in the closed interval `[min, max]`?
fn is_in_memory<O>(range: &RangeEntry<O>, min: &[u8], max: &[u8], upto: Seqno) -> Result<bool> {
    for layer in range.in_front() {
        let mut cursor = match layer {
            InFront::Active(memtable) => CutOut::whole(memtable.cursor(upto)),
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
