//! The version manager's disk work.

use crate::failure::Failure;
use crate::shared::{Counters, Shared};
use sluicedb_storage::Error;
use sluicedb_storage::filename::{FileKind, FileNumber};
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::version::VersionEdit;

/// Makes `edit` durable, then rolls over to a fresh manifest if the present one has grown. If it fails
/// and `manifest.failure()` tells nothing, the edit has not happened and the next one may.
pub(super) fn append(
    manifest: &mut ManifestWriter,
    edit: &VersionEdit,
    shared: &Shared,
) -> Result<(), Failure> {
    if manifest.must_roll_over() {
        return roll_over(manifest, Some(edit), shared);
    }
    manifest.append(edit)?;
    if manifest.wants_roll_over()
        && let Err(failure) = roll_over(manifest, None, shared)
    {
        if manifest.failure().is_some() {
            return Err(failure);
        }
        // The edit is durable where it is; the next one brings another attempt.
        tracing::warn!(%failure, "the manifest could not be rewritten");
        Counters::add(&shared.counters.job_retries, 1);
    }
    Ok(())
}

fn roll_over(
    manifest: &mut ManifestWriter,
    edit: Option<&VersionEdit>,
    shared: &Shared,
) -> Result<(), Failure> {
    let number = shared.file_numbers.take();
    let old = manifest.roll_over(number, edit)?;
    let path = FileKind::Manifest(old).path(&shared.config.dir);
    if let Err(error) = shared.vfs.remove(&path) {
        // It is garbage now; the next open removes it.
        tracing::warn!(path = %path.display(), %error, "an old manifest was left behind");
    }
    Ok(())
}

/// Deletes a table that nothing refers to any more. If it cannot be deleted the next open does it.
pub(super) fn delete_table(shared: &Shared, number: FileNumber) {
    let path = FileKind::Table(number).path(&shared.config.dir);
    shared.damage.forget(number);
    match shared.vfs.remove(&path) {
        Ok(()) => Counters::add(&shared.counters.tables_deleted, 1),
        Err(error) => {
            let error = Error::io("remove", &path, error);
            tracing::warn!(%error, "an obsolete table was left behind");
        }
    }
}
