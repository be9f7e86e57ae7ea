//! Disk operations as data: for the hooks of `MemVfs` and the faults of `FaultVfs`.

use std::path::PathBuf;

/// The kinds of operation that can be observed or made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// `create_dir_all`
    CreateDir,
    /// `create`
    Create,
    /// `open` and `open_rw`
    Open,
    /// `rename`
    Rename,
    /// `hard_link`
    Link,
    /// `remove`
    Remove,
    /// `list`, `next_data` and both `len`s
    Inspect,
    /// `sync_dir`
    SyncDir,
    /// `lock` and `lock_shared`
    Lock,
    /// `read_at` and `try_read_exact_at`
    Read,
    /// `write_all_at`
    Write,
    /// `sync_data` and `sync_all`
    Sync,
    /// `write_back`
    WriteBack,
    /// `set_len`
    SetLen,
    /// `allocate`
    Allocate,
    /// `map_for_writing`
    Map,
    /// `Mapping::write`. It cannot fail: the processor does it.
    Store,
}

impl OperationKind {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 17] = [
        Self::CreateDir,
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Link,
        Self::Remove,
        Self::Inspect,
        Self::SyncDir,
        Self::Lock,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::WriteBack,
        Self::SetLen,
        Self::Allocate,
        Self::Map,
        Self::Store,
    ];

    /// Can this change what a crash leaves behind?
    pub fn is_change(self) -> bool {
        !matches!(self, Self::Open | Self::Inspect | Self::Read | Self::WriteBack | Self::Map)
    }

    /// Can a real disk refuse this?
    pub fn can_fail(self) -> bool {
        self != Self::Store
    }
}

/// An operation that is about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOperation {
    /// Counts the changing operations of one disk from 1.
    pub number: u64,
    /// The kind of operation.
    pub kind: OperationKind,
    /// The name under which the file was opened, or the directory. For a rename or a link, the
    /// source.
    pub path: PathBuf,
    /// The offset in the file; the length for `SetLen` and `Allocate`; otherwise 0.
    pub offset: u64,
    /// The number of bytes; 0 if the operation has none.
    pub len: u64,
}
