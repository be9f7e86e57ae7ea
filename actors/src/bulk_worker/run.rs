//! The bulk worker's loop and its disk work.

use super::content::{copy_batch, copy_tables, copy_view};
use super::message::{BulkMessage, Content};
use super::{BulkCounts, BulkWorker};
use crate::failure::{Failure, WriteFailure};
use crate::range_owner::Superversion;
use crate::version_manager::message::{Change, Changed, Destination, VersionMessage, Written};
use crate::version_manager::outputs::Outputs;
use bytes::Bytes;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::Error;
use sluicedb_storage::batch::check_entry;
use sluicedb_storage::compact::{CompactionOptions, TableSink};
use sluicedb_storage::key::{Kind, Seqno, Span};
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::table::{ReadTier, TableOptions};
use sluicedb_storage::version::{Keyspaces, ShardCuts, Slice};
use sluicedb_storage::view::{Stack, Worth};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many entries are added between two looks at whether to go on.
const ASKED_EVERY: u64 = 1024;
/// The sequence number of the entries in the tables. It has no meaning: they get the change's
/// number.
const ENTRY_SEQNO: Seqno = Seqno(1);
/// Overlapping tables are not taken over if they are together larger than this many full tables.
const STACK_TABLES_MAX: u64 = 32;
/// A table is taken over unchanged if it is at least this part of a full one.
const ADOPTED_SHARE: u64 = 16;

impl BulkWorker {
    /// The loop.
    pub async fn run(mut self) {
        while let Some(message) = self.inbox.recv().await {
            let BulkMessage::Replace { spans, content, shown, reply } = message;
            let goes_on = || {
                self.files.failures.check()?;
                // A dropped reply means that nobody reads the error.
                if reply.is_abandoned() { Err(self.files.failures.why_stopped()) } else { Ok(()) }
            };
            let written = self.write(&spans, &content, &shown, &goes_on);
            // Dropped before the reply, so that nothing is held for this job when the caller goes
            // on.
            drop(content);
            match written {
                Ok(written) => self.send(Change::Replace { spans, written }, reply).await,
                Err(failure) => reply.send(Err(WriteFailure::not_applied(failure))),
            }
        }
    }

    /// INVARIANT(no-block-on-executor): the tables never reach the caller, which may be dropped at
    /// any time. If nothing comes of the change, they are removed here or by the version manager.
    async fn send(&self, change: Change, reply: Reply<Changed>) {
        // If the mailbox is closed, the dropped reply says why the engine has stopped.
        if let Ok(permit) = self.versions.reserve(1).await {
            let _ = permit.send(VersionMessage::Change { change, reply });
        }
    }

    fn write(
        &self,
        spans: &[KeyspaceSpan],
        content: &Content,
        shown: &Watch<u64>,
        goes_on: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<Written, Failure> {
        goes_on()?;
        self.counts.bulk_jobs.add(1);
        let files = &self.files;
        // The superversion is dropped here: it holds memtables and files, and a job may run for
        // hours.
        let (bounds, keyspaces) = {
            let superversion = self.topology.superversion.load_full();
            (bounds(spans, &superversion), Arc::clone(&superversion.keyspaces))
        };
        let config = &files.environment.config;
        let mut into = Into {
            sink: files.sink(config.level_table()),
            table: config.level_table(),
            keyspaces: &keyspaces,
            bounds: &bounds,
            cuts: ShardCuts::at(&[]),
            keyspace: None,
            destinations: Vec::new(),
            compaction: &config.compaction,
            entries: 0,
            value_bytes_max: config.value_bytes_max,
            shown,
            told: 0,
            counts: &self.counts,
            goes_on,
        };
        let copied = match content {
            Content::View(view, from) => copy_view(view, *from, spans, &mut into),
            Content::Tables(tables) => copy_tables(&files.environment.vfs, tables, &mut into),
            Content::Batch(batch) => copy_batch(batch, spans, &mut into),
            Content::Nothing => Ok(()),
        };
        into.tell();
        let Into { sink, keyspace, mut destinations, .. } = into;
        let finished = copied.and_then(|()| sink.finish().map_err(Failure::from));
        let metas = finished.inspect_err(|failure| {
            if let Failure::Storage(error) = failure {
                files.give_up_descriptors(error);
            }
        })?;
        destinations.resize(metas.len(), flat(keyspace));
        Ok(Written { outputs: Outputs::new(files, metas), destinations })
    }
}

/// Where tables are cut in each keyspace: where spans and ranges meet.
fn bounds(spans: &[KeyspaceSpan], superversion: &Superversion) -> BTreeMap<KeyspaceId, Vec<Bytes>> {
    let mut bounds: BTreeMap<KeyspaceId, Vec<Bytes>> = BTreeMap::new();
    for range in &superversion.ranges {
        bounds.entry(range.stable.keyspace).or_default().push(range.span().lo.clone());
    }
    for KeyspaceSpan { keyspace, span } in spans {
        bounds.entry(*keyspace).or_default().extend(Span::ends([span]).cloned());
    }
    for bounds in bounds.values_mut() {
        bounds.sort();
    }
    bounds
}

/// The destination of a table that overlaps no other.
fn flat(keyspace: Option<KeyspaceId>) -> Destination {
    Destination { keyspace: keyspace.unwrap_or_default(), layer: None }
}

/// Writes entries, in key order, into tables.
pub(super) struct Into<'a> {
    sink: TableSink<'a>,
    /// The table options of a keyspace that has none of its own.
    table: TableOptions,
    keyspaces: &'a Keyspaces,
    bounds: &'a BTreeMap<KeyspaceId, Vec<Bytes>>,
    cuts: ShardCuts<'a>,
    /// The keyspace of the previous entry.
    keyspace: Option<KeyspaceId>,
    /// The destination of each finished table, up to the current keyspace or the last table taken
    /// over.
    destinations: Vec<Destination>,
    compaction: &'a CompactionOptions,
    entries: u64,
    value_bytes_max: usize,
    shown: &'a Watch<u64>,
    /// How many entries have been shown and counted.
    told: u64,
    counts: &'a BulkCounts,
    goes_on: &'a dyn Fn() -> Result<(), Failure>,
}

