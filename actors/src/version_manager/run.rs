//! The version manager's disk work.

use crate::failure::Failure;
use crate::shared::{Counters, Shared};
use sluicedb_storage::Error;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::version::VersionEdit;

/// Makes `edit` durable, then rolls over to a fresh manifest if the present one has grown.
pub(super) fn append(
    manifest: &mut ManifestWriter,
    edit: &VersionEdit,
    shared: &Shared,
) -> Result<(), Failure> {
    manifest.append(edit)?;
    if manifest.wants_roll_over() {
        let old = manifest.roll_over(shared.file_numbers.take())?;
        let path = FileKind::Manifest(old).path(&shared.config.dir);
        if let Err(error) = shared.vfs.remove(&path) {
            // It is garbage now; the next open removes it.
            tracing::warn!(path = %path.display(), %error, "an old manifest was left behind");
        }
    }
    Ok(())
}

/// Deletes a table that nothing refers to any more. If it cannot be deleted the next open does it.
pub(super) fn delete_table(shared: &Shared, number: FileNumber) {
    let path = FileKind::Table(number).path(&shared.config.dir);
    match shared.vfs.remove(&path) {
        Ok(()) => Counters::add(&shared.counters.tables_deleted, 1),
        Err(error) => {
            let error = Error::io("remove", &path, error);
            tracing::warn!(%error, "an obsolete table was left behind");
        }
    }
}
