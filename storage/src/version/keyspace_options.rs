//! The options in which a keyspace differs from its database, and their encoding.
//!
//! ```text
//! options := (tag varint | value varint)*
//!            tags ascend; an absent tag means: as the database
//! ```

use crate::codec::{Decoder, put_varint};
use crate::compact::CompactionOptions;
use crate::table::{Compression, TableOptions};
use std::borrow::Cow;

/// Options of one keyspace. `None` means: as the database, whose options may change at each open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceOptions {
    /// The compression of tables below L0.
    pub compression: Option<Compression>,
    /// Filter bits per key.
    pub filter_bits_per_key: Option<usize>,
    /// The number of shards of its ranges.
    pub shards: Option<usize>,
    /// See `CompactionOptions`.
    pub level_base_bytes: Option<u64>,
    /// See `CompactionOptions`.
    pub level_ratio: Option<u64>,
    /// See `CompactionOptions`.
    pub landing_runs_max: Option<usize>,
    /// A range with more bytes in tables is split.
    pub range_bytes_max: Option<u64>,
    /// A range with more entries in tables is split.
    pub range_entries_max: Option<u64>,
    /// A range to which more batches are applied per second is split.
    pub range_heat_max: Option<u64>,
}

/// Zstandard at level N is encoded as this number plus N.
const ZSTD: u64 = 100;
/// The largest level of Zstandard.
const ZSTD_LEVEL_MAX: u64 = 22;

const COMPRESSION: u64 = 1;
const FILTER_BITS_PER_KEY: u64 = 2;
const SHARDS: u64 = 3;
const LEVEL_BASE_BYTES: u64 = 4;
const LEVEL_RATIO: u64 = 5;
const LANDING_RUNS_MAX: u64 = 6;
const RANGE_BYTES_MAX: u64 = 7;
const RANGE_ENTRIES_MAX: u64 = 8;
const RANGE_HEAT_MAX: u64 = 9;

/// Why the encoding of options is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OptionsError {
    /// It violates the format.
    Malformed,
    /// Another build may know what this one does not: a phrase for "a keyspace has ...".
    Unsupported(String),
}

/// One option: its tag, its name for callers, its limits, and its value.
struct Field(u64, &'static str, u64, u64, Option<u64>);

impl KeyspaceOptions {
    /// The compaction options of the database, overridden by this keyspace's.
    pub fn compaction<'a>(&self, base: &'a CompactionOptions) -> Cow<'a, CompactionOptions> {
        let Self { shards, level_base_bytes, level_ratio, landing_runs_max, .. } = *self;
        if shards.is_none()
            && level_base_bytes.is_none()
            && level_ratio.is_none()
            && landing_runs_max.is_none()
        {
            return Cow::Borrowed(base);
        }
        Cow::Owned(CompactionOptions {
            shards: shards.unwrap_or(base.shards),
            level_base_bytes: level_base_bytes.unwrap_or(base.level_base_bytes),
            level_ratio: level_ratio.unwrap_or(base.level_ratio),
            landing_runs_max: landing_runs_max.unwrap_or(base.landing_runs_max),
            ..base.clone()
        })
    }

    /// Options of tables in L0. They lie above others, or soon will.
    pub fn l0_table(&self, base: &TableOptions) -> TableOptions {
        self.filtered(base).above()
    }

    /// Options of tables below L0.
    pub fn level_table(&self, base: &TableOptions) -> TableOptions {
        let compression = self.compression.unwrap_or(base.compression);
        TableOptions { compression, ..self.filtered(base) }
    }

    fn filtered(&self, base: &TableOptions) -> TableOptions {
        let bits = self.filter_bits_per_key.unwrap_or(base.filter_bits_per_key);
        TableOptions { filter_bits_per_key: bits, ..base.clone() }
    }

    /// Appends the encoding.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for Field(tag, .., value) in self.fields() {
            if let Some(value) = value {
                put_varint(out, tag);
                put_varint(out, value);
            }
        }
    }

    fn fields(&self) -> [Field; 9] {
        let of = |value: Option<usize>| value.map(|value| value as u64);
        let (compression, bits) =
            (self.compression.map(compression_number), self.filter_bits_per_key);
        let (base, max) = (self.level_base_bytes, u64::MAX);
        [
            Field(COMPRESSION, "compression", 0, ZSTD + ZSTD_LEVEL_MAX, compression),
            Field(FILTER_BITS_PER_KEY, "filter_bits_per_key", 0, 24, of(bits)),
            Field(SHARDS, "shards_per_range", 1, 64, of(self.shards)),
            Field(LEVEL_BASE_BYTES, "level_base_bytes", 4096, max / 4, base),
            Field(LEVEL_RATIO, "level_ratio", 2, 1000, self.level_ratio),
            Field(LANDING_RUNS_MAX, "landing_runs_max", 0, 64, of(self.landing_runs_max)),
            Field(RANGE_BYTES_MAX, "range_bytes_max", 4096, max, self.range_bytes_max),
            Field(RANGE_ENTRIES_MAX, "range_entries_max", 16, max, self.range_entries_max),
            Field(RANGE_HEAT_MAX, "range_heat_max", 1, max, self.range_heat_max),
        ]
    }

    /// Reads what `encode` wrote, up to the end. An option that this build does not know is one of
    /// a later build. It must not be lost when the options are written again, so it is refused.
    pub(super) fn decode(field: &mut Decoder<'_>) -> Result<Self, OptionsError> {
        let (mut options, mut last) = (Self::default(), 0);
        while !field.is_empty() {
            let mut number = || field.varint().ok_or(OptionsError::Malformed);
            let (tag, value) = (number()?, number()?);
            if tag <= last {
                return Err(OptionsError::Malformed);
            }
            last = tag;
            let small = usize::try_from(value).ok();
            match tag {
                COMPRESSION => options.compression = Some(compression_of(value)?),
                FILTER_BITS_PER_KEY => options.filter_bits_per_key = small,
                SHARDS => options.shards = small,
                LEVEL_BASE_BYTES => options.level_base_bytes = Some(value),
                LEVEL_RATIO => options.level_ratio = Some(value),
                LANDING_RUNS_MAX => options.landing_runs_max = small,
                RANGE_BYTES_MAX => options.range_bytes_max = Some(value),
                RANGE_ENTRIES_MAX => options.range_entries_max = Some(value),
                RANGE_HEAT_MAX => options.range_heat_max = Some(value),
                _ => {
                    let what = format!("option {tag}, which this build does not know");
                    return Err(OptionsError::Unsupported(what));
                }
            }
        }
        options.check().map(|()| options).map_err(|_| OptionsError::Malformed)
    }

    /// Checks that each option is inside its limits.
    /// The error is a message for the user.
    pub fn check(&self) -> Result<(), String> {
        #[cfg(feature = "zstd")]
        if let Some(Compression::Zstd(level)) = self.compression
            && !(1..=ZSTD_LEVEL_MAX as i32).contains(&level)
        {
            return Err(format!("zstd level is {level}; it must be 1..=22"));
        }
        for Field(_, name, least, most, value) in self.fields() {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(format!("{name} is {value}; it must be {least}..={most}"));
            }
        }
        Ok(())
    }
}

