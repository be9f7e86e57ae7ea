//! What the two programs of this package share: keys and values, the zipf distribution, what the
//! operating system says about this process, and how RocksDB is set.
//!
//! `peers` puts SluiceDB beside other engines, `landing` puts the levels of SluiceDB beside those
//! of RocksDB.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock and at other files")]
#![allow(missing_docs, missing_debug_implementations, reason = "nobody else uses this library")]

pub mod disk;
pub mod keys;
pub mod process;
#[cfg(feature = "rocksdb")]
pub mod rocks;

use hdrhistogram::Histogram;
use std::error::Error;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Latencies in nanoseconds, with `digits` significant digits.
pub fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_max(600_000_000_000, digits).expect("the bounds are valid")
}
