//! Who holds space that could otherwise be freed.

use sluicedb_actors::engine::Pin as Pinned;
use sluicedb_storage::points::Holder;
use std::fmt;
use std::time::Duration;

/// What holds files.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinHolder {
    /// A snapshot, with its clones and scans. It exists until the last of them is dropped.
    Snapshot,
    /// A scan that was not begun on a snapshot.
    Scan,
    /// A `multi_get`, or a lookup that waits for the disk.
    Lookup,
    /// A checkpoint that is being made.
    Checkpoint,
    /// None of these: a compaction or another lookup that is about to end.
    Engine,
}

impl fmt::Display for PinHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Scan => "scan",
            Self::Lookup => "lookup",
            Self::Checkpoint => "checkpoint",
            Self::Engine => "engine",
        })
    }
}

/// A holder of a past instant, and the files that stay on the disk because of it: see
/// [`Db::pins`](crate::Db::pins).
///
/// A file is *obsolete* once compactions have replaced it. It is removed when the last holder that
/// can read it is gone. Until then it counts for the oldest such holder, and for no other. So the
/// `obsolete_bytes` of all pins add up. The `shared_bytes` of a pin would not become free if that
/// pin alone were dropped.
///
/// A pin also holds the memtables of its instant, including flushed ones, whose memory no longer
/// counts in the write buffer. How much memory that is is not told.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The kind of holder.
    pub holder: PinHolder,
    /// Its name, if it is a snapshot with a [label](crate::Db::snapshot_labelled).
    pub label: Option<String>,
    /// The number of the last write that it shows. `None` for the engine.
    pub seqno: Option<u64>,
    /// How long it has been held: exact for a snapshot with a label, a lower bound for others.
    /// Others are opened without a look at the clock. They are noticed when the next flush or
    /// compaction ends, or when somebody calls `stats` or `pins`: that is before a file becomes
    /// obsolete, or just then.
    pub age: Duration,
    /// Obsolete tables of which it is the oldest holder.
    pub obsolete_tables: u64,
    /// Bytes of their files.
    pub obsolete_bytes: u64,
    /// The part of those bytes that younger holders need as well.
    pub shared_bytes: u64,
}

impl From<Pinned> for Pin {
    fn from(pin: Pinned) -> Self {
        let holder = match pin.held.as_ref().map(|held| held.holder) {
            Some(Holder::Snapshot) => PinHolder::Snapshot,
            Some(Holder::Scan) => PinHolder::Scan,
            Some(Holder::Lookup) => PinHolder::Lookup,
            Some(Holder::Checkpoint) => PinHolder::Checkpoint,
            None => PinHolder::Engine,
        };
        Self {
            holder,
            label: pin.held.as_ref().and_then(|held| held.label.as_deref()).map(str::to_owned),
            seqno: pin.held.as_ref().map(|held| held.seqno.0),
            age: pin.age,
            obsolete_tables: pin.tables,
            obsolete_bytes: pin.bytes,
            shared_bytes: pin.shared_bytes,
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.holder)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        if let Some(seqno) = self.seqno {
            write!(f, " of seqno {seqno}, held for {:.1} s", self.age.as_secs_f64())?;
        }
        let (tables, bytes) = (self.obsolete_tables, self.obsolete_bytes);
        write!(f, ": {tables} obsolete tables, {bytes} bytes")?;
        if self.shared_bytes > 0 {
            write!(f, ", {} of them shared", self.shared_bytes)?;
        }
        Ok(())
    }
}
