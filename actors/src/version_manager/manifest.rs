//! How edits are made durable: the version manager's disk work.

use super::message::InstallFailure;
use super::{Files, VersionManager};
use crate::failure::Failure;
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::manifest::ManifestWriter;
use sluicedb_storage::version::VersionEdit;

impl VersionManager {
    /// Makes durable that every number given out so far is used, whatever became of it.
    pub(super) fn keep_numbers(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.failures.health.failure() {
            return Err(failure);
        }
        let mut edit = VersionEdit {
            next_file_number: Some(self.files.numbers.high_water()),
            ..VersionEdit::default()
        };
        match self.append(&mut edit) {
            Ok(()) => Ok(()),
            Err(InstallFailure::Failed(failure) | InstallFailure::NotInstalled(failure)) => {
                Err(failure)
            }
            Err(InstallFailure::Conflict(what)) => unreachable!("numbers only rise, yet: {what}"),
        }
    }
}

/// Makes `edit` durable. Then rolls over to a fresh manifest if the current one has grown. If this
/// fails while `manifest.failure()` is `None`, the edit has not happened, and the next one may.
pub(super) fn append(
    manifest: &mut ManifestWriter,
    edit: &VersionEdit,
    files: &Files,
) -> Result<(), Failure> {
    if manifest.must_roll_over() {
        return roll_over(manifest, Some(edit), files);
    }
    manifest.append(edit)?;
    if manifest.wants_roll_over()
        && let Err(failure) = roll_over(manifest, None, files)
    {
        if manifest.failure().is_some() {
            return Err(failure);
        }
        // The edit is durable where it is. The next edit tries the rollover again.
        tracing::warn!(%failure, "the manifest could not be rewritten");
        files.failures.attempts.retries.add(1);
    }
    Ok(())
}

fn roll_over(
    manifest: &mut ManifestWriter,
    edit: Option<&VersionEdit>,
    files: &Files,
) -> Result<(), Failure> {
    let number = files.numbers.take();
    let old = manifest.roll_over(number, edit)?;
    let path = FileKind::Manifest(old).path(files.environment.dir());
    if let Err(error) = files.environment.vfs.remove(&path) {
        // The file is garbage now. The next open removes it.
        tracing::warn!(path = %path.display(), %error, "an old manifest was left behind");
    }
    Ok(())
}
