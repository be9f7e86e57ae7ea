//! The write-ahead log: what was acknowledged before it is in a table.
//!
//! ```text
//! segment  := header page (4096 bytes) | begin | record* | [continued]
//!             | zeros, or a former life's bytes
//! record   := header (24 bytes) | payload | zeros up to a multiple of 8
//! ```
//!
//! Terms:
//! * A *segment* is one `.wal` file of fixed length. It is prepared ahead as a *spare*: allocated,
//!   zeroed or recycled, its header page durable and its name, too. So a commit only overwrites
//!   bytes that the file already has. A `.wal` file whose first record is not a *begin*
//!   record is an unused spare. The last record of a segment names the segment that continues it.
//! * A record takes one of two *paths* into the file. It is stored through the segment's mapping
//!   (`AppendPath::Mapped`), or it is *staged* in memory for the next sync group. Both paths take
//!   their offsets from one order, and no record reaches the file before its predecessors do.
//! * A *sync group* is what the log's syncer writes at once. One sync covers everything that is
//!   written and *unsynced*: usually one group, sometimes several.
//! * Every record *confirms*: its `synced_to` is the offset up to which its segment was known to be
//!   durable when the record was encoded. Damage below a confirmed offset is corruption and is
//!   refused. Damage above it is the torn tail of an unclean stop and is cut.
//!
//! Guarantees:
//! * A process that is killed at any instant loses no record that was reported as being in the
//!   file.
//! * A power cut loses no record at or below a successful sync.
//! * What is replayed is a prefix of what was appended.
//! * Records of another database, of another segment, of another offset, or of a former life of a
//!   recycled file are never replayed.
//! * A log file that is missing or was exchanged is noticed (no-log-file-missing).
//!
//! Not here: who stamps sequence numbers, who waits for what, and when a segment is obsolete. The
//! log writer and the version manager decide that. No thread. `docs/format.md` shows every byte.

mod ends;
mod group;
mod header;
mod reader;
mod record;
mod segment;
mod spare;
mod survey;
mod window;
mod writer;

#[cfg(test)]
mod tests;

use crate::filename::FileNumber;
use crate::key::Seqno;
use std::path::PathBuf;

pub use group::{SyncGroup, Unsynced};
pub use header::claimed_id;
pub use reader::{LogItem, ReplayReport, TailReason, replay};
pub use record::CHANGE_BYTES;
pub use spare::{Spare, allocate_spare, discard, prepare_spare, recycle, remove};
pub use survey::survey;
pub use writer::{AppendPath, Appended, LogWriter, segment_bytes_needed};

/// The database that a log belongs to. Part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The database's random id.
    pub db_id: [u8; 16],
}

/// What the manifest records of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// Segments below this one are not needed.
    pub floor: FileNumber,
    /// The newest segment that the manifest knew to be in use, unless it is below the floor.
    pub newest: Option<FileNumber>,
    /// The last sequence number that the manifest knows to be stamped.
    pub last_seqno: Seqno,
    /// Does the manifest end with a clean close?
    pub closed: bool,
    /// The log was durable up to this number, so one that begins at or before it goes up to it, and
    /// it has a beginning. `None` if the manifest does not tell.
    pub synced: Option<Seqno>,
    /// Was the beginning of the floor durable? If not, nothing in it was, and the log may be empty.
    pub begun: bool,
}

/// What the first record of a segment says about the segment before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// The log begins here: the database is new, or everything older is durable in tables.
    Barrier,
    /// The segment continues another one.
    Follows(Link),
}

/// How the previous segment ended, as known when its successor began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The previous segment.
    pub number: FileNumber,
    /// The offset after its last record.
    pub final_length: u64,
    /// The offset up to which it was known to be durable at that moment; at most `final_length`.
    pub synced_length: u64,
    /// The last sequence number in or before it.
    pub last_seqno: Seqno,
    /// Rolling digest over the checksums of all its records.
    pub digest: u64,
}

/// A segment that is never appended to again. It is obsolete once every range's unflushed entries
/// are newer than `last_seqno` and the manifest's log floor is durably above `number`. Only then
/// may it be passed to `recycle` or `remove` (the caller upholds INVARIANT(watermark-at-seal)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub number: FileNumber,
    /// Its file.
    pub path: PathBuf,
    /// The sequence number that its first record has, or would have had.
    pub first_seqno: Seqno,
    /// The last sequence number in or before it.
    pub last_seqno: Seqno,
    /// Length of the file.
    pub bytes: u64,
}
