//! The bulk worker's messages.

use crate::version_manager::message::Changed;
use sluicedb_kernel::reply::Reply;
use sluicedb_kernel::watch::Watch;
use sluicedb_storage::batch::WriteBatch;
use sluicedb_storage::key::Span;
use sluicedb_storage::keyspace::{KeyspaceId, KeyspaceSpan};
use sluicedb_storage::view::View;
use std::path::PathBuf;

/// What the tables are made of.
#[derive(Debug)]
pub enum Content {
    /// What a keyspace of this or another database had in the spans at one instant.
    View(Box<View>, KeyspaceId),
    /// The entries of these tables, which are outside any database.
    Tables(Vec<ExternalFile>),
    /// What a batch that deletes these spans puts, and what else it deletes.
    Batch(WriteBatch),
    /// Nothing. No table is written.
    Nothing,
}

/// A table outside any database.
#[derive(Clone, Debug)]
pub struct ExternalFile {
    /// Where it is.
    pub path: PathBuf,
    /// The keyspace that gets its entries.
    pub keyspace: KeyspaceId,
    /// The span that must hold all of its keys, if the caller named one.
    pub within: Option<Span>,
}

/// Messages to the bulk worker.
#[derive(Debug)]
pub enum BulkMessage {
    /// Write tables, and have the version manager put them in place of what is there.
    Replace {
        /// The spans that will hold nothing else. In order, and disjoint.
        spans: Vec<KeyspaceSpan>,
        /// What goes into the tables.
        content: Content,
        /// Shows how many entries the tables have so far.
        shown: Watch<u64>,
        /// Told as for any change. Once the caller has dropped it the job is cancelled, unless the
        /// tables are written already.
        reply: Reply<Changed>,
    },
}
