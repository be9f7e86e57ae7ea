//! What the programs of this package share: keys and values, the operations of clients, an engine
//! as they see it, what the operating system says, tables for a reader, and how RocksDB is set.
//!
//! `peers` puts SluiceDB beside other engines, `landing` puts the levels of SluiceDB beside those
//! of RocksDB, `curves` shows how SluiceDB scales with cores and with the size of its data.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock and at other files")]
#![allow(missing_docs, missing_debug_implementations, reason = "nobody else uses this library")]

pub mod children;
pub mod disk;
pub mod drive;
pub mod engine;
pub mod keys;
pub mod machine;
pub mod markdown;
pub mod process;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod sluice;
// Sizes as people write them: the command's, for the reason that `keys` names.
#[path = "../../../cli/src/units.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is written for another program")]
pub mod units;
pub mod work;

use hdrhistogram::Histogram;
use std::error::Error;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The one in the middle, or the mean of the two; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(values[middle - 1].midpoint(values[middle])),
    }
}

/// Latencies in nanoseconds, with `digits` significant digits.
pub fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_max(600_000_000_000, digits).expect("the bounds are valid")
}
