//! The meaning of the bytes: formats, in-memory structures, pure policy and recovery.
//!
//! Everything here is synchronous: nothing is async, starts a thread, sleeps or reads a clock; but
//! `give_way` reads one, to yield.

pub mod batch;
pub mod buffer;
pub mod change;
pub mod codec;
pub mod error;
pub mod filename;
pub mod give_way;
pub mod iter;
pub mod key;
pub mod key_range;
pub mod keyspace;
pub mod limits;
pub mod memtable;
pub mod points;
pub mod side_by_side;
pub mod stripe;
pub mod sync;
pub mod vfs;
pub mod wal;

#[cfg(not(loom))]
pub mod checkpoint;
#[cfg(not(loom))]
pub mod compact;
#[cfg(not(loom))]
pub mod external;
#[cfg(not(loom))]
pub mod manifest;
#[cfg(not(loom))]
pub mod recover;
pub mod reserve;
#[cfg(not(loom))]
pub mod table;
#[cfg(not(loom))]
pub mod verify;
#[cfg(not(loom))]
pub mod version;
#[cfg(not(loom))]
pub mod view;

pub use error::{Error, Lacks, Result};
