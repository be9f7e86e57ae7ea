//! What the bulk worker is told.

use crate::failure::Failure;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::key::{Seqno, Span};
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::view::View;
use std::path::PathBuf;

/// What tables are made of.
#[derive(Debug)]
pub enum Content {
    /// What a keyspace of another database, or of this one, had at an instant under the keys of the
    /// spans.
    View(Box<View>, KeyspaceId),
    /// What is in these tables outside any database.
    Tables(Vec<ExternalFile>),
    /// What a batch that deletes these spans puts, and what it deletes beside them.
    Batch(WriteBatch),
    /// Nothing: no table is made.
    Nothing,
}

/// A table outside any database.
#[derive(Clone, Debug)]
pub struct ExternalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Which keyspace gets what it has.
    pub keyspace: KeyspaceId,
    /// Where all of its keys have to lie, if that was said.
    pub within: Option<Span>,
}

/// Messages to the bulk worker.
#[derive(Debug)]
pub enum BulkMessage {
    /// Make tables, and have the version manager put them in the place of what is there.
    Replace {
        /// The spans that will have nothing else. In order, and apart from each other.
        spans: Vec<KeyspaceSpan>,
        /// What goes into the tables.
        content: Content,
        /// Where it is shown how many entries the tables have, so far.
        shown: Watch<u64>,
        /// Answered as a change is. Once nobody waits for the answer any more it is off, unless the
        /// tables are written.
        reply: Reply<Result<Option<Seqno>, Failure>>,
    },
}
