//! How a command ends: the exit codes that scripts may rely on.

use sluicedb::ErrorKind;
use std::io;
use std::process::ExitCode;

/// The result of a command or a part of one.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// The exit codes. Documented in `sluice --help` and in the README; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nobody reads our output any more (a closed pipe). That is not our failure.
    Quiet = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line, or a request in it, can never work.
    Usage = 2,
    /// No such key, or no such database.
    NotFound = 3,
    /// Damaged bytes, or findings of `verify`, or mismatches of `demo`.
    Corrupt = 4,
    /// Another process has the database open.
    Locked = 5,
    /// No room, and the command does not wait longer.
    Overloaded = 6,
    /// The disk is full.
    NoSpace = 7,
    /// Written by a version, or with a feature, that this build does not support.
    Unsupported = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The message, if anything is left to say.
    pub message: Option<String>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: Some(message.into()) }
    }

    /// A request that can never work as typed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The plain failure.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Everything has been said. Only the code is left.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, message: None }
    }

    /// An operating-system error about `what`, for example a path.
    pub fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::NoSpace,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("{what}: {error}"))
    }

    /// An error of writing to stdout. A closed pipe (`sluice scan .. | head`) ends quietly.
    pub fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(Exit::Quiet);
        }
        Self::io("stdout", error)
    }
}

impl From<sluicedb::Error> for Failure {
    fn from(error: sluicedb::Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            ErrorKind::Overloaded => Exit::Overloaded,
            ErrorKind::NoSpace => Exit::NoSpace,
            ErrorKind::Corrupt => Exit::Corrupt,
            ErrorKind::Locked => Exit::Locked,
            ErrorKind::Exists => Exit::NotFound,
            ErrorKind::Unsupported => Exit::Unsupported,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
