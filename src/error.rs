//! The one error type. Its kind says what the caller should do. Its message names the file and the
//! offset.

use sluicedb_actors::failure::{Failure, WriteFailure};
pub use sluicedb_actors::failure::{Outcome, Scope};
use sluicedb_storage::Error as StorageError;
use sluicedb_storage::batch::WriteBatch;
use std::fmt;
use std::io;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller should do about an [`Error`].
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let db = sluicedb::Db::open(dir.path()).await?;
/// use sluicedb::ErrorKind;
/// let error = db.put("", "an empty key").await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// # Ok::<_, sluicedb::Error>(()) }).unwrap();
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request can never succeed as written. Fix the call or the options.
    Invalid,
    /// No room now, and the caller chose not to wait, or not to wait any longer. Shed load, or
    /// retry later.
    Overloaded,
    /// The disk is full. Reads go on; writes resume by themselves once there is space again.
    NoSpace,
    /// Bytes on disk contradict their checksum or each other. Run `sluice verify`, and restore from
    /// a backup.
    Corrupt,
    /// The process or the system has no file descriptor left, even after closing tables that nobody
    /// was reading. Nothing is lost. Raise the limit (`ulimit -n`), or open fewer other files.
    TooManyOpenFiles,
    /// The operating system refused. Look at the source. Permissions and limits are the usual
    /// cause.
    Io,
    /// Another handle, in this or another process, has the database open. Close it first.
    Locked,
    /// There is no database in the directory, and the caller did not ask to create one. Or there is
    /// one, and the caller asked for a new one. Or a checkpoint's directory holds something that
    /// the checkpoint cannot replace.
    Exists,
    /// The files were written by a version, or with a feature, that this build does not support.
    Unsupported,
    /// The database was closed. Open it again. After a failure that stopped the writes, each
    /// later write fails with the kind of that failure.
    Closed,
    /// The engine broke one of its own rules. Please report it. Reopen to continue.
    Internal,
}

/// Why an operation did not do what it was asked to do, and what became of it.
///
/// One pointer wide. A refused batch is returned in it: see [`take_batch`](Self::take_batch). A
/// clone describes the same failure and has no batch.
pub struct Error(Box<Inner>);

struct Inner {
    outcome: Outcome,
    failure: Failure,
    batch: Option<WriteBatch>,
}

