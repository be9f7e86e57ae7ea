//! The first promises of the in-memory disk; the rest follow with the contract suite.

use std::path::Path;

use super::*;

#[test]
fn close_is_not_sync() {
    let vfs = MemVfs::new();
    let file = vfs.create(Path::new("/f")).unwrap();
    vfs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    drop(file);
    assert_eq!(vfs.crash_clone(CrashKind::DropUnsynced).len(Path::new("/f")).unwrap(), 0);
    assert_eq!(vfs.crash_clone(CrashKind::KeepAll).len(Path::new("/f")).unwrap(), 5);
    assert_eq!(vfs.kill_clone().len(Path::new("/f")).unwrap(), 5);
}
