//! Tables: immutable sorted files, each user key at most once.
//!
//! ```text
//! +------------+-----+------------+---------+---------+------------+--------+
//! | data block | ... | data block | filter  | index   | properties | footer |
//! +------------+-----+------------+---------+---------+------------+--------+
//! 0                               ^ sections, each cut into pieces          ^ 128 bytes
//! ```
//!
//! Rules:
//! * Every block and every piece of a section ends in a *trailer*: codec, raw length and a
//!   checksum. The checksum is seeded with the file's unique id and the block's own offset, so
//!   neither a foreign nor a misplaced block passes (`trailer`).
//! * A data block keeps columns of offsets, sequence numbers and key tags beside its entries. So a
//!   point read touches only the entry that it wants (`block`).
//! * Index and filter are loaded by `Table::open` and stay in memory until the table is closed.
//!   Data blocks are cached in the shared `BlockCache`, which also counts the memory of indexes and
//!   filters.
//! * Wrong bytes are an error that names file and offset. A broken filter is the exception: it is
//!   ignored ("maybe"), counted and logged.
//!
//! Not here: file names, renames and directory syncs (flush and compaction publish a table), the
//! choice of keys to keep, and levels.

mod block;
mod builder;
mod cache;
mod cursor;
mod filter;
mod footer;
mod index;
mod options;
mod properties;
mod reader;
mod section;
mod sketch;
#[cfg(test)]
mod tests;
mod trailer;
mod verify;

pub use builder::TableBuilder;
pub use cache::{BlockCache, BlockPlaces};
pub use cursor::{CursorOptions, TableCursor};
pub use options::{Compression, TableId, TableOptions};
pub use properties::TableMeta;
pub use reader::{Found, READ_AT_ONCE_BYTES_MAX, ReadTier, Table};
pub use sketch::KeySketch;
pub use verify::VerifyReport;
