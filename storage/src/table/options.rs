//! The options of a table, and the identity that seeds its checksums.

use crate::codec::hash64;
use crate::error::{Error, Result};
use crate::filename::FileNumber;

/// Smallest and largest target size of a data block.
const BLOCK_BYTES: std::ops::RangeInclusive<usize> = 256..=1 << 20;
/// Largest restart interval. One byte of the block header holds its logarithm, and blocks rarely
/// have more entries than this.
const RESTART_INTERVAL_MAX: usize = 128;
/// More bits than this bring no measurable gain in a 512-bit line.
const FILTER_BITS_MAX: usize = 24;
/// How many more a table gets that lies above others; see `TableOptions::above`.
const FILTER_BITS_ABOVE: usize = 10;

/// Options for writing a table. Readers need none of them: the file describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Target size of a data block before compression, in bytes (256 to 1 MiB). A larger entry gets
    /// a block of its own.
    pub block_bytes: usize,
    /// The number of entries per restart point, a power of two from 1 to 128. Only the first of
    /// them stores its whole key.
    pub restart_interval: usize,
    /// Filter bits per key, 0 to 24; 0 writes no filter. 10 lets about 1 in 100 absent keys pass.
    pub filter_bits_per_key: usize,
    /// The compression of data blocks.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            restart_interval: 16,
            filter_bits_per_key: 10,
            compression: Compression::None,
        }
    }
}

impl TableOptions {
    /// The options of a table that lies above others: ten filter bits per key more, up to 24. Then
    /// one absent key of some thousands passes, not one of a hundred. A get asks the filters of all
    /// tables above the one that has its key, a dozen where much has landed, and these have a small
    /// part of the data. The optimum for a level a tenth as large as the next one is
    /// `ln(10) / ln(2)^2`, about five bits more, and twice that one level higher (Monkey, Dayan et
    /// al., SIGMOD 2017). Where there are no filters there are none here.
    #[must_use]
    pub fn above(mut self) -> Self {
        if self.filter_bits_per_key > 0 {
            let most = FILTER_BITS_MAX.max(self.filter_bits_per_key);
            self.filter_bits_per_key += FILTER_BITS_ABOVE.min(most - self.filter_bits_per_key);
        }
        self
    }

    /// Checks every option against its limits.
    ///
    /// # Errors
    /// `Error::Invalid` names the option, its value and its limits.
    pub fn validate(&self) -> Result<()> {
        if !BLOCK_BYTES.contains(&self.block_bytes) {
            return Err(Error::invalid(format!(
                "block_bytes is {}, but must be {} to {}",
                self.block_bytes,
                BLOCK_BYTES.start(),
                BLOCK_BYTES.end()
            )));
        }
        if !self.restart_interval.is_power_of_two() || self.restart_interval > RESTART_INTERVAL_MAX
        {
            return Err(Error::invalid(format!(
                "restart_interval is {}, but must be a power of two from 1 to \
                 {RESTART_INTERVAL_MAX}",
                self.restart_interval
            )));
        }
        if self.filter_bits_per_key > FILTER_BITS_MAX {
            return Err(Error::invalid(format!(
                "filter_bits_per_key is {}, but must be 0 to {FILTER_BITS_MAX}",
                self.filter_bits_per_key
            )));
        }
        match self.compression {
            Compression::None | Compression::Lz4 => Ok(()),
            #[cfg(feature = "zstd")]
            Compression::Zstd(level) if zstd::compression_level_range().contains(&level) => Ok(()),
            #[cfg(feature = "zstd")]
            Compression::Zstd(level) => Err(Error::invalid(format!(
                "zstd level is {level}, but must be in {:?}",
                zstd::compression_level_range()
            ))),
        }
    }
}

/// The compression of data blocks. A block that does not shrink by an eighth is stored
/// uncompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// LZ4 block format: fast both ways.
    Lz4,
    /// Zstandard at this level: smaller and slower.
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

/// The identity of a table. Together with a block's offset it seeds the block's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId {
    /// The database that the table was written for.
    pub db_id: [u8; 16],
    /// The table's file number.
    pub number: FileNumber,
}

impl TableId {
    /// 16 bytes that differ between any two tables of any two databases (up to chance).
    pub fn unique_id(&self) -> [u8; 16] {
        let mut input = [0; 25];
        input[..16].copy_from_slice(&self.db_id);
        input[16..24].copy_from_slice(&self.number.0.to_le_bytes());
        let mut id = [0; 16];
        id[..8].copy_from_slice(&hash64(&input).to_le_bytes());
        input[24] = 1;
        id[8..].copy_from_slice(&hash64(&input).to_le_bytes());
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        let good = TableOptions::default();
        good.validate().unwrap();
        let bad = [
            (TableOptions { block_bytes: 255, ..good.clone() }, "block_bytes"),
            (TableOptions { block_bytes: (1 << 20) + 1, ..good.clone() }, "block_bytes"),
            (TableOptions { restart_interval: 0, ..good.clone() }, "restart_interval"),
            (TableOptions { restart_interval: 12, ..good.clone() }, "restart_interval"),
            (TableOptions { restart_interval: 256, ..good.clone() }, "restart_interval"),
            (TableOptions { filter_bits_per_key: 25, ..good }, "filter_bits_per_key"),
        ];
        for (options, name) in bad {
            let error = options.validate().unwrap_err();
            assert!(matches!(&error, Error::Invalid { what } if what.starts_with(name)), "{error}");
        }
    }

    #[test]
    fn unique_ids_differ() {
        let id =
            |db: u8, number| TableId { db_id: [db; 16], number: FileNumber(number) }.unique_id();
        assert_ne!(id(1, 1), id(1, 2));
        assert_ne!(id(1, 1), id(2, 1));
        assert_eq!(id(1, 1), id(1, 1));
    }
}
