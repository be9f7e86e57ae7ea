//! Every limit of the format in one place.

/// Longest key, in bytes. The shortest is 1.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest value by default, in bytes. An option may lower it, or raise it up to `VALUE_BYTES_CAP`.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Longest value that an option may allow: lengths in the formats have 32 bits.
pub const VALUE_BYTES_CAP: usize = 1 << 30;
/// Largest encoded batch that an option may allow.
pub const BATCH_BYTES_CAP: usize = (2 << 30) - 1;
/// The most spans that one change cuts out: the work for them is done while no write is stamped.
pub const SPANS_MAX: usize = 4096;
/// The most bytes that the bounds of these spans have together: a manifest has room for them.
pub const SPANS_BYTES_MAX: usize = 16 << 20;
/// Bytes that one entry costs in a memtable besides its encoded operation: 11 to 17 around key and
/// value, plus its share of the index (12 to 43, measured at 500 k entries; ADR 0006), or a note
/// and a link (48) while a snapshot holds an overwritten version.
pub const ENTRY_OVERHEAD_BYTES: usize = 72;
/// Largest sequence number: 56 bits, so that one fits into a word with its kind.
pub const SEQNO_MAX: u64 = (1 << 56) - 1;
/// Largest sequence number that is accepted when it is read.
pub const SEQNO_ON_DISK_MAX: u64 = SEQNO_MAX - (1 << 54);
/// Largest file number that is accepted when it is read.
pub const FILE_NUMBER_MAX: u64 = (1 << 56) - 1;
/// Largest id of a range that is accepted when it is read.
pub const RANGE_ID_MAX: u32 = u32::MAX >> 1;
/// Largest id of a range that an open accepts. No larger one is given out.
pub const RANGE_ID_AT_OPEN_MAX: u32 = u32::MAX >> 2;
/// Largest file number and sequence number that an open accepts. The numbers above it suffice until
/// the next open, which can still read them.
pub const COUNTERS_AT_OPEN_MAX: u64 = 1 << 55;
/// The most ranges that a new database may start with.
pub const INITIAL_RANGES_MAX: usize = 16_384;
/// The most shards of a range.
pub const SHARDS_MAX: usize = 1024;
/// The most levels of a range below L0, counted from 1.
pub const LEVELS_MAX: usize = 7;

const _: () =
    assert!(COUNTERS_AT_OPEN_MAX < SEQNO_ON_DISK_MAX && SEQNO_ON_DISK_MAX < FILE_NUMBER_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= VALUE_BYTES_CAP);
const _: () = assert!(VALUE_BYTES_CAP + KEY_BYTES_MAX < BATCH_BYTES_CAP);
