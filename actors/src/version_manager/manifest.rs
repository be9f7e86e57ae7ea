//! How edits are made durable: the version manager's disk work.

use super::VersionManager;
use crate::failure::backoff::{LONGEST_NO_SPACE, Retry};
use crate::failure::{Failure, Party};
use sluicedb_storage::filename::FileKind;
use sluicedb_storage::version::VersionEdit;

impl VersionManager {
    /// Makes `edit` durable, and with it the outcomes of changes.
    ///
    /// # Errors
    /// As `append_unsynced`.
    pub(super) fn append(&mut self, mut edit: VersionEdit) -> Result<(), Failure> {
        self.append_unsynced(&mut edit)?;
        self.sync()
    }

    /// Appends `edit`, and with it the outcomes of changes. The next sync makes it durable.
    ///
    /// # Errors
    /// If the manifest has not failed, the edit has not happened and will not, and the edits before
    /// it are as they were.
    pub(super) fn append_unsynced(&mut self, edit: &mut VersionEdit) -> Result<(), Failure> {
        self.outcomes.put_into(edit);
        // INVARIANT(counters-agree): each edit says how far the counters are.
        edit.next_file_number = Some(self.files.numbers.high_water());
        // INVARIANT(no-log-file-missing): and how far the log is durable, so that an older copy of
        // its newest segment is told from this one.
        edit.log_synced = Some(self.wal.durable.synced());
        // An earlier edit may have named a larger number: those of flushes and changes need not be
        // visible yet. The manifest refuses one that falls.
        let recorded = self.manifest.image().last_seqno;
        edit.last_seqno = edit.last_seqno.map(|last| last.max(recorded));
        let releases = self.failures.reserve.releases();
        let mut written = self.write(edit);
        if let Err(failure) = &written
            && self.manifest.failure().is_none()
            && self.failures.use_reserve(failure, releases)
        {
            written = self.write(edit);
        }
        match &written {
            Ok(()) => {
                self.failures.recover(Party::Manifest);
                self.outcomes.appended();
                self.counts.edits.add(1);
            }
            Err(failure) if self.manifest.failure().is_none() => {
                self.failures.degrade(Party::Manifest, failure.clone());
            }
            Err(failure) => self.failures.fail(failure.clone()),
        }
        written
    }

    /// Makes the appended edits durable. Then rolls over to a fresh manifest if the current one has
    /// grown.
    ///
    /// # Errors
    /// The manifest has failed: after a power cut it may or may not hold the edits. So nothing may
    /// be deleted or acknowledged any more in this incarnation.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        let mut synced = self.manifest.sync().map_err(Failure::from);
        if synced.is_ok() && self.manifest.wants_roll_over() {
            match self.roll_over(None) {
                Err(failure) if self.manifest.failure().is_none() => {
                    // The edits are durable where they are. The next sync tries the rollover again.
                    tracing::warn!(%failure, "the manifest could not be rewritten");
                    self.failures.attempts.retries.add(1);
                }
                rolled => synced = rolled,
            }
        }
        match &synced {
            Ok(()) => {
                self.counts.manifest_syncs.add(1);
                self.outcomes.synced(&self.files.obsolete);
            }
            Err(failure) => self.failures.fail(failure.clone()),
        }
        synced
    }

    /// Tries a manifest again that could not be written, after a pause. Whoever had the edit may
    /// not want it any more, and then nobody else would find out that there is space again.
    pub(super) fn look_after_manifest(&mut self) {
        if self.failures.is_stopped() || self.failures.trouble_of(Party::Manifest).is_none() {
            self.manifest_retry = None;
            return;
        }
        let now = self.environment.now();
        let retry = match self.manifest_retry.take() {
            Some(retry) if retry.waits(now) => retry,
            Some(_) if self.append(VersionEdit::default()).is_ok() => return,
            failed => {
                let mut retry = failed.unwrap_or(Retry::fresh(now));
                retry.failed(now, LONGEST_NO_SPACE);
                retry
            }
        };
        self.seal_policy.look_again(retry.at());
        self.manifest_retry = Some(retry);
    }

    /// Makes durable that every number given out so far is used, whatever became of it.
    pub(super) fn keep_numbers(&mut self) -> Result<(), Failure> {
        match self.failures.health.failure() {
            Some(failure) => Err(failure),
            None => self.append(VersionEdit::default()),
        }
    }

    fn write(&mut self, edit: &VersionEdit) -> Result<(), Failure> {
        if self.manifest.must_roll_over() {
            return self.roll_over(Some(edit));
        }
        Ok(self.manifest.append_unsynced(edit)?)
    }

    fn roll_over(&mut self, edit: Option<&VersionEdit>) -> Result<(), Failure> {
        let number = self.files.numbers.take();
        let old = self.manifest.roll_over(number, edit)?;
        let path = FileKind::Manifest(old).path(self.environment.dir());
        if let Err(error) = self.environment.vfs.remove(&path) {
            // The file is garbage now. The next open removes it.
            tracing::warn!(path = %path.display(), %error, "an old manifest was left behind");
        }
        Ok(())
    }
}
