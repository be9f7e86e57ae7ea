//! "No limit" in a configuration file.
//!
//! In memory it is `u64::MAX`. TOML has no number above `i64::MAX`. So it is written as none: JSON
//! says `null`, and TOML leaves the field out. That is right for fields whose default is no limit.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn serialize<S: Serializer>(limit: &u64, to: S) -> Result<S::Ok, S::Error> {
    (*limit != u64::MAX).then_some(*limit).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(u64::MAX))
}

/// For `table_bytes_max`. Its default is a limit, so it cannot be left out. It is written as the
/// largest number that TOML has, which no table reaches.
pub(super) mod as_number {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    const NONE: u64 = u64::MAX / 2;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn serialize<S: Serializer>(limit: &u64, to: S) -> Result<S::Ok, S::Error> {
        NONE.min(*limit).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let limit = u64::deserialize(from)?;
        Ok(if limit < NONE { limit } else { u64::MAX })
    }
}

/// For `keep_trigger`, where it is infinity. JSON says `null` for that; other formats have it.
pub(super) fn infinity<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    if from.is_human_readable() {
        return Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY));
    }
    f64::deserialize(from)
}
