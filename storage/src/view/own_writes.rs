//! A batch that lies over a view, so that its writer reads what it is about to write.
//!
//! Guarantees: for each key in the batch its last operation counts, whatever is below. What the
//! batch deletes, by key or by range, is not there. The writes are sorted once, and are a copy.
//! Does not: write anything, or follow later changes of the batch.

use crate::batch::WriteBatch;
use crate::error::Result;
use crate::iter::Cursor;
use crate::key::{Kind, Seqno, Span};
use crate::keyspace::{KeyspaceId, KeyspaceSpan};
use crate::view::cut_out::find;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// The outcome of a batch, in key order.
#[derive(Debug)]
pub struct OwnWrites {
    /// By keyspace and key. A delete has no value.
    entries: Vec<OwnWrite>,
    /// The spans that it deletes, by keyspace.
    cut_out: Vec<(KeyspaceId, Arc<[Span]>)>,
}

/// What a batch does to a key.
#[derive(Clone, Copy, Debug)]
pub enum Own<'a> {
    /// It gets this value.
    Put(&'a Bytes),
    /// It is deleted.
    Deleted,
}

impl<'a> Own<'a> {
    /// The value, if there is one.
    pub fn value(self) -> Option<&'a Bytes> {
        match self {
            Self::Put(value) => Some(value),
            Self::Deleted => None,
        }
    }
}

#[derive(Debug)]
struct OwnWrite {
    keyspace: KeyspaceId,
    key: Bytes,
    value: Option<Bytes>,
}

impl OwnWrites {
    /// The outcome of `batch`, which names its keyspaces as it will in the log.
    pub fn new(batch: &WriteBatch) -> Self {
        let encoded = Bytes::copy_from_slice(batch.encoded());
        let from = batch.encoded().as_ptr() as usize;
        // Slices of one copy, at the same offsets as in the batch.
        let kept = |bytes: &[u8]| {
            let at = bytes.as_ptr() as usize - from;
            encoded.slice(at..at + bytes.len())
        };
        let entries = batch.outcome().into_iter().map(|((keyspace, key), value)| OwnWrite {
            keyspace,
            key: kept(key),
            value: value.map(|value| if value.is_empty() { Bytes::new() } else { kept(value) }),
        });
        let entries = entries.collect();
        let deleted = batch.deleted_ranges();
        let whose = deleted.chunk_by(|a, b| a.keyspace == b.keyspace).map(|of| of[0].keyspace);
        let spans = |keyspace| (keyspace, KeyspaceSpan::of(&deleted, keyspace).into());
        Self { entries, cut_out: whose.map(spans).collect() }
    }

    /// The keyspaces that it writes to, each at least once.
    pub fn keyspaces(&self) -> impl Iterator<Item = KeyspaceId> {
        let deleted = self.cut_out.iter().map(|(keyspace, _)| *keyspace);
        self.entries.iter().map(|entry| entry.keyspace).chain(deleted)
    }

    /// What it does to `key`; `None` if it does not touch it.
    pub fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<Own<'_>> {
        let wanted = (keyspace, key);
        match self.entries.binary_search_by(|one| (one.keyspace, &one.key[..]).cmp(&wanted)) {
            Ok(at) => Some(self.entries[at].value.as_ref().map_or(Own::Deleted, Own::Put)),
            Err(_) => find(self.cut_out(keyspace)?, key).map(|_| Own::Deleted),
        }
    }

    /// The spans that it deletes in a keyspace.
    pub(super) fn cut_out(&self, keyspace: KeyspaceId) -> Option<&Arc<[Span]>> {
        let found = self.cut_out.iter().find(|(of, _)| *of == keyspace);
        found.map(|(_, spans)| spans)
    }
}

/// A position in what a batch writes to one keyspace. All its entries have the newest number that
/// the reader sees.
#[derive(Debug)]
pub struct OwnWritesCursor {
    own: Arc<OwnWrites>,
    of_keyspace: Range<usize>,
    /// Outside of that range, the cursor is not valid.
    at: usize,
    seqno: Seqno,
}

impl OwnWritesCursor {
    /// A cursor over the writes to `keyspace`, for a reader at `upto`; `None` if there are none.
    pub fn new(own: &Arc<OwnWrites>, keyspace: KeyspaceId, upto: Seqno) -> Option<Self> {
        let start = own.entries.partition_point(|one| one.keyspace < keyspace);
        let end = own.entries.partition_point(|one| one.keyspace <= keyspace);
        let cursor = Self { own: Arc::clone(own), of_keyspace: start..end, at: end, seqno: upto };
        (start < end).then_some(cursor)
    }

    fn entry(&self) -> &OwnWrite {
        assert!(self.valid(), "the cursor stands on an entry");
        &self.own.entries[self.at]
    }

    fn first_at_or_after(&self, key: &[u8]) -> usize {
        let mine = &self.own.entries[self.of_keyspace.clone()];
        self.of_keyspace.start + mine.partition_point(|one| &one.key[..] < key)
    }

    fn step_back_from(&mut self, at: usize) {
        self.at = if at > self.of_keyspace.start { at - 1 } else { self.of_keyspace.end };
    }
}

impl Cursor for OwnWritesCursor {
    fn valid(&self) -> bool {
        self.of_keyspace.contains(&self.at)
    }
    fn key(&self) -> &[u8] {
        &self.entry().key
    }
    fn seqno(&self) -> Seqno {
        self.seqno
    }
    fn kind(&self) -> Kind {
        if self.entry().value.is_some() { Kind::Put } else { Kind::Delete }
    }
    fn value(&self) -> &[u8] {
        self.entry().value.as_deref().unwrap_or_default()
    }
    fn seek_first(&mut self) -> Result<()> {
        self.at = self.of_keyspace.start;
        Ok(())
    }
    fn seek_last(&mut self) -> Result<()> {
        self.step_back_from(self.of_keyspace.end);
        Ok(())
    }
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.at = self.first_at_or_after(key);
        Ok(())
    }
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.step_back_from(self.first_at_or_after(key));
        Ok(())
    }
    fn next(&mut self) -> Result<()> {
        assert!(self.valid(), "the cursor stands on an entry");
        self.at += 1;
        Ok(())
    }
    fn prev(&mut self) -> Result<()> {
        assert!(self.valid(), "the cursor stands on an entry");
        self.step_back_from(self.at);
        Ok(())
    }
}
