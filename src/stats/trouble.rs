//! What does not work: parties that wait for better times, and damaged tables.

use crate::health::{Party, Trouble};
use sluicedb_actors::failure::health::State;
use sluicedb_actors::failure::{Concern, Failure};
use sluicedb_storage::Error as StorageError;

/// Why a party of the engine cannot work for now.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleStats {
    /// Who cannot work.
    pub party: Party,
    /// For which range, if it is not for all.
    pub range: Option<u32>,
    /// Why, in words.
    pub error: String,
}

impl TroubleStats {
    pub(super) fn all(state: State<Concern, Failure>) -> Vec<Self> {
        let State::Degraded(causes) = state else { return Vec::new() };
        let one = |trouble: Trouble| Self {
            party: trouble.party,
            range: trouble.range,
            error: trouble.error.to_string(),
        };
        Trouble::all(causes).into_iter().map(one).collect()
    }
}

/// A table that was found damaged or missing. Its keys can be neither read nor merged with newer
/// entries above them. All other keys are not affected.
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedTable {
    /// The file.
    pub path: std::path::PathBuf,
    /// Where in it the damage was noticed; `None` if it is missing.
    pub offset: Option<u64>,
    /// What was found, in words.
    pub error: String,
}

impl DamagedTable {
    pub(super) fn of(error: &StorageError) -> Option<Self> {
        let (path, offset) = match error {
            StorageError::Corrupt { path, offset, .. } => (path, Some(*offset)),
            StorageError::Missing { path } => (path, None),
            _ => return None,
        };
        Some(Self { path: path.clone(), offset, error: error.to_string() })
    }
}
