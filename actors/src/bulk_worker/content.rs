//! Where the entries come from: a view, tables outside any database, or a batch.
//!
//! A table of a view of which every entry is wanted is taken over unchanged (`View::stacks`).
//! Whatever is between such tables is scanned and written anew.

use super::message::ExternalFile;
use super::run::Into;
use crate::failure::Failure;
use sluicedb_storage::Error;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::external::ExternalTable;
use sluicedb_storage::key::{Kind, Span};
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::table::ReadTier;
use sluicedb_storage::vfs::Vfs;
use sluicedb_storage::view::{ScanBatchBuilder, ScanSpec, View};
use std::sync::Arc;

/// Bytes that are taken from a view at a time.
const BATCH_BYTES: usize = 1 << 20;
/// Entries that are taken from a view at a time. A batch that turns out empty has looked at a small
/// multiple of these.
const BATCH_ENTRIES: usize = 1 << 10;

/// Copies what keyspace `from` of `view` has in `spans`, all of it as of one instant.
pub(super) fn copy_view(
    view: &View,
    from: KeyspaceId,
    spans: &[KeyspaceSpan],
    into: &mut Into<'_>,
) -> Result<(), Failure> {
    for KeyspaceSpan { keyspace, span } in spans {
        // The part that is not copied yet.
        let mut rest = span.clone();
        for stack in view.stacks(from, span, into.worth(*keyspace))? {
            into.goes_on()?;
            let before = Span { lo: rest.lo.clone(), hi: Some(stack.min_key().clone()) };
            walk(view, ScanSpec::new(from, before), *keyspace, into)?;
            rest.lo = stack.min_key().clone();
            if into.adopt(*keyspace, &stack)? {
                rest.lo = [stack.max_key(), &[0][..]].concat().into();
            }
        }
        walk(view, ScanSpec::new(from, rest), *keyspace, into)?;
    }
    Ok(())
}

/// Copies what `view` has for `spec`, entry by entry, into `keyspace`.
fn walk(
    view: &View,
    spec: ScanSpec,
    keyspace: KeyspaceId,
    into: &mut Into<'_>,
) -> Result<(), Failure> {
    // Blocks that are read once do not belong in the cache.
    let spec = ScanSpec { fill_cache: false, readahead_bytes: BATCH_BYTES, ..spec };
    let mut cursor = view.cursor(spec, ReadTier::Disk);
    let mut goes_on = true;
    while goes_on {
        into.goes_on()?;
        let mut entries = ScanBatchBuilder::new();
        goes_on = cursor.fill(&mut entries, BATCH_BYTES, BATCH_ENTRIES)?;
        for (key, value) in entries.freeze().iter() {
            into.add(keyspace, key, Kind::Put, value)?;
        }
    }
    Ok(())
}

/// Copies the outcome of `batch`. The spans that it deletes will hold nothing else, so a deletion
/// in one of them needs no entry.
pub(super) fn copy_batch(
    batch: &WriteBatch,
    spans: &[KeyspaceSpan],
    into: &mut Into<'_>,
) -> Result<(), Failure> {
    for ((keyspace, key), value) in batch.outcome() {
        match value {
            Some(value) => into.add(keyspace, key, Kind::Put, value)?,
            None if spans.iter().any(|span| span.contains(keyspace, key)) => {}
            None => into.add(keyspace, key, Kind::Delete, &[])?,
        }
    }
    Ok(())
}

/// Copies what is in `files`. Checks each from end to end before it takes anything of it. One file
/// is open at a time.
pub(super) fn copy_tables(
    vfs: &Arc<dyn Vfs>,
    files: &[ExternalFile],
    into: &mut Into<'_>,
) -> Result<(), Failure> {
    let mut tables = Vec::with_capacity(files.len());
    for ExternalFile { path, keyspace, within } in files {
        let mut ended = into.goes_on();
        let checked = ExternalTable::check(vfs, path, &mut || {
            ended = into.goes_on();
            ended.is_ok()
        });
        let checked = checked?;
        ended?;
        let table = checked.expect("it has not been ended");
        let (min, max) = (&table.meta().min_key, &table.meta().max_key);
        if within.as_ref().is_some_and(|span| !span.contains(min) || !span.contains(max)) {
            return Err(Failure::storage(Error::invalid(format!(
                "{} has keys that are not in the span it is given for",
                path.display(),
            ))));
        }
        tables.push((*keyspace, table));
    }
    tables.sort_by(|(a, x), (b, y)| (a, &x.meta().min_key).cmp(&(b, &y.meta().min_key)));
    for pair in tables.windows(2) {
        let [(of_a, a), (of_b, b)] = pair else { continue };
        if of_a == of_b && a.meta().max_key >= b.meta().min_key {
            return Err(Failure::storage(Error::invalid(format!(
                "{} and {} have keys in common between them; bring them in one after the other",
                a.path().display(),
                b.path().display()
            ))));
        }
    }
    for (keyspace, table) in &tables {
        table.read(vfs, |key, kind, value| into.add(*keyspace, key, kind, value))?;
    }
    Ok(())
}
