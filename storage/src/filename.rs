//! Names and numbers of files. Names are made only from numbers; nothing read from disk is used as
//! a path.

use crate::limits::FILE_NUMBER_MAX;
use std::fmt;
use std::path::{Path, PathBuf};

/// A file number. All numbered files share one ascending sequence, and a number is never reused
/// (the version manager upholds INVARIANT(never-reuse-a-file-number)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub u64);

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// The lock file's name.
pub const LOCK: &str = "LOCK";
/// The name of the pointer to the current manifest.
pub const CURRENT: &str = "CURRENT";

/// The name of the reserve for a full disk.
pub const RESERVE: &str = "RESERVE";

/// The kind of a file in the database directory, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `LOCK`
    Lock,
    /// `CURRENT`
    Current,
    /// `RESERVE`: reserved space without contents.
    Reserve,
    /// `MANIFEST-000001`
    Manifest(FileNumber),
    /// `000001.wal`
    Wal(FileNumber),
    /// `000001.spare`: a log segment in preparation, not yet part of the log.
    Spare(FileNumber),
    /// `000001.sst`
    Table(FileNumber),
    /// `000001.tmp`, or `CURRENT.tmp` as number 0: a file that was never published.
    Temp(FileNumber),
}

impl FileKind {
    /// The name in the directory.
    pub fn name(self) -> String {
        match self {
            Self::Lock => LOCK.to_owned(),
            Self::Current => CURRENT.to_owned(),
            Self::Reserve => RESERVE.to_owned(),
            Self::Manifest(n) => format!("MANIFEST-{n}"),
            Self::Wal(n) => format!("{n}.wal"),
            Self::Spare(n) => format!("{n}.spare"),
            Self::Table(n) => format!("{n}.sst"),
            Self::Temp(FileNumber(0)) => "CURRENT.tmp".to_owned(),
            Self::Temp(n) => format!("{n}.tmp"),
        }
    }

    /// The path in `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// The kind of the file `name`; `None` if the name is not ours.
    pub fn parse(name: &str) -> Option<Self> {
        let number = |digits: &str| {
            // Exactly as `Display` writes it, so that a number has only one name.
            let plain = digits.len() == 6 || (digits.len() > 6 && !digits.starts_with('0'));
            let plain = plain && digits.bytes().all(|b| b.is_ascii_digit());
            let number = digits.parse().ok().filter(|number| plain && *number <= FILE_NUMBER_MAX);
            number.map(FileNumber)
        };
        match name {
            LOCK => return Some(Self::Lock),
            CURRENT => return Some(Self::Current),
            RESERVE => return Some(Self::Reserve),
            "CURRENT.tmp" => return Some(Self::Temp(FileNumber(0))),
            _ => {}
        }
        if let Some(digits) = name.strip_prefix("MANIFEST-") {
            return number(digits).map(Self::Manifest);
        }
        let (digits, extension) = name.split_once('.')?;
        let number = number(digits)?;
        match extension {
            "wal" => Some(Self::Wal(number)),
            "spare" => Some(Self::Spare(number)),
            "sst" => Some(Self::Table(number)),
            "tmp" => Some(Self::Temp(number)),
            _ => None,
        }
    }

    /// The number in the name, if there is one.
    pub fn number(self) -> Option<FileNumber> {
        match self {
            Self::Lock | Self::Current | Self::Reserve => None,
            Self::Manifest(n) | Self::Wal(n) | Self::Spare(n) | Self::Table(n) | Self::Temp(n) => {
                Some(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        let n = FileNumber(1_234_567);
        let kinds = [
            FileKind::Lock,
            FileKind::Current,
            FileKind::Reserve,
            FileKind::Manifest(FileNumber(1)),
            FileKind::Wal(n),
            FileKind::Spare(n),
            FileKind::Table(n),
            FileKind::Temp(n),
            FileKind::Temp(FileNumber(0)),
        ];
        for kind in kinds {
            assert_eq!(FileKind::parse(&kind.name()), Some(kind));
        }
    }

    #[test]
    fn foreign_names_are_left_alone() {
        for name in
            ["", "1.sst", "000001", "000001.sst.bak", "MANIFEST-", "MANIFEST-x", "+00001.wal"]
        {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }

    #[test]
    fn c4_numbers_that_nobody_can_count_on_from_are_foreign() {
        let largest = FileKind::Table(FileNumber(FILE_NUMBER_MAX));
        assert_eq!(FileKind::parse(&largest.name()), Some(largest));
        let more = [FILE_NUMBER_MAX + 1, u64::MAX].map(|number| format!("{number}.sst"));
        let names = ["99999999999999999999999.wal", "0000007.sst", "MANIFEST-0000001"];
        for name in more.iter().map(String::as_str).chain(names) {
            assert_eq!(FileKind::parse(name), None, "{name}");
        }
    }
}
