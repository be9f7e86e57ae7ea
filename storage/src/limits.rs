//! Every limit of the format in one place.

/// Longest key, in bytes. Shortest is 1.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest value by default, in bytes (an option may lower or raise it up to `VALUE_BYTES_CAP`).
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Longest value that any option may allow: lengths inside the formats are 32 bits wide.
pub const VALUE_BYTES_CAP: usize = 1 << 30;
/// Largest encoded batch that any option may allow.
pub const BATCH_BYTES_CAP: usize = (2 << 30) - 1;
/// Largest sequence number: 56 bits, so that one fits a word beside its kind.
pub const SEQNO_MAX: u64 = (1 << 56) - 1;
/// Largest sequence number that is believed when it is read.
pub const SEQNO_ON_DISK_MAX: u64 = SEQNO_MAX - (1 << 54);
/// Largest file number that is believed when it is read.
pub const FILE_NUMBER_MAX: u64 = (1 << 56) - 1;
/// Largest id of a range that is believed when it is read.
pub const RANGE_ID_MAX: u32 = u32::MAX >> 1;
/// Largest id of a range that an open goes on from. No larger one is given out.
pub const RANGE_ID_AT_OPEN_MAX: u32 = u32::MAX >> 2;
/// Largest file number and sequence number that an open goes on from. So much is left above it that
/// what is given out until the next open can be read then.
pub const COUNTERS_AT_OPEN_MAX: u64 = 1 << 55;
/// Ranges that a new database may start with.
pub const INITIAL_RANGES_MAX: usize = 16_384;
/// Shards of a range.
pub const SHARDS_MAX: usize = 1024;
/// Levels of a range below L0, counted from 1.
pub const LEVELS_MAX: usize = 7;

const _: () =
    assert!(COUNTERS_AT_OPEN_MAX < SEQNO_ON_DISK_MAX && SEQNO_ON_DISK_MAX < FILE_NUMBER_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= VALUE_BYTES_CAP);
const _: () = assert!(VALUE_BYTES_CAP + KEY_BYTES_MAX < BATCH_BYTES_CAP);
