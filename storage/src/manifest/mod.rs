//! The manifest: the log of version edits, and `CURRENT`, which names the manifest that counts.
//!
//! ```text
//! manifest := header (72 bytes) snapshot edit*         CURRENT (64 bytes)
//!
//! header                                               CURRENT
//!   0 magic "SLUICEMF"                                   0 magic "SLUICECU"
//!   8 format version u16 = 3, 6 zero bytes               8 manifest number u64
//!  16 incompatible features u64                         16 length of header and snapshot u64
//!  24 features that forbid writing u64                  24 hash64 of those bytes u64
//!  32 compatible features u64                           32 db_id, 16 bytes
//!  40 db_id, 16 bytes                                   48 format version u16 = 3, 10 zero bytes
//!  56 manifest number u64                               60 crc u32 of bytes 0..60
//!  64 4 zero bytes
//!  68 crc u32 of bytes 0..68
//!
//! record (snapshot or edit)
//!   0 crc u32 of bytes 4..24+length,
//!     seeded with crc(db_id, manifest number u64, record offset u64)
//!   4 length u32
//!   8 type u8 (1 snapshot, 2 edit), 3 zero bytes
//!  12 manifest number, low 32 bits
//!  16 synced_to u64: up to here the file was durable when the record was written
//!  24 edit (version/edit/mod.rs), `length` bytes
//! ```
//!
//! Guarantees: an edit is durable once `append`, or a later `sync`, has returned. After any crash
//! it is whole or absent, and no edit is there without those before it. A torn end is cut off and
//! reported. Damage is corruption, and the open is refused, if it lies below the snapshot's end,
//! below the `synced_to` of a later record, or after a clean close. `CURRENT` is replaced only when
//! the new manifest is durable under its name.
//!
//! Not here: what an edit contains, and the deletion of files.

mod current;
mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use current::{Current, read_current};
pub use reader::{LoadedManifest, TornTail, claimed_id, load};
pub use writer::ManifestWriter;

/// The version of the formats of manifest and `CURRENT` that this build writes.
pub const FORMAT_VERSION: u16 = 3;
/// The largest manifest that is read, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 30;
/// A manifest below this size is not rewritten, in bytes.
pub const ROLL_BYTES: u64 = 4 << 20;
