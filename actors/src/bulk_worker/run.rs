//! The bulk worker's loop and its disk work.

use super::BulkWorker;
use super::content::{copy_tables, copy_view};
use super::message::{BulkMessage, Content};
use crate::failure::Failure;
use crate::version_manager::message::Written;
use crate::version_manager::outputs::Outputs;
use bytes::Bytes;
use sluicedb_storage::compact::TableSink;
use sluicedb_storage::key::{Kind, Seqno, Span};
use sluicedb_storage::version::ShardCuts;

/// So often, in entries, it is asked whether the engine has stopped.
const ASKED_EVERY: u64 = 1024;
/// The number of entries in the tables, which counts for nothing: they get that of the change.
const ENTRY_SEQNO: Seqno = Seqno(1);

impl BulkWorker {
    /// The loop.
    pub async fn run(mut self) {
        while let Some(BulkMessage::Write { spans, content, reply }) = self.inbox.recv().await {
            let written = self.write(&spans, &content);
            // Nobody wants them: they are removed here.
            reply.send(written);
        }
    }

    fn write(&self, spans: &[Span], content: &Content) -> Result<Written, Failure> {
        let files = &self.files;
        files.failures.check()?;
        let superversion = self.topology.superversion.load_full();
        let ends = spans.iter().flat_map(|span| [Some(&span.lo), span.hi.as_ref()]).flatten();
        let ranges = superversion.ranges.iter().map(|range| &range.span().lo);
        let mut bounds: Vec<Bytes> = ends.chain(ranges).cloned().collect();
        bounds.sort();
        let config = &files.environment.config;
        let mut into = Into {
            sink: files.sink(config.level_table()),
            cuts: ShardCuts::at(&bounds),
            table_bytes_max: config.compaction.table_bytes_max,
            entries: 0,
            goes_on: &|| files.failures.check(),
        };
        let copied = match content {
            Content::View(view) => copy_view(view, spans, &mut into),
            Content::Tables(tables) => copy_tables(&files.environment.vfs, tables, &mut into),
            Content::Nothing => Ok(()),
        };
        let Into { sink, entries, .. } = into;
        let finished = copied.and_then(|()| sink.finish().map_err(Failure::from));
        let metas = finished.inspect_err(|failure| {
            if let Failure::Storage(error) = failure {
                files.give_up_descriptors(error);
            }
        })?;
        Ok(Written { outputs: Outputs::new(files, metas), entries })
    }
}

/// Where entries go, in key order.
pub(super) struct Into<'a> {
    sink: TableSink<'a>,
    cuts: ShardCuts<'a>,
    table_bytes_max: u64,
    entries: u64,
    goes_on: &'a dyn Fn() -> Result<(), Failure>,
}

impl Into<'_> {
    pub(super) fn add(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<(), Failure> {
        if self.entries.is_multiple_of(ASKED_EVERY) {
            (self.goes_on)()?;
        }
        if self.cuts.passes(key) || self.sink.table_bytes() >= self.table_bytes_max {
            self.sink.cut()?;
        }
        self.entries += 1;
        Ok(self.sink.add(key, ENTRY_SEQNO, kind, value)?)
    }
}