impl Error {
    /// What to do about it.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let error = db.put("", "the empty key is not a key").await.unwrap_err();
    /// assert_eq!(error.kind(), sluicedb::ErrorKind::Invalid);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match &self.0.failure {
            Failure::Overloaded { .. } => ErrorKind::Overloaded,
            Failure::NoSpace(_) => ErrorKind::NoSpace,
            Failure::Closed => ErrorKind::Closed,
            Failure::Panicked { .. } => ErrorKind::Internal,
            Failure::Storage(error) => kind_of(error),
        }
    }

    /// Whether the write is in the database. `NotApplied` for everything that failed before it was
    /// submitted, and for all reads. `Applied` when the disk had no room for the log's bytes: they
    /// are written once there is room. `Unknown` only when the log could not be written or synced.
    /// Changes of whole spans, ranges and keyspaces are writes in this sense.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let error = db.put("", "the empty key is not a key").await.unwrap_err();
    /// assert_eq!(error.outcome(), sluicedb::Outcome::NotApplied);
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The batch that [`write`](crate::Db::write) or [`submit`](crate::Db::submit) refused, to be
    /// changed or written again. It was not copied, and nothing of it is in the database.
    /// Write it again through the same handle: an operation that named no keyspace may name the
    /// handle's by now.
    ///
    /// `None` if the write got its place in the order of writes and failed afterwards; if the batch
    /// deletes ranges and was not refused as `Invalid`; if it was not a batch; and once the batch
    /// was taken.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::{Db, ErrorKind, WriteBatch, WriteOptions};
    /// let db = Db::open(dir.path()).await?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("user:1", "Ada");
    /// while let Err(mut error) = db.write_with(batch, WriteOptions::new().no_wait()).await {
    ///     match error.take_batch() {
    ///         Some(refused) if error.kind() == ErrorKind::Overloaded => batch = refused,
    ///         _ => return Err(error),
    ///     }
    ///     // Do something else first.
    ///     tokio::task::yield_now().await;
    /// #   if false { batch = WriteBatch::new(); }
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn take_batch(&mut self) -> Option<WriteBatch> {
        self.0.batch.take()
    }

    /// Where there was no room, for [`ErrorKind::Overloaded`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use sluicedb::{ErrorKind, WriteOptions};
    /// match db.put_with("a", "1", WriteOptions::new().no_wait()).await {
    ///     Err(error) if error.kind() == ErrorKind::Overloaded => assert!(error.scope().is_some()),
    ///     written => assert!(written? > 0),
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn scope(&self) -> Option<Scope> {
        match &self.0.failure {
            Failure::Overloaded { scope, .. } => Some(*scope),
            _ => None,
        }
    }

    /// How long the caller waited for room, for [`ErrorKind::Overloaded`].
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// use std::time::{Duration, Instant};
    /// let options = sluicedb::WriteOptions::new().by(Instant::now() + Duration::from_millis(50));
    /// if let Err(error) = db.put_with("a", "1", options).await {
    ///     println!("gave up after {:?}: {error}", error.waited());
    /// }
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn waited(&self) -> Option<Duration> {
        match &self.0.failure {
            Failure::Overloaded { waited, .. } => Some(*waited),
            _ => None,
        }
    }

    /// The file or directory that the failure is about, if it is about one.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use sluicedb::Db;
    /// let db = Db::open(dir.path()).await?;
    /// let error = Db::open(dir.path()).await.unwrap_err();
    /// assert_eq!(error.kind(), sluicedb::ErrorKind::Locked);
    /// println!("{} is open already", error.path().expect("its directory").display());
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn path(&self) -> Option<&std::path::Path> {
        match self.storage()? {
            StorageError::Io { path, .. }
            | StorageError::Corrupt { path, .. }
            | StorageError::Unsupported { path, .. }
            | StorageError::Missing { path }
            | StorageError::NoDatabase { path, .. }
            | StorageError::Exists { path, .. }
            | StorageError::Locked { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The offset in [`path`](Self::path), if there is one.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let db = sluicedb::Db::open(dir.path()).await?;
    /// let error = db.put("", "the empty key is not a key").await.unwrap_err();
    /// assert_eq!(error.offset(), None, "it is about no file");
    /// # Ok::<_, sluicedb::Error>(()) }).unwrap();
    /// ```
    pub fn offset(&self) -> Option<u64> {
        match self.storage()? {
            StorageError::Io { offset, .. } => *offset,
            StorageError::Corrupt { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    fn storage(&self) -> Option<&StorageError> {
        match &self.0.failure {
            Failure::Storage(error) | Failure::NoSpace(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        StorageError::invalid(what).into()
    }

    pub(crate) fn with_batch(mut self, batch: WriteBatch) -> Self {
        self.0.batch = Some(batch);
        self
    }
}

impl Clone for Error {
    fn clone(&self) -> Self {
        let Inner { outcome, ref failure, .. } = *self.0;
        Self(Box::new(Inner { outcome, failure: failure.clone(), batch: None }))
    }
}

fn kind_of(error: &StorageError) -> ErrorKind {
    match error {
        StorageError::Corrupt { .. } | StorageError::Missing { .. } => ErrorKind::Corrupt,
        StorageError::Unsupported { .. } => ErrorKind::Unsupported,
        StorageError::Locked { .. } => ErrorKind::Locked,
        StorageError::NoDatabase { .. } | StorageError::Exists { .. } => ErrorKind::Exists,
        StorageError::Invalid { .. } => ErrorKind::Invalid,
        StorageError::WouldBlock(_) => ErrorKind::Internal,
        error if error.is_out_of_descriptors() => ErrorKind::TooManyOpenFiles,
        _ => ErrorKind::Io,
    }
}

impl From<Failure> for Error {
    #[cold]
    fn from(failure: Failure) -> Self {
        Self(Box::new(Inner { outcome: Outcome::NotApplied, failure, batch: None }))
    }
}

impl From<WriteFailure> for Error {
    fn from(failed: WriteFailure) -> Self {
        let mut error = Self::from(failed.failure);
        error.0.outcome = failed.outcome;
        error
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::from(Failure::storage(error))
    }
}

/// Converts to the nearest kind, with the error itself inside.
///
/// `Invalid` is `InvalidInput`; `Overloaded` is `WouldBlock`, or `TimedOut` after a wait; `NoSpace`
/// is `StorageFull`; `Corrupt` is `InvalidData`; `Locked` is `ResourceBusy`; `Exists` is
/// `AlreadyExists`, or `NotFound` if there is no database; `Unsupported` is `Unsupported`; `Closed`
/// is `BrokenPipe`; `Io` is the operating system's kind; everything else is `Other`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::Overloaded if error.waited().is_some_and(|waited| !waited.is_zero()) => {
                io::ErrorKind::TimedOut
            }
            ErrorKind::Overloaded => io::ErrorKind::WouldBlock,
            ErrorKind::NoSpace => io::ErrorKind::StorageFull,
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::Exists => match error.storage() {
                Some(StorageError::NoDatabase { .. }) => io::ErrorKind::NotFound,
                _ => io::ErrorKind::AlreadyExists,
            },
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Closed => io::ErrorKind::BrokenPipe,
            ErrorKind::Io => match error.storage() {
                Some(StorageError::Io { source, .. }) => source.kind(),
                _ => io::ErrorKind::Other,
            },
            ErrorKind::TooManyOpenFiles | ErrorKind::Internal => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.failure.fmt(f)?;
        match self.0.outcome {
            Outcome::NotApplied => Ok(()),
            Outcome::Applied => f.write_str(" (the write is visible, but not yet durable)"),
            Outcome::Unknown => f.write_str(" (reopen to learn whether the write survived)"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Error {{ kind: {:?}, outcome: {:?}, message: \"{self}\" }}",
            self.kind(),
            self.outcome()
        )
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // What the storage error says is what this one says.
        self.storage().and_then(std::error::Error::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_message_names_file_and_offset() {
        let error = Error::from(StorageError::corrupt(
            Path::new("db/000012.sst"),
            40_960,
            "block checksum differs",
        ));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.to_string(), "db/000012.sst: block checksum differs at offset 40960");
        assert_eq!(error.offset(), Some(40_960));
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<u64>>(), 2 * size_of::<u64>());
    }

    #[test]
    fn as_an_error_of_std_it_has_the_nearest_kind_and_itself_inside() {
        let path = Path::new("000012.sst");
        let kind_of = |error: Error| io::Error::from(error).kind();
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let io_error = Error::from(StorageError::io("open", path, refused));
        assert_eq!(kind_of(io_error), io::ErrorKind::PermissionDenied);
        assert_eq!(kind_of(Error::invalid("no")), io::ErrorKind::InvalidInput);
        let overloaded = |millis| {
            let waited = Duration::from_millis(millis);
            Error::from(Failure::Overloaded { scope: Scope::Global, waited })
        };
        assert_eq!(kind_of(overloaded(0)), io::ErrorKind::WouldBlock);
        assert_eq!(kind_of(overloaded(7)), io::ErrorKind::TimedOut);
        let corrupt = io::Error::from(Error::from(StorageError::corrupt(path, 1, "bad")));
        assert_eq!(corrupt.kind(), io::ErrorKind::InvalidData);
        let inside = corrupt.get_ref().and_then(|inside| inside.downcast_ref::<Error>());
        assert_eq!(inside.and_then(Error::offset), Some(1));
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_io() {
        let full = StorageError::io(
            "write",
            Path::new("000001.wal"),
            std::io::Error::from_raw_os_error(28),
        );
        assert_eq!(Error::from(full).kind(), ErrorKind::NoSpace);
    }

    #[test]
    fn overload_tells_whose_room_and_how_long() {
        let waited = Duration::from_millis(5);
        let error = Error::from(Failure::Overloaded { scope: Scope::Local, waited });
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!((error.scope(), error.waited()), (Some(Scope::Local), Some(waited)));
    }
}
