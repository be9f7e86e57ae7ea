//! The log: what was acknowledged before it reached a table.
//!
//! ```text
//! segment  := header page (4096 bytes) | begin | record* | [continued]
//!             | zeros, or a former life's bytes
//! record   := header (24 bytes) | payload | zeros up to a multiple of 8
//! ```
//!
//! Words used here:
//! * A *segment* is one `.wal` file of fixed length. It is prepared ahead (allocated, zeroed or
//!   recycled, its header page written, synced, its name durable) as a *spare*, so that committing
//!   only overwrites bytes that already belong to it. A `.wal` file whose first record is not a
//!   *beginning* is an unused spare. A segment that is left ends by naming the one that continues
//!   it.
//! * A record goes into the file on one of two *paths*: stored through the segment's mapping
//!   (`AppendPath::Mapped`), or *staged* in memory for the next sync group. Both draw their offsets
//!   from one order, and no record ever reaches the file before its predecessors did.
//! * A *sync group* is what the log's syncer writes at once. One sync makes everything durable that
//!   was written and is *unsynced*: usually one group, sometimes several.
//! * Every record *confirms*: its `synced_to` says up to where its segment was known to be durable
//!   when it was encoded. Damage below a confirmed point is corruption and is refused; damage above
//!   it is the torn tail of an unclean stop and is cut.
//!
//! Guarantees: a process killed at any instant loses no record that was reported as being in the
//! file; a power cut loses no record at or below a successful sync; what is replayed is a prefix of
//! what was appended; records of another database, another segment, another offset or a former life
//! of a recycled file are never replayed; a file of the log that went missing, or another one in
//! its place, is noticed (no-log-file-missing).
//!
//! Not here: who stamps sequence numbers, who waits for what, when a segment is obsolete (the log
//! writer and the version manager decide), and any thread. Byte-exact pictures: `docs/format.md`.

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
pub use reader::{Entry, ReplayReport, TailReason, replay};
pub use record::CHANGE_BYTES;
pub use spare::{Spare, allocate_spare, discard, prepare_spare, recycle, remove};
pub use survey::survey;
pub use writer::{AppendPath, Appended, LogWriter, segment_bytes_needed};

/// Whose log it is. Part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The database's random id.
    pub db_id: [u8; 16],
}

/// What the manifest says of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// Segments below this one are not needed.
    pub floor: FileNumber,
    /// The newest segment that the manifest knew to be in use, unless it is below the floor.
    pub newest: Option<FileNumber>,
    /// The last sequence number that the manifest knew to be given out.
    pub last_seqno: Seqno,
    /// The database was closed in order.
    pub closed: bool,
}

/// What a segment's first record says about the segment before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// The log begins here: a new database, or everything older was made durable elsewhere.
    Barrier,
    /// The segment continues another one.
    Follows(Link),
}

/// How the previous segment ended, as known when its successor was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The previous segment.
    pub number: FileNumber,
    /// Offset just after its last record.
    pub final_length: u64,
    /// Offset up to which it was known durable at that moment; at most `final_length`.
    pub synced_length: u64,
    /// The last sequence number in or before it.
    pub last_seqno: Seqno,
    /// Rolling digest over the checksums of all its records.
    pub digest: u64,
}

/// A segment that will never be appended to again. Obsolete, and thus ready for `recycle` or
/// `remove`, once every range's unflushed data is newer than `last_seqno` and the manifest's log
/// floor is durably above `number` (INVARIANT(watermark-at-seal) is upheld by the caller).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub number: FileNumber,
    /// Its file.
    pub path: PathBuf,
    /// The sequence number its first record has or could have had.
    pub first_seqno: Seqno,
    /// The last sequence number in or before it.
    pub last_seqno: Seqno,
    /// Length of the file.
    pub bytes: u64,
}