impl<'a> Into<'a> {
    fn bounds_of(&self, keyspace: KeyspaceId) -> &'a [Bytes] {
        self.bounds.get(&keyspace).map_or(&[], |bounds| &bounds[..])
    }

    /// May the job go on?
    ///
    /// # Errors
    /// Why it may not. This is final.
    pub(super) fn goes_on(&self) -> Result<(), Failure> {
        (self.goes_on)()
    }

    /// Shows and counts the entries so far.
    fn tell(&mut self) {
        self.shown.set(self.entries);
        self.counts
            .bulk_entries
            .add(self.entries - std::mem::replace(&mut self.told, self.entries));
    }

    /// Which tables are worth taking over into `keyspace` unchanged. Many small tables are worse
    /// than one. Overlapping ones may fill half a landing at most.
    pub(super) fn worth(&self, keyspace: KeyspaceId) -> Worth {
        let own = self.keyspaces.options(keyspace);
        let options = own.compaction(self.compaction);
        let layers_max = (options.landing_runs_max / 2).max(1);
        Worth {
            bytes_min: options.table_bytes_max / ADOPTED_SHARE,
            layers_max,
            stack_bytes_max: options.table_bytes_max.saturating_mul(STACK_TABLES_MAX),
        }
    }

    /// Takes over the tables of `stack`, in their place among the entries. Returns `false` if that
    /// cannot be done; then the caller adds the visible entries one by one.
    pub(super) fn adopt(&mut self, keyspace: KeyspaceId, stack: &Stack) -> Result<bool, Failure> {
        self.enter(keyspace)?;
        for (_, slice) in stack.slices() {
            if !self.fits(keyspace, slice)? {
                return Ok(false);
            }
        }
        self.sink.cut()?;
        let before = self.sink.tables();
        self.destinations.resize(before, flat(self.keyspace));
        for (layer, slice) in stack.slices() {
            let table = slice.handle().table(ReadTier::Disk)?;
            if !self.sink.adopt(&table, &mut || (self.goes_on)().is_ok())? {
                self.sink.truncate_to(before);
                self.destinations.truncate(before);
                return Ok(false);
            }
            let layer = (!stack.is_flat()).then_some(layer);
            self.destinations.push(Destination { keyspace, layer });
        }
        self.entries += stack.slices().map(|(_, slice)| slice.entries()).sum::<u64>();
        self.counts.bulk_tables_linked.add((self.sink.tables() - before) as u64);
        self.tell();
        Ok(true)
    }

    /// May the table be taken over? A table across a bound would have to be cut in the change's
    /// turn. It must not be much larger than what compactions write. Its values must be within the
    /// option's limit, as written ones are.
    fn fits(&self, keyspace: KeyspaceId, slice: &Slice) -> Result<bool, Failure> {
        let bounds = self.bounds_of(keyspace);
        let next = bounds.partition_point(|bound| bound <= slice.min_key());
        let is_cut = bounds.get(next).is_some_and(|bound| bound <= slice.max_key());
        if is_cut || slice.file_bytes() > self.compaction.table_bytes_max.saturating_mul(2) {
            return Ok(false);
        }
        let table = slice.handle().table(ReadTier::Disk)?;
        Ok(table.value_bytes_bound() <= self.value_bytes_max as u64)
    }

    /// The next entries belong to `keyspace`.
    fn enter(&mut self, keyspace: KeyspaceId) -> Result<(), Failure> {
        if self.keyspace != Some(keyspace) {
            self.sink.cut()?;
            self.destinations.resize(self.sink.tables(), flat(self.keyspace));
            self.keyspace = Some(keyspace);
            self.cuts = ShardCuts::at(self.bounds_of(keyspace));
            let own = self.keyspaces.options(keyspace);
            self.sink.set_options(own.level_table(&self.table));
        }
        Ok(())
    }

    /// Adds an entry. Entries come in order of keyspace and key.
    pub(super) fn add(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        kind: Kind,
        value: &[u8],
    ) -> Result<(), Failure> {
        if self.entries.is_multiple_of(ASKED_EVERY) {
            self.tell();
            self.goes_on()?;
        }
        // The limits of a write hold for what is brought in as well.
        check_entry(key.len(), value.len(), self.value_bytes_max).map_err(Error::invalid)?;
        self.enter(keyspace)?;
        if self.cuts.passes(key) || self.sink.table_bytes() >= self.compaction.table_bytes_max {
            self.sink.cut()?;
        }
        self.entries += 1;
        Ok(self.sink.add(key, ENTRY_SEQNO, kind, value)?)
    }
}