fn compression_number(compression: Compression) -> u64 {
    match compression {
        Compression::None => 0,
        Compression::Lz4 => 1,
        #[cfg(feature = "zstd")]
        Compression::Zstd(level) => ZSTD + u64::from(level.unsigned_abs()),
    }
}

fn compression_of(number: u64) -> Result<Compression, OptionsError> {
    let is_zstd = (ZSTD + 1..=ZSTD + ZSTD_LEVEL_MAX).contains(&number);
    let what = match number {
        0 => return Ok(Compression::None),
        1 => return Ok(Compression::Lz4),
        #[cfg(feature = "zstd")]
        _ if is_zstd => return Ok(Compression::Zstd((number - ZSTD) as i32)),
        _ if is_zstd => "zstd, but the feature zstd is off in this build".to_owned(),
        _ => format!("compression {number}, which this build does not know"),
    };
    Err(OptionsError::Unsupported(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> KeyspaceOptions {
        KeyspaceOptions {
            compression: Some(Compression::Lz4),
            filter_bits_per_key: Some(0),
            shards: Some(64),
            level_base_bytes: Some(4096),
            level_ratio: Some(1000),
            landing_runs_max: Some(0),
            range_bytes_max: Some(u64::MAX),
            range_entries_max: Some(16),
            range_heat_max: Some(1),
        }
    }

    fn bytes(options: &KeyspaceOptions) -> Vec<u8> {
        let mut bytes = Vec::new();
        options.encode(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_set_comes_back_and_nothing_takes_no_byte() {
        assert_eq!(bytes(&KeyspaceOptions::default()), []);
        for options in [all(), KeyspaceOptions { shards: None, compression: None, ..all() }] {
            let bytes = bytes(&options);
            assert_eq!(KeyspaceOptions::decode(&mut Decoder::new(&bytes)), Ok(options));
        }
    }

    #[test]
    fn c7_what_nothing_can_have_is_refused() {
        let good = bytes(&all());
        for length in 1..good.len() {
            let cut = KeyspaceOptions::decode(&mut Decoder::new(&good[..length]));
            assert!(cut != Ok(all()), "{length}");
        }
        for bad in [&[3, 0][..], &[3, 65], &[0, 1], &[3, 1, 2, 1], &[3, 1, 3, 1], &[3]] {
            let refused = KeyspaceOptions::decode(&mut Decoder::new(bad));
            assert_eq!(refused, Err(OptionsError::Malformed), "{bad:?}");
        }
        let message = KeyspaceOptions { level_ratio: Some(1), ..all() }.check().unwrap_err();
        assert_eq!(message, "level_ratio is 1; it must be 2..=1000");
    }

    /// Planted: an option of a later version taken for damage.
    #[test]
    fn what_only_another_build_has_is_no_damage() {
        let none = [
            (&[1, 2][..], "compression 2"),
            (&[10, 1][..], "option 10"),
            (&[3, 9, 12, 0][..], "option 12"),
        ];
        #[cfg(not(feature = "zstd"))]
        let none = none.into_iter().chain([(&[1, 106][..], "feature zstd is off")]);
        for (bytes, named) in none {
            let refused = KeyspaceOptions::decode(&mut Decoder::new(bytes));
            let Err(OptionsError::Unsupported(what)) = refused else {
                panic!("{bytes:?} {refused:?}")
            };
            assert!(what.contains(named), "{what}");
        }
    }

    #[test]
    fn its_own_take_the_place_of_the_databases() {
        let (base, table) = (CompactionOptions::balanced(), TableOptions::default());
        let none = KeyspaceOptions::default();
        assert!(matches!(none.compaction(&base), Cow::Borrowed(_)));
        assert_eq!(none.level_table(&table), table);
        let own = all().compaction(&base).into_owned();
        assert_eq!((own.shards, own.level_ratio, own.landing_runs_max), (64, 1000, 0));
        assert_eq!(own.l0_trigger, base.l0_trigger);
        assert_eq!(all().l0_table(&table).compression, table.compression);
        assert_eq!(all().l0_table(&table).filter_bits_per_key, 0);
        assert_eq!(none.l0_table(&table), table.clone().above());
        assert_eq!(all().level_table(&table).compression, Compression::Lz4);
        assert_eq!(all().level_table(&table).filter_bits_per_key, 0);
    }
}
